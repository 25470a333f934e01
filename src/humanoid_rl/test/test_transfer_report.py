"""The page of the transfer report: what it says, and that it needs nothing from the network."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from humanoid_rl.reports.transfer_report import write_transfer_report
from humanoid_rl_core.robot import Gains, load_robot
from humanoid_rl_sim.transfer.comparison import Measured, compare, table, violations
from humanoid_rl_sim.transfer.open_loop import OpenLoop
from humanoid_rl_sim.transfer.windows import Windows

JOINTS = load_robot().joint_names
SIMS = ("mujoco", "mujoco_warp", "isaac:newton", "isaac:ovphysx")
COMMANDS = tuple(itertools.product((-0.5, 0.5), (0.0, 0.3), (0.0,)))


def arrays(seed: int, parts: tuple[str, ...]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    result = {}
    for part in parts:
        steps = {"policy": 101, "air": 26, "log": 251}[part]
        grown = np.linspace(0.0, 0.01 * seed, steps)[:, None, None]
        result[f"{part}.joint_pos"] = grown * generator.standard_normal((steps, 4, 29))
        result[f"{part}.base_pos"] = 10.0 * grown * np.ones((steps, 4, 3))
        result[f"{part}.base_quat"] = np.tile([1.0, 0.0, 0.0, 0.0], (steps, 4, 1))
    return result


def walking(seed: int, sim: str, *, parts: tuple[str, ...] = ("policy", "air")) -> Measured:
    success = 1.0 - 0.2 * (sim == "isaac:newton")
    conditions = [
        {
            "vx": c[0],
            "vy": c[1],
            "yaw_rate": c[2],
            "success": success,
            "velocity_error_mps": None if not i else 0.1,
            "yaw_rate_error_radps": None if not i else 0.05,
        }
        for i, c in enumerate(COMMANDS)
    ]
    document = {
        "simulator": sim, "kind": "velocity", "suite": "velocity-v1", "task": "walk", "episodes": 12,
        "success": success, "survival": 1.0, "velocity_error_mps": 0.1 + 0.01 * seed, "yaw_rate_error_radps": math.nan,
        "power_w": 200.0, "foot_slip_mps": 0.05, "conditions": conditions,
    }  # fmt: skip
    return Measured(sim, document, arrays(seed, parts), 12.0)


def standing(seed: int, sim: str) -> Measured:
    document = {
        "simulator": sim, "kind": "push", "task": "stand", "episodes": 100, "standing": 0.97, "policy": 0.86,
        "baseline": 0.5, "push_mps": 0.31,
    }  # fmt: skip
    return Measured(sim, document, arrays(seed, ("policy", "air")), 12.0)


def write(
    path: Path, measured: list[Measured], *, windows: Windows | None = None, reference: float | None = None
):
    result = {
        "policy": None if windows else "<walk>.onnx", "recording": "real.mcap" if windows else None, "seed": 3,
        "threshold": 0.9, "gap": 0.1, "joint_gap": None,
        **compare(measured, reference=reference, period=0.02, joints=JOINTS, windows=windows),
    }  # fmt: skip
    result["violations"] = violations(result, threshold=0.9, gap=0.1)
    write_transfer_report(path, result, measured, joints=JOINTS, period=0.02, windows=windows)
    return result, path.read_text()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "transfer.html"


def test_a_page_of_four_simulators_says_who_fails(path):
    result, page = write(path, [walking(seed, sim) for seed, sim in enumerate(SIMS)])
    assert all(sim in page for sim in SIMS)
    assert "isaac:newton: success 80.0% is below 90.0%" in page and "4 violated" in page
    assert page.count("data:image/svg+xml;base64,") == 3
    assert len(result["pairs"]) == 6 and page.count("isaac:newton - isaac:ovphysx") == 1
    assert "&lt;walk&gt;.onnx" in page and "<walk>" not in page
    assert [path.name for path in path.parent.iterdir()] == ["transfer.html"]


def test_it_needs_nothing_from_the_network(path):
    _, page = write(path, [walking(seed, sim) for seed, sim in enumerate(SIMS)])
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "<script" not in page and "@import" not in page


def test_a_standing_policy_has_its_pushes_told(path):
    _, page = write(path, [standing(seed, sim) for seed, sim in enumerate(SIMS)], reference=0.86)
    assert "Pushes of 0.31 m/s" in page and "97.0 %" in page
    assert "kept" in page and "success at least 90 %, gap at most 10 points" in page


def test_a_policy_that_fell_leaves_a_gap_that_is_told(path):
    _, page = write(path, [walking(seed, sim, parts=("air",)) for seed, sim in enumerate(SIMS[:2])])
    assert "the policy fell in MuJoCo" in page


def test_one_simulator_alone_has_no_pair(path):
    result, page = write(path, [walking(0, "mujoco")])
    assert result["pairs"] == [] and "Between each two" not in page and "in the air" not in page


def test_a_recorded_robot_is_told_by_joint(path):
    joints = np.zeros((251, 4, 29))
    joints[1:, :, 3] = 0.2
    gains = Gains(np.ones(29), np.ones(29))
    commands = OpenLoop({}, np.zeros((250, 4, 29), np.float32), 0.002, gains)
    windows = Windows(commands, joints, np.arange(4.0), dropped=17)
    log = {"log.joint_pos": np.zeros((251, 4, 29))}
    result, page = write(path, [Measured("mujoco", {"simulator": "mujoco"}, log, 2.0)], windows=windows)
    assert "most at left knee, 0.200 rad" in page and "4 windows of 0.5 s of real.mcap" in page
    assert "begin at 0.00, 1.00, 2.00, 3.00 s of the recording, of which 17 messages were left out" in page
    assert "In each simulator" not in page
    assert "thresholds" not in page and "seed" not in page  # nothing was asked, nothing drawn at random
    assert table(result)[2].split() == [
        "mujoco", "37.1", "mrad", "left_knee", "199.6,", "left_hip_pitch", "0.0,", "left_hip_roll", "0.0,",
        "left_hip_yaw", "0.0,", "left_ankle_pitch", "0.0",
    ]  # fmt: skip


def test_the_table_has_its_columns_under_their_names():
    measured = [walking(seed, sim) for seed, sim in enumerate(SIMS)]
    lines = table(compare(measured, reference=None, period=0.02, joints=JOINTS))
    for row in lines[1:5]:
        assert len(row) == len(lines[0])
    assert lines[7].startswith("mujoco - mujoco_warp") and "never" not in lines[8]
    print("\n".join(lines))
