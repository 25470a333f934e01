"""Typed form of config/preflight/<robot>.yaml: the thresholds of the preflight of a real robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.typed_yaml import PositiveNumbers, load_dataclass, load_yaml


@dataclass(frozen=True)
class LinkLimits(PositiveNumbers):
    """Seconds until the first LowState, seconds listened; Hz, and the fraction that the rate may be off."""

    first_state: float
    window: float
    rate: float
    rate_tolerance: float


@dataclass(frozen=True)
class ImuLimits(PositiveNumbers):
    """| |quaternion| - 1 |, m/s^2 off gravity, rad from upright, rad/s."""

    quaternion_norm: float
    gravity: float
    tilt: float
    rate: float


@dataclass(frozen=True)
class JointLimits(PositiveNumbers):
    """rad beyond a position limit, rad/s, rad from the poses expected; `distance_of` by kind of joint."""

    beyond_limit: float
    speed: float
    distance: float
    distance_of: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MotorLimits(PositiveNumbers):
    """Degrees Celsius; joints whose error flags do not count."""

    winding_temperature: float
    casing_temperature: float
    flag_ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatteryLimits(PositiveNumbers):
    """Whether a battery has to report, seconds to wait for it, percent."""

    required: bool
    timeout: float
    state_of_charge: float


@dataclass(frozen=True)
class SwitcherLimits(PositiveNumbers):
    """Seconds for an answer, how often to release, seconds between."""

    timeout: float
    attempts: int
    pause: float


@dataclass(frozen=True)
class ReleasedLimits(PositiveNumbers):
    """Seconds without a foreign LowCmd, and seconds to wait for that and for a robot at rest."""

    quiet: float
    timeout: float


@dataclass(frozen=True)
class PreflightConfig(PositiveNumbers):
    """All of config/preflight/<robot>.yaml; `network` is where the robot's addresses are."""

    network: str
    link: LinkLimits
    imu: ImuLimits
    joints: JointLimits
    motors: MotorLimits
    battery: BatteryLimits
    motion_switcher: SwitcherLimits
    released: ReleasedLimits

    def __post_init__(self) -> None:
        super().__post_init__()
        IPv4Network(self.network)  # a ValueError of its own for what is no network

    @property
    def robot_network(self) -> IPv4Network:
        """`network`, parsed."""
        return IPv4Network(self.network)


def load_preflight_config(path: str | Path) -> PreflightConfig:
    """Read and check the thresholds. Raises UserError for a missing file, unknown key or impossible value."""
    return load_dataclass(PreflightConfig, load_yaml(path), str(path))


def preflight_config_of(robot: str) -> PreflightConfig:
    """The thresholds that ship for a robot. Raises UserError where there are none."""
    folder = share_dir() / "config" / "preflight"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if robot not in known:
        raise UserError(
            f"robot:=real is not possible with model:={robot}{nearest(robot, known)}: "
            f"there are preflight thresholds for {', '.join(known)} (config/preflight)"
        )
    return load_preflight_config(folder / f"{robot}.yaml")
