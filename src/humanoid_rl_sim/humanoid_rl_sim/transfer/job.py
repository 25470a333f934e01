"""What a worker of the transfer report is told, and where it leaves what it measured."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from humanoid_rl_sim.learning.evaluation import write_json

REFERENCE = "mujoco"
"""Where open-loop commands are recorded and the size of a push is found, once for all simulators."""


@dataclass(frozen=True)
class Job:
    """One simulator's part of the work, as a JSON file. Paths are absolute."""

    kind: Literal["reference", "measure"]
    """reference: record the commands and find the push; measure: everything else, in one simulator."""
    sim: str
    result: str
    """Where the result goes: this with .json, and with .npz."""
    robot: str
    variant: str
    seed: int = 0
    policy: str | None = None
    """ONNX file; None replays a recorded robot only."""
    task: str | None = None
    episodes: int | None = None
    """Of the suite; None is its own number."""
    push: float | None = None
    """m/s, for a task that commands no motion."""
    commands: str | None = None
    """NPZ with the open-loop commands `policy` and `air`, and `log` from a recorded robot."""
    recording: str | None = None
    """NPZ with the windows of a recorded robot."""

    def write(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text()))


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an NPZ so that the file is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            # Keys with dots are no keyword arguments that savez could mistake for its own.
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an NPZ."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}
