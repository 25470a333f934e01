"""A training run: its files, its end, its continuation, and the policy that it trains."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import evaluation
from humanoid_rl_sim.learning.actor import actor_graph
from humanoid_rl_sim.learning.asymmetric_policy import ObservationNormaliser
from humanoid_rl_sim.learning.configuration import (
    PpoConfig,
    TrainingConfig,
    from_yaml,
    load_training_config,
    resumed_config,
)
from humanoid_rl_sim.learning.learners import TrainedPPO
from humanoid_rl_sim.learning.run_files import append_row, latest_checkpoint, truncate_rows, write_model
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv, make_spaces
from humanoid_rl_sim.learning.training import make_model, train
from humanoid_rl_sim.learning.training_control import TrainingControl, TrainingProgress
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import Range, load_task
from humanoid_rl_sim.tasks.environment import Environment, make_policy_graph
from humanoid_rl_sim.tasks.terrain import Severity
from stable_baselines3 import PPO

UPDATE = 8 * 8  # environment steps
PATIENCE = 60.0
SMALL = TrainingConfig(
    task="stand",
    sim="mujoco",
    num_envs=8,
    steps=3 * UPDATE,
    seed=3,
    checkpoint_interval=UPDATE,
    evaluation_interval=2 * UPDATE,
    evaluation_episodes=2,
    ppo=PpoConfig(
        rollout_steps=8, minibatches=2, epochs=2, hidden_sizes=(16,), critic_hidden_sizes=(16, 16), gamma=0.9
    ),
)
UNTIMED = (
    "steps",
    "reward",
    "episode_length_s",
    "approx_kl",
    "explained_variance",
    "value_loss",
    "action_std",
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def steps_in(path: Path) -> list[int]:
    return [int(row["steps"]) for row in rows(path)]


def hidden_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.fixture(scope="module", autouse=True)
def brief_evaluations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "PUSH_EPISODE", 0.2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainingProgress]]:
    """The directory of a run of three updates, and what it reported."""
    run, reports = tmp_path_factory.mktemp("runs") / "finished", []
    train(SMALL, run, on_progress=reports.append)
    return run, reports


@pytest.fixture
def interrupted(finished: tuple[Path, list[TrainingProgress]], tmp_path: Path) -> Path:
    """A copy of that run, as if it had been killed after more work than it kept."""
    run = tmp_path / "interrupted"
    shutil.copytree(finished[0], run)
    append_row(
        run / "progress.csv", {**dict.fromkeys(rows(run / "progress.csv")[0], -77.0), "steps": 4 * UPDATE}
    )
    append_row(run / "evaluations.csv", {"steps": 4 * UPDATE, "score": -77.0})
    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Background]]:
    started: list[Background] = []

    def start() -> Background:
        started.append(Background(tmp_path / "run"))
        return started[-1]

    yield start
    for run in started:
        run.end()


class Background:
    """A long training in a thread of its own, steered from the test's."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.control = run_dir, TrainingControl()
        self.reports: list[TrainingProgress] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._train)
        self.thread.start()
        self.until(lambda: any(report.steps >= UPDATE for report in self.reports))

    def _train(self) -> None:
        config = dataclasses.replace(SMALL, steps=10**8, checkpoint_interval=10**8, evaluation_interval=10**8)
        try:
            train(config, self.run_dir, control=self.control, on_progress=self.reports.append)
        except BaseException as error:
            self.error = error

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.error is None, self.error
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        self.control.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


# -- files ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_configuration_its_tables_its_checkpoints_and_its_best_model(finished):
    run, reports = finished
    assert from_yaml(run / "config.yaml") == SMALL
    assert steps_in(run / "progress.csv") == [UPDATE, 2 * UPDATE, 3 * UPDATE]
    assert steps_in(run / "evaluations.csv") == [2 * UPDATE, 3 * UPDATE]
    assert all(0.0 <= float(row["score"]) <= 1.0 for row in rows(run / "evaluations.csv"))
    assert latest_checkpoint(run) == run / "checkpoints" / f"step_{3 * UPDATE:010d}.zip"
    assert (run / "best" / "model.zip").is_file()
    assert list((run / "tensorboard").iterdir())
    assert hidden_files(run) == []
    assert reports[-1].phase == "done" and reports[-1].steps == 3 * UPDATE
    assert reports[-1].best_evaluation == max(float(r["score"]) for r in rows(run / "evaluations.csv"))


