"""Priority, processor and locked memory: what is asked for is there afterwards, or said to be missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.real_time import RealTime

SCRIPT = """
import os
from pathlib import Path
from humanoid_rl_core.real_time import RealTime

processor = max(os.sched_getaffinity(0))
print(*RealTime(priority=7, cpu=processor, lock_memory=True).apply(), sep="\\n")


def locked():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmLck")) // 1024


before = locked()
held = bytearray(8 << 20)
print("locked", locked() - before, "policy", os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)
print("processors", os.sched_getaffinity(0) == {processor})
"""
# What an ordinary user on an ordinary Debian has, whoever runs the tests.
ORDINARY = "ulimit -l 8192; ulimit -r 0; "
WITHOUT = "setpriv --bounding-set -ipc_lock,-sys_nice,-sys_resource --inh-caps -all "


def lines(prefix: str, command: str = "") -> list[str]:
    done = subprocess.run(
        ["bash", "-c", f'{prefix}exec {command}"$0" -c "$1"', sys.executable, SCRIPT],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


def test_what_the_system_refuses_is_one_line_each_and_the_rest_is_done() -> None:
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    told = lines(ORDINARY, WITHOUT if os.geteuid() == 0 else "")
    assert told == [
        "rt_priority 7 refused (Operation not permitted): raise the rtprio limit of this user, see docs/realtime.md",
        "lock_memory refused (the memlock limit is 8 MiB): set it to unlimited for this user, see docs/realtime.md",
        "locked 0 policy 0 0",
        "processors True",
    ]


def test_what_the_system_grants_is_there_for_what_is_allocated_later_too() -> None:
    told = lines("")
    if any("refused" in line for line in told):
        pytest.skip(f"not permitted here: {told[0]}")
    words = told[0].split()
    assert int(words[1]) >= 8, "MiB: those that were allocated after the lock"
    assert words[3:] == [str(os.SCHED_FIFO), "7"]
    assert told[1] == "processors True"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"priority": 100}, "rt_priority is 100, expected 1 to 99"),
        ({"priority": -1}, "rt_priority is -1, expected 1 to 99"),
        ({"cpu": 100_000}, "cpu is 100000, expected 0 to"),
        ({"cpu": -2}, "cpu is -2, expected 0 to"),
    ],
)
def test_values_that_no_machine_grants_are_refused(wrong: dict[str, int], line: str) -> None:
    with pytest.raises(UserError, match=line):
        RealTime(**wrong)
