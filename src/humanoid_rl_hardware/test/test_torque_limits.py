"""Rule H6 in the core, over commands and states of any size."""

from __future__ import annotations

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_core.unitree_hg_wire import LowCmdWriter, low_cmd_record
from humanoid_rl_hardware.joint_targets import MAX_DAMPING, MAX_STIFFNESS, JointTargets
from humanoid_rl_hardware.torque_limits import TorqueLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

Floats = np.ndarray


def uniform_targets(robot: RobotModel, **values: float) -> JointTargets:
    """The same target for every joint, zero where nothing is given."""
    n = len(robot.joint_names)
    names = ("position", "velocity", "effort", "stiffness", "damping")
    return JointTargets(**{name: np.full(n, values.get(name, 0.0)) for name in names})


def torque(targets: JointTargets, joint_pos: Floats, joint_vel: Floats) -> Floats:
    return (
        targets.stiffness * (targets.position - joint_pos)
        + targets.damping * (targets.velocity - joint_vel)
        + targets.effort
    )


def on_the_wire(targets: JointTargets) -> JointTargets:
    """As the robot reads it: after rounding to float32."""
    n = targets.position.size
    data = LowCmdWriter(n).command(
        5, targets.position, targets.velocity, targets.effort, targets.stiffness, targets.damping
    )
    motors = low_cmd_record(data)["motor_cmd"][:n]
    return JointTargets(*(motors[key].astype(np.float64) for key in ("q", "dq", "tau", "kp", "kd")))


@st.composite
def situations(draw: st.DrawFn) -> tuple[np.random.Generator, float]:
    """A seed for 29 joints at once and how far outside the ordinary they are."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.sampled_from([0.1, 1.0, 5.0, 1e6]))


@settings(max_examples=300, deadline=None)
@given(situation=situations())
def test_no_command_in_no_state_exceeds_position_or_effort_limits_on_the_wire(
    robot: RobotModel, situation: tuple[np.random.Generator, float]
) -> None:
    rng, size = situation
    n = len(robot.joint_names)
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    span = robot.position_upper - robot.position_lower
    targets = JointTargets(
        position=middle + size * span * rng.uniform(-1, 1, n),
        velocity=size * robot.velocity_limit * rng.uniform(-1, 1, n),
        effort=size * robot.effort_limit * rng.uniform(-1, 1, n),
        stiffness=MAX_STIFFNESS * rng.uniform(0, 1, n) * rng.integers(0, 2, n),
        damping=MAX_DAMPING * rng.uniform(0, 1, n) * rng.integers(0, 2, n),
    )
    # The joints are where the limits may be broken too: a robot can be pushed past its soft limits.
    joint_pos = middle + 0.6 * span * rng.uniform(-1, 1, n)
    joint_vel = 1.5 * robot.velocity_limit * rng.uniform(-1, 1, n)

    sent = on_the_wire(TorqueLimiter(robot).clamp(targets, joint_pos, joint_vel))

    assert np.all(sent.position >= robot.position_lower)
    assert np.all(sent.position <= robot.position_upper)
    assert np.all(np.abs(sent.velocity) <= robot.velocity_limit)
    assert np.all(np.abs(torque(sent, joint_pos, joint_vel)) <= robot.effort_limit)
    assert np.all(sent.stiffness <= targets.stiffness * (1 + 1e-6))
    assert np.all(sent.damping <= targets.damping * (1 + 1e-6))


def test_a_command_inside_all_limits_passes_unchanged(robot: RobotModel) -> None:
    gains = robot.gains["compliant"]
    n = len(robot.joint_names)
    targets = JointTargets(
        robot.default_position, np.full(n, 0.1), np.full(n, 0.2), gains.stiffness, gains.damping
    )
    sent = TorqueLimiter(robot).clamp(targets, robot.default_position + 0.01, np.full(n, -0.05))
    for name in ("velocity", "effort", "stiffness", "damping"):
        np.testing.assert_array_equal(getattr(sent, name), getattr(targets, name))
    np.testing.assert_array_equal(sent.position, targets.position)


def test_a_far_target_is_moved_towards_the_joint_until_the_torque_is_the_limit(robot: RobotModel) -> None:
    n = len(robot.joint_names)
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    targets = uniform_targets(robot, position=100.0, stiffness=1000.0, damping=1.0)
    sent = TorqueLimiter(robot).clamp(targets, middle, np.zeros(n))
    np.testing.assert_allclose(torque(sent, middle, np.zeros(n)), robot.effort_limit, rtol=2e-4)
    np.testing.assert_array_equal(sent.stiffness, 1000.0)
    np.testing.assert_array_equal(sent.damping, 1.0)
    assert np.all(sent.position > middle)


def test_damping_beyond_the_limit_is_weakened_and_never_turned_into_a_push(robot: RobotModel) -> None:
    n = len(robot.joint_names)
    fast = robot.velocity_limit
    targets = uniform_targets(robot, damping=50.0)
    sent = TorqueLimiter(robot).clamp(targets, robot.default_position, fast)
    np.testing.assert_allclose(torque(sent, robot.default_position, fast), -robot.effort_limit, rtol=2e-4)
    # The joint has stopped before the next cycle: nothing of the command may be left pushing it.
    np.testing.assert_allclose(torque(sent, robot.default_position, np.zeros(n)), 0.0, atol=1e-12)


def test_a_joint_past_its_limit_is_pulled_back_within_the_effort_limit(robot: RobotModel) -> None:
    n = len(robot.joint_names)
    outside = robot.position_upper + 0.2
    targets = uniform_targets(robot, position=0.0, stiffness=1000.0)
    sent = TorqueLimiter(robot).clamp(targets, outside, np.zeros(n))
    pull = torque(sent, outside, np.zeros(n))
    np.testing.assert_allclose(pull, -robot.effort_limit, rtol=2e-4)
    assert np.all(sent.position <= robot.position_upper)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_target_at_its_limit_stays_inside_after_rounding_to_float32(robot: RobotModel, side: float) -> None:
    targets = uniform_targets(robot, position=side * 1e300)
    n = len(robot.joint_names)
    sent = on_the_wire(TorqueLimiter(robot).clamp(targets, np.zeros(n), np.zeros(n)))
    assert np.all(sent.position >= robot.position_lower)
    assert np.all(sent.position <= robot.position_upper)
