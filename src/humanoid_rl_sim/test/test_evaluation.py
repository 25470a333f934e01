"""How policies are judged: the same pushes for all, counted rightly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import foreign_files
import numpy as np
import pytest
import torch
import yaml
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.foreign.importing import import_policy
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import evaluation
from humanoid_rl_sim.learning.actor import baseline, baseline_graph, run_episodes
from humanoid_rl_sim.learning.evaluation import (
    commands_motion,
    evaluate_policy,
    evaluate_velocity,
    half_survival_speed,
    judged_policy,
    push_falls,
    score,
    write_json,
)
from humanoid_rl_sim.tasks.configuration import Range, TaskConfig, load_task
from humanoid_rl_sim.tasks.environment import Environment, gain_set, make_policy_graph
from humanoid_rl_sim.tasks.making import make_environment
from humanoid_rl_sim.tasks.terrain import Severity

STAND = load_task("stand")


def walking(vx: float) -> TaskConfig:
    """To stand, scored as a task that commands up to `vx` m/s."""
    return dataclasses.replace(STAND, command=dataclasses.replace(STAND.command, vx=Range(0.0, vx)))


@pytest.mark.parametrize(
    ("survival", "speed"),
    [
        ([1.0, 0.75, 0.25, 0.0], 0.4),  # halfway between 0.3 and 0.5
        ([1.0, 0.5, 0.25, 0.0], 0.3),
        ([1.0, 0.6, 0.2, 0.0], 0.35),
        ([1.0, 0.4, 0.9, 0.0], 0.267),  # the first of two crossings
        ([0.4, 0.3, 0.2, 0.1], 0.1),  # below one half from the start
        ([1.0, 0.9, 0.8, 0.5], 0.9),  # never below
    ],
)
def test_the_half_survival_push_is_the_first_crossing_of_one_half(survival, speed):
    assert half_survival_speed((0.1, 0.3, 0.5, 0.9), survival) == pytest.approx(speed, abs=5e-4)


def test_a_strong_push_topples_the_baseline_and_none_does_not():
    fell = push_falls(STAND, baseline, [0.0, 3.0, 0.0, 3.0], seed=1)
    assert fell.tolist() == [False, True, False, True]


def test_equal_seeds_give_the_same_falls(monkeypatch):
    monkeypatch.setattr(evaluation, "PUSH_EPISODE", 2.5)
    speeds = np.linspace(0.2, 0.8, 24)
    one, again, other = (push_falls(STAND, baseline, speeds, seed=seed) for seed in (1, 1, 2))
    assert 0 < one.sum() < len(speeds)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_score_is_the_share_that_survives(monkeypatch):
    graph = make_policy_graph(STAND, load_robot(STAND.robot, STAND.variant))
    monkeypatch.setattr(evaluation, "PUSH_EPISODE", 2.5)
    fell = push_falls(STAND, baseline, np.linspace(0.1, 0.8, 8), seed=4)
    value = score(STAND, baseline_graph(graph), sim="mujoco", episodes=8, seed=4)
    assert value == pytest.approx(1.0 - fell.mean()) and 0.0 < value < 1.0


def test_a_task_that_commands_nothing_is_judged_by_pushes_and_one_that_does_by_following():
    still = Range(0.0, 0.0)
    none = dataclasses.replace(STAND.command, vx=still, vy=still, yaw_rate=still)
    assert not commands_motion(dataclasses.replace(STAND, command=none))
    assert commands_motion(walking(0.5))


def test_standing_still_follows_the_commands_to_stand_and_no_others():
    # Told 0, 0.5 and 1 m/s: a robot that stands follows the first.
    result = evaluate_velocity(walking(1.0), baseline, episodes=3, seed=0)
    assert result["kind"] == "velocity" and result["survival"] == 1.0
    assert result["success"] == pytest.approx(1 / 3)
    assert result["velocity_error_mps"] == pytest.approx(0.5, abs=0.05)
    assert result["yaw_rate_error_radps"] < 0.05


def small_rough(**changes) -> TaskConfig:
    rough = load_task("rough")
    assert rough.terrain is not None
    terrain = dataclasses.replace(
        rough.terrain, kinds={"flat": Severity(0, 0)}, levels=1, cell=4.0, spacing=0.2
    )
    return dataclasses.replace(rough, terrain=terrain, **changes)


def scripted(monkeypatch, script) -> None:
    """Replace the episodes: `script(environment, step, result)` says what a step brought about."""

    def run(environment, actor, steps, on_step) -> None:
        n = environment.num_envs
        environment.reset()
        for step in range(steps):
            no = torch.zeros(n, dtype=torch.bool)
            result = SimpleNamespace(terminated=no, truncated=no.clone())
            script(environment, step, result)
            on_step(step, result)

    monkeypatch.setattr(evaluation, "run_episodes", run)


def test_who_has_crossed_the_cell_is_judged_up_to_there(monkeypatch):
    still = Range(0.0, 0.0)
    command = dataclasses.replace(load_task("rough").command, vx=Range(0.5, 0.5), vy=still, yaw_rate=still)

    def script(environment: Environment, step: int, result) -> None:
        following = torch.zeros(3, 3)
        following[:, :2] = environment.view.command[:, :2]
        if step == 150:
            result.truncated = torch.tensor([True, False, False])
        if step > 150:  # the next episode of the first robot, which starts from standing, and falls
            following[0] = 7.0
            result.terminated = torch.tensor([True, False, False])
        following[1] += 0.1
        if step == 60:
            result.truncated |= torch.tensor([False, False, True])  # before anything was judged
        environment.view.base_lin_vel_yaw = following
        environment.view.state.base_ang_vel[:] = 0.0

    scripted(monkeypatch, script)
    result = evaluate_velocity(small_rough(command=command), baseline, episodes=3)
    assert result["survival"] == 1.0
    assert result["success"] == pytest.approx(2 / 3)
    assert result["velocity_error_mps"] == pytest.approx(0.5 * 0.1 * np.sqrt(2.0), rel=1e-3)


def test_a_fall_after_crossing_the_cell_is_not_the_push_s(monkeypatch):
    def script(environment: Environment, step: int, result) -> None:
        result.truncated = torch.tensor([step == 100, False, False])
        result.terminated = torch.tensor([step == 200, False, step == 60])

    scripted(monkeypatch, script)
    assert push_falls(small_rough(), baseline, [0.1, 0.1, 0.1], seed=0).tolist() == [False, False, True]


def test_an_exported_policy_is_evaluated_into_a_file_that_holds_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "SWEEP_SPEEDS", (0.1, 1.6))
    monkeypatch.setattr(evaluation, "PUSH_EPISODE", 2.5)
    robot = load_robot(STAND.robot, STAND.variant)
    policy = export_policy(
        tmp_path / "still.onnx",
        baseline_graph(make_policy_graph(STAND, robot)),
        robot,
        gain_set(STAND, robot),
        name="still",
        control_period=STAND.control_period,
        training={
            "task": "stand", "simulator": "none", "seed": 0, "steps": 0, "git_revision": "", "metrics": {}
        },
    )  # fmt: skip
    output = tmp_path / "evaluation.json"
    result = evaluate_policy(policy, episodes=6, seed=3, output=output, sweep_episodes=4)
    assert json.loads(output.read_text()) == result
    assert set(result) == {
        "task", "kind", "simulator", "episodes", "seed", "push_half_mps", "policy", "baseline", "sweep",
        "policy_file",
    }  # fmt: skip
    assert (result["task"], result["kind"], result["episodes"], result["seed"]) == ("stand", "push", 6, 3)
    assert result["policy_file"] == "still.onnx"
    assert [row["push_mps"] for row in result["sweep"]] == [0.1, 1.6]
    assert all(row["episodes"] == 4 for row in result["sweep"])
    assert result["sweep"][0]["policy"] > 0.5 and result["sweep"][1]["baseline"] == 0.0
    assert 0.1 < result["push_half_mps"] < 1.6
    # The policy is the baseline, and has met the same starts and pushes.
    assert result["policy"] == result["baseline"]
    assert all(row["policy"] == row["baseline"] for row in result["sweep"])


@pytest.fixture
def imported_policy(tmp_path):
    """A policy of mjlab's, imported; gains of 10 to 38 Nm/rad in an order of its own."""
    robot = load_robot()
    foreign_files.mjlab_file(robot, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=foreign_files.MJLAB_SETTINGS)
    return tmp_path / "own.onnx"


