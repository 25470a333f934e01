"""The robot's own gamepad, from LowStates to Joy messages and an emergency stop; no ROS.

What is stale or corrupt gives no Joy at all: the policy node lets a command that stopped arriving become zero. A
remote that disconnects gives one last Joy with nothing pressed, as when the operator lets go of everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from humanoid_rl_core.unitree_hg_wire import WireError, low_state_crc_ok, low_state_record
from humanoid_rl_core.wireless_remote import (
    RemoteError,
    RemoteState,
    decode_remote,
    joy_axes_and_buttons,
    pressed_buttons,
)

STATE_AGE = 0.1
"""s without a new LowState after which the remote is unknown; 50 messages of the robot in a row."""

RETRY_PERIOD = 0.1
"""s until an e-stop that nobody answered is called again; a healthy host answers within its cycle of 2 ms."""


@dataclass(frozen=True)
class RemoteInput:
    """What one look at the remote gives."""

    joy: tuple[list[float], list[int]] | None
    """Axes and buttons to publish, None for no message."""
    estop: bool
    """The e-stop button has just been pressed."""
    trouble: str
    """Why there is no Joy, "" where there is one."""


class RemoteWatch:
    """Follows the remote through the LowStates.

    Args:
        estop_button: index in Joy.buttons.
    """

    def __init__(self, estop_button: int) -> None:
        self._estop_button = estop_button
        self._tick: int | None = None
        self._state_time = -math.inf
        self._connected = False
        self._held = False

    def look(self, now: float, message: bytes | None) -> RemoteInput:
        """Judge the newest LowState.

        Args:
            now: s, monotonic.
            message: DDS bytes of the LowState that came since the last look, None when none did.
        """
        trouble = "no LowState"
        if message is not None:
            try:
                return self._judge(now, message)
            except WireError as error:
                trouble = str(error)
        if now - self._state_time > STATE_AGE:
            return RemoteInput(None, False, trouble)
        return RemoteInput(None, False, "")

    def _judge(self, now: float, message: bytes) -> RemoteInput:
        record = low_state_record(message)
        if not low_state_crc_ok(message):
            return RemoteInput(None, False, "LowState with a wrong CRC")
        tick = int(record["tick"])
        if tick == self._tick:
            return RemoteInput(None, False, f"the tick of LowState stands still at {tick}")
        self._tick, self._state_time = tick, now
        data = record["wireless_remote"].tobytes()
        _, buttons = joy_axes_and_buttons(RemoteState(pressed=pressed_buttons(data)))
        held = bool(buttons[self._estop_button])
        # Held when first seen counts as pressed: a needless stop is the lesser evil.
        estop = held and not self._held
        self._held = held
        try:
            state = decode_remote(data)
        except RemoteError as error:
            return RemoteInput(None, estop, str(error))
        if state is None:
            let_go, self._connected = self._connected, False
            joy = joy_axes_and_buttons(RemoteState()) if let_go else None
            return RemoteInput(joy, False, "no remote is connected")
        self._connected = True
        return RemoteInput(joy_axes_and_buttons(state), estop, "")


class StopCalls:
    """Calls every service of an emergency stop until each has answered that it was done.

    Args:
        services: names.
        call: sends one request to a service; whether it could be sent.
    """

    def __init__(self, services: Iterable[str], call: Callable[[str], bool]) -> None:
        self._services = tuple(services)
        self._call = call
        self._due: dict[str, float] = {}

    @property
    def pending(self) -> tuple[str, ...]:
        """Services that have not answered yet."""
        return tuple(self._due)

    def stop(self, now: float) -> None:
        """The button was pressed: call now, and again until answered."""
        self._due = dict.fromkeys(self._services, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        """Call what is due; now in s, monotonic."""
        for service, due in self._due.items():
            if now >= due:
                self._call(service)
                self._due[service] = now + RETRY_PERIOD

    def answered(self, service: str, done: bool) -> None:
        """A service has answered; one that refused is called again."""
        if done:
            self._due.pop(service, None)
