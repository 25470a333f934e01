"""tools/environment.sh says where Isaac Lab is exactly where tools/isaac runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize("finished", [False, True])
def test_an_environment_of_isaac_lab_counts_once_it_is_finished(finished: bool, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for name in ("environment.sh", "isaac"):
        shutil.copy(TOOLS / name, tmp_path / "tools" / name)
    (tmp_path / ".venv-isaac").mkdir()
    if finished:
        (tmp_path / ".venv-isaac" / ".mujoco").touch()

    environment = {key: value for key, value in os.environ.items() if key != "HUMANOID_RL_ISAAC"}
    script = f"source {tmp_path}/tools/environment.sh; echo ${{HUMANOID_RL_ISAAC:-none}}"
    told = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    runner = subprocess.run([tmp_path / "tools" / "isaac", "true"], capture_output=True, check=False)
    assert told == (str(tmp_path / "tools" / "isaac") if finished else "none")
    assert (runner.returncode == 0) == finished
