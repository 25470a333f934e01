"""The whole demo, small: interrupted while the robot is deployed, then gone on with to the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

PATIENCE = 240.0
WRITTEN = (
    "config.yaml", "progress.csv", "evaluations.csv", "policy.onnx", "evaluation.json", "deployment.json",
    "report.html",
)  # fmt: skip


def launch_processes(domain: int) -> list[str]:
    """Command lines of this user's processes that were started by a deployment in the domain."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        ours = f"ROS_DOMAIN_ID={domain}".encode() in environment
        if ours and any(word.endswith(("/robot_twin", "/embedded_host", "/policy_node")) for word in words):
            found.append(" ".join(words))
    return found


@pytest.mark.timeout(2 * PATIENCE)
def test_demo_survives_an_interruption_and_ends_with_a_report(
    tmp_path: Path, python_m_humanoid_rl: list[str], domain: int
) -> None:
    environment = {**os.environ, "HUMANOID_RL_RUNS": str(tmp_path), "ROS_DOMAIN_ID": str(domain)}
    command = [*python_m_humanoid_rl, "demo", "--quick", "--name", "mine"]
    run = tmp_path / "mine"

    first = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + PATIENCE
    while not launch_processes(domain):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60.0)
    assert first.returncode == 130, errors
    assert errors.splitlines()[-1] == "humanoid-rl: interrupted" and "Traceback" not in errors
    assert launch_processes(domain) == []
    assert not (run / "deployment.json").exists() and not (run / "report.html").exists()
    assert [path for path in run.rglob(".*") if path.is_file()] == []

    second = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 0, second.stdout + second.stderr
    assert "is trained already" in second.stdout
    assert str(run / "report.html") in second.stdout
    assert launch_processes(domain) == []
    for name in WRITTEN:
        assert (run / name).stat().st_size > 0, name
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert f"push of {evaluation['push_half_mps']:.2f} m/s over ROS 2" in second.stdout
    assert [path for path in run.rglob(".*") if path.is_file()] == []
