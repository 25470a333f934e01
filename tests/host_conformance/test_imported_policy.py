"""An imported policy from its own stack's files to the wire: the command line, the policy node, the host, LowCmd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foreign_files
import numpy as np
import pytest
import rclpy
from humanoid_rl_core.robot import RobotModel
from rclpy.context import Context
from std_srvs.srv import Trigger

from humanoid_rl_interfaces.msg import PolicyStatus

from .bench import PATIENCE, Bench, unless_stalled, wait_for

SETTLED = 1.5
"""s of running: blended in, histories full, and the last action no longer changes the next."""
STEPS = 200


@dataclass(frozen=True)
class Imported:
    """A foreign policy and what `humanoid-rl import` made of it; stiffness Nm/rad, damping Nm s/rad in motor order."""

    path: Path
    stack: foreign_files.Stack
    stiffness: np.ndarray
    damping: np.ndarray


@pytest.fixture(params=["mjlab", "unitree_rl_lab"])
def imported(request: pytest.FixtureRequest, robot: RobotModel, tmp_path: Path) -> Imported:
    foreign, own = tmp_path / "policy.onnx", tmp_path / "mine.onnx"
    stiffness, damping = np.arange(robot.joint_count) + 10.0, np.arange(robot.joint_count) / 10.0 + 1.0
    words: list[str] = []
    if request.param == "mjlab":
        stack = foreign_files.mjlab_file(robot, foreign, foreign_files.mjlab_terms())
        settings = foreign_files.MJLAB_SETTINGS
        # The file has them in the network's order, deploy.yaml in the motors'.
        motors = np.argsort(stack.order)
        stiffness, damping = stiffness[motors], damping[motors]
    else:
        terms = foreign_files.lab_terms(history_length=5)
        stack, content = foreign_files.deploy_yaml(robot, foreign, terms)
        settings = foreign_files.SETTINGS
        words = ["--config", str(foreign_files.write_yaml(tmp_path / "deploy.yaml", content))]
    words += [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "humanoid_rl", "import", str(foreign), "--output", str(own)]
    subprocess.run([*command, *words], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return Imported(own, stack, stiffness, damping)


class Operator:
    """Asks the policy node for what a person asks it for, and hears its state."""

    def __init__(self, context: Context) -> None:
        self.node = rclpy.create_node("policy_operator", context=context)
        self.state: int | None = None
        self.cause = ""
        self.node.create_subscription(PolicyStatus, "/policy/status", self._on_status, 10)
        self._executor = rclpy.executors.SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

    def _on_status(self, message: PolicyStatus) -> None:
        self.state, self.cause = message.state, message.cause

    def wait_for_state(self, state: int) -> None:
        def reached() -> bool:
            self._executor.spin_once(timeout_sec=0.0)
            return self.state == state

        wait_for(reached, f"policy node in state {state}")

    def request(self, name: str) -> Any:
        client = self.node.create_client(Trigger, f"/policy/{name}")
        assert client.wait_for_service(PATIENCE), f"/policy/{name} is not there"
        future = client.call_async(Trigger.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=PATIENCE)
        assert future.done(), f"/policy/{name} did not answer"
        return future.result()

    def until_granted(self, name: str) -> None:
        """Asks again while sensors are still to come or the pose is not reached yet."""
        answer = self.request(name)
        end = time.monotonic() + PATIENCE
        while not answer.success:
            # A host that has latched lets nobody stand any more.
            assert "damping" not in answer.message and time.monotonic() < end, answer.message
            time.sleep(0.1)
            answer = self.request(name)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()


@contextlib.contextmanager
def policy_node(policy: Path, domain: int) -> Iterator[None]:
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)]
    executables = [prefix / "lib/humanoid_rl_inference/policy_node" for prefix in prefixes]
    command = [str(next(path for path in executables if path.exists())), "--ros-args"]
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    process = subprocess.Popen([*command, "-p", f"policy:={policy}"], env=environment)
    try:
        yield
    finally:
        # Asked to end: of a node that was killed, the services are seen for 20 s more.
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


@unless_stalled
def test_imported_policy_commands_the_motors_as_its_own_stack_would(
    bench: Bench, context: Context, robot: RobotModel, domain: int, imported: Imported
) -> None:
    # Every joint elsewhere and at another speed, so that none can stand for another.
    number = np.arange(robot.joint_count)
    joint_pos = robot.default_position + 0.003 * (number - 14)
    joint_vel = 0.02 * (14 - number)
    sensors = {
        "joint_pos": joint_pos,
        "joint_vel": joint_vel,
        "imu_gyro": np.zeros(3),
        "imu_quat": np.array([1.0, 0.0, 0.0, 0.0]),
        "command": np.zeros(3),
    }
    stack = dataclasses.replace(imported.stack)
    targets = np.array([stack.step(sensors)[0] for _ in range(STEPS)])
    assert np.ptp(targets[round(SETTLED / foreign_files.PERIOD) :], axis=0).max() < 1e-5
    # The policy's bounds on the target, then everybody's on the torque.
    target = np.clip(targets[-1], robot.position_lower, robot.position_upper)
    kp, kd, most = imported.stiffness, imported.damping, robot.effort_limit
    torque = np.clip(kp * (target - joint_pos) - kd * joint_vel, -most, most)
    target = joint_pos + (torque + kd * joint_vel) / kp

    bench.wire.set_joints(joint_pos, joint_vel)
    with policy_node(imported.path, domain), contextlib.closing(Operator(context)) as operator:
        operator.wait_for_state(PolicyStatus.IDLE)
        # Only now: a process that starts keeps others from their deadlines.
        bench.activate()
        operator.until_granted("stand")
        operator.until_granted("start")
        operator.wait_for_state(PolicyStatus.RUNNING)
        bench.pause(SETTLED)
        begin = time.time()
        bench.pause(0.2)
        commands = bench.wire.commands(begin)
    assert len(commands) > 10
    for sent in commands:
        np.testing.assert_allclose(sent.motor("kp"), kp, rtol=1e-6)
        np.testing.assert_allclose(sent.motor("kd"), kd, rtol=1e-6)
        np.testing.assert_allclose(sent.motor("q"), target, atol=1e-4)
        assert not sent.motor("dq").any() and not sent.motor("tau").any()
