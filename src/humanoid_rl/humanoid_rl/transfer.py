"""The command transfer: the same policy, suite and commands in several simulators, and a recorded robot beside them."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanoid_rl_core.errors import UserError

from humanoid_rl.launching.preflight import find_policy
from humanoid_rl.learning_commands import empty_run_dir

if TYPE_CHECKING:
    from humanoid_rl_sim.transfer.recording import Recording
    from humanoid_rl_sim.transfer.windows import Windows

RESULT, REPORT = "transfer.json", "transfer.html"
ROBOT = "g1"
"""Whose recordings are replayed where no policy tells it."""


def transfer(
    *,
    policy: str | None,
    sims: Sequence[str],
    task: str | None = None,
    episodes: int | None = None,
    seed: int = 0,
    threshold: float = 0.9,
    gap: float = 0.1,
    log: Path | None = None,
    joint_gap: float | None = None,
    name: str | None = None,
) -> int:
    """Measure, compare, write the report into runs/NAME. Returns the exit code: 1 where something is too far apart."""
    if policy is None and log is None:
        raise UserError("transfer: name a policy, a recorded robot (--log), or both")
    if log is None and joint_gap is not None:
        raise UserError("transfer: --joint-gap is about a recorded robot; name one with --log")
    if policy is None:
        for option, value in (("--task", task), ("--episodes", episodes)):
            if value is not None:
                raise UserError(f"transfer: {option} is about a policy; name one, or leave it out")
    path = find_policy(policy) if policy is not None else None
    sims = _checked(sims)

    from humanoid_rl_core.robot import load_robot
    from humanoid_rl_sim.learning.evaluation import judged_policy, write_json
    from humanoid_rl_sim.transfer import comparison
    from humanoid_rl_sim.transfer.job import REFERENCE, Job, read_arrays, write_arrays
    from humanoid_rl_sim.transfer.open_loop import OpenLoop
    from humanoid_rl_sim.transfer.processes import interpreter, run_worker
    from humanoid_rl_sim.transfer.recording import read_recording

    for sim in sims:
        interpreter(sim)
    robot, period = None, math.nan
    if path is not None:
        config = judged_policy(path, task).task
        robot, period = load_robot(config.robot, config.variant), config.control_period
    windows = None
    if log is not None:
        recorded = read_recording(log, robot or ROBOT)
        robot, windows = recorded.robot, _windows(log, recorded)
    assert robot is not None

    what = path.stem if path is not None and path.stem != "policy" else path.parent.name if path else "log"
    run_dir = empty_run_dir(name or f"transfer-{what}-{time.strftime('%Y%m%d-%H%M%S')}")
    run_dir.mkdir(parents=True, exist_ok=True)
    run_dir = run_dir.resolve()
    recording = run_dir / "recording.npz"
    if windows is not None:
        write_arrays(recording, windows.arrays())
    job = Job(
        kind="measure",
        sim=REFERENCE,
        result="",
        robot=robot.name,
        variant=robot.variant,
        seed=seed,
        policy=str(path) if path else None,
        task=task,
        episodes=episodes,
        recording=str(recording) if windows is not None else None,
    )

    def measure(label: str, work: Job) -> comparison.Measured:
        print(f"{label:20s}", end="", flush=True)
        try:
            result = run_worker(work)
        except BaseException:
            print(flush=True)
            raise
        print(f"{result.seconds:6.0f} s", flush=True)
        return result

    push = None
    if path is not None:
        commands = run_dir / "commands"
        found = measure("what to compare", dataclasses.replace(job, kind="reference", result=str(commands)))
        push = found.document.get("push_mps")
        job = dataclasses.replace(job, push=push, commands=str(commands.with_suffix(".npz")))

    def result_of(sim: str) -> str:
        return str(run_dir / sim.replace(":", "_"))

    measured = [measure(sim, dataclasses.replace(job, sim=sim, result=result_of(sim))) for sim in sims]
    survival = None
    if push is not None:
        # A push is judged against what the policy survives of it in MuJoCo, whether that is compared or not.
        known = next((one for one in measured if one.sim == REFERENCE), None)
        known = known or measure(
            f"{REFERENCE}, to judge by", dataclasses.replace(job, result=result_of(REFERENCE))
        )
        survival = known.document["policy"]

    result: dict[str, Any] = {
        "policy": path.name if path else None,
        "task": measured[0].document.get("task"),
        "seed": seed,
        "threshold": threshold,
        "gap": gap,
        "joint_gap": joint_gap,
        "recording": str(log) if log else None,
    }
    result |= comparison.compare(
        measured, reference=survival, period=period, joints=robot.joint_names, windows=windows
    )
    result["violations"] = comparison.violations(result, threshold=threshold, gap=gap, joint_gap=joint_gap)

    from humanoid_rl.reports.transfer_report import write_transfer_report

    air = OpenLoop.from_arrays(read_arrays(Path(job.commands)), "air") if job.commands else None
    report = write_transfer_report(
        run_dir / REPORT, result, measured, joints=robot.joint_names, period=air.period if air else period,
        windows=windows,
    )  # fmt: skip
    write_json(run_dir / RESULT, result)
    for line in comparison.table(result):
        print(line)
    print(f"report: {_short(report)}")
    for line in result["violations"]:
        print(line, file=sys.stderr)
    return 1 if result["violations"] else 0


def _checked(sims: Sequence[str]) -> list[str]:
    from humanoid_rl_sim.simulators.registry import check_simulator

    for sim in sims:
        check_simulator(sim)
        if list(sims).count(sim) > 1:
            raise UserError(f"transfer: --sims names {sim} twice")
    return list(sims)


def _windows(log: Path, recorded: Recording) -> Windows:
    """What of the recording can be replayed.

    Raises:
        UserError: nothing.
    """
    from humanoid_rl_sim.transfer.windows import cut

    try:
        return cut(recorded)
    except UserError as error:
        raise UserError(f"recording {log}: {error}") from None


def _short(path: Path) -> Path:
    """Below the working directory as a person would write it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
