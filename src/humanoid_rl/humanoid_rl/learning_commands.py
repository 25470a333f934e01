"""The commands train, export, import and evaluate: names of the command line on one side, the functions of
`humanoid_rl_sim.learning` on the other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from humanoid_rl_core.errors import UserError, nearest

from humanoid_rl.launching.preflight import find_policy, runs_dir
from humanoid_rl.training_display import TrainingDisplay

DEFAULT_TASK = "stand"


def find_run(name: str) -> Path:
    """Directory of a run, by its name below runs/ or by its path.

    Raises:
        UserError: there is no such run.
    """
    for candidate in (runs_dir() / name, Path(name)):
        if (candidate / "config.yaml").is_file():
            return candidate
    known = sorted(path.parent.name for path in runs_dir().glob("*/config.yaml"))
    raise UserError(
        f"no run '{name}' in {runs_dir().resolve()}{nearest(name, known)} "
        f"(there are: {', '.join(known) or 'none'})"
    )


def new_run_dir(name: str, resume: bool) -> Path:
    """Directory for a training: a new one, or with resume the one that exists.

    Raises:
        UserError: the name is taken, there is nothing to resume, or runs/ cannot be written.
    """
    if resume:
        return find_run(name)
    return empty_run_dir(name, "take another --name, or go on with --resume")


def empty_run_dir(name: str, remedy: str = "take another --name") -> Path:
    """Directory for what is written anew below runs/; remedy: what to do where there is something already.

    Raises:
        UserError: the name is taken, or runs/ cannot be written.
    """
    run_dir = runs_dir() / name
    if run_dir.is_dir() and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} exists already: {remedy}")
    existing = next(folder for folder in run_dir.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(
            f"no permission to write into {existing}: set HUMANOID_RL_RUNS to a directory of yours"
        )
    return run_dir


def split_items(items: Sequence[str], task: str | None) -> tuple[str | None, dict[str, str]]:
    """Positional words of `train` as (task, overrides).

    Raises:
        UserError: two different tasks, or a key given twice.
    """
    overrides: dict[str, str] = {}
    named = [task] if task else []
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            named.append(item)
        elif key == "task":
            named.append(value)
        elif key in overrides:
            raise UserError(f"train: '{key}' is given twice")
        else:
            overrides[key] = value
    if len(set(named)) > 1:
        raise UserError(f"train: one task, not {' and '.join(named)}")
    return (named[0] if named else None), overrides


def train(
    *, items: Sequence[str], task: str | None, overrides: Mapping[str, str], name: str | None, resume: bool
) -> int:
    """Train a policy into runs/<name>. Returns the exit code."""
    from humanoid_rl_sim.learning.configuration import from_yaml, load_training_config, resumed_config
    from humanoid_rl_sim.learning.ranks import is_main, started_by_torchrun

    task, extra = split_items(items, task)
    if started_by_torchrun() and name is None:
        raise UserError("train: under torchrun the run needs a --name that all its processes share")
    if resume:
        if name is None:
            raise UserError("train: --resume needs --name, the run to go on with")
        run_dir = new_run_dir(name, resume=True)
        asked = {**extra, **overrides, **({"task": task} if task else {})}
        config = resumed_config(from_yaml(run_dir / "config.yaml"), asked)
    else:
        task = task or DEFAULT_TASK
        config = load_training_config(task, {**extra, **overrides})
        name = name or f"{Path(task).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        # Of several processes one makes the directory, before or after the others look.
        run_dir = new_run_dir(name, resume=False) if is_main() else runs_dir() / name

    from humanoid_rl_sim.learning.training import train as train_run

    if not is_main():
        train_run(config, run_dir, resume=resume)
        return 0
    with TrainingDisplay(str(run_dir)) as display:
        best = train_run(config, run_dir, resume=resume, on_progress=display.show)
    print(f"best model: {best}\nexport it:  humanoid-rl export --run {run_dir.name}")
    return 0


def export(run: str, *, checkpoint: Path | None, output: Path | None) -> int:
    """Export a run's policy as ONNX. Returns the exit code."""
    run_dir = find_run(run)
    if checkpoint is not None and not checkpoint.is_file():
        raise UserError(f"export: checkpoint {checkpoint} does not exist")

    from humanoid_rl_sim.learning.policy_export import export_run

    print(export_run(run_dir, output=output, checkpoint=checkpoint))
    return 0


def import_foreign(
    path: Path, *, format: str, config: Path | None, output: Path, settings: Sequence[str]
) -> int:
    """Import a policy that another stack exported, and say where every value came from. Returns the exit code."""
    from humanoid_rl_core.foreign.importing import import_policy

    contract = import_policy(path, output, format=format, config=config, settings=settings)
    record = contract.training.imported
    assert record is not None
    by_source: dict[str, list[str]] = {}
    for key, source in record.sources.items():
        by_source.setdefault(source, []).append(key)
    terms = ", ".join(term.name for term in contract.observation)
    print(f"{record.format}: {len(contract.joint_names)} joints, {contract.history} frames of {terms}")
    for source, keys in sorted(by_source.items()):
        print(f"  {source}: {', '.join(keys)}")
    print(output)
    return 0


def evaluate(
    *, policy: str | None, run: str | None, task: str | None, episodes: int | None, seed: int
) -> int:
    """Evaluate an exported policy, print the result, and keep a run's in its directory."""
    run_dir = find_run(run) if run else None
    path = run_dir / "policy.onnx" if run_dir else find_policy(policy or "")
    if not path.is_file():
        raise UserError(f"{path} does not exist: export the run first, humanoid-rl export --run {run}")

    from humanoid_rl_sim.learning.evaluation import evaluate_policy

    output = run_dir / "evaluation.json" if run_dir else None
    result = evaluate_policy(path, task=task, episodes=episodes, seed=seed, output=output)
    for line in describe_evaluation(result):
        print(line)
    return 0


def describe_evaluation(result: Mapping[str, Any]) -> list[str]:
    """An evaluation in a few lines."""
    head = f"{result['task']}, {result['episodes']} episodes in {result['simulator']}, seed {result['seed']}"
    if result["kind"] == "push":
        push = f"push of {result['push_half_mps']:.2f} m/s"
        return [
            f"{head}, {push}: survived with the policy {result['policy']['survival']:.0%}, "
            f"without {result['baseline']['survival']:.0%}",
            "survival by push: "
            + ", ".join(
                f"{row['push_mps']:g} m/s {row['policy']:.0%} ({row['baseline']:.0%})"
                for row in result["sweep"]
            ),
        ]
    from humanoid_rl_sim.learning.velocity_suite import figure, table

    if "suite" in result:
        return [head, *table(dict(result))]
    return [
        f"{head}: success {result['success']:.0%}, survived {result['survival']:.0%}, error "
        f"{figure(result['velocity_error_mps'], '.2f')} m/s and {figure(result['yaw_rate_error_radps'], '.2f')} rad/s"
    ]
