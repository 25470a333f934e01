"""Evaluation in MuJoCo: how many pushes a policy survives, and how well it follows velocity commands.

Episodes run side by side; pushes are judged on the nominal robot without noise. A policy and the baseline see the
same starts, pushes and commands: every draw comes from the seed alone.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from humanoid_rl_core.contract import UNKNOWN
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy, read_contract
from humanoid_rl_core.policy_graph import PolicyGraph
from humanoid_rl_core.robot import Gains, load_robot

from humanoid_rl_sim.learning import velocity_suite
from humanoid_rl_sim.learning.actor import Actor, GraphActor, OnnxActor, baseline, run_episodes
from humanoid_rl_sim.tasks.configuration import TaskConfig, load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.making import make_environment

PUSH_TIME = 1.0
"""s after the start of an episode."""
PUSH_EPISODES = 200
PUSH_EPISODE = 6.0
"""s, length of a push episode."""
SWEEP_SPEEDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""m/s, the push sizes of the survival curve."""


def push_falls(
    task: TaskConfig, make_actor, speeds: npt.ArrayLike, *, sim: str = "mujoco", seed: int
) -> np.ndarray:
    """Push one robot per entry of `speeds` (m/s, random horizontal direction). Returns whether each fell, bool.

    On a terrain a robot that has crossed its cell has not fallen: what it does after its reset is not judged.
    """
    n = len(np.asarray(speeds))
    environment = make_environment(task, sim, n, seed=seed, training=False)
    environment.max_episode_steps = 1 << 30
    direction = np.random.default_rng(seed).uniform(-math.pi, math.pi, n)
    delta = torch.zeros(n, 3)
    delta[:, 0] = torch.as_tensor(np.asarray(speeds) * np.cos(direction))
    delta[:, 1] = torch.as_tensor(np.asarray(speeds) * np.sin(direction))
    fell = torch.zeros(n, dtype=torch.bool)
    judged = torch.ones(n, dtype=torch.bool)
    push_step = round(PUSH_TIME / task.control_period)

    def on_step(step: int, result) -> None:
        nonlocal fell, judged
        fell = fell | (judged & result.terminated.cpu())
        judged = judged & ~(result.terminated | result.truncated).cpu()
        if step == push_step:
            environment.simulator.add_base_velocity(
                torch.ones(n, dtype=torch.bool, device=environment.device), delta.to(environment.device)
            )

    try:
        run_episodes(environment, make_actor(environment), round(PUSH_EPISODE / task.control_period), on_step)
    finally:
        environment.close()
    return fell.numpy()


def evaluate_pushes(
    task: TaskConfig,
    make_actor,
    *,
    sim: str = "mujoco",
    episodes: int = 200,
    seed: int = 0,
    sweep_episodes: int = 50,
) -> dict[str, Any]:
    """Push survival of a policy and of the baseline: a sweep of sizes, and where the baseline falls half the time.

    Returns the contents of evaluation.json.
    """

    speeds = np.repeat(SWEEP_SPEEDS, sweep_episodes)
    survived = {
        name: 1.0 - push_falls(task, actor, speeds, sim=sim, seed=seed).reshape(-1, sweep_episodes).mean(1)
        for name, actor in (("policy", make_actor), ("baseline", baseline))
    }
    half = half_survival_speed(SWEEP_SPEEDS, survived["baseline"])
    trial = {
        name: 1.0 - float(push_falls(task, actor, [half] * episodes, sim=sim, seed=seed + 1).mean())
        for name, actor in (("policy", make_actor), ("baseline", baseline))
    }
    return {
        "task": task.name,
        "kind": "push",
        "simulator": sim,
        "episodes": episodes,
        "seed": seed,
        "push_half_mps": half,
        "policy": {"survival": trial["policy"], "push_mps": half},
        "baseline": {"survival": trial["baseline"], "push_mps": half},
        "sweep": [
            {
                "push_mps": speed,
                "policy": float(survived["policy"][i]),
                "baseline": float(survived["baseline"][i]),
                "episodes": sweep_episodes,
            }
            for i, speed in enumerate(SWEEP_SPEEDS)
        ],
    }


def half_survival_speed(speeds: Sequence[float], survival: Sequence[float]) -> float:
    """Push size at which survival crosses one half: the first crossing, linear between the points.

    The smallest speed if survival starts below one half, the largest if it never falls below.
    """
    if survival[0] < 0.5:
        return float(speeds[0])
    for (v0, s0), (v1, s1) in itertools.pairwise(zip(speeds, survival, strict=True)):
        if s1 < 0.5 <= s0:
            return round(float(v0 + (v1 - v0) * (s0 - 0.5) / (s0 - s1)), 3)
    return float(speeds[-1])


