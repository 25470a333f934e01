"""What every simulator must do, whatever its engine; parametrised over the registry."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from humanoid_rl_core.robot import Gains, load_robot
from humanoid_rl_sim.simulators.contract import InitialState, ModelProperties, Simulator
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.registry import make_simulator

N = 4
TIMESTEP = 0.005
GRAVITY = 9.81


if find_spec("isaaclab"):
    # Its environment (`make test-isaac`): Isaac Sim is part of it only where a user has installed it there.
    HERE = ("isaac:newton", "isaac:ovphysx", *(["isaac:isaacsim"] if find_spec("isaacsim") else []))
else:
    HERE = ("mujoco", "mujoco_warp")


@pytest.fixture(params=HERE)
def make(request):
    """A factory of simulators of one kind; each is closed before the next is made."""
    made: list[Simulator] = []

    def factory(num_envs: int = N, **options) -> Simulator:
        while made:
            made.pop().close()
        made.append(make_simulator(request.param, load_robot(), num_envs, timestep=TIMESTEP, **options))
        return made[0]

    yield factory
    while made:
        made.pop().close()


def initial_state(simulator: Simulator, *, height: float = 0.0) -> InitialState:
    """Default pose, `height` m above standing."""
    robot, n = simulator.robot, simulator.num_envs
    base_pos = torch.zeros(n, 3)
    base_pos[:, 2] = robot.default_base_height + height
    return InitialState(
        joint_pos=torch.as_tensor(robot.default_position, dtype=torch.float32).repeat(n, 1),
        joint_vel=torch.zeros(n, len(robot.joint_names)),
        base_pos=base_pos,
        base_quat=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        base_lin_vel=torch.zeros(n, 3),
        base_ang_vel=torch.zeros(n, 3),
    )


def everything(simulator: Simulator) -> torch.Tensor:
    return torch.ones(simulator.num_envs, dtype=torch.bool)


def run(simulator: Simulator, seconds: float) -> None:
    simulator.advance(round(seconds / TIMESTEP))
    simulator.refresh()


def snapshot(simulator: Simulator) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in vars(simulator.state).items()}


def test_a_reset_robot_is_where_it_was_put(make):
    simulator = make()
    initial = initial_state(simulator, height=0.3)
    tilt = torch.tensor([0.9238795, 0.0, 0.3826834, 0.0])  # 45 deg about y
    initial.base_quat[1] = tilt
    initial.base_lin_vel[2] = torch.tensor([0.1, -0.2, 0.3])
    initial.base_ang_vel[2] = torch.tensor([0.3, 0.2, -0.1])
    initial.joint_vel[3, 5] = 1.5
    simulator.reset(everything(simulator), initial)
    state = simulator.state
    for name in ("joint_pos", "joint_vel", "base_pos", "base_quat", "base_lin_vel", "base_ang_vel"):
        torch.testing.assert_close(getattr(state, name), getattr(initial, name), atol=1e-6, rtol=0)
    # The IMU is fixed to the base without rotation and feels the same turning.
    torch.testing.assert_close(state.imu_quat, initial.base_quat, atol=1e-6, rtol=0)
    torch.testing.assert_close(state.imu_gyro, initial.base_ang_vel, atol=1e-5, rtol=0)


def test_the_ground_is_the_one_asked_for(make):
    assert make().height_field is None
    step = HeightField(np.full((41, 41), 0.2, np.float32), 0.1)
    simulator = make(height_field=step)
    assert simulator.height_field is step
    simulator.reset(everything(simulator), initial_state(simulator, height=0.21))
    run(simulator, 0.2)
    assert simulator.state.foot_contact.all()
    assert (simulator.state.foot_pos[:, :, 2] - 0.2).abs().max() < 0.02


@pytest.mark.parametrize("collision", ["feet", "self", "full"])
def test_a_quiet_robot_touches_nothing_of_itself_and_overflows_nothing(make, collision):
    simulator = make(collision=collision)
    simulator.reset(everything(simulator), initial_state(simulator))
    run(simulator, 0.1)
    touches, overflows = simulator.state.self_contact, simulator.overflows
    assert touches.shape == (N,) and touches.dtype == torch.bool and not touches.any()
    assert overflows.shape == () and overflows.dtype == torch.int64 and int(overflows) == 0
    assert simulator.overflows is overflows and overflows.device == simulator.device


def test_base_velocity_is_that_of_the_base_position(make):
    """Of a robot that tumbles, whose centre of mass moves otherwise."""
    simulator = make()
    initial = initial_state(simulator, height=2.0)
    initial.base_ang_vel[:, 1] = 8.0
    simulator.reset(everything(simulator), initial)
    simulator.set_joint_target(initial.joint_pos)
    run(simulator, 10 * TIMESTEP)
    state = simulator.state
    for _ in range(3):
        before, velocity = state.base_pos.clone(), state.base_lin_vel.clone()
        run(simulator, TIMESTEP)
        moved = (state.base_pos - before) / TIMESTEP
        torch.testing.assert_close(moved, 0.5 * (velocity + state.base_lin_vel), atol=0.1, rtol=0)


def test_free_fall_follows_gravity(make):
    simulator = make()
    simulator.reset(everything(simulator), initial_state(simulator, height=2.0))
    simulator.set_joint_target(torch.as_tensor(simulator.robot.default_position).repeat(N, 1))
    start = simulator.state.base_pos[:, 2].clone()
    seconds = 0.4
    run(simulator, seconds)
    # The base is not the centre of mass and the limbs give a little, so a few per cent of the fall.
    fallen = start - simulator.state.base_pos[:, 2]
    torch.testing.assert_close(fallen, torch.full((N,), 0.5 * GRAVITY * seconds**2), rtol=0.05, atol=0)
    torch.testing.assert_close(
        simulator.state.base_lin_vel[:, 2], torch.full((N,), -GRAVITY * seconds), rtol=0.05, atol=0
    )
    assert not simulator.state.foot_contact.any()
    assert (simulator.state.foot_force == 0).all()


def test_a_joint_follows_its_target_and_settles(make):
    simulator = make()
    simulator.reset(everything(simulator), initial_state(simulator, height=50.0))
    elbow = simulator.robot.joint_names.index("left_elbow_joint")
    target = torch.as_tensor(simulator.robot.default_position, dtype=torch.float32).repeat(N, 1)
    target[:, elbow] += 0.3
    before = simulator.state.joint_pos[:, elbow].clone()
    simulator.set_joint_target(target)
    run(simulator, 0.02)
    first = simulator.state.joint_pos[:, elbow] - before
    assert (first > 0.005).all() and (first < 0.3).all()
    run(simulator, 0.98)
    # Falling freely there is no gravity load: the PD loop reaches its target.
    torch.testing.assert_close(simulator.state.joint_pos[:, elbow], target[:, elbow], atol=0.02, rtol=0)
    assert (simulator.state.joint_vel[:, elbow].abs() < 0.1).all()


def test_torque_is_the_pd_law_up_to_the_effort_limit(make):
    simulator = make()
    robot = simulator.robot
    n = len(robot.joint_names)
    gains = Gains(stiffness=np.full(n, 50.0), damping=np.full(n, 1.0))
    simulator.set_gains(gains)
    simulator.reset(everything(simulator), initial_state(simulator, height=5.0))
    wrist, knee = robot.joint_names.index("left_wrist_yaw_joint"), robot.joint_names.index("left_knee_joint")
    target = torch.as_tensor(robot.default_position, dtype=torch.float32).repeat(N, 1)
    target[:, knee] += 0.2
    target[:, wrist] += 1.0  # asks for 50 Nm of a 5 Nm motor
    simulator.set_joint_target(target)
    simulator.advance(1)
    simulator.refresh()
    torch.testing.assert_close(
        simulator.state.joint_torque[:, wrist], torch.full((N,), float(robot.effort_limit[wrist]))
    )
    torch.testing.assert_close(
        simulator.state.joint_torque[:, knee], torch.full((N,), 10.0), rtol=1e-3, atol=0
    )


def test_a_standing_robot_rests_on_both_feet_with_its_weight(make):
    simulator = make()
    simulator.set_gains(simulator.robot.gains["stiff"])
    simulator.reset(everything(simulator), initial_state(simulator))
    simulator.set_joint_target(simulator.state.joint_pos.clone())
    run(simulator, 2.0)
    state = simulator.state
    assert state.foot_contact.all()
    weight = 33.34 * GRAVITY  # mass of the description
    torch.testing.assert_close(state.foot_force[:, :, 2].sum(1), torch.full((N,), weight), rtol=0.02, atol=0)
    assert (state.foot_vel.norm(dim=2) < 0.02).all()
    assert (state.foot_pos[:, :, 2].abs() < 0.01).all()
    assert (state.base_pos[:, 2] > 0.7).all()
    assert (state.foot_pos[:, 0, 1] > state.foot_pos[:, 1, 1]).all(), "left foot first"


def test_resetting_one_environment_leaves_the_others_bit_identical(make, request):
    # PhysX adds the contacts of a foot up in an order that other robots have a part in; nothing follows from the sum.
    sums_in_any_order = "isaac:ovphysx" in request.node.name
    others, snapshots = [0, 2, 3], []
    for disturbed in (False, True):
        simulator = make()
        simulator.reset(everything(simulator), initial_state(simulator, height=0.05))
        run(simulator, 0.2)
        if disturbed:
            simulator.reset(torch.tensor([False, True, False, False]), initial_state(simulator, height=1.0))
            assert simulator.state.base_pos[1, 2] > 1.7
        at_once = snapshot(simulator)
        run(simulator, 0.2)
        snapshots.append((at_once, snapshot(simulator)))
    for undisturbed, beside_a_reset in zip(*snapshots, strict=True):
        for name, value in undisturbed.items():
            others_alone, others_beside = value[others], beside_a_reset[name][others]
            if name == "foot_force" and sums_in_any_order:
                torch.testing.assert_close(others_beside, others_alone, atol=1e-3, rtol=1e-6)
                continue
            assert torch.equal(others_alone, others_beside), name


def test_equal_inputs_give_equal_runs(make):
    runs = []
    for _ in range(2):
        simulator = make()
        simulator.reset(everything(simulator), initial_state(simulator, height=0.02))
        generator = torch.Generator().manual_seed(3)
        for _ in range(20):
            noise = 0.2 * torch.rand(N, len(simulator.robot.joint_names), generator=generator)
            simulator.set_joint_target(
                torch.as_tensor(simulator.robot.default_position, dtype=torch.float32) + noise
            )
            run(simulator, 0.02)
        runs.append(snapshot(simulator))
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name


def test_a_push_changes_the_velocity_of_the_masked_robots_alone(make):
    simulator = make()
    simulator.reset(everything(simulator), initial_state(simulator, height=1.0))
    mask = torch.tensor([True, False, True, False])
    simulator.add_base_velocity(mask, torch.tensor([0.5, -0.3, 0.0]).repeat(N, 1))
    simulator.refresh()
    expected = torch.zeros(N, 3)
    expected[mask] = torch.tensor([0.5, -0.3, 0.0])
    torch.testing.assert_close(simulator.state.base_lin_vel, expected, atol=1e-6, rtol=0)


def properties(simulator: Simulator, **changes: torch.Tensor) -> ModelProperties:
    nominal = ModelProperties.nominal(simulator.num_envs, len(simulator.robot.joint_names), simulator.device)
    return ModelProperties(**{**vars(nominal), **changes})


def test_payload_is_felt_by_the_ground(make):
    simulator = make(2)
    simulator.set_properties(properties(simulator, base_mass_offset=torch.tensor([0.0, 2.0])))
    simulator.set_gains(simulator.robot.gains["stiff"])
    simulator.reset(everything(simulator), initial_state(simulator))
    simulator.set_joint_target(simulator.state.joint_pos.clone())
    run(simulator, 2.0)
    force = simulator.state.foot_force[:, :, 2].sum(1)
    assert float(force[1] - force[0]) == pytest.approx(2.0 * GRAVITY, rel=0.1)


def test_a_slippery_sole_slides_further(make):
    simulator = make(2)
    simulator.set_properties(properties(simulator, friction=torch.tensor([0.05, 1.0])))
    simulator.set_gains(simulator.robot.gains["stiff"])
    initial = initial_state(simulator)
    initial.base_lin_vel[:, 0] = 0.3
    simulator.reset(everything(simulator), initial)
    simulator.set_joint_target(simulator.state.joint_pos.clone())
    start = simulator.state.foot_pos[:, :, 0].clone()
    run(simulator, 0.2)  # before the slippery one falls over
    travelled = (simulator.state.foot_pos[:, :, 0] - start).mean(1)
    assert travelled[0] > 0.015
    assert travelled[1] < 0.5 * travelled[0]


def test_scaled_motors_are_weaker_and_softer(make):
    simulator = make(2)
    robot = simulator.robot
    n, wrist = len(robot.joint_names), robot.joint_names.index("left_wrist_yaw_joint")
    knee = robot.joint_names.index("left_knee_joint")
    simulator.set_gains(Gains(stiffness=np.full(n, 50.0), damping=np.full(n, 1.0)))
    half = torch.tensor([1.0, 0.5])[:, None].repeat(1, n)
    simulator.set_properties(properties(simulator, effort_limit_scale=half, stiffness_scale=half))
    simulator.reset(everything(simulator), initial_state(simulator, height=5.0))
    target = torch.as_tensor(robot.default_position, dtype=torch.float32).repeat(2, 1)
    target[:, wrist] += 1.0
    target[:, knee] += 0.2
    simulator.set_joint_target(target)
    simulator.advance(1)
    simulator.refresh()
    torque = simulator.state.joint_torque
    torch.testing.assert_close(torque[:, wrist], torch.tensor([5.0, 2.5]))
    torch.testing.assert_close(torque[:, knee], torch.tensor([10.0, 5.0]), rtol=1e-3, atol=0)
