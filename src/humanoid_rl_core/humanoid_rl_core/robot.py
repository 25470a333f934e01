"""The robot as numbers: joint order, limits, motors, gains and default pose, from urdf/ and config/robot/.

Every array is float64, indexed by motor: entry i belongs to `joint_names[i]` and to slot i of the wire.
Arrays are read-only because a loaded model is shared by all who load it; copy before changing.
"""

import hashlib
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import xacro
from numpy.typing import NDArray

from . import rotation
from .errors import UserError, nearest
from .resources import share_dir
from .typed_yaml import load_dataclass, load_yaml

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gains:
    """Joint impedance gains in motor order: torque = stiffness (q* - q) - damping q̇."""

    stiffness: FloatArray
    """[n] Nm/rad"""
    damping: FloatArray
    """[n] Nm s/rad"""


@dataclass(frozen=True, eq=False)
class CameraMount:
    """A depth camera of the robot and where it sits. Its frame: x forward, y left, z up."""

    frame: str
    """The description's link of that name."""
    body: str
    """The link that carries it, moved by a joint or the base."""
    position: FloatArray
    """[3] m, of the camera in the body's frame"""
    quaternion: FloatArray
    """[4] w, x, y, z, of the camera in the body's frame"""
    horizontal_fov: float
    """rad"""
    near: float
    far: float
    """m along the optical axis: between the two it measures depth."""


@dataclass(frozen=True, eq=False)
class RobotModel:
    """One robot in one variant. Build it with `load_robot`."""

    name: str
    variant: str
    mode_machine: tuple[int, ...]
    """The LowState.mode_machine ids of the machines this description is right for."""
    urdf: str
    """The expanded description."""
    description_hash: str
    """sha256 (hex) over everything that changes how the robot moves; see `description_hash`."""
    joint_names: tuple[str, ...]
    """Motor order: the wire index is the position in this tuple."""
    position_lower: FloatArray
    """[n] rad"""
    position_upper: FloatArray
    """[n] rad"""
    velocity_limit: FloatArray
    """[n] rad/s"""
    effort_limit: FloatArray
    """[n] Nm"""
    armature: FloatArray
    """[n] kg m^2, rotor and gear inertia at the joint"""
    default_position: FloatArray
    """[n] rad, the pose in which the robot stands"""
    gains: Mapping[str, Gains]
    """Named gain sets: "compliant" for policies, "stiff" to stand without one."""
    base_link: str
    imu_link: str
    """Frame of the IMU that LowState reports, fixed to the base link."""
    foot_links: tuple[str, str]
    """Left, right; the links that carry the soles."""
    default_base_height: float
    """m, base frame above the floor with the soles on it at `default_position`"""
    cameras: Mapping[str, CameraMount]
    """By name; no part of `description_hash`."""

    @property
    def joint_count(self) -> int:
        return len(self.joint_names)


# --- what config/robot/<name>.yaml may hold ---


@dataclass(frozen=True)
class _Variant:
    mode_machine: tuple[int, ...]
    motors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Motor:
    armature: float


@dataclass(frozen=True)
class _Joint:
    motor: str
    motor_count: int = 1
    default: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class _Gains:
    """Either by armature (both first fields) or one [stiffness, damping] per kind of joint."""

    natural_frequency: float | None = None
    damping_ratio: float | None = None
    table: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_armature = (self.natural_frequency is not None, self.damping_ratio is not None)
        if any(by_armature) != all(by_armature) or any(by_armature) == bool(self.table):
            raise ValueError("give natural_frequency and damping_ratio, or a table, and not both")


@dataclass(frozen=True)
class _Camera:
    link: str
    horizontal_fov: float
    near: float
    far: float

    def __post_init__(self) -> None:
        if not 0.0 < self.horizontal_fov < math.pi:
            raise ValueError(f"horizontal_fov must be between 0 and pi rad, found {self.horizontal_fov}")
        if not 0.0 < self.near < self.far:
            raise ValueError(f"near must be above zero and below far, found {self.near} and {self.far}")


