"""What a training run tells others, and how others steer it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from humanoid_rl_sim.tasks.environment import Environment


@dataclass(frozen=True)
class TrainingProgress:
    """What a run reports after every update."""

    phase: str
    """starting, training, paused, evaluating, done or failed."""
    steps: int
    total_steps: int
    steps_per_second: float
    """Environment steps per second over the last update, learning included; nan before the first."""
    mean_reward: float
    """Mean return of the last finished episodes; nan before the first."""
    mean_episode_length: float
    """s; nan before the first."""
    best_evaluation: float
    """In [0, 1]; nan before the first."""
    eta: float
    """s until the last step; nan before the first update."""


class TrainingControl:
    """Steers a run from another thread: pause, resume, write a checkpoint, stop."""

    def __init__(self) -> None:
        self._running = threading.Event()
        self._running.set()
        self._stop = threading.Event()
        self._checkpoint_wanted = threading.Event()
        self._checkpoint_written = threading.Condition()
        self._last_checkpoint: Path | None = None
        self._checkpoints = 0
        self.environment: Environment | None = None
        """The environment being trained on, once there is one (for previews; read only)."""

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def stop(self) -> None:
        """End the run at the next step, with a checkpoint; also when paused."""
        self._stop.set()

    def checkpoint(self, timeout: float) -> Path | None:
        """Ask for a checkpoint and wait for it. Returns its path, or None when `timeout` s pass first."""
        with self._checkpoint_written:
            before = self._checkpoints
            self._checkpoint_wanted.set()
            written = self._checkpoint_written.wait_for(lambda: self._checkpoints != before, timeout)
            return self._last_checkpoint if written else None

    def take_checkpoint_request(self) -> bool:
        wanted = self._checkpoint_wanted.is_set()
        self._checkpoint_wanted.clear()
        return wanted

    def report_checkpoint(self, path: Path) -> None:
        with self._checkpoint_written:
            self._last_checkpoint = path
            self._checkpoints += 1
            self._checkpoint_written.notify_all()

    def wait_while_paused(self) -> None:
        """Block while paused, but not while there is a checkpoint to write or an end to be made."""
        while not self._running.wait(0.1):
            if self.stopping or self._checkpoint_wanted.is_set():
                break
