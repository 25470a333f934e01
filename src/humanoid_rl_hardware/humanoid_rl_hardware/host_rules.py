"""What a host may send to the robot, and when: rules H1 and H3 to H8 as a state machine without ROS.

Time is a parameter (seconds of a monotonic clock), so the rules are the same in a test and on the robot.

=============  =======================================================================================
INACTIVE       nothing is sent
WAITING_STATE  activated, no valid LowState yet: nothing is sent (H1)
READY          damping every cycle, waiting for the first joint command
ACTIVE         the last joint command, clamped (H6)
DAMPING        a fault is latched (H3, H4, H5): damping every cycle until `HostRules.reset`; with cause
               "deactivating" the damping after a deactivation, which end in INACTIVE
=============  =======================================================================================

An emergency stop latches in every state. It cannot make an inactive host send anything (H1), but such a host
refuses activation until it is reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_core.unitree_hg_wire import LowStateArrays

from humanoid_rl_hardware.joint_targets import JointTargets
from humanoid_rl_hardware.torque_limits import TorqueLimiter

CYCLE_PERIOD = 0.002
"""s: the robot's own rate, 500 Hz, of LowState and LowCmd."""

STALE_COMMAND_PERIODS = 3
"""Policy periods after which a joint command is no longer followed (H3)."""

SHUTDOWN_TIME = 0.1
"""s of damping a host sends before it falls silent. A busy receiver was seen not to read for 45 ms while other
processes of a deployment ended; a robot that misses all of these keeps its last joint command."""

SHUTDOWN_CYCLES = round(SHUTDOWN_TIME / CYCLE_PERIOD)

QUATERNION_TOLERANCE = 0.1
"""How far the IMU quaternion's norm may be from 1; an IMU that has not started sends zeros."""


class HostState(IntEnum):
    """Values of HostStatus.state."""

    INACTIVE = 0
    WAITING_STATE = 1
    READY = 2
    ACTIVE = 3
    DAMPING = 4


@dataclass(frozen=True, slots=True)
class Damping:
    """Send the damping command: kp 0, kd 8, target velocity 0, no feed-forward, on every motor."""


DAMPING = Damping()


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to an operator's request."""

    success: bool
    message: str


