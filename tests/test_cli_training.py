"""A training from the command line that is interrupted, and gone on with."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

SMALL = ["--num-envs", "16", "ppo.rollout_steps=8", "evaluation_episodes=4", "checkpoint_interval=512",
         "evaluation_interval=1024"]  # fmt: skip
PATIENCE = 120.0


def start(words: list[str], runs: Path, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *words],
        env={**os.environ, "HUMANOID_RL_RUNS": str(runs)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)


def leftovers(runs: Path) -> list[Path]:
    """Temporary files, and archives that are not whole."""
    temporary = [path for path in runs.rglob(".*") if path.is_file()]
    broken = [path for path in runs.rglob("*.zip") if zipfile.ZipFile(path).testzip() is not None]
    return temporary + broken


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_training_leaves_whole_files_and_can_be_gone_on_with(
    number: signal.Signals, code: int, tmp_path: Path, python_m_humanoid_rl: list[str]
) -> None:
    words = ["train", "stand", "--name", "mine", "--steps", "1000000", *SMALL]
    process = start(words, tmp_path, python_m_humanoid_rl)
    wait_for(tmp_path / "mine" / "checkpoints" / "step_*.zip", process)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1] == f"humanoid-rl: {'interrupted' if code == 130 else 'terminated'}"
    assert "Traceback" not in errors
    assert leftovers(tmp_path) == []

    last = max(int(path.stem.partition("_")[2]) for path in (tmp_path / "mine/checkpoints").glob("*.zip"))
    goal = last + 1024
    words = ["train", "--resume", "--name", "mine", "--steps", str(goal)]
    process = start(words, tmp_path, python_m_humanoid_rl)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "humanoid-rl export --run mine" in output
    with (tmp_path / "mine" / "progress.csv").open(newline="") as file:
        steps = [int(row["steps"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps)) and steps[-1] >= goal
    assert leftovers(tmp_path) == []


def test_interrupt_during_start_up_is_one_line(tmp_path: Path, python_m_humanoid_rl: list[str]) -> None:
    process = start(["train", "stand", "--name", "mine", *SMALL], tmp_path, python_m_humanoid_rl)
    while "torch" not in Path(f"/proc/{process.pid}/maps").read_text():  # amid the imports
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "humanoid-rl: interrupted" and "Traceback" not in errors
    assert leftovers(tmp_path) == []


def test_trained_run_is_exported_and_evaluated(tmp_path: Path, python_m_humanoid_rl: list[str]) -> None:
    def run(*words: str) -> str:
        process = start(list(words), tmp_path, python_m_humanoid_rl)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return output

    run("train", "stand", "--name", "mine", "--steps", "512", *SMALL)
    run("export", "--run", "mine")
    assert (tmp_path / "mine" / "policy.onnx").is_file()
    elsewhere = tmp_path / "elsewhere.onnx"
    checkpoint = next((tmp_path / "mine" / "checkpoints").glob("*.zip"))
    assert str(elsewhere) in run(
        "export", "--run", "mine", "--checkpoint", str(checkpoint), "--output", str(elsewhere)
    )
    output = run("evaluate", "--run", "mine", "--episodes", "4", "--seed", "3")
    assert "survived with the policy" in output and "without" in output
    assert (tmp_path / "mine" / "evaluation.json").is_file()
