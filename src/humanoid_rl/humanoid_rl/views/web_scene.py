"""The 3-D part of the browser view: floor, robot, ghost of the target pose, arrows, markers (no ROS).

World frame: x forward, y left, z up, metres; quaternions are (w, x, y, z). Everything hangs below one node,
`/world`, which is shifted sideways so that the robot stays in front of the camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from humanoid_rl.views.urdf_scene import UrdfScene, Visual
from humanoid_rl_core import rotation

Array = NDArray[np.floating[Any]]
MarkerKind = Literal["arrow", "sphere", "cylinder", "box", "lines"]
WORLD = "/world"
_GHOST_COLOUR = (64, 156, 255)
_COMMAND_COLOUR = (22, 163, 74)
_VELOCITY_COLOUR = (37, 99, 235)
_ARROW_METRES_PER_SPEED = 0.6  # length of an arrow at 1 m/s: a stride, short enough to stay in view
_ARC_RADIUS = 0.32  # m, of the turning arrow, and where the others begin: just outside the shoulders
_ARC_POINTS = 24
_MOST_MARKERS = 200  # shown and hidden; a topic that counts its ids up must not fill the browser


@dataclass(frozen=True)
class Marker:
    """One shape of a visualization_msgs/Marker, already in the world frame.

    kind 'arrow': points [2, 3] from tail to tip; 'sphere', 'cylinder', 'box': position [3], quaternion [4],
    size [3] full extents; 'lines': points [N, 2, 3]. colour: red, green, blue, alpha in 0..1.
    """

    kind: MarkerKind
    colour: tuple[float, float, float, float]
    position: Array
    quaternion: Array
    size: Array
    points: Array


def _rgb(colour: Sequence[float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * min(max(c, 0.0), 1.0)) for c in colour[:3])
    return red, green, blue


class RobotScene:
    """A robot in the browser: a frame for each link, in the URDF's tree, its shapes below it."""

    def __init__(
        self,
        server: viser.ViserServer,
        scene: UrdfScene,
        name: str,
        *,
        colour: tuple[int, int, int] | None = None,
        opacity: float | None = None,
        visible: bool = True,
    ) -> None:
        """colour (0..255) and opacity (0..1) override the description's."""
        self._server = server
        self._scene = scene
        self._frames = {
            link: server.scene.add_frame(f"{WORLD}/{name}/{scene.path(link)}", show_axes=False)
            for link in scene.links
        }
        self._frames[scene.root].visible = visible
        for number, visual in enumerate(scene.visuals):
            node = f"{WORLD}/{name}/{scene.path(visual.link)}/visual_{number}"
            self._add_visual(node, visual, colour, opacity)
        self.pose(np.zeros(3), rotation.IDENTITY, {})

    def _add_visual(
        self, node: str, visual: Visual, colour: tuple[int, int, int] | None, opacity: float | None
    ) -> None:
        alpha = visual.colour[3] if opacity is None else opacity
        style: dict[str, Any] = {
            "color": colour or _rgb(visual.colour),
            "opacity": None if alpha >= 1.0 else alpha,
            "position": visual.position,
            "wxyz": visual.quaternion,
            "cast_shadow": opacity is None,
            "receive_shadow": False,
        }
        add = self._server.scene
        if visual.kind == "box":
            add.add_box(node, dimensions=visual.size, **style)  # type: ignore[arg-type]
        elif visual.kind == "sphere":
            add.add_icosphere(node, radius=visual.size[0], subdivisions=3, **style)
        elif visual.kind == "cylinder":
            add.add_cylinder(node, radius=visual.size[0], height=visual.size[1], radial_segments=24, **style)
        else:
            mesh = trimesh.creation.capsule(height=visual.size[1], radius=visual.size[0], count=(24, 24))
            # trimesh releases differ in whether a capsule is centred.
            vertices = mesh.vertices - mesh.bounds.mean(axis=0)
            add.add_mesh_simple(node, vertices, mesh.faces, **style)

    @property
    def visible(self) -> bool:
        return self._frames[self._scene.root].visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._frames[self._scene.root].visible = visible

    def pose(self, position: Array, quaternion: Array, joints: Mapping[str, float]) -> None:
        """Moves the root to position [3] m, quaternion [4] in the world, the joints to their values, rad."""
        root = self._frames[self._scene.root]
        root.position, root.wxyz = position, quaternion
        positions, quaternions = self._scene.joint_poses(joints)
        for joint, at, turned in zip(self._scene.joints, positions, quaternions, strict=True):
            frame = self._frames[joint.child]
            frame.wxyz = turned
            if joint.kind == "prismatic" or not np.array_equal(frame.position, at):
                frame.position = at