def test_only_the_last_checkpoints_are_kept(tmp_path):
    train(dataclasses.replace(SMALL, steps=5 * UPDATE, evaluation_interval=10**6), tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step_{n * UPDATE:010d}.zip" for n in (3, 4, 5)]


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "model.zip"
    path.write_bytes(b"old")

    def fail(self: PPO, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(PPO, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_model(PPO.__new__(PPO), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_begun_by_a_killed_run_still_gets_its_header(tmp_path):
    path = tmp_path / "progress.csv"
    path.touch()
    truncate_rows(path, 10)
    append_row(path, {"steps": 5, "reward": 1.0})
    assert rows(path) == [{"steps": "5", "reward": "1"}]


def test_a_table_of_an_older_version_gets_the_columns_that_have_come_since(tmp_path):
    path = tmp_path / "progress.csv"
    append_row(path, {"steps": 5, "gone": 2, "reward": 1.0})
    append_row(path, {"steps": 10, "reward": 3.0, "overflows": 4})
    append_row(path, {"overflows": 6, "reward": 5.0, "steps": 15})
    assert path.read_text().split() == [
        "steps,gone,reward,overflows", "5,2,1,nan", "10,nan,3,4", "15,nan,5,6"
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [path]


def test_equal_seeds_give_equal_progress_and_other_seeds_do_not(tmp_path):
    task = dataclasses.asdict(load_task("stand")) | {"episode_length": 0.1}
    path = tmp_path / "short.yaml"
    path.write_text(json.dumps(task))  # which is YAML too
    learnt = {}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        train(dataclasses.replace(SMALL, task=str(path), seed=seed), tmp_path / name)
        learnt[name] = [[row[column] for column in UNTIMED] for row in rows(tmp_path / name / "progress.csv")]
    assert all("nan" not in row for row in learnt["one"])
    assert learnt["again"] == learnt["one"]
    assert all(row != other for row, other in zip(learnt["one"], learnt["other"], strict=True))


# -- steering ---------------------------------------------------------------------------------------------------


def test_stopping_writes_a_checkpoint_of_what_was_learnt(start):
    run = start()
    run.end()
    assert run.error is None
    checkpoint = latest_checkpoint(run.run_dir)
    assert checkpoint is not None
    steps = PPO.load(checkpoint, device="cpu").num_timesteps
    assert steps >= UPDATE and checkpoint.name == f"step_{steps:010d}.zip"
    assert steps_in(run.run_dir / "progress.csv")[-1] == steps


def test_a_paused_run_stands_still_writes_checkpoints_and_goes_on(start):
    run = start()
    run.control.pause()
    run.until(lambda: run.reports[-1].phase == "paused")
    still = run.reports[-1].steps
    first = run.control.checkpoint(PATIENCE)
    # The same file again, and still an answer.
    assert first == run.control.checkpoint(PATIENCE) == run.run_dir / "checkpoints" / f"step_{still:010d}.zip"
    assert first.is_file()
    time.sleep(0.3)
    assert run.reports[-1].phase == "paused" and run.reports[-1].steps == still
    run.control.resume()
    run.until(lambda: run.reports[-1].steps >= still + 2 * UPDATE)
    assert run.reports[-1].phase == "training"


def test_a_paused_run_can_be_stopped(start):
    run = start()
    run.control.pause()
    run.until(lambda: run.reports[-1].phase == "paused")
    run.end()
    assert latest_checkpoint(run.run_dir) is not None


def test_a_checkpoint_that_nobody_writes_is_not_waited_for_longer_than_asked():
    assert TrainingControl().checkpoint(0.05) is None


# -- going on ---------------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_from_its_checkpoint_and_drops_what_was_lost(interrupted):
    before = rows(interrupted / "progress.csv")[:3]
    train(dataclasses.replace(SMALL, steps=5 * UPDATE), interrupted, resume=True)
    after = rows(interrupted / "progress.csv")
    assert after[:3] == before
    assert [int(row["steps"]) for row in after] == [n * UPDATE for n in (1, 2, 3, 4, 5)]
    times = [float(row["time_s"]) for row in after]
    assert times == sorted(times) and times[0] > 0.0
    assert steps_in(interrupted / "evaluations.csv") == [n * UPDATE for n in (2, 3, 4, 5)]
    assert "-77" not in (interrupted / "progress.csv").read_text()
    assert "-77" not in (interrupted / "evaluations.csv").read_text()
    assert from_yaml(interrupted / "config.yaml").steps == 5 * UPDATE
    # Statistics went on too: the warm-up and every rollout but the last.
    model = PPO.load(latest_checkpoint(interrupted), device="cpu")
    assert model.num_timesteps == 5 * UPDATE
    assert float(model.policy.features_extractor.count) == pytest.approx(5 * UPDATE, abs=UPDATE)


@pytest.mark.parametrize("learner", ["sb3", "device"])
def test_a_resumed_run_goes_on_at_the_levels_its_robots_had_reached(tmp_path, learner):
    rough = load_task("rough")
    terrain = dataclasses.replace(rough.terrain, kinds={"flat": Severity(0.0, 0.0)}, cell=4.0, spacing=0.2)
    path = tmp_path / "small_rough.yaml"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(rough, terrain=terrain))))
    config = dataclasses.replace(SMALL, task=str(path), learner=learner, steps=UPDATE, evaluation_episodes=1)
    control = TrainingControl()

    def climb(progress: TrainingProgress) -> None:
        if progress.phase == "evaluating":  # the last thing before the checkpoint
            control.environment.cells.level.fill_(7)

    run = tmp_path / "run"
    train(config, run, control=control, on_progress=climb)
    train(dataclasses.replace(config, steps=3 * UPDATE), run, resume=True)
    first, *resumed = (float(row["terrain_level"]) for row in rows(run / "progress.csv"))
    assert first < 4.0 and len(resumed) == 2
    assert all(6.0 <= level <= 8.0 for level in resumed)
    # A checkpoint of before the levels were kept.
    model = TrainedPPO.load(latest_checkpoint(run), device="cpu")
    del model.run_state["terrain_level"]
    write_model(model, latest_checkpoint(run))
    train(dataclasses.replace(config, steps=4 * UPDATE), run, resume=True)
    assert steps_in(run / "progress.csv")[-1] == 4 * UPDATE


def test_resuming_with_another_configuration_is_refused_by_name(interrupted):
    with pytest.raises(UserError, match=r"another num_envs, seed; only steps may change"):
        train(dataclasses.replace(SMALL, num_envs=16, seed=9), interrupted, resume=True)
    with pytest.raises(UserError, match="already trained for 192 steps"):
        train(SMALL, interrupted, resume=True)


def test_what_is_resumed_keeps_its_configuration_but_for_the_steps():
    assert resumed_config(SMALL, {}) == SMALL
    more = resumed_config(SMALL, {"steps": "1000", "num_envs": "8", "task": "stand"})
    assert more == dataclasses.replace(SMALL, steps=1000)
    with pytest.raises(UserError, match=r"not with another num_envs, ppo\.gamma"):
        resumed_config(SMALL, {"num_envs": "16", "ppo.gamma": "0.9"})
    with pytest.raises(UserError, match="steps=many is not a whole number"):
        resumed_config(SMALL, {"steps": "many"})


def test_a_run_that_exists_is_not_overwritten(interrupted):
    before = (interrupted / "progress.csv").read_bytes()
    with pytest.raises(UserError, match="a run of that name exists"):
        train(SMALL, interrupted)
    assert (interrupted / "progress.csv").read_bytes() == before


def test_a_run_without_a_checkpoint_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        train(SMALL, tmp_path / "nothing", resume=True)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a model", None])
def test_a_damaged_checkpoint_is_refused_in_one_line(interrupted, damage):
    checkpoint = latest_checkpoint(interrupted)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2] if damage is None else damage)
    before = (interrupted / "progress.csv").read_bytes()
    with pytest.raises(UserError, match="not a usable checkpoint") as refused:
        train(dataclasses.replace(SMALL, steps=5 * UPDATE), interrupted, resume=True)
    assert str(checkpoint) in str(refused.value) and "\n" not in str(refused.value)
    assert (interrupted / "progress.csv").read_bytes() == before


