"""From a training run to a policy file."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

from humanoid_rl_core.errors import UserError
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.robot import load_robot

import humanoid_rl_core
from humanoid_rl_sim.learning.actor import actor_graph
from humanoid_rl_sim.learning.configuration import from_yaml
from humanoid_rl_sim.learning.learners import learner_for
from humanoid_rl_sim.learning.run_files import latest_checkpoint
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import gain_set


def export_run(run_dir: Path, output: Path | None = None, checkpoint: Path | None = None) -> Path:
    """Export a run's best model (or `checkpoint`) with its contract and training record.

    Args:
        run_dir: directory of the run.
        output: the ONNX file; by default policy.onnx in the run's directory.
        checkpoint: a model of the run other than the best.

    Returns:
        The file written.

    Raises:
        UserError: no such run or model, or the model cannot be exported.
    """
    run_dir = Path(run_dir)
    config = from_yaml(run_dir / "config.yaml")
    best = run_dir / "best" / "model.zip"
    model_path = checkpoint or (best if best.exists() else latest_checkpoint(run_dir))
    if model_path is None or not Path(model_path).is_file():
        raise UserError(f"{model_path or run_dir}: no model to export; train first")
    try:
        model = learner_for(config).load(Path(model_path), None, "cpu")
    except Exception as error:
        raise UserError(f"{model_path}: not a usable model: {' '.join(str(error).split())}") from None
    task = load_task(config.task)
    robot = load_robot(task.robot, task.variant)
    return export_policy(
        output or run_dir / "policy.onnx",
        actor_graph(model.policy),
        robot,
        gain_set(task, robot),
        name=f"{task.robot}_{task.name}",
        control_period=task.control_period,
        training={
            "task": config.task,
            "simulator": config.sim,
            "seed": config.seed,
            "steps": int(model.num_timesteps),
            "git_revision": git_revision(),
            "metrics": _last_row(run_dir / "evaluations.csv", up_to=int(model.num_timesteps)),
        },
    )


def git_revision() -> str:
    """Revision of the sources, with `-dirty` where they differ from it; "unknown" outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(humanoid_rl_core.__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _last_row(path: Path, *, up_to: int) -> dict[str, float]:
    """The evaluation of the model with `up_to` steps (or the last before it), if there was one."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["steps"]) <= up_to]
    return {"evaluation_score": float(rows[-1]["score"])} if rows else {}
