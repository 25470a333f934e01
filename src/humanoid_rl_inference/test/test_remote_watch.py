"""What the robot's own gamepad does, and what a stale or corrupt one does not."""

from __future__ import annotations

import struct

import pytest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.unitree_hg_wire import ENCAPSULATION, LOW_STATE_SIZE, low_state_record, seal_low_state
from humanoid_rl_core.wireless_remote import RemoteState, encode_remote
from humanoid_rl_inference.joystick import Joystick, load_joystick
from humanoid_rl_inference.remote_watch import RETRY_PERIOD, STATE_AGE, RemoteWatch, StopCalls
from humanoid_rl_inference.state_machine import Event

LAYOUT = load_joystick(share_dir() / "config/control/joystick.yaml")
ESTOP = LAYOUT.buttons.estop  # B


def low_state(tick: int, remote: bytes) -> bytes:
    buffer = bytearray(LOW_STATE_SIZE)
    buffer[0:4] = ENCAPSULATION
    record = low_state_record(buffer)
    record["tick"] = tick
    record["wireless_remote"] = list(remote)
    seal_low_state(buffer)
    return bytes(buffer)


def pressed(*buttons: str, **sticks: float) -> bytes:
    return encode_remote(RemoteState(pressed=frozenset(buttons), **sticks))


def test_shipped_layout_drives_stands_and_stops_with_the_robot_s_remote() -> None:
    """Through the whole way: 40 bytes, Joy, config/control/joystick.yaml, command."""
    watch = RemoteWatch(ESTOP)
    joystick = Joystick(LAYOUT, ("vx", "vy", "yaw_rate"), [-1.0] * 3, [1.0] * 3)

    def feed(tick: int, data: bytes) -> object:
        joy = watch.look(0.01 * tick, low_state(tick, data)).joy
        assert joy is not None
        return joystick.update(*joy)

    feed(1, pressed())
    assert feed(2, pressed("L1", "A")).events == (Event.STAND,)  # type: ignore[attr-defined]
    assert feed(3, pressed("L1", "start")).events == (Event.START,)  # type: ignore[attr-defined]
    # Right on a stick is a negative vy and yaw rate.
    command = feed(4, pressed("L1", lx=1.0, ly=1.0, rx=-1.0)).command  # type: ignore[attr-defined]
    assert command.tolist() == [1.0, -1.0, 1.0]
    assert feed(5, pressed("X")).events == (Event.STOP,)  # type: ignore[attr-defined]
    assert feed(6, pressed("B")).events == (Event.ESTOP,)  # type: ignore[attr-defined]


def test_estop_is_one_press_and_a_held_button_no_second() -> None:
    watch = RemoteWatch(ESTOP)
    looks = [pressed(), pressed("B"), pressed("B"), pressed(), pressed("B", "L2")]
    seen = [watch.look(0.02 * i, low_state(i + 1, data)).estop for i, data in enumerate(looks)]
    assert seen == [False, True, False, False, True]


def test_button_that_is_held_from_the_start_stops() -> None:
    assert RemoteWatch(ESTOP).look(0.0, low_state(1, pressed("B"))).estop


def test_corrupt_stick_gives_no_joy_and_leaves_the_estop() -> None:
    data = bytearray(pressed("B"))
    struct.pack_into("<f", data, 4, float("nan"))
    seen = RemoteWatch(ESTOP).look(0.0, low_state(1, bytes(data)))
    assert seen.joy is None and seen.estop and "stick lx" in seen.trouble


@pytest.mark.parametrize("case", ["wrong crc", "frozen tick", "no message", "other bytes"])
def test_stale_or_corrupt_state_gives_neither_joy_nor_stop(case: str) -> None:
    watch = RemoteWatch(ESTOP)
    assert watch.look(0.0, low_state(1, pressed("L1"))).joy is not None
    good = low_state(2, pressed("B"))
    message = {
        "wrong crc": good[:-4] + bytes(4),
        "frozen tick": low_state(1, pressed("B")),
        "no message": None,
        "other bytes": b"none",
    }[case]
    seen = watch.look(2 * STATE_AGE, message)
    assert seen.joy is None and not seen.estop and seen.trouble


def test_short_pause_between_states_is_no_trouble() -> None:
    watch = RemoteWatch(ESTOP)
    watch.look(0.0, low_state(1, pressed()))
    assert watch.look(0.5 * STATE_AGE, None).trouble == ""
    assert watch.look(1.5 * STATE_AGE, None).trouble == "no LowState"


def test_remote_that_disconnects_lets_go_once_and_then_says_nothing() -> None:
    watch = RemoteWatch(ESTOP)
    assert watch.look(0.0, low_state(1, bytes(40))).joy is None  # none has been connected
    watch.look(0.02, low_state(2, pressed("L1", ly=1.0)))
    gone = watch.look(0.04, low_state(3, bytes(40)))
    assert gone.joy is not None and not any(gone.joy[1]) and gone.joy[0][:2] == [0.0, 0.0]
    assert watch.look(0.06, low_state(4, bytes(40))).joy is None


class Services:
    """Counts calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, service: str) -> bool:
        self.calls.append(service)
        return True


def test_stop_is_called_at_once_and_again_until_each_service_has_answered() -> None:
    services = Services()
    stop = StopCalls(("/host/estop", "/policy/estop"), services)
    stop.advance(0.0)
    assert services.calls == []
    stop.stop(1.0)
    assert services.calls == ["/host/estop", "/policy/estop"]
    stop.advance(1.0 + 0.5 * RETRY_PERIOD)
    assert len(services.calls) == 2
    stop.answered("/host/estop", True)
    stop.answered("/policy/estop", False)  # refused is not done
    for i in range(1, 4):
        stop.advance(1.0 + 1.01 * i * RETRY_PERIOD)
    assert services.calls[2:] == ["/policy/estop"] * 3
    stop.answered("/policy/estop", True)
    stop.advance(9.0)
    assert len(services.calls) == 5 and stop.pending == ()
    stop.stop(10.0)
    assert len(services.calls) == 7
