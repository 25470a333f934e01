"""SAC on the device is stable-baselines3's: same update, same checkpoints, same time limits; and it learns."""

from __future__ import annotations

import copy
import csv
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import evaluation
from humanoid_rl_sim.learning.actor import OnnxActor, actor_graph
from humanoid_rl_sim.learning.configuration import (
    SacConfig,
    TrainingConfig,
    from_yaml,
    load_training_config,
)
from humanoid_rl_sim.learning.device_sac import DeviceReplay, DeviceSAC
from humanoid_rl_sim.learning.policy_export import export_run
from humanoid_rl_sim.learning.run_files import latest_checkpoint
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.learning.training import make_model, train
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment, StepResult
from humanoid_rl_sim.tasks.graphed import NoHostSync
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure

N, BOUND = 8, 1.5
SMALL = TrainingConfig(
    task="stand", algorithm="sac", learner="device", num_envs=N, steps=24 * N, seed=3,
    checkpoint_interval=8 * N, evaluation_interval=16 * N, evaluation_episodes=2,
    sac=SacConfig(
        action_bound=BOUND, batch_size=32, replay_capacity=40 * N, gradient_steps=2, warm_up_steps=5, log_steps=8,
        hidden_sizes=(16,), critic_hidden_sizes=(16, 16), learning_rate=1e-3,
    ),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def brief_evaluations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "PUSH_EPISODE", 0.2)
        yield


@pytest.fixture
def env() -> Iterator[Sb3VecEnv]:
    task = load_task("stand")
    robot = load_robot(task.robot, task.variant)
    vec_env = Sb3VecEnv(
        Environment(task, MujocoSimulator(robot, N, timestep=task.physics_timestep), seed=2),
        action_bound=BOUND,
    )
    yield vec_env
    vec_env.close()


def learner(env: Sb3VecEnv) -> DeviceSAC:
    model = make_model(SMALL, env)
    model.set_logger(configure(None, []))
    return model


def disturb(policy: torch.nn.Module) -> None:
    """Move every parameter: layers that start at zero would hide what is before them."""
    vector = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    torch.nn.utils.vector_to_parameters(vector + 0.05 * torch.randn_like(vector), policy.parameters())


def some_observations(model: SAC, count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, model.observation_space.shape[0])).astype(np.float32)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- replay -------------------------------------------------------------------------------------------------------


def step_result(value: float, terminated: list[bool], truncated: list[bool]) -> StepResult:
    """Observations are `value`, those at the end of an episode `value` + 0.5; the privileged ones are negative."""
    n = len(terminated)
    return StepResult(
        observation=torch.full((n, 2), value),
        reward=torch.full((n,), 10.0 * value),
        terminated=torch.tensor(terminated),
        truncated=torch.tensor(truncated),
        final_observation=torch.full((n, 2), value + 0.5),
        privileged=torch.full((n, 1), -value),
        final_privileged=torch.full((n, 1), -value - 0.5),
    )


def small_replay(capacity: int, n_envs: int) -> DeviceReplay:
    box = gymnasium.spaces.Box(-1, 1, (3,))
    return DeviceReplay(capacity, box, gymnasium.spaces.Box(-1, 1, (1,)), torch.device("cpu"), n_envs=n_envs)


def test_a_full_replay_forgets_the_oldest_rows():
    replay = small_replay(capacity=9, n_envs=2)  # four whole rows
    for value in range(6):
        observation = torch.full((2, 3), float(value))
        replay.add(observation, torch.zeros(2, 1), step_result(value + 1.0, [False, False], [False, False]))
        assert replay.size == 2 * min(value + 1, 4)
    batch = replay.sample(400)
    assert set(batch.observations.unique().tolist()) == {2.0, 3.0, 4.0, 5.0}
    # A transition stays together.
    assert torch.equal(batch.rewards[:, 0], 10.0 * batch.observations[:, 0] + 10.0)
    assert torch.equal(batch.next_observations[:, 0], batch.observations[:, 0] + 1.0)
    assert replay.latest(3).unique(dim=0)[:, 0].tolist() == [3.0, 4.0, 5.0]
    assert replay.latest(100).shape == (8, 3)


def test_a_replay_that_is_not_full_gives_only_what_it_holds():
    replay = small_replay(capacity=100, n_envs=2)
    replay.add(torch.ones(2, 3), torch.zeros(2, 1), step_result(2.0, [False, False], [False, False]))
    assert replay.sample(50).observations.unique().tolist() == [1.0]
    assert replay.latest(5).unique().tolist() == [1.0]


