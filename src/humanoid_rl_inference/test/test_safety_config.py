"""The thresholds' file: complete, typed, and every number with a reason."""

from pathlib import Path

import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_inference.safety_config import load_safety_config

FILE = share_dir() / "config" / "safety" / "g1.yaml"


def test_vendor_thresholds_are_the_published_ones() -> None:
    config = load_safety_config(FILE)
    assert config.body.tilt == 1.0
    assert config.motors.winding_temperature == 120.0
    assert config.motors.casing_temperature == 85.0


def test_every_number_says_its_unit_and_reason() -> None:
    for line in FILE.read_text().splitlines():
        value, _, comment = line.partition("#")
        if value.strip() and not value.rstrip().endswith(":"):
            assert ";" in comment, f"no 'unit; reason' behind: {value.strip()}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tilt: 1.0", "tlt: 1.0", "unknown key 'body.tlt', did you mean 'tilt'"),
        ("tilt: 1.0", "tilt: upright", "body.tilt: expected a number"),
        ("tilt: 1.0", "tilt: -1.0", "body: tilt must be a positive number, found -1.0"),
        ("damping: 8.0", "damping: 0", "damping must be a positive number"),
        ("    vx: 1.0", "    vx: -1.0", "acceleration.vx must be a positive number"),
        ("  misses: 10", "  misses: 51", "misses .51. can never be reached in a window of 50"),
        ("  timeout: 0.5", "", "missing key 'command.timeout'"),
    ],
)
def test_wrong_threshold_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "safety.yaml"
    text = FILE.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_safety_config(path)
