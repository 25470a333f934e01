"""The browser view as a user meets it: the node as a process, a robot on ROS, a page in headless Chromium."""

import io
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Point
from humanoid_rl.views.browser import Browser, find_browser
from humanoid_rl.views.web_panel import PanelState, Training, status_html, training_html
from humanoid_rl.views.web_view import read_markers
from PIL import Image
from visualization_msgs.msg import Marker as MarkerMessage
from visualization_msgs.msg import MarkerArray

from humanoid_rl_core import rotation

ROBOT = Path(__file__).with_name("moving_robot.py")
PATIENCE = 120.0  # s; a browser that draws on the CPU of a busy machine takes its time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A child whose output is kept, on a ROS domain of its own, ended at the end of the test."""

    def __init__(self, *command: str, domain: int) -> None:
        environment = os.environ | {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip() for line in self.process.stdout)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while not any(text in line for line in list(self.lines)):
            assert time.monotonic() < deadline, f"no '{text}' in:\n{self.output}"
            assert self.process.poll() is None or self._reader.is_alive(), self.output
            time.sleep(0.05)

    def end(self, sign: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(sign)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=10)
        return code


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator:
    """Starts processes of one test on one domain."""
    children: list[Process] = []
    # Tests of several checkouts may run at once: the process tells them apart.
    domain = 100 + (os.getpid() + len(request.node.name)) % 100

    def begin(*command: str) -> Process:
        children.append(Process(*command, domain=domain))
        return children[-1]

    yield begin
    for child in children:
        if child.process.poll() is None:
            child.end()


def view(start, port: int) -> Process:
    node = start("-m", "humanoid_rl.views.web_view", "--ros-args", "-p", f"port:={port}")
    node.wait_for(f"web view on http://127.0.0.1:{port}")
    return node


@pytest.fixture
def browser() -> Iterator[Browser]:
    # Everywhere else a missing browser is an error: `make test` installs it.
    if find_browser() is None and platform.freedesktop_os_release()["ID"] == "ubuntu":
        pytest.skip(
            "Ubuntu has Chromium as a snap only, which cannot be driven: install google-chrome to run this"
        )
    with Browser(width=1000, height=700, timeout=PATIENCE) as opened:
        yield opened


def picture(browser: Browser) -> np.ndarray:
    """The part of the window with nothing but the scene: [H, W, 3] of 0..255."""
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    return np.asarray(image, dtype=float)[180:, :640]


def see(browser: Browser, text: str) -> None:
    browser.wait_for(lambda: text in browser.evaluate("document.body.innerText"), f"'{text}' on the page")


@pytest.mark.timeout(600)
def test_the_page_shows_a_moving_robot_and_its_emergency_stop_reaches_both_services(start, browser) -> None:
    robot = start(str(ROBOT), "--training")
    robot.wait_for("ready")
    port = free_port()
    node = view(start, port)
    browser.open(f"http://127.0.0.1:{port}")
    for text in ("RUNNING", "ACTIVE", "g1_walk", "61 °C", "1.05 / 1.71 ms", "ground truth", "1.35M of 3.00M"):
        see(browser, text)

    # Not blank: the robot is white on black joints before a light floor.
    first = browser.wait_for(lambda: (shot := picture(browser)).std() > 15 and [shot], "the robot")[0]
    assert (first.mean(axis=2) < 70).mean() > 0.004, "no dark joints in the picture"

    pressed = time.monotonic()
    browser.click("E-STOP")
    robot.wait_for("called /host/estop", timeout=20)
    robot.wait_for("called /policy/estop", timeout=20)
    assert time.monotonic() - pressed < 20
    for text in ("FAULT", "DAMPING", "e-stop service called", "E-STOP: host: damping"):
        see(browser, text)

    browser.click("reset", "button, label, span")
    robot.wait_for("called /policy/reset", timeout=30)
    see(browser, "RUNNING")
    browser.click("push")
    robot.wait_for("called /twin/push", timeout=30)
    # From the front at 0.6 m/s, against the robot's heading of 0.25 rad.
    assert "called /twin/push -0.58 -0.15" in robot.output
    assert node.end(signal.SIGINT) == 0
    assert "Traceback" not in node.output


