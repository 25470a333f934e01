"""Entry point of the executable `policy_node`: signals are in hand before the slow imports begin."""

import os
import signal
import sys
from types import FrameType


def _leave(_signum: int, _frame: FrameType | None) -> None:
    # Nothing is up yet that would have to be taken down, and half-imported modules cannot be unwound.
    os._exit(0)


def main() -> int:
    """Run the policy node until SIGINT or SIGTERM.

    Returns the exit status: 0 after a signal, 1 when the control loop died, 2 for a mistake of the user's,
    which is told in one line on stderr.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from humanoid_rl_inference.policy_node import run

    return run(sys.argv)
