"""Typed configuration of a training run; the YAML files are in config/train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.typed_yaml import load_dataclass, load_yaml, parse_yaml

from humanoid_rl_sim.simulators.camera import CameraConfig
from humanoid_rl_sim.simulators.registry import SIMULATORS, check_camera, check_visualizer
from humanoid_rl_sim.tasks.configuration import task_names


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation (Schulman et al. 2017), in stable-baselines3's terms."""

    rollout_steps: int = 24
    """Control steps per environment between two updates."""
    minibatches: int = 4
    epochs: int = 4
    learning_rate: float = 5.0e-4
    """At the start; then adapted so that an update moves the policy by about `desired_kl`."""
    minimum_learning_rate: float = 1.0e-5
    maximum_learning_rate: float = 2.0e-3
    """At the start of the run; falls linearly to the minimum at its end, where small steps average the noise out."""
    desired_kl: float = 0.01
    """KL divergence between the policies before and after an update; halved and doubled bounds steer the rate."""
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_coefficient: float = 0.002
    value_coefficient: float = 1.0
    max_gradient_norm: float = 1.0
    hidden_sizes: tuple[int, ...] = (256, 128)
    """Hidden layers of the actor; none makes it linear."""
    critic_hidden_sizes: tuple[int, ...] = (256, 128)
    """Hidden layers of the critic."""
    state_dependent_exploration: bool = False
    """Smooth exploration noise that depends on the state (Raffin et al. 2021) instead of white noise."""
    normalise_observations: bool = True
    """Whether the actor's observation is normalised by running statistics, or by the task's scales alone."""
    initial_std: float = 0.5
    """Standard deviation of the untrained policy's actions."""
    symmetry_coefficient: float = 0.0
    """Weight of the mirror loss (Yu, Turk, Liu 2018, "Learning symmetric and low-energy locomotion"): the mean squared
    difference, in units of action, between the mean action in the mirror image of what is seen, and the mirror image
    of the mean action. 0 leaves it out."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.symmetry_coefficient < float("inf"):
            raise UserError(f"ppo.symmetry_coefficient must not be negative, got {self.symmetry_coefficient}")


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic (Haarnoja et al. 2018) with thousands of environments, in stable-baselines3's terms.

    Batch, discount, warm-up and the small first entropy coefficient are those with which FastSAC (Seo et al. 2025)
    trains humanoids; so is the target entropy. Fewer and gentler updates than there, because the critics here are
    stable-baselines3's (mean squared error) and not distributional.
    """

    action_bound: float = 2.0
    """The policy acts within +-action_bound, in units of action; at most the task's action_clip."""
    learning_rate: float = 3.0e-4
    """Of actor, critics and entropy coefficient."""
    batch_size: int = 8192
    """Transitions in a gradient step."""
    replay_capacity: int = 2_000_000
    """Transitions kept, over all environments; each takes two observations of actor and critic on the
    device: about 1 kB for `stand` and `walk`, 4 kB for `rough` (2 x 480 numbers, 8 GB in all)."""
    gradient_steps: int = 4
    """Gradient steps after every control step."""
    warm_up_steps: int = 10
    """Control steps that must be in the replay before a gradient step, at the start and after a resume."""
    log_steps: int = 50
    """Control steps between two rows of progress.csv, after which the observation statistics are updated too."""
    gamma: float = 0.97
    tau: float = 0.02
    """Share of the critics that their targets take over in a gradient step."""
    initial_entropy_coefficient: float = 0.001
    """Small, because rewards come per control period: a return is a few units."""
    target_entropy: float = 0.0
    """nats per joint, of actions scaled to [-1, 1] (even over all of it would be 0.69); steers the coefficient."""
    initial_std: float = 0.5
    """Standard deviation of the untrained policy before the tanh."""
    hidden_sizes: tuple[int, ...] = (512, 256, 128)
    """Hidden layers of the actor; none makes it linear."""
    critic_hidden_sizes: tuple[int, ...] = (512, 256, 128)
    """Hidden layers of each of the two critics."""
    normalise_observations: bool = True
    """Whether the actor's observation is normalised by running statistics, or by the task's scales alone."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "replay_capacity", "gradient_steps", "warm_up_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"sac.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("action_bound", "learning_rate", "initial_entropy_coefficient", "initial_std"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"sac.{name} must be above zero, got {getattr(self, name)}")
        for name in ("gamma", "tau"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise UserError(f"sac.{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if self.batch_size > self.replay_capacity:
            raise UserError(
                f"sac.batch_size = {self.batch_size} is larger than sac.replay_capacity = {self.replay_capacity}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    task: str
    sim: str = "mujoco"
    algorithm: Literal["ppo", "sac"] = "ppo"
    """ppo learns from the last rollout, sac from a replay of all of them."""
    learner: Literal["sb3", "device"] = "sb3"
    """sb3: stable-baselines3's own loops, over NumPy (PPO only). device: the same with everything on the simulator's
    device."""
    num_envs: int = 256
    steps: int = 2_000_000
    """Environment steps in all, over all environments."""
    seed: int = 1
    checkpoint_interval: int = 500_000
    """Environment steps between two checkpoints."""
    evaluation_interval: int = 500_000
    """Environment steps between two evaluations; the best model is kept by them."""
    evaluation_episodes: int = 64
    camera: CameraConfig | None = None
    """Renders what the robots see, for viewers and for learners of one's own: these policies do not look at it."""
    visualizer: str = ""
    """One of Isaac Lab's (`registry.VISUALIZERS`) to watch the training by."""
    ppo: PpoConfig = field(default_factory=PpoConfig)
    """Read where the algorithm is ppo."""
    sac: SacConfig = field(default_factory=SacConfig)
    """Read where the algorithm is sac."""

    def __post_init__(self) -> None:
        for name in (
            "num_envs",
            "steps",
            "checkpoint_interval",
            "evaluation_interval",
            "evaluation_episodes",
        ):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.algorithm == "sac":
            self._check_sac()
        else:
            self._check_ppo()
        known = task_names()
        if not self.task.endswith((".yaml", ".yml")) and self.task not in known:
            raise UserError(
                f"unknown task '{self.task}'{nearest(self.task, known)}; tasks: {', '.join(known)}"
            )
        if self.sim not in SIMULATORS:
            raise UserError(
                f"unknown simulator '{self.sim}'{nearest(self.sim, SIMULATORS)}; simulators: {', '.join(SIMULATORS)}"
            )
        if self.camera is not None:
            check_camera(self.sim)
        check_visualizer(self.sim, self.visualizer)

    def _check_ppo(self) -> None:
        if self.num_envs * self.ppo.rollout_steps % self.ppo.minibatches:
            raise UserError(
                f"num_envs x rollout_steps = {self.num_envs * self.ppo.rollout_steps} is not a multiple of "
                f"minibatches = {self.ppo.minibatches}"
            )
        if self.learner == "device" and self.ppo.state_dependent_exploration:
            raise UserError("ppo.state_dependent_exploration needs learner sb3, not device")
        if self.learner == "sb3" and self.ppo.symmetry_coefficient > 0.0:
            raise UserError("ppo.symmetry_coefficient needs learner device, not sb3")

    def _check_sac(self) -> None:
        if self.learner != "device":
            raise UserError(f"algorithm sac needs learner device, not {self.learner}")
        rows = self.sac.replay_capacity // self.num_envs
        if rows < 1:
            raise UserError(
                f"sac.replay_capacity = {self.sac.replay_capacity} does not hold one control step of num_envs = "
                f"{self.num_envs}"
            )
        if rows < self.sac.warm_up_steps:
            raise UserError(
                f"sac.replay_capacity = {self.sac.replay_capacity} holds {rows} control steps of num_envs = "
                f"{self.num_envs}, fewer than sac.warm_up_steps = {self.sac.warm_up_steps}"
            )


