"""The real robot, the shipped thresholds and a policy with an untrained network: what these tests share."""

from pathlib import Path

import pytest
import torch
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.height_scan import HeightScan
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel, load_robot
from humanoid_rl_inference.safety_config import SafetyConfig, load_safety_config
from torch import nn


@pytest.fixture(scope="session")
def robot() -> RobotModel:
    return load_robot("g1", "rev_1_0")


@pytest.fixture(scope="session")
def safety() -> SafetyConfig:
    return load_safety_config(share_dir() / "config" / "safety" / "g1.yaml")


def export_untrained(robot: RobotModel, path: Path, scan: HeightScan | None = None) -> Path:
    """A velocity policy whose network is untrained, so that it stays near the default pose."""
    torch.manual_seed(0)
    names = ["base_ang_vel", "projected_gravity", "command", "joint_pos_rel", "joint_vel", "last_action"]
    gains = robot.gains["compliant"]
    graph = PolicyGraph(
        joint_names=robot.joint_names,
        default_position=robot.default_position,
        action_scale=0.25 * robot.effort_limit / gains.stiffness,
        position_lower=robot.position_lower,
        position_upper=robot.position_upper,
        command_names=("vx", "vy", "yaw_rate"),
        command_lower=(-0.5, -0.3, -0.5),
        command_upper=(1.0, 0.3, 0.5),
        observation=[ObservationTerm(name) for name in (*names, *(["height_scan"] if scan else []))],
        height_scan=scan,
    )
    joints = len(robot.joint_names)
    graph.network = nn.Sequential(nn.Linear(graph.observation_size, 64), nn.ELU(), nn.Linear(64, joints))
    training = {
        "task": "walk",
        "simulator": "mujoco",
        "seed": 0,
        "steps": 0,
        "git_revision": "untrained",
        "metrics": {},
    }
    return export_policy(path, graph, robot, gains, name="untrained", control_period=0.02, training=training)


@pytest.fixture(scope="session")
def policy_file(robot: RobotModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_untrained(robot, tmp_path_factory.mktemp("policy") / "untrained.onnx")


@pytest.fixture(scope="session")
def seeing_policy_file(robot: RobotModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that needs a height scan, at 3 x 3 points."""
    scan = HeightScan(0.5, 0.5, 0.25, origin=robot.base_link, standing_height=robot.default_base_height)
    return export_untrained(robot, tmp_path_factory.mktemp("policy") / "seeing.onnx", scan)
