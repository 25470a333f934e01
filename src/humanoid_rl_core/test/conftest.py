"""The real robot, and policies for it with untrained networks: what the policy tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.height_scan import HeightScan
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph
from humanoid_rl_core.robot import RobotModel, load_robot
from torch import nn

TERMS = (
    ObservationTerm("base_ang_vel", 0.25),
    ObservationTerm("projected_gravity"),
    ObservationTerm("command", 2.0),
    ObservationTerm("joint_pos_rel"),
    ObservationTerm("joint_vel", 0.05),
    ObservationTerm("last_action"),
)
TRAINING = {
    "task": "walk",
    "simulator": "mujoco",
    "seed": 7,
    "steps": 1_000_000,
    "git_revision": "0123abc",
    "metrics": {"survival": 0.97},
}


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return load_robot("g1", "rev_1_0")


@pytest.fixture(scope="session")
def make_graph(robot: RobotModel) -> Callable[..., PolicyGraph]:
    """make_graph(history=3, seed=0, **changes): a G1 policy graph with random weights and statistics."""

    def make(history: int = 3, seed: int = 0, **changes: Any) -> PolicyGraph:
        torch.manual_seed(seed)
        arguments: dict[str, Any] = {
            "joint_names": robot.joint_names,
            "default_position": robot.default_position,
            "action_scale": 0.25 * robot.effort_limit / robot.gains["compliant"].stiffness,
            "position_lower": robot.position_lower,
            "position_upper": robot.position_upper,
            "command_names": ("vx", "vy", "yaw_rate"),
            "command_lower": (-0.5, -0.3, -0.5),
            "command_upper": (1.0, 0.3, 0.5),
            "observation": TERMS,
            "history": history,
        }
        graph = PolicyGraph(**(arguments | changes))
        size = graph.observation_size
        graph.network = nn.Sequential(nn.Linear(size, 32), nn.ELU(), nn.Linear(32, graph.action_size))
        rng = np.random.default_rng(seed)
        graph.set_normalisation(rng.normal(0.0, 0.1, size), rng.uniform(0.5, 2.0, size))
        return graph

    return make


@pytest.fixture(scope="session")
def export(robot: RobotModel) -> Callable[..., Path]:
    """export(path, graph, **changes): export_policy with the arguments a training run would give."""

    def run(path: Path, graph: PolicyGraph, **changes: Any) -> Path:
        arguments: dict[str, Any] = {"name": "test", "control_period": 0.02, "training": TRAINING}
        return export_policy(path, graph, robot, robot.gains["compliant"], **(arguments | changes))

    return run


@pytest.fixture(scope="session")
def policy_file(
    tmp_path_factory: pytest.TempPathFactory,
    make_graph: Callable[..., PolicyGraph],
    export: Callable[..., Path],
) -> Path:
    """A sound policy with a history of 3 frames. Not to be changed."""
    return export(tmp_path_factory.mktemp("policy") / "policy.onnx", make_graph())


@pytest.fixture(scope="session")
def seeing_graph(robot: RobotModel, make_graph: Callable[..., PolicyGraph]) -> PolicyGraph:
    """A graph with 3 frames of history that sees the ground at 5 x 3 points. Not to be changed."""
    return make_graph(
        observation=(*TERMS, ObservationTerm("height_scan", 2.0)),
        height_scan=HeightScan(
            1.0, 0.5, 0.25, origin=robot.base_link, standing_height=robot.default_base_height
        ),
    )


@pytest.fixture(scope="session")
def seeing_policy_file(
    tmp_path_factory: pytest.TempPathFactory, seeing_graph: PolicyGraph, export: Callable[..., Path]
) -> Path:
    """`seeing_graph`, exported. Not to be changed."""
    return export(tmp_path_factory.mktemp("policy") / "seeing.onnx", seeing_graph)


@pytest.fixture(scope="session")
def sensors(robot: RobotModel) -> Callable[..., dict[str, np.ndarray]]:
    """sensors(steps, seed=0): random raw sensors of an episode, float32, [steps, size] by input name."""

    def make(steps: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        joints = len(robot.joint_names)
        readings = {
            "joint_pos": robot.default_position + rng.normal(0.0, 0.3, (steps, joints)),
            "joint_vel": rng.normal(0.0, 3.0, (steps, joints)),
            "imu_gyro": rng.normal(0.0, 1.0, (steps, 3)),
            "imu_quat": rng.normal(0.0, 1.0, (steps, 4)),
            "command": rng.uniform(-1.5, 1.5, (steps, 3)),
        }
        return {name: values.astype(np.float32) for name, values in readings.items()}

    return make
