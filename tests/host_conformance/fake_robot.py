"""A robot that exists only on the wire: LowState at 500 Hz, every LowCmd recorded, faults on request."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_core.unitree_hg_wire import (
    DAMPING_KD,
    LOW_STATE_CDR,
    MOTOR_ENABLED,
    low_cmd_crc_ok,
    low_cmd_record,
    low_state_record,
    motor_modes,
    seal_low_state,
)
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from unitree_hg.msg import LowCmd, LowState

PERIOD = 0.002
STATE_FAULTS = ("silent", "frozen_tick", "nan_gyro", "nan_joint", "wrong_crc", "other_mode_machine")
OTHER_MODE_MACHINE = 9
"""No variant of the robot has it."""


@dataclass(frozen=True)
class SentCommand:
    """One LowCmd as the host wrote it."""

    time: float
    """s since the epoch, when the host's middleware sent it."""
    data: bytes
    joints: int
    _motors: NDArray[np.void] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_motors", low_cmd_record(self.data)["motor_cmd"])

    def motor(self, name: str) -> NDArray[np.float64]:
        """[n] field ``name`` (q, dq, tau, kp, kd) of the robot's motors."""
        return self._motors[name][: self.joints].astype(np.float64)

    @property
    def damping(self) -> bool:
        """Whether this is the damping command of the rules: kp 0, kd 8, target velocity 0."""
        zero = not (self.motor("kp").any() or self.motor("dq").any() or self.motor("tau").any())
        return zero and bool(np.all(self.motor("kd") == DAMPING_KD))

    def wire_errors(self, mode_machine: int) -> list[str]:
        """What rule H2 finds wrong with it."""
        record = low_cmd_record(self.data)
        found = []
        if not low_cmd_crc_ok(self.data):
            found.append("wrong CRC")
        if record["mode_machine"] != mode_machine:
            found.append(f"mode_machine {record['mode_machine']} instead of {mode_machine}")
        if record["mode_pr"] != 0:
            found.append("mode_pr is not series")
        modes = motor_modes(record)
        if np.any(modes[: self.joints] != MOTOR_ENABLED):
            found.append("a motor of the robot is not enabled")
        unused = record["motor_cmd"][self.joints :]
        if modes[self.joints :].any() or any(unused[name].any() for name in unused.dtype.names or ()):
            found.append("an unused motor slot is not zero")
        if record["reserve"].any() or record["motor_cmd"]["reserve"].any():
            found.append("a reserve word is not zero")
        if not all(np.isfinite(self.motor(name)).all() for name in ("q", "dq", "tau", "kp", "kd")):
            found.append("a value is not finite")
        return found


class FakeRobot:
    """Publishes LowState and records LowCmd in a thread of its own until `close`.

    :param node: carries the two topics; nobody else may spin it.
    """

    def __init__(self, node: Node, robot: RobotModel) -> None:
        self.robot = robot
        self.mode_machine = robot.mode_machine[0]
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
        everything = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1000, reliability=ReliabilityPolicy.RELIABLE
        )
        self._publisher = node.create_publisher(LowState, "/lowstate", newest)
        self._subscription = node.create_subscription(LowCmd, "/lowcmd", lambda _: None, everything, raw=True)
        self._buffer = bytearray(LOW_STATE_CDR.itemsize)
        self._buffer[0:4] = b"\x00\x01\x00\x00"
        self._record = low_state_record(self._buffer)
        self._lock = threading.Lock()
        self._commands: list[SentCommand] = []
        self._fault = ""
        self._tick = 0
        self._last_valid = 0.0
        self._widest_gap = 0.0
        self._stop = threading.Event()
        self.set_joints(robot.default_position, np.zeros(len(robot.joint_names)))
        self._thread = threading.Thread(target=self._run, name="fake_robot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def connected(self) -> bool:
        """Whether a host reads LowState and writes LowCmd."""
        return self._publisher.get_subscription_count() > 0 and self._subscription.get_publisher_count() > 0

    def set_joints(self, joint_pos: NDArray[np.float64], joint_vel: NDArray[np.float64]) -> None:
        """What the next LowState reports: [n] rad, [n] rad/s."""
        with self._lock:
            self._joint_pos, self._joint_vel = joint_pos.copy(), joint_vel.copy()

    def set_fault(self, fault: str) -> float:
        """Breaks LowState from now on in one of the ways of `STATE_FAULTS`; "" repairs it.

        :returns: when the last valid LowState was sent, s since the epoch.
        """
        assert fault in ("", *STATE_FAULTS)
        with self._lock:
            self._fault = fault
            return self._last_valid

    def commands(self, since: float = 0.0) -> list[SentCommand]:
        """The LowCmd sent after ``since`` (s since the epoch) that have arrived so far."""
        with self._lock:
            return [command for command in self._commands if command.time > since]

    def forget(self) -> None:
        """Starts a new record."""
        with self._lock:
            self._commands.clear()
            self._widest_gap = 0.0

    @property
    def widest_gap(self) -> float:
        """s: the longest this robot itself took between two LowState since `forget`, against its will."""
        return self._widest_gap

    def _run(self) -> None:
        last = due = time.monotonic()
        while not self._stop.is_set():
            due = max(due + PERIOD, time.monotonic() - PERIOD)
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            with self._lock:
                self._widest_gap = max(self._widest_gap, now - last)
                last = now
                self._publish()
                self._receive()

    def _publish(self) -> None:
        if self._fault == "silent":
            return
        record = self._record
        if self._fault != "frozen_tick":
            self._tick = (self._tick + 2) % 2**32
        record["tick"] = self._tick
        record["mode_machine"] = (
            OTHER_MODE_MACHINE if self._fault == "other_mode_machine" else self.mode_machine
        )
        n = len(self.robot.joint_names)
        motors = record["motor_state"]
        motors["q"][:n] = self._joint_pos
        motors["dq"][:n] = self._joint_vel
        motors["temperature"][:n] = (30, 40)
        motors["vol"][:n] = 48.0
        imu = record["imu_state"]
        imu["quaternion"][:] = (1.0, 0.0, 0.0, 0.0)
        imu["gyroscope"][:] = np.nan if self._fault == "nan_gyro" else 0.0
        imu["accelerometer"][:] = (0.0, 0.0, 9.81)
        if self._fault == "nan_joint":
            motors["q"][n // 2] = np.nan
        seal_low_state(self._buffer)
        if self._fault == "wrong_crc":
            self._buffer[-1] ^= 0xFF
        if not self._fault:
            self._last_valid = time.time()
        self._publisher.publish(bytes(self._buffer))

    def _receive(self) -> None:
        while (taken := self._subscription.handle.take_message(LowCmd, True)) is not None:
            data, info = taken
            self._commands.append(
                SentCommand(info["source_timestamp"] * 1e-9, data, len(self.robot.joint_names))
            )
