"""What a control loop asks of Linux: a real-time priority, a processor of its own, memory that stays in RAM.

Each of the three needs a permission. One that is missing is told in one line with its remedy and changes nothing
else: a loop without it is late more often, which the deadline accounting of host and policy node shows.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

LIMITS = "docs/realtime.md"
_CAP_IPC_LOCK = 14  # bit, linux/capability.h
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # bits/mman-linux.h


@dataclass(frozen=True)
class RealTime:
    """What a process asks for.

    priority: SCHED_FIFO priority of the thread that calls `apply`, 1 to 99; 0 leaves its scheduling alone.
    cpu: number of the processor that thread is pinned to; -1 leaves it on any.
    lock_memory: keep all memory of the process in RAM, what it allocates later included.

    Raises:
        UserError: a value that no machine, or not this one, could grant.
    """

    priority: int = 0
    cpu: int = -1
    lock_memory: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 99:
            raise UserError(
                f"rt_priority is {self.priority}, expected 1 to 99, or 0 to leave the scheduler alone"
            )
        cpus = os.cpu_count() or 1
        if not -1 <= self.cpu < cpus:
            raise UserError(f"cpu is {self.cpu}, expected 0 to {cpus - 1}, or -1 for any")

    def apply(self) -> list[str]:
        """Ask for all of it, for the calling thread and its process. Returns a line for each refusal."""
        refusals = [self._pin(), self._raise_priority(), lock_memory() if self.lock_memory else ""]
        return [line for line in refusals if line]

    def _pin(self) -> str:
        if self.cpu >= 0:
            try:
                os.sched_setaffinity(0, {self.cpu})
            except OSError as error:
                return (
                    f"cpu {self.cpu} refused ({error.strerror}); running on any: see taskset -p {os.getpid()}"
                )
        return ""

    def _raise_priority(self) -> str:
        if self.priority:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self.priority))
            except OSError as error:
                return (
                    f"rt_priority {self.priority} refused ({error.strerror}): "
                    f"raise the rtprio limit of this user, see {LIMITS}"
                )
        return ""


def lock_memory() -> str:
    """Keep the memory of this process in RAM, now and what it allocates later. Returns why not, "" if it is.

    Under a finite limit the kernel would grant the lock and fail a later allocation of the running loop, so
    that is refused here.
    """
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit != resource.RLIM_INFINITY and not _has_capability(_CAP_IPC_LOCK):
        return (
            f"lock_memory refused (the memlock limit is {limit / 2**20:g} MiB): "
            f"set it to unlimited for this user, see {LIMITS}"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE):
        return f"lock_memory refused ({os.strerror(ctypes.get_errno())}): see {LIMITS}"
    return ""


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