def test_a_task_without_a_mirror_image_is_refused_before_anything_is_written(tmp_path):
    task = load_task("walk")
    one_sided = dataclasses.replace(task.command, vy=Range(-0.1, 0.3))
    path = tmp_path / "one_sided.yaml"
    path.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(task, command=one_sided))))
    symmetric = dataclasses.replace(
        SMALL, task=str(path), learner="device", ppo=dataclasses.replace(SMALL.ppo, symmetry_coefficient=0.5)
    )
    with pytest.raises(UserError, match=r"range of command vy, -0.1 to 0.3, is not symmetric"):
        train(symmetric, tmp_path / "run")
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_of_the_command_line_may_be_written_with_an_exponent():
    config = load_training_config("stand", {"ppo.learning_rate": "1e-4", "ppo.hidden_sizes": "[8, 4]"})
    assert config.ppo.learning_rate == 1e-4
    assert config.ppo.hidden_sizes == (8, 4)
    with pytest.raises(UserError, match="learning_rate"):
        load_training_config("stand", {"ppo.learning_rat": "1e-4"})


# -- the policy ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Iterator[PPO]:
    """An untrained model whose statistics are not the identity."""
    task = load_task("stand")
    simulator = make_simulator(
        "mujoco", load_robot(task.robot, task.variant), SMALL.num_envs, timestep=task.physics_timestep
    )
    env = Sb3VecEnv(Environment(task, simulator, seed=1))
    model = make_model(
        dataclasses.replace(SMALL, ppo=dataclasses.replace(SMALL.ppo, normalise_observations=True)), env
    )
    model.policy.features_extractor.update(observations(model, 50, seed=5))
    yield model
    env.close()


