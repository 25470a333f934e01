"""The virtual G1 seen through its wire: motors, firmware, crane, sensors and faults, without ROS."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.twin.faults import FAULTS
from humanoid_rl_sim.twin.hoist import Hoist
from humanoid_rl_sim.twin.virtual_g1 import (
    CYCLE,
    HOIST_CLEARANCE,
    NOISE,
    VirtualG1,
    heat,
)

from humanoid_rl_core import rotation
from humanoid_rl_core import unitree_hg_wire as wire

ROBOT = load_robot()
N = ROBOT.joint_count
STIFF = ROBOT.gains["stiff"]
WEIGHT = 33.34 * 9.81  # N, sum of the vendor's link masses
KNEE = "left_knee_joint"
ELBOW = ROBOT.joint_names.index("left_elbow_joint")


@pytest.fixture(autouse=True)
def quiet_physics():
    """MuJoCo's warnings would go to a log file in the working directory."""
    mujoco.set_mju_user_warning(lambda text: None)
    yield
    mujoco.set_mju_user_warning(None)


def command(**changes) -> bytes:
    """A LowCmd that holds the default pose with the stiff gains, with some arguments changed."""
    arguments = {
        "mode_machine": 5,
        "q": ROBOT.default_position,
        "dq": 0.0,
        "tau": 0.0,
        "kp": STIFF.stiffness,
        "kd": STIFF.damping,
    }
    return wire.LowCmdWriter(N).command(**(arguments | changes))


def run(twin: VirtualG1, seconds: float, cdr: bytes | None = None) -> list[bytes | None]:
    """Cycles with the same LowCmd every cycle, or none; returns what was published."""
    published = []
    for _ in range(round(seconds / CYCLE)):
        if cdr is not None:
            assert twin.receive(cdr), twin.rejected
        published.append(twin.cycle())
    return published


def read(message: bytes | None) -> wire.LowStateArrays:
    assert message is not None
    assert wire.low_state_crc_ok(message)
    return wire.read_low_state(message, N)


def tilt(twin: VirtualG1) -> float:
    return float(rotation.tilt(twin.base_state().quaternion))


def standing() -> VirtualG1:
    """A robot that stands on its own feet, off the crane."""
    twin = VirtualG1(ROBOT, start="standing")
    run(twin, 3.0, command())
    assert twin.hoist_state == "off"
    return twin


# --- crane and start ---


def test_hoisted_robot_hangs_upright_with_free_feet_and_braking_motors() -> None:
    twin = VirtualG1(ROBOT)
    start = twin.base_state().position[2]
    state = read(run(twin, 3.0)[-1])
    assert twin.hoist_state == "carried"
    assert twin.braking
    assert tilt(twin) < 0.05
    assert twin.base_state().position[2] == pytest.approx(start, abs=0.01)
    assert not any(foot.touching for foot in twin.foot_contacts())
    lowest = min(foot.position[2] for foot in twin.foot_contacts())
    assert 0.0 < HOIST_CLEARANCE < lowest  # the ankle is above the sole
    np.testing.assert_allclose(state.joint_pos[:15], 0.0, atol=0.2)  # legs and waist; the arms dangle


def test_hoist_lowers_by_itself_once_a_controller_holds_the_robot_which_then_stands() -> None:
    twin = VirtualG1(ROBOT)
    run(twin, 1.0)
    pose = twin.joint_pos()
    for share in np.linspace(0.0, 1.0, 1000):  # 2 s into the default pose
        assert twin.hoist_state == "carried"
        twin.receive(command(q=pose + share * (ROBOT.default_position - pose)))
        twin.cycle()
    run(twin, 4.0, command())
    assert twin.hoist_state == "off"
    run(twin, 3.0, command())
    assert tilt(twin) < 0.1
    assert twin.base_state().position[2] == pytest.approx(ROBOT.default_base_height, abs=0.03)
    carried = sum(foot.force[2] for foot in twin.foot_contacts())
    assert carried == pytest.approx(WEIGHT, rel=0.03)


