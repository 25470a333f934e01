"""The environment's control steps per second, as a fraction of the bare physics under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment

ROUNDS = 5
TASK = "stand"


def make_environment() -> Environment:
    """The task as it is trained, with as many robots as config/train has for it."""
    task = load_task(TASK)
    robot = load_robot(task.robot, task.variant)
    num_envs = load_training_config(TASK).num_envs
    return Environment(task, MujocoSimulator(robot, num_envs, timestep=task.physics_timestep), seed=1)


def bare_physics(environment: Environment, target: np.ndarray) -> tuple[MujocoSimulator, Callable[[], None]]:
    """The same model with the same gains and randomised properties, and nothing but its `Batch` in the loop.

    Args:
        target: [num_envs, n] rad, joint targets replayed in every control step.
    """
    of_environment = environment.simulator
    assert isinstance(of_environment, MujocoSimulator)
    simulator = MujocoSimulator(environment.robot, environment.num_envs, timestep=of_environment.timestep)
    simulator.set_gains(environment.robot.gains[environment.task.gains])
    simulator.set_properties(of_environment._properties)
    batch, control = simulator.batch, simulator.batch.bind("ctrl")

    def step() -> None:
        control[:] = target
        batch.step(nstep=environment.decimation)

    return simulator, step


def rate(step: Callable[[], Any], num_envs: int, seconds: float) -> float:
    """Environment steps per second of `step`, over at least `seconds` and two steps."""
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds or count < 2:
        step()
        count += 1
    return count * num_envs / elapsed


def measure(seconds: float) -> dict[str, Any]:
    """Both in turn, in several rounds, so that whatever else the machine does meets both.

    Args:
        seconds: to measure for in all.
    """
    environment = make_environment()
    action = torch.zeros(environment.num_envs, environment.graph.action_size)
    target = environment.graph.decode(action).double().numpy()
    simulator, bare_step = bare_physics(environment, target)
    share = seconds / (2 * ROUNDS)
    bare, whole = [], []
    with torch.inference_mode():
        environment.reset()
        for step in (bare_step, lambda: environment.step(action)):
            rate(step, 1, 0.0)  # what the first calls allocate is not measured
        for _ in range(ROUNDS):
            bare.append(rate(bare_step, environment.num_envs, share))
            whole.append(rate(lambda: environment.step(action), environment.num_envs, share))
    simulator.close()
    environment.close()
    return {
        "num_envs": environment.num_envs,
        "bare_steps_per_second": float(np.median(bare)),
        "environment_steps_per_second": float(np.median(whole)),
        "fraction": float(np.median(np.divide(whole, bare))),
        "fraction_min": float(np.min(np.divide(whole, bare))),
        "fraction_max": float(np.max(np.divide(whole, bare))),
    }


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table."""
    return [
        ("environments", f"{result['num_envs']}"),
        ("bare mujoco.batch", f"{result['bare_steps_per_second']:,.0f} control steps/s"),
        ("environment", f"{result['environment_steps_per_second']:,.0f} control steps/s"),
        (
            "environment / bare",
            f"{result['fraction']:.2f} (rounds {result['fraction_min']:.2f} to {result['fraction_max']:.2f})",
        ),
    ]
