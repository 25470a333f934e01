"""Returns and lengths of episodes, counted where the environments are."""

from __future__ import annotations

from collections import deque

import torch


class EpisodeStatistics:
    """The running episodes of `num_envs` environments, and sums over those that ended; all at fixed addresses."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._return = torch.zeros(num_envs, device=device)
        self._length = torch.zeros(num_envs, device=device)
        self._ended = torch.zeros(3, device=device)
        """Number of episodes that ended, sum of their returns and of their lengths in steps."""

    def count(self, reward: torch.Tensor, done: torch.Tensor) -> None:
        """Add a step's `reward` [N] to the running episodes, and book those that end, where `done` [N] is 1."""
        self._return += reward
        self._length += 1.0
        self._ended += torch.stack((done.sum(), (done * self._return).sum(), (done * self._length).sum()))
        self._return *= 1.0 - done
        self._length *= 1.0 - done

    def forget_ended(self) -> None:
        """Begin new sums; running episodes go on."""
        self._ended.zero_()

    def restart(self) -> None:
        """Every environment begins an episode."""
        self._return.zero_()
        self._length.zero_()

    def report(self, buffer: deque | None) -> int:
        """Put the means of the ended episodes, as one entry for all, into stable-baselines3's buffer.

        Reads the device. Returns how many ended; with none the buffer stays as it is.
        """
        count, returns, lengths = self._ended.tolist()
        if count and buffer is not None:
            buffer.clear()
            buffer.append({"r": returns / count, "l": lengths / count, "t": 0.0})
        return int(count)
