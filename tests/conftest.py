"""Fixtures of the tests that cross packages."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The nodes of a test never meet another robot, twin or test: each module picks its own domain.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, which children would inherit; these tests send it to them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def python_m_humanoid_rl() -> list[str]:
    """The command line as a list of words, for subprocesses."""
    return [sys.executable, "-m", "humanoid_rl"]


@pytest.fixture(scope="session")
def baseline_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported policy whose action is always zero: the stiff gains hold the default pose."""
    import numpy as np
    import torch
    from humanoid_rl_core.export import export_policy
    from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph
    from humanoid_rl_core.robot import load_robot

    robot = load_robot()
    joints = len(robot.joint_names)
    terms = ("base_ang_vel", "projected_gravity", "command", "joint_pos_rel", "joint_vel", "last_action")
    graph = PolicyGraph(
        joint_names=robot.joint_names,
        default_position=robot.default_position,
        action_scale=np.full(joints, 0.25),
        position_lower=robot.position_lower,
        position_upper=robot.position_upper,
        command_names=("vx", "vy", "yaw_rate"),
        command_lower=np.zeros(3),
        command_upper=np.zeros(3),
        observation=[ObservationTerm(term) for term in terms],
    )
    network = torch.nn.Linear(graph.observation_size, joints)
    torch.nn.init.zeros_(network.weight)
    torch.nn.init.zeros_(network.bias)
    graph.network = network
    return export_policy(
        tmp_path_factory.mktemp("policy") / "baseline.onnx",
        graph,
        robot,
        robot.gains["stiff"],
        name="baseline",
        control_period=0.02,
        training={
            "task": "stand", "simulator": "none", "seed": 0, "steps": 0, "git_revision": "", "metrics": {},
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def standing_policy(baseline_policy: Path) -> Path:
    """The standing policy that ships with the workspace, or the baseline while there is none."""
    from humanoid_rl_core.resources import share_dir

    shipped = share_dir() / "policies" / "g1_stand.onnx"
    return shipped if shipped.is_file() else baseline_policy


@pytest.fixture(scope="session")
def domain() -> Iterator[int]:
    """A DDS domain: ROS_DOMAIN_ID where it is set, one that nobody on this machine uses otherwise."""
    from domain_coordinator import domain_id

    if given := os.environ.get("ROS_DOMAIN_ID"):
        yield int(given)
        return
    with domain_id() as free:
        yield int(free)
