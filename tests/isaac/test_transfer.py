"""The transfer report's measurements in Isaac Lab."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import evaluation
from humanoid_rl_sim.transfer import measuring, open_loop
from humanoid_rl_sim.transfer.comparison import Measured, divergence
from humanoid_rl_sim.transfer.job import Job, write_arrays
from humanoid_rl_sim.transfer.measuring import measure


@pytest.mark.parametrize("engine", ["newton", "ovphysx"])
def test_what_mujoco_does_is_done_here(engine, tmp_path, monkeypatch):
    """Suite, pushes and open loop in one go: an engine takes a minute to start."""
    monkeypatch.setattr(open_loop, "RECORDED", 0.3)
    monkeypatch.setattr(measuring, "SWEEP_EPISODES", 2)
    monkeypatch.setattr(evaluation, "PUSH_EPISODE", 2.0)
    policy = str(share_dir() / "policies" / "g1_stand.onnx")
    job = Job("reference", "mujoco", "", "g1", "rev_1_0", policy=policy, episodes=2)
    _, commands = measure(job)
    write_arrays(tmp_path / "commands.npz", commands)
    told = dataclasses.replace(job, kind="measure", push=0.2, commands=str(tmp_path / "commands.npz"))
    mujoco, isaac = (
        Measured(sim, *measure(dataclasses.replace(told, sim=sim)), 1.0)
        for sim in ("mujoco", f"isaac:{engine}")
    )
    assert isaac.document["simulator"] == f"isaac:{engine}" and isaac.document["standing"] == 1.0
    policy_gap, air_gap = (divergence(mujoco, isaac, part) for part in ("policy", "air"))
    assert policy_gap is not None and air_gap is not None
    assert policy_gap.base_distance.max() < open_loop.PUSH * 0.3  # not farther apart than the push took them
    assert 0.0 < air_gap.joint_rms.max() < 0.01
    assert np.isfinite(air_gap.by_joint).all() and len(air_gap.by_joint) == load_robot().joint_count