def observations(model: PPO, count: int, *, seed: int) -> torch.Tensor:
    size = model.observation_space.shape[0]
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 2.0 * torch.randn(count, size, generator=generator)


def test_a_model_loads_in_plain_stable_baselines_and_acts_the_same(model, tmp_path):
    observed = observations(model, 32, seed=6)
    expected, _ = model.predict(observed.numpy(), deterministic=True)
    loaded = PPO.load(write_model(model, tmp_path / "model.zip"), device="cpu")
    actions, _ = loaded.predict(observed.numpy(), deterministic=True)
    np.testing.assert_array_equal(actions, expected)
    assert np.ptp(actions, axis=0).max() > 0.01
    graph = actor_graph(loaded.policy)
    actors = graph.network(graph.normalise(observed[:, : graph.observation_size]))
    np.testing.assert_allclose(actors.numpy(), expected, atol=1e-6)


def test_a_checkpoint_loads_in_plain_stable_baselines(finished):
    loaded = PPO.load(latest_checkpoint(finished[0]), device="cpu")
    action, _ = loaded.predict(np.zeros(loaded.observation_space.shape, np.float32), deterministic=True)
    assert type(loaded) is PPO and loaded.num_timesteps == 3 * UPDATE
    assert action.shape == loaded.action_space.shape and np.isfinite(action).all()


def test_what_only_the_critic_knows_moves_the_value_and_never_the_action(model):
    policy, size = model.policy, model.policy.features_extractor.actor_size
    observed = observations(model, 16, seed=7)
    changed = observed.clone()
    changed[:, size:] += 1.0
    with torch.no_grad():
        assert torch.equal(policy._predict(observed, True), policy._predict(changed, True))
        one, other = policy.get_distribution(observed), policy.get_distribution(changed)
        assert torch.equal(one.distribution.stddev, other.distribution.stddev)
        values, elsewhere = policy.predict_values(observed), policy.predict_values(changed)
        assert (values - elsewhere).abs().min() > 1e-4
        # The critic sees the actor's half as well.
        changed[:, size:] = observed[:, size:]
        changed[:, :size] += 1.0
        assert (policy.predict_values(changed) - values).abs().min() > 1e-4
        assert (policy._predict(changed, True) - policy._predict(observed, True)).abs().max() > 1e-3


@pytest.mark.parametrize("adapt_actor", [True, False])
def test_observation_statistics_are_those_of_all_batches_together(model, adapt_actor):
    environment = model.get_env().environment
    space, _ = make_spaces(environment, privileged=True)
    task = load_task("stand")
    normaliser = ObservationNormaliser(
        space, make_policy_graph(task, environment.robot), adapt_actor=adapt_actor
    )
    graph = normaliser.graph
    generator = np.random.default_rng(0)
    batches = [
        generator.normal(shift, scale, (count, space.shape[0])).astype(np.float32)
        for count, shift, scale in ((7, 3.0, 0.1), (100, -2.0, 5.0), (1, 40.0, 1.0))
    ]
    for batch in batches:
        normaliser.update(torch.from_numpy(batch))
    together = np.concatenate(batches).astype(np.float64)
    mean, var, size = together.mean(0), together.var(0), graph.observation_size
    np.testing.assert_allclose(normaliser.privileged_mean.numpy(), mean[size:], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normaliser.privileged_var.numpy(), var[size:], rtol=1e-5)
    assert float(normaliser.count) == 108
    if adapt_actor:
        np.testing.assert_allclose(graph.obs_mean.numpy(), mean[:size], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(graph.obs_var.numpy(), var[:size], rtol=1e-5)
    else:
        assert torch.equal(graph.obs_mean, torch.zeros(size)) and torch.equal(graph.obs_var, torch.ones(size))


@pytest.mark.parametrize(
    ("sim", "visualizer", "reason"),
    [
        ("mujoco", "viser", "simulator mujoco has no visualizer; humanoid-rl view shows every training"),
        ("isaac:ovphysx", "viserr", "unknown visualizer 'viserr', did you mean 'viser'"),
        ("isaac:newton", "kit", "visualizer kit does not go with isaac:newton"),
        ("isaac:isaacsim", "viser", "visualizer viser does not go with isaac:isaacsim"),
    ],
)
def test_a_visualizer_that_the_simulator_has_not_is_refused(sim, visualizer, reason):
    with pytest.raises(UserError, match=reason):
        load_training_config("stand", {"sim": sim, "visualizer": visualizer})
