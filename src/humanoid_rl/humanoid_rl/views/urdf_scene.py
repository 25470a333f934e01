"""Visual shapes and forward kinematics of a URDF, for drawing a robot (NumPy only: no ROS, no browser).

Frames and units: metres, radians, quaternions are (w, x, y, z). A link's frame is that of its parent joint,
as in http://wiki.ros.org/urdf/XML/link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from humanoid_rl_core.errors import UserError
from numpy.typing import NDArray

from humanoid_rl_core import rotation

Array = NDArray[np.floating[Any]]
ShapeKind = Literal["box", "cylinder", "sphere", "capsule"]
_MOVING = ("revolute", "continuous", "prismatic")
_DEFAULT_COLOUR = (0.6, 0.6, 0.6, 1.0)  # a visual without a material


@dataclass(frozen=True)
class Visual:
    """One visual shape, posed in its link's frame.

    size: box: full extents x, y, z; cylinder and capsule: radius, length along z (a capsule's without its
    caps); sphere: radius. position [3] m, quaternion [4], colour: red, green, blue, alpha in 0..1.
    """

    link: str
    kind: ShapeKind
    size: tuple[float, ...]
    position: Array
    quaternion: Array
    colour: tuple[float, float, float, float]


@dataclass(frozen=True)
class Joint:
    """A joint between two links: origin (position [3], quaternion [4]) in the parent's frame, unit axis [3].

    kind is the URDF's type. mimic is (joint, multiplier, offset) or None.
    """

    name: str
    kind: str
    parent: str
    child: str
    position: Array
    quaternion: Array
    axis: Array
    mimic: tuple[str, float, float] | None = None


@dataclass(frozen=True)
class UrdfScene:
    """Links from the root outwards, the joints that carry them, their visual shapes.

    `joints[i]` is the parent joint of `links[i + 1]`; `links[0]` is the root.
    """

    name: str
    links: tuple[str, ...]
    joints: tuple[Joint, ...]
    visuals: tuple[Visual, ...]

    @property
    def root(self) -> str:
        return self.links[0]

    @property
    def moving_joints(self) -> tuple[str, ...]:
        """Names of the joints that can move, from the root outwards."""
        return tuple(j.name for j in self.joints if j.kind in _MOVING)

    def path(self, link: str) -> str:
        """The link's place in the tree, as 'root/child/.../link'."""
        parent_of = {j.child: j.parent for j in self.joints}
        parts = [link]
        while parts[-1] in parent_of:
            parts.append(parent_of[parts[-1]])
        return "/".join(reversed(parts))

    @cached_property
    def _parent_index(self) -> list[int]:
        index = {link: i for i, link in enumerate(self.links)}
        return [index[j.parent] for j in self.joints]

    @cached_property
    def _origins(self) -> tuple[Array, Array, Array, Array, Array]:
        """Joint positions [J, 3], quaternions [J, 4], axes [J, 3]; [J, 1]: 1 if it turns, slides."""
        turns = np.array([[j.kind in ("revolute", "continuous")] for j in self.joints], dtype=float)
        slides = np.array([[j.kind == "prismatic"] for j in self.joints], dtype=float)
        return (
            np.array([j.position for j in self.joints]).reshape(-1, 3),
            np.array([j.quaternion for j in self.joints]).reshape(-1, 4),
            np.array([j.axis for j in self.joints]).reshape(-1, 3),
            turns.reshape(-1, 1),
            slides.reshape(-1, 1),
        )

    def joint_poses(self, positions: Mapping[str, float]) -> tuple[Array, Array]:
        """Each joint's child frame in its parent's: positions [J, 3] m, quaternions [J, 4].

        `positions` maps joint names to rad or m; joints it does not name are at 0, mimics follow.
        """
        values = np.zeros((len(self.joints), 1))
        for i, joint in enumerate(self.joints):
            if joint.mimic is not None:
                source, multiplier, offset = joint.mimic
                values[i] = multiplier * positions.get(source, 0.0) + offset
            else:
                values[i] = positions.get(joint.name, 0.0)
        origin, turned, axis, turns, slides = self._origins
        quaternions = rotation.multiply(turned, rotation.from_axis_angle(axis, (values * turns)[:, 0]))
        return origin + rotation.rotate(turned, axis * values * slides), quaternions

    def link_transforms(self, positions: Mapping[str, float]) -> Array:
        """Homogeneous transforms [L, 4, 4] from each link's frame to the root's, in the order of `links`."""
        local_position, local_quaternion = self.joint_poses(positions)
        local = np.zeros((len(self.joints), 4, 4))
        local[:, :3, :3] = rotation.to_matrix(local_quaternion)
        local[:, :3, 3] = local_position
        local[:, 3, 3] = 1.0
        transforms = np.empty((len(self.links), 4, 4))
        transforms[0] = np.eye(4)
        for i, parent in enumerate(self._parent_index):
            transforms[i + 1] = transforms[parent] @ local[i]
        return transforms

    @cached_property
    def _visual_transforms(self) -> tuple[list[int], Array, Array, Array]:
        """Link index [V], shape poses in their links [V, 4, 4], half boxes [V, 3], ball radii [V]."""
        index = {link: i for i, link in enumerate(self.links)}
        pose = np.zeros((len(self.visuals), 4, 4))
        half = np.zeros((len(self.visuals), 3))
        ball = np.zeros(len(self.visuals))
        for i, visual in enumerate(self.visuals):
            pose[i, :3, :3] = rotation.to_matrix(visual.quaternion)
            pose[i, :3, 3] = visual.position
            pose[i, 3, 3] = 1.0
            if visual.kind == "box":
                half[i] = np.array(visual.size) / 2
            elif visual.kind == "cylinder":
                half[i] = visual.size[0], visual.size[0], visual.size[1] / 2
            else:
                ball[i] = visual.size[0]
                half[i, 2] = visual.size[1] / 2 if visual.kind == "capsule" else 0.0
        return [index[v.link] for v in self.visuals], pose, half, ball

    def lowest_point(self, positions: Mapping[str, float], root_quaternion: Array) -> float:
        """Height, m, of the lowest visual point above the root's origin, the root turned by [4].

        Cylinders count as the boxes around them. 0 for a robot without visuals.
        """
        if not self.visuals:
            return 0.0
        index, pose, half, ball = self._visual_transforms
        up = rotation.to_matrix(root_quaternion)[2]
        world = self.link_transforms(positions)[index] @ pose
        heights = np.einsum("i,vi->v", up, world[:, :3, 3])
        reach = np.abs(np.einsum("i,vij->vj", up, world[:, :3, :3]) * half).sum(axis=1) + ball
        return float((heights - reach).min())


