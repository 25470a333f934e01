"""What only a GPU can show: the captured graph against the plain step, a checkpoint that leaves the GPU."""

from __future__ import annotations

import copy
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
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import FloatSchedule

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


def untrained(**more: str):
    """A small learner on an environment of its own."""
    overrides = {"num_envs": str(N), "ppo.hidden_sizes": "[32]", "ppo.critic_hidden_sizes": "[32]"}
    model = make_model(load_training_config("walk", overrides | more), Sb3VecEnv(environment()))
    model.set_logger(configure(None, []))
    return model


def updated(model, start: dict, *, graphed: bool) -> list[torch.Tensor]:
    """Parameters, then moments and step counts, after one update from `start` with the rollout at hand."""
    model.graph_updates = graphed
    model.set_parameters(copy.deepcopy(start))
    torch.manual_seed(7)
    model.train()
    assert (model._gradient_step == model._minibatch) is not graphed
    state = model.policy.optimizer.state
    moments = [value for parameter in model.policy.parameters() for value in state[parameter].values()]
    return [value.detach().clone() for value in (*model.policy.parameters(), *moments)]


@pytest.mark.parametrize("symmetry", ["0.0", "0.5"])
def test_a_captured_update_is_the_plain_one(symmetry):
    model = untrained(**{"ppo.symmetry_coefficient": symmetry})
    first = copy.deepcopy(model.get_parameters())
    model.learn(2 * N * 24)
    later = copy.deepcopy(model.get_parameters())
    assert later["policy.optimizer"]["state"] and not first["policy.optimizer"]["state"]
    for start in (later, first):
        plain, graphed = (updated(model, start, graphed=graphed) for graphed in (False, True))
        names = [name for name, _ in model.policy.named_parameters()]
        assert any(
            not torch.equal(start["policy"][name], mine)
            for name, mine in zip(names, graphed[: len(names)], strict=True)
        )
        for mine, theirs in zip(graphed, plain, strict=True):
            # The same kernels; a library may choose other ones of its own within a graph.
            assert float((mine - theirs).norm()) <= 1e-3 * float(theirs.norm()) + 1e-9
    model.env.close()


def test_a_captured_update_follows_the_learning_rate():
    model = untrained()
    model.learn(2 * N * 24)
    graph = model._gradient_step
    assert graph is not None and graph != model._minibatch
    moved = []
    for rate in (0.0, 1e-4, 1e-3):
        before = [parameter.detach().clone() for parameter in model.policy.parameters()]
        model.lr_schedule = FloatSchedule(rate)
        model.train()
        after = model.policy.parameters()
        moved.append(max(float((a.detach() - b).abs().max()) for a, b in zip(after, before, strict=True)))
    assert model._gradient_step is graph
    assert moved[0] == 0.0 < 3.0 * moved[1] < moved[2]
    assert type(model.get_parameters()["policy.optimizer"]["param_groups"][0]["lr"]) is float
    model.env.close()


def test_a_checkpoint_of_the_gpu_learns_on_without_one(tmp_path: Path):
    model = untrained()
    env = model.env
    model.learn(3 * N * 24)
    assert np.isfinite(model.logger.name_to_value["train/value_loss"])
    model.save(tmp_path / "model.zip")
    plain = PPO.load(tmp_path / "model.zip", device="cpu")
    assert {parameter.device.type for parameter in plain.policy.parameters()} == {"cpu"}
    steps = [state["step"].device.type for state in plain.policy.optimizer.state.values()]
    (group,) = plain.policy.optimizer.param_groups
    assert set(steps) == {"cpu"} and not group["capturable"] and type(group["lr"]) is float
    again = type(model).load(tmp_path / "model.zip", env=env, device="cuda")
    again.set_logger(configure(None, []))
    again.learn(N * 24, reset_num_timesteps=False)
    assert again.num_timesteps == 4 * N * 24


def test_sac_learns_on_the_gpu_and_its_checkpoint_acts_without_one(tmp_path: Path):
    overrides = {
        "algorithm": "sac", "sim": "mujoco_warp", "num_envs": str(N), "sac.batch_size": "512", "sac.log_steps": "10",
        "sac.replay_capacity": str(50 * N), "sac.hidden_sizes": "[32]", "sac.critic_hidden_sizes": "[32]",
    }  # fmt: skip
    config = load_training_config("walk", overrides)
    env = Sb3VecEnv(environment(), action_bound=config.sac.action_bound)
    model = make_model(config, env)
    model.set_logger(configure(None, []))
    model.learn(60 * N)
    assert model.replay_buffer.observations.is_cuda and model.replay_buffer.size == 50 * N
    model.log_window()
    assert np.isfinite(model.logger.name_to_value["train/critic_loss"])
    model.save(tmp_path / "model.zip")
    plain = SAC.load(tmp_path / "model.zip", device="cpu")
    observation = torch.cat(env.environment.reset(), 1)[:8].cpu().numpy()
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(plain.predict(observation, deterministic=True)[0], expected, atol=1e-3)
    again = type(model).load(tmp_path / "model.zip", env=env, device="cuda")
    again.set_logger(configure(None, []))
    again.learn(20 * N, reset_num_timesteps=False)
    assert again.num_timesteps == 80 * N
