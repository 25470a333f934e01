"""What is called of Isaac Lab exists as it is called, also where only Isaac Sim would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import humanoid_rl_sim.simulators


def test_isaac_labs_own_types_agree():
    (folder,) = humanoid_rl_sim.simulators.__path__
    files = sorted(Path(folder).glob("isaac*.py"))
    assert len(files) >= 3
    check = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(check.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files), check.stderr
    assert [f"{each['file']}: {each['message']}" for each in report["generalDiagnostics"]] == []
