"""What the simulated robot's body does, whatever steps it; parametrised over the simulators of `robot_twin`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.mujoco_model import build_mujoco_model
from humanoid_rl_sim.twin.bodies import SIMULATORS, make_body
from humanoid_rl_sim.twin.body import CYCLE, Body
from humanoid_rl_sim.twin.virtual_g1 import VirtualG1

from humanoid_rl_core import rotation
from humanoid_rl_core import unitree_hg_wire as wire

ROBOT = load_robot()
N = ROBOT.joint_count
STIFF = ROBOT.gains["stiff"]
GRAVITY = 9.81
WEIGHT = 33.34 * GRAVITY
KNEE, ELBOW = map(ROBOT.joint_names.index, ("left_knee_joint", "left_elbow_joint"))
LIGHTEST = int(np.argmin(ROBOT.armature))
NOTHING = np.zeros(N)

HERE = [name for name in SIMULATORS if name.startswith("isaac:") == (find_spec("isaaclab") is not None)]
"""Isaac Lab has an environment of its own (`make test-isaac`)."""


@pytest.fixture(scope="module", params=HERE)
def body(request: pytest.FixtureRequest) -> Iterator[Body]:
    """One for all tests, since an engine takes its time to start: a reset makes it new."""
    made = make_body(request.param, ROBOT)
    yield made
    made.close()


def command(**changes) -> bytes:
    """A LowCmd that holds the default pose with the stiff gains, with some arguments changed."""
    held = {"q": ROBOT.default_position, "dq": 0.0, "tau": 0.0, "kp": STIFF.stiffness, "kd": STIFF.damping}
    return wire.LowCmdWriter(N).command(mode_machine=5, **(held | changes))


def run(twin: VirtualG1, seconds: float, cdr: bytes | None = None) -> list[bytes]:
    published = []
    for _ in range(round(seconds / CYCLE)):
        if cdr is not None:
            assert twin.receive(cdr), twin.rejected
        message = twin.cycle()
        assert message is not None
        published.append(message)
    return published


def read(message: bytes) -> wire.LowStateArrays:
    return wire.read_low_state(message, N)


def tilt(twin: VirtualG1) -> float:
    return float(rotation.tilt(twin.base_state().quaternion))


def let_fall(body: Body, steps: int, *, stiff: bool = True) -> None:
    """From 3 m, without a rope."""
    body.reset(3.0, ROBOT.default_position)
    if stiff:
        body.drive(ROBOT.default_position, NOTHING, NOTHING, STIFF.stiffness, STIFF.damping)
    for _ in range(steps):
        body.step()


@pytest.fixture(scope="module")
def standing(body: Body) -> VirtualG1:
    """A robot that stood up under a controller, the crane off; the first test that takes it finds it standing."""
    twin = VirtualG1(ROBOT, body=body, start="standing")
    run(twin, 2.6, command())
    assert twin.hoist_state == "off"
    return twin


def test_robot_stands_on_its_own_under_its_weight_alone_and_the_imu_feels_it(standing: VirtualG1) -> None:
    states = [read(message) for message in run(standing, 0.4, command())]
    assert tilt(standing) < 0.1
    feet = standing.foot_contacts()
    assert [foot.touching for foot in feet] == [True, True]
    np.testing.assert_allclose(sum(foot.force for foot in feet), (0.0, 0.0, WEIGHT), atol=0.03 * WEIGHT)
    felt = np.mean([state.imu_accel for state in states], axis=0)
    np.testing.assert_allclose(felt, -GRAVITY * rotation.projected_gravity(states[-1].imu_quat), atol=0.3)
    assert felt[2] > 9.0
    assert np.abs([state.imu_gyro for state in states]).max() < 0.5


def test_damping_command_lets_it_sink_and_lie_still(standing: VirtualG1) -> None:
    run(standing, 2.0, wire.LowCmdWriter(N).damping(5))
    assert standing.base_state().position[2] < 0.5
    assert np.abs(standing.base_state().linear_velocity).max() < 0.5
    assert not standing.diverged


def test_reset_puts_everything_back(standing: VirtualG1) -> None:
    standing.inject_fault("stuck_joint", joint=ROBOT.joint_names[KNEE])
    standing.reset()
    base = standing.base_state()
    np.testing.assert_allclose(base.position, (0.0, 0.0, ROBOT.default_base_height), atol=1e-6)
    np.testing.assert_allclose(base.quaternion, (1.0, 0.0, 0.0, 0.0), atol=1e-6)
    np.testing.assert_allclose((base.linear_velocity, base.angular_velocity), 0.0, atol=1e-6)
    np.testing.assert_allclose(standing.joint_pos(), ROBOT.default_position, atol=1e-6)
    assert np.abs(standing.joint_vel()).max() < 1e-6
    assert standing.hoist_state == "carried"
    state = read(run(standing, 0.1)[-1])
    assert np.abs(state.joint_pos - ROBOT.default_position).max() < 0.1
    np.testing.assert_allclose(state.imu_accel, (0.0, 0.0, GRAVITY), atol=3.0)


def test_hoisted_robot_hangs_upright_with_free_feet(body: Body) -> None:
    twin = VirtualG1(ROBOT, body=body)
    height = twin.base_state().position[2]
    states = [read(message) for message in run(twin, 1.5)]
    assert twin.hoist_state == "carried" and twin.braking
    assert tilt(twin) < 0.07
    assert twin.base_state().position[2] == pytest.approx(height, abs=0.01)
    assert not any(foot.touching for foot in twin.foot_contacts())
    assert np.mean([state.imu_accel[2] for state in states[-100:]]) == pytest.approx(GRAVITY, abs=0.2)
    np.testing.assert_allclose(states[-1].joint_pos[:15], 0.0, atol=0.2)


def test_imu_in_free_fall_feels_nothing(body: Body) -> None:
    let_fall(body, steps=round(0.1 / body.timestep))
    gyro, accel, quaternion = body.imu()
    assert np.abs(accel).max() < 0.6
    assert np.abs(gyro).max() < 0.2
    assert abs(quaternion[0]) > 0.999
    assert body.base_state().linear_velocity[2] == pytest.approx(-GRAVITY * 0.1, rel=0.05)


def test_accelerometer_is_where_the_description_has_it(body: Body) -> None:
    """Its readings add up to the velocity of that point: legs and waist throw the base about in free fall."""
    lever = np.array(build_mujoco_model(ROBOT).site(ROBOT.imu_link).pos)
    assert np.linalg.norm(lever) > 0.05

    def velocity() -> np.ndarray:
        base = body.base_state()
        swing = np.cross(base.angular_velocity, lever)
        return base.linear_velocity + rotation.rotate(base.quaternion, swing)

    let_fall(body, steps=1)
    torque = np.zeros(N)
    for joint in ("waist_yaw_joint", "left_hip_pitch_joint", "right_hip_pitch_joint"):
        torque[ROBOT.joint_names.index(joint)] = 10.0
    # Without gains: what an engine integrates implicitly is not part of the acceleration that it tells.
    body.drive(NOTHING, NOTHING, torque, NOTHING, NOTHING)
    start, felt, steps = velocity(), np.zeros(3), round(0.06 / body.timestep)
    for _ in range(steps):
        body.step()
        _, accel, quaternion = body.imu()
        felt += body.timestep * rotation.rotate(quaternion, accel)
    gained = velocity() - start + np.array([0.0, 0.0, GRAVITY * steps * body.timestep])
    assert np.linalg.norm(np.cross(body.base_state().angular_velocity, lever)) > 0.05
    assert np.linalg.norm(gained) > 0.1
    np.testing.assert_allclose(felt, gained, atol=0.15 * np.linalg.norm(gained))


def test_push_moves_every_link_alike(body: Body) -> None:
    let_fall(body, steps=1)
    before, feet = body.base_state(), [foot.position for foot in body.foot_contacts()]
    body.push((0.5, -0.3, 0.2))
    after = body.base_state()
    np.testing.assert_allclose(after.linear_velocity - before.linear_velocity, (0.5, -0.3, 0.2), atol=1e-5)
    np.testing.assert_allclose(after.angular_velocity, before.angular_velocity, atol=1e-5)
    for _ in range(5):
        body.step()
    for foot, start in zip(body.foot_contacts(), feet, strict=True):
        np.testing.assert_allclose(
            (foot.position - start)[:2], 5 * body.timestep * np.array([0.5, -0.3]), atol=1.5e-3
        )


def test_push_is_refused_on_the_hoist(body: Body) -> None:
    with pytest.raises(UserError, match="on the hoist"):
        VirtualG1(ROBOT, body=body).push((0.3, 0.0, 0.0))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("kp", "kd"), [(0.0, 0.0), (0.0, 0.1), (5.0, 0.0), (5.0, 0.1)])
def test_a_torque_beyond_the_effort_limit_is_the_limit(body: Body, sign: float, kp: float, kd: float) -> None:
    """In what is told and in what moves the joint, and whatever gains stand beside it."""

    def speed_after(torque: float, kp: float, kd: float) -> float:
        let_fall(body, steps=1, stiff=False)
        tau = np.where(np.arange(N) == LIGHTEST, torque, 0.0)
        body.drive(ROBOT.default_position, NOTHING, tau, np.full(N, kp), np.full(N, kd))
        for _ in range(2):
            body.step()
        return float(body.joint_vel()[LIGHTEST])

    limit = sign * ROBOT.effort_limit[LIGHTEST]
    at_limit, beyond = speed_after(limit, 0.0, 0.0), speed_after(sign * 1000.0, kp, kd)
    assert body.joint_effort()[LIGHTEST] == pytest.approx(limit)
    assert sign * at_limit > 1.0
    assert beyond == pytest.approx(at_limit, rel=0.05)


def test_targets_velocities_and_feed_forward_add_up(body: Body) -> None:
    """Three commands that are the same torque law move the robot in the same way."""

    def after(q, dq, tau) -> np.ndarray:
        body.reset(3.0, ROBOT.default_position)
        body.drive(q, dq, tau, kp, kd)
        for _ in range(10):
            body.step()
        return body.joint_pos()

    kp, kd = STIFF.stiffness, STIFF.damping
    torque = 0.02 * ROBOT.effort_limit * np.where(np.arange(N) % 2, 1.0, -1.0)
    rest = ROBOT.default_position
    by_place = after(rest + torque / kp, NOTHING, NOTHING)
    by_speed, by_torque = after(rest, torque / kd, NOTHING), after(rest, NOTHING, torque)
    assert np.abs(by_place - rest).max() > 1e-3
    np.testing.assert_allclose(by_speed, by_place, atol=1e-4)
    np.testing.assert_allclose(by_torque, by_place, atol=1e-4)


def test_brake_stops_the_lightest_joint_without_a_quiver(body: Body) -> None:
    let_fall(body, steps=1)
    tau = np.where(np.arange(N) == LIGHTEST, ROBOT.effort_limit, 0.0)
    body.drive(ROBOT.default_position, NOTHING, tau, NOTHING, NOTHING)
    for _ in range(2):
        body.step()
    assert abs(body.joint_vel()[LIGHTEST]) > 1.0
    body.drive(NOTHING, NOTHING, NOTHING, NOTHING, np.full(N, float(wire.DAMPING_KD)))
    speeds = []
    for _ in range(round(0.1 / body.timestep)):
        body.step()
        speeds.append(np.abs(body.joint_vel()).max())
    assert max(speeds[5:]) < 0.5
    assert speeds[5:] == sorted(speeds[5:], reverse=True)


def test_stuck_joint_stays_where_it_is_and_the_others_move(body: Body) -> None:
    twin = VirtualG1(ROBOT, body=body, auto_lower=False)
    run(twin, 0.4)
    where = twin.joint_pos()[KNEE]
    twin.inject_fault("stuck_joint", joint=ROBOT.joint_names[KNEE], duration=1.05)
    pose = read(run(twin, 1.0, command())[-1]).joint_pos
    assert pose[KNEE] == pytest.approx(where, abs=0.01)
    assert pose[ELBOW] == pytest.approx(ROBOT.default_position[ELBOW], abs=0.05)
    pose = read(run(twin, 1.0, command())[-1]).joint_pos
    assert pose[KNEE] == pytest.approx(ROBOT.default_position[KNEE], abs=0.05)


def test_same_commands_give_the_same_bytes(body: Body) -> None:
    def history() -> list[bytes]:
        return run(VirtualG1(ROBOT, body=body, start="standing", sensor_noise=1.0, seed=4), 0.3, command())

    assert history() == history()


def test_state_between_two_steps_says_again_what_is_known(body: Body) -> None:
    twin = VirtualG1(ROBOT, body=body)
    stride = max(round(body.timestep / CYCLE), 1)
    states = [read(message) for message in run(twin, 20 * CYCLE, command())]
    assert [state.tick for state in states] == list(range(2, 41, 2))
    moved = [not np.array_equal(a.joint_pos, b.joint_pos) for a, b in itertools.pairwise(states)]
    assert moved == [(cycle + 2) % stride == 0 for cycle in range(19)]


@pytest.mark.parametrize("simulator", ["isaac:bullet", "mujco"])
def test_unknown_simulator_is_refused(simulator: str) -> None:
    with pytest.raises(
        UserError, match=rf"unknown simulator '{simulator}'.*simulators: mujoco, isaac:ovphysx"
    ):
        make_body(simulator, ROBOT)
