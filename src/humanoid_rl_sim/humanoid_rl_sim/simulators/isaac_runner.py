"""Where Isaac Lab's own environment is; importing nothing heavy, for launch files and parents of workers."""

from __future__ import annotations

import os
from pathlib import Path

from humanoid_rl_core.errors import UserError

ISAAC_VARIABLE = "HUMANOID_RL_ISAAC"
"""Names a program that runs a command in the environment of Isaac Lab."""


def isaac_runner(what: str) -> str:
    """The program that runs a command in the environment of Isaac Lab.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: that environment is not there.
    """
    runner = os.environ.get(ISAAC_VARIABLE, "")
    if not Path(runner).is_file():
        raise UserError(
            f"{what} needs the environment of Isaac Lab: run make isaac, then source tools/environment.sh again"
        )
    if not os.access(runner, os.X_OK):
        raise UserError(f"{what}: {ISAAC_VARIABLE} is {runner}, which cannot be run; run make isaac")
    return runner
