"""The benchmarks run and report what they promise; how fast this machine is, they leave to the reader."""

import json
import math
import subprocess
import sys
from pathlib import Path

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


def test_an_unknown_benchmark_or_duration_is_refused_in_one_line() -> None:
    for words in (["--only", "gpu"], ["--seconds", "0"], ["--seconds", "nan"]):
        done = subprocess.run(
            [sys.executable, str(RUN), *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "error: " in done.stderr.splitlines()[-1]
