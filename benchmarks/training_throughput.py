"""Environment steps per second of a training run, as a fraction of the environment alone."""

from __future__ import annotations

import csv
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import simulator_throughput
import torch
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.learning.training_control import TrainingControl, TrainingProgress

UPDATES_MIN = 3  # the first is dropped


def environment_rate(seconds: float) -> float:
    """Control steps per second of the environment with nobody learning from it, under actions as in training."""
    environment = simulator_throughput.trained_environment()
    shape = environment.num_envs, environment.graph.action_size
    count, begin = 0, 0.0
    with torch.inference_mode():
        environment.reset()
        environment.step(torch.zeros(shape))
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds or count < 2:
            environment.step(simulator_throughput.EXPLORATION * torch.randn(shape))
            count += 1
    environment.close()
    return count * environment.num_envs / elapsed


def training_rates(seconds: float) -> list[float]:
    """Control steps per second of every whole update (rollout and learning) but the first."""
    config = load_training_config(simulator_throughput.TASK)
    batch = config.num_envs * config.ppo.rollout_steps
    # Without evaluations and checkpoints, which progress.csv leaves out of its rate too.
    config = dataclasses.replace(
        config, steps=10**9, evaluation_interval=10**9, checkpoint_interval=10**9, evaluation_episodes=1
    )
    control, begin = TrainingControl(), time.monotonic()

    def on_progress(progress: TrainingProgress) -> None:
        if progress.steps >= UPDATES_MIN * batch and time.monotonic() - begin >= seconds:
            control.stop()

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = Path(folder, "run")
        train(config, run, control=control, on_progress=on_progress)
        with (run / "progress.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    # The step in which the run was stopped is no update.
    return [float(row["steps_per_second"]) for row in rows[1:] if int(row["steps"]) % batch == 0]


def measure(seconds: float) -> dict[str, Any]:
    """The environment before and after the training, whose updates are too long to take turns with it.

    Args:
        seconds: to measure for in all; longer where three updates take longer.
    """
    before = environment_rate(seconds / 6)
    training = float(np.median(training_rates(seconds * 2 / 3)))
    after = environment_rate(seconds / 6)
    environment = (before + after) / 2
    return {
        "training_steps_per_second": training,
        "environment_steps_per_second": environment,
        "fraction": training / environment,
    }


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table."""
    return [
        ("environment", f"{result['environment_steps_per_second']:,.0f} control steps/s"),
        ("training", f"{result['training_steps_per_second']:,.0f} control steps/s"),
        ("training / environment", f"{result['fraction']:.2f}"),
    ]
