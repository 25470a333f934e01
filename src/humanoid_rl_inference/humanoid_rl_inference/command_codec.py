"""JointCommand messages, serialized once and patched afterwards."""

from collections.abc import Sequence

import numpy as np
from rclpy.serialization import serialize_message

from humanoid_rl_inference.cdr_layout import LITTLE_ENDIAN, CdrLayout
from humanoid_rl_inference.motion import JointTargets
from humanoid_rl_interfaces.msg import JointCommand

_ARRAYS = ("position", "velocity", "effort", "stiffness", "damping")


def joint_command(joint_names: Sequence[str], targets: JointTargets, sec: int, nanosec: int) -> JointCommand:
    """The message itself, built the ordinary way; velocity and effort are zero."""
    message = JointCommand()
    message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
    message.joint_names = list(joint_names)
    message.position = targets.position.tolist()
    message.velocity = [0.0] * len(joint_names)
    message.effort = [0.0] * len(joint_names)
    message.stiffness = targets.stiffness.tolist()
    message.damping = targets.damping.tolist()
    return message


def joint_command_layout(joint_names: Sequence[str]) -> tuple[CdrLayout, int, dict[str, int]]:
    """Layout of a serialized JointCommand, the offset of its stamp, and that of each array."""
    layout = CdrLayout()
    stamp = layout.stamped_header("")
    layout.strings(joint_names)
    return layout, stamp, {name: layout.doubles(len(joint_names)) for name in _ARRAYS}


class JointCommandEncoder:
    """Serialized JointCommands: rosidl lays the message out once, later only stamp and numbers change.

    Raises:
        RuntimeError: this middleware serializes in another way than the one known here.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        n = len(joint_names)
        layout, stamp, offsets = joint_command_layout(joint_names)
        zeros = JointTargets(np.zeros(n), np.zeros(n), np.zeros(n))
        template = bytes(serialize_message(joint_command(joint_names, zeros, 0, 0)))
        if template[:2] != LITTLE_ENDIAN or len(template) != layout.length:
            raise RuntimeError("JointCommand is not serialized as little-endian XCDR1 by this middleware")
        # The serializer leaves chance bytes in the padding; ours is zero.
        self._buffer = bytearray(np.frombuffer(template, np.uint8) & layout.meaningful_mask())
        self._stamp = np.frombuffer(self._buffer, dtype="<u4", count=2, offset=stamp)
        self._arrays = {
            name: np.frombuffer(self._buffer, dtype="<f8", count=n, offset=offset)
            for name, offset in offsets.items()
        }

    def encode(self, targets: JointTargets, sec: int, nanosec: int) -> bytes:
        """The bytes rosidl gives for `joint_command` with the same values, padding zero."""
        self._stamp[0], self._stamp[1] = sec, nanosec
        self._arrays["position"][:] = targets.position
        self._arrays["stiffness"][:] = targets.stiffness
        self._arrays["damping"][:] = targets.damping
        return bytes(self._buffer)