def evaluate_velocity(
    task: TaskConfig, make_actor, *, sim: str = "mujoco", episodes: int = 64, seed: int = 0
) -> dict[str, Any]:
    """Velocity tracking over a grid of commands within the task's ranges, 10 s an episode.

    Success: never falls, and the mean velocity error after the first 2 s is below 0.25 m/s and 0.3 rad/s. An episode
    ends early where the robot falls, or has crossed its cell of a terrain; who does that within 2 s has shown nothing.
    """
    ranges = task.command
    axes = [sorted({r.lower, 0.0, 0.5 * r.upper, r.upper}) for r in (ranges.vx, ranges.vy, ranges.yaw_rate)]
    grid = np.array(list(itertools.product(*axes)), np.float32)
    commands = grid[np.random.default_rng(seed).permutation(len(grid))][np.arange(episodes) % len(grid)]
    environment = make_environment(task, sim, episodes, seed=seed, training=False)
    environment.max_episode_steps = 1 << 30
    command = torch.as_tensor(commands)
    fell = torch.zeros(episodes, dtype=torch.bool)
    walking = torch.ones(episodes, dtype=torch.bool)
    velocity_sum, yaw_sum, settled = torch.zeros(episodes, 2), torch.zeros(episodes), torch.zeros(episodes)

    def on_step(step: int, result) -> None:
        nonlocal fell, walking
        fell = fell | (walking & result.terminated.cpu())
        walking = walking & ~(result.terminated | result.truncated).cpu()
        if step * task.control_period >= 2.0:
            velocity_sum.add_(walking[:, None] * environment.view.base_lin_vel_yaw[:, :2].cpu())
            yaw_sum.add_(walking * environment.view.state.base_ang_vel[:, 2].cpu())
            settled.add_(walking)

    environment.set_command(command)
    try:
        run_episodes(environment, make_actor(environment), round(10.0 / task.control_period), on_step)
    finally:
        environment.close()
    judged, steps = ~fell & (settled > 0.0), settled.clamp(min=1.0)
    velocity_error = (velocity_sum / steps[:, None] - command[:, :2]).norm(dim=1)
    yaw_error = (yaw_sum / steps - command[:, 2]).abs()
    success = judged & (velocity_error < 0.25) & (yaw_error < 0.3)
    return {
        "task": task.name,
        "kind": "velocity",
        "simulator": sim,
        "episodes": episodes,
        "seed": seed,
        "success": float(success.float().mean()),
        "survival": float((~fell).float().mean()),
        "velocity_error_mps": float(velocity_error[judged].mean()) if bool(judged.any()) else math.nan,
        "yaw_rate_error_radps": float(yaw_error[judged].mean()) if bool(judged.any()) else math.nan,
    }


def commands_motion(task: TaskConfig) -> bool:
    """Whether the task commands velocities (walk) rather than standing."""
    return any(
        r.lower != 0.0 or r.upper != 0.0 for r in (task.command.vx, task.command.vy, task.command.yaw_rate)
    )


def score(task: TaskConfig, graph: PolicyGraph, *, sim: str, episodes: int, seed: int) -> float:
    """One number in [0, 1] for keeping the best model: push survival, or success in following commands."""

    def make_actor(environment: Environment) -> Actor:
        return GraphActor(graph)

    if commands_motion(task):
        return evaluate_velocity(task, make_actor, sim=sim, episodes=episodes, seed=seed)["success"]
    speeds = np.linspace(0.1, 0.8, episodes)
    return 1.0 - float(push_falls(task, make_actor, speeds, sim=sim, seed=seed).mean())


@dataclass(frozen=True)
class JudgedPolicy:
    """An exported policy, and the task that judges it."""

    policy: OnnxPolicy
    task: TaskConfig

    @property
    def gains(self) -> Gains:
        """The host takes them from the policy's commands, whatever the task was trained with."""
        return Gains(self.policy.contract.stiffness, self.policy.contract.damping)

    def actor(self, environment: Environment) -> Actor:
        """Who acts as the policy node does, in an environment that gets the policy's gains."""
        environment.simulator.set_gains(self.gains)
        return OnnxActor(self.policy, environment.num_envs)


def judged_policy(path: Path | str, task: str | None = None) -> JudgedPolicy:
    """Load a policy to judge it.

    Args:
        path: ONNX file.
        task: task name; by default the one the policy was trained on.

    Raises:
        UserError: the policy or the task cannot be used, or they do not go together.
    """
    record = read_contract(path).training
    if task is None and record.imported is not None and record.task == UNKNOWN:
        raise UserError(f"{path}: the imported policy does not tell its task; name one with --task")
    config = load_task(task or record.task)
    policy = OnnxPolicy(path, load_robot(config.robot, config.variant))
    if abs(policy.contract.control_period - config.control_period) > 1e-9:
        raise UserError(
            f"{path}: steps every {policy.contract.control_period:g} s, but the task {config.name} every "
            f"{config.control_period:g} s; choose a task with the policy's period"
        )
    return JudgedPolicy(policy, config)


def evaluate_policy(
    policy_path: Path | str,
    *,
    task: str | None = None,
    episodes: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    sweep_episodes: int = 50,
) -> dict[str, Any]:
    """Evaluate an exported policy the way the policy node runs it, in MuJoCo.

    Args:
        policy_path: ONNX file.
        task: task name; by default the one the policy was trained on.
        episodes: episodes of the trial; 200 pushes, or the whole of velocity-v1 or rough-v1.
        seed: seeds starts, pushes and commands.
        output: where to write the result as JSON, atomically.
        sweep_episodes: episodes per push size of the survival curve.

    Raises:
        UserError: the policy or the task cannot be used.
    """
    judged = judged_policy(policy_path, task)
    if commands_motion(judged.task):
        result = velocity_suite.evaluate(
            judged.task,
            judged.actor,
            seed=seed,
            repetitions=math.ceil(episodes / len(velocity_suite.COMMANDS)) if episodes else None,
        )
    else:
        result = evaluate_pushes(
            judged.task,
            judged.actor,
            episodes=episodes or PUSH_EPISODES,
            seed=seed,
            sweep_episodes=sweep_episodes,
        )
    result["policy_file"] = Path(policy_path).name
    if output is not None:
        write_json(output, result)
    return result


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one; what is no number becomes null."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(_numbers(value), indent=1, allow_nan=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
