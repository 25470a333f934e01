"""The control panel of the browser view: what it shows as HTML, and its buttons and sliders (no ROS)."""

from __future__ import annotations

import html
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import viser

Level = Literal["ok", "warn", "bad", "off"]
_COLOUR: dict[Level, str] = {"ok": "#1f9d55", "warn": "#c77700", "bad": "#d92d20", "off": "#7b8794"}
_LOG_LINES = 4
_PUSHES = ("front", "back", "left", "right")


@dataclass(frozen=True)
class Training:
    """Progress of a training run, as /train/status tells it."""

    phase: str
    run: str
    steps: int
    total_steps: int
    steps_per_second: float
    mean_reward: float
    mean_episode_length: float
    eta: float


@dataclass(frozen=True)
class PanelState:
    """What is known now; None or "" where no message has come."""

    policy_state: str = ""
    policy_name: str = ""
    policy_cause: str = ""
    tick_latency_p50: float | None = None
    tick_latency_p99: float | None = None
    deadline_misses: int | None = None
    host_state: str = ""
    host_cause: str = ""
    host_period_p99: float | None = None
    hottest_joint: str = ""
    hottest: float | None = None
    battery: float | None = None
    joint_state_age: float | None = None
    base_source: str = ""
    base_height: float | None = None
    base_tilt: float | None = None
    training: Training | None = None


_POLICY_LEVEL: dict[str, Level] = {"IDLE": "off", "STANDING": "warn", "RUNNING": "ok", "FAULT": "bad"}
_HOST_LEVEL: dict[str, Level] = {
    "INACTIVE": "off",
    "WAITING_STATE": "warn",
    "READY": "warn",
    "ACTIVE": "ok",
    "DAMPING": "bad",
}
_HOT, _TOO_HOT = 90.0, 120.0  # degrees Celsius; 120 is the vendor's winding limit of the G1


def _pill(text: str, level: Level) -> str:
    return (
        f'<span style="background:{_COLOUR[level]};color:#fff;border-radius:4px;padding:1px 8px;'
        f'font-weight:600;letter-spacing:.02em">{html.escape(text)}</span>'
    )


def _row(label: str, value: str) -> str:
    return (
        '<div style="display:flex;justify-content:space-between;gap:8px;padding:1.5px 0">'
        f'<span style="color:#7b8794">{label}</span>'
        f'<span style="text-align:right;font-variant-numeric:tabular-nums">{value}</span></div>'
    )


def _cause(text: str) -> str:
    if not text:
        return ""
    return (
        f'<div style="color:{_COLOUR["bad"]};font-weight:500;padding:2px 0 4px;overflow-wrap:anywhere">'
        f"{html.escape(text)}</div>"
    )


def _box(content: str) -> str:
    return f'<div style="font-size:.84em;line-height:1.45;padding:0 .9em .5em">{content}</div>'


def status_html(state: PanelState) -> str:
    """The status block; text from messages is escaped."""
    policy_level = _POLICY_LEVEL.get(state.policy_state, "off")
    rows = [
        _row(
            "policy",
            _pill(state.policy_state or "no policy node", policy_level),
        ),
        _cause(state.policy_cause),
        _row("host", _pill(state.host_state or "no host", _HOST_LEVEL.get(state.host_state, "off"))),
        _cause(state.host_cause),
    ]
    if state.policy_name:
        rows.append(_row("model", html.escape(state.policy_name)))
    if state.tick_latency_p99 is not None and state.tick_latency_p50 is not None:
        rows.append(
            _row(
                "tick p50 / p99",
                f"{state.tick_latency_p50 * 1e3:.2f} / {state.tick_latency_p99 * 1e3:.2f} ms",
            )
        )
    if state.deadline_misses is not None:
        rows.append(_row("deadline misses", str(state.deadline_misses)))
    if state.host_period_p99 is not None:
        rows.append(_row("host period error p99", f"{state.host_period_p99 * 1e3:.2f} ms"))
    if state.hottest is not None:
        level: Level = "bad" if state.hottest >= _TOO_HOT else "warn" if state.hottest >= _HOT else "ok"
        joint = html.escape(state.hottest_joint.removesuffix("_joint").replace("_", " "))
        rows.append(
            _row(f"hottest ({joint})", f'<b style="color:{_COLOUR[level]}">{state.hottest:.0f} °C</b>')
        )
    if state.battery is not None:
        rows.append(_row("battery", f"{state.battery * 100:.0f} %"))
    if state.base_tilt is not None and state.base_height is not None:
        rows.append(
            _row("height / tilt", f"{state.base_height:.2f} m / {math.degrees(state.base_tilt):.1f}°")
        )
    if state.joint_state_age is None:
        rows.append(_row("joint states", _pill("none yet", "warn")))
    elif state.joint_state_age > 1.0:
        rows.append(_row("joint states", _pill(f"stale {state.joint_state_age:.0f} s", "bad")))
    if state.base_source:
        rows.append(_row("base pose from", html.escape(state.base_source)))
    return _box("".join(rows))


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _steps(count: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.2f}{unit}"
    return f"{count:.0f}"


def training_html(training: Training) -> str:
    """The rows below the training progress bar."""
    name = training.run.rstrip("/").rsplit("/", 1)[-1]
    level: Level = "warn"
    if training.phase in ("training", "done"):
        level = "ok"
    elif training.phase == "failed":
        level = "bad"
    return _box(
        _row(
            html.escape(name) or "run",
            _pill(training.phase, level),
        )
        + _row("steps", f"{_steps(training.steps)} of {_steps(training.total_steps)}")
        + _row("steps/s", _steps(training.steps_per_second))
        + _row("mean reward", f"{training.mean_reward:.2f}")
        + _row("episode length", f"{training.mean_episode_length:.1f} s")
        + _row("time left", _duration(training.eta))
    )


