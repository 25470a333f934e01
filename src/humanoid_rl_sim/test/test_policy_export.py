"""From a run's model to a policy file that acts the same on raw sensors."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import evaluation
from humanoid_rl_sim.learning.actor import actor_graph
from humanoid_rl_sim.learning.configuration import PpoConfig, TrainingConfig
from humanoid_rl_sim.learning.evaluation import GraphActor, OnnxActor
from humanoid_rl_sim.learning.policy_export import export_run
from humanoid_rl_sim.learning.run_files import latest_checkpoint
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from stable_baselines3 import PPO


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates on a task with three frames of history and every command."""
    folder = tmp_path_factory.mktemp("export")
    task = dataclasses.asdict(load_task("stand")) | {"name": "varied", "episode_length": 0.7}
    task["observation"]["history"] = 3
    for name in ("vx", "vy", "yaw_rate"):
        task["command"][name] = {"lower": -0.5, "upper": 0.5}
    path = folder / "varied.yaml"
    path.write_text(json.dumps(task))  # which is YAML too
    config = TrainingConfig(
        task=str(path),
        num_envs=8,
        steps=128,
        seed=1,
        evaluation_episodes=2,
        ppo=PpoConfig(
            rollout_steps=8,
            minibatches=2,
            hidden_sizes=(16,),
            critic_hidden_sizes=(16,),
            learning_rate=5e-3,
            maximum_learning_rate=5e-3,
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate_velocity", lambda *args, **kwargs: {"success": 0.5})
        train(config, folder / "run")
    return folder / "run"


def test_the_policy_file_acts_like_the_trained_actor_over_whole_episodes(run):
    robot = load_robot()
    policy = OnnxPolicy(export_run(run), robot)
    graph = actor_graph(PPO.load(latest_checkpoint(run), device="cpu").policy)
    task, envs = load_task(policy.contract.training.task), 3
    environment = Environment(
        task,
        make_simulator("mujoco", robot, envs, timestep=task.physics_timestep),
        seed=0,
        training=False,
    )
    trained, exported = GraphActor(graph), OnnxActor(policy, envs)
    largest, ends, seen = 0.0, 0, []
    try:
        with torch.no_grad():
            observation, _ = environment.reset()
            started = torch.ones(envs, dtype=torch.bool)
            for _ in range(80):
                expected = trained.act(environment, observation, started).action
                action = exported.act(environment, observation, started).action
                largest = max(largest, float((action - environment.graph.clip_action(expected)).abs().max()))
                result = environment.step(expected)
                observation, started = result.observation, result.terminated | result.truncated
                ends += int(started.sum())
                seen.append(expected)
    finally:
        environment.close()
    assert largest <= 1e-5
    assert ends >= 2 * envs
    assert float(torch.stack(seen).std(0).max()) > 1e-3


def test_the_policy_file_says_where_it_comes_from(run):
    contract = OnnxPolicy(export_run(run), load_robot()).contract
    assert contract.name == "g1_varied" and contract.history == 3
    assert contract.training.steps == 128 and contract.training.seed == 1
    assert contract.training.simulator == "mujoco"
    with (run / "evaluations.csv").open(newline="") as file:
        score = float(list(csv.DictReader(file))[-1]["score"])
    assert contract.training.metrics == {"evaluation_score": score}


def test_a_checkpoint_is_exported_where_it_is_asked_for(run, tmp_path):
    output = tmp_path / "mine.onnx"
    assert export_run(run, output=output, checkpoint=latest_checkpoint(run)) == output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.onnx"]


def test_what_cannot_be_exported_is_refused_in_one_line(run, tmp_path):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a usable model") as refused:
        export_run(run, output=tmp_path / "out.onnx", checkpoint=broken)
    assert "\n" not in str(refused.value)
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="no model to export; train first"):
        export_run(tmp_path)
    assert not (tmp_path / "out.onnx").exists()
