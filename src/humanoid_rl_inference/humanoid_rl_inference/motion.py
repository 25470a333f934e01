"""Motions of the node's own: the way into the standing pose, and the blend from one command to the next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Peak of the derivative of minimum_jerk, at phase 1/2: 30/4 - 60/8 + 30/16.
MINIMUM_JERK_PEAK = 1.875


@dataclass(frozen=True)
class JointTargets:
    """What one JointCommand says, [n] each in the robot's joint order: rad, Nm/rad, Nm s/rad.

    The velocity target and the feed-forward effort are zero throughout, as in training.
    """

    position: Array
    stiffness: Array
    damping: Array

    def torque(self, joint_pos: Array, joint_vel: Array) -> Array:
        """kp (q* - q) - kd dq in Nm, before any clamp."""
        return self.stiffness * (self.position - joint_pos) - self.damping * joint_vel


def minimum_jerk(phase: float) -> float:
    """0 -> 1 with velocity and acceleration zero at both ends, for phase 0..1 (clamped)."""
    p = min(max(phase, 0.0), 1.0)
    return p * p * p * (10.0 + p * (6.0 * p - 15.0))


def standing_duration(start: Array, goal: Array, rate: float, minimum: float) -> float:
    """Seconds for the farthest joint from start to goal ([n], rad), with a peak speed of rate (rad/s)."""
    return max(minimum, MINIMUM_JERK_PEAK * float(np.abs(goal - start).max()) / rate)


@dataclass(frozen=True)
class StandingMotion:
    """Minimum-jerk motion of every joint from start to goal ([n], rad), begun at `begin` (s)."""

    start: Array
    goal: Array
    begin: float
    duration: float

    def position(self, now: float) -> Array:
        """Targets at now (s), rad; the goal ever after the end."""
        s = minimum_jerk((now - self.begin) / self.duration)
        return self.start + s * (self.goal - self.start)

    def remaining(self, now: float) -> float:
        """Seconds to the end, 0 after it."""
        return max(0.0, self.begin + self.duration - now)


@dataclass(frozen=True)
class Blend:
    """Linear change of targets and gains from `origin`, what was last sent, over `duration` s from `begin`.

    At `begin` the result is `origin` itself, so neither the target nor the torque can jump.
    """

    origin: JointTargets
    begin: float
    duration: float

    def towards(self, goal: JointTargets, now: float) -> JointTargets:
        """The command between origin and goal that is due at now (s)."""
        a = (now - self.begin) / self.duration
        if a >= 1.0:
            return goal
        a = max(a, 0.0)
        o = self.origin
        return JointTargets(
            (1.0 - a) * o.position + a * goal.position,
            (1.0 - a) * o.stiffness + a * goal.stiffness,
            (1.0 - a) * o.damping + a * goal.damping,
        )