@pytest.mark.timeout(600)
def test_the_emergency_stop_works_with_a_dead_policy_node_and_without_ground_truth(start, browser) -> None:
    robot = start(str(ROBOT), "--no-policy", "--no-odom")
    robot.wait_for("ready")
    port = free_port()
    node = view(start, port)
    browser.open(f"http://127.0.0.1:{port}")
    see(browser, "no policy node")
    see(browser, "IMU, feet on the floor")
    # No marker and no arrow here: what changes in the picture is the robot.
    first = picture(browser)
    browser.wait_for(lambda: np.abs(picture(browser) - first).mean() > 0.3, "the robot to move", 60.0)
    browser.click("E-STOP")
    robot.wait_for("called /host/estop", timeout=20)
    see(browser, "E-STOP: host: damping")
    see(browser, "E-STOP: policy node not found")
    browser.click("stand", "button, label, span")
    see(browser, "stand: nobody offers /policy/stand")
    assert node.end(signal.SIGTERM) == 0
    assert "Traceback" not in node.output


def type_number(browser: Browser, label: str, value: str) -> None:
    """Types into the number field beside a slider."""
    browser.evaluate(
        "(() => { const rows = [...document.querySelectorAll('label')].filter(e => e.textContent.trim() === "
        f"'{label}'); let row = rows[0];"
        " while (!row.querySelector('input[type=text]')) row = row.parentElement;"
        " const field = row.querySelector('input[type=text]'); field.focus(); field.select(); })()"
    )
    browser.call("Input.insertText", text=value)
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)


@pytest.mark.timeout(600)
def test_sliders_command_the_robot_only_when_told_to_and_never_after_the_page_is_closed(start) -> None:
    robot = start(str(ROBOT))
    robot.wait_for("ready")
    port = free_port()
    node = view(start, port)
    with Browser(width=1000, height=900, timeout=PATIENCE) as browser:
        browser.open(f"http://127.0.0.1:{port}")
        see(browser, "RUNNING")
        type_number(browser, "vx m/s", "0.4")
        time.sleep(2.0)
        assert "cmd_vel" not in robot.output
        browser.click("send commands", "label")
        robot.wait_for("cmd_vel 0.40 0.00 0.00", timeout=30)
        type_number(browser, "yaw rad/s", "-0.5")
        robot.wait_for("cmd_vel 0.40 0.00 -0.50", timeout=30)
    deadline = time.monotonic() + 30
    while robot.lines[-1] != "cmd_vel 0.00 0.00 0.00":
        assert time.monotonic() < deadline, robot.output
        time.sleep(0.1)
    assert node.end(signal.SIGINT) == 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_costs_little_while_nobody_looks(start) -> None:
    start(str(ROBOT), "--rate", "500").wait_for("ready")
    node = view(start, free_port())
    time.sleep(3.0)
    before, began = cpu_seconds(node.process.pid), time.monotonic()
    time.sleep(6.0)
    share = (cpu_seconds(node.process.pid) - before) / (time.monotonic() - began)
    assert share < 0.15, f"{share:.0%} of a core without a browser"


def test_a_port_in_use_is_named_with_the_remedy(start) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        node = start("-m", "humanoid_rl.views.web_view", "--ros-args", "-p", f"port:={port}")
        assert node.process.wait(timeout=PATIENCE) == 2
        node.wait_for(f"port {port} on 127.0.0.1 is in use")
    assert f"port:={port + 1}" in node.output
    assert len(node.lines) == 1, node.output


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("host:=192.0.2.1", "cannot listen on host '192.0.2.1'"),
        ("port:=99999", "port is 99999, expected 1..65535"),
        ("robot:=g2", "g2"),
        ("rate:=0.0", "rate is 0.0"),
        ("command_limits:=[1.0, 2.0]", "command_limits needs three numbers"),
        ("port:=eighty", "port"),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(start, parameter: str, said: str) -> None:
    node = start("-m", "humanoid_rl.views.web_view", "--ros-args", "-p", parameter)
    assert node.process.wait(timeout=PATIENCE) == 2
    node.wait_for(said)
    assert len(node.lines) == 1, node.output


