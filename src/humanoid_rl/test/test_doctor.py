"""What the doctor finds where everything is, and where something is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from humanoid_rl import doctor


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "humanoid_rl", "doctor"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_built_workspace_is_complete() -> None:
    done = run()
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "everything needed is there"
    for subject in ("python", "torch", "mujoco", "onnxruntime", "ROS 2", "rmw", "launch", "colcon",
                    "rviz2", "controller_manager", "humanoid_rl", "shared files", "policies"):  # fmt: skip
        assert any(line[8:].startswith(f"{subject} ") for line in lines), subject


def test_unbuilt_workspace_is_told_with_the_remedy(tmp_path: Path) -> None:
    done = run(AMENT_PREFIX_PATH=str(tmp_path))
    assert done.returncode == 1
    missing = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
    assert any("unitree_hg" in line and "not built" in line and "make build" in line for line in missing)
    assert done.stdout.splitlines()[-1] == f"{len(missing)} missing"


def test_broken_middleware_is_told(tmp_path: Path) -> None:
    done = run(RMW_IMPLEMENTATION="rmw_nowhere_cpp")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line[8:].startswith("rmw ")]
    assert line.startswith("MISSING") and "unset RMW_IMPLEMENTATION" in line


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda distribution: None if distribution == "torch" else "1.0")
    findings = {finding.subject: finding for finding in doctor.check_python()}
    assert findings["torch"].state == "missing" and "make build" in str(findings["torch"])
    assert findings["numpy"].state == "ok"


def test_optional_things_are_no_failure() -> None:
    assert all(
        finding.state != "missing" for finding in doctor.check_gpu()
    )  # a machine without a GPU trains on its CPU
