"""The process that measures one simulator: `python -m humanoid_rl_sim.transfer.worker JOB.json`.

A process of its own because Isaac Lab has one simulation in a process and an environment of its own, and because the
engines write what they like to the terminal.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from humanoid_rl_core.errors import UserError

from humanoid_rl_sim.learning.evaluation import write_json
from humanoid_rl_sim.transfer.job import Job, write_arrays
from humanoid_rl_sim.transfer.measuring import measure


def work(path: Path) -> None:
    """Do the job in the file `path`. A user's mistake becomes the result's `error`."""
    job = Job.read(path)
    result = Path(job.result)
    try:
        document, arrays = measure(job)
    except UserError as error:
        write_json(result.with_suffix(".json"), {"simulator": job.sim, "error": str(error)})
        return
    write_arrays(result.with_suffix(".npz"), arrays)
    write_json(result.with_suffix(".json"), document)


def main() -> None:
    code = 0
    try:
        work(Path(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written; an engine's threads and exit handlers have nothing to add, and some never end.
    os._exit(code)


if __name__ == "__main__":
    main()
