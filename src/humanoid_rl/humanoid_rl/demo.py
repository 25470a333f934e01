"""`humanoid-rl demo`: from nothing to a policy that balances the simulated G1 over ROS 2, with a report."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from humanoid_rl_core.errors import UserError

from humanoid_rl.launching.preflight import runs_dir
from humanoid_rl.learning_commands import describe_evaluation, new_run_dir
from humanoid_rl.training_display import TrainingDisplay

TASK = "stand"
# The policy has to be worth its training: share of pushes survived beyond what the gains alone survive.
REQUIRED_GAIN = 0.30
QUICK_TRAINING = {
    "num_envs": "32",
    "steps": "4608",
    "evaluation_interval": "4608",
    "checkpoint_interval": "4608",
    "evaluation_episodes": "8",
}
QUICK_EPISODES = 20
DEPLOYMENT_ATTEMPTS = 2


def run_demo(
    name: str = "demo",
    *,
    steps: int | None = None,
    seed: int = 1,
    episodes: int = 200,
    quick: bool = False,
    domain: int | None = None,
) -> int:
    """Train `stand`, export, evaluate against no policy, deploy over ROS 2, push, report.

    A run of that name that was interrupted is gone on with; one that is trained is not trained again.

    Args:
        name: run below runs/.
        steps: environment steps; None for the task's.
        seed: of the training; the evaluation has its own pushes.
        episodes: of the evaluation.
        quick: a training of seconds, to see every step run; its result is not judged.
        domain: DDS domain of the deployment, None for the environment's.

    Returns:
        0, or 1 when the policy is not 30 percentage points better than none, or fell in the deployment.

    Raises:
        UserError: something could not run at all.
    """
    from humanoid_rl_sim.learning.evaluation import evaluate_policy
    from humanoid_rl_sim.learning.policy_export import export_run

    # Fail before the training, not after it, where ROS or the report cannot be had.
    from humanoid_rl.deployment import run_deployment, summary
    from humanoid_rl.reports.report import write_report

    began = time.monotonic()
    overrides = dict(QUICK_TRAINING) if quick else {}
    overrides["seed"] = str(seed)
    if steps is not None:
        overrides["steps"] = str(steps)

    _headline(1, "train", f"PPO on task {TASK} in MuJoCo")
    run_dir = _train(name, overrides)
    _headline(2, "export", "the trained graph as ONNX, with its contract and golden vectors")
    policy = export_run(run_dir)
    print(f"  {policy} ({policy.stat().st_size / 1024:.0f} KiB)")
    _headline(3, "evaluate", "the same pushes with the policy and with the gains alone")
    evaluation = evaluate_policy(
        policy,
        episodes=QUICK_EPISODES if quick else episodes,
        seed=seed,
        output=run_dir / "evaluation.json",
    )
    for line in describe_evaluation(evaluation):
        print(f"  {line}")
    _headline(4, "deploy", "twin, host and policy node as ROS 2 processes, through deploy.launch.py")
    push = float(evaluation["push_half_mps"])
    for attempt in range(1, DEPLOYMENT_ATTEMPTS + 1):
        deployment = run_deployment(
            policy,
            run_dir / "deployment.json",
            push=(push, 0.0),
            run_time=3.0 if quick else 10.0,
            domain=domain,
            progress=_show(began),
        )
        # A robot that was stopped by a deadline did not fall: this machine was busy with something else.
        if deployment["survived"] or deployment["fell"] or attempt == DEPLOYMENT_ATTEMPTS:
            break
        print(f"  stopped without a fall ({deployment['failure']}): deploying again")
    _headline(5, "report", "")
    report = write_report(run_dir)

    gain = evaluation["policy"]["survival"] - evaluation["baseline"]["survival"]
    print(f"\n{'=' * 78}")
    for line in describe_evaluation(evaluation)[:1]:
        print(line)
    for line in summary(deployment):
        print(line)
    print(f"{_duration(time.monotonic() - began)} in all; report: {report.resolve()}")
    print("=" * 78)
    return 0 if quick else judge(gain, deployment)


def judge(gain: float, deployment: Mapping[str, Any]) -> int:
    """Exit code of a demo.

    Args:
        gain: survival with the policy minus survival without.
        deployment: contents of deployment.json.
    """
    failures = []
    if not gain >= REQUIRED_GAIN:
        failures.append(
            f"the policy survives {gain * 100:+.0f} percentage points more of the pushes than the gains "
            f"alone, {REQUIRED_GAIN * 100:.0f} are asked for: train longer (--steps)"
        )
    if not deployment["survived"]:
        failures.append(f"the robot did not stay up in the deployment: {deployment['failure']}")
    if deployment["left_behind"]:
        failures.append(f"the deployment left processes behind: {', '.join(deployment['left_behind'])}")
    for failure in failures:
        print(f"humanoid-rl: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _train(name: str, overrides: Mapping[str, str]) -> Path:
    """The trained run of that name, training as far as is still to do."""
    from humanoid_rl_sim.learning.configuration import from_yaml, load_training_config
    from humanoid_rl_sim.learning.run_files import latest_checkpoint
    from humanoid_rl_sim.learning.training import train

    run_dir = runs_dir() / name
    config = load_training_config(TASK, overrides)
    checkpoint = latest_checkpoint(run_dir)
    if checkpoint is None:
        if (run_dir / "config.yaml").is_file():
            # Interrupted before its first checkpoint: there is nothing to go on with.
            (run_dir / "config.yaml").unlink()
            for table in ("progress.csv", "evaluations.csv"):
                (run_dir / table).unlink(missing_ok=True)
        else:
            new_run_dir(name, resume=False)
    else:
        if from_yaml(run_dir / "config.yaml").task != TASK:
            raise UserError(f"{run_dir} is a run of another task: take another --name")
        done = int(checkpoint.stem.rpartition("_")[2])
        if done >= config.steps:
            print(f"  {run_dir} is trained already ({done} steps)")
            return run_dir
        print(f"  going on with {run_dir} from {done} steps")
    with TrainingDisplay(f"  {TASK}") as display:
        train(config, run_dir, resume=checkpoint is not None, on_progress=display.show)
    return run_dir


def _headline(number: int, name: str, text: str) -> None:
    print(f"\n[{number}/5] {name}{f': {text}' if text else ''}", flush=True)


def _show(began: float) -> Callable[[str], None]:
    def show(line: str) -> None:
        print(f"  {_duration(time.monotonic() - began)}  {line}", flush=True)

    return show


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes}:{rest:02d} min"
