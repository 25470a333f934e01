"""JointState, Imu and MotorStatus messages into NumPy arrays in the robot's joint order.

A 500 Hz publisher sends the same layout over and over: same names, same lengths, same frame. The bytes that
lay it out (everything but stamp and numbers) are remembered from the last message that was read the general
way, through rosidl; a message with the very same ones is read in place. Others take the general way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from humanoid_rl_core.errors import nearest
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Imu, JointState

from humanoid_rl_inference.cdr_layout import ENCAPSULATION, LITTLE_ENDIAN, CdrLayout

Array = NDArray[np.float64]

_STAMP_OFFSET = ENCAPSULATION
_IMU_NUMBERS = 4 + 9 + 3 + 9 + 3 + 9  # orientation, gyro and acceleration, each with a covariance


class MessageError(Exception):
    """A sensor message that cannot be what it says; it counts as no message."""


def stamp_seconds(data: bytes) -> float:
    """The header's stamp of a serialized, stamped message, s since the epoch."""
    sec, nanosec = np.frombuffer(data, dtype="<u4", count=2, offset=_STAMP_OFFSET)
    return float(sec) + 1e-9 * float(nanosec)


def joint_order(names: Sequence[str], robot_names: Sequence[str]) -> NDArray[np.intp]:
    """Index in `names` of each of the robot's joints, [n].

    Raises:
        MessageError: an unknown, missing or duplicate joint.
    """
    index: dict[str, int] = {}
    for i, name in enumerate(names):
        if name not in robot_names:
            raise MessageError(f"unknown joint '{name}'{nearest(name, robot_names)}")
        if name in index:
            raise MessageError(f"joint '{name}' is there twice")
        index[name] = i
    for name in robot_names:
        if name not in index:
            raise MessageError(f"joint '{name}' is missing")
    return np.array([index[name] for name in robot_names], dtype=np.intp)


class _KnownLayout:
    """The layout of the last message: a test whether another one has it, and where its numbers are."""

    def __init__(self, layout: CdrLayout, numbers: Sequence[int], data: bytes) -> None:
        self.numbers = tuple(numbers)
        self._length = len(data)
        self._mask = layout.fixed_mask()
        self._expected = self._masked(data)

    def _masked(self, data: bytes) -> NDArray[np.uint8]:
        return np.frombuffer(data, dtype=np.uint8, count=len(self._mask)) & self._mask

    def fits(self, data: bytes) -> bool:
        return len(data) == self._length and bool((self._masked(data) == self._expected).all())


def _known(
    layout: CdrLayout, numbers: Sequence[int], expected: Sequence[Sequence[float]], data: bytes
) -> _KnownLayout | None:
    """The layout, trusted only if it reads from data what rosidl has read."""
    if data[:2] != LITTLE_ENDIAN or layout.length > len(data):
        return None
    for offset, values in zip(numbers, expected, strict=True):
        read = np.frombuffer(data, "<f8", len(values), offset)
        if not np.array_equal(read, np.asarray(values, dtype=float), equal_nan=True):
            return None
    return _KnownLayout(layout, numbers, data)


class JointStateDecoder:
    """Serialized sensor_msgs/JointState -> position and velocity in the robot's order.

    Attributes:
        general: how many messages took the general way.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        self.general = 0
        self._names = tuple(joint_names)
        self._order = np.arange(len(self._names))
        self._layout: _KnownLayout | None = None

    def decode(self, data: bytes) -> tuple[Array, Array, float]:
        """Position [n] rad, velocity [n] rad/s, stamp s since the epoch.

        Raises:
            MessageError: an unknown, missing or duplicate joint, arrays of other lengths than the names,
                or bytes that are no JointState.
        """
        layout = self._layout
        if layout is None or not layout.fits(data):
            layout = self._learn(data)
        if layout is not None:
            n = len(self._names)
            position = np.frombuffer(data, dtype="<f8", count=n, offset=layout.numbers[0])
            velocity = np.frombuffer(data, dtype="<f8", count=n, offset=layout.numbers[1])
            return position[self._order], velocity[self._order], stamp_seconds(data)
        message = self._general
        return (
            np.array(message.position, dtype=float)[self._order],
            np.array(message.velocity, dtype=float)[self._order],
            message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec,
        )

    def _learn(self, data: bytes) -> _KnownLayout | None:
        self.general += 1
        self._layout = None
        try:
            message = deserialize_message(data, JointState)
        except Exception as error:
            raise MessageError(f"not a JointState: {error}") from None
        order = joint_order(message.name, self._names)
        for what in ("position", "velocity"):
            if len(getattr(message, what)) != len(self._names):
                raise MessageError(
                    f"{len(getattr(message, what))} values of {what} for {len(self._names)} joints"
                )
        self._order = order
        self._general = message
        layout = CdrLayout()
        layout.stamped_header(message.header.frame_id)
        layout.strings(message.name)
        arrays = (message.position, message.velocity, message.effort)
        self._layout = _known(layout, [layout.doubles(len(values)) for values in arrays], arrays, data)
        return self._layout


class ImuDecoder:
    """Serialized sensor_msgs/Imu -> angular velocity and orientation.

    Attributes:
        general: how many messages took the general way.
    """

    def __init__(self) -> None:
        self.general = 0
        self._layout: _KnownLayout | None = None

    def decode(self, data: bytes) -> tuple[Array, Array, float]:
        """Gyro [3] rad/s in the IMU frame, orientation [4] (w, x, y, z), stamp s since the epoch.

        Raises:
            MessageError: bytes that are no Imu.
        """
        layout = self._layout
        if layout is None or not layout.fits(data):
            layout = self._learn(data)
        if layout is not None:
            numbers = np.frombuffer(data, dtype="<f8", count=_IMU_NUMBERS, offset=layout.numbers[0])
            return numbers[13:16].copy(), numbers[[3, 0, 1, 2]], stamp_seconds(data)
        q, w, stamp = self._general.orientation, self._general.angular_velocity, self._general.header.stamp
        return np.array([w.x, w.y, w.z]), np.array([q.w, q.x, q.y, q.z]), stamp.sec + 1e-9 * stamp.nanosec

    def _learn(self, data: bytes) -> _KnownLayout | None:
        self.general += 1
        self._layout = None
        try:
            message = deserialize_message(data, Imu)
        except Exception as error:
            raise MessageError(f"not an Imu: {error}") from None
        self._general = message
        q, w, a = message.orientation, message.angular_velocity, message.linear_acceleration
        numbers = np.concatenate(
            [
                [q.x, q.y, q.z, q.w],
                message.orientation_covariance,
                [w.x, w.y, w.z],
                message.angular_velocity_covariance,
                [a.x, a.y, a.z],
                message.linear_acceleration_covariance,
            ]
        )
        layout = CdrLayout()
        layout.stamped_header(message.header.frame_id)
        self._layout = _known(layout, [layout.field(8, _IMU_NUMBERS)], [numbers.tolist()], data)
        return self._layout


def motor_temperatures(message: Any, joint_names: Sequence[str]) -> tuple[Array, Array]:
    """Winding and casing temperature (degrees Celsius, [n], robot's order) of a MotorStatus.

    Raises:
        MessageError: an unknown, missing or duplicate joint, or arrays of other lengths than the names.
    """
    order = joint_order(message.joint_names, joint_names)
    for what in ("winding_temperature", "casing_temperature"):
        if len(getattr(message, what)) != len(order):
            raise MessageError(f"{len(getattr(message, what))} values of {what} for {len(order)} joints")
    return (
        np.array(message.winding_temperature, dtype=float)[order],
        np.array(message.casing_temperature, dtype=float)[order],
    )