def _numbers(text: str | None, count: int, where: str) -> Array:
    try:
        values = np.array([float(part) for part in (text or "").split()])
    except ValueError:
        raise UserError(f"URDF: {where} is '{text}', expected {count} numbers") from None
    if values.shape != (count,) or not np.isfinite(values).all():
        raise UserError(f"URDF: {where} is '{text}', expected {count} numbers")
    return values


def _origin(element: ElementTree.Element, where: str) -> tuple[Array, Array]:
    origin = element.find("origin")
    if origin is None:
        return np.zeros(3), rotation.IDENTITY
    rpy = _numbers(origin.get("rpy", "0 0 0"), 3, f"rpy of {where}")
    return _numbers(origin.get("xyz", "0 0 0"), 3, f"xyz of {where}"), rotation.from_rpy(*rpy)


def _colour(element: ElementTree.Element | None, where: str) -> tuple[float, float, float, float] | None:
    colour = None if element is None else element.find("color")
    if colour is None:
        return None
    red, green, blue, alpha = _numbers(colour.get("rgba"), 4, f"rgba of {where}")
    return float(red), float(green), float(blue), float(alpha)


def _shape(geometry: ElementTree.Element | None, where: str) -> tuple[ShapeKind, tuple[float, ...]]:
    if geometry is None or len(geometry) == 0:
        raise UserError(f"URDF: {where} has no geometry")
    shape = geometry[0]
    if shape.tag == "box":
        return "box", tuple(_numbers(shape.get("size"), 3, f"box size of {where}").tolist())
    if shape.tag == "sphere":
        return "sphere", (float(_numbers(shape.get("radius"), 1, f"radius of {where}")[0]),)
    if shape.tag in ("cylinder", "capsule"):
        radius = float(_numbers(shape.get("radius"), 1, f"radius of {where}")[0])
        length = float(_numbers(shape.get("length"), 1, f"length of {where}")[0])
        return ("cylinder" if shape.tag == "cylinder" else "capsule"), (radius, length)
    raise UserError(
        f"URDF: {where} is a {shape.tag}; the viewer draws box, cylinder, capsule and sphere, "
        "give the visual one of those"
    )


