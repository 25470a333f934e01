"""Driving a deployed policy by a script of velocity commands, and how well it follows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import TwistStamped
from humanoid_rl_core.errors import UserError
from nav_msgs.msg import Odometry
from rclpy.node import Node

from humanoid_rl.operator_client import Polled

COMMAND_PERIOD = 0.05
"""s between two commands; the policy node takes half a second without one for zero."""
STRIDE = 0.5
"""s over which velocities are averaged before they are compared, as in velocity-v1."""


@dataclass(frozen=True)
class Leg:
    """One stretch of a script."""

    duration: float
    """s."""
    vx: float = 0.0
    """m/s, forward."""
    vy: float = 0.0
    """m/s, left."""
    yaw_rate: float = 0.0
    """rad/s, counter-clockwise."""


MINUTE = (
    Leg(4.0),
    Leg(8.0, vx=0.5),
    Leg(8.0, vx=1.0),
    Leg(6.0, vy=0.3),
    Leg(6.0, vy=-0.3),
    Leg(6.0, yaw_rate=0.5),
    Leg(8.0, vx=0.5, yaw_rate=-0.5),
    Leg(8.0, vx=-0.5),
    Leg(6.0),
)
"""60 s: stand, walk, run out, both sides, turn, a curve, backwards, stand."""


@dataclass(frozen=True)
class Tracking:
    """Mean errors over a script, changes of command included."""

    velocity_error: float
    """m/s, horizontal."""
    yaw_rate_error: float
    """rad/s."""
    distance: float
    """m walked."""


def drive(node: Node, script: Sequence[Leg], while_driving: Callable[[], None] = lambda: None) -> Tracking:
    """Send a script to /cmd_vel, in real time, and compare it with /ground_truth/odom.

    Args:
        node: a node nothing spins.
        script: the legs, one after another.
        while_driving: called every few milliseconds; raises when going on makes no sense.

    Raises:
        UserError: no odometry came.
    """
    publisher = node.create_publisher(TwistStamped, "/cmd_vel", 10)
    odometry = Polled(node, Odometry, "/ground_truth/odom", depth=20)
    message, done = TwistStamped(), threading.Event()

    def publish() -> None:
        while not done.wait(COMMAND_PERIOD):
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)

    recent: deque[tuple[float, np.ndarray]] = deque()
    errors, distance = [], 0.0
    last_position: np.ndarray | None = None
    thread = threading.Thread(target=publish, name="commands", daemon=True)
    thread.start()
    try:
        for leg in script:
            message.twist.linear.x, message.twist.linear.y = leg.vx, leg.vy
            message.twist.angular.z = leg.yaw_rate
            deadline = time.monotonic() + leg.duration
            while (now := time.monotonic()) < deadline:
                for sample in odometry.take_all():
                    twist, at = sample.twist.twist, sample.pose.pose.position
                    position = np.array([at.x, at.y])
                    if last_position is not None:
                        distance += float(np.linalg.norm(position - last_position))
                    last_position = position
                    recent.append((now, np.array([twist.linear.x, twist.linear.y, twist.angular.z])))
                while recent and recent[0][0] < now - STRIDE:
                    recent.popleft()
                if recent:
                    mean = np.mean([velocity for _, velocity in recent], axis=0)
                    errors.append(mean - [leg.vx, leg.vy, leg.yaw_rate])
                while_driving()
                time.sleep(0.005)
    finally:
        done.set()
        thread.join()
        node.destroy_publisher(publisher)
    if not errors:
        raise UserError("nobody publishes /ground_truth/odom: without it there is nothing to compare with")
    table = np.array(errors)
    return Tracking(
        velocity_error=float(np.linalg.norm(table[:, :2], axis=1).mean()),
        yaw_rate_error=float(np.abs(table[:, 2]).mean()),
        distance=distance,
    )
