"""The 40 bytes of the robot's gamepad, and the Joy they become."""

from __future__ import annotations

import struct

import pytest
from humanoid_rl_core.wireless_remote import (
    BUTTONS,
    RemoteError,
    RemoteState,
    decode_remote,
    encode_remote,
    joy_axes_and_buttons,
    pressed_buttons,
)

# Byte and bit of each button, as unitree_sdk2_python's example/wireless_controller takes them apart.
VENDOR_BITS = {
    "R1": (2, 0), "L1": (2, 1), "start": (2, 2), "select": (2, 3), "R2": (2, 4), "L2": (2, 5), "F1": (2, 6),
    "F2": (2, 7), "A": (3, 0), "B": (3, 1), "X": (3, 2), "Y": (3, 3), "up": (3, 4), "right": (3, 5),
    "down": (3, 6), "left": (3, 7),
}  # fmt: skip
VENDOR_OFFSETS = {"lx": 4, "rx": 8, "ry": 12, "ly": 20}


@pytest.mark.parametrize("button", VENDOR_BITS)
def test_button_is_read_where_the_vendor_has_it(button: str) -> None:
    data = bytearray(40)
    byte, bit = VENDOR_BITS[button]
    data[byte] = 1 << bit
    state = decode_remote(bytes(data))
    assert state is not None and state.pressed == {button}
    assert set(VENDOR_BITS) == set(BUTTONS)


@pytest.mark.parametrize("stick", VENDOR_OFFSETS)
def test_stick_is_read_where_the_vendor_has_it(stick: str) -> None:
    data = bytearray(40)
    struct.pack_into("<f", data, VENDOR_OFFSETS[stick], -0.5)
    assert decode_remote(bytes(data)) == RemoteState(**{stick: -0.5})


def test_encoding_is_the_inverse_of_decoding() -> None:
    state = RemoteState(0.25, -0.5, 0.75, -1.0, frozenset({"L1", "B", "left"}))
    assert len(encode_remote(state)) == 40
    assert decode_remote(encode_remote(state)) == state
    # A remote at rest is a remote all the same.
    assert decode_remote(encode_remote(RemoteState())) == RemoteState()


def test_all_zero_means_that_no_remote_is_connected() -> None:
    assert decode_remote(bytes(40)) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.2, -1e30])
@pytest.mark.parametrize("stick", VENDOR_OFFSETS)
def test_stick_that_cannot_be_is_refused_by_name(stick: str, value: float) -> None:
    data = bytearray(encode_remote(RemoteState(pressed=frozenset({"B"}))))
    struct.pack_into("<f", data, VENDOR_OFFSETS[stick], value)
    with pytest.raises(RemoteError, match=f"stick {stick}"):
        decode_remote(bytes(data))
    # The e-stop button is heard nevertheless.
    assert "B" in pressed_buttons(bytes(data))


@pytest.mark.parametrize("size", [0, 39, 41])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(RemoteError, match=f"{size} bytes"):
        decode_remote(bytes(size))


def test_unknown_button_is_not_encoded() -> None:
    with pytest.raises(RemoteError, match="button L3"):
        encode_remote(RemoteState(pressed=frozenset({"L3"})))


def test_joy_has_the_axes_of_an_xbox_pad_with_left_positive() -> None:
    state = RemoteState(0.1, 0.2, 0.3, 0.4, frozenset({"L2", "up", "right"}))
    axes, buttons = joy_axes_and_buttons(state)
    assert axes == [-0.1, 0.2, -1.0, -0.3, 0.4, 1.0, -1.0, 1.0]
    assert [i for i, button in enumerate(buttons) if button] == [10]


def test_joy_buttons_are_numbered_as_the_shipped_layout_expects() -> None:
    """config/control/joystick.yaml: A 0, B 1, X 2, left shoulder 4, menu 7."""
    for number, name in ((0, "A"), (1, "B"), (2, "X"), (4, "L1"), (7, "start")):
        _, buttons = joy_axes_and_buttons(RemoteState(pressed=frozenset({name})))
        assert [i for i, button in enumerate(buttons) if button] == [number]
