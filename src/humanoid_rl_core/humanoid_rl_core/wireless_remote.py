"""The robot's own gamepad: the 40 bytes of LowState.wireless_remote.

    bytes   0-1    head
            2-3    buttons, one bit each, `BUTTONS` from the lowest bit of byte 2 on
            4-23   float32, little-endian: lx, rx, ry, L2, ly
            24-39  unused

Layout: unitree_sdk2, example/g1/low_level/gamepad.hpp and dds_wrapper/common/unitree_joystick.hpp; the same in
unitree_sdk2_python, example/wireless_controller. Signs: unitree_rl_lab, deploy/include/isaaclab/envs/mdp, drives
forward with ly and turns both vy and yaw rate round, so right is positive on lx and rx.

The bytes carry no sequence number and no checksum of their own: a remote whose link froze looks like one whose
sticks are held. All zero means that none is connected, as in unitree_sdk2, dds_wrapper/robots/g1/g1_sub.h.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

REMOTE_SIZE = 40
"""Bytes of LowState.wireless_remote."""

BUTTONS = (
    "R1", "L1", "start", "select", "R2", "L2", "F1", "F2",
    "A", "B", "X", "Y", "up", "right", "down", "left",
)  # fmt: skip
"""Names from bit 0 of byte 2 to bit 7 of byte 3; unitree_sdk2_python calls F2 F3."""

STICK_RANGE = 1.05
"""Largest deflection that a stick can mean: the range is -1 to 1, and 5 % for calibration."""

_LAYOUT = struct.Struct("<2xH5f16x")


class RemoteError(ValueError):
    """The bytes are no state of the remote."""


@dataclass(frozen=True, slots=True)
class RemoteState:
    """Sticks and buttons. Sticks are -1 to 1; right and up (away from the operator) are positive."""

    lx: float = 0.0
    ly: float = 0.0
    rx: float = 0.0
    ry: float = 0.0
    pressed: frozenset[str] = frozenset()
    """Of `BUTTONS`."""


def pressed_buttons(data: bytes) -> frozenset[str]:
    """The buttons alone, whatever the sticks hold; of `BUTTONS`.

    Raises:
        RemoteError: not 40 bytes.
    """
    if len(data) != REMOTE_SIZE:
        raise RemoteError(f"wireless_remote has {len(data)} bytes, expected {REMOTE_SIZE}")
    bits = int.from_bytes(data[2:4], "little")
    return frozenset(name for bit, name in enumerate(BUTTONS) if bits >> bit & 1)


def decode_remote(data: bytes) -> RemoteState | None:
    """Sticks and buttons of LowState.wireless_remote; None while no remote is connected.

    Raises:
        RemoteError: not 40 bytes, or a stick is not a number from -1 to 1.
    """
    pressed = pressed_buttons(data)
    if not any(data):
        return None
    _, lx, rx, ry, _, ly = _LAYOUT.unpack(data)
    for name, value in (("lx", lx), ("ly", ly), ("rx", rx), ("ry", ry)):
        if not (math.isfinite(value) and abs(value) <= STICK_RANGE):
            raise RemoteError(f"wireless_remote: stick {name} is {value:g}, expected -1 to 1")
    return RemoteState(lx, ly, rx, ry, pressed)


def encode_remote(state: RemoteState, head: bytes = b"\x55\x51") -> bytes:
    """The 40 bytes of a remote in that state, for a simulated robot.

    Args:
        head: first two bytes; nobody reads them.

    Raises:
        RemoteError: a button of that name does not exist.
    """
    if unknown := state.pressed - set(BUTTONS):
        raise RemoteError(f"the remote has no button {min(unknown)}")
    bits = sum(1 << bit for bit, name in enumerate(BUTTONS) if name in state.pressed)
    return head + _LAYOUT.pack(bits, state.lx, state.rx, state.ry, 0.0, state.ly)[2:]


def joy_axes_and_buttons(state: RemoteState) -> tuple[list[float], list[int]]:
    """`axes` and `buttons` of sensor_msgs/Joy, numbered and signed as joy_node does for an Xbox-type pad.

    So config/control/joystick.yaml serves for both. Axes: left stick (left, forward positive), L2, right stick,
    R2, cross (left, up positive); a trigger is 1 released and -1 pressed. Buttons: A B X Y L1 R1 select start F1
    F2 L2 R2.
    """
    held = state.pressed
    cross_x = float("left" in held) - float("right" in held)
    cross_y = float("up" in held) - float("down" in held)
    # 0.0 - x, not -x: a stick at rest is 0, not -0.
    axes = [
        0.0 - state.lx,
        state.ly,
        _trigger("L2" in held),
        0.0 - state.rx,
        state.ry,
        _trigger("R2" in held),
    ]
    order = ("A", "B", "X", "Y", "L1", "R1", "select", "start", "F1", "F2", "L2", "R2")
    return [*axes, cross_x, cross_y], [int(name in held) for name in order]


def _trigger(pressed: bool) -> float:
    return -1.0 if pressed else 1.0
