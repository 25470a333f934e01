"""Left and right exchanged: the mirror image of a policy's actions and observations, from the robot's description.

The mirror is the robot's x-z plane. Polar vectors (velocity, gravity) change their y, axial ones (angular velocity)
their x and z. A joint's mirror image turns about the mirrored axis, which is an axial vector: a joint about y keeps
its sign, one about x or z changes it. Joints of the left go to those of the same name on the right, joints without a
side to themselves. The points of a height scan change their y, what is seen there stays.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np
import torch
from humanoid_rl_core.contract import HEIGHT_SCAN
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.policy_graph import PolicyGraph
from humanoid_rl_core.robot import RobotModel
from numpy.typing import NDArray

from humanoid_rl_core import rotation

POLAR, AXIAL = np.array([1.0, -1.0, 1.0]), np.array([-1.0, 1.0, -1.0])
COMMAND_SIGNS = {"vx": 1.0, "vy": -1.0, "yaw_rate": -1.0}
_TOLERANCE = 1.0e-3
"""m or rad; the G1's shoulders differ by 0.01 mm."""


@dataclass(frozen=True)
class MirrorMap:
    """A permutation with signs, which is its own inverse."""

    index: torch.Tensor
    """[D] whose value each place gets."""
    sign: torch.Tensor
    """[D] 1 or -1."""

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        return values.index_select(-1, self.index) * self.sign


@dataclass(frozen=True)
class Mirror:
    """How a policy graph's tensors look with left and right exchanged."""

    action: MirrorMap
    """[..., n]; joint positions from the default pose and joint velocities likewise."""
    observation: MirrorMap
    """[..., observation_size] before normalisation: every frame of the history."""


def make_mirror(robot: RobotModel, graph: PolicyGraph) -> Mirror:
    """The mirror of a policy graph, on the graph's device.

    Args:
        robot: the robot the graph is for.
        graph: its observation layout, history, action scales and command ranges count.

    Raises:
        UserError: the robot, the action scales or the command ranges are no mirror images of themselves, or nobody
            knows how to mirror a term of the observation.
    """
    joints, signs = joint_mirror(robot)
    scale = graph.action_scale.cpu().numpy()
    _require_equal(scale[joints], scale, robot, "action scales")
    unknown = [name for name in graph.command_names if name not in COMMAND_SIGNS]
    if unknown:
        raise UserError(f"symmetry: command '{unknown[0]}' has no known mirror image")
    of_command = np.array([COMMAND_SIGNS[name] for name in graph.command_names])
    lower, upper = graph.command_lower.cpu().numpy(), graph.command_upper.cpu().numpy()
    for name, sign, low, high in zip(graph.command_names, of_command, lower, upper, strict=True):
        if sign < 0.0 and abs(low + high) > _TOLERANCE:
            raise UserError(f"symmetry: the range of command {name}, {low:g} to {high:g}, is not symmetric")
    vector = np.arange(3)
    of_term = {
        "base_ang_vel": (vector, AXIAL),
        "projected_gravity": (vector, POLAR),
        "command": (np.arange(len(of_command)), of_command),
        "joint_pos_rel": (joints, signs),
        "joint_vel": (joints, signs),
        "last_action": (joints, signs),
    }
    if graph.height_scan is not None:
        of_term[HEIGHT_SCAN] = (graph.height_scan.mirrored, np.ones(graph.height_scan.size))
    indices, factors = [], []
    for frame in range(graph.history):
        for name, start, _, _ in graph.observation_layout:
            if name not in of_term:
                raise UserError(f"symmetry: observation term '{name}' has no known mirror image")
            index, sign = of_term[name]
            indices.append(frame * graph.frame_size + start + index)
            factors.append(sign)
    device = graph.action_scale.device
    return Mirror(_map(joints, signs, device), _map(np.concatenate(indices), np.concatenate(factors), device))


def _map(index: NDArray[np.intp], sign: NDArray[np.float64], device: torch.device) -> MirrorMap:
    return MirrorMap(
        torch.as_tensor(index, dtype=torch.long, device=device),
        torch.as_tensor(sign, dtype=torch.float32, device=device),
    )