def test_imported_policy_is_judged_with_its_own_gains(imported_policy, monkeypatch):
    met = []

    def evaluate_pushes(config, make_actor, **arguments):
        environment = make_environment(config, "mujoco", 1, seed=0, training=False)
        make_actor(environment)
        met.append(environment.simulator._gains)
        environment.close()
        return {}

    monkeypatch.setattr(evaluation, "evaluate_pushes", evaluate_pushes)
    evaluate_policy(imported_policy, task="stand")
    contract = OnnxPolicy(imported_policy, load_robot()).contract
    np.testing.assert_array_equal(met[0].stiffness, contract.stiffness)
    np.testing.assert_array_equal(met[0].damping, contract.damping)


def test_imported_policy_without_a_command_is_judged(tmp_path):
    terms = {name: term for name, term in foreign_files.mjlab_terms().items() if name != "command"}
    foreign_files.mjlab_file(load_robot(), tmp_path / "foreign.onnx", terms, command_names="")
    settings = [s for s in foreign_files.MJLAB_SETTINGS if not s.startswith("command_range")]
    import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=settings)
    judged = judged_policy(tmp_path / "own.onnx", "stand")
    assert judged.policy.contract.command_names == ()
    environment = make_environment(judged.task, "mujoco", 2, seed=0, training=False)
    steps = []
    try:
        run_episodes(environment, judged.actor(environment), 2, lambda step, result: steps.append(step))
    finally:
        environment.close()
    assert steps == [0, 1]


