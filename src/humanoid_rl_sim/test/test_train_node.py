"""The node `train` as a process, seen over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rclpy
from humanoid_rl_core.robot import load_robot
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from humanoid_rl_interfaces.msg import TrainStatus
from humanoid_rl_interfaces.srv import Checkpoint

DOMAIN = 48
CONFINED = {
    "ROS_DOMAIN_ID": str(DOMAIN),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "ROS_STATIC_PEERS": "",
    "PYTHONUNBUFFERED": "1",
}
SIMULATORS = ("isaac:ovphysx", "isaac:newton") if find_spec("isaaclab") else ("mujoco",)
"""Isaac Lab has an environment of its own, in which these tests run again (`make test-isaac`)."""
PATIENCE = 180.0 if find_spec("isaaclab") else 60.0


def start(folder: Path, **parameters: object) -> subprocess.Popen[str]:
    words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "humanoid_rl_sim.nodes.train_node", "--ros-args", *words],
        cwd=folder,
        env=os.environ | CONFINED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(folder: Path, **parameters: object) -> str:
    """The one line with which the node refuses to start."""
    process = start(folder, **parameters)
    _, errors = process.communicate(timeout=PATIENCE)
    lines = [line for line in errors.splitlines() if line.startswith("train: ")]
    assert process.returncode == 2, errors
    assert len(lines) == 1 and "Traceback" not in errors, errors
    return lines[0]


class Watcher:
    """A node beside the training that keeps what it hears."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("watcher", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.status: list[TrainStatus] = []
        self.joints: list[JointState] = []
        self.transforms: list[TFMessage] = []
        self.images: dict[str, list[Image]] = {"color": [], "depth": []}
        self.calibrations: list[CameraInfo] = []
        latest = QoSProfile(depth=5)
        self.node.create_subscription(TrainStatus, "/train/status", self.status.append, latest)
        self.node.create_subscription(JointState, "/joint_states", self.joints.append, latest)
        self.node.create_subscription(TFMessage, "/tf", self.transforms.append, latest)
        for channel, images in self.images.items():
            self.node.create_subscription(Image, f"/train/camera/{channel}/image_raw", images.append, latest)
        self.node.create_subscription(
            CameraInfo, "/train/camera/depth/camera_info", self.calibrations.append, latest
        )
        self.services = {
            name: self.node.create_client(kind, f"/train/{name}")
            for name, kind in (
                ("pause", Trigger), ("resume", Trigger), ("stop", Trigger), ("checkpoint", Checkpoint)
            )
        }  # fmt: skip
        self.thread = threading.Thread(target=self.executor.spin)
        self.thread.start()

    def call(self, name: str):
        client = self.services[name]
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(client.srv_type.Request())
        until(future.done)
        response = future.result()
        assert response.success, response.message
        return response

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        self.context.try_shutdown()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    for key, value in CONFINED.items():
        monkeypatch.setenv(key, value)
    watcher = Watcher()
    yield watcher
    watcher.close()


@pytest.mark.parametrize("sim", SIMULATORS)
def test_a_training_is_seen_paused_saved_stopped_and_resumed_as_it_was(tmp_path, watcher, sim):
    run = tmp_path / "run"
    camera = {"camera": "head"} if sim.startswith("isaac:") else {}
    process = start(tmp_path, task="stand", sim=sim, num_envs=8, steps=10_000_000, seed=1, run=run, **camera)
    try:
        until(lambda: watcher.status and watcher.status[-1].phase == "training")
        until(lambda: watcher.status[-1].steps > 0 and watcher.joints and watcher.transforms)
        status, joints = watcher.status[-1], watcher.joints[-1]
        assert (status.run, status.task, status.simulator) == (str(run), "stand", sim)
        assert status.total_steps == 10_000_000
        robot = load_robot()
        assert tuple(joints.name) == robot.joint_names
        assert len(joints.position) == len(joints.velocity) == len(joints.effort) == robot.joint_count
        (base,) = watcher.transforms[-1].transforms
        assert (base.header.frame_id, base.child_frame_id) == ("odom", robot.base_link)
        assert 0.2 < base.transform.translation.z < 1.2
        if camera:
            until(lambda: all(watcher.images.values()) and watcher.calibrations)
            color, depth = (watcher.images[channel][-1] for channel in ("color", "depth"))
            assert (color.encoding, depth.encoding) == ("rgb8", "32FC1")
            assert (depth.width, depth.height) == (color.width, color.height) == (64, 40)
            pixels = np.frombuffer(bytes(depth.data), np.float32)
            seen = pixels[np.isfinite(pixels)]
            # It looks down at the ground before a robot that stands or falls.
            assert len(seen) > 0.2 * len(pixels) and 0.3 <= seen.min() <= seen.max() <= 3.0
            assert watcher.calibrations[-1].width == 64

        watcher.call("pause")
        until(lambda: watcher.status[-1].phase == "paused")
        still = watcher.status[-1].steps
        response = watcher.call("checkpoint")
        assert Path(response.path).is_file() and Path(response.path).parent == run / "checkpoints"
        heard = len(watcher.status)
        until(lambda: len(watcher.status) > heard + 1)
        assert watcher.status[-1].phase == "paused" and watcher.status[-1].steps == still
        watcher.call("resume")
        until(lambda: watcher.status[-1].phase == "training" and watcher.status[-1].steps > still)

        watcher.call("stop")
        assert process.wait(PATIENCE) == 0, process.communicate()[1]
    finally:
        process.kill()
        process.communicate()
    last = max((run / "checkpoints").glob("*.zip"))
    assert last.name > Path(response.path).name
    stored = (run / "config.yaml").read_text()

    # Going on takes what is not asked for from the run, not from the task's shipped configuration.
    assert "only, not with another seed" in refused(tmp_path, run=run, resume=True, seed=2)
    process = start(tmp_path, run=run, resume=True, steps=20_000_000)
    try:
        until(lambda: watcher.status[-1].total_steps == 20_000_000 and watcher.status[-1].phase == "training")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, process.communicate()[1]
    finally:
        process.kill()
        process.communicate()
    assert (run / "config.yaml").read_text() == stored.replace("10000000", "20000000")


def test_an_unknown_task_is_refused_in_one_line(tmp_path):
    assert "unknown task 'stnad', did you mean 'stand'?" in refused(tmp_path, task="stnad")
    assert list(tmp_path.iterdir()) == []


def test_a_launched_training_stays_on_this_machine(tmp_path, monkeypatch):
    from humanoid_rl_core.resources import share_dir
    from launch import LaunchContext
    from launch.actions import SetEnvironmentVariable
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    monkeypatch.setenv("HUMANOID_RL_RUNS", str(tmp_path))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("ROS_STATIC_PEERS", "192.168.123.164")
    description = get_launch_description_from_python_launch_file(
        str(share_dir() / "launch" / "train.launch.py")
    )
    context = LaunchContext()
    actions = []
    for entity in description.entities:
        actions += entity.visit(context) or []
    for action in actions:
        if isinstance(action, SetEnvironmentVariable):
            action.visit(context)
    assert context.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert context.environment["ROS_STATIC_PEERS"] == ""
