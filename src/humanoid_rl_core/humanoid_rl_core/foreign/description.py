"""What an import knows of a foreign policy, whatever the format it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError, nearest

#: Observation quantities that the robot's sensors and the policy's own state give, in this project's names.
SENSED = ("base_ang_vel", "projected_gravity", "command", "joint_pos_rel", "joint_vel", "last_action")
#: sin and cos of a clock that starts with the episode; the graph keeps the clock in its memory.
GAIT_PHASE = "gait_phase"
#: Quantities with one value per joint.
PER_JOINT = ("joint_pos_rel", "joint_vel", "last_action")
#: The velocity command's parts in the order of both mjlab and Isaac Lab: lin_vel_x, lin_vel_y, ang_vel_z.
VELOCITY_COMMANDS = ("vx", "vy", "yaw_rate")

#: Words in a foreign term's name -> what it is; no sensor of the robot gives it.
_NOT_SENSED = {
    "lin_vel": "the linear velocity of the base",
    "contact": "contact of the feet",
    "force": "contact forces",
    "air_time": "contact of the feet",
    "height": "heights of the base, the feet or the ground",
    "pos_w": "a position in the world",
    "base_pos": "a position in the world",
    "effort": "joint torques",
    "torque": "joint torques",
}


def quantity_of(term: str, known: Mapping[str, str], where: str) -> str:
    """The quantity behind a foreign observation term.

    known: foreign name -> quantity. where: what messages start with.

    Raises:
        UserError: nothing on the robot gives it, or nobody knows what it is.
    """
    if term in known:
        return known[term]
    for part, meaning in _NOT_SENSED.items():
        if part in term:
            raise UserError(
                f"{where}: the observation term '{term}' is {meaning}, which no sensor of the robot gives; "
                "train the policy without it"
            )
    raise UserError(
        f"{where}: unknown observation term '{term}'{nearest(term, known)} (known: {', '.join(known)})"
    )


@dataclass(frozen=True)
class Term:
    """One term of a foreign observation.

    name: as the other stack calls it; quantity: one of SENSED or GAIT_PHASE.
    scale: one number per value of one frame. clip: bounds of every value, or None. history: frames.
    period: s, of GAIT_PHASE.
    """

    name: str
    quantity: str
    scale: tuple[float, ...]
    clip: tuple[float, float] | None = None
    history: int = 1
    period: float = 0.0


@dataclass(frozen=True)
class ObservationNetwork:
    """A network that takes one observation and gives one action, joints in the foreign order.

    frame_major: False: every term's frames together, oldest first (Isaac Lab, mjlab, deploy.yaml); True: whole
        frames one after another, oldest first (deploy.yaml with use_gym_history).
    scale_first: clip after scaling instead of before.
    action_clip: bound of |action|, or None.
    """

    terms: tuple[Term, ...]
    frame_major: bool = False
    scale_first: bool = False
    action_clip: float | None = None


@dataclass(frozen=True)
class SensorInput:
    """A graph input that is a sensor's reading.

    quantity: joint_pos, joint_vel, base_ang_vel, projected_gravity, imu_quat or command.
    elements: which values of this project's quantity, in which order.
    """

    name: str
    quantity: str
    elements: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Feedback:
    """A graph output that is the input of the next step. initial: its value at the start, of the input's shape."""

    output: str
    input: str
    initial: np.ndarray


@dataclass(frozen=True)
class SensorNetwork:
    """A graph from raw sensors to joint targets (rad, foreign joint order), with its own observation inside."""

    inputs: tuple[SensorInput, ...]
    feedback: tuple[Feedback, ...]
    target: str


@dataclass(frozen=True, eq=False)
class ForeignPolicy:
    """A foreign policy as its files tell it. Vectors are in the order of `joints`.

    joints: names, or numbers of the robot's motors.
    command_range: [k, 2]. control_period: s.
    values: contract field -> one value per joint, of those that the files tell.
    target_limit: [n, 2] rad, bounds of the joint targets, where the files have some.
    """

    network: ObservationNetwork | SensorNetwork
    joints: tuple[str, ...] | tuple[int, ...]
    command_names: tuple[str, ...]
    command_range: np.ndarray
    control_period: float
    values: Mapping[str, np.ndarray]
    target_limit: np.ndarray | None = None
