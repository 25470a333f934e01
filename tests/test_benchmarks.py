"""The benchmarks run and report what they promise; how fast this machine is, they leave to the reader."""

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"


def test_the_simulator_benchmark_reports_a_finite_positive_ratio(tmp_path: Path) -> None:
    output = tmp_path / "results" / "figures.json"
    words = [sys.executable, str(RUN), "--only", "simulator", "--seconds", "1", "--output", str(output)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "environment / bare" in done.stdout
    figures = json.loads(output.read_text())
    assert set(figures) == {"machine", "simulator"}
    simulator = figures["simulator"]
    names = {
        "bare_steps_per_second",
        "environment_steps_per_second",
        "fraction",
        "fraction_min",
        "fraction_max",
    }
    assert set(simulator) == names | {"num_envs", "load_1min_before"}
    assert all(math.isfinite(simulator[name]) and simulator[name] > 0.0 for name in names)


def test_an_unknown_benchmark_duration_or_launch_argument_is_refused_in_one_line() -> None:
    for words in (
        ["--only", "gpu"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--only", "simulator", "host:=embedded"],
    ):
        done = subprocess.run(
            [sys.executable, str(RUN), *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "error: " in done.stderr.splitlines()[-1]


def test_launch_arguments_of_the_deployment_are_checked_before_anything_is_measured() -> None:
    words = [sys.executable, str(RUN), "--only", "deployment", "hst:=embedded"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmarks: deploy.launch.py has no argument 'hst', did you mean 'host'?")


def test_figures_of_the_wire_are_those_of_the_times_it_was_written_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(RUN.parent)
    wire_figures = importlib.import_module("control_timing").wire_figures
    millisecond = 1_000_000
    states = np.arange(0, 1000, 2) * millisecond
    commands = states + millisecond // 2
    commands[100] += millisecond  # 1 ms late, and so is the period before it; the one after it is short
    numbers = np.arange(500)
    heard = numbers != 300  # one that the listener lost, of both
    # The first LowCmd came before any LowState that was heard, the last one has no LowState after it.
    figures = wire_figures(
        (states[heard][1:], numbers[heard][1:]),
        (commands[heard], numbers[heard]),
    )
    assert figures["low_cmds"] == 499
    assert figures["low_cmd_period_error_s"] == pytest.approx({"p50": 0.0, "p99": 0.0, "max": 0.001})
    assert figures["low_state_to_low_cmd_s"] == pytest.approx({"p50": 0.0005, "p99": 0.0005, "max": 0.0015})


SEVERAL_GPUS = Path(__file__).parents[1] / "benchmarks" / "several_gpus.py"


def several_gpus(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SEVERAL_GPUS), *words], capture_output=True, text=True, timeout=250, check=False
    )


def test_several_processes_are_measured_against_one() -> None:
    done = several_gpus(
        "--gpus", "2", "--envs", "4", "--updates", "2", "sim=mujoco", "ppo.rollout_steps=4", "ppo.minibatches=1",
        "ppo.epochs=1", "ppo.hidden_sizes=[8]", "ppo.critic_hidden_sizes=[8]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(
        r"1 process: +([\d,]+) steps/s\n2 processes: ([\d,]+) steps/s\n2 / 1: ([\d.]+), ", done.stdout
    )
    assert found is not None, done.stdout
    alone, several, ratio = (float(word.replace(",", "")) for word in found.groups())
    assert alone > 0.0 and abs(ratio - several / alone) < 0.1


def test_several_gpus_that_are_not_there_or_make_no_sense_are_refused_in_one_line() -> None:
    for words, reason in (
        (["--gpus", "99"], r"several_gpus: --gpus 99 needs that many CUDA GPUs, torch finds \d+"),
        (["--gpus", "1"], "error: --gpus is 1, expected at least 2"),
        (["--updates", "0"], "error: --updates is 0, expected at least 1"),
        (["--envs", "0"], "several_gpus: .*num_envs must be at least 1, got 0"),
        (["sim"], "several_gpus: 'sim' is not of the form key=value"),
        (["siim=mujoco"], "several_gpus: .*siim.*sim"),
        (["algorithm=sac"], "several_gpus: algorithm=sac: only ppo learns in several processes"),
        (["steps=100"], "several_gpus: 'steps' is set here: use --updates"),
        (["num_envs=16"], "several_gpus: 'num_envs' is set here: use --envs"),
        (["learner=sb3"], "several_gpus: 'learner' is set here: leave it out"),
        (["task=rough"], "several_gpus: 'task' is set here: leave it out"),
    ):
        done = several_gpus(*words)
        assert done.returncode == 2 and re.search(reason, done.stderr.splitlines()[-1]), done.stderr
        assert "Traceback" not in done.stderr