class WebScene:
    """Everything drawn: `pose_robot`, `show_command`, `show_velocity`, `show_markers` update it in place."""

    def __init__(self, server: viser.ViserServer, scene: UrdfScene) -> None:
        self._server = server
        self._add_stage()
        self._world = server.scene.add_frame(WORLD, show_axes=False)
        self.robot = RobotScene(server, scene, "robot")
        self.ghost = RobotScene(server, scene, "ghost", colour=_GHOST_COLOUR, opacity=0.28, visible=False)
        self._command = self._add_arrow("command", _COMMAND_COLOUR)
        self._velocity = self._add_arrow("velocity", _VELOCITY_COLOUR)
        self._turn = server.scene.add_line_segments(
            f"{WORLD}/turn/arc",
            np.zeros((_ARC_POINTS, 2, 3)),
            colors=_COMMAND_COLOUR,
            thickness=0.014,
            visible=False,
        )
        self._turn_tip = self._add_arrow("turn/tip", _COMMAND_COLOUR)
        self._markers: dict[str, tuple[str, Any]] = {}
        self._origin: Array = np.zeros(2)

    def _add_stage(self) -> None:
        scene = self._server.scene
        scene.set_up_direction("+z")
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map(None)
        scene.add_light_hemisphere(
            "/light/sky", sky_color=(255, 255, 255), ground_color=(150, 156, 166), intensity=1.15
        )
        scene.add_light_directional(
            "/light/key", color=(255, 250, 242), intensity=2.3, cast_shadow=True, position=(2.2, -1.6, 4.0)
        )
        scene.add_light_directional(
            "/light/fill", color=(214, 228, 255), intensity=0.5, position=(-3.0, 2.5, 2.0)
        )
        scene.set_background_image(_sky())
        scene.add_grid(
            f"{WORLD}/floor",
            width=60.0,
            height=60.0,
            cell_size=0.5,
            cell_color=(203, 208, 216),
            section_size=2.0,
            section_color=(168, 176, 189),
            plane_color=(233, 236, 241),
            plane_opacity=1.0,
            fade_distance=22.0,
            shadow_opacity=0.28,
        )
        camera = self._server.initial_camera
        camera.position, camera.look_at, camera.fov = (1.75, -1.65, 1.15), (0.0, 0.0, 0.66), 0.82

    def _add_arrow(self, name: str, colour: tuple[int, int, int]) -> viser.ArrowsHandle:
        return self._server.scene.add_arrows(
            f"{WORLD}/{name}",
            np.array([[[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]]),
            colour,
            shaft_radius=0.014,
            head_radius=0.034,
            head_length=0.08,
            visible=False,
        )

    def pose_robot(
        self, position: Array, quaternion: Array, joints: Mapping[str, float], *, follow: bool
    ) -> None:
        """Robot's root pose in the world (m, [4]) and joints (rad); `follow` keeps it in the picture."""
        self.robot.pose(position, quaternion, joints)
        origin = position[:2] if follow else np.zeros(2)
        if np.abs(origin - self._origin).max() > 0.005:  # smaller shifts are not seen, only sent
            self._origin = origin.copy()
            self._world.position = np.array([-origin[0], -origin[1], 0.0])

    def show_command(self, command: Sequence[float] | None, position: Array, heading: float) -> None:
        """Arrow of the commanded vx, vy (m/s, robot's heading frame) and yaw rate (rad/s); None hides it."""
        vx, vy, yaw_rate = command if command is not None else (0.0, 0.0, 0.0)
        self._show_planar(self._command, vx, vy, position, heading, height=0.09)
        turning = abs(yaw_rate) > 0.02
        self._turn.visible = self._turn_tip.visible = turning
        if turning:
            sweep = float(np.clip(yaw_rate, -2.5, 2.5))
            angles = np.linspace(0.0, sweep, _ARC_POINTS + 1)
            arc = _ARC_RADIUS * np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
            tangent = np.sign(sweep) * np.array([-np.sin(sweep), np.cos(sweep), 0.0])
            self._turn.points = np.stack([arc[:-1], arc[1:]], axis=1).astype(np.float32)
            self._turn_tip.points = np.array([[arc[-1], arc[-1] + 0.1 * tangent]], dtype=np.float32)
            for part in (self._turn, self._turn_tip):
                part.position = np.array([position[0], position[1], 0.02])
                part.wxyz = rotation.from_rpy(0.0, 0.0, heading)

    def show_velocity(self, velocity: Sequence[float] | None, position: Array, heading: float) -> None:
        """Arrow of the measured vx, vy, m/s in the robot's heading frame; None hides it."""
        vx, vy = velocity if velocity is not None else (0.0, 0.0)
        self._show_planar(self._velocity, vx, vy, position, heading, height=0.02)

    def _show_planar(
        self,
        arrow: viser.ArrowsHandle,
        vx: float,
        vy: float,
        position: Array,
        heading: float,
        height: float,
    ) -> None:
        speed = float(np.hypot(vx, vy))
        arrow.visible = speed > 0.05  # below it only noise or no command
        if arrow.visible:
            arrow.position = np.array([position[0], position[1], height])
            arrow.wxyz = rotation.from_rpy(0.0, 0.0, heading)
            # Browsers rebuild an arrow whose points change, later than they move a node: change them seldom.
            direction = np.array([vx, vy, 0.0]) / speed
            length = _ARROW_METRES_PER_SPEED * round(speed, 2)
            tail = _ARC_RADIUS * direction
            points = np.array([[tail, tail + length * direction]], dtype=np.float32)
            if np.abs(points - arrow.points).max() > 0.01:
                arrow.points = points

    def show_markers(self, topic: str, markers: Mapping[str, Marker]) -> None:
        """Shows exactly these markers of a topic; those that are gone are kept hidden, for they come back."""
        prefix = f"{WORLD}/markers/{topic.strip('/')}"
        wanted = {f"{prefix}/{key}": marker for key, marker in markers.items()}
        gone = [n for n in self._markers if n.startswith(f"{prefix}/") and n not in wanted]
        for name in gone[: max(len(self._markers) - _MOST_MARKERS, 0)]:
            self._markers.pop(name)[1].remove()
            gone.remove(name)
        for name in gone:
            self._markers[name][1].visible = False
        for name, marker in wanted.items():
            shown = self._markers.get(name)
            look = f"{marker.kind} {marker.colour} {len(marker.points)} {marker.size.tolist()}"
            if shown is not None and shown[0] == look:
                self._move_marker(shown[1], marker)
                shown[1].visible = True
            else:
                self._markers[name] = look, self._add_marker(name, marker)

    def _move_marker(self, handle: Any, marker: Marker) -> None:
        if marker.kind in ("arrow", "lines"):
            tail = marker.points.reshape(-1, 3)[0]
            points = (marker.points.reshape(-1, 2, 3) - tail).astype(np.float32)
            handle.position = tail
            if np.abs(points - handle.points).max() > 0.01:
                handle.points = points
        else:
            handle.position, handle.wxyz = marker.position, marker.quaternion

    def _add_marker(self, name: str, marker: Marker) -> Any:
        scene = self._server.scene
        colour = _rgb(marker.colour)
        opacity = None if marker.colour[3] >= 1.0 else marker.colour[3]
        points = marker.points.reshape(-1, 2, 3)
        if marker.kind in ("arrow", "lines"):
            tail = points[0, 0]
            points = points - tail
        if marker.kind == "arrow":
            shaft = float(marker.size[0]) / 2 or 0.01
            head = float(marker.size[1]) / 2 or 2.2 * shaft
            return scene.add_arrows(
                name,
                points,
                colour,
                position=tail,
                shaft_radius=shaft,
                head_radius=head,
                head_length=float(marker.size[2]) or 2 * head,
            )
        if marker.kind == "lines":
            width = float(marker.size[0]) or 0.01
            return scene.add_line_segments(name, points, colour, position=tail, thickness=width)
        pose: dict[str, Any] = {"position": marker.position, "wxyz": marker.quaternion, "cast_shadow": False}
        if marker.kind == "box":
            return scene.add_box(name, colour, marker.size, opacity=opacity, **pose)
        if marker.kind == "sphere":
            return scene.add_icosphere(
                name,
                0.5,
                colour,
                scale=(float(marker.size[0]), float(marker.size[1]), float(marker.size[2])),
                opacity=opacity,
                **pose,
            )
        return scene.add_cylinder(
            name,
            radius=float(marker.size[0]) / 2,
            height=float(marker.size[2]),
            color=colour,
            opacity=opacity,
            **pose,
        )


def _sky() -> NDArray[np.uint8]:
    """A calm vertical gradient [64, 1, 3], darker above, so that a white robot stands out."""
    blend = np.linspace(0.0, 1.0, 64)[:, None, None]
    top, bottom = np.array([176.0, 193.0, 214.0]), np.array([236.0, 240.0, 245.0])
    return (top + (bottom - top) * blend).astype(np.uint8)
