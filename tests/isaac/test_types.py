"""What is called of Isaac Lab exists as it is called, also where only Isaac Sim would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import humanoid_rl_sim


def test_isaac_labs_own_types_agree():
    (package,) = humanoid_rl_sim.__path__
    files = sorted((*Path(package).glob("*/isaac*.py"), *Path(package).glob("isaac_lab/*.py")))
    assert {"isaac.py", "isaac_scene.py", "isaac_session.py", "isaac_body.py", "configuration.py"} <= {
        file.name for file in files
    }
    check = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(check.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files), check.stderr
    assert [f"{each['file']}: {each['message']}" for each in report["generalDiagnostics"]] == []
