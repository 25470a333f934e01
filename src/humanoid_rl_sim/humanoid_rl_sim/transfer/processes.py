"""Starting a worker in the environment that its simulator needs, and ending it whatever happens."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from humanoid_rl_core.errors import UserError

from humanoid_rl_sim.simulators.isaac_runner import isaac_runner
from humanoid_rl_sim.transfer.comparison import Measured
from humanoid_rl_sim.transfer.job import Job, read_arrays

GRACE = 5.0
"""s that a worker has to end after SIGTERM."""


def interpreter(sim: str) -> list[str]:
    """The words that start Python where the simulator's engine can be imported.

    Raises:
        UserError: it needs Isaac Lab, which is not installed.
    """
    if not sim.startswith("isaac:") or find_spec("isaaclab") is not None:
        return [sys.executable]
    return [isaac_runner(f"simulator {sim}"), "python"]


def run_worker(job: Job) -> Measured:
    """Do a job in a process of its own; what that prints goes into a file beside the result.

    Raises:
        UserError: the worker refused the job, or died.
    """
    result = Path(job.result)
    document_file, log = result.with_suffix(".json"), result.with_suffix(".log")
    job_file = result.with_name(f"{result.name}.job.json")
    document_file.unlink(missing_ok=True)
    job.write(job_file)
    command = [*interpreter(job.sim), "-m", "humanoid_rl_sim.transfer.worker", str(job_file)]
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that all of its processes can be ended together
        )
        try:
            code = process.wait()
        finally:
            _end(process)
    if code != 0 or not document_file.is_file():
        raise UserError(f"simulator {job.sim}: its process {_how(code)}; what it said is in {log}")
    document = json.loads(document_file.read_text())
    if "error" in document:
        told = str(document["error"])
        raise UserError(told if job.sim in told else f"simulator {job.sim}: {told}")
    return Measured(
        sim=job.sim,
        # JSON has null for what is no number.
        document={key: math.nan if value is None else value for key, value in document.items()},
        arrays=read_arrays(result.with_suffix(".npz")),
        seconds=time.monotonic() - begin,
    )


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}" if code else "ended without a result"


def _end(process: subprocess.Popen[bytes]) -> None:
    """The worker and all that it started are gone afterwards."""
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            if number == signal.SIGKILL or not _alive(process.pid):
                return


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