def test_imported_policy_moves_the_joints_to_its_own_targets(imported_policy):
    """Its pose and its scale are not those of the task that judges it."""
    judged = judged_policy(imported_policy, "stand")
    environment = make_environment(judged.task, "mujoco", 2, seed=0, training=False)
    actor = judged.actor(environment)
    wanted, step = [], judged.policy.step

    def noted(**sensors):
        wanted.append(step(**sensors))
        return wanted[-1]

    judged.policy.step = noted
    told = []

    def on_step(step, result):
        assert not result.terminated.any()
        told.append(environment.joint_target.numpy().copy())

    try:
        run_episodes(environment, actor, 3, on_step)
    finally:
        environment.close()
    targets = np.array([output.joint_target for output in wanted]).reshape(3, 2, -1)
    np.testing.assert_array_equal(np.array(told), targets.astype(np.float32))
    decoded = environment.graph.decode(torch.tensor(wanted[0].action[None], dtype=torch.float32))
    assert np.abs(targets[0, 0] - decoded.numpy()).max() > 0.02


def test_policy_of_a_task_with_another_variant_is_judged_on_that_robot(tmp_path):
    task = yaml.safe_load((share_dir() / "config" / "task" / "stand.yaml").read_text())
    path = tmp_path / "stand_15.yaml"
    path.write_text(yaml.safe_dump({**task, "variant": "mode_15"}))
    config = load_task(str(path))
    robot = load_robot("g1", "mode_15")
    policy = export_policy(
        tmp_path / "still.onnx",
        baseline_graph(make_policy_graph(config, robot)),
        robot,
        gain_set(config, robot),
        name="still",
        control_period=config.control_period,
        training={
            "task": str(path), "simulator": "none", "seed": 0, "steps": 0, "git_revision": "", "metrics": {}
        },
    )  # fmt: skip
    judged = judged_policy(policy)
    assert judged.task.variant == judged.policy.contract.variant == "mode_15"
    with pytest.raises(UserError, match="contract field 'variant'"):
        judged_policy(policy, "stand")


def test_imported_policy_is_judged_in_the_task_and_at_the_period_it_was_made_for(imported_policy, tmp_path):
    with pytest.raises(UserError, match="does not tell its task; name one with --task"):
        evaluate_policy(imported_policy)
    settings = [s for s in foreign_files.MJLAB_SETTINGS if not s.startswith("control_period")]
    slow = tmp_path / "slow.onnx"
    import_policy(tmp_path / "foreign.onnx", slow, settings=[*settings, "control_period=0.04"])
    with pytest.raises(UserError, match=r"steps every 0\.04 s, but the task stand every 0\.02 s"):
        evaluate_policy(slow, task="stand")


def test_json_that_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "evaluation.json"
    write_json(path, {"a": 1})

    def fail(self: Path, text: str) -> None:
        self.write_bytes(text[:1].encode())
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_bytes()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