def test_only_a_failure_ends_the_value_of_an_episode():
    replay = small_replay(capacity=3, n_envs=3)
    replay.add(
        torch.zeros(3, 3), torch.zeros(3, 1), step_result(1.0, [False, True, False], [False, False, True])
    )
    goes_on, failed, out_of_time = 0, 1, 2
    assert replay.dones[0, :, 0].tolist() == [0.0, 1.0, 0.0]
    following = replay.next_observations[0]
    assert following[goes_on].tolist() == [1.0, 1.0, -1.0]
    assert following[failed].tolist() == following[out_of_time].tolist() == [1.5, 1.5, -1.5]


def test_collected_transitions_are_those_of_the_environment(env):
    model = learner(env)
    model.learn(30 * N)
    replay, environment = model.replay_buffer, env.environment
    assert replay.size == 30 * N and replay.actions.abs().max() <= 1.0
    # What follows in an episode is what the next row begins with.
    goes_on = (replay.next_observations[:29] == replay.observations[1:30]).all(-1)
    assert goes_on.float().mean() > 0.9
    # The environment got the action in its own units: it is in the next observation.
    scale = {term.name: term.scale for term in environment.task.observation.terms}["last_action"]
    start, stop = next(
        (start, stop)
        for name, start, stop, _ in environment.graph.observation_layout
        if name == "last_action"
    )
    sent = (scale * BOUND * replay.actions[:29])[goes_on]
    torch.testing.assert_close(replay.observations[1:30][goes_on][:, start:stop], sent)


# -- update -------------------------------------------------------------------------------------------------------


class Recorded:
    """A replay whose batches are known."""

    def __init__(self, batches: list) -> None:
        self.batches, self.size, self.rows, self.num_envs = batches, 10**6, 1, 1
        self.next = 0

    def sample(self, batch_size: int, env: None = None):
        self.next += 1
        return self.batches[self.next - 1]


@pytest.mark.parametrize("entropy_coefficient", ["auto_0.1", 0.05])
def test_one_update_moves_the_parameters_as_plain_sb3_does(env, tmp_path, entropy_coefficient):
    device = learner(env)
    device.ent_coef, device.log_ent_coef, device.ent_coef_optimizer = entropy_coefficient, None, None
    device.target_entropy = -7.0
    device._setup_model()
    device.set_logger(configure(None, []))
    device.learn(10 * N)
    disturb(device.policy)
    device.save(tmp_path / "model.zip")
    plain = SAC.load(tmp_path / "model.zip", env=env, device="cpu")
    plain.set_logger(configure(None, []))
    before = copy.deepcopy(plain.policy.state_dict())
    batches = [device.replay_buffer.sample(32) for _ in range(3)]
    device._window.clear()
    for model in (device, plain):
        model.replay_buffer = Recorded(batches)
        torch.manual_seed(7)
        model.train(gradient_steps=3, batch_size=32)
    device.log_window()
    theirs = dict(plain.policy.named_parameters())
    moved = {}
    for name, mine in device.policy.named_parameters():
        torch.testing.assert_close(mine, theirs[name], atol=1e-6, rtol=1e-4, msg=name)
        moved[name] = float((mine.detach() - before[name]).abs().max())
    assert len(moved) == len(theirs) and min(moved.values()) > 0.0
    if device.log_ent_coef is not None:
        torch.testing.assert_close(device.log_ent_coef, plain.log_ent_coef)
        assert float(device.log_ent_coef.detach()) != pytest.approx(np.log(0.1), abs=1e-6)
    ours, reference = device.logger.name_to_value, plain.logger.name_to_value
    for name in ("actor_loss", "critic_loss", "ent_coef", "n_updates"):
        assert ours[f"train/{name}"] == pytest.approx(reference[f"train/{name}"], rel=1e-4), name


def test_nothing_of_a_step_or_an_update_is_read_on_the_host(env, monkeypatch):
    model = learner(env)
    model.learn(6 * N)
    for optimizer in (model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer):
        monkeypatch.setattr(optimizer, "step", lambda: None)  # on the CPU Adam keeps its count on the host
    result = model._static(torch.zeros(N, 29))  # physics on the CPU is no part of the question
    with NoHostSync():
        with torch.no_grad():
            model._control_step(lambda action: result)
        model.train(gradient_steps=1, batch_size=16)


