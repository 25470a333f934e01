"""How evenly the host's cycle runs: what rule H9 asks to be measured and published."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class PeriodErrors(NamedTuple):
    """|actual - nominal| period in s; NaN before the first period."""

    p50: float
    p99: float
    max: float


class Schedule:
    """When a periodic act is due, and how often it was missed.

    The act is missed when it begins more than half a period late, or not at all. One that is more than a whole
    period late starts the schedule anew: commands sent in a burst would be of no use to the robot.

    :param period: s, nominal.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.misses = 0
        self._due = math.nan

    def start(self, now: float) -> None:
        """The first act is due a period after ``now``, s of a monotonic clock."""
        self._due = now

    def next(self, now: float) -> float:
        """Goes on to the next act; s to wait for it, 0 when it is due already."""
        self._due += self.period
        late = now - self._due
        if late > self.period:
            self.misses += int(late / self.period)
            self._due = now
        return max(0.0, -late)

    def begin(self, now: float) -> None:
        """The act begins."""
        self.misses += now - self._due > 0.5 * self.period


class PeriodStatistics:
    """Errors of the last ``window`` seconds of a periodic act.

    One thread may `tick` while another reads `errors`: the ring is read whole and a slot that changes
    meanwhile only swaps one sample for another.

    :param period: s, nominal.
    :param window: s over which errors are kept.
    """

    def __init__(self, period: float, window: float = 10.0) -> None:
        self.period = period
        self._ring = np.zeros(max(1, round(window / period)))
        self._count = 0
        self._last = math.nan

    def tick(self, now: float) -> None:
        """The act happened at ``now``, s of a monotonic clock."""
        if not math.isnan(self._last):
            self._ring[self._count % self._ring.size] = abs(now - self._last - self.period)
            self._count += 1
        self._last = now

    def pause(self) -> None:
        """The act stopped on purpose; the gap until the next `tick` is not a period."""
        self._last = math.nan

    def errors(self) -> PeriodErrors:
        """Median, 99th percentile and maximum over the window."""
        samples = self._ring[: min(self._count, self._ring.size)].copy()
        if not samples.size:
            return PeriodErrors(math.nan, math.nan, math.nan)
        p50, p99 = np.percentile(samples, (50, 99))
        return PeriodErrors(float(p50), float(p99), float(samples.max()))
