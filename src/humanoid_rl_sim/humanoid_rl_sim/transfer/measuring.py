"""One simulator's part of the transfer report: the suite, and the open-loop commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from humanoid_rl_core.robot import load_robot
from numpy.typing import NDArray

from humanoid_rl_sim.learning import velocity_suite
from humanoid_rl_sim.learning.actor import MakeActor, baseline
from humanoid_rl_sim.learning.evaluation import (
    SWEEP_SPEEDS,
    JudgedPolicy,
    commands_motion,
    half_survival_speed,
    judged_policy,
    push_falls,
)
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import TaskConfig
from humanoid_rl_sim.transfer.job import REFERENCE, Job, read_arrays
from humanoid_rl_sim.transfer.open_loop import WALKS, OpenLoop, in_the_air, record_policy, replay
from humanoid_rl_sim.transfer.windows import Windows

Arrays = dict[str, NDArray[Any]]
Document = dict[str, Any]

REPETITIONS = 3
"""Episodes per command: 108 in all, a third of an evaluation's, in each of several simulators."""
PUSHES = 100
"""Episodes of each trial of a task that commands no motion."""
SWEEP_EPISODES = 50
"""Per push size, for the size at which the gains alone fall half the time; as in an evaluation."""


def measure(job: Job) -> tuple[Document, Arrays]:
    """Do a job. Returns what is a number and what is an array.

    Raises:
        UserError: the policy, the task or the simulator cannot be used.
    """
    if job.kind == "reference":
        return _reference(job)
    document: Document = {"simulator": job.sim}
    arrays: Arrays = {}
    if job.policy is not None:
        judged = judged_policy(job.policy, job.task)
        document |= _velocity(job, judged) if commands_motion(judged.task) else _push(job, judged)
        arrays |= _open_loop(job, judged.task)
    if job.recording is not None:
        arrays |= _recorded(job)
    return document, arrays


def _reference(job: Job) -> tuple[Document, Arrays]:
    assert job.policy is not None
    judged = judged_policy(job.policy, job.task)
    task, moves = judged.task, commands_motion(judged.task)
    recorded = record_policy(task, judged.actor, judged.gains, moves=moves, seed=job.seed)
    # One simulator replays both, so both have as many robots.
    air = in_the_air(task, judged.gains, recorded.robots if recorded else len(WALKS), seed=job.seed)
    arrays = air.arrays("air") | (recorded.arrays("policy") if recorded else {})
    document: Document = {"simulator": REFERENCE, "kind": "velocity" if moves else "push", "task": task.name}
    if not moves:
        each = min(SWEEP_EPISODES, job.episodes or SWEEP_EPISODES)
        fell = push_falls(task, baseline, np.repeat(SWEEP_SPEEDS, each), seed=job.seed)
        survived = (1.0 - fell.reshape(-1, each).mean(1)).tolist()
        document["push_mps"] = half_survival_speed(SWEEP_SPEEDS, survived)
    return document, arrays


def _velocity(job: Job, judged: JudgedPolicy) -> Document:
    repetitions = math.ceil(job.episodes / len(velocity_suite.COMMANDS)) if job.episodes else REPETITIONS
    return velocity_suite.evaluate(
        judged.task, judged.actor, sim=job.sim, seed=job.seed, repetitions=repetitions, sweep_episodes=0
    )


def _push(job: Job, judged: JudgedPolicy) -> Document:
    assert job.push is not None
    episodes = job.episodes or PUSHES

    def survival(actor: MakeActor, push: float) -> float:
        falls = push_falls(judged.task, actor, [push] * episodes, sim=job.sim, seed=job.seed + 1)
        return 1.0 - float(falls.mean())

    return {
        "task": judged.task.name,
        "kind": "push",
        "simulator": job.sim,
        "episodes": episodes,
        "seed": job.seed,
        "push_mps": job.push,
        "standing": survival(judged.actor, 0.0),
        "policy": survival(judged.actor, job.push),
        "baseline": survival(baseline, job.push),
    }


def _open_loop(job: Job, task: TaskConfig) -> Arrays:
    assert job.commands is not None
    stored = read_arrays(Path(job.commands))
    parts = {name: OpenLoop.from_arrays(stored, name) for name in ("policy", "air")}
    robot = load_robot(task.robot, task.variant)
    robots = next(commands.robots for commands in parts.values() if commands is not None)
    simulator = make_simulator(job.sim, robot, robots, timestep=task.physics_timestep, collision="full")
    try:
        return {
            f"{name}.{key}": values
            for name, commands in parts.items()
            if commands is not None
            for key, values in replay(simulator, commands).items()
        }
    finally:
        simulator.close()


def _recorded(job: Job) -> Arrays:
    assert job.recording is not None
    windows = Windows.from_arrays(read_arrays(Path(job.recording)))
    robot, commands = load_robot(job.robot, job.variant), windows.commands
    simulator = make_simulator(job.sim, robot, commands.robots, timestep=commands.period, collision="full")
    try:
        return {f"log.{key}": values for key, values in replay(simulator, commands).items()}
    finally:
        simulator.close()
