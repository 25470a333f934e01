"""Makes the pictures of the documentation from the running software: python docs/make_pictures.py [POLICY]

../policies/NAME/curves.png: the learning curves of every policy that ships, from its record.
images/web_view.png: the browser view of a deployment on the simulated robot, through deploy.launch.py, the
policy running. POLICY is what deploy.launch.py takes; without it the one that ships.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from humanoid_rl.deployment import LaunchProcess, Recorder, bring_up, confined
from humanoid_rl.operator_client import Operator
from humanoid_rl.reports.report_plots import learning_curves
from humanoid_rl.views.browser import Browser
from humanoid_rl_core.errors import UserError

from humanoid_rl_interfaces.msg import PolicyStatus

IMAGES = Path(__file__).resolve().parent / "images"
POLICIES = IMAGES.parents[1] / "policies"
ATTEMPTS = 5
_CLOSE_NOTICES = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(b => b.click())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def picture_curves() -> None:
    """Draws what each shipped policy's training record holds."""
    for record in sorted(POLICIES.glob("*/progress.csv")):
        tables = []
        for name in ("progress.csv", "evaluations.csv"):
            table = np.genfromtxt(record.with_name(name), delimiter=",", names=True)
            tables.append({column: np.atleast_1d(table[column]) for column in table.dtype.names or ()})
        path = record.with_name("curves.png")
        path.write_bytes(learning_curves(*tables, kind="png").data)
        print(path)


def picture_web_view(policy: str, path: Path, domain: int | None) -> None:
    """Takes the picture of a deployment that runs, in as many attempts as a busy machine needs."""
    for attempt in range(1, ATTEMPTS + 1):
        print(f"web view, attempt {attempt} of {ATTEMPTS}")
        try:
            picture = running_deployment(policy, domain)
        except TimeoutError as error:
            print(error)
            continue
        if picture is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            print(path)
            return
    raise UserError("the policy did not keep running beside the browser: try again while the machine is idle")


def running_deployment(policy: str, domain: int | None) -> bytes | None:
    """PNG of the page while the policy runs; None when the safety rules stopped it before."""
    port = free_port()
    arguments = {"policy": policy, "robot": "sim", "viewer": "web", "port": str(port), "auto_start": "false"}
    log = Path(tempfile.mkdtemp(prefix="pictures-")) / "launch.log"
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, log) as launch,
        Operator("pictures") as operator,
        Browser(width=1280, height=760, one_core=True) as browser,
    ):
        recorder = Recorder(operator, time.monotonic())

        def while_waiting() -> None:
            launch.check_alive()
            recorder.sample()

        def running() -> bool:
            recorder.sample()
            return recorder.policy is not None and recorder.policy.state == PolicyStatus.RUNNING

        operator.while_waiting = while_waiting
        operator.wait_until(lambda: port_open(port), "no browser view", 60.0)
        # Loading the page keeps the machine busiest: before the robot stands on its own.
        browser.open(f"http://127.0.0.1:{port}")
        browser.wait_for(lambda: browser.centre_of("E-STOP"), "the panel")
        time.sleep(5.0)
        bring_up(operator, recorder, print)
        operator.start()
        # The notice that there is no GPU belongs to the machine that takes the picture, not to the view.
        browser.evaluate(_CLOSE_NOTICES)
        recorder.record(3.0)
        if not running():
            return None
        picture = browser.screenshot()
        return picture if running() else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the pictures of the documentation.")
    parser.add_argument("policy", nargs="?", default="", help="ONNX file; default: the policy that ships")
    parser.add_argument("--curves", action="store_true", help="the learning curves alone")
    parser.add_argument("--domain", type=int, help="DDS domain; default: ROS_DOMAIN_ID")
    options = parser.parse_args()
    picture_curves()
    if options.curves:
        return 0
    try:
        picture_web_view(options.policy, IMAGES / "web_view.png", options.domain)
    except (UserError, TimeoutError) as error:
        print(f"make_pictures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
