"""LowCmd and LowState of a recorded robot, out of an MCAP file or a rosbag2 directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel, load_robot, variants_of
from numpy.typing import NDArray

from humanoid_rl_core import unitree_hg_wire as wire

Floats = NDArray[np.float64]

COMMAND, STATE = "/lowcmd", "/lowstate"
TYPES = {COMMAND: "unitree_hg/msg/LowCmd", STATE: "unitree_hg/msg/LowState"}


@dataclass(frozen=True)
class Recording:
    """What a robot was told and what it did, in motor order, each in the order of time."""

    robot: RobotModel
    """The one that was recorded."""
    command_time: Floats
    """[C] s, when it was recorded."""
    enabled: NDArray[np.bool_]
    """[C] whether every motor was."""
    command: dict[str, Floats]
    """q rad, dq rad/s, tau Nm, kp Nm/rad, kd Nm s/rad; [C, n] each."""
    state_time: Floats
    """[S] s, on the same clock."""
    joint_pos: Floats
    """[S, n] rad."""
    joint_vel: Floats
    """[S, n] rad/s."""
    imu_quat: Floats
    """[S, 4]"""
    imu_gyro: Floats
    """[S, 3] rad/s, IMU frame."""
    dropped: int
    """Messages with a wrong CRC or with what is no number."""


def read_messages(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Time in ns and bytes of every message on /lowcmd and /lowstate.

    Args:
        path: an MCAP or SQLite file, or the directory that `ros2 bag record` makes.

    Raises:
        UserError: there is none, it cannot be read, or one of the topics is missing.
    """
    from rosbags.rosbag2 import Reader

    if not path.exists():
        raise UserError(f"recording {path} does not exist")
    try:
        with Reader(path) as reader:
            topics = sorted({connection.topic for connection in reader.connections})
            wanted = [c for c in reader.connections if TYPES.get(c.topic) == c.msgtype]
            messages: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in TYPES}
            if wanted:
                for connection, time, data in reader.messages(wanted):
                    messages[connection.topic].append((time, bytes(data)))
    except PermissionError:
        raise
    except Exception as error:  # the library's own, and those of YAML, SQLite, zstd and struct
        reason = str(error) or type(error).__name__
        raise UserError(f"recording {path} cannot be read as MCAP or rosbag2: {reason}") from None
    for topic, kind in TYPES.items():
        if not messages[topic]:
            raise UserError(
                f"recording {path} has no {topic} of type {kind} (topics: {', '.join(topics) or 'none'}); "
                f"record it with: ros2 bag record {' '.join(TYPES)}"
            )
    return messages


def read_recording(path: Path, robot: RobotModel | str) -> Recording:
    """A recorded robot.

    Args:
        path: see `read_messages`.
        robot: whose recording it has to be; of a mere name, the variant that the recording's mode_machine tells.

    Raises:
        UserError: what `read_messages` refuses, no message that is whole, or another robot than `robot`.
    """
    name = robot if isinstance(robot, str) else robot.name
    # The variants of a robot have the same motors.
    n = load_robot(name, next(iter(variants_of(name)))).joint_count
    messages = {
        topic: sorted(found, key=lambda entry: entry[0]) for topic, found in read_messages(path).items()
    }
    commands, states = [], []
    for time, data in messages[COMMAND]:
        if wire.low_cmd_crc_ok(data):
            record = wire.low_cmd_record(data)
            motors = {
                name: record["motor_cmd"][name][:n].astype(float) for name in ("q", "dq", "tau", "kp", "kd")
            }
            if all(np.isfinite(values).all() for values in motors.values()):
                enabled = bool((wire.motor_modes(record)[:n] == wire.MOTOR_ENABLED).all())
                commands.append((1e-9 * time, enabled, motors))
    for time, data in messages[STATE]:
        if wire.low_state_crc_ok(data):
            state = wire.read_low_state(data, n)
            if state.finite():
                states.append((1e-9 * time, state))
    for topic, whole in ((COMMAND, commands), (STATE, states)):
        if not whole:
            raise UserError(f"recording {path}: no message on {topic} is whole (CRC, finite numbers)")
    machine = states[0][1].mode_machine
    fits = [variant for variant, machines in variants_of(name).items() if machine in machines]
    if isinstance(robot, str):
        if len(fits) != 1:
            raise UserError(
                f"recording {path} is of a robot with mode_machine {machine}, which is that of "
                f"{' and '.join(fits) or 'no variant'} of {name}: config/robot/{name}.yaml has its variants"
            )
        robot = load_robot(name, fits[0])
    elif machine not in robot.mode_machine:
        raise UserError(
            f"recording {path} is of a robot with mode_machine {machine} ({', '.join(fits) or 'no known variant'}), "
            f"not of {robot.name} {robot.variant} (mode_machine {', '.join(map(str, robot.mode_machine))})"
        )
    return Recording(
        robot=robot,
        command_time=np.array([time for time, _, _ in commands]),
        enabled=np.array([enabled for _, enabled, _ in commands]),
        command={name: np.array([motors[name] for _, _, motors in commands]) for name in commands[0][2]},
        state_time=np.array([time for time, _ in states]),
        joint_pos=np.array([state.joint_pos for _, state in states]),
        joint_vel=np.array([state.joint_vel for _, state in states]),
        imu_quat=np.array([state.imu_quat for _, state in states]),
        imu_gyro=np.array([state.imu_gyro for _, state in states]),
        dropped=sum(map(len, messages.values())) - len(commands) - len(states),
    )
