"""The learner on the device is stable-baselines3's PPO: same loss, same checkpoints, same time limits."""

from __future__ import annotations

import copy
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import device_ppo
from humanoid_rl_sim.learning.actor import actor_graph
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.device_ppo import DevicePPO, DeviceRollout
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.learning.training import make_model, train
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import WARM_UP_STEPS, NoHostSync
from humanoid_rl_sim.tasks.symmetry import make_mirror
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import FloatSchedule

N, STEPS = 16, 6


@pytest.fixture
def env():
    task = load_task("walk")
    vec_env = Sb3VecEnv(
        Environment(task, MujocoSimulator(load_robot(), N, timestep=task.physics_timestep), seed=2)
    )
    yield vec_env
    vec_env.close()


def learner(env: Sb3VecEnv, kind: str, **more: str):
    overrides = {"learner": kind, "num_envs": str(N), "ppo.rollout_steps": str(STEPS), "ppo.minibatches": "1"}
    config = load_training_config("walk", {**overrides, "ppo.epochs": "1", **more})
    model = make_model(config, env)
    model.set_logger(configure(None, []))
    return model


def test_one_update_moves_the_parameters_as_plain_sb3_does(env):
    device, plain = learner(env, "device"), learner(env, "sb3")
    device.learn(N * STEPS)
    before = copy.deepcopy(plain.policy.state_dict())
    device.policy.load_state_dict(before)
    device.policy.optimizer = type(device.policy.optimizer)(
        device.policy.parameters(), **plain.policy.optimizer.defaults
    )
    device.collect_rollouts(device.env, _Silent(device), None, STEPS)
    rollout, buffer = device.rollout, plain.rollout_buffer
    for name in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns"):
        getattr(buffer, name)[:] = getattr(rollout, name).numpy()
    buffer.full = True
    device.train()
    plain.train()
    moved = 0.0
    for (name, mine), (_, theirs) in zip(
        device.policy.named_parameters(), plain.policy.named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-4, msg=name)
        moved += float((mine.detach() - before[name]).abs().max())
    assert moved > 0.0
    ours, reference = device.logger.name_to_value, plain.logger.name_to_value
    for name in ("value_loss", "approx_kl", "clip_fraction", "entropy_loss", "std", "explained_variance"):
        assert ours[f"train/{name}"] == pytest.approx(reference[f"train/{name}"], rel=1e-3, abs=1e-5), name


class _Silent:
    """A callback that lets everything go on."""

    def __init__(self, model):
        self.model = model

    def on_rollout_start(self):
        pass

    on_rollout_end = on_rollout_start

    def update_locals(self, values):
        pass

    def on_step(self):
        return True