@dataclass(frozen=True)
class _RobotConfig:
    description: str
    base_link: str
    imu_link: str
    foot_links: tuple[str, str]
    default_base_height: float
    variants: Mapping[str, _Variant]
    motors: Mapping[str, _Motor]
    joint_order: tuple[str, ...]
    joints: Mapping[str, _Joint]
    gains: Mapping[str, _Gains]
    cameras: Mapping[str, _Camera] = field(default_factory=dict)


def known_robots() -> tuple[str, ...]:
    """Names `load_robot` takes: the files in config/robot/."""
    return tuple(sorted(path.stem for path in (share_dir() / "config" / "robot").glob("*.yaml")))


def variants_of(name: str) -> Mapping[str, tuple[int, ...]]:
    """The LowState.mode_machine ids of each variant that config/robot/<name>.yaml describes.

    Raises:
        UserError: unknown robot, or the file is not as it must be.
    """
    _, config = _robot_config(share_dir(), name)
    return {variant: spec.mode_machine for variant, spec in config.variants.items()}


def load_robot(name: str = "g1", variant: str = "rev_1_0") -> RobotModel:
    """The robot described by config/robot/<name>.yaml and the xacro it names. Cached.

    Args:
        name: a file of config/robot/ without its ending.
        variant: a key of that file's `variants`.

    Raises:
        UserError: unknown robot or variant, or the two files contradict each other.
    """
    return _load(share_dir(), name, variant)


@lru_cache
def _load(share: Path, name: str, variant: str) -> RobotModel:
    path, config = _robot_config(share, name)
    if variant not in config.variants:
        raise UserError(
            f"robot {name} has no variant '{variant}'{nearest(variant, config.variants)} "
            f"(known: {', '.join(config.variants)})"
        )
    urdf = expand_xacro(share / "urdf" / config.description, {"variant": variant})
    return build_robot(name, variant, config, urdf, str(path))


def _robot_config(share: Path, name: str) -> tuple[Path, _RobotConfig]:
    path = share / "config" / "robot" / f"{name}.yaml"
    known = known_robots()
    if name not in known:
        raise UserError(f"unknown robot '{name}'{nearest(name, known)} (known: {', '.join(known)})")
    return path, load_dataclass(_RobotConfig, load_yaml(path), str(path))


