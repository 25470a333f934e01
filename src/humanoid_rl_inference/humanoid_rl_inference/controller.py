"""What happens in one tick, without ROS: state machine, guard, policy and filters around each other.

`Controller` is driven from one thread and takes the time from its caller, so that every path can be tested
without a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from humanoid_rl_core.contract import check_sensors
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel
from numpy.typing import NDArray

from humanoid_rl_inference import guard
from humanoid_rl_inference.guard import Interventions, Limits, Sensors
from humanoid_rl_inference.motion import Blend, JointTargets, StandingMotion, standing_duration
from humanoid_rl_inference.safety_config import SafetyConfig
from humanoid_rl_inference.state_machine import ENTERS, Event, State, transition

Array = NDArray[np.float64]


class Policy(Protocol):
    """The part of humanoid_rl_core.onnx_policy.OnnxPolicy the controller uses."""

    contract: Any

    def reset(self) -> None:
        """Zero the recurrent state."""

    def step(
        self, joint_pos: Array, joint_vel: Array, imu_gyro: Array, imu_quat: Array, command: Array
    ) -> Any:
        """One inference; the result has joint_target [n]."""


@dataclass(frozen=True)
class Reply:
    """Answer to a request."""

    accepted: bool
    message: str


class Controller:
    """State, guard and filters of the policy node.

    Args:
        robot: description; every array here is in its joint order.
        policy: loaded and checked against the robot.
        safety: thresholds.

    Raises:
        UserError: the policy has an input that no sensor of the robot gives, or a command without an acceleration
            limit in the safety configuration.
    """

    def __init__(self, robot: RobotModel, policy: Policy, safety: SafetyConfig) -> None:
        self.robot = robot
        self.safety = safety
        self.state = State.IDLE
        self.cause = ""
        self.interventions = Interventions()
        self._policy = policy
        contract = policy.contract
        check_sensors(contract, robot)
        self.period = float(contract.control_period)
        self.command_names: tuple[str, ...] = tuple(contract.command_names)
        n = len(robot.joint_names)

        # OnnxPolicy refuses a contract whose joint order is not the robot's: there is nothing to map.
        self._stiffness = np.asarray(contract.stiffness, dtype=float)
        self._damping = np.asarray(contract.damping, dtype=float)
        fraction = safety.targets.effort_fraction
        self._effort_limit = fraction * robot.effort_limit
        self._policy_effort_limit = fraction * np.minimum(robot.effort_limit, contract.effort_limit)
        self._lower = np.asarray(robot.position_lower, dtype=float)
        self._upper = np.asarray(robot.position_upper, dtype=float)
        self.limits = Limits(
            safety, robot.joint_names, self._lower, self._upper, np.asarray(robot.velocity_limit, dtype=float)
        )

        self._command_lower = np.asarray(contract.command_lower, dtype=float)
        self._command_upper = np.asarray(contract.command_upper, dtype=float)
        self._acceleration = acceleration_limits(self.command_names, safety)
        self._rest_command = guard.limit_command(
            np.zeros(len(self.command_names)), self._command_lower, self._command_upper
        )
        self.command = self._rest_command

        stiff = robot.gains["stiff"]
        self._stand_gains = (
            np.asarray(stiff.stiffness, dtype=float),
            np.asarray(stiff.damping, dtype=float),
        )
        self._damp_gains = (np.zeros(n), np.full(n, safety.damping))
        self._home = np.asarray(robot.default_position, dtype=float)
        self._sent = JointTargets(self._home, *self._damp_gains)
        self._standing: StandingMotion | None = None
        self._blend: Blend | None = None

    def not_standing(self, now: float, sensors: Sensors) -> str | None:
        """Why the standing pose does not count as reached, None when it does."""
        if self.state is not State.STANDING or self._standing is None:
            return f"{self.state.name}, not STANDING"
        if (remaining := self._standing.remaining(now)) > 0.0:
            return f"the standing motion takes {remaining:.1f} s more"
        error = np.abs(self._home - sensors.joint_pos)
        worst = int(error.argmax())
        tolerance = self.safety.standing.tolerance
        # Written so that NaN is no arrival.
        if not error[worst] <= tolerance:
            name = self.robot.joint_names[worst]
            return f"{name} is {error[worst]:.2f} rad from the standing pose, tolerance {tolerance:.2f}"
        return None

    def request(self, event: Event, now: float, sensors: Sensors, late_ticks: int, cause: str = "") -> Reply:
        """Apply an event; now in s on the clock of the sensors.

        Args:
            late_ticks: see guard.evaluate.
            cause: for ESTOP and TRIP, what /policy/status is to say.
        """
        blocked = None
        if (entered := ENTERS.get((self.state, event))) is not None:
            blocked = guard.evaluate(entered, sensors, now, late_ticks, self.limits)
            blocked = blocked or guard.motor_status_missing(
                sensors, now, self.safety.sensors.motor_status_age
            )
        result = transition(self.state, event, blocked=blocked, not_standing=self.not_standing(now, sensors))
        if result.state is not self.state:
            self._enter(result.state, now, sensors, cause)
        return Reply(result.accepted, result.message)

    def tick(
        self, now: float, sensors: Sensors, command: Array | None, command_age: float, late_ticks: int
    ) -> JointTargets:
        """Guard, then compute the joint targets to send.

        Args:
            now: s, on the clock of the sensors' times.
            command: the newest one received ([k], order of command_names), None when there never was one.
            command_age: s since it was received.
            late_ticks: see guard.evaluate.
        """
        cause = guard.evaluate(self.state, sensors, now, late_ticks, self.limits)
        if cause:
            self.request(Event.TRIP, now, sensors, late_ticks, cause)
        targets = self._targets(now, sensors, command, command_age)
        self._sent = targets
        return targets

    def trip(self, cause: str, now: float, sensors: Sensors) -> JointTargets:
        """Latch a fault the guard's checks do not know, such as an exception; the damping command to send."""
        self.request(Event.TRIP, now, sensors, 0, cause)
        self._sent = self._damped(sensors)
        return self._sent

    def _enter(self, state: State, now: float, sensors: Sensors, cause: str) -> None:
        previous, self.state = self.state, state
        self.cause = cause if state is State.FAULT else ""
        self.command = self._rest_command
        if state is State.STANDING:
            start = np.array(sensors.joint_pos)
            if previous is State.IDLE:
                # The idle command holds no pose; with zero stiffness its position is free to choose.
                self._sent = JointTargets(start, *self._damp_gains)
            motion = self.safety.standing
            duration = standing_duration(start, self._home, motion.rate, motion.minimum_duration)
            self._standing = StandingMotion(start, self._home, now, duration)
        if state is State.RUNNING:
            self._policy.reset()
        if state in (State.STANDING, State.RUNNING):
            self._blend = Blend(self._sent, now, self.safety.blend.duration)

    def _damped(self, sensors: Sensors) -> JointTargets:
        pose = np.array(sensors.joint_pos)
        return JointTargets(pose if np.isfinite(pose).all() else self._home, *self._damp_gains)

    def _targets(
        self, now: float, sensors: Sensors, command: Array | None, command_age: float
    ) -> JointTargets:
        if self.state is State.STANDING and self._standing is not None:
            goal = JointTargets(self._standing.position(now), *self._stand_gains)
            return self._filtered(goal, now, sensors, self._effort_limit)
        if self.state is State.RUNNING:
            self.command = self._next_command(command, command_age)
            try:
                output = self._policy.step(
                    sensors.joint_pos,
                    sensors.joint_vel,
                    sensors.imu_gyro,
                    sensors.imu_quat,
                    self.command,
                )
                target = np.asarray(output.joint_target, dtype=float)
            except UserError as error:
                return self.trip(f"inference failed: {error}", now, sensors)
            except Exception as error:  # whatever the runtime throws, the robot must be damped, not forgotten
                return self.trip(f"inference failed: {type(error).__name__}: {error}", now, sensors)
            if cause := guard.check_finite("target", self.robot.joint_names, target):
                return self.trip(cause, now, sensors)
            goal = JointTargets(target, self._stiffness, self._damping)
            return self._filtered(goal, now, sensors, self._policy_effort_limit)
        return self._damped(sensors)

    def _next_command(self, command: Array | None, age: float) -> Array:
        wanted = self._rest_command
        if command is not None and age <= self.safety.command.timeout:
            wanted = guard.limit_command(command, self._command_lower, self._command_upper)
        return guard.limit_acceleration(wanted, self.command, self._acceleration, self.period)

    def _filtered(
        self, goal: JointTargets, now: float, sensors: Sensors, effort_limit: Array
    ) -> JointTargets:
        """Position limits, blend, rate, effort: the last one counts most, it bounds the torque itself."""
        clipped = np.clip(goal.position, self._lower, self._upper)
        self.interventions.position += self._changed(goal.position, clipped)
        goal = JointTargets(clipped, goal.stiffness, goal.damping)
        if self._blend is not None:
            goal = self._blend.towards(goal, now)
        limited = guard.limit_rate(goal.position, self._sent.position, self.safety.targets.rate, self.period)
        self.interventions.rate += self._changed(goal.position, limited)
        allowed = guard.limit_effort(
            limited, sensors.joint_pos, sensors.joint_vel, goal.stiffness, goal.damping, effort_limit
        )
        self.interventions.effort += self._changed(limited, allowed)
        return JointTargets(allowed, goal.stiffness, goal.damping)

    def _changed(self, before: Array, after: Array) -> bool:
        """Whether a filter did anything; counts it for the joints it did it to."""
        changed = before != after
        if not changed.any():
            return False
        for joint in np.flatnonzero(changed):
            name = self.robot.joint_names[joint]
            self.interventions.joints[name] = self.interventions.joints.get(name, 0) + 1
        return True


def acceleration_limits(command_names: Sequence[str], safety: SafetyConfig) -> Array:
    """The configured acceleration of each of the policy's commands, [k].

    Raises:
        UserError: the safety configuration has none for one of them.
    """
    known = safety.command.acceleration
    for name in command_names:
        if name not in known:
            raise UserError(
                f"the policy has a command '{name}' without an entry in the safety configuration's "
                f"command.acceleration{nearest(name, known)}"
            )
    return np.array([known[name] for name in command_names], dtype=float)
