"""From a gamepad's axes and buttons to a velocity command and requests; no ROS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.typed_yaml import load_dataclass, load_yaml
from numpy.typing import NDArray

from humanoid_rl_inference.state_machine import Event
from humanoid_rl_inference.velocity_command import VELOCITY_COMMANDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Buttons:
    """Index of each button in Joy.buttons."""

    dead_man: int
    stand: int
    start: int
    stop: int
    estop: int


@dataclass(frozen=True)
class JoystickConfig:
    """config/control/joystick.yaml: deadband 0..1, axis index by command name, button indices."""

    deadband: float
    axes: Mapping[str, int]
    buttons: Buttons

    def __post_init__(self) -> None:
        if not 0.0 <= self.deadband < 1.0:
            raise ValueError(f"deadband must be in [0, 1), found {self.deadband}")
        used = [self.buttons.dead_man, self.buttons.stand, self.buttons.start, self.buttons.stop]
        used.append(self.buttons.estop)
        if len(set(used)) != len(used):
            raise ValueError("one button has two meanings")
        if min(used) < 0 or any(index < 0 for index in self.axes.values()):
            raise ValueError("an axis or button index is negative")
        for name in self.axes:
            if name not in VELOCITY_COMMANDS:
                raise ValueError(f"unknown command 'axes.{name}'{nearest(name, VELOCITY_COMMANDS)}")


def load_joystick(path: str | Path) -> JoystickConfig:
    """Read the layout. Raises UserError for a missing file, unknown key or impossible value."""
    return load_dataclass(JoystickConfig, load_yaml(path), str(path))


@dataclass(frozen=True)
class JoystickInput:
    """What one Joy message asks for; command [k] or None: the gamepad does not drive."""

    command: Array | None
    events: tuple[Event, ...]


class Joystick:
    """Edge detection and scaling.

    A stick at full deflection asks for the end of the policy's command range. The command counts while the
    dead-man button is held; letting it go sends one zero command, and then nothing, so that another source
    may drive. Stand and start want the dead-man held, stop and e-stop do not. Buttons act when pressed, once.

    Args:
        config: layout.
        command_names, lower, upper: the policy's commands and their ranges ([k]).
    """

    def __init__(
        self, config: JoystickConfig, command_names: Sequence[str], lower: Array, upper: Array
    ) -> None:
        self._config = config
        self._names = tuple(command_names)
        self._lower, self._upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        self._pressed: frozenset[str] | None = None

    def update(self, axes: Sequence[float], buttons: Sequence[int]) -> JoystickInput:
        """Interpret one message: axes in -1..1, buttons 0 or 1.

        Raises:
            UserError: the gamepad has fewer axes or buttons than the layout names, or an axis is not finite.
        """
        layout = self._config.buttons
        needed = max(layout.dead_man, layout.stand, layout.start, layout.stop, layout.estop)
        driven = {name: index for name, index in self._config.axes.items() if name in self._names}
        if len(buttons) <= needed or any(index >= len(axes) for index in driven.values()):
            raise UserError(
                f"joystick: {len(axes)} axes and {len(buttons)} buttons are fewer than the layout names: "
                "adapt config/control/joystick.yaml"
            )
        names = ("dead_man", "stand", "start", "stop", "estop")
        pressed = frozenset(name for name in names if buttons[getattr(layout, name)])
        # What is held when the first message comes in was not pressed for us; an e-stop counts all the same.
        before = self._pressed if self._pressed is not None else pressed - {"estop"}
        self._pressed = pressed
        new = pressed - before

        held = "dead_man" in pressed
        events = [event for event in (Event.ESTOP, Event.STOP) if event.value in new]
        if held:
            events += [event for event in (Event.STAND, Event.START) if event.value in new]
        command = None
        if held:
            command = self._command(axes, driven)
        elif "dead_man" in before:
            command = np.zeros(len(self._names))
        return JoystickInput(command, tuple(events))

    def _command(self, axes: Sequence[float], driven: Mapping[str, int]) -> Array:
        command = np.zeros(len(self._names))
        for i, name in enumerate(self._names):
            if name not in driven:
                continue
            value = float(axes[driven[name]])
            if not np.isfinite(value):
                raise UserError(f"joystick: axis {driven[name]} is not finite")
            deadband = self._config.deadband
            # From zero at the deadband's edge, so that the command does not jump there.
            value = np.sign(value) * max(0.0, min(abs(value), 1.0) - deadband) / (1.0 - deadband)
            command[i] = value * self._upper[i] if value >= 0 else -value * self._lower[i]
        return command