def expand_xacro(path: str | Path, arguments: Mapping[str, str]) -> str:
    """URDF text of a xacro file; needs no ROS.

    Raises:
        UserError: the file is missing or xacro refuses it.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such robot description")
    try:
        document = xacro.process_file(str(path), mappings=dict(arguments))
    except Exception as error:  # xacro raises its own, expat's and Python's errors alike
        raise UserError(f"{path}: xacro: {str(error).splitlines()[0]}") from error
    return str(document.documentElement.toxml())


def index_of(robot: RobotModel, joint: str) -> int:
    """Motor index of a joint.

    Raises:
        UserError: the robot has no such joint.
    """
    try:
        return robot.joint_names.index(joint)
    except ValueError:
        raise UserError(
            f"robot {robot.name} has no joint '{joint}'{nearest(joint, robot.joint_names)}"
        ) from None


def indices_of(robot: RobotModel, patterns: Sequence[str]) -> NDArray[np.intp]:
    """Motor indices of all joints a regular expression matches whole, ascending, e.g. [".*_knee_joint"].

    Raises:
        UserError: a pattern matches no joint.
    """
    found: set[int] = set()
    for pattern in patterns:
        matches = {i for i, joint in enumerate(robot.joint_names) if re.fullmatch(pattern, joint)}
        if not matches:
            raise UserError(
                f"robot {robot.name} has no joint like '{pattern}'{nearest(pattern, robot.joint_names)}"
            )
        found |= matches
    return np.array(sorted(found), dtype=np.intp)


def build_robot(name: str, variant: str, config: _RobotConfig, urdf: str, where: str) -> RobotModel:
    """Put the two sources together; where is the file that messages name.

    Raises:
        UserError: the sources contradict each other.
    """
    root = ET.fromstring(urdf)
    _check_tree(root, config, where)
    movable = {
        joint.get("name", ""): joint for joint in root.findall("joint") if joint.get("type") != "fixed"
    }
    _check_joints(movable, config.joint_order, where)

    joints = [_joint_of(joint, config.joints, where) for joint in config.joint_order]
    overrides = config.variants[variant].motors
    for kind in overrides:
        if kind not in config.joints:
            raise UserError(
                f"{where}: variants.{variant}.motors: no joint kind '{kind}'{nearest(kind, config.joints)}"
            )
    armature = []
    for kind, joint in joints:
        motor = overrides.get(kind, joint.motor)
        if motor not in config.motors:
            raise UserError(f"{where}: joints.{kind}: no motor '{motor}'{nearest(motor, config.motors)}")
        armature.append(config.motors[motor].armature * joint.motor_count)
    default = [
        -joint.default
        if joint.mirrored and joint.default and joint_name.startswith("right_")
        else joint.default
        for joint_name, (_, joint) in zip(config.joint_order, joints, strict=True)
    ]
    limits = {
        key: _array([_limit(movable[joint], key, where) for joint in config.joint_order])
        for key in ("lower", "upper", "velocity", "effort")
    }
    for i, joint_name in enumerate(config.joint_order):
        if not limits["lower"][i] < limits["upper"][i]:
            raise UserError(f"{where}: {joint_name}: the lower limit is not below the upper one")
        if not limits["lower"][i] <= default[i] <= limits["upper"][i]:
            raise UserError(f"{where}: {joint_name}: default {default[i]} rad is outside the limits")
        if min(limits["velocity"][i], limits["effort"][i], armature[i]) <= 0.0:
            raise UserError(f"{where}: {joint_name}: velocity and effort limit and armature must be positive")

    kinds = [kind for kind, _ in joints]
    return RobotModel(
        name=name,
        variant=variant,
        mode_machine=config.variants[variant].mode_machine,
        urdf=urdf,
        description_hash=description_hash(root, config, _array(default), _array(armature)),
        joint_names=config.joint_order,
        position_lower=limits["lower"],
        position_upper=limits["upper"],
        velocity_limit=limits["velocity"],
        effort_limit=limits["effort"],
        armature=_array(armature),
        default_position=_array(default),
        gains=MappingProxyType(
            {key: _gains(spec, key, kinds, armature, where) for key, spec in config.gains.items()}
        ),
        base_link=config.base_link,
        imu_link=config.imu_link,
        foot_links=config.foot_links,
        default_base_height=config.default_base_height,
        cameras=MappingProxyType(
            {key: _mount(spec, root, f"{where}: cameras.{key}") for key, spec in config.cameras.items()}
        ),
    )


def _mount(camera: _Camera, root: ET.Element, where: str) -> CameraMount:
    """Follows the fixed joints from the camera's link to the one that carries it."""
    joints = {_end(joint, "child"): joint for joint in root.findall("joint")}
    links = [link.get("name", "") for link in root.findall("link")]
    if camera.link not in links:
        raise UserError(f"{where}: the description has no link '{camera.link}'{nearest(camera.link, links)}")
    body, position, quaternion = camera.link, np.zeros(3), rotation.IDENTITY
    while body in joints and joints[body].get("type") == "fixed":
        joint = joints[body]
        origin = joint.find("origin")
        given = {} if origin is None else origin.attrib
        xyz, rpy = (np.array(given.get(key, "0 0 0").split(), dtype=float) for key in ("xyz", "rpy"))
        local = rotation.from_rpy(*rpy)
        position = xyz + rotation.rotate(local, position)
        quaternion = rotation.multiply(local, quaternion)
        body = _end(joint, "parent")
    return CameraMount(
        camera.link,
        body,
        _array(position),
        _array(quaternion),
        camera.horizontal_fov,
        camera.near,
        camera.far,
    )


def _end(joint: ET.Element, end: Literal["parent", "child"]) -> str:
    element = joint.find(end)
    return "" if element is None else element.get("link", "")


def _check_tree(root: ET.Element, config: _RobotConfig, where: str) -> None:
    for tag in ("link", "joint"):
        names = [element.get("name", "") for element in root.findall(tag)]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{where}: the description has two {tag}s named '{name}'")
    links = [link.get("name", "") for link in root.findall("link")]
    for link in (config.base_link, config.imu_link, *config.foot_links):
        if link not in links:
            raise UserError(f"{where}: the description has no link '{link}'{nearest(link, links)}")
    children = {child.get("link", "") for child in root.iterfind("joint/child")}
    roots = [link for link in links if link not in children]
    if roots != [config.base_link]:
        raise UserError(
            f"{where}: base_link is '{config.base_link}', the description's root is {', '.join(roots)}"
        )