@dataclass
class Actions:
    """What the panel's buttons do. Called from the server's worker threads; they must not block."""

    estop: Callable[[], None]
    policy: Callable[[str], None]  # stand, start, stop, reset
    push: Callable[[str, float], None]  # side it comes from, m/s
    sending: Callable[[bool], None]


@dataclass
class _Line:
    text: str
    level: Level
    stamp: str = field(default_factory=lambda: time.strftime("%H:%M:%S"))


class Panel:
    """Widgets in the viser server's panel. `command` is what the sliders ask for."""

    def __init__(self, server: viser.ViserServer, actions: Actions, command_limits: Sequence[float]) -> None:
        """command_limits: largest |vx|, |vy| in m/s and |yaw rate| in rad/s of the sliders."""
        gui = server.gui
        gui.configure_theme(
            control_layout="floating",
            control_width="medium",
            dark_mode=False,
            show_logo=False,
            show_share_button=False,
            brand_color=(40, 92, 168),
        )
        gui.set_panel_label("humanoid_rl")
        self._log: deque[_Line] = deque(maxlen=_LOG_LINES)
        stop = gui.add_button(
            "E-STOP", color=(217, 45, 32), icon=viser.Icon.HAND_STOP, hint="Damp every motor now (space bar)"
        )
        # The stop must be found without looking: three times the height of an ordinary button.
        gui.add_html(
            f'<style>[id="{stop._impl.uuid}"]{{height:3.6em !important;font-size:1.25em}}'
            f'[id="{stop._impl.uuid}"] *{{letter-spacing:.06em}}'
            f'[id="{stop._impl.uuid}"] svg{{margin-right:.4em}}</style>'
        )
        stop.on_click(lambda _: actions.estop())
        gui.add_command(
            "E-STOP", description="Damp every motor now", hotkey="space", icon=viser.Icon.HAND_STOP
        ).on_trigger(lambda _: actions.estop())
        self._status = gui.add_html(status_html(PanelState()))
        buttons = gui.add_button_group("policy", ("stand", "start", "stop", "reset"))
        buttons.on_click(lambda event: actions.policy(event.target.value))
        self._messages = gui.add_html("")

        with gui.add_folder("Command", expand_by_default=True):
            self._send = gui.add_checkbox("send commands", False, hint="publish the sliders to /cmd_vel")
            names = ("vx m/s", "vy m/s", "yaw rad/s")
            self._sliders = [
                gui.add_slider(name, -limit, limit, 0.05, 0.0)
                for name, limit in zip(names, command_limits, strict=True)
            ]
            zero = gui.add_button("zero")
        self._send.on_update(lambda event: actions.sending(event.target.value))
        zero.on_click(lambda _: self.zero_command())

        self._push = gui.add_folder("Push the simulated robot", visible=False)
        with self._push:
            side = gui.add_dropdown("from the", _PUSHES)
            speed = gui.add_slider("speed m/s", 0.1, 2.0, 0.1, 0.6)
            push = gui.add_button("push", icon=viser.Icon.WIND)
        push.on_click(lambda _: actions.push(side.value, speed.value))

        self._training = gui.add_folder("Training", visible=False)
        with self._training:
            self._progress = gui.add_progress_bar(0.0)
            self._training_text = gui.add_html("")

        with gui.add_folder("View", expand_by_default=False):
            self._ghost = gui.add_checkbox("target pose", False, hint="ghost of /joint_command")
            self._markers = gui.add_checkbox("contacts and markers", True)
            self._arrows = gui.add_checkbox("command and velocity", True)
            self._follow = gui.add_checkbox("follow the robot", True)

    @property
    def ghost(self) -> bool:
        return self._ghost.value

    @property
    def markers(self) -> bool:
        return self._markers.value

    @property
    def arrows(self) -> bool:
        return self._arrows.value

    @property
    def follow(self) -> bool:
        return self._follow.value

    @property
    def sending(self) -> bool:
        return self._send.value

    @property
    def command(self) -> tuple[float, float, float]:
        """vx, vy in m/s and yaw rate in rad/s as the sliders stand."""
        vx, vy, yaw_rate = (float(slider.value) for slider in self._sliders)
        return vx, vy, yaw_rate

    def zero_command(self) -> None:
        for slider in self._sliders:
            slider.value = 0.0  # type: ignore[misc]

    def stop_sending(self) -> None:
        self._send.value = False  # type: ignore[misc]
        self.zero_command()

    def show(self, state: PanelState, *, can_push: bool) -> None:
        """Shows `state`; sends nothing to the browsers when nothing changed."""
        self._status.content = status_html(state)
        self._push.visible = can_push
        self._training.visible = state.training is not None
        if state.training is not None:
            total = max(state.training.total_steps, 1)
            self._progress.value = float(np.clip(100.0 * state.training.steps / total, 0.0, 100.0))  # type: ignore[misc]
            self._training_text.content = training_html(state.training)

    def say(self, text: str, level: Level = "ok") -> None:
        """Adds a line to the panel's short log."""
        self._log.append(_Line(text, level))
        self._messages.content = _box(
            "".join(
                f'<div style="overflow-wrap:anywhere"><span style="color:#9aa5b1">{line.stamp}</span> '
                f'<span style="color:{_COLOUR[line.level]}">{html.escape(line.text)}</span></div>'
                for line in self._log
            )
        )
