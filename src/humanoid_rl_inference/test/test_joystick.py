"""Gamepad: dead-man, edges, scaling, refusals."""

from pathlib import Path

import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_inference.joystick import Joystick, load_joystick
from humanoid_rl_inference.state_machine import Event

LAYOUT = share_dir() / "config" / "control" / "joystick.yaml"
DEAD_MAN, STAND, START, STOP, ESTOP = 4, 0, 7, 2, 1


@pytest.fixture
def joystick() -> Joystick:
    names = ("vx", "vy", "yaw_rate")
    return Joystick(load_joystick(LAYOUT), names, np.array([-0.5, -0.3, -0.5]), np.array([1.0, 0.3, 0.5]))


def buttons(*pressed: int) -> list[int]:
    return [int(index in pressed) for index in range(8)]


def axes(vx: float = 0.0, vy: float = 0.0, yaw: float = 0.0) -> list[float]:
    return [vy, vx, 0.0, yaw]


def test_full_deflection_asks_for_the_ends_of_the_range(joystick: Joystick) -> None:
    assert joystick.update(axes(1.0, 1.0, 1.0), buttons(DEAD_MAN)).command.tolist() == [1.0, 0.3, 0.5]
    assert joystick.update(axes(-1.0, -1.0, -1.0), buttons(DEAD_MAN)).command.tolist() == [-0.5, -0.3, -0.5]
    assert joystick.update(axes(9.0), buttons(DEAD_MAN)).command[0] == 1.0


def test_deadband_is_zero_and_its_edge_continuous(joystick: Joystick) -> None:
    assert joystick.update(axes(0.1), buttons(DEAD_MAN)).command[0] == 0.0
    assert 0.0 < joystick.update(axes(0.101), buttons(DEAD_MAN)).command[0] < 0.002


def test_nothing_moves_without_the_dead_man(joystick: Joystick) -> None:
    assert joystick.update(axes(1.0), buttons()).command is None


def test_letting_the_dead_man_go_stops_once_and_then_frees_the_command(joystick: Joystick) -> None:
    joystick.update(axes(1.0), buttons(DEAD_MAN))
    assert joystick.update(axes(1.0), buttons()).command.tolist() == [0.0, 0.0, 0.0]
    assert joystick.update(axes(1.0), buttons()).command is None


def test_stand_and_start_want_the_dead_man(joystick: Joystick) -> None:
    joystick.update(axes(), buttons())
    assert joystick.update(axes(), buttons(STAND)).events == ()
    joystick.update(axes(), buttons(DEAD_MAN))
    assert joystick.update(axes(), buttons(DEAD_MAN, STAND)).events == (Event.STAND,)
    assert joystick.update(axes(), buttons(DEAD_MAN, STAND, START)).events == (Event.START,)


def test_stop_and_estop_need_no_dead_man(joystick: Joystick) -> None:
    joystick.update(axes(), buttons())
    assert joystick.update(axes(), buttons(STOP)).events == (Event.STOP,)
    assert joystick.update(axes(), buttons(ESTOP)).events == (Event.ESTOP,)


def test_held_button_acts_once(joystick: Joystick) -> None:
    joystick.update(axes(), buttons(DEAD_MAN))
    assert joystick.update(axes(), buttons(DEAD_MAN, STAND)).events == (Event.STAND,)
    assert joystick.update(axes(), buttons(DEAD_MAN, STAND)).events == ()


def test_button_held_before_the_first_message_does_nothing_but_an_estop_counts(joystick: Joystick) -> None:
    assert joystick.update(axes(), buttons(DEAD_MAN, STAND, ESTOP)).events == (Event.ESTOP,)


def test_smaller_gamepad_is_refused_with_the_remedy(joystick: Joystick) -> None:
    with pytest.raises(UserError, match=r"4 axes and 3 buttons .* config/control/joystick.yaml"):
        joystick.update(axes(), [0, 0, 0])
    with pytest.raises(UserError, match="2 axes"):
        joystick.update([0.0, 0.0], buttons())


def test_axis_that_is_not_finite_is_refused(joystick: Joystick) -> None:
    with pytest.raises(UserError, match="axis 1 is not finite"):
        joystick.update(axes(float("nan")), buttons(DEAD_MAN))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("yaw_rate: 3", "yaw_rat: 3", "unknown command 'axes.yaw_rat', did you mean 'yaw_rate'"),
        ("stop: 2", "stop: 1", "one button has two meanings"),
        ("deadband: 0.1", "deadband: 1.0", "deadband must be in"),
        ("start: 7", "start: -1", "negative"),
    ],
)
def test_impossible_layout_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "joystick.yaml"
    text = LAYOUT.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_joystick(path)