def test_advantages_are_those_of_sb3s_buffer():
    generator = torch.Generator().manual_seed(1)
    rollout = DeviceRollout(STEPS, N, 3, 2, torch.device("cpu"))
    rollout.rewards.copy_(torch.rand(STEPS, N, generator=generator))
    rollout.values.copy_(torch.rand(STEPS, N, generator=generator))
    rollout.done.copy_((torch.rand(STEPS, N, generator=generator) < 0.3).float())
    rollout.truncated.copy_(rollout.done * (torch.rand(STEPS, N, generator=generator) < 0.5))
    last, final = torch.rand(N, generator=generator), torch.rand(STEPS, N, generator=generator)
    rollout.estimate_advantages(last, final, 0.99, 0.95)

    import gymnasium

    box = gymnasium.spaces.Box(-1, 1, (3,))
    buffer = RolloutBuffer(STEPS, box, box, gamma=0.99, gae_lambda=0.95, n_envs=N)
    buffer.rewards[:] = (rollout.rewards + 0.99 * final * rollout.truncated).numpy()
    buffer.values[:] = rollout.values.numpy()
    started = torch.cat((torch.zeros(1, N), rollout.done[:-1]))
    buffer.episode_starts[:] = started.numpy()
    buffer.compute_returns_and_advantage(last[:, None], rollout.done[-1].numpy())
    np.testing.assert_allclose(rollout.advantages.numpy(), buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(rollout.returns.numpy(), buffer.returns, atol=1e-5)


def test_checkpoint_loads_in_plain_sb3_and_here_again(env, tmp_path: Path):
    model = learner(env, "device")
    model.learn(2 * N * STEPS)
    model.save(tmp_path / "model.zip")
    observation = (
        np.random.default_rng(0).normal(size=(4, model.observation_space.shape[0])).astype(np.float32)
    )
    expected, _ = model.predict(observation, deterministic=True)
    plain = PPO.load(tmp_path / "model.zip", env=env)
    assert type(plain) is PPO
    np.testing.assert_array_equal(plain.predict(observation, deterministic=True)[0], expected)
    plain.learn(plain.num_timesteps + N * STEPS, reset_num_timesteps=False)
    again = DevicePPO.load(tmp_path / "model.zip", env=env)
    assert (
        again.policy.optimizer.state_dict()["state"].keys()
        == model.policy.optimizer.state_dict()["state"].keys()
    )
    again.learn(N * STEPS, reset_num_timesteps=False)
    assert again.num_timesteps == 3 * N * STEPS


def test_a_run_on_the_device_is_resumed(tmp_path: Path):
    overrides = {
        "sim": "mujoco", "learner": "device", "num_envs": "8", "steps": "192", "evaluation_interval": "128",
        "evaluation_episodes": "2", "checkpoint_interval": "64", "ppo.rollout_steps": "8", "ppo.hidden_sizes": "[16]",
        "ppo.critic_hidden_sizes": "[16]",
    }  # fmt: skip
    config = load_training_config("walk", overrides)
    train(config, tmp_path / "run")
    best = train(dataclasses.replace(config, steps=320), tmp_path / "run", resume=True)
    rows = list(csv.DictReader((tmp_path / "run" / "progress.csv").open()))
    assert [int(row["steps"]) for row in rows] == [64, 128, 192, 256, 320]
    assert all(np.isfinite(float(row["value_loss"])) for row in rows)
    assert PPO.load(best).num_timesteps > 0


def test_state_dependent_exploration_is_refused(env):
    with pytest.raises(ValueError, match="plain PPO"):
        DevicePPO("MlpPolicy", env, n_steps=STEPS, batch_size=N, use_sde=True)


class _Replay:
    """What `captured` returns, without a GPU: the warm-up runs, then the same work again and again."""

    def __init__(self, work, device):
        for _ in range(WARM_UP_STEPS):
            work()
        self.replay = work


def _update(model: DevicePPO, start: dict, *, graphed: bool) -> list[torch.Tensor]:
    """Parameters, then moments and step counts, after one update from `start`."""
    model.set_parameters(copy.deepcopy(start))
    if graphed:
        model._prepare_update(N * STEPS)
        model._gradient_step = model._captured_minibatch()
    torch.manual_seed(7)
    model.train()
    state = model.policy.optimizer.state
    moments = [value for parameter in model.policy.parameters() for value in state[parameter].values()]
    return [value.detach().clone() for value in (*model.policy.parameters(), *moments)]


@pytest.mark.parametrize("updates", [0, 2], ids=["first", "later"])
def test_replayed_gradient_steps_are_the_plain_ones_and_capturing_changes_nothing(env, monkeypatch, updates):
    model = learner(env, "device")
    model.n_epochs, model.batch_size = 2, N * STEPS // 3
    start = copy.deepcopy(model.get_parameters())
    model.learn((updates or 1) * N * STEPS)
    if updates:
        start = copy.deepcopy(model.get_parameters())
    assert bool(start["policy.optimizer"]["state"]) == bool(updates)
    monkeypatch.setattr(device_ppo, "captured", _Replay)
    plain, graphed = (_update(model, start, graphed=graphed) for graphed in (False, True))
    for mine, theirs in zip(graphed, plain, strict=True):
        assert torch.equal(mine, theirs)


def test_a_gradient_step_asks_nothing_of_the_host(env, monkeypatch):
    model = learner(env, "device")
    model.learn(N * STEPS)
    # Adam counts on the host where it is not captured.
    monkeypatch.setattr(model.policy.optimizer, "step", lambda: None)
    with NoHostSync():
        model._minibatch(torch.arange(N))
        with torch.no_grad():
            model._judge_rollout()


def test_a_learning_rate_on_the_device_is_filled_in_place_and_saved_as_a_number(env):
    model = learner(env, "device")
    (group,) = model.policy.optimizer.param_groups
    rate = group["lr"] = torch.tensor(0.5)
    model.lr_schedule = FloatSchedule(0.25)
    model._update_learning_rate(model.policy.optimizer)
    assert group["lr"] is rate and rate.item() == 0.25
    (saved,) = model.get_parameters()["policy.optimizer"]["param_groups"]
    assert saved["lr"] == 0.25 and type(saved["lr"]) is float and saved["capturable"] is False


def _asymmetry(model: DevicePPO, observations: torch.Tensor) -> float:
    """Mirror loss by the module that is exported."""
    graph = actor_graph(model.policy)
    mirror = make_mirror(model.environment.robot, graph)
    observations = observations[:, : graph.observation_size]
    with torch.no_grad():
        mean, twin = (
            graph.network(graph.normalise(o)) for o in (observations, mirror.observation(observations))
        )
    return float((twin - mirror.action(mean)).square().mean())


@pytest.mark.parametrize("coefficient", [0.0, 3.0])
def test_the_mirror_loss_makes_an_asymmetric_actor_symmetric(env, coefficient):
    small = {"ppo.hidden_sizes": "[32]", "ppo.critic_hidden_sizes": "[32]", "ppo.epochs": "10"}
    model = learner(env, "device", **small, **{"ppo.symmetry_coefficient": str(coefficient)})
    torch.nn.init.normal_(model.policy.action_net.weight, std=0.1)
    normaliser = model.policy.features_extractor
    size = model.observation_space.shape[0]
    normaliser.update(
        0.3 + torch.arange(1, size + 1) / size * torch.randn(500, size)
    )  # no symmetric statistics
    model.collect_rollouts(model.env, _Silent(model), None, STEPS)
    observations = model.rollout.observations.flatten(0, 1).clone()
    before = _asymmetry(model, observations)
    for update in range(4):
        if update:
            model.collect_rollouts(model.env, _Silent(model), None, STEPS)
        model.train()
        if coefficient and not update:
            assert model.logger.name_to_value["train/symmetry_loss"] == pytest.approx(before, rel=0.5)
    after = _asymmetry(model, observations)
    assert after < 0.3 * before if coefficient else after > 0.7 * before
    assert ("train/symmetry_loss" in model.logger.name_to_value) == bool(coefficient)


def test_without_a_mirror_loss_the_update_is_the_same_to_the_bit(env):
    start = copy.deepcopy(learner(env, "device").get_parameters())
    ended = {}
    for coefficient in ("", "0.0", "1.0"):
        model = learner(env, "device", **({"ppo.symmetry_coefficient": coefficient} if coefficient else {}))
        env.environment.generator.manual_seed(3)
        model.set_parameters(copy.deepcopy(start))
        torch.manual_seed(3)
        model.learn(N * STEPS)
        ended[coefficient] = torch.cat([value.detach().flatten() for value in model.policy.parameters()])
    assert torch.equal(ended[""], ended["0.0"]) and not torch.equal(ended[""], ended["1.0"])


def test_a_mirror_loss_of_the_plain_learner_or_below_zero_is_refused():
    with pytest.raises(UserError, match=r"^ppo.symmetry_coefficient needs learner device, not sb3$"):
        load_training_config("walk", {"learner": "sb3", "ppo.symmetry_coefficient": "0.5"})
    with pytest.raises(UserError, match="must not be negative"):
        load_training_config("walk", {"ppo.symmetry_coefficient": "-1"})
