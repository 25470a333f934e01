"""Makes the pictures of the documentation from the running software: python docs/make_pictures.py [POLICY]

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

from humanoid_rl.browser import Browser
from humanoid_rl.deployment import LaunchProcess, Recorder, bring_up, confined
from humanoid_rl.operator_client import Operator
from humanoid_rl_core.errors import UserError

IMAGES = Path(__file__).resolve().parent / "images"
_CLOSE_NOTICES = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(b => b.click())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def picture_web_view(policy: str, path: Path, domain: int | None) -> None:
    """Deploys, stands up, runs, and takes the picture once the page shows the policy running."""
    port = free_port()
    arguments = {"policy": policy, "robot": "sim", "viewer": "web", "port": str(port), "auto_start": "false"}
    log = Path(tempfile.mkdtemp(prefix="pictures-")) / "launch.log"
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, log) as launch,
        Operator("pictures") as operator,
        Browser(width=1280, height=760) as browser,
    ):
        recorder = Recorder(operator, time.monotonic())

        def while_waiting() -> None:
            launch.check_alive()
            recorder.sample()

        operator.while_waiting = while_waiting
        bring_up(operator, recorder, print)
        browser.open(f"http://127.0.0.1:{port}")
        browser.wait_for(lambda: "STANDING" in browser.evaluate("document.body.innerText"), "the robot")
        operator.start()
        browser.wait_for(lambda: "RUNNING" in browser.evaluate("document.body.innerText"), "RUNNING")
        # The notice that there is no GPU belongs to the machine that takes the picture, not to the view.
        browser.evaluate(_CLOSE_NOTICES)
        recorder.record(3.0)
        picture = browser.screenshot()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    print(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the pictures of the documentation.")
    parser.add_argument("policy", nargs="?", default="", help="ONNX file; default: the policy that ships")
    parser.add_argument("--domain", type=int, help="DDS domain; default: ROS_DOMAIN_ID")
    options = parser.parse_args()
    try:
        picture_web_view(options.policy, IMAGES / "web_view.png", options.domain)
    except (UserError, TimeoutError) as error:
        print(f"make_pictures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
