"""The environment's control steps per second, as a fraction of the bare physics under it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.making import make_environment

ROUNDS = 5
TASK = "stand"
EXPLORATION = 0.4  # standard deviation of the actions, as in training


def trained_environment() -> Environment:
    """The task as it is trained, with as many robots as config/train has for it."""
    return make_environment(load_task(TASK), "mujoco", load_training_config(TASK).num_envs, seed=1)


def bare_simulator(environment: Environment) -> MujocoSimulator:
    """The same model with the same gains and randomised properties."""
    simulator = MujocoSimulator(
        environment.robot, environment.num_envs, timestep=environment.simulator.timestep
    )
    simulator.set_gains(environment.robot.gains[environment.task.gains])
    simulator.set_properties(environment.simulator.properties)
    return simulator


def measure(seconds: float) -> dict[str, Any]:
    """Control steps of the environment, and of nothing but its `Batch` from the same states to the same targets.

    The two take turns step by step: a robot that is pushed, or falls, costs the engine more than one that stands,
    and whatever else the machine does meets both.

    Args:
        seconds: to measure for in all.
    """
    environment = trained_environment()
    of_environment = environment.simulator
    assert isinstance(of_environment, MujocoSimulator)
    bare = bare_simulator(environment)
    states = [
        (bare.batch.bind(name), of_environment.batch.bind(name))
        for name in ("qpos", "qvel", "qacc_warmstart")
    ]
    control = bare.batch.bind("ctrl")
    generator = torch.Generator().manual_seed(1)
    spent, steps = np.zeros((ROUNDS, 2)), np.zeros(ROUNDS)
    with torch.inference_mode():
        environment.reset()
        for measured in (False, True):
            for round_ in range(ROUNDS if measured else 1):
                begin = time.perf_counter()
                while time.perf_counter() - begin < seconds / ROUNDS:
                    action = EXPLORATION * torch.randn(
                        environment.num_envs, environment.graph.action_size, generator=generator
                    )
                    target = environment.graph.decode(action).double().numpy()
                    for own, other in states:
                        own[:] = other
                    clock = [time.perf_counter()]
                    control[:] = target
                    bare.batch.step(nstep=environment.decimation)
                    clock.append(time.perf_counter())
                    environment.step(action)
                    clock.append(time.perf_counter())
                    if measured:
                        spent[round_] += np.diff(clock)
                        steps[round_] += environment.num_envs
    bare.close()
    environment.close()
    fractions = spent[:, 0] / spent[:, 1]
    rates = steps.sum() / spent.sum(0)
    return {
        "num_envs": environment.num_envs,
        "bare_steps_per_second": float(rates[0]),
        "environment_steps_per_second": float(rates[1]),
        "fraction": float(np.median(fractions)),
        "fraction_min": float(fractions.min()),
        "fraction_max": float(fractions.max()),
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
