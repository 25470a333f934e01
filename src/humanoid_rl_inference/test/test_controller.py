"""Ticks of the controller in simulated time: continuity, commands, faults."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import foreign_files
import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.foreign.importing import import_policy
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_inference.controller import Controller
from humanoid_rl_inference.guard import Sensors
from humanoid_rl_inference.motion import MINIMUM_JERK_PEAK, JointTargets, minimum_jerk, standing_duration
from humanoid_rl_inference.safety_config import SafetyConfig
from humanoid_rl_inference.state_machine import Event, State

PERIOD = 0.02


class FixedPolicy:
    """A policy that always wants the same targets, to see what is done to them."""

    def __init__(self, contract: Any, target: np.ndarray) -> None:
        self.contract = contract
        self.target = target
        self.commands: list[np.ndarray] = []
        self.resets = 0
        self.error: Exception | None = None

    def reset(self) -> None:
        self.resets += 1

    def step(self, pos: Any, vel: Any, gyro: Any, quat: Any, command: np.ndarray) -> Any:
        if self.error is not None:
            raise self.error
        self.commands.append(np.array(command))
        return SimpleNamespace(joint_target=self.target, action=np.zeros_like(self.target))


class Bench:
    """A controller with healthy sensors and its own time; joints stay where the test puts them."""

    def __init__(self, robot: RobotModel, policy: Any, safety: SafetyConfig) -> None:
        self.robot = robot
        self.controller = Controller(robot, policy, safety)
        n = len(robot.joint_names)
        self.now = 100.0
        self.sensors = Sensors(
            robot.default_position + 0.1,
            np.zeros(n),
            np.zeros(3),
            np.array([1.0, 0.0, 0.0, 0.0]),
            np.full(n, 40.0),
            np.full(n, 30.0),
        )
        self.command: np.ndarray | None = None
        self.command_time = -np.inf
        self.sent: list[JointTargets] = []
        self.torques: list[np.ndarray] = []
        self._fresh()

    def _fresh(self) -> None:
        self.sensors = replace(self.sensors, joint_time=self.now, imu_time=self.now, motor_time=self.now)

    def request(self, event: Event) -> Any:
        return self.controller.request(event, self.now, self.sensors, 0, "asked")

    def tick(self, count: int = 1, late: int = 0) -> JointTargets:
        for _ in range(count):
            self.now += PERIOD
            self._fresh()
            targets = self.controller.tick(
                self.now, self.sensors, self.command, self.now - self.command_time, late
            )
            self.sent.append(targets)
            self.torques.append(targets.torque(self.sensors.joint_pos, self.sensors.joint_vel))
        return targets

    def stand(self) -> None:
        assert self.request(Event.STAND).accepted
        while self.controller.state is State.STANDING and self.controller.not_standing(
            self.now, self.sensors
        ):
            self.tick()
            self.sensors = replace(self.sensors, joint_pos=self.sent[-1].position.copy())
            assert self.now < 200.0

    def run(self) -> None:
        self.stand()
        reply = self.request(Event.START)
        assert reply.accepted, reply.message


@pytest.fixture
def policy(robot: RobotModel, policy_file: Path) -> FixedPolicy:
    return FixedPolicy(OnnxPolicy(policy_file, robot).contract, robot.default_position + 0.2)


@pytest.fixture
def bench(robot: RobotModel, policy: FixedPolicy, safety: SafetyConfig) -> Bench:
    return Bench(robot, policy, safety)


def test_idle_and_fault_damp_without_stiffness(bench: Bench) -> None:
    for event in (None, Event.ESTOP):
        if event:
            bench.request(event)
        targets = bench.tick()
        assert not targets.stiffness.any()
        assert (targets.damping == 8.0).all()


def test_idle_damps_even_when_no_sensor_ever_spoke(
    robot: RobotModel, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    controller = Controller(robot, policy, safety)
    targets = controller.tick(1.0, Sensors.unknown(29), None, np.inf, 0)
    assert np.isfinite(targets.position).all() and not targets.stiffness.any()
    assert controller.state is State.IDLE


def test_minimum_jerk_starts_and_ends_at_rest() -> None:
    h = 1e-4
    assert (minimum_jerk(-1.0), minimum_jerk(0.0), minimum_jerk(1.0), minimum_jerk(2.0)) == (
        0.0,
        0.0,
        1.0,
        1.0,
    )
    assert minimum_jerk(h) / h < 1e-6
    assert (1.0 - minimum_jerk(1.0 - h)) / h < 1e-6
    phases = np.linspace(0.0, 1.0, 10001)
    speeds = np.diff([minimum_jerk(p) for p in phases]) / np.diff(phases)
    assert speeds.max() == pytest.approx(MINIMUM_JERK_PEAK, rel=1e-6)
    assert speeds.min() >= 0.0


def test_standing_takes_as_long_as_its_farthest_joint_needs(bench: Bench, safety: SafetyConfig) -> None:
    home = bench.robot.default_position
    far = home.copy()
    far[3] += 1.0
    duration = standing_duration(far, home, safety.standing.rate, safety.standing.minimum_duration)
    assert duration == pytest.approx(MINIMUM_JERK_PEAK * 1.0 / safety.standing.rate)
    assert standing_duration(home, home, 0.5, 1.0) == 1.0


def test_standing_goes_from_the_measured_pose_to_the_default_one_with_stiff_gains(
    bench: Bench, safety: SafetyConfig
) -> None:
    start = bench.sensors.joint_pos.copy()
    assert bench.request(Event.STAND).accepted
    np.testing.assert_allclose(bench.tick().position, start, atol=1e-3)
    bench.sensors = replace(bench.sensors, joint_pos=bench.robot.default_position.copy())
    targets = bench.tick(60)
    np.testing.assert_allclose(targets.position, bench.robot.default_position, atol=1e-12)
    np.testing.assert_array_equal(targets.stiffness, bench.robot.gains["stiff"].stiffness)
    speed = max(
        np.abs(b.position - a.position).max() for a, b in zip(bench.sent, bench.sent[1:], strict=False)
    )
    assert speed <= safety.standing.rate * PERIOD * 1.01
    assert bench.controller.not_standing(bench.now, bench.sensors) is None


def test_standing_is_not_complete_while_a_joint_is_elsewhere(bench: Bench) -> None:
    bench.request(Event.STAND)
    position = bench.robot.default_position.copy()
    position[3] += 0.4
    bench.sensors = replace(bench.sensors, joint_pos=position)
    bench.tick(80)
    reply = bench.request(Event.START)
    assert not reply.accepted
    assert (
        reply.message == "start refused: left_knee_joint is 0.40 rad from the standing pose, tolerance 0.25"
    )


def _jumps(bench: Bench, begin: int) -> tuple[float, float, float]:
    """Largest change from one tick to the next of target (rad), stiffness (Nm/rad) and torque (Nm)."""
    pairs = list(zip(bench.sent[begin:], bench.sent[begin + 1 :], strict=False))
    return (
        max(float(np.abs(b.position - a.position).max()) for a, b in pairs),
        max(float(np.abs(b.stiffness - a.stiffness).max()) for a, b in pairs),
        float(np.abs(np.diff(bench.torques[begin:], axis=0)).max()),
    )


def test_start_blends_targets_and_gains_without_a_jump(
    bench: Bench, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    bench.stand()
    # The joints stay where they are, so that every change of the torque is the blend's doing.
    bench.sensors = replace(bench.sensors, joint_pos=bench.sent[-1].position + 0.05)
    bench.tick()
    begin = len(bench.sent) - 1
    assert bench.request(Event.START).accepted
    bench.tick(40)
    step = PERIOD / safety.blend.duration
    stiff, soft = bench.robot.gains["stiff"].stiffness, bench.robot.gains["compliant"].stiffness
    target_jump, gain_jump, torque_jump = _jumps(bench, begin)
    assert target_jump <= step * 0.2 + 1e-9
    assert gain_jump <= step * np.abs(stiff - soft).max() + 1e-9
    # d(kp e)/da = dkp e + kp de, at most 0.25 rad away from the joints.
    assert torque_jump <= step * (np.abs(stiff - soft).max() * 0.25 + stiff.max() * 0.2) + 1e-9
    np.testing.assert_allclose(bench.sent[-1].position, policy.target)
    np.testing.assert_allclose(bench.sent[-1].stiffness, soft)


def test_stop_blends_back_to_standing_without_a_jump(bench: Bench, safety: SafetyConfig) -> None:
    bench.run()
    bench.tick(50)
    bench.sensors = replace(bench.sensors, joint_pos=bench.robot.default_position + 0.2)
    bench.tick()
    begin = len(bench.sent) - 1
    assert bench.request(Event.STOP).accepted
    bench.tick(100)
    target_jump, _, torque_jump = _jumps(bench, begin)
    step = PERIOD / safety.blend.duration
    assert target_jump <= (step * 0.2 + safety.standing.rate * PERIOD) + 1e-9
    assert torque_jump <= bench.robot.effort_limit.max() * 0.2
    assert bench.controller.state is State.STANDING


def test_policy_starts_from_a_cleared_state_each_time(bench: Bench, policy: FixedPolicy) -> None:
    bench.run()
    bench.tick(40)
    bench.request(Event.STOP)
    while bench.controller.not_standing(bench.now, bench.sensors):
        bench.tick()
        bench.sensors = replace(bench.sensors, joint_pos=bench.sent[-1].position.copy())
    bench.request(Event.START)
    assert policy.resets == 2


def test_targets_of_a_wild_policy_stay_within_limits_rate_and_torque(
    bench: Bench, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    bench.run()
    rng = np.random.default_rng(0)
    lower, upper, effort = bench.robot.position_lower, bench.robot.position_upper, bench.robot.effort_limit
    for _ in range(100):
        policy.target = rng.uniform(-30.0, 30.0, 29)
        velocity = rng.uniform(-10.0, 10.0, 29)
        bench.sensors = replace(bench.sensors, joint_vel=velocity)
        targets = bench.tick()
        assert bench.controller.state is State.RUNNING
        assert (np.abs(bench.torques[-1]) <= effort * (1 + 1e-9)).all()
        torque_bound = np.abs(np.abs(bench.torques[-1]) - effort) < 1e-6
        inside = (targets.position >= lower - 1e-9) & (targets.position <= upper + 1e-9)
        # A target leaves the position limits only where the torque would leave its own otherwise.
        assert (inside | torque_bound).all()
    counts = bench.controller.interventions
    assert counts.position and counts.effort and counts.joints


def test_jumping_target_is_slowed_to_the_rate_limit(
    bench: Bench, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    policy.target = bench.robot.default_position.copy()
    bench.run()
    bench.tick(40)
    wrist = bench.robot.joint_names.index("left_shoulder_pitch_joint")
    policy.target[wrist] = -3.0
    before = bench.sent[-1].position[wrist]
    after = bench.tick().position[wrist]
    assert before - after == pytest.approx(safety.targets.rate * PERIOD)
    assert bench.controller.interventions.rate == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_target_of_the_policy_faults_and_names_the_joint(
    bench: Bench, policy: FixedPolicy, bad: float
) -> None:
    bench.run()
    policy.target = policy.target.copy()
    policy.target[3] = bad
    targets = bench.tick()
    assert bench.controller.state is State.FAULT
    assert bench.controller.cause == f"left_knee_joint target {bad} is not finite"
    assert not targets.stiffness.any()


def test_exception_in_the_inference_faults_with_its_name(bench: Bench, policy: FixedPolicy) -> None:
    bench.run()
    policy.error = MemoryError("arena")
    targets = bench.tick()
    assert bench.controller.cause == "inference failed: MemoryError: arena"
    assert not targets.stiffness.any()
    policy.error = None
    assert not bench.tick().stiffness.any(), "latched"
    assert bench.request(Event.RESET).accepted
    assert bench.controller.cause == ""


def test_first_cause_of_a_fault_is_kept(bench: Bench, policy: FixedPolicy) -> None:
    bench.run()
    policy.error = RuntimeError("first")
    bench.tick()
    bench.request(Event.ESTOP)
    assert bench.controller.cause == "inference failed: RuntimeError: first"


def test_late_ticks_fault_a_running_policy(bench: Bench) -> None:
    bench.run()
    bench.tick(late=9)
    assert bench.controller.state is State.RUNNING
    bench.tick(late=10)
    assert bench.controller.cause == "10 of the last 50 ticks were late, limit 10"


def test_command_accelerates_is_clamped_and_times_out_to_zero(
    bench: Bench, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    bench.run()
    bench.command = np.array([9.0, 0.0, 0.0])
    for _ in range(60):
        bench.command_time = bench.now
        bench.tick()
    values = np.array(policy.commands)[:, 0]
    assert np.diff(values, prepend=0.0).max() <= safety.command.acceleration["vx"] * PERIOD + 1e-9
    assert values[-1] == 1.0
    bench.tick(int((safety.command.timeout + 1.0) / PERIOD) + 5)
    values = np.array(policy.commands)[:, 0]
    assert values[-1] == 0.0
    assert bench.controller.state is State.RUNNING
    held = np.flatnonzero(values == 1.0)
    held_for = (held[-1] - 59) * PERIOD
    assert held_for == pytest.approx(safety.command.timeout, abs=1.5 * PERIOD)


def test_policy_with_an_unknown_command_is_refused(
    robot: RobotModel, policy: FixedPolicy, safety: SafetyConfig
) -> None:
    contract = replace(policy.contract, command_names=("vx", "vy", "yaw_rat"))
    with pytest.raises(UserError, match=r"'yaw_rat' without an entry .* did you mean 'yaw_rate'"):
        Controller(robot, FixedPolicy(contract, policy.target), safety)


def test_policy_that_sees_what_no_sensor_gives_is_refused(
    robot: RobotModel, seeing_policy_file: Path, safety: SafetyConfig
) -> None:
    policy = OnnxPolicy(seeing_policy_file, robot)
    with pytest.raises(
        UserError, match=r"'height_scan' asks for the ground at 9 points, .* has no sensor"
    ) as refused:
        Controller(robot, policy, safety)
    assert "\n" not in str(refused.value)


def test_exported_policy_is_stepped_with_its_own_last_action(
    robot: RobotModel, policy_file: Path, safety: SafetyConfig
) -> None:
    bench = Bench(robot, OnnxPolicy(policy_file, robot), safety)
    bench.run()
    reference = OnnxPolicy(policy_file, robot)
    for _ in range(40):
        bench.tick()
        s = bench.sensors
        output = reference.step(s.joint_pos, s.joint_vel, s.imu_gyro, s.imu_quat, np.zeros(3))
    # Blended and filtered for half a second, and yet the policy is where an undisturbed one is.
    np.testing.assert_array_equal(bench.sent[-1].position, output.joint_target)


@pytest.mark.parametrize("history", [1, 5])
def test_imported_policy_runs_as_any_other(
    robot: RobotModel, safety: SafetyConfig, tmp_path: Path, history: int
) -> None:
    """A policy of unitree_rl_lab, imported: stood up, started, commanded, and where its own stack's code has it."""
    terms = {name: {"history_length": history} for name in foreign_files.NAMES["lab"]}
    stack, content = foreign_files.deploy_yaml(robot, tmp_path / "policy.onnx", terms)
    config = foreign_files.write_yaml(tmp_path / "deploy.yaml", content)
    import_policy(
        tmp_path / "policy.onnx", tmp_path / "own.onnx", config=config, settings=foreign_files.SETTINGS
    )
    bench = Bench(robot, OnnxPolicy(tmp_path / "own.onnx", robot), safety)
    bench.run()
    for _ in range(40):
        bench.tick()
        s = bench.sensors
        now = {
            "joint_pos": s.joint_pos,
            "joint_vel": s.joint_vel,
            "imu_gyro": s.imu_gyro,
            "imu_quat": s.imu_quat,
        }
        target, _ = stack.step({**now, "command": np.zeros(3)})
    assert bench.controller.state is State.RUNNING
    np.testing.assert_allclose(bench.sent[-1].position, target, atol=2e-5)
    order = stack.order
    np.testing.assert_array_equal(bench.sent[-1].stiffness, np.arange(len(order)) + 10.0)
