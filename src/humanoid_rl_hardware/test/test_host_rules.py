"""The host's state machine with time in the test's hands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_core.unitree_hg_wire import LowStateArrays
from humanoid_rl_hardware.host_rules import CYCLE_PERIOD, SHUTDOWN_CYCLES, Damping, HostRules, HostState
from humanoid_rl_hardware.joint_targets import JointTargets

Output = JointTargets | Damping | None


def low_state(robot: RobotModel, tick: int, **changes: object) -> LowStateArrays:
    n = len(robot.joint_names)
    values: dict[str, object] = {
        "mode_pr": 0,
        "mode_machine": robot.mode_machine[0],
        "tick": tick,
        "joint_pos": robot.default_position.copy(),
        "joint_vel": np.zeros(n),
        "joint_effort": np.zeros(n),
        "imu_quat": np.array([1.0, 0.0, 0.0, 0.0]),
        "imu_gyro": np.zeros(3),
        "imu_accel": np.array([0.0, 0.0, 9.81]),
        "casing_temperature": np.full(n, 30.0),
        "winding_temperature": np.full(n, 35.0),
        "voltage": np.full(n, 48.0),
    }
    return LowStateArrays(**(values | changes))  # type: ignore[arg-type]


class Bench:
    """A host on a clock that moves only when told."""

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        self.rules = HostRules(robot)
        self.now = 100.0
        self.tick = 0
        gains = robot.gains["compliant"]
        n = len(robot.joint_names)
        self.targets = JointTargets(
            robot.default_position, np.zeros(n), np.zeros(n), gains.stiffness, gains.damping
        )

    def cycle(self, *, state: bool = True, command: bool = False) -> Output:
        """One cycle of 2 ms, with or without a fresh LowState and a joint command."""
        self.now += CYCLE_PERIOD
        if state:
            self.tick += 2
            assert self.rules.receive_state(self.now, low_state(self.robot, self.tick), True) == ""
        if command:
            self.rules.receive_targets(self.now, self.targets)
        return self.rules.step(self.now)

    def active(self) -> None:
        assert self.rules.activate().success
        self.cycle()
        self.cycle(command=True)
        assert self.rules.state == HostState.ACTIVE


@pytest.fixture
def bench(robot: RobotModel) -> Bench:
    return Bench(robot)


def test_nothing_is_sent_before_activation(bench: Bench) -> None:
    assert [bench.cycle(command=True) for _ in range(50)] == [None] * 50
    assert bench.rules.state == HostState.INACTIVE


def test_nothing_is_sent_after_activation_until_a_valid_state_arrives(bench: Bench) -> None:
    bench.rules.activate()
    assert [bench.cycle(state=False) for _ in range(50)] == [None] * 50
    assert bench.rules.state == HostState.WAITING_STATE
    assert isinstance(bench.cycle(), Damping)
    assert bench.rules.state == HostState.READY


def test_a_state_from_long_before_activation_does_not_open_the_wire(bench: Bench) -> None:
    bench.cycle()
    bench.now += 1.0
    bench.rules.activate()
    assert bench.cycle(state=False) is None
    assert bench.rules.state == HostState.WAITING_STATE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode_machine": 9}, "mode_machine 9, this robot description is right for 5"),
        ({"joint_pos": np.full(29, np.nan)}, "a joint or IMU value is not finite"),
        ({"joint_vel": np.full(29, np.inf)}, "a joint or IMU value is not finite"),
        ({"imu_quat": np.array([np.nan, 0, 0, 0])}, "a joint or IMU value is not finite"),
        ({"imu_gyro": np.array([0, np.nan, 0])}, "a joint or IMU value is not finite"),
        ({"imu_quat": np.zeros(4)}, "the IMU quaternion is no rotation"),
    ],
)
def test_a_state_nobody_could_control_on_is_no_state(
    bench: Bench, robot: RobotModel, change: dict[str, object], reason: str
) -> None:
    bench.rules.activate()
    assert bench.rules.receive_state(bench.now, low_state(robot, 2, **change), True) == reason
    assert bench.cycle(state=False) is None
    assert bench.rules.rejected_states == 1


def test_a_state_with_a_wrong_crc_is_no_state(bench: Bench, robot: RobotModel) -> None:
    bench.rules.activate()
    assert bench.rules.receive_state(bench.now, low_state(robot, 2), False) == "wrong CRC"
    assert bench.cycle(state=False) is None


def test_the_first_joint_command_is_followed_and_an_older_one_is_not(bench: Bench) -> None:
    bench.cycle(command=True)
    bench.rules.activate()
    assert isinstance(bench.cycle(), Damping)
    assert isinstance(bench.cycle(command=True), JointTargets)


def test_a_host_that_never_got_a_command_damps_and_does_not_latch(bench: Bench) -> None:
    bench.rules.activate()
    assert all(isinstance(bench.cycle(), Damping) for _ in range(1000))
    assert bench.rules.state == HostState.READY


def cycles_until_damping(bench: Bench, cycle: Callable[[], Output]) -> int:
    for count in range(1, 1000):
        if isinstance(cycle(), Damping):
            return count
    raise AssertionError("never damped")


def test_a_command_older_than_three_policy_periods_is_not_followed_any_more(bench: Bench) -> None:
    bench.active()
    count = cycles_until_damping(bench, bench.cycle)
    assert 60e-3 < count * CYCLE_PERIOD <= 62e-3 + 1e-9
    assert bench.rules.cause == "no valid joint command for 62 ms (limit 60 ms)"


def test_a_state_older_than_fifty_milliseconds_latches(bench: Bench) -> None:
    bench.active()
    count = cycles_until_damping(bench, lambda: bench.cycle(state=False, command=True))
    assert 50e-3 < count * CYCLE_PERIOD <= 52e-3 + 1e-9
    assert bench.rules.cause == "no valid LowState for 52 ms (limit 50 ms)"


def test_a_frozen_tick_latches_like_a_missing_state(bench: Bench, robot: RobotModel) -> None:
    bench.active()

    def frozen() -> Output:
        bench.rules.receive_state(bench.now + CYCLE_PERIOD, low_state(robot, bench.tick), True)
        return bench.cycle(state=False, command=True)

    assert cycles_until_damping(bench, frozen) * CYCLE_PERIOD <= 52e-3 + 1e-9
    assert "LowState" in bench.rules.cause


def test_a_tick_that_wraps_or_restarts_is_a_new_state(bench: Bench, robot: RobotModel) -> None:
    assert bench.rules.receive_state(bench.now, low_state(robot, 2**32 - 1), True) == ""
    assert bench.rules.receive_state(bench.now, low_state(robot, 0), True) == ""


def test_estop_damps_in_the_same_cycle(bench: Bench) -> None:
    bench.active()
    bench.rules.estop()
    assert isinstance(bench.cycle(command=True), Damping)
    assert bench.rules.cause == "emergency stop"


FAULTS: dict[str, Callable[[Bench], None]] = {
    "stale command": lambda bench: [bench.cycle() for _ in range(40)] and None,
    "stale state": lambda bench: [bench.cycle(state=False, command=True) for _ in range(40)] and None,
    "emergency stop": lambda bench: bench.rules.estop() and None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_latch_holds_against_everything_but_reset(bench: Bench, fault: str) -> None:
    bench.active()
    FAULTS[fault](bench)
    assert all(isinstance(bench.cycle(command=True), Damping) for _ in range(500))
    bench.rules.deactivate()
    for _ in range(SHUTDOWN_CYCLES):
        assert isinstance(bench.cycle(command=True), Damping)
    assert bench.cycle(command=True) is None
    refusal = bench.rules.activate()
    assert not refusal.success
    assert bench.rules.fault in refusal.message
    assert bench.rules.reset(bench.now).success
    assert bench.rules.state == HostState.INACTIVE


def test_reset_leads_to_ready_and_the_old_command_is_forgotten(bench: Bench) -> None:
    bench.active()
    bench.rules.estop()
    bench.cycle(command=True)
    assert bench.rules.reset(bench.now).success
    assert isinstance(bench.cycle(), Damping)
    assert bench.rules.state == HostState.READY
    assert isinstance(bench.cycle(command=True), JointTargets)


def test_reset_is_refused_while_the_state_is_stale(bench: Bench) -> None:
    bench.active()
    for _ in range(40):
        bench.cycle(state=False, command=True)
    refusal = bench.rules.reset(bench.now)
    assert not refusal.success
    assert "no valid LowState" in refusal.message
    assert bench.rules.state == HostState.DAMPING


def test_the_first_of_two_causes_is_kept(bench: Bench) -> None:
    bench.active()
    for _ in range(40):
        bench.cycle()
    bench.rules.estop()
    assert "joint command" in bench.rules.cause


def test_estop_before_activation_sends_nothing_but_forbids_activation(bench: Bench) -> None:
    bench.cycle()
    bench.rules.estop()
    assert bench.cycle() is None
    assert not bench.rules.activate().success
    bench.rules.reset(bench.now)
    assert bench.rules.activate().success


def test_estop_while_waiting_damps_from_the_first_state_on(bench: Bench) -> None:
    bench.rules.activate()
    bench.rules.estop()
    assert bench.cycle(state=False) is None
    assert isinstance(bench.cycle(command=True), Damping)
    assert bench.rules.state == HostState.DAMPING


def test_deactivation_damps_for_a_while_and_then_falls_silent(bench: Bench) -> None:
    bench.active()
    bench.rules.deactivate()
    assert bench.rules.cause == "deactivating"
    assert pytest.approx(0.1) == SHUTDOWN_CYCLES * CYCLE_PERIOD
    outputs = [bench.cycle(command=True) for _ in range(2 * SHUTDOWN_CYCLES)]
    assert all(isinstance(output, Damping) for output in outputs[:SHUTDOWN_CYCLES])
    assert outputs[SHUTDOWN_CYCLES:] == [None] * SHUTDOWN_CYCLES
    assert bench.rules.state == HostState.INACTIVE


def test_activation_during_the_last_damping_cycles_starts_over(bench: Bench) -> None:
    bench.active()
    bench.rules.deactivate()
    bench.cycle()
    assert bench.rules.activate().success
    assert isinstance(bench.cycle(), Damping)
    assert bench.rules.state == HostState.READY


def test_refused_messages_are_counted_and_do_not_feed_the_clock(bench: Bench) -> None:
    bench.active()

    def refused() -> Output:
        bench.rules.refuse_targets()
        return bench.cycle()

    assert cycles_until_damping(bench, refused) * CYCLE_PERIOD <= 62e-3 + 1e-9
    assert bench.rules.rejected_commands >= 30
