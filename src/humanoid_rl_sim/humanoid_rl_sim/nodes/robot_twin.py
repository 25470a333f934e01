"""Entry point of the node `robot_twin`: a simulated G1 on DDS, see `twin_node`.

Imports nothing slow at the top, so that Ctrl-C is handled from the first moment on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM. Returns the exit code: 0 when stopped, 2 for a mistake of the user."""
    stop = threading.Event()

    def request_stop(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)

    from humanoid_rl_core.errors import UserError

    from .twin_node import run

    try:
        run(arguments if arguments is not None else sys.argv[1:], stop)
    except UserError as error:
        print(f"robot_twin: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