def test_what_only_the_critics_know_moves_the_value_and_never_the_action(env):
    policy = learner(env).policy
    disturb(policy)
    size, observed = policy.features_extractor.actor_size, torch.randn(16, env.observation_space.shape[0])
    changed = observed.clone()
    changed[:, size:] += 1.0
    action = torch.zeros(16, 29)
    with torch.no_grad():
        for mine, other in zip(
            policy.actor.get_action_dist_params(observed)[:2],
            policy.actor.get_action_dist_params(changed)[:2],
            strict=True,
        ):
            assert torch.equal(mine, other)
        for critic in (policy.critic, policy.critic_target):
            one, other = torch.cat(critic(observed, action), 1), torch.cat(critic(changed, action), 1)
            assert (one - other).abs().min() > 1e-4
    policy.features_extractor.update(torch.randn(100, changed.shape[1]) + 5.0)
    for module in (policy.actor, policy.critic, policy.critic_target):
        assert module.features_extractor is policy.features_extractor


def test_it_learns_to_answer_a_command(monkeypatch):
    """Six joints shall turn as far as the commanded speed says; physics is left out, to have it in seconds."""
    task = load_task("walk")
    environment = Environment(task, MujocoSimulator(load_robot(), 32, timestep=task.physics_timestep), seed=4)
    monkeypatch.setattr(environment, "_physics", lambda target: None)

    def error(action: torch.Tensor, command: torch.Tensor) -> torch.Tensor:
        return (action[:, :6] - command[:, :1]).square().mean(1)

    environment.reward_terms = [("answer", -50.0, lambda view: error(view.action, view.command))]
    env = Sb3VecEnv(environment, action_bound=BOUND)
    sac = dataclasses.replace(
        SMALL.sac, batch_size=256, replay_capacity=100_000, gamma=0.5, tau=0.05, log_steps=50,
        hidden_sizes=(64, 64), critic_hidden_sizes=(64, 64), target_entropy=-1.0,
    )  # fmt: skip
    model = make_model(dataclasses.replace(SMALL, task="walk", num_envs=32, sac=sac), env)
    model.set_logger(configure(None, []))

    def judged() -> float:
        with torch.no_grad():
            observation, privileged = environment.reset()
            action, _ = model.predict(torch.cat((observation, privileged), 1).numpy(), deterministic=True)
            return float(error(torch.from_numpy(action), environment.view.command).mean())

    untrained = judged()
    model.learn(400 * 32)
    assert untrained > 0.1 and judged() < 0.25 * untrained
    env.close()


# -- runs and files -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    train(SMALL, run)
    return run


def test_a_run_leaves_tables_and_checkpoints(finished):
    assert from_yaml(finished / "config.yaml") == SMALL
    table = rows(finished / "progress.csv")
    assert [int(row["steps"]) for row in table] == [8 * N, 16 * N, 24 * N]
    assert list(table[0])[4:12] == [
        "steps_per_second", "actor_loss", "critic_loss", "entropy_coefficient", "entropy", "q_value",
        "learning_rate", "broken_episodes",
    ]  # fmt: skip
    for name in ("actor_loss", "critic_loss", "entropy_coefficient", "entropy", "q_value", "learning_rate"):
        assert np.isfinite([float(row[name]) for row in table]).all(), name
    assert [int(row["steps"]) for row in rows(finished / "evaluations.csv")] == [16 * N, 24 * N]
    assert latest_checkpoint(finished) == finished / "checkpoints" / f"step_{24 * N:010d}.zip"
    assert (finished / "best" / "model.zip").is_file() and list((finished / "tensorboard").iterdir())


def test_a_checkpoint_acts_the_same_and_learns_on_in_plain_sb3(finished, env):
    checkpoint = latest_checkpoint(finished)
    model, plain = DeviceSAC.load(checkpoint, device="cpu"), SAC.load(checkpoint, env=env, device="cpu")
    observed = some_observations(model, 16)
    expected, _ = model.predict(observed, deterministic=True)
    assert type(plain) is SAC and np.ptp(expected, axis=0).max() > 1e-4
    np.testing.assert_array_equal(plain.predict(observed, deterministic=True)[0], expected)
    graph = actor_graph(model.policy)
    action = graph.network(graph.normalise(torch.from_numpy(observed)[:, : graph.observation_size]))
    np.testing.assert_allclose(action.numpy(), expected, atol=1e-6)
    updates = plain._n_updates
    plain.learn(3 * N, reset_num_timesteps=False)
    assert plain.num_timesteps == 27 * N and plain._n_updates > updates


