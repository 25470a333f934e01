"""Typed form of config/safety/<robot>.yaml: every threshold and filter constant of the guard."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from humanoid_rl_core.typed_yaml import PositiveNumbers, load_dataclass, load_yaml


@dataclass(frozen=True)
class SensorLimits(PositiveNumbers):
    """How old (s) the newest sample may be, how far (s) its stamp may lie ahead, and | |quaternion| - 1 |."""

    joint_state_age: float
    imu_age: float
    motor_status_age: float
    future_stamp: float
    quaternion_norm: float


@dataclass(frozen=True)
class BodyLimits(PositiveNumbers):
    """Largest angle (rad) between the IMU's z axis and the vertical."""

    tilt: float


@dataclass(frozen=True)
class JointLimits(PositiveNumbers):
    """Fraction of the description's velocity limit, and overshoot (rad) beyond its position limits."""

    velocity_fraction: float
    overshoot: float


@dataclass(frozen=True)
class MotorLimits(PositiveNumbers):
    """Degrees Celsius."""

    winding_temperature: float
    casing_temperature: float


@dataclass(frozen=True)
class DeadlineLimits(PositiveNumbers):
    """Trip at this many late ticks among the last `window` ones."""

    misses: int
    window: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.misses > self.window:
            raise ValueError(f"misses ({self.misses}) can never be reached in a window of {self.window}")


@dataclass(frozen=True)
class CommandLimits(PositiveNumbers):
    """Seconds until a command counts as gone, and its largest change per second, by command name."""

    timeout: float
    acceleration: Mapping[str, float]


@dataclass(frozen=True)
class TargetLimits(PositiveNumbers):
    """Change of a joint target (rad/s), and fraction of the effort limit a target may ask for."""

    rate: float
    effort_fraction: float


@dataclass(frozen=True)
class StandingLimits(PositiveNumbers):
    """Peak joint speed (rad/s), shortest duration (s), and how near (rad) counts as arrived."""

    rate: float
    minimum_duration: float
    tolerance: float


@dataclass(frozen=True)
class BlendLimits(PositiveNumbers):
    """Seconds from one state's targets and gains to the next one's."""

    duration: float


@dataclass(frozen=True)
class SafetyConfig(PositiveNumbers):
    """All of config/safety/<robot>.yaml; damping in Nm s/rad while idle or faulted."""

    sensors: SensorLimits
    body: BodyLimits
    joints: JointLimits
    motors: MotorLimits
    deadlines: DeadlineLimits
    command: CommandLimits
    targets: TargetLimits
    standing: StandingLimits
    blend: BlendLimits
    damping: float


def load_safety_config(path: str | Path) -> SafetyConfig:
    """Read and check the thresholds.

    Raises:
        UserError: the file is missing or no valid YAML, a key is unknown or missing, a number not positive.
    """
    return load_dataclass(SafetyConfig, load_yaml(path), str(path))