def _check_joints(movable: Mapping[str, ET.Element], order: tuple[str, ...], where: str) -> None:
    for name, joint in movable.items():
        if joint.find("mimic") is not None:
            raise UserError(f"{where}: joint '{name}' mimics another; every joint must have its own motor")
        if joint.get("type") != "revolute":
            raise UserError(
                f"{where}: joint '{name}' is {joint.get('type')}; only revolute joints are supported"
            )
        if name not in order:
            raise UserError(f"{where}: joint_order lacks the description's joint '{name}'")
    for name in order:
        if order.count(name) > 1:
            raise UserError(f"{where}: joint_order has '{name}' twice")
        if name not in movable:
            raise UserError(
                f"{where}: joint_order: the description has no joint '{name}'{nearest(name, movable)}"
            )


def _joint_of(name: str, joints: Mapping[str, _Joint], where: str) -> tuple[str, _Joint]:
    kind = name.removesuffix("_joint").removeprefix("left_").removeprefix("right_")
    if kind not in joints:
        raise UserError(f"{where}: joints has no entry '{kind}' for {name}{nearest(kind, joints)}")
    return kind, joints[kind]


def _limit(joint: ET.Element, key: str, where: str) -> float:
    limit = joint.find("limit")
    text = None if limit is None else limit.get(key)
    if text is None:
        raise UserError(f"{where}: joint '{joint.get('name')}' has no {key} limit in the description")
    return float(text)


def _gains(spec: _Gains, name: str, kinds: list[str], armature: list[float], where: str) -> Gains:
    if spec.natural_frequency is not None and spec.damping_ratio is not None:
        omega = 2.0 * math.pi * spec.natural_frequency
        inertia = np.array(armature)
        return Gains(_array(inertia * omega**2), _array(2.0 * spec.damping_ratio * inertia * omega))
    for kind in spec.table:
        if kind not in kinds:
            raise UserError(f"{where}: gains.{name}.table: no joint kind '{kind}'{nearest(kind, kinds)}")
    missing = [kind for kind in kinds if kind not in spec.table]
    if missing:
        raise UserError(f"{where}: gains.{name}.table: missing key '{missing[0]}'")
    return Gains(
        _array([spec.table[kind][0] for kind in kinds]), _array([spec.table[kind][1] for kind in kinds])
    )


def _array(values: Sequence[float] | FloatArray) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


_NUMBERS = re.compile(r"[-+.\deE\s]+")


def _canonical(element: ET.Element) -> list[object]:
    """Nested lists of tag, sorted attributes and children, numbers rounded to nine digits."""
    attributes = []
    for key, value in sorted(element.attrib.items()):
        text = value
        if key != "name" and _NUMBERS.fullmatch(value):
            try:
                # + 0.0 turns -0.0 into 0.0.
                text = " ".join(f"{float(word) + 0.0:.9g}" for word in value.split())
            except ValueError:
                text = value
        attributes.append([key, text])
    return [element.tag, attributes, [_canonical(child) for child in element if child.tag != "visual"]]


def description_hash(
    root: ET.Element, config: _RobotConfig, default: FloatArray, armature: FloatArray
) -> str:
    """sha256 (hex) of everything that changes how the robot moves or how its numbers are to be read.

    In: links and joints of the URDF, joint order, default pose and armature, frame names, standing height.
    Left out, because no policy depends on them: visual geometry, comments, the way numbers are written, tags
    other than link and joint (ros2_control), and the gain sets (a policy carries its own).
    """
    content = {
        "urdf": sorted((_canonical(e) for e in root if e.tag in ("link", "joint")), key=str),
        "joint_order": list(config.joint_order),
        "default_position": [f"{value:.9g}" for value in default],
        "armature": [f"{value:.9g}" for value in armature],
        "frames": [config.base_link, config.imu_link, *config.foot_links],
        "default_base_height": f"{config.default_base_height:.9g}",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
