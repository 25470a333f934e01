"""A policy that sees the ground is evaluated in simulation and never deployed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from humanoid_rl.launching.preflight import check_policy
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.actor import baseline_graph
from humanoid_rl_sim.tasks.configuration import ObservationTermConfig, load_task
from humanoid_rl_sim.tasks.environment import gain_set, make_policy_graph


def exported(path: Path, *more: ObservationTermConfig) -> Path:
    """A policy for the rough task with these observation terms more, whose action is always zero."""
    task = load_task("rough")
    observation = dataclasses.replace(task.observation, terms=(*task.observation.terms, *more))
    task = dataclasses.replace(task, observation=observation)
    robot = load_robot(task.robot, task.variant)
    return export_policy(
        path, baseline_graph(make_policy_graph(task, robot)), robot, gain_set(task, robot),
        name="zero", control_period=task.control_period,
        training={
            "task": "rough", "simulator": "none", "seed": 0, "steps": 0, "git_revision": "", "metrics": {},
        },
    )  # fmt: skip


def test_a_policy_that_sees_the_ground_is_refused_before_anything_starts(tmp_path):
    blind = exported(tmp_path / "blind.onnx")
    assert check_policy(blind, "g1", "rev_1_0").height_scan is None
    seeing = exported(tmp_path / "seeing.onnx", ObservationTermConfig("height_scan"))
    with pytest.raises(
        UserError, match=r"asks for the ground at 77 points, .* has no sensor that"
    ) as refused:
        check_policy(seeing, "g1", "rev_1_0")
    assert str(refused.value).startswith(f"{seeing}: ") and "\n" not in str(refused.value)
