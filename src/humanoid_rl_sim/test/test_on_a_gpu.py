"""What only a GPU can show: the captured graph against the plain step, a checkpoint that leaves the GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.learning.training import make_model
from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import StaticStep
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
N = 256


def environment(seed: int = 3) -> Environment:
    return Environment(load_task("walk"), MujocoWarpSimulator(load_robot(), N), seed=seed)


def test_the_captured_graph_does_what_the_plain_step_does():
    plain, graph = StaticStep(environment(), graph=False), StaticStep(environment())
    # Capturing ran steps of its own: both go on from the same state and the same random numbers.
    for mine, theirs in zip(graph._state.tensors(), plain._state.tensors(), strict=True):
        mine.copy_(theirs)
    graph.environment.simulator.copy_state(plain.environment.simulator)
    graph.environment.simulator.refresh()
    for step in (plain, graph):
        step.environment.generator.manual_seed(11)
    ended = 0
    for action in 0.5 * torch.randn(60, N, 29, generator=torch.Generator().manual_seed(1)):
        expected, result = plain(action.cuda()), graph(action.cuda())
        ended += int(expected.terminated.sum())
        # The engine adds forces in no fixed order: equal up to that, and only until a contact tips over.
        close = (expected.observation - result.observation).abs().amax(1) < 1e-2
        assert close.float().mean() > 0.97
        for field in dataclasses.fields(expected):
            assert torch.isfinite(getattr(result, field.name).float()).all()
        # Nothing of one step leaks into the next: start again from the same state.
        for mine, theirs in zip(graph._state.tensors(), plain._state.tensors(), strict=True):
            mine.copy_(theirs)
        graph.environment.simulator.copy_state(plain.environment.simulator)
        graph.environment.simulator.refresh()
    assert ended > 0


def test_a_checkpoint_of_the_gpu_learns_on_without_one(tmp_path: Path):
    overrides = {"num_envs": str(N), "ppo.hidden_sizes": "[32]", "ppo.critic_hidden_sizes": "[32]"}
    env = Sb3VecEnv(environment())
    model = make_model(load_training_config("walk", overrides), env)
    model.set_logger(configure(None, []))
    model.learn(3 * N * 24)
    assert np.isfinite(model.logger.name_to_value["train/value_loss"])
    model.save(tmp_path / "model.zip")
    plain = PPO.load(tmp_path / "model.zip", device="cpu")
    assert {parameter.device.type for parameter in plain.policy.parameters()} == {"cpu"}
    steps = [state["step"].device.type for state in plain.policy.optimizer.state.values()]
    assert set(steps) == {"cpu"} and not plain.policy.optimizer.param_groups[0]["capturable"]
    again = type(model).load(tmp_path / "model.zip", env=env, device="cuda")
    again.set_logger(configure(None, []))
    again.learn(N * 24, reset_num_timesteps=False)
    assert again.num_timesteps == 4 * N * 24
