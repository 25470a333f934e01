"""Timing of the control loop: latency, period error, late ticks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Ticks the figures of PolicyStatus look back on: 20 s at 50 Hz.
HISTORY = 1000


class Ring:
    """The last `size` values."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        """Append, forgetting the oldest when full."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def values(self) -> np.ndarray:
        """A view on what was added, in no particular order."""
        return self._values[: min(self._count, len(self._values))]


@dataclass(frozen=True)
class Figures:
    """Seconds over the last HISTORY ticks; NaN before the first."""

    latency_p50: float = np.nan
    latency_p99: float = np.nan
    latency_max: float = np.nan
    computation_p99: float = np.nan
    period_error_p99: float = np.nan


class TickStatistics:
    """Counts ticks and late ones, keeps the last latencies and period errors.

    A tick is late when it begins more than half a period after it was due; a tick that was left out because
    the one before it took too long counts as late too.

    Args:
        period: nominal, s.
        window: ticks over which `late_ticks` counts.
    """

    def __init__(self, period: float, window: int) -> None:
        self.period = period
        self.ticks = 0
        self.deadline_misses = 0
        self.late_ticks = 0
        self.last_latency = np.nan
        self.figures = Figures()
        self._window = Ring(window)
        self._latency, self._computation, self._period_error = (Ring(HISTORY) for _ in range(3))
        self._previous_begin: float | None = None

    def begin(self, due: float, now: float, left_out: int = 0) -> None:
        """A tick that was due at `due` (s) begins at `now`, after `left_out` ticks that never happened."""
        late = now - due > 0.5 * self.period
        for missed in [True] * min(left_out, HISTORY) + [late]:
            self._window.add(float(missed))
        self.deadline_misses += left_out + late
        self.late_ticks = int(self._window.values().sum())
        if self._previous_begin is not None:
            self._period_error.add(abs(now - self._previous_begin - self.period))
        self._previous_begin = now
        self.ticks += 1

    def forgive(self) -> None:
        """Forget late ticks for the guard: what happened before a reset is no reason to trip after it."""
        self._window.values()[:] = 0.0
        self.late_ticks = 0

    def published(self, latency: float, computation: float) -> None:
        """The tick's command is out: latency (s) since its sensor sample, computation (s) since begin."""
        self.last_latency = latency
        if np.isfinite(latency):
            self._latency.add(latency)
        self._computation.add(computation)

    def refresh(self) -> Figures:
        """Compute the percentiles; ~0.1 ms, so not every tick."""
        latency = self._latency.values()
        self.figures = Figures(
            _percentile(latency, lambda v: np.percentile(v, 50)),
            _percentile(latency, lambda v: np.percentile(v, 99)),
            _percentile(latency, np.max),
            _percentile(self._computation.values(), lambda v: np.percentile(v, 99)),
            _percentile(self._period_error.values(), lambda v: np.percentile(v, 99)),
        )
        return self.figures


def _percentile(values: np.ndarray, of: Callable[[np.ndarray], float]) -> float:
    return float(of(values)) if values.size else float("nan")