def joint_mirror(robot: RobotModel) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Mirror image of joint positions q: `sign * q[index]`, both [n], in motor order.

    Raises:
        UserError: a joint has no partner, or partners differ in place, axis, limits, motor or default position, or
            the IMU is turned out of the mirror's plane.
    """
    names = robot.joint_names
    partners = [_partner(name) for name in names]
    for name, partner in zip(names, partners, strict=True):
        if partner not in names:
            raise UserError(f"robot {robot.name}: joint '{name}' has no mirror image '{partner}'")
    index = np.array([names.index(partner) for partner in partners], dtype=np.intp)
    positions, axes, imu = _joints_of_the_straight_robot(robot)
    _require_equal(positions[index] * POLAR, positions, robot, "places of the joints")
    mirrored = axes[index] * AXIAL
    sign = np.where((mirrored * axes).sum(1) > 0.0, 1.0, -1.0)
    _require_equal(mirrored * sign[:, None], axes, robot, "axes of the joints")
    flipped = sign < 0.0
    lower = np.where(flipped, -robot.position_upper[index], robot.position_lower[index])
    _require_equal(lower, robot.position_lower, robot, "lower position limits")
    upper = np.where(flipped, -robot.position_lower[index], robot.position_upper[index])
    _require_equal(upper, robot.position_upper, robot, "upper position limits")
    _require_equal(sign * robot.default_position[index], robot.default_position, robot, "default positions")
    for what, values in (
        ("effort limits", robot.effort_limit),
        ("velocity limits", robot.velocity_limit),
        ("armatures", robot.armature),
    ):
        _require_equal(values[index], values, robot, what)
    if np.abs(imu[[1, 3]]).max() > _TOLERANCE:
        raise UserError(f"robot {robot.name}: the frame '{robot.imu_link}' is not its own mirror image")
    return index, sign


def _partner(joint: str) -> str:
    for side, other in (("left_", "right_"), ("right_", "left_")):
        if joint.startswith(side):
            return other + joint.removeprefix(side)
    return joint


def _require_equal(mirrored: NDArray, values: NDArray, robot: RobotModel, what: str) -> None:
    """Both [n, ...], in motor order."""
    worst = np.abs(mirrored - values).reshape(len(values), -1).max(1)
    if worst.max() > _TOLERANCE:
        joint = robot.joint_names[int(worst.argmax())]
        raise UserError(f"robot {robot.name}: {what} are not mirror images: {joint} and {_partner(joint)}")


def _joints_of_the_straight_robot(robot: RobotModel) -> tuple[NDArray, NDArray, NDArray]:
    """Places [n, 3] (m) and axes [n, 3] of the joints in the base frame with every joint at zero, in motor order, and
    the orientation [4] (w, x, y, z) of the IMU's frame."""
    poses = {robot.base_link: (np.zeros(3), rotation.IDENTITY)}
    positions, axes = np.zeros((2, robot.joint_count, 3))
    waiting = ET.fromstring(robot.urdf).findall("joint")
    while waiting:
        joint = waiting.pop(0)
        parent, child = (_attribute(joint, end, "link", "") for end in ("parent", "child"))
        if parent not in poses:
            waiting.append(joint)
            continue
        position, orientation = poses[parent]
        position = position + rotation.rotate(orientation, _numbers(joint, "origin", "xyz", "0 0 0"))
        turn = rotation.from_rpy(*_numbers(joint, "origin", "rpy", "0 0 0"))
        orientation = rotation.multiply(orientation, turn)
        poses[child] = position, orientation
        if (name := joint.get("name", "")) in robot.joint_names:
            motor = robot.joint_names.index(name)
            positions[motor] = position
            axes[motor] = rotation.rotate(orientation, _numbers(joint, "axis", "xyz", "1 0 0"))
    return positions, axes, poses[robot.imu_link][1]


def _attribute(element: ET.Element, child: str, name: str, default: str) -> str:
    found = element.find(child)
    return default if found is None else found.get(name, default)


def _numbers(element: ET.Element, child: str, name: str, default: str) -> NDArray[np.float64]:
    return np.array([float(word) for word in _attribute(element, child, name, default).split()])
