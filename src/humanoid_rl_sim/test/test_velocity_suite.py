"""velocity-v1 fails who falls, passes who follows, and says where."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import velocity_suite
from humanoid_rl_sim.learning.actor import GraphActor, OnnxActor, baseline_graph
from humanoid_rl_sim.learning.evaluation import write_json
from humanoid_rl_sim.tasks.configuration import Range, load_task
from humanoid_rl_sim.tasks.terrain import Severity

WALK = load_task("walk")


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(velocity_suite, "EPISODE", 4.0)
    monkeypatch.setattr(velocity_suite, "COMMANDS", ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.3, 0.5)))
    monkeypatch.setattr(velocity_suite, "PUSH_SWEEP", (0.25, 5.0))


def walker(environment, name="g1_walk"):
    policy = OnnxPolicy(share_dir() / "policies" / f"{name}.onnx", load_robot())
    return OnnxActor(policy, environment.num_envs)


def rough_task(**terrain):
    task = load_task("rough")
    return dataclasses.replace(task, terrain=dataclasses.replace(task.terrain, **terrain))


def test_the_gains_alone_fall(short):
    result = velocity_suite.evaluate(
        WALK, lambda env: GraphActor(baseline_graph(env.graph)), repetitions=2, sweep_episodes=2
    )
    assert result["success"] == result["survival"] == 0.0 and np.isnan(result["velocity_error_mps"])
    assert result["largest_push_survived_mps"] == {"standing": 0.0, "walking": 0.0}
    assert any("nan" in line for line in velocity_suite.table(result))


def test_a_result_read_back_from_its_file_is_told_with_dashes_for_what_is_no_number(short, tmp_path):
    result = velocity_suite.evaluate(
        rough_task(kinds={"flat": Severity(0.0, 0.0)}, levels=1),
        lambda env: GraphActor(baseline_graph(env.graph)),
        repetitions=1,
        sweep_episodes=1,
    )
    result["terrain"][0]["levels"].append(float("nan"))
    write_json(tmp_path / "evaluation.json", result)
    read = json.loads((tmp_path / "evaluation.json").read_text())
    assert read["velocity_error_mps"] is None
    lines = velocity_suite.table(read)
    assert (
        lines[1]
        == "mean error - m/s, - rad/s; power - W, action rate -, slip - m/s, touches itself - of the time"
    )
    assert lines[2].startswith("peak torque - of the limit (-); largest push survived 0 m/s standing")
    numbers = velocity_suite.table(result)
    assert [len(line) for line in lines[4:7]] == [len(line) for line in numbers[4:7]]
    assert lines[4].split() == ["0.0", "0.0", "0.0", "0%", "-", "-"]
    assert lines[-1].split() == ["flat", "0%", "0%", "-"]


def test_the_shipped_policy_walks(short):
    result = velocity_suite.evaluate(WALK, walker, repetitions=3, sweep_episodes=4)
    assert result["success"] == 1.0 and result["episodes"] == 9
    assert [(row["vx"], row["vy"], row["yaw_rate"]) for row in result["conditions"]] == list(
        velocity_suite.COMMANDS
    )
    assert 0.0 < result["velocity_error_mps"] < 0.25 and 0.0 < result["yaw_rate_error_radps"] < 0.3
    assert result["largest_push_survived_mps"] == {"standing": 0.25, "walking": 0.25}  # nobody survives 5 m/s
    assert 0.3 < max(result["peak_torque_of_limit"].values()) <= 1.0 + 1e-6
    assert 50.0 < result["power_w"] < 1000.0


def test_a_robot_that_stands_does_not_follow(short):
    """Standing through an episode is no success where something else was asked for."""
    standing = dataclasses.replace(
        WALK, command=dataclasses.replace(WALK.command, vx=Range(0, 0), vy=Range(0, 0), yaw_rate=Range(0, 0))
    )  # the graph clamps every command to zero
    measured = velocity_suite.run(
        standing,
        lambda env: _Deaf(walker(env)),
        np.repeat(np.array([[0.5, 0.0, 0.0]]), 3, axis=0),
        seed=1,
    )
    assert not measured.fell.any()
    assert (measured.velocity_error > velocity_suite.VELOCITY_ERROR).all()


def test_rough_v1_says_on_which_ground_it_goes_well(short, monkeypatch):
    """Easy stones, and slopes on which every foot slides, which only who walks off the middle meets."""
    monkeypatch.setattr(velocity_suite, "COMMANDS", ((0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.0, 0.5)))
    kinds = {"rubble": Severity(0.0, 0.01), "slope_down": Severity(2.0, 2.0)}
    task = rough_task(kinds=kinds, levels=2)
    result = velocity_suite.evaluate(
        task, lambda env: walker(env, "g1_rough"), repetitions=4, sweep_episodes=2
    )
    assert result["suite"] == "rough-v1" and result["episodes"] == 12
    stones, slopes = result["terrain"]
    assert (stones["kind"], slopes["kind"]) == ("rubble", "slope_down")
    assert stones["success"] >= 0.8
    assert slopes["success"] < 0.7
    for row in (stones, slopes):
        assert len(row["levels"]) == 2 and np.mean(row["levels"]) == pytest.approx(row["success"])
    assert any(line.startswith("slope_down") for line in velocity_suite.table(result))


def test_every_command_meets_many_levels_and_kinds(monkeypatch):
    task = load_task("rough")
    kinds, levels = len(task.terrain.kinds), task.terrain.levels
    met = {}

    def run(task, make_actor, commands, *, sim, seed):
        robots = torch.arange(len(commands))
        kind, level = robots % kinds, robots // kinds % levels
        for command, *ground in zip(commands.tolist(), kind.tolist(), level.tolist(), strict=True):
            met.setdefault(tuple(command), []).append(ground)
        told = torch.as_tensor(commands, dtype=torch.float32)
        zero = torch.zeros(len(commands))
        return velocity_suite.Trajectory(
            velocity_error=0.01 * (kind + 10 * level), yaw_rate_error=1.0 + told[:, 2], power=zero,
            action_rate=zero, slip=zero, self_contact=zero, peak_torque=torch.zeros(len(commands), 29),
            fell=zero.bool(), judged=zero + 1.0, kind=kind, level=level,
        )  # fmt: skip

    monkeypatch.setattr(velocity_suite, "run", run)
    monkeypatch.setattr(velocity_suite, "largest_push", lambda *args, **options: 0.0)
    monkeypatch.setattr(velocity_suite, "YAW_RATE_ERROR", 9.9)
    result = velocity_suite.evaluate(task, walker)
    for command in velocity_suite.COMMANDS:
        on_kinds, on_levels = (set(column) for column in zip(*met[command], strict=True))
        assert len(on_levels) >= 4 and len(on_kinds) >= 3, command
    # What was measured is told under the command, the kind and the level that it belongs to.
    for row in result["conditions"]:
        assert row["yaw_rate_error_radps"] == pytest.approx(1.0 + row["yaw_rate"])
        grounds = met[row["vx"], row["vy"], row["yaw_rate"]]
        error = [0.01 * (kind + 10 * level) for kind, level in grounds]
        assert row["velocity_error_mps"] == pytest.approx(np.mean(error))
    for index, row in enumerate(result["terrain"]):
        assert row["levels"] == [float(0.01 * (index + 10 * level) < 0.25) for level in range(levels)]


def test_an_episode_ends_well_where_the_robot_has_crossed_its_cell(monkeypatch):
    monkeypatch.setattr(velocity_suite, "EPISODE", 8.0)
    task = rough_task(kinds={"flat": Severity(0.0, 0.0)}, levels=1, cell=3.0)
    commands = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).repeat(3, axis=0)
    measured = velocity_suite.run(task, lambda env: walker(env, "g1_rough"), commands, seed=2)
    assert not measured.fell.any()
    assert (measured.judged[:3] == (8.0 - velocity_suite.START) / task.control_period).all()
    assert (measured.judged[3:] < 2.5 / task.control_period).all()
    assert (measured.velocity_error[:3] < velocity_suite.VELOCITY_ERROR).all()


class _Deaf:
    """The walker, told to stand whatever is commanded."""

    def __init__(self, actor):
        self._actor = actor

    def act(self, environment, observation, started):
        command = environment.view.command
        environment.view.command = 0.0 * command
        decision = self._actor.act(environment, observation, started)
        environment.view.command = command
        return decision


def test_conditions_are_those_of_the_suite_whatever_the_task_trains_with():
    task = velocity_suite.condition(dataclasses.replace(WALK, push=None))
    assert task.push == velocity_suite.PUSHES and task.push.full_strength_at == 0.0
    assert (task.randomisation.payload.lower, task.randomisation.payload.upper) == (-2.0, 2.0)
    assert task.latency.action.upper == 0.02
    assert len(velocity_suite.COMMANDS) * velocity_suite.REPETITIONS >= 300