class HostRules:
    """Decides each cycle between silence, damping and the clamped joint command.

    Call, in this order, once a cycle: `receive_state` and `receive_targets` with what arrived, the operator's
    requests, then `step`.

    :param robot: limits and the mode_machine values its description is right for.
    :param policy_period: s, period of the joint commands.
    :param state_timeout: s, age at which LowState counts as lost (H4).
    """

    def __init__(
        self, robot: RobotModel, *, policy_period: float = 0.02, state_timeout: float = 0.05
    ) -> None:
        self._mode_machines = frozenset(robot.mode_machine)
        self._limiter = TorqueLimiter(robot)
        self.command_timeout = STALE_COMMAND_PERIODS * policy_period
        self.state_timeout = state_timeout
        self.activated = False
        self.fault = ""
        """Why the host latched; empty when it did not."""
        self.low_state: LowStateArrays | None = None
        """The last valid LowState."""
        self.rejected_states = 0
        self.rejected_commands = 0
        self._state_time = -np.inf
        self._wire_open = False
        self._closing_cycles = 0
        self._targets: JointTargets | None = None
        self._targets_time = -np.inf

    @property
    def state(self) -> HostState:
        """The state as published in HostStatus."""
        if self.cause:
            return HostState.DAMPING
        if not self.activated:
            return HostState.INACTIVE
        if not self._wire_open:
            return HostState.WAITING_STATE
        return HostState.READY if self._targets is None else HostState.ACTIVE

    @property
    def cause(self) -> str:
        """Why the host is damping; empty unless `state` is DAMPING."""
        return self.fault or ("deactivating" if self._closing_cycles else "")

    @property
    def mode_machine(self) -> int:
        """As read from the robot, 0 before the first valid LowState."""
        return self.low_state.mode_machine if self.low_state else 0

    def state_age(self, now: float) -> float:
        """s since the last valid LowState arrived; inf when none did."""
        return now - self._state_time

    def receive_state(self, now: float, state: LowStateArrays, crc_ok: bool) -> str:
        """Takes a LowState that just arrived.

        A refused state is no state: when no valid one follows, H4 trips. A state with the tick of the last
        valid one counts as refused too, since a robot whose counter stands still has frozen.

        :returns: why it was refused; empty when it was taken.
        """
        reason = ""
        if not crc_ok:
            reason = "wrong CRC"
        elif state.mode_machine not in self._mode_machines:
            known = ", ".join(str(mode) for mode in sorted(self._mode_machines))
            reason = f"mode_machine {state.mode_machine}, this robot description is right for {known}"
        elif not state.finite():
            reason = "a joint or IMU value is not finite"
        elif abs(float(np.linalg.norm(state.imu_quat)) - 1.0) > QUATERNION_TOLERANCE:
            reason = "the IMU quaternion is no rotation"
        elif self.low_state is not None and state.tick == self.low_state.tick:
            reason = f"tick stands still at {state.tick}"
        if reason:
            self.refuse_state()
            return reason
        self.low_state = state
        self._state_time = now
        return ""

    def refuse_state(self) -> None:
        """Counts a LowState that could not even be decoded."""
        self.rejected_states += 1

    def receive_targets(self, now: float, targets: JointTargets) -> None:
        """Takes a valid joint command that just arrived. Ignored unless the host is READY or ACTIVE."""
        if self._wire_open and not self.cause:
            self._targets = targets
            self._targets_time = now

    def refuse_targets(self) -> None:
        """Counts a joint command that was refused (H7). It is no command: it does not feed H3's clock."""
        self.rejected_commands += 1

    def activate(self) -> Reply:
        """Operator's request to start sending."""
        if self.fault:
            return Reply(False, f"latched: {self.fault}; call /host/reset first")
        if self.activated:
            return Reply(True, "already activated")
        self.activated = True
        self._closing_cycles = 0
        return Reply(True, "activated")

    def deactivate(self) -> Reply:
        """Operator's request to stop sending: `SHUTDOWN_TIME` of damping, then silence. Clears no latch."""
        if not self.activated:
            return Reply(True, "not activated")
        self.activated = False
        self._targets = None
        if self._wire_open:
            self._closing_cycles = SHUTDOWN_CYCLES
            self._wire_open = False
        return Reply(True, f"deactivated, damping for {1e3 * SHUTDOWN_TIME:.0f} ms")

    def estop(self) -> Reply:
        """Operator's request to damp from this cycle on (H5)."""
        self._latch("emergency stop")
        return Reply(True, f"damping: {self.fault}" if self.activated else "latched, nothing is being sent")

    def reset(self, now: float) -> Reply:
        """Operator's request to clear the latch. Refused without a valid, fresh LowState while activated."""
        if not self.fault:
            return Reply(True, "nothing is latched")
        if self.activated and not self._state_is_fresh(now):
            return Reply(False, f"no valid LowState within {1e3 * self.state_timeout:.0f} ms; {self.fault}")
        cleared, self.fault = self.fault, ""
        return Reply(True, f"cleared: {cleared}")

    def step(self, now: float) -> JointTargets | Damping | None:
        """What to send this cycle: clamped targets, damping, or nothing."""
        if self.activated and not self._wire_open:
            # H1: the wire opens with the first valid LowState; only then is mode_machine known.
            self._wire_open = self._state_is_fresh(now)
        if not self._wire_open:
            if self._closing_cycles:
                self._closing_cycles -= 1
                return DAMPING
            return None
        if not self.fault:
            self._check_ages(now)
        if self.fault or self._targets is None or self.low_state is None:
            return DAMPING
        return self._limiter.clamp(self._targets, self.low_state.joint_pos, self.low_state.joint_vel)

    def _check_ages(self, now: float) -> None:
        state_age = self.state_age(now)
        if state_age > self.state_timeout:
            self._latch(
                f"no valid LowState for {1e3 * state_age:.0f} ms (limit {1e3 * self.state_timeout:.0f} ms)"
            )
        elif self._targets is not None and now - self._targets_time > self.command_timeout:
            self._latch(
                f"no valid joint command for {1e3 * (now - self._targets_time):.0f} ms "
                f"(limit {1e3 * self.command_timeout:.0f} ms)"
            )

    def _latch(self, cause: str) -> None:
        # The first cause is the one that explains what happened.
        self.fault = self.fault or cause
        self._targets = None

    def _state_is_fresh(self, now: float) -> bool:
        return self.state_age(now) <= self.state_timeout
