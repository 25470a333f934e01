"""A training run: PPO or SAC on a task, with checkpoints, resume, periodic evaluation and the best model kept.

A run directory holds config.yaml, progress.csv (one row per update), evaluations.csv, checkpoints/*.zip,
best/model.zip and tensorboard/. Every zip is a plain stable-baselines3 model and is written atomically.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from humanoid_rl_sim.learning.actor import actor_graph
from humanoid_rl_sim.learning.asymmetric_policy import ObservationNormaliser
from humanoid_rl_sim.learning.configuration import TrainingConfig, from_yaml, to_yaml
from humanoid_rl_sim.learning.evaluation import score
from humanoid_rl_sim.learning.learners import Learner, TrainedModel, learner_for
from humanoid_rl_sim.learning.ranks import SEED_STRIDE, Ranks, is_main, join, started_by_torchrun
from humanoid_rl_sim.learning.run_files import append_row, latest_checkpoint, truncate_rows, write_model
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.learning.training_control import TrainingControl, TrainingProgress
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.making import make_environment

CHECKPOINTS_KEPT = 3
GPU_SIMULATORS = ("mujoco_warp",)
WITHOUT_GPU = 64  # environments that a GPU simulator may have on a CPU, where it takes milliseconds for each
EVALUATION_SIMULATOR = "mujoco"  # never the engine of the training, unless that is it


class _Run(BaseCallback):
    """Everything a run does beside learning."""

    model: TrainedModel

    def __init__(
        self,
        config: TrainingConfig,
        learner: Learner,
        run_dir: Path,
        control: TrainingControl,
        on_progress: Callable[[TrainingProgress], None],
        ranks: Ranks,
    ) -> None:
        super().__init__()
        self.learner, self.ranks = learner, ranks
        self.config, self.run_dir, self.control, self.on_progress = config, run_dir, control, on_progress
        self.task = load_task(config.task)
        self.best = float("nan")
        self._elapsed_before = 0.0
        self._rate = self._eta = float("nan")
        self._rng: dict[str, Any] | None = None
        self._seen: dict[str, int] = {}

    # state that a resumed run continues with; saved within the model
    def _state(self) -> dict[str, Any]:
        cells = self.environment.cells
        return {
            "elapsed_s": self._elapsed_before + time.monotonic() - self._started,
            "best": self.best,
            "next_checkpoint": self._next_checkpoint,
            "next_evaluation": self._next_evaluation,
            "environment_rng": self.environment.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.environment.device.type == "cuda" else None,
            "numpy_rng": np.random.get_state(),
            "python_rng": random.getstate(),
            "terrain_level": None if cells is None else cells.level.cpu().clone(),
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        if state is None:
            self._next_checkpoint = self.config.checkpoint_interval
            self._next_evaluation = self.config.evaluation_interval
            return
        self._elapsed_before, self.best = state["elapsed_s"], state["best"]
        self._next_checkpoint, self._next_evaluation = state["next_checkpoint"], state["next_evaluation"]
        self._rng = state

    def restore_levels(self, environment: Environment) -> None:
        """Put the robots back on the levels they had reached. Before learning begins: it resets the environment, and
        only a reset takes a robot to its cell."""
        level, cells = (self._rng or {}).get("terrain_level"), environment.cells
        if level is not None and cells is not None and level.shape == cells.level.shape:
            cells.level.copy_(level.clamp(max=cells.levels - 1))

    def restore_rng(self) -> None:
        state = self._rng
        if state is not None:
            torch.set_rng_state(state["torch_rng"])
            if (self.environment.device.type == "cuda") == (state.get("cuda_rng") is not None):
                self.environment.generator.set_state(state["environment_rng"])
            if self.environment.device.type == "cuda" and state.get("cuda_rng") is not None:
                torch.cuda.set_rng_state(state["cuda_rng"])
            np.random.set_state(state["numpy_rng"])
            random.setstate(state["python_rng"])

    def explore_differently(self, environment: Environment) -> None:
        """Random numbers of this rank's own, also where those of rank 0 came with a checkpoint."""
        self._rng = None
        seed = self.config.seed + SEED_STRIDE * self.ranks.rank + int(self._elapsed_before)
        torch.manual_seed(seed)
        environment.generator.manual_seed(seed)

    @property
    def environment(self) -> Environment:
        return self.training_env.environment  # type: ignore[attr-defined]

    @property
    def normaliser(self) -> ObservationNormaliser:
        normaliser = self.model.policy.features_extractor
        assert isinstance(normaliser, ObservationNormaliser)
        return normaliser

    def _on_training_start(self) -> None:
        self._started = time.monotonic()
        self.restore_rng()
        self._fill_in_progress()
        if self.normaliser.count == 0:
            self._warm_up()
        self.report("training")

    def _warm_up(self) -> None:
        """First observation statistics, from a little random motion that does not count as training."""
        environment, observations = self.environment, []
        steps, std = self.learner.exploration
        for _ in range(steps):
            action = std * torch.randn(
                environment.num_envs,
                environment.graph.action_size,
                generator=environment.generator,
                device=environment.device,
            )
            with torch.no_grad():
                result = environment.step(action)
            observations.append(torch.cat((result.observation, result.privileged), 1))
        self.normaliser.update(torch.cat(observations), self.ranks)

    def _on_rollout_start(self) -> None:
        if not hasattr(self, "_progress_steps"):
            self._progress_steps = self.num_timesteps
            self._window_started = time.monotonic()
        elif self.num_timesteps >= self._progress_steps + self._window_size:
            # The last update is over: what it learned from may now shape the statistics of the next.
            self.normaliser.update(self.learner.observations(self.model), self.ranks)
            self._write_progress()
            self._fill_in_progress()
            self.learner.begin_window(self.model, self.num_timesteps / self.config.steps)
            self._after_update()
            self._window_started = time.monotonic()

    @property
    def _window_size(self) -> int:
        """Environment steps, over all ranks."""
        return self.learner.window_steps * self.config.num_envs * self.ranks.size

    def _fill_in_progress(self) -> None:
        self.environment.training_progress.fill_(self.num_timesteps / self.config.steps)

    def _on_step(self) -> bool:
        control, was_paused = self.control, False
        while True:
            if control.paused and not was_paused:
                was_paused = True
                self.report("paused")
            control.wait_while_paused()
            if control.take_checkpoint_request():
                self.checkpoint()
            if control.stopping or not control.paused:
                break
        if was_paused and not control.stopping:
            self.report("training")
        return not control.stopping

    def finish(self) -> None:
        """Write what the last update left: its progress row, an evaluation and a checkpoint."""
        if self.num_timesteps > getattr(self, "_progress_steps", self.num_timesteps):
            self.learner.end_window(self.model)
            self._write_progress()
        if not self.control.stopping:
            self.evaluate()
        self.checkpoint()

    def _after_update(self) -> None:
        if self.num_timesteps >= self._next_evaluation:
            self._next_evaluation += self.config.evaluation_interval
            self.evaluate()
        if self.num_timesteps >= self._next_checkpoint:
            self._next_checkpoint += self.config.checkpoint_interval
            self.checkpoint()

    def checkpoint(self) -> None:
        if not self.ranks.main:
            return
        self.model.run_state = self._state()
        path = write_model(self.model, self.run_dir / "checkpoints" / f"step_{self.num_timesteps:010d}.zip")
        for old in sorted(path.parent.glob("step_*.zip"))[:-CHECKPOINTS_KEPT]:
            old.unlink()
        self.control.report_checkpoint(path)

    def evaluate(self) -> None:
        if not self.ranks.main:
            return
        self.report("evaluating")
        graph = actor_graph(self.model.policy).cpu()
        value = score(
            self.task,
            graph,
            sim=EVALUATION_SIMULATOR,
            episodes=self.config.evaluation_episodes,
            seed=self.config.seed,
        )
        append_row(self.run_dir / "evaluations.csv", {"steps": self.num_timesteps, "score": value})
        self.logger.record("evaluation/score", value)
        if not value < self.best:  # of equals the later one, whose learning rate has come down
            self.best = value
            write_model(self.model, self.run_dir / "best" / "model.zip")
        self.report("training")

    def _write_progress(self) -> None:
        now = time.monotonic()
        steps = self.num_timesteps - self._progress_steps
        self._rate = steps / (now - self._window_started)
        self._eta = (self.config.steps - self.num_timesteps) / self._rate
        self._progress_steps = self.num_timesteps
        if not self.ranks.main:
            return
        values = self.logger.name_to_value
        for name, value in self.environment.pop_reward_terms().items():
            self.logger.record(f"reward/{name}", value)
        reward, length = self._episodes()
        append_row(
            self.run_dir / "progress.csv",
            {
                "steps": self.num_timesteps,
                "time_s": self._elapsed_before + now - self._started,
                "reward": reward,
                "episode_length_s": length,
                "steps_per_second": self._rate,
                **{column: values.get(name, float("nan")) for column, name in self.learner.figures.items()},
                "broken_episodes": self._told(
                    "broken_episodes",
                    self.environment.broken_episodes,
                    "physics broke in %d episodes, which were reset",
                ),
                "overflows": self._told(
                    "overflows",
                    self.environment.simulator.overflows,
                    "contacts or constraints were left out in %d steps of a robot, for want of room",
                ),
                **self._terrain_levels(),
            },
        )
        self.report("training")

    def _told(self, name: str, counter: torch.Tensor, message: str) -> int:
        """The counter's value since the start or the last resume; the log tells of what is new."""
        count = int(counter)
        new = count - self._seen.get(name, 0)
        if new:
            logging.getLogger(__name__).warning(f"{message}: %d in all", new, count)
            self._seen[name] = count
        return count

    def _terrain_levels(self) -> dict[str, float]:
        """The mean level of the robots, on a terrain."""
        cells = self.environment.cells
        return {} if cells is None else {"terrain_level": cells.level.float().mean().item()}

    def _episodes(self) -> tuple[float, float]:
        episodes = self.model.ep_info_buffer
        if not episodes:
            return float("nan"), float("nan")
        return (
            float(np.mean([e["r"] for e in episodes])),
            float(np.mean([e["l"] for e in episodes])) * self.task.control_period,
        )

    def report(self, phase: str) -> None:
        if not self.ranks.main:
            return
        reward, length = self._episodes()
        self.on_progress(
            TrainingProgress(
                phase=phase,
                steps=self.num_timesteps,
                total_steps=self.config.steps,
                steps_per_second=self._rate,
                mean_reward=reward,
                mean_episode_length=length,
                best_evaluation=self.best,
                eta=self._eta,
            )
        )


