"""robot:=real with the robot on another machine: two network namespaces with a cable between them, domain 0."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from humanoid_rl.real_robot.robot_checks import CONFIRM_WORD

from .bench import RealLaunch

SCRIPT = Path(__file__).with_name("two_machines.sh")
NAMESPACES = [
    "unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child",
]  # fmt: skip


def permitted() -> bool:
    """Whether this system lets us have network namespaces and a cable between them."""
    if not all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip")):
        return False
    probe = [*NAMESPACES, "ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=20).returncode == 0


@pytest.mark.skipif(not permitted(), reason="no network namespaces here")
def test_robot_is_found_by_multicast_on_its_interface_alone_and_in_its_domain(tmp_path: Path) -> None:
    robot_log = tmp_path / "robot.log"
    arguments = {"interface": "cable0", "confirm": CONFIRM_WORD, "policy": "g1_stand"}
    prefix = [*NAMESPACES, str(SCRIPT), str(robot_log)]
    with RealLaunch(arguments, tmp_path / "launch.log", prefix=prefix) as launch:
        launch.wait_for("[wireless_remote-")
        assert (
            "on cable0 (192.168.123.222), domain 0 passed" in launch.text() and "warning" not in launch.text()
        )
        deadline = time.monotonic() + 30.0
        report: dict[str, object] = {}
        while not report.get("accepted"):
            assert time.monotonic() < deadline, launch.text() + robot_log.read_text()
            time.sleep(0.5)
            report = json.loads(robot_log.read_text().splitlines()[-2])
        assert report["mode"] == "" and report["rejected"] == 0
    assert not os.path.exists(f"/proc/{launch.process.pid}")