def test_a_resumed_run_fills_its_replay_before_it_learns_on(finished, tmp_path, monkeypatch):
    run, sizes = tmp_path / "run", []
    shutil.copytree(finished, run)
    before = rows(run / "progress.csv")
    learned = SAC.load(latest_checkpoint(run), device="cpu")
    step = DeviceSAC._gradient_step
    monkeypatch.setattr(
        DeviceSAC,
        "_gradient_step",
        lambda self, batch: (sizes.append(self.replay_buffer.size), step(self, batch))[1],
    )
    train(dataclasses.replace(SMALL, steps=36 * N), run, resume=True)
    assert sizes[:3] == [5 * N, 5 * N, 6 * N] and len(sizes) == 2 * (36 - 24 - 4)
    after = rows(run / "progress.csv")
    assert after[:3] == before and [int(row["steps"]) for row in after[3:]] == [32 * N, 36 * N]
    resumed = SAC.load(latest_checkpoint(run), device="cpu")
    assert resumed._n_updates == learned._n_updates + len(sizes)
    assert float(resumed.policy.features_extractor.count) > float(learned.policy.features_extractor.count)
    assert not torch.equal(resumed.log_ent_coef, learned.log_ent_coef)


def test_equal_seeds_give_equal_progress(tmp_path):
    tables = []
    for name in ("one", "again"):
        train(SMALL, tmp_path / name)
        tables.append(
            [
                {key: value for key, value in row.items() if key not in ("time_s", "steps_per_second")}
                for row in rows(tmp_path / name / "progress.csv")
            ]
        )
    assert tables[0] == tables[1]


def test_the_exported_policy_acts_as_the_model(finished, env):
    policy = OnnxPolicy(export_run(finished, output=finished / "other.onnx"), load_robot())
    model = DeviceSAC.load(finished / "best" / "model.zip", device="cpu")
    environment, exported, largest = env.environment, OnnxActor(policy, N), 0.0
    observation, privileged = environment.reset()
    started = torch.ones(N, dtype=torch.bool)
    for _ in range(20):
        expected, _ = model.predict(torch.cat((observation, privileged), 1).numpy(), deterministic=True)
        actions = exported.act(environment, observation, started).action
        np.testing.assert_allclose(actions.numpy(), expected, atol=1e-5)
        largest = max(largest, float(actions.abs().max()))
        result = environment.step(actions)
        observation, privileged = result.observation, result.privileged
        started = result.terminated | result.truncated
    assert 1e-3 < largest <= BOUND


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"algorithm": "sacc"}, "'sacc' is not one of ppo, sac, did you mean 'sac'"),
        ({"sac.action_bond": "1"}, "unknown key 'sac.action_bond', did you mean 'action_bound'"),
        ({"sac.action_bound": "0"}, "sac.action_bound must be above zero, got 0.0"),
        ({"sac.gamma": "1.5"}, "sac.gamma must be above 0 and at most 1"),
        ({"sac.batch_size": "0"}, "sac.batch_size must be at least 1"),
        ({"sac.replay_capacity": "100", "sac.batch_size": "101"}, "sac.batch_size = 101 is larger than"),
        ({"sac.replay_capacity": "100", "sac.batch_size": "10"}, "does not hold one control step of num_envs = 512"),
        ({"sac.replay_capacity": "5120", "sac.batch_size": "10", "sac.warm_up_steps": "11"}, "holds 10 control steps"),
        ({"learner": "sb3"}, "algorithm sac needs learner device, not sb3"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_configuration_is_told_in_one_line(overrides, message):
    with pytest.raises(UserError) as refused:
        load_training_config("stand", {"algorithm": "sac", **overrides})
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_what_sac_does_not_need_is_not_checked():
    config = load_training_config("stand", {"algorithm": "sac", "num_envs": "7", "ppo.minibatches": "5"})
    assert config.learner == "device"
    assert load_training_config("stand").algorithm == "ppo"


def test_a_bound_beyond_the_tasks_clip_is_refused_before_anything_is_written(tmp_path, env):
    config = dataclasses.replace(SMALL, sac=dataclasses.replace(SMALL.sac, action_bound=11.0))
    with pytest.raises(UserError, match=r"action_bound = 11.0 is beyond action_clip = 10.0 of task stand"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="action_bound must be above 0 and at most"):
        Sb3VecEnv(env.environment, action_bound=11.0)


def test_torchrun_is_refused(tmp_path, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="sac learns in one process"):
        train(SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [{"use_sde": True}, {"n_steps": 2}, {"optimize_memory_usage": True}])
def test_what_the_device_learner_lacks_is_refused(env, option):
    with pytest.raises(ValueError):
        DeviceSAC("MlpPolicy", env, **option)