def test_robot_started_on_its_feet_waits_for_a_controller_and_then_stands_alone() -> None:
    twin = VirtualG1(ROBOT, start="standing")
    run(twin, 2.0)
    assert twin.hoist_state == "carried"
    run(twin, 2.0, wire.LowCmdWriter(N).damping(5))  # a host without a policy: nobody holds it yet
    assert twin.hoist_state == "carried"
    run(twin, 3.0, command())
    assert twin.hoist_state == "off"
    run(twin, 3.0, command())
    assert tilt(twin) < 0.1


def test_hoist_lowers_a_robot_under_a_policy_whose_targets_never_rest() -> None:
    twin = VirtualG1(ROBOT)
    for cycle in range(round(12.0 / CYCLE)):
        wave = 0.1 * math.sin(cycle * CYCLE * 10.0)
        twin.receive(command(q=ROBOT.default_position + wave * (np.arange(N) == ELBOW)))
        twin.cycle()
    assert twin.hoist_state == "off"


def test_hoist_waits_for_a_person_when_told_so() -> None:
    twin = VirtualG1(ROBOT, start="standing", auto_lower=False)
    run(twin, 3.0, command())
    assert twin.hoist_state == "carried"
    assert twin.hoist(False) == "lowering"
    run(twin, 2.0, command())
    assert twin.hoist_state == "off"


def test_hoist_lifts_a_fallen_robot_and_keeps_it_up() -> None:
    twin = standing()
    twin.push((2.0, 0.0, 0.0))
    run(twin, 3.0)
    assert twin.base_state().position[2] < 0.4
    assert tilt(twin) > 0.5
    assert twin.hoist(True) == "carried"
    run(twin, 8.0)
    assert tilt(twin) < 0.2
    assert not any(foot.touching for foot in twin.foot_contacts())
    run(twin, 12.0, command())
    assert twin.hoist_state == "carried"


def test_limp_robot_is_laid_down_gently() -> None:
    twin = VirtualG1(ROBOT)
    twin.hoist(False)
    fastest = 0.0
    for _ in range(round(12.0 / CYCLE)):
        twin.cycle()
        fastest = max(fastest, -twin.base_state().linear_velocity[2])
    assert twin.hoist_state == "off"
    assert twin.base_state().position[2] < 0.4
    # Falling from standing height ends at 3 m/s.
    assert fastest < 1.0


BOX = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 0.1"/>
    <body name="box" pos="0 0 0.5"><freejoint/><geom type="box" size="0.2 0.2 0.5" mass="20"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def box() -> tuple[mujoco.MjModel, mujoco.MjData, Hoist]:
    """A box as high as a robot on the floor, on a rope that is told to let go, for 3 s; nobody holds it."""
    model = mujoco.MjModel.from_xml_string(BOX)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    hoist = Hoist(model, 1, 1.0)
    hoist.hang(data, 0.5)
    hoist.lower()
    lower_box(model, data, hoist, 3.0, held=False)
    return model, data, hoist


def lower_box(model: mujoco.MjModel, data: mujoco.MjData, hoist: Hoist, seconds: float, held: bool) -> None:
    for _ in range(round(seconds / 0.002)):
        hoist.apply(data, 0.002, held)
        mujoco.mj_step(model, data)


def test_slack_rope_stays_on_what_nobody_holds_and_catches_it_when_it_drops(box) -> None:
    model, data, hoist = box
    assert hoist.attached
    assert hoist.tension == 0.0
    model.geom("floor").contype = model.geom("floor").conaffinity = 0
    lower_box(model, data, hoist, 0.5, held=False)
    assert 0.3 < data.qpos[2] < 0.5


def test_slack_rope_comes_off_what_a_controller_holds(box) -> None:
    model, data, hoist = box
    lower_box(model, data, hoist, 0.4, held=True)
    assert hoist.attached
    lower_box(model, data, hoist, 0.2, held=True)
    assert not hoist.attached


