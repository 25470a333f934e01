"""Typed configuration of a task; the YAML files are in config/task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.typed_yaml import load_dataclass, load_yaml

from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.tasks.terrain import TerrainConfig


@dataclass(frozen=True)
class Range:
    """Closed interval from which a value is drawn uniformly."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise UserError(f"range [{self.lower}, {self.upper}]: lower must not exceed upper")


@dataclass(frozen=True)
class ObservationTermConfig:
    """One term of the actor's observation."""

    name: str
    scale: float = 1.0
    noise: float = 0.0
    """Half-width of the uniform noise added to the raw sensor in training, in the sensor's unit."""


@dataclass(frozen=True)
class ObservationConfig:
    terms: tuple[ObservationTermConfig, ...]
    history: int = 1
    """Number of frames, oldest first."""


COMMAND_NAMES = ("vx", "vy", "yaw_rate")
"""Of the velocity command, by the names that a contract has for them: m/s, m/s, rad/s."""


@dataclass(frozen=True)
class CommandConfig:
    """Velocity command in the base's yaw frame."""

    vx: Range
    """m/s, forward."""
    vy: Range
    """m/s, left."""
    yaw_rate: Range
    """rad/s, counter-clockwise."""
    resampling_time: Range = Range(4.0, 8.0)
    """s between two draws."""
    standing_fraction: float = 0.1
    """Fraction of draws that are zero."""
    full_range_at: float = 0.0
    """Fraction of a training after which commands have their full ranges, growing linearly until then."""
    initial_fraction: float = 0.3
    """Fraction of the ranges, from the command nearest to zero, with which such a training starts."""

    def __post_init__(self) -> None:
        for name in ("full_range_at", "initial_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"command.{name} must be between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class ResetConfig:
    joint_noise: float = 0.1
    """rad, half-width around the default pose."""
    joint_vel_noise: float = 0.1
    """rad/s, half-width."""
    tilt_noise: float = 0.05
    """rad, half-width of initial roll and pitch."""
    base_velocity_noise: float = 0.1
    """m/s, half-width per horizontal axis."""


@dataclass(frozen=True)
class PushConfig:
    interval: Range
    """s between two pushes."""
    speed: Range
    """m/s added to the base in a random horizontal direction."""
    full_strength_at: float = 0.0
    """Fraction of a training after which pushes have their full speed, growing linearly from zero until then."""


@dataclass(frozen=True)
class LatencyConfig:
    action: Range = Range(0.0, 0.0)
    """s from the observation to the moment the new target acts, one draw per episode."""
    sensor_step_probability: float = 0.0
    """Chance that an episode's sensors are one control period old."""


@dataclass(frozen=True)
class RandomisationConfig:
    """Physical properties drawn once per environment."""

    friction: Range = Range(1.0, 1.0)
    payload: Range = Range(0.0, 0.0)
    """kg on the torso."""
    com_offset: Range = Range(0.0, 0.0)
    """m, each axis of the torso."""
    stiffness_scale: Range = Range(1.0, 1.0)
    damping_scale: Range = Range(1.0, 1.0)
    motor_strength: Range = Range(1.0, 1.0)
    armature_scale: Range = Range(1.0, 1.0)


@dataclass(frozen=True)
class TaskConfig:
    name: str
    description: str
    gains: str
    """Name of a gain set of the robot."""
    observation: ObservationConfig
    command: CommandConfig
    rewards: Mapping[str, Mapping[str, Any]]
    """Reward -> its `weight`, its parameters, and its `term` (tasks/rewards.py) where that is not its name."""
    terminations: Mapping[str, Mapping[str, Any]]
    """Termination term -> its named parameters (tasks/terminations.py)."""
    terrain: TerrainConfig | None = None
    """The ground; level without."""
    collision: Collision = "feet"
    """What collides in training: the soles with the ground; the robot also with itself; or all with all."""
    robot: str = "g1"
    variant: str = "rev_1_0"
    control_period: float = 0.02
    """s."""
    physics_timestep: float = 0.005
    """s."""
    episode_length: float = 10.0
    """s, after which an episode is truncated."""
    action_clip: float = 10.0
    """Largest absolute action."""
    action_scale: float = 0.25
    """Target offset per unit of action, as a fraction of effort limit / stiffness."""
    action_scale_factors: Mapping[str, float] = field(default_factory=dict)
    """Joint group -> further factor on its action scale; 0 takes the joints out of the policy's hands."""
    reset: ResetConfig = field(default_factory=ResetConfig)
    push: PushConfig | None = None
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    randomisation: RandomisationConfig = field(default_factory=RandomisationConfig)

    def __post_init__(self) -> None:
        for name, reward in self.rewards.items():
            if reward.get("term", name) == "self_collision" and self.collision == "feet":
                raise UserError(
                    f"task {self.name}: reward '{name}' (self_collision) never acts with collision: feet, where no "
                    "robot touches itself: set collision: self"
                )

    @property
    def decimation(self) -> int:
        """Physics steps per control period."""
        steps = round(self.control_period / self.physics_timestep)
        if steps < 1 or abs(steps * self.physics_timestep - self.control_period) > 1e-9:
            raise UserError(
                f"task {self.name}: control_period {self.control_period} s is not a multiple of "
                f"physics_timestep {self.physics_timestep} s"
            )
        return steps


def task_directory() -> Path:
    return share_dir() / "config" / "task"


def task_names() -> list[str]:
    """Names of the tasks that ship with the workspace."""
    return sorted(path.stem for path in task_directory().glob("*.yaml"))


def load_task(name: str) -> TaskConfig:
    """The task of that name, or of a YAML file's path.

    Raises:
        UserError: unknown task, key or value, naming the nearest valid one.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else task_directory() / f"{name}.yaml"
    if not path.is_file():
        known = task_names()
        raise UserError(f"unknown task '{name}'{nearest(name, known)}; tasks: {', '.join(known)}")
    return load_dataclass(TaskConfig, load_yaml(path), str(path))
