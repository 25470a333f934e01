"""Every check of the guard at its threshold and across it; every filter's promise for any input."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_inference.guard import CHECKS, Limits, Sensors, evaluate
from humanoid_rl_inference.safety_config import SafetyConfig
from humanoid_rl_inference.state_machine import State
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from humanoid_rl_inference import guard

NAMES = ("left_hip_pitch_joint", "left_knee_joint", "waist_yaw_joint")
NOW = 1000.0


def leaning(angle: float) -> np.ndarray:
    """Attitude w x y z of a body that leans `angle` rad about a horizontal axis and is turned by 2 rad."""
    yaw = np.array([math.cos(1.0), 0.0, 0.0, math.sin(1.0)])
    w, x = math.cos(0.5 * angle), math.sin(0.5 * angle)
    return np.array([yaw[0] * w, yaw[0] * x, yaw[3] * x, yaw[3] * w])


# ---------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("age", [0.0, 0.05, -0.01])
def test_sample_within_its_age_passes(age: float) -> None:
    assert guard.check_age("imu", age, 0.05, 0.01) is None


def test_sample_across_its_age_trips() -> None:
    assert guard.check_age("imu", math.nextafter(0.05, 1), 0.05, 0.01) == "imu 0.050 s old exceeds 0.050"
    assert guard.check_age("imu", 0.0612, 0.05, 0.01) == "imu 0.061 s old exceeds 0.050"
    assert guard.check_age("imu", math.inf, 0.05, 0.01) == "no imu yet"


def test_sample_from_the_future_trips() -> None:
    cause = guard.check_age("imu", -0.3, 0.05, 0.01)
    assert cause == "imu stamped 0.300 s in the future exceeds 0.010: the clocks disagree"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_value_trips_and_is_named(value: float) -> None:
    cause = guard.check_finite("position", NAMES, np.array([0.0, value, 0.0]))
    assert cause == f"left_knee_joint position {value} is not finite"


def test_finite_values_pass_whatever_their_size() -> None:
    assert guard.check_finite("position", NAMES, np.array([1e308, 1e308, 0.0])) is None


@pytest.mark.parametrize(
    ("norm", "trips"), [(1.0, False), (0.91, False), (1.09, False), (0.89, True), (1.11, True), (0.0, True)]
)
def test_quaternion_norm(norm: float, trips: bool) -> None:
    assert (guard.check_quaternion(norm * leaning(0.3), 0.1) is not None) == trips


@pytest.mark.parametrize(
    ("angle", "trips"), [(0.0, False), (0.999, False), (1.001, True), (-1.001, True), (math.pi, True)]
)
def test_tilt(angle: float, trips: bool) -> None:
    cause = guard.check_tilt(1.05 * leaning(angle), 1.0)
    assert (cause is not None) == trips
    if cause:
        assert cause == f"tilt {abs(angle):.2f} rad exceeds 1.00"


@pytest.mark.parametrize(
    ("velocity", "trips"), [(20.0, False), (-20.0, False), (20.001, True), (-25.1, True)]
)
def test_joint_velocity(velocity: float, trips: bool) -> None:
    limit = np.array([32.0, 20.0, 32.0])
    cause = guard.check_joint_velocity(NAMES, np.array([30.0, velocity, -31.0]), limit)
    assert (cause == f"left_knee_joint velocity {velocity:.1f} rad/s exceeds 20.0") == trips
    assert (cause is not None) == trips


@pytest.mark.parametrize(("position", "trips"), [(1.09, False), (-0.59, False), (1.11, True), (-0.61, True)])
def test_joint_position(position: float, trips: bool) -> None:
    lower, upper = np.full(3, -0.5), np.full(3, 1.0)
    cause = guard.check_joint_position(NAMES, np.array([0.0, position, 1.0]), lower, upper, 0.1)
    assert (cause is not None) == trips
    if cause:
        limit = "1.00" if position > 0 else "-0.50"
        expected = (
            f"left_knee_joint position {position:.2f} rad is 0.11 outside its limit {limit}, more than 0.10"
        )
        assert cause == expected


@pytest.mark.parametrize(
    ("winding", "casing", "cause"),
    [
        (120.0, 85.0, None),
        (math.nan, math.nan, None),
        (121.0, 85.0, "left_knee_joint winding temperature 121 C exceeds 120"),
        (120.0, 86.0, "left_knee_joint casing temperature 86 C exceeds 85"),
    ],
)
def test_motor_temperature(winding: float, casing: float, cause: str | None) -> None:
    others = np.full(3, 40.0)
    windings, casings = others.copy(), others.copy()
    windings[1], casings[1] = winding, casing
    assert guard.check_motor_temperature(NAMES, windings, casings, 120.0, 85.0) == cause


@pytest.mark.parametrize(("misses", "trips"), [(0, False), (9, False), (10, True), (11, True)])
def test_deadline_misses(misses: int, trips: bool) -> None:
    cause = guard.check_deadlines(misses, 10, 50)
    assert (cause == f"{misses} of the last 50 ticks were late, limit 10") == trips


def test_host_that_damps_trips_with_its_own_cause() -> None:
    assert guard.check_host("") is None
    assert guard.check_host("host is damping: e-stop") == "host is damping: e-stop"


@pytest.mark.parametrize(("age", "missing"), [(0.0, False), (1.99, False), (2.01, True), (math.inf, True)])
def test_motor_status_counts_as_missing_when_it_stops(age: float, missing: bool, healthy: Sensors) -> None:
    sensors = replace(healthy, motor_time=NOW - age)
    assert (guard.motor_status_missing(sensors, NOW, 2.0) is not None) == missing


# ----------------------------------------------------------------------------------- what applies where


@pytest.fixture
def limits(robot: RobotModel, safety: SafetyConfig) -> Limits:
    return Limits(safety, robot.joint_names, robot.position_lower, robot.position_upper, robot.velocity_limit)


@pytest.fixture
def healthy(robot: RobotModel) -> Sensors:
    n = len(robot.joint_names)
    return Sensors(
        robot.default_position.copy(),
        np.zeros(n),
        np.zeros(3),
        np.array([1.0, 0.0, 0.0, 0.0]),
        np.full(n, 40.0),
        np.full(n, 30.0),
        joint_time=NOW,
        imu_time=NOW,
        motor_time=NOW,
    )


# One way to break each check: what replaces which field, or the number of late ticks.
BROKEN: dict[str, dict[str, Any]] = {
    "joint state age": {"joint_time": NOW - 0.06},
    "imu age": {"imu_time": NOW - 0.06},
    "finite values": {"imu_gyro": np.array([0.0, math.nan, 0.0])},
    "quaternion norm": {"imu_quat": np.zeros(4)},
    "tilt": {"imu_quat": leaning(1.2)},
    "joint velocity": {"joint_vel": np.full(29, 40.0)},
    "joint position": {"joint_pos": np.full(29, 9.0)},
    "motor temperature": {"winding_temperature": np.full(29, 130.0)},
    "host": {"host_fault": "host is damping: e-stop"},
    "deadlines": {"late": 10},
}


@pytest.mark.parametrize("state", State)
def test_healthy_robot_trips_nowhere(state: State, healthy: Sensors, limits: Limits) -> None:
    assert evaluate(state, healthy, NOW, 0, limits) is None


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_check_trips_in_the_states_of_its_table_alone(
    state: State, check: guard.Check, healthy: Sensors, limits: Limits
) -> None:
    changes = dict(BROKEN[check.name])
    late = changes.pop("late", 0)
    cause = evaluate(state, replace(healthy, **changes), NOW, late, limits)
    assert (cause is not None) == (state in check.states)


def test_table_in_the_documentation_is_the_one_in_force() -> None:
    documented = {}
    for line in (guard.__doc__ or "").splitlines():
        if match := re.fullmatch(r"    (\w[\w ]*?)\s{2,}([-x])\s+([-x])\s+([-x])\s+([-x])\s*", line):
            name, *marks = match.groups()
            documented[name] = {state for state, mark in zip(State, marks, strict=True) if mark == "x"}
    assert documented == {check.name: set(check.states) for check in CHECKS}


# --------------------------------------------------------------------------------------------- filters

finite = st.floats(-1e3, 1e3)
vector = arrays(float, 3, elements=finite)
positive = arrays(float, 3, elements=st.floats(1e-3, 1e3))


@given(target=vector, position=vector, velocity=vector, kp=positive, kd=positive, limit=positive)
def test_effort_filter_keeps_the_torque_within_the_limit(
    target: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    kp: np.ndarray,
    kd: np.ndarray,
    limit: np.ndarray,
) -> None:
    allowed = guard.limit_effort(target, position, velocity, kp, kd, limit)
    torque = kp * (allowed - position) - kd * velocity
    # Rounding of q* is magnified by kp and by the terms that cancel.
    rounding = 1e-12 * (kp * (np.abs(position) + np.abs(allowed)) + kd * np.abs(velocity))
    assert (np.abs(torque) <= limit + rounding).all()


@given(target=vector, position=vector, velocity=vector, kp=positive, kd=positive, limit=positive)
def test_effort_filter_leaves_allowed_targets_alone_and_others_at_the_limit(
    target: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    kp: np.ndarray,
    kd: np.ndarray,
    limit: np.ndarray,
) -> None:
    wanted = kp * (target - position) - kd * velocity
    rounding = 1e-12 * (kp * (np.abs(position) + np.abs(target)) + kd * np.abs(velocity)) + 1e-9 * limit
    assume((np.abs(np.abs(wanted) - limit) > rounding).all())
    allowed = guard.limit_effort(target, position, velocity, kp, kd, limit)
    inside = np.abs(wanted) < limit
    np.testing.assert_array_equal(allowed[inside], target[inside])
    torque = kp * (allowed - position) - kd * velocity
    expected = np.sign(wanted) * limit
    assert (np.abs(torque - expected)[~inside] <= (rounding + 1e-9 * limit)[~inside]).all()


def test_effort_filter_passes_targets_that_have_no_effect() -> None:
    target = np.array([5.0, -5.0, 0.0])
    zero, one = np.zeros(3), np.ones(3)
    np.testing.assert_array_equal(guard.limit_effort(target, zero, 100 * one, zero, 8 * one, one), target)


@given(target=vector, previous=vector, rate=st.floats(0.1, 100.0))
def test_rate_filter_moves_towards_the_target_by_no_more_than_a_step(
    target: np.ndarray, previous: np.ndarray, rate: float
) -> None:
    moved = guard.limit_rate(target, previous, rate, 0.02)
    assert (np.abs(moved - previous) <= rate * 0.02 + 1e-9).all()
    assert (np.abs(target - moved) <= np.abs(target - previous)).all()
    near = np.abs(target - previous) <= rate * 0.02 * (1 - 1e-9)
    np.testing.assert_array_equal(moved[near], target[near])


def test_command_is_clamped_to_the_range_of_training() -> None:
    lower, upper = np.array([-0.5, -0.3, -0.5]), np.array([1.0, 0.3, 0.5])
    np.testing.assert_array_equal(
        guard.limit_command(np.array([2.0, -1.0, 0.4]), lower, upper), [1.0, -0.3, 0.4]
    )


def test_command_accelerates_no_faster_than_allowed() -> None:
    acceleration = np.array([1.0, 1.0, 2.0])
    command = np.zeros(3)
    for _ in range(10):
        command = guard.limit_acceleration(np.array([1.0, 0.05, -1.0]), command, acceleration, 0.02)
    np.testing.assert_allclose(command, [0.2, 0.05, -0.4])
