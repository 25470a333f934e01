"""Rule H6: joint targets clamped so that the motors' PD torque stays inside the effort limits.

Every host applies this, each cycle, to the last accepted command and the newest measured state. Per joint,
with the command (q*, dq*, tau, kp, kd), the measured (q, dq) and the limits (lower, upper, V, L):

1. q1 = clip(q*, lower, upper); v = clip(dq*, -V, V); f = clip(tau, -L, L)
2. r = kd (v - dq) + f                      what the motor does apart from its spring
   u = kp (q1 - q) + r                      what it would do
3. |u| <= L: send (q1, v, f, kp, kd).
4. |r| <= L < |u|: move the target until the sum is the limit, q2 = q + (sign(u) L - r) / kp. It lies between
   q and q1, so the spring keeps its direction and gains are untouched. Sent when lower <= q2 <= upper.
5. otherwise (the damping or feed-forward term alone exceeds the limit, or the joint is outside its range and
   q2 with it): send (q1, v, s f, s kp, s kd) with s = L / |u|.

Step 5 scales instead of moving the target because a q2 beyond q would make the spring fight the damping term;
as the joint slows within the next cycle that spring would be left over, pushing where nobody asked for it.
Both branches yield exactly the limit, so the commanded torque is continuous across them.

The damping command of rules H3, H4, H5 and H8 (kp 0, kd 8, dq* 0) is sent as it is: it must not depend on a
state that may be the very thing that failed, it only ever brakes, and the motor drive saturates on its own.
"""

from __future__ import annotations

import numpy as np
from humanoid_rl_core.robot import RobotModel
from numpy.typing import NDArray

from humanoid_rl_hardware.joint_targets import JointTargets

Floats = NDArray[np.float64]

ROUNDING_MARGIN = 1e-4
"""Part of the effort limit kept back for float32 on the wire: half a unit in the last place of a target of
4 rad, 2.4e-7, times the largest stiffness, 1000, is 2.4e-4 Nm; the smallest limit of a G1 is 5 Nm."""


def _float32_inside(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """The widest float32 interval inside [lower, upper], so that rounding on the wire cannot leave it."""
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    low = np.where(low.astype(np.float64) < lower, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high.astype(np.float64) > upper, np.nextafter(high, np.float32(-np.inf)), high)
    return low.astype(np.float64), high.astype(np.float64)


class TorqueLimiter:
    """Applies the module's rule for one robot.

    :param robot: position, velocity and effort limits, [n] each.
    """

    def __init__(self, robot: RobotModel) -> None:
        self._lower, self._upper = _float32_inside(
            np.asarray(robot.position_lower, np.float64), np.asarray(robot.position_upper, np.float64)
        )
        self._velocity = np.asarray(robot.velocity_limit, np.float64)
        self._effort = np.asarray(robot.effort_limit, np.float64) * (1.0 - ROUNDING_MARGIN)

    def clamp(self, targets: JointTargets, joint_pos: Floats, joint_vel: Floats) -> JointTargets:
        """The targets to send.

        :param targets: as commanded, finite.
        :param joint_pos: [n] rad, measured, finite.
        :param joint_vel: [n] rad/s, measured, finite.
        """
        limit = self._effort
        position = np.clip(targets.position, self._lower, self._upper)
        velocity = np.clip(targets.velocity, -self._velocity, self._velocity)
        effort = np.clip(targets.effort, -limit, limit)
        stiffness, damping = targets.stiffness, targets.damping

        rest = damping * (velocity - joint_vel) + effort
        torque = stiffness * (position - joint_pos) + rest
        excess = np.abs(torque) > limit
        if not excess.any():
            return JointTargets(position, velocity, effort, stiffness, damping)

        # |rest| <= limit < |torque| leaves stiffness > 0 wherever the quotient is used.
        moved = joint_pos + (np.copysign(limit, torque) - rest) / np.where(stiffness > 0.0, stiffness, 1.0)
        movable = excess & (np.abs(rest) <= limit) & (moved >= self._lower) & (moved <= self._upper)
        scaled = excess & ~movable
        scale = np.where(scaled, limit / np.where(excess, np.abs(torque), 1.0), 1.0)
        return JointTargets(
            np.where(movable, moved, position), velocity, effort * scale, stiffness * scale, damping * scale
        )