def test_released_rope_pulls_no_more() -> None:
    model = mujoco.MjModel.from_xml_string(BOX)
    data = mujoco.MjData(model)
    data.qpos[2] = 2.0
    mujoco.mj_forward(model, data)
    hoist = Hoist(model, 1, 2.0)
    hoist.hang(data, 2.0)
    lower_box(model, data, hoist, 0.5, held=False)
    assert data.qpos[2] == pytest.approx(2.0, abs=0.01)
    hoist.release(data)
    lower_box(model, data, hoist, 0.2, held=False)
    assert data.qvel[2] == pytest.approx(-9.81 * 0.2, abs=0.05)


def test_reset_puts_everything_back_but_time_and_counters() -> None:
    twin = VirtualG1(ROBOT)
    fresh = twin.base_state().position
    run(twin, 1.0, command(q=ROBOT.default_position + 0.5, kp=1000.0))
    twin.hoist(False)
    run(twin, 2.0)
    twin.inject_fault("nan_imu")
    twin.reset()
    assert twin.hoist_state == "carried"
    assert not twin.faults
    assert twin.braking
    assert twin.time == pytest.approx(3.0)
    assert twin.accepted == 500
    np.testing.assert_allclose(twin.base_state().position, fresh, atol=1e-9)
    assert twin.winding_temperature.max() == 25.0
    state = read(twin.cycle())
    np.testing.assert_allclose(state.joint_vel, 0.0, atol=0.1)
    assert state.tick == 3002


# --- push ---


def test_push_adds_its_velocity_to_every_link() -> None:
    twin = standing()
    before = twin.base_state().linear_velocity
    momentum = _momentum(twin)
    twin.push((0.3, -0.2, 0.1))
    np.testing.assert_allclose(twin.base_state().linear_velocity - before, (0.3, -0.2, 0.1), atol=1e-12)
    mass = twin.model.body_mass.sum()
    np.testing.assert_allclose((_momentum(twin) - momentum) / mass, (0.3, -0.2, 0.1), atol=1e-9)


def _momentum(twin: VirtualG1) -> np.ndarray:
    """[3] kg m/s of all links."""
    mujoco.mj_forward(twin.model, twin.data)
    mujoco.mj_subtreeVel(twin.model, twin.data)
    return twin.model.body_mass.sum() * twin.data.subtree_linvel[1]


def test_strong_push_fells_a_robot_without_a_policy() -> None:
    twin = standing()
    twin.push((1.0, 0.0, 0.0))
    run(twin, 3.0, command())
    assert tilt(twin) > 1.0


@pytest.mark.parametrize(
    ("velocity", "message"),
    [((math.nan, 0.0, 0.0), "finite"), ((0.0, 6.0, 0.0), "6 m/s is more than 5 m/s")],
)
def test_senseless_push_is_refused(velocity, message) -> None:
    twin = standing()
    with pytest.raises(UserError, match=message):
        twin.push(velocity)
    np.testing.assert_array_less(np.abs(twin.base_state().linear_velocity), 0.1)


def test_push_on_the_hoist_is_refused_because_it_would_prove_nothing() -> None:
    with pytest.raises(UserError, match="on the hoist"):
        VirtualG1(ROBOT).push((0.3, 0.0, 0.0))


# --- motors and firmware ---


