"""A bare 500 Hz loop: what this machine gives any Python program that sleeps to absolute times.

`python benchmarks/sleep_loop.py SECONDS [PRIORITY]` prints the errors of its periods as JSON. The loop alone runs at
the real-time PRIORITY, where that is permitted: imports and arithmetic would keep a robot from its processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

import numpy as np

PERIOD = 0.002  # s, that of the hosts


def period_errors(seconds: float) -> np.ndarray:
    """[k] s, |actual - nominal| of each period."""
    stamps = np.empty(max(2, round(seconds / PERIOD)))
    due = time.monotonic()
    for i in range(stamps.size):
        due += PERIOD
        if (delay := due - time.monotonic()) > 0.0:
            time.sleep(delay)
        else:
            due = time.monotonic()  # what was missed is not caught up with, as in the hosts
        stamps[i] = time.monotonic()
    return np.abs(np.diff(stamps) - PERIOD)


def percentiles(values: np.ndarray) -> dict[str, float]:
    """p50, p99 and max."""
    p50, p99, worst = np.percentile(values, (50, 99, 100))
    return {"p50": float(p50), "p99": float(p99), "max": float(worst)}


def main(seconds: float, priority: int = 0) -> None:
    """Run the loop at a priority (1 to 99; 0: an ordinary one) and print its figures."""
    with contextlib.suppress(PermissionError):
        if priority:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    errors = period_errors(seconds)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    print(json.dumps(percentiles(errors)))


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(int, sys.argv[2:]))