def _joint(element: ElementTree.Element) -> Joint:
    name = element.get("name", "")
    kind = element.get("type", "")
    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise UserError(f"URDF: joint '{name}' needs a parent and a child")
    if kind not in (*_MOVING, "fixed"):
        raise UserError(f"URDF: joint '{name}' is of type '{kind}'; expected {', '.join(_MOVING)} or fixed")
    position, quaternion = _origin(element, f"joint '{name}'")
    axis_element = element.find("axis")
    axis = np.array([1.0, 0.0, 0.0])  # the URDF's default
    if axis_element is not None:
        axis = _numbers(axis_element.get("xyz"), 3, f"axis of joint '{name}'")
    length = float(np.linalg.norm(axis))
    if kind != "fixed" and length == 0.0:
        raise UserError(f"URDF: axis of joint '{name}' has length zero")
    mimic = element.find("mimic")
    return Joint(
        name,
        kind,
        parent.get("link", ""),
        child.get("link", ""),
        position,
        quaternion,
        axis / length if length else axis,
        None
        if mimic is None
        else (mimic.get("joint", ""), float(mimic.get("multiplier", 1.0)), float(mimic.get("offset", 0.0))),
    )


def read_scene(urdf: str) -> UrdfScene:
    """Parses expanded URDF text.

    Raises:
        UserError: not XML, not one tree of links, or a shape or joint type that cannot be drawn.
    """
    try:
        robot = ElementTree.fromstring(urdf)
    except ElementTree.ParseError as error:
        raise UserError(f"URDF: not valid XML ({error})") from None
    if robot.tag != "robot":
        raise UserError(f"URDF: the root element is '{robot.tag}', expected 'robot'")
    materials = {
        m.get("name", ""): _colour(m, f"material '{m.get('name')}'") for m in robot.findall("material")
    }
    link_elements = {link.get("name", ""): link for link in robot.findall("link")}
    children: dict[str, list[Joint]] = {name: [] for name in link_elements}
    is_child = set()
    for element in robot.findall("joint"):
        joint = _joint(element)
        for link in (joint.parent, joint.child):
            if link not in link_elements:
                raise UserError(f"URDF: joint '{joint.name}' names link '{link}', which is not defined")
        if joint.child in is_child:
            raise UserError(f"URDF: link '{joint.child}' has two parent joints")
        children[joint.parent].append(joint)
        is_child.add(joint.child)
    roots = [name for name in link_elements if name not in is_child]
    if len(roots) != 1:
        raise UserError(f"URDF: expected one root link, found {len(roots)} ({', '.join(roots) or 'a loop'})")

    links, joints = [roots[0]], []
    for link in links:  # `links` grows while it is read: breadth first
        for joint in children[link]:
            links.append(joint.child)
            joints.append(joint)

    visuals = []
    for link in links:
        for number, element in enumerate(link_elements[link].findall("visual")):
            where = f"visual {number} of link '{link}'"
            kind, size = _shape(element.find("geometry"), where)
            position, quaternion = _origin(element, where)
            material = element.find("material")
            colour = _colour(material, where)
            if colour is None and material is not None:
                colour = materials.get(material.get("name", ""))
            visuals.append(Visual(link, kind, size, position, quaternion, colour or _DEFAULT_COLOUR))
    if len(links) != len(link_elements):
        lost = sorted(set(link_elements) - set(links))
        raise UserError(f"URDF: links {', '.join(lost)} form a loop")
    return UrdfScene(robot.get("name", ""), tuple(links), tuple(joints), tuple(visuals))
