"""The node above the host: joint commands at the policy's rate, from this process or from one to be killed.

``python commander.py`` is that other process: it says "commanding" and commands until it dies.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import rclpy
from humanoid_rl_core.robot import RobotModel, load_robot
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from humanoid_rl_interfaces.msg import JointCommand

POLICY_PERIOD = 0.02
QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)


def standing_command(robot: RobotModel) -> JointCommand:
    """Hold the default pose with the robot's compliant gains."""
    gains = robot.gains["compliant"]
    zeros = np.zeros(len(robot.joint_names)).tolist()
    return JointCommand(
        joint_names=list(robot.joint_names),
        position=robot.default_position.tolist(),
        velocity=zeros,
        effort=zeros,
        stiffness=gains.stiffness.tolist(),
        damping=gains.damping.tolist(),
    )


def publish_until(publisher: Publisher, message: Callable[[], JointCommand], done: threading.Event) -> None:
    """Publishes what ``message`` returns every policy period."""
    while not done.wait(POLICY_PERIOD):
        publisher.publish(message())


class Commander:
    """Publishes joint commands from a thread of its own while started."""

    def __init__(self, node: Node, robot: RobotModel) -> None:
        self._publisher = node.create_publisher(JointCommand, "/joint_command", QOS)
        self._robot = robot
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.message = standing_command(robot)
        """What is published; replace it whole."""
        self.last_sent = 0.0
        """s since the epoch."""
        self.widest_gap = 0.0
        """s between two commands since `start`, in spite of the policy period."""

    @property
    def connected(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def start(self) -> None:
        assert self._thread is None
        self.last_sent = 0.0
        self.widest_gap = 0.0
        self._done.clear()
        self._thread = threading.Thread(
            target=publish_until, args=(self._publisher, self._next, self._done), daemon=True
        )
        self._thread.start()

    def stop(self) -> float:
        """When the last command was sent, s since the epoch."""
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._thread = None
        return self.last_sent

    def send(self, message: JointCommand | bytes) -> None:
        """Publishes one message now, next to what the thread publishes."""
        self._publisher.publish(message)

    def _next(self) -> JointCommand:
        now = time.time()
        if self.last_sent:
            self.widest_gap = max(self.widest_gap, now - self.last_sent)
        self.last_sent = now
        return self.message


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("doomed_commander")
    message = standing_command(load_robot())
    publisher = node.create_publisher(JointCommand, "/joint_command", QOS)
    while publisher.get_subscription_count() == 0:
        time.sleep(POLICY_PERIOD)
    print("commanding", flush=True)
    publish_until(publisher, lambda: message, threading.Event())


if __name__ == "__main__":
    main()
