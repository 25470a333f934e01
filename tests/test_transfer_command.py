"""humanoid-rl transfer from the command line to the report, its exit code and its one line for each violation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from humanoid_rl_core.robot import load_robot

sys.path.insert(0, str(Path(__file__).parents[1] / "src" / "humanoid_rl_sim" / "test"))
from recorded_robot import record, write_bag

# Episodes of a whole suite; on two cores beside other work they take a minute.
pytestmark = pytest.mark.timeout(600)


def transfer(words: list[str], runs: Path, program: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HUMANOID_RL_RUNS": str(runs)}
    return subprocess.run(
        [*program, "transfer", *words], env=environment, capture_output=True, text=True, check=False
    )


def test_a_recorded_robot_takes_the_place_of_a_simulator(
    tmp_path: Path, python_m_humanoid_rl: list[str]
) -> None:
    bag = write_bag(tmp_path / "bag", record(load_robot()))
    words = ["--log", str(bag), "--sims", "mujoco"]
    done = transfer([*words, "--joint-gap", "0.02", "--name", "kept"], tmp_path, python_m_humanoid_rl)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "recorded robot, 5 windows of 0.5 s" in done.stdout
    assert f"report: {tmp_path / 'kept' / 'transfer.html'}" in done.stdout
    page = (tmp_path / "kept" / "transfer.html").read_text()
    assert "Beside the recorded robot" in page and "In each simulator" not in page
    result = json.loads((tmp_path / "kept" / "transfer.json").read_text())
    assert set(result["log"]["simulators"][0]["by_joint_rad"]) == set(load_robot().joint_names)

    done = transfer([*words, "--joint-gap", "1e-7", "--name", "violated"], tmp_path, python_m_humanoid_rl)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(result["log"]["simulators"][0]["by_joint_rad"])
    assert lines[0].startswith("mujoco: left_hip_pitch_joint differs from the recorded robot by")
    assert (tmp_path / "violated" / "transfer.html").is_file()


def test_a_policy_that_falls_ends_with_1_and_says_where(
    tmp_path: Path, baseline_policy: Path, python_m_humanoid_rl: list[str]
) -> None:
    words = [
        str(baseline_policy),
        "--task",
        "walk",
        "--sims",
        "mujoco",
        "--episodes",
        "36",
        "--name",
        "falls",
    ]
    done = transfer(words, tmp_path, python_m_humanoid_rl)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "mujoco: success 0.0% is below 90.0%\n"
    assert done.stdout.startswith("what to compare") and "\nmujoco      " in done.stdout
    page = (tmp_path / "falls" / "transfer.html").read_text()
    assert "success 0.0% is below 90.0%" in page and "1 violated" in page
    result = json.loads((tmp_path / "falls" / "transfer.json").read_text())
    assert result["simulators"][0]["success"] == 0.0 and result["violations"]
