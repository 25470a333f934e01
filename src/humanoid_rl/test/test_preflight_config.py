"""The thresholds of the preflight: there for every robot, and refused by name where they make no sense."""

from pathlib import Path

import pytest
from humanoid_rl.real_robot.preflight_config import (
    PreflightConfig,
    load_preflight_config,
    preflight_config_of,
)
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import known_robots


def test_thresholds_ship_for_every_robot_and_are_stricter_than_the_guard_s() -> None:
    for name in known_robots():
        assert isinstance(preflight_config_of(name), PreflightConfig)
    config = preflight_config_of("g1")
    assert config.motors.winding_temperature < 120.0 and config.motors.casing_temperature < 85.0
    assert config.imu.tilt < 1.0 and config.battery.state_of_charge >= 20.0


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("rate: 500.0", "rate: -1.0", "rate must be a positive number"),
        ("  window:", "  windows:", "unknown key 'link.windows', did you mean 'window'?"),
        ("192.168.123.0/24", "192.168.123.7/24", "has host bits set"),
        ("elbow: 1.2", "elbow: 0", "distance_of.elbow must be a positive number"),
        ("required: true", "required: maybe", "expected true or false"),
    ],
)
def test_impossible_threshold_is_refused_with_its_key(old: str, new: str, line: str, tmp_path: Path) -> None:
    text = (share_dir() / "config/preflight/g1.yaml").read_text()
    assert old in text
    changed = tmp_path / "g1.yaml"
    changed.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=r"g1\.yaml") as refused:
        load_preflight_config(changed)
    assert line in str(refused.value)