def make_model(config: TrainingConfig, env: Sb3VecEnv) -> TrainedModel:
    """An untrained model for the run; its policy normalises with the environment's own graph."""
    return learner_for(config).make_model(env)


def prepare_run_directory(run_dir: Path, config: TrainingConfig, *, resume: bool) -> None:
    """Create the directory, or check that it can be resumed.

    Raises:
        UserError: it exists and `resume` is not set, cannot be written, or belongs to another configuration.
    """
    config_file = run_dir / "config.yaml"
    if resume:
        if latest_checkpoint(run_dir) is None:
            raise UserError(f"{run_dir}: no checkpoint to resume from; start the run without --resume")
        stored = dataclasses.replace(from_yaml(config_file), steps=config.steps)
        if stored != config:
            changed = [
                field.name
                for field in dataclasses.fields(config)
                if getattr(config, field.name) != getattr(stored, field.name)
            ]
            raise UserError(
                f"{run_dir}: the run was started with another {', '.join(changed)}; only steps may change on resume"
            )
    elif config_file.exists():
        raise UserError(
            f"{run_dir}: a run of that name exists; pass --resume to continue it or choose another name"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        temporary = config_file.with_name(".config.yaml")
        temporary.write_text(to_yaml(config))
        os.replace(temporary, config_file)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot write the run: {error.strerror}") from None


def _ignore(progress: TrainingProgress) -> None:
    pass


def train(
    config: TrainingConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    control: TrainingControl | None = None,
    on_progress: Callable[[TrainingProgress], None] = _ignore,
) -> Path:
    """Train until `config.steps`, or until `control` says stop. Ends with a checkpoint, also on Ctrl-C.

    Args:
        config: what to train.
        run_dir: directory of the run; new, or with `resume` one that has a checkpoint.
        resume: continue from the last checkpoint.
        control: steers the run from another thread.
        on_progress: called in this thread after every update and change of phase.

    Returns:
        The best model by evaluation (best/model.zip), or the last checkpoint where none was evaluated.

    Raises:
        UserError: the configuration or the directory cannot be used.
    """
    run_dir = Path(run_dir)
    control = control or TrainingControl()
    learner = learner_for(config)
    if config.sim in GPU_SIMULATORS and config.num_envs > WITHOUT_GPU and not torch.cuda.is_available():
        raise UserError(
            f"sim {config.sim} with {config.num_envs} environments needs a CUDA GPU and torch finds none: "
            f"use sim mujoco with learner {learner.on_cpu} and num_envs 256"
        )
    if started_by_torchrun():
        learner.refuse_torchrun()
    task = load_task(config.task)
    learner.check(task)
    if config.camera is not None:
        config.camera.mount(load_robot(task.robot, task.variant))
        config.camera.control_steps(task.control_period)
    if is_main():
        prepare_run_directory(run_dir, config, resume=resume)
    ranks = join(on_gpu=config.sim != "mujoco" and torch.cuda.is_available())
    ranks.wait()
    if torch.cuda.is_available():
        # TF32: ten times the speed, and noise far below the gradient's.
        torch.set_float32_matmul_precision("high")
    environment = make_environment(
        task,
        config.sim,
        config.num_envs,
        seed=config.seed + SEED_STRIDE * ranks.rank,
        camera=config.camera,
        visualizer=config.visualizer,
    )
    env = Sb3VecEnv(environment, action_bound=learner.action_bound)
    control.environment = environment
    run = _Run(config, learner, run_dir, control, on_progress, ranks)
    try:
        checkpoint = latest_checkpoint(run_dir) if resume else None
        if checkpoint is not None:
            try:
                model = learner.load(checkpoint, env, environment.device)
            except Exception as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{checkpoint}: not a usable checkpoint: {reason}") from None
            for name in ("progress.csv", "evaluations.csv") if ranks.main else ():
                truncate_rows(run_dir / name, model.num_timesteps)
            run.restore(model.run_state)
            run.restore_levels(environment)
        else:
            model = learner.make_model(env)
            run.restore(None)
        model.set_logger(
            configure(str(run_dir / "tensorboard") if ranks.main else None, ["tensorboard"] * ranks.main)
        )
        learner.join(model, ranks)
        if not ranks.main:
            run.explore_differently(environment)
        remaining = config.steps - model.num_timesteps
        if remaining <= 0:
            raise UserError(
                f"{run_dir}: already trained for {model.num_timesteps} steps; ask for more with --steps"
            )
        interrupted = False
        try:
            model.learn(remaining, callback=run, log_interval=1, reset_num_timesteps=False)
        except KeyboardInterrupt:
            control.stop()
            interrupted = True
        run.finish()
        if interrupted:
            raise KeyboardInterrupt
        run.report("done")
    except BaseException:
        # The callback has no model until learning begins.
        if getattr(run, "model", None) is not None and not control.stopping:
            run.report("failed")
        raise
    finally:
        env.close()
    ranks.wait()
    ranks.leave()
    best = run_dir / "best" / "model.zip"
    return best if best.exists() else latest_checkpoint(run_dir) or best
