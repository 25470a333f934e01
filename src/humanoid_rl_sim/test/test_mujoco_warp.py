"""MuJoCo-Warp moves the robot as MuJoCo does, and its step can be made static; Warp's CPU device."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.simulators.contract import InitialState, ModelProperties
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import StaticStep

N = 3
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what happens without a GPU")


def properties() -> ModelProperties:
    """Every property different in every world."""
    generator = torch.Generator().manual_seed(4)

    def around(centre: float, half: float, *shape: int) -> torch.Tensor:
        return centre + half * (2.0 * torch.rand((N, *shape), generator=generator) - 1.0)

    return ModelProperties(
        friction=around(0.8, 0.4),
        base_mass_offset=around(0.0, 2.0),
        base_com_offset=around(0.0, 0.02, 3),
        stiffness_scale=around(1.0, 0.1, 29),
        damping_scale=around(1.0, 0.1, 29),
        effort_limit_scale=around(0.95, 0.05, 29),
        armature_scale=around(1.0, 0.1, 29),
    )


@pytest.mark.parametrize("collision", ["feet", "self", "full"])
def test_a_rollout_on_the_floor_is_that_of_mujoco(collision):
    """0.4 s of randomised robots that sink, step on the floor and are pushed; single against double precision."""
    robot = load_robot()
    simulators = [
        MujocoSimulator(robot, N, collision=collision),
        MujocoWarpSimulator(robot, N, device="cpu", collision=collision),
    ]
    generator = torch.Generator().manual_seed(5)
    default = torch.as_tensor(robot.default_position.copy(), dtype=torch.float32)
    targets = default + 0.2 * torch.randn(20, N, 29, generator=generator)
    everything = torch.ones(N, dtype=torch.bool)
    for simulator in simulators:
        simulator.set_gains(robot.gains["compliant"])
        simulator.set_properties(properties())
        simulator.reset(
            everything,
            InitialState(
                joint_pos=default.repeat(N, 1), joint_vel=torch.zeros(N, 29),
                base_pos=torch.tensor([0.0, 0.0, robot.default_base_height]).repeat(N, 1),
                base_quat=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(N, 1),
                base_lin_vel=torch.tensor([0.2, -0.1, 0.0]).repeat(N, 1), base_ang_vel=torch.zeros(N, 3),
            ),
        )  # fmt: skip
    largest = 0.0
    for step, target in enumerate(targets):
        for simulator in simulators:
            if step == 10:
                simulator.add_base_velocity(everything, torch.tensor([[0.3, 0.0, 0.0]]).repeat(N, 1))
            simulator.set_joint_target(target)
            simulator.advance(4)
            simulator.refresh()
        reference, state = (simulator.state for simulator in simulators)
        for name, tolerance in (
            ("joint_pos", 2e-3), ("base_pos", 1e-3), ("base_quat", 1e-3), ("imu_quat", 1e-3), ("foot_pos", 2e-3),
            ("joint_vel", 0.1), ("base_lin_vel", 0.02), ("imu_gyro", 0.05), ("foot_vel", 0.1),
        ):  # fmt: skip
            difference = float((getattr(reference, name) - getattr(state, name)).abs().max())
            assert difference < tolerance, (step, name, difference)
        largest = max(largest, float((reference.joint_pos - default).abs().max()))
        assert torch.equal(reference.foot_contact, state.foot_contact) or step < 2
    assert largest > 0.1  # they moved
    for simulator in simulators:
        simulator.close()


def test_the_static_step_runs_on_it():
    task = load_task("walk")
    plain, static = (
        Environment(task, MujocoWarpSimulator(load_robot(), N, device="cpu"), seed=2) for _ in range(2)
    )
    step = StaticStep(static)
    plain.reset()
    plain.step(torch.zeros(N, 29))
    for action in 0.5 * torch.randn(3, N, 29, generator=torch.Generator().manual_seed(1)):
        expected, result = plain.step(action), step(action)
        for field in dataclasses.fields(expected):
            assert torch.equal(getattr(expected, field.name), getattr(result, field.name)), field.name


@NO_GPU
def test_a_gpu_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="device cuda: torch finds no CUDA GPU"):
        MujocoWarpSimulator(load_robot(), 1, device="cuda")


@NO_GPU
@pytest.mark.parametrize(("task", "learner"), [("walk", "sb3"), ("rough", "device")])
def test_training_at_full_size_without_a_gpu_is_refused_before_it_begins(tmp_path, task, learner):
    with pytest.raises(
        UserError, match=f"needs a CUDA GPU .* use sim mujoco with learner {learner} and num_envs 256"
    ):
        train(load_training_config(task), tmp_path / "run")
    # What is proposed is a configuration.
    load_training_config(task, {"sim": "mujoco", "learner": learner, "num_envs": "256"})
    assert list(tmp_path.iterdir()) == []
