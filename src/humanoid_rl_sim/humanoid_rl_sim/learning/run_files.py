"""The files of a training run: checkpoints written atomically, tables appended row by row."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm


def write_model(model: BaseAlgorithm, path: Path) -> Path:
    """Save a model so that `path` is either absent, the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.zip")
    try:
        model.save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the most steps, or None."""
    found = [
        (int(match.group(1)), path)
        for path in (run_dir / "checkpoints").glob("step_*.zip")
        if (match := re.fullmatch(r"step_(\d+)", path.stem))
    ]
    return max(found)[1] if found else None


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append a row to a CSV file, with a header if the file is new.

    The file's own columns keep their order. One that it does not have yet, because the run was begun by an older
    version, is added to all its rows; what a row does not know is nan.
    """
    columns: list[str] = []
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file), [])
    added = [name for name in row if name not in columns]
    if columns and added:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        _replace(path, [columns + added, *(old + ["nan"] * len(added) for old in rows[1:])])
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns + added, restval="nan")
        if not columns:
            writer.writeheader()
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        )


def truncate_rows(path: Path, steps: int) -> None:
    """Drop the rows beyond `steps`: they belong to work that the killed run did not keep."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    _replace(path, [rows[0], *(row for row in rows[1:] if int(row[0]) <= steps)])


def _replace(path: Path, rows: list[list[str]]) -> None:
    """Write a table so that the file is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    os.replace(temporary, path)
