"""When a demo has succeeded, and what it and a training show."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from humanoid_rl.demo import judge
from humanoid_rl.deployment import Recording, summary
from humanoid_rl.learning_commands import describe_evaluation
from humanoid_rl.training_display import TrainingDisplay, describe_progress
from humanoid_rl_sim.learning.training_control import TrainingProgress

GOOD: dict[str, Any] = {"survived": True, "failure": "", "left_behind": []}
PROGRESS = TrainingProgress(
    phase="training",
    steps=500_000,
    total_steps=2_000_000,
    steps_per_second=12_345.0,
    mean_reward=7.25,
    mean_episode_length=8.0,
    best_evaluation=0.5,
    eta=125.0,
)


@pytest.mark.parametrize(
    ("gain", "deployment", "code", "told"),
    [
        (0.30, GOOD, 0, ""),
        (0.29, GOOD, 1, "+29 percentage points"),
        (-0.1, GOOD, 1, "-10 percentage points"),
        (math.nan, GOOD, 1, "percentage points"),
        (0.5, {**GOOD, "survived": False, "failure": "the base is at 0.10 m"}, 1, "the base is at 0.10 m"),
        (0.5, {**GOOD, "left_behind": ["robot_twin"]}, 1, "robot_twin"),
    ],
)
def test_demo_succeeds_only_with_a_better_policy_that_stays_up(
    gain: float, deployment: dict[str, Any], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(gain, deployment) == code
    errors = capsys.readouterr().err
    assert told in errors and bool(errors) == bool(code)


def test_progress_line_has_rate_reward_and_time_to_go() -> None:
    line = describe_progress(PROGRESS, "stand")
    parts = (
        "[######..................]  25%",
        "500k/2M",
        "12.3k steps/s",
        "reward 7.2",
        "best 50%",
        "ETA 2:05",
    )
    assert all(part in line for part in parts)


def test_progress_line_leaves_out_what_is_not_known_yet() -> None:
    nothing = replace(
        PROGRESS,
        steps=0,
        steps_per_second=math.nan,
        mean_reward=math.nan,
        best_evaluation=math.nan,
        eta=math.nan,
    )
    assert describe_progress(nothing, "stand") == "stand [........................]   0%  0/2M"


def test_log_gets_a_line_now_and_then_and_the_last_word() -> None:
    stream = io.StringIO()
    with TrainingDisplay("stand", stream) as display:
        for steps in range(0, 2_000_000, 100_000):
            display.show(replace(PROGRESS, steps=steps))
        display.show(replace(PROGRESS, steps=2_000_000, phase="done"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and "100%" in lines[-1] and lines[-1].endswith("done")


def test_recording_leaves_out_periods_over_lost_status_messages() -> None:
    recording = Recording(tick_stamp_s=[(1, 0.00), (2, 0.02), (5, 0.08), (6, 0.101)])
    assert recording.as_json()["tick_period_s"] == pytest.approx([0.02, 0.021])


def test_summary_names_the_push_and_the_latencies() -> None:
    result = {
        "survived": True, "failure": "", "push_velocity": [0.3, -0.4],
        "tick_latency_s": [0.001] * 99 + [0.003], "tick_period_s": [0.02, 0.021],
        "host_period_error_s": {"p50": 1e-5, "p99": 2e-4, "max": 1e-3},
    }  # fmt: skip
    text = "\n".join(summary(result))
    for part in ("0.50 m/s", "stayed up", "1.00/", "3.00 ms", "10/200 us"):
        assert part in text
    assert "fell (tilt)" in "\n".join(summary({**result, "survived": False, "failure": "tilt"}))


def test_evaluations_of_both_kinds_can_be_told() -> None:
    push = {
        "task": "stand", "kind": "push", "simulator": "mujoco", "episodes": 200, "seed": 1,
        "push_half_mps": 0.6, "policy": {"survival": 0.9}, "baseline": {"survival": 0.5},
        "sweep": [{"push_mps": 0.2, "policy": 1.0, "baseline": 0.95, "episodes": 50}],
    }  # fmt: skip
    assert "survived with the policy 90%, without 50%" in describe_evaluation(push)[0]
    walk = {
        "task": "walk", "kind": "velocity", "simulator": "mujoco", "episodes": 64, "seed": 1, "success": 0.75,
        "survival": 1.0, "velocity_error_mps": 0.1, "yaw_rate_error_radps": 0.05,
    }  # fmt: skip
    assert "success 75%" in describe_evaluation(walk)[0]
    nobody_stayed_up = walk | {"survival": 0.0, "velocity_error_mps": None, "yaw_rate_error_radps": None}
    assert "error - m/s and - rad/s" in describe_evaluation(nobody_stayed_up)[0]
