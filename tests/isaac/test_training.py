"""A policy that learned in Isaac Lab is one of MuJoCo too, and a training there is launched as any other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.evaluation import evaluate_policy
from humanoid_rl_sim.learning.policy_export import export_run
from humanoid_rl_sim.learning.training import train

STEPS, ROBOTS = 250_000, 128


@pytest.mark.timeout(1800)
def test_a_short_training_on_ovphysx_beats_the_joint_gains_alone_in_mujoco(tmp_path):
    config = load_training_config(
        "stand",
        {
            "sim": "isaac:ovphysx",
            "num_envs": str(ROBOTS),
            "steps": str(STEPS),
            "seed": "1",
            "ppo.rollout_steps": "24",
            "evaluation_interval": str(10 * STEPS),
        },
    )
    train(config, tmp_path / "run")
    policy = export_run(tmp_path / "run")
    result = evaluate_policy(policy, seed=1)
    survived, without = result["policy"]["survival"], result["baseline"]["survival"]
    print(
        f"pushes of {result['push_half_mps']} m/s in MuJoCo: {survived:.0%} with, {without:.0%} without the policy"
    )
    assert survived > without + 0.1


def test_a_training_is_launched_with_the_engine_named(tmp_path):
    words = ("task:=stand", "sim:=isaac", "engine:=newton", "num_envs:=4", "steps:=400", "name:=short")
    launch = subprocess.run(
        [sys.executable, "-m", "humanoid_rl", "launch", "train", *words],
        env=os.environ | {"HUMANOID_RL_RUNS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert launch.returncode == 0, launch.stdout + launch.stderr
    assert list((tmp_path / "short" / "checkpoints").glob("*.zip"))
    assert "sim: isaac:newton" in (tmp_path / "short" / "config.yaml").read_text()