def test_ending_it_at_once_leaves_no_trace(start) -> None:
    node = view(start, free_port())
    assert node.end(signal.SIGTERM) == 0
    assert "Traceback" not in node.output


# -- what the panel says ----------------------------------------------------------------------------------


def test_without_any_message_the_panel_says_so() -> None:
    text = status_html(PanelState())
    assert "no policy node" in text and "no host" in text and "none yet" in text


def test_stale_joint_states_are_marked() -> None:
    assert "stale 4 s" in status_html(PanelState(joint_state_age=4.2))
    assert "stale" not in status_html(PanelState(joint_state_age=0.1))


def test_text_from_messages_cannot_become_markup() -> None:
    text = status_html(PanelState(policy_state="FAULT", policy_cause="<img src=x onerror=alert(1)>"))
    assert "<img" not in text and "&lt;img" in text


def test_a_training_without_an_end_in_sight_is_shown_without_one() -> None:
    training = Training("starting", "runs/a", 0, 0, 0.0, float("nan"), float("nan"), float("nan"))
    text = training_html(training)
    assert "starting" in text and "<span" in text and ">-<" in text


# -- markers ----------------------------------------------------------------------------------------------


def marker(kind: int, **fields: object) -> MarkerMessage:
    message = MarkerMessage(ns="n", id=1, type=kind, action=MarkerMessage.ADD)
    message.header.frame_id = "odom"
    message.color.a = 1.0
    message.scale.x, message.scale.y, message.scale.z = 0.1, 0.2, 0.3
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_an_arrow_of_two_points_and_one_of_a_pose_are_the_same_arrow() -> None:
    by_points = marker(MarkerMessage.ARROW, points=[Point(x=1.0), Point(x=1.0, z=0.4)])
    by_pose = marker(MarkerMessage.ARROW)
    by_pose.pose.position.x, by_pose.scale.x = 1.0, 0.4
    upwards = rotation.from_rpy(0.0, -np.pi / 2, 0.0)
    by_pose.pose.orientation.w, by_pose.pose.orientation.y = upwards[0], upwards[2]
    for message in (by_points, by_pose):
        shape = read_markers(MarkerArray(markers=[message]), {})["n_1"]
        assert shape.kind == "arrow"
        assert shape.points == pytest.approx(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.4]]))


def test_a_marker_on_a_link_is_placed_with_the_link() -> None:
    message = marker(MarkerMessage.SPHERE)
    message.header.frame_id, message.pose.position.x = "foot", 0.5
    turned = rotation.from_rpy(0.0, 0.0, np.pi / 2)
    shapes = read_markers(MarkerArray(markers=[message]), {"foot": (np.array([1.0, 2.0, 3.0]), turned)})
    assert shapes["n_1"].position == pytest.approx([1.0, 2.5, 3.0])


def test_an_arrow_without_length_is_not_drawn() -> None:
    still = marker(MarkerMessage.ARROW, points=[Point(x=1.0), Point(x=1.001)])
    assert read_markers(MarkerArray(markers=[still]), {}) == {}


def test_a_line_strip_becomes_its_segments() -> None:
    points = [Point(x=float(i)) for i in range(4)]
    shape = read_markers(MarkerArray(markers=[marker(MarkerMessage.LINE_STRIP, points=points)]), {})["n_1"]
    assert shape.points[:, :, 0].tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]


def test_markers_that_cannot_be_drawn_are_left_out() -> None:
    deleted = marker(MarkerMessage.SPHERE, action=MarkerMessage.DELETE)
    elsewhere = marker(MarkerMessage.SPHERE)
    elsewhere.header.frame_id = "moon"
    lost = marker(MarkerMessage.SPHERE)
    lost.pose.position.x = float("nan")
    text = marker(MarkerMessage.TEXT_VIEW_FACING)
    clear = marker(MarkerMessage.SPHERE)
    clear.color.a = 0.0
    assert read_markers(MarkerArray(markers=[deleted, elsewhere, lost, text, clear]), {}) == {}
