"""What of a robot is physics, and nothing of its firmware: links, joints, motors, sensors, ground and the rope's end.

`VirtualG1` is the same robot on the wire whichever engine steps its body.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from humanoid_rl_core.robot import RobotModel
from numpy.typing import NDArray

from .hoist import Rope

Floats = NDArray[np.float64]

CYCLE = 0.002
"""s, one LowState and at most one LowCmd: the robot's 500 Hz."""


@dataclass(frozen=True, slots=True)
class FootContact:
    """What one sole feels."""

    link: str
    touching: bool
    position: Floats
    """[3] m, origin of the foot link, world."""
    force: Floats
    """[3] N, ground on foot, world."""


@dataclass(frozen=True, slots=True)
class BaseState:
    """Ground truth of the floating base."""

    position: Floats
    """[3] m, world."""
    quaternion: Floats
    """[4] w, x, y, z: world from base."""
    linear_velocity: Floats
    """[3] m/s, of the base frame's origin, world."""
    angular_velocity: Floats
    """[3] rad/s, base frame."""


class Body(ABC):
    """One robot on level ground, all of whose links collide. Joints are in motor order."""

    robot: RobotModel
    timestep: float
    """s, one `step`: a part of `CYCLE`, or several of them."""
    hung: Any
    """What the methods of the rope of `rope` take as their first argument."""

    @abstractmethod
    def rope(self, high: float) -> Rope[Any]:
        """A rope to this body that, when raised, keeps its base `high` m above the ground."""

    @abstractmethod
    def sole_depth(self, joint_pos: Floats) -> float:
        """m from the base frame, upright, down to the lowest point of the feet with the joints at `joint_pos`, rad."""

    @abstractmethod
    def reset(self, height: float, joint_pos: Floats) -> None:
        """At rest and upright, the base `height` m above the ground, the joints at `joint_pos` [n] rad; motors off."""

    @abstractmethod
    def drive(self, q: Floats, dq: Floats, tau: Floats, kp: Floats, kd: Floats) -> None:
        """What the motors do from now on: kp (q - position) + kd (dq - velocity) + tau, up to the effort limit.

        All [n]: rad, rad/s, Nm, Nm/rad, Nm s/rad.
        """

    @abstractmethod
    def step(self) -> None:
        """`timestep` seconds of physics."""

    @property
    @abstractmethod
    def diverged(self) -> bool:
        """Whether the physics blew up since the last `reset`."""

    @abstractmethod
    def push(self, velocity: tuple[float, float, float]) -> None:
        """Adds a velocity (m/s, world frame) to every link at once."""

    @abstractmethod
    def lock(self, joint: int) -> None:
        """The joint seizes at its present angle."""

    @abstractmethod
    def unlock(self, joint: int) -> None:
        """It moves again."""

    @abstractmethod
    def joint_pos(self) -> Floats:
        """[n] rad, a copy."""

    @abstractmethod
    def joint_vel(self) -> Floats:
        """[n] rad/s, a copy."""

    @abstractmethod
    def joint_acc(self) -> Floats:
        """[n] rad/s^2"""

    @abstractmethod
    def joint_effort(self) -> Floats:
        """[n] Nm, what the motors applied in the last step."""

    @abstractmethod
    def imu(self) -> tuple[Floats, Floats, Floats]:
        """Gyroscope [3] rad/s, accelerometer [3] m/s^2 (gravity included: +9.81 upwards at rest), both in the IMU's
        frame, and its orientation [4] w, x, y, z: world from IMU. Exact, and valid until the next step."""

    @abstractmethod
    def base_state(self) -> BaseState:
        """A copy of the ground truth of the base."""

    @abstractmethod
    def foot_contacts(self) -> tuple[FootContact, FootContact]:
        """Left and right sole."""

    def close(self) -> None:  # noqa: B027  # most bodies hold nothing that has to be given back
        """Gives back what the engine holds; the body is of no use afterwards."""