def test_motors_apply_the_torque_law_of_the_command() -> None:
    twin = VirtualG1(ROBOT)
    rng = np.random.default_rng(0)
    q0 = twin.joint_pos()
    q, dq, tau = q0 + rng.normal(0.0, 0.02, N), rng.normal(0.0, 0.1, N), rng.normal(0.0, 0.3, N)
    kp, kd = rng.uniform(1.0, 30.0, N), rng.uniform(0.1, 2.0, N)
    for _ in range(200):  # the torque of a cycle belongs to the state in which it began
        expected = kp * (q - twin.joint_pos()) + kd * (dq - twin.joint_vel()) + tau
        twin.receive(command(q=q, dq=dq, tau=tau, kp=kp, kd=kd))
        np.testing.assert_allclose(read(twin.cycle()).joint_effort, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(twin.joint_vel()).max() > 0.05


def test_joints_reach_their_targets() -> None:
    twin = VirtualG1(ROBOT, auto_lower=False)
    state = read(run(twin, 3.0, command())[-1])
    np.testing.assert_allclose(state.joint_pos, ROBOT.default_position, atol=0.05)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_torque_never_exceeds_the_effort_limit(sign: float) -> None:
    twin = VirtualG1(ROBOT)
    twin.receive(command(tau=sign * 1000.0, kp=0.0, kd=0.0))
    np.testing.assert_allclose(read(twin.cycle()).joint_effort, sign * ROBOT.effort_limit, rtol=1e-6)
    for message in run(twin, 0.5, command(q=sign * 3.0, kp=5000.0)):
        assert (np.abs(read(message).joint_effort) <= ROBOT.effort_limit * (1 + 1e-6)).all()


def test_disabled_motor_exerts_no_torque() -> None:
    twin = VirtualG1(ROBOT)
    twin.receive(command(q=ROBOT.default_position + 0.5, tau=5.0, mode=wire.MOTOR_DISABLED))
    np.testing.assert_array_equal(read(twin.cycle()).joint_effort, 0.0)


def test_motors_brake_when_commands_stop_and_follow_again_when_they_return() -> None:
    twin = VirtualG1(ROBOT, auto_lower=False)
    run(twin, 1.0, command())
    run(twin, 0.096)
    assert not twin.braking
    before = read(twin.cycle())
    assert np.abs(before.joint_effort).max() > 1.0
    run(twin, 0.01)
    assert twin.braking
    speed = twin.joint_vel()
    np.testing.assert_allclose(read(twin.cycle()).joint_effort, -wire.DAMPING_KD * speed, atol=1e-4)
    assert np.abs(speed).max() > 0.01
    run(twin, 0.1, command())
    assert not twin.braking


def test_robot_whose_host_dies_sinks_to_the_floor() -> None:
    twin = standing()
    run(twin, 4.0)
    assert twin.base_state().position[2] < 0.5


BAD_COMMANDS = {
    "crc": command()[:-1] + bytes([command()[-1] ^ 1]),
    "mode_machine": command(mode_machine=6),
    "mode_pr": command(mode_pr=1),
    "size": command()[:-4],
    "non_finite": command(q=np.where(np.arange(N) == 3, np.nan, 0.0)),
}


@pytest.mark.parametrize("reason", BAD_COMMANDS)
def test_bad_command_is_counted_and_ignored(reason: str) -> None:
    twin = VirtualG1(ROBOT)
    for _ in range(100):
        assert not twin.receive(BAD_COMMANDS[reason])
        twin.cycle()
    assert twin.rejected == dict.fromkeys(twin.rejected, 0) | {reason: 100}
    assert twin.accepted == 0
    assert twin.braking


def test_bad_command_does_not_keep_an_old_one_alive() -> None:
    twin = VirtualG1(ROBOT)
    run(twin, 0.2, command())
    assert not twin.braking
    for _ in range(60):
        twin.receive(BAD_COMMANDS["crc"])
        twin.cycle()
    assert twin.braking


@pytest.mark.parametrize(("variant", "machine"), [("rev_1_0", 5), ("mode_11", 11)])
def test_robot_reports_and_demands_the_mode_machine_of_its_variant(variant: str, machine: int) -> None:
    twin = VirtualG1(load_robot("g1", variant))
    assert read(twin.cycle()).mode_machine == machine
    assert twin.receive(command(mode_machine=machine))
    assert not twin.receive(command(mode_machine=machine + 1))


# --- sensors ---


def test_every_state_is_valid_and_ticks_in_milliseconds() -> None:
    twin = VirtualG1(ROBOT, sensor_noise=1.0)
    messages = run(twin, 0.2, command())
    states = [read(message) for message in messages]
    assert [state.tick for state in states] == list(range(2, 201 + 1, 2))
    assert all(state.finite() for state in states)
    record = wire.low_state_to_c(messages[-1])
    assert not any(record["motor_state"][N:].tobytes())
    assert not any(record["wireless_remote"].tobytes())
    assert not any(record["reserve"].tobytes())
    assert (record["motor_state"]["mode"][:N] == wire.MOTOR_ENABLED).all()


def test_exact_sensors_report_the_joints_in_motor_order() -> None:
    twin = VirtualG1(ROBOT)
    target = np.clip(0.005 * np.arange(N), ROBOT.position_lower, ROBOT.position_upper)
    state = read(run(twin, 1.5, command(q=target))[-1])
    for index, name in enumerate(ROBOT.joint_names):
        joint = twin.data.joint(name)
        assert state.joint_pos[index] == pytest.approx(float(joint.qpos[0]), abs=1e-6)
        assert state.joint_vel[index] == pytest.approx(float(joint.qvel[0]), abs=1e-6)
        assert state.joint_effort[index] == pytest.approx(float(twin.data.actuator(name).force[0]), abs=1e-4)
    np.testing.assert_allclose(state.joint_pos, target, atol=0.05)


def test_imu_of_a_robot_on_the_floor_feels_gravity_upwards_in_its_own_frame() -> None:
    twin = standing()
    twin.push((2.0, 0.5, 0.0))
    state = read(run(twin, 4.0)[-1])
    imu = wire.low_state_record(twin.cycle())["imu_state"]
    assert np.linalg.norm(state.imu_quat) == pytest.approx(1.0, abs=1e-6)
    assert rotation.tilt(state.imu_quat) > 0.8
    np.testing.assert_allclose(state.imu_accel, -9.81 * rotation.projected_gravity(state.imu_quat), atol=0.3)
    np.testing.assert_allclose(imu["rpy"], rotation.to_rpy(imu["quaternion"].astype(float)), atol=1e-4)
    # The pelvis frame and the IMU frame are parallel: the same attitude.
    np.testing.assert_allclose(np.abs(state.imu_quat @ twin.base_state().quaternion), 1.0, atol=1e-4)


def test_gyroscope_is_the_rate_of_the_quaternion() -> None:
    twin = standing()
    twin.push((1.0, 0.3, 0.0))
    states = [read(message) for message in run(twin, 0.8, command())][200:]
    turned = rotation.multiply(
        rotation.conjugate([state.imu_quat for state in states[:-1]]),
        [state.imu_quat for state in states[1:]],
    )
    rates = rotation.to_rotation_vector(turned) / CYCLE
    gyro = np.array([state.imu_gyro for state in states[1:]])
    assert np.abs(gyro).max() > 0.5
    np.testing.assert_allclose(
        rates, gyro, atol=0.06
    )  # float32 quaternions: 6e-8 / 2 ms = 3e-5, and one step


def test_noise_has_the_stated_size_and_follows_the_seed() -> None:
    def errors(seed: int) -> dict[str, np.ndarray]:
        exact, noisy = VirtualG1(ROBOT), VirtualG1(ROBOT, sensor_noise=1.0, seed=seed)
        pairs = [(read(exact.cycle()), read(noisy.cycle())) for _ in range(400)]
        fields = {"q": "joint_pos", "dq": "joint_vel", "gyro": "imu_gyro", "accel": "imu_accel"}
        found = {
            key: np.array([getattr(b, name) - getattr(a, name) for a, b in pairs])
            for key, name in fields.items()
        }
        turned = rotation.multiply(
            rotation.conjugate([a.imu_quat for a, _ in pairs]), [b.imu_quat for _, b in pairs]
        )
        return found | {"attitude": rotation.to_rotation_vector(turned)}

    first = errors(1)
    for key, size in NOISE.items():
        assert first[key].std() == pytest.approx(size, rel=0.1), key
        assert abs(first[key].mean()) < size / 4, key
    again, other = errors(1), errors(2)
    for key in NOISE:
        np.testing.assert_array_equal(first[key], again[key])
        assert not np.array_equal(first[key], other[key])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_hard_work_in_either_direction_heats_the_winding_and_then_the_casing(sign: float) -> None:
    twin = VirtualG1(ROBOT, auto_lower=False)
    state = read(run(twin, 5.0, command(tau=sign * ROBOT.effort_limit, kp=0.0, kd=1.0))[-1])
    loaded = np.abs(state.joint_effort) > 0.9 * ROBOT.effort_limit
    assert loaded.sum() > 5
    assert (state.winding_temperature[loaded] > 40.0).all()
    assert (state.casing_temperature[loaded] > 26.0).all()
    assert (state.winding_temperature > state.casing_temperature)[loaded].all()


def test_a_third_of_the_torque_for_ever_stays_below_the_vendors_limits_and_half_does_not() -> None:
    def after_hours(load: float) -> tuple[float, float]:
        winding = casing = np.full(1, 25.0)
        for _ in range(20_000):
            winding, casing = heat(winding, casing, np.full(1, load**2), 1.0)
        return float(winding[0]), float(casing[0])

    winding, casing = after_hours(1.0 / 3.0)
    assert winding == pytest.approx(105.0, abs=0.1)
    assert casing < 85.0
    assert after_hours(0.5)[0] > 120.0
    assert after_hours(0.0) == (25.0, 25.0)


# --- faults ---


def test_drop_state_silences_the_robot_for_its_duration() -> None:
    twin = VirtualG1(ROBOT)
    twin.inject_fault("drop_state", duration=0.1)
    published = run(twin, 0.2)
    assert [message is None for message in published[:49]] == [True] * 49
    assert [message is None for message in published[51:]] == [False] * 49


def test_freeze_state_repeats_one_valid_message() -> None:
    twin = VirtualG1(ROBOT)
    run(twin, 0.1)
    twin.inject_fault("freeze_state", duration=0.1)
    frozen = run(twin, 0.096)
    assert len(set(frozen)) == 1
    assert read(frozen[0]).tick == 102
    assert read(run(twin, 0.1)[-1]).tick == 296


def test_nan_imu_hits_the_imu_alone_and_keeps_the_crc_right() -> None:
    twin = VirtualG1(ROBOT)
    twin.inject_fault("nan_imu")
    state = read(twin.cycle())
    assert np.isnan(state.imu_quat).all()
    assert np.isnan(state.imu_gyro).all()
    assert np.isnan(state.imu_accel).all()
    assert np.isfinite(state.joint_pos).all()
    twin.inject_fault("none")
    assert read(twin.cycle()).finite()


def test_stuck_joint_stays_where_it_is_and_the_others_move() -> None:
    twin = VirtualG1(ROBOT, auto_lower=False)
    run(twin, 0.5)
    knee = ROBOT.joint_names.index(KNEE)
    where = twin.joint_pos()[knee]
    twin.inject_fault("stuck_joint", joint=KNEE, duration=2.1)
    pose = read(run(twin, 2.0, command())[-1]).joint_pos
    assert pose[knee] == pytest.approx(where, abs=0.01)
    assert pose[ELBOW] == pytest.approx(ROBOT.default_position[ELBOW], abs=0.05)
    pose = read(run(twin, 2.0, command())[-1]).joint_pos
    assert pose[knee] == pytest.approx(ROBOT.default_position[knee], abs=0.05)


def test_delay_state_publishes_late_and_in_order() -> None:
    twin = VirtualG1(ROBOT)
    run(twin, 0.1)
    twin.inject_fault("delay_state", value=0.03)
    published = run(twin, 0.2)
    assert published[:15] == [None] * 15
    ticks = [read(message).tick for message in published[15:]]
    assert ticks == list(range(102, 102 + 2 * len(ticks), 2))
    twin.inject_fault("none")
    assert read(twin.cycle()).tick == 302


def test_bad_crc_spoils_the_crc_alone() -> None:
    twin = VirtualG1(ROBOT)
    twin.inject_fault("bad_crc")
    message = twin.cycle()
    assert message is not None
    assert not wire.low_state_crc_ok(message)
    repaired = bytearray(message)
    wire.seal_low_state(repaired)
    assert wire.read_low_state(repaired, N).finite()


@pytest.mark.parametrize(("value", "reported"), [(0.0, 130.0), (95.0, 95.0)])
def test_overheat_reports_a_hot_winding_of_the_joint(value: float, reported: float) -> None:
    twin = VirtualG1(ROBOT)
    twin.inject_fault("overheat", joint=KNEE, value=value)
    temperature = read(twin.cycle()).winding_temperature
    knee = ROBOT.joint_names.index(KNEE)
    assert temperature[knee] == reported
    assert np.delete(temperature, knee).max() < 30.0


def test_faults_add_up_and_end_one_by_one() -> None:
    twin = VirtualG1(ROBOT)
    twin.inject_fault("nan_imu", duration=0.05)
    twin.inject_fault("overheat", joint=KNEE, duration=0.1)
    assert set(twin.faults) == {"nan_imu", "overheat"}
    run(twin, 0.06)
    assert set(twin.faults) == {"overheat"}
    run(twin, 0.06)
    assert not twin.faults


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explode",), "unknown fault 'explode'; valid: none, " + ", ".join(FAULTS)),
        (("nan_imo",), "unknown fault 'nan_imo', did you mean 'nan_imu'"),
        (("stuck_joint",), "stuck_joint needs a joint"),
        (("stuck_joint", "left_knie_joint"), "did you mean 'left_knee_joint'"),
        (("nan_imu", KNEE), "nan_imu takes no joint"),
        (("delay_state",), "delay_state: value must be the delay"),
        (("delay_state", "", 60.0), "delay_state: value must be the delay"),
        (("overheat", KNEE, 1000.0), "overheat: value must be degrees"),
        (("nan_imu", "", 0.0, -1.0), "duration must be 0"),
        (("nan_imu", "", 0.0, math.nan), "duration must be 0"),
        (("delay_state", "", math.inf), "value must be finite"),
    ],
)
def test_senseless_fault_is_refused_with_the_remedy_and_changes_nothing(arguments, message: str) -> None:
    twin = VirtualG1(ROBOT)
    with pytest.raises(UserError, match=message):
        twin.inject_fault(*arguments)
    assert not twin.faults


