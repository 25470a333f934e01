"""A recorded robot for tests: a simulated one that stands and moves its joints; what it was told and what it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_sim.twin.virtual_g1 import CYCLE, VirtualG1
from rosbags.rosbag2 import StoragePlugin, Writer

from humanoid_rl_core import unitree_hg_wire as wire

Message = tuple[str, int, bytes]
BRAKED = 0.1
"""s."""
TYPES = {"/lowcmd": "unitree_hg/msg/LowCmd", "/lowstate": "unitree_hg/msg/LowState"}


def record(robot: RobotModel, seconds: float = 3.0) -> list[Message]:
    """Topic, time in ns and bytes of every message: stiff gains, every joint swings by 0.05 rad around its default.

    The first `BRAKED` seconds say that the motors only damped, as before a host has taken over.
    """
    twin = VirtualG1(robot, start="standing")
    writer, gains = wire.LowCmdWriter(robot.joint_count), robot.gains["stiff"]
    phase = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, robot.joint_count)

    def told(swing: float) -> bytes:
        target = robot.default_position + swing * np.sin(2.0 * np.pi * twin.time + phase)
        # Half of the feed-forward comes as a torque, half as a velocity: both move the joint, as on the robot.
        return writer.command(twin.mode_machine, target, 0.1, 0.5, gains.stiffness, gains.damping)

    while twin.hoist_state != "off":
        twin.receive(told(0.0))
        twin.cycle()
    messages: list[Message] = []
    begin = twin.time
    for _ in range(round(seconds / CYCLE)):
        now = twin.time - begin
        command = told(0.05)
        assert twin.receive(command)
        # A robot that brakes falls: that it was told to is written, and not done.
        written = writer.damping(twin.mode_machine) if now < BRAKED - 1e-9 else command
        messages.append(("/lowcmd", round(1e9 * now), written))
        state = twin.cycle()
        assert state is not None
        messages.append(("/lowstate", round(1e9 * (twin.time - begin)), state))
    return messages


def tampered(messages: list[Message], joint: int, offset: float) -> list[Message]:
    """The same with one joint's position read wrong."""
    result = []
    for topic, time, data in messages:
        changed = bytearray(data)
        if topic == "/lowstate":
            wire.low_state_record(changed)["motor_state"]["q"][joint] += offset
            wire.seal_low_state(changed)
        result.append((topic, time, bytes(changed)))
    return result


def write_bag(path: Path, messages: list[Message], *, storage: str = "mcap") -> Path:
    """A rosbag2 directory, as `ros2 bag record` makes it."""
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as bag:
        topics = sorted({topic for topic, _, _ in messages})
        connections = {
            topic: bag.add_connection(
                topic, TYPES.get(topic, "std_msgs/msg/Empty"), msgdef=" ", rihs01="RIHS01_0"
            )
            for topic in topics
        }
        for topic, time, data in messages:
            bag.write(connections[topic], time, data)
    return path
