"""Exported policies in an environment of Isaac Lab's own: they stand and walk there, and mistakes are one line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
import torch
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.isaac_lab import ENVIRONMENT
from humanoid_rl_sim.isaac_lab.configuration import environment_cfg, shipped_usd
from humanoid_rl_sim.isaac_lab.play import main
from humanoid_rl_sim.isaac_lab.playing import play
from isaaclab.app import launch_simulation
from isaaclab.envs import ManagerBasedRLEnv

ROBOT = load_robot()
#: Robots and seconds. On a CPU Newton makes 26 control steps a second with one robot.
EFFORT = {"ovphysx": (4, 5.0), "newton": (1, 3.0)}


def policy(name: str) -> OnnxPolicy:
    return OnnxPolicy(share_dir() / "policies" / f"{name}.onnx", ROBOT)


@pytest.fixture
def environment() -> Iterator[ManagerBasedRLEnv]:
    """Two robots with the standing policy's contract."""
    usd = shipped_usd(ROBOT)
    assert usd is not None
    cfg = environment_cfg(policy("g1_stand").contract, ROBOT, usd, num_envs=2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(launch_simulation(cfg, {"device": "cpu", "headless": True, "visualizer": []}))
        made = gymnasium.make(ENVIRONMENT, cfg=cfg).unwrapped
        assert isinstance(made, ManagerBasedRLEnv)
        stack.callback(made.close)
        made.reset()
        yield made


def test_joints_have_what_the_contract_and_the_description_say(environment: ManagerBasedRLEnv) -> None:
    contract, robot = policy("g1_stand").contract, environment.scene["robot"]
    order = [robot.joint_names.index(name) for name in contract.joint_names]
    assert order != list(range(len(order)))  # Isaac Lab's own order: by depth in the tree
    data = robot.data
    for values, expected in (
        (data.joint_stiffness, contract.stiffness),
        (data.joint_damping, contract.damping),
        (data.joint_effort_limits, contract.effort_limit),
        (data.joint_armature, ROBOT.armature),
        (data.default_joint_pos, contract.default_position),
    ):
        np.testing.assert_allclose(values.torch[1, order].cpu(), expected, rtol=1e-5, atol=1e-7)
    assert environment.step_dt == pytest.approx(contract.control_period)

    seen = environment.observation_manager.compute()["policy"]
    assert isinstance(seen, dict)
    assert set(seen) == set(contract.input_shapes()) - {"state"}
    np.testing.assert_array_equal(seen["joint_pos"], data.joint_pos.torch[:, order])
    np.testing.assert_array_equal(seen["joint_vel"], data.joint_vel.torch[:, order])
    assert seen["imu_quat"][:, 0] == pytest.approx(1.0, abs=0.01)  # upright: w comes first

    target = torch.arange(2.0 * len(order)).view(2, -1) * 1e-3
    environment.step(target)
    np.testing.assert_allclose(
        robot.actuators.target_command.position.torch[:, order].cpu(), target, atol=1e-7
    )


@pytest.mark.parametrize("engine", EFFORT)
def test_standing_policy_stays_where_it_is(engine: str) -> None:
    count, seconds = EFFORT[engine]
    played = play(policy("g1_stand"), ROBOT, engine=engine, num_envs=count, seconds=seconds, device="cpu")
    assert played.ends == {"time_out": count, "tilted": 0, "too_low": 0}
    assert np.abs(played.velocities).max() < 0.05
    assert played.log["Metrics/base_velocity/error_vel_xy"] < 0.1


@pytest.mark.parametrize("engine", EFFORT)
def test_walking_policy_follows_half_a_metre_a_second(engine: str) -> None:
    count, seconds = EFFORT[engine]
    played = play(
        policy("g1_walk"),
        ROBOT,
        engine=engine,
        num_envs=count,
        seconds=seconds,
        command=(0.5, 0.0, 0.0),
        device="cpu",
    )
    print(f"{engine}: {played}")
    assert played.survival == 1.0 and played.episodes == count
    velocities = np.array(played.velocities)
    assert (np.abs(velocities[:, 0] - 0.5) < 0.15).all()
    assert (np.abs(velocities[:, 1:]) < 0.15).all()
    assert np.max(played.errors) < 0.2


def test_isaac_labs_own_command_makes_the_environment() -> None:
    words = ("zero_agent", "--task", ENVIRONMENT, "--num_envs", "2", "--max_steps", "3")
    own = subprocess.run(
        [sys.executable, "-m", "isaaclab", *words, "--visualizer", "none", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert own.returncode == 0, own.stderr
    assert "Zero agent is running" in own.stdout


WALK = str(share_dir() / "policies" / "g1_walk.onnx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.onnx"], "nowhere.onnx: no such policy file"),
        (["{truncated}"], "the ONNX file is truncated"),
        (
            [WALK, "--variant", "mode_11"],
            "contract field 'variant' is 'rev_1_0', but this robot is 'mode_11'",
        ),
        ([WALK, "--robot", "g2"], "unknown robot 'g2'"),
        (
            [WALK, "--engine", "ovphysics"],
            "unknown simulator 'isaac:ovphysics', did you mean 'isaac:ovphysx'?",
        ),
        ([WALK, "--device", "cuda:9"], "device cuda:9: "),
        ([WALK, "--envs", "0"], "--envs: '0' is not a whole number above zero"),
        ([WALK, "--seconds", "-1"], "--seconds: '-1' is not above zero"),
        ([WALK, "--command", "1", "nan", "0"], "--command: 'nan' is not finite"),
        ([WALK, "--command", "3", "0", "0"], "takes vx from "),
        ([WALK, "--task", "wlak"], "unknown task 'wlak', did you mean 'walk'?"),
    ],
)
def test_mistake_of_the_user_is_one_line_and_exit_2(words, message, tmp_path, capsys) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes((share_dir() / "policies" / "g1_walk.onnx").read_bytes()[:20_000])
    assert main([word.format(truncated=truncated) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("play: ") and message in line