# --- robustness ---


def test_same_seed_and_commands_give_the_same_bytes() -> None:
    def history() -> list[bytes | None]:
        return run(VirtualG1(ROBOT, sensor_noise=1.0, seed=4), 0.5, command())

    assert history() == history()


def test_diverged_physics_start_anew_and_are_counted() -> None:
    twin = VirtualG1(ROBOT)
    run(twin, 0.1, command())
    for expected in (1, 2):
        twin.data.qvel[10] = math.nan
        twin.cycle()
        assert twin.diverged == expected
        assert read(twin.cycle()).finite()
        assert twin.hoist_state == "carried"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timestep": 0.003}, "timestep"),
        ({"timestep": 0.0}, "timestep"),
        ({"timestep": 0.004}, "timestep"),
        ({"start": "flying"}, "neither hoisted nor standing"),
        ({"sensor_noise": -1.0}, "sensor_noise"),
        ({"command_timeout": 0.0}, "command_timeout"),
        ({"mode_machine": 256}, "mode_machine"),
    ],
)
def test_senseless_construction_is_refused(arguments, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VirtualG1(ROBOT, **arguments)


def test_finer_physics_steps_keep_the_500_hz_cycle() -> None:
    twin = VirtualG1(ROBOT, timestep=0.0005, start="standing")
    assert [read(message).tick for message in run(twin, 0.02)] == list(range(2, 21, 2))
    run(twin, 4.0, command())
    assert twin.hoist_state == "off"
    assert tilt(twin) < 0.1
    assert twin.data.time == pytest.approx(4.02)
