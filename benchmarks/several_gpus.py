"""Training on several GPUs over training on one: `python benchmarks/several_gpus.py --gpus 2 --envs 8192`.

Both are started by torchrun as a user would start them, one after the other in this one run, for a few updates; each
process steps `--envs` robots of its own. A process that learns alone replays gradient steps as a CUDA graph, several
launch theirs kernel by kernel: that is part of what the ratio shows. Keys of the training's configuration may follow;
with `sim=mujoco` the processes share the CPU.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.learning.configuration import TrainingConfig, load_training_config
from humanoid_rl_sim.learning.training import GPU_SIMULATORS, train

TASK = "walk"
DROPPED = 2
"""Updates at the start, in which kernels are compiled and graphs captured."""
NEVER = 10**12
SET_HERE = {
    "num_envs": "use --envs",
    "steps": "use --updates",
    **dict.fromkeys(
        ("task", "learner", "evaluation_episodes", "evaluation_interval", "checkpoint_interval"),
        "leave it out",
    ),
}
"""Keys of the configuration that are not the caller's -> what to do instead."""


def make_config(options: argparse.Namespace) -> TrainingConfig:
    """The task's training on the device, without evaluations and checkpoints on the way."""
    overrides = {}
    for item in options.overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"'{item}' is not of the form key=value")
        if key in SET_HERE:
            raise UserError(f"'{key}' is set here: {SET_HERE[key]}")
        if key == "algorithm" and text != "ppo":
            raise UserError(f"{item}: only ppo learns in several processes")
        overrides[key] = text
    overrides |= {"num_envs": str(options.envs), "learner": "device", "evaluation_episodes": "1"}
    overrides |= {"evaluation_interval": str(NEVER), "checkpoint_interval": str(NEVER)}
    return load_training_config(TASK, overrides)


def work(config: TrainingConfig, updates: int, run: Path) -> None:
    """What each process does."""
    steps = config.num_envs * config.ppo.rollout_steps * int(os.environ["WORLD_SIZE"])
    train(dataclasses.replace(config, steps=steps * (updates + DROPPED)), run)


def rate(processes: int, updates: int, arguments: list[str]) -> float:
    """Median environment steps per second of an update, over all processes."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = Path(folder, "run")
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(processes), __file__, "--worker", str(run), *arguments),
            ],
            env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        progress = run / "progress.csv"
        rows = list(csv.DictReader(progress.read_text().splitlines())) if progress.exists() else []
    if len(rows) < updates + DROPPED:
        print(ended.stderr, file=sys.stderr)
        raise UserError(f"a training with {processes} processes failed, see above")
    if ended.returncode:  # what was to be measured is there
        print(f"several_gpus: torchrun ended with {ended.returncode} after the last update", file=sys.stderr)
    rates = [float(row["steps_per_second"]) for row in rows]
    return float(np.median(rates[DROPPED:]))


def main(arguments: list[str]) -> int:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=int, default=2, help="processes, each on a GPU of its own (default 2)")
    parser.add_argument("--envs", type=int, default=8192, help="robots of each process (default 8192)")
    parser.add_argument("--updates", type=int, default=20, help="updates to measure (default 20)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the training's configuration")
    options = parser.parse_args(arguments)
    for name, least in (("gpus", 2), ("updates", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} is {getattr(options, name)}, expected at least {least}")
    try:
        config = make_config(options)
        if options.worker is not None:
            work(config, options.updates, options.worker)
            return 0
        found = torch.cuda.device_count()
        if config.sim in GPU_SIMULATORS and found < options.gpus:
            raise UserError(f"--gpus {options.gpus} needs that many CUDA GPUs, torch finds {found}")
        print(
            f"{torch.cuda.get_device_name() if found else 'CPU'}, PyTorch {torch.__version__}, task {TASK}, "
            f"{options.envs} environments per process",
            flush=True,
        )
        alone = rate(1, options.updates, arguments)
        print(f"1 process:   {alone:,.0f} steps/s", flush=True)
        several = rate(options.gpus, options.updates, arguments)
    except UserError as error:
        print(f"several_gpus: {error}", file=sys.stderr)
        return 2
    ratio = several / alone
    print(f"{options.gpus} processes: {several:,.0f} steps/s")
    print(f"{options.gpus} / 1: {ratio:.2f}, {100.0 * ratio / options.gpus:.0f} % of linear")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
