"""The progress of a training on one line of a terminal, or a line now and then in a log."""

from __future__ import annotations

import math
import shutil
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from humanoid_rl_sim.learning.training_control import TrainingProgress

LOG_PERIOD = 15.0
BAR_WIDTH = 24


class TrainingDisplay:
    """Shows every TrainingProgress it is given. A context manager.

    Args:
        title: stands before the bar.
        stream: where to print; a terminal gets one line that is rewritten, anything else a line every 15 s.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self._terminal = self.stream.isatty()
        self._last = -math.inf
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._phase:
            print(file=self.stream)

    def show(self, progress: TrainingProgress) -> None:
        """Print the progress, if it is time to."""
        now = time.monotonic()
        last_word = progress.phase == "done" and self._phase != "done"
        if not self._terminal and now - self._last < LOG_PERIOD and not last_word:
            return
        self._last, self._phase = now, progress.phase
        line = describe_progress(progress, self.title)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)


def describe_progress(progress: TrainingProgress, title: str) -> str:
    """One line: bar, steps, rate, reward, best evaluation, time to go."""
    fraction = min(1.0, progress.steps / max(1, progress.total_steps))
    bar = "#" * round(BAR_WIDTH * fraction)
    parts = [
        f"{title} [{bar:.<{BAR_WIDTH}}] {fraction:4.0%}",
        f"{_count(progress.steps)}/{_count(progress.total_steps)}",
    ]
    if math.isfinite(progress.steps_per_second):
        parts.append(f"{_count(progress.steps_per_second)} steps/s")
    if math.isfinite(progress.mean_reward):
        parts.append(f"reward {progress.mean_reward:.1f}")
    if math.isfinite(progress.best_evaluation):
        parts.append(f"best {progress.best_evaluation:.0%}")
    if math.isfinite(progress.eta) and progress.phase != "done":
        minutes, seconds = divmod(max(0, round(progress.eta)), 60)
        parts.append(f"ETA {minutes}:{seconds:02d}")
    if progress.phase != "training":
        parts.append(progress.phase)
    return "  ".join(parts)


def _count(value: float) -> str:
    """1234567 as 1.23M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"