def load_training_config(task: str, overrides: Mapping[str, str] | None = None) -> TrainingConfig:
    """config/train/<task>.yaml (config/train/default.yaml for other tasks) with `overrides` on top.

    Args:
        task: task name, or the path of a task's YAML file.
        overrides: key -> text; keys of nested values are dotted (`ppo.learning_rate`).

    Raises:
        UserError: unknown task, key or value, naming the nearest valid one.
    """
    directory = share_dir() / "config" / "train"
    path = directory / f"{Path(task).stem}.yaml"
    values: dict[str, Any] = dict(load_yaml(path if path.is_file() else directory / "default.yaml"))
    values["task"] = task
    for key, text in (overrides or {}).items():
        _set(values, key.split("."), parse_yaml(f"value: {text}", key)["value"], key)
    if values.get("algorithm") == "sac":
        values.setdefault("learner", "device")  # the only one there is
    return load_dataclass(TrainingConfig, values, "training configuration")


def _set(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    *parents, last = path
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UserError(
                f"training configuration: '{key}' goes through '{parent}', which is a single value"
            )
        values = child
    values[last] = value


def to_yaml(config: TrainingConfig) -> str:
    """The configuration as YAML that `from_yaml` reads back."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def from_yaml(path: Path) -> TrainingConfig:
    """Read what `to_yaml` wrote.

    Raises:
        UserError: the file is missing or does not hold a training configuration.
    """
    return load_dataclass(TrainingConfig, load_yaml(path), str(path))


def resumed_config(stored: TrainingConfig, overrides: Mapping[str, str]) -> TrainingConfig:
    """A run's own configuration, with more steps if they are asked for.

    Args:
        stored: the configuration in the run's config.yaml.
        overrides: key -> text, as for `load_training_config`.

    Raises:
        UserError: anything but the steps is to change, which would make it another run.
    """
    changed = [
        key for key, value in overrides.items() if key != "steps" and value != str(getattr(stored, key, ""))
    ]
    if changed:
        raise UserError(f"a run is resumed with more steps only, not with another {', '.join(changed)}")
    if "steps" in overrides:
        if not overrides["steps"].isdecimal():
            raise UserError(f"steps={overrides['steps']} is not a whole number")
        return dataclasses.replace(stored, steps=int(overrides["steps"]))
    return stored


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
