"""Terrain for a task: a grid of cells, one column per kind of ground and one row per level of difficulty.

A robot starts on the level middle of its cell and walks off in any direction. The rim of every cell is level and at
height 0, so that neighbours meet without a cliff.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.height_scan import scan_points, scan_shape
from numpy.typing import NDArray

from humanoid_rl_sim.simulators.height_field import HeightField

RIM = 0.3
"""m of level ground along the edges of a cell."""
MIDDLE = 0.8
"""m, half the side of the level square in the middle of a cell."""
TREAD = 0.35
"""m, depth of a step."""
STONE = 0.35
"""m, side of a rubble stone."""
MARGIN = 2.0
"""m of level ground around all cells."""

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Severity:
    """How hard a kind of ground is on the first and on the last level, in the unit of the kind."""

    first: float
    last: float


@dataclass(frozen=True)
class HeightScanConfig:
    """A level grid of points around the base, in its yaw frame, at which the critic sees the ground, and the actor
    where its observation has the term `height_scan`. Length and width are multiples of the spacing."""

    length: float = 1.5
    """m, along x, centred on the base."""
    width: float = 0.9
    """m, along y."""
    spacing: float = 0.15
    """m."""

    def __post_init__(self) -> None:
        scan_shape(self.length, self.width, self.spacing)

    @property
    def points(self) -> NDArray[np.float64]:
        """[P, 2] x, y in m, row by row from behind to ahead."""
        return scan_points(self.length, self.width, self.spacing)


@dataclass(frozen=True)
class TerrainConfig:
    kinds: Mapping[str, Severity]
    """Kind of ground (`KINDS`) -> its severity."""
    levels: int = 10
    cell: float = 8.0
    """m, side of a cell."""
    spacing: float = 0.05
    """m between two heights."""
    seed: int = 0
    """Of the rubble and the waves."""
    curriculum: bool = True
    """Whether robots move to harder ground when they cross theirs or stay up for a whole episode, and to easier ground
    when they fall. Without it they stay, spread over all levels."""
    first_levels: int = 3
    """Robots of a curriculum start on that many of the easiest levels."""
    height_scan: HeightScanConfig | None = HeightScanConfig()

    def __post_init__(self) -> None:
        for kind, severity in self.kinds.items():
            if kind not in KINDS:
                raise UserError(
                    f"terrain: unknown kind '{kind}'{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}"
                )
            for name, value in (("first", severity.first), ("last", severity.last)):
                if not 0.0 <= value < math.inf:
                    raise UserError(
                        f"terrain: kinds.{kind}.{name} must be finite and at least 0, got {value}"
                    )
        if not self.kinds:
            raise UserError(f"terrain: name at least one kind: {', '.join(KINDS)}")
        for name in ("levels", "first_levels"):
            if getattr(self, name) < 1:
                raise UserError(f"terrain: {name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise UserError(f"terrain: seed must be at least 0, got {self.seed}")
        if not 0.0 < self.spacing <= 0.25:
            raise UserError(f"terrain: spacing must be above 0 and at most 0.25 m, got {self.spacing}")
        if not 2.0 * (MIDDLE + RIM) + TREAD <= self.cell < math.inf:
            raise UserError(
                f"terrain: cell must be at least {2.0 * (MIDDLE + RIM) + TREAD} m and finite, got {self.cell}"
            )


@dataclass(frozen=True)
class Terrain:
    """A height field and where robots start on it."""

    field: HeightField
    origins: NDArray[np.float32]
    """[levels, kinds, 3] m, the ground in the middle of every cell."""
    kinds: tuple[str, ...]


def _flat(x: Grid, y: Grid, size: float, half: float, rng: np.random.Generator) -> Grid:
    return np.zeros_like(x)


def _slope(x: Grid, y: Grid, size: float, half: float, rng: np.random.Generator) -> Grid:
    """Height of a pyramid whose sides rise by `size` m per m, from the rim to the middle."""
    outside = half - RIM - np.maximum(abs(x), abs(y))
    return size * np.clip(outside, 0.0, half - RIM - MIDDLE)


def _steps(x: Grid, y: Grid, size: float, half: float, rng: np.random.Generator) -> Grid:
    """A square staircase of steps `size` m high, from the rim up to the middle."""
    count = int((half - RIM - MIDDLE) / TREAD) + 1
    down = np.ceil((np.maximum(abs(x), abs(y)) - MIDDLE) / TREAD - 1e-6)
    return size * (count - np.clip(down, 0.0, count))


def _rubble(x: Grid, y: Grid, size: float, half: float, rng: np.random.Generator) -> Grid:
    """Square stones side by side, each at a height of its own within +-`size` m."""
    count = int(np.ceil(2.0 * half / STONE)) + 1
    stones = rng.uniform(-size, size, (count, count))
    column, row = ((x + half) / STONE).astype(int), ((y + half) / STONE).astype(int)
    return stones[row.clip(0, count - 1), column.clip(0, count - 1)] * _inside(x, y, half)


def _waves(x: Grid, y: Grid, size: float, half: float, rng: np.random.Generator) -> Grid:
    """Hills of +-`size` m at random: sines of wavelengths of 0.8 to 2 m in all directions."""
    height = np.zeros_like(x)
    for _ in range(12):
        direction, wavelength, phase = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(0.8, 2.0),
            rng.uniform(0, 2 * np.pi),
        )
        height += np.sin(2 * np.pi / wavelength * (x * np.cos(direction) + y * np.sin(direction)) + phase)
    # The sum of 12 sines has a standard deviation of sqrt(6); of three of those it stays within.
    return size * np.clip(height / (3.0 * np.sqrt(6.0)), -1.0, 1.0) * _inside(x, y, half)


def _inside(x: Grid, y: Grid, half: float) -> Grid:
    """1 between the rim and the middle, 0 elsewhere."""
    distance = np.maximum(abs(x), abs(y))
    return ((distance < half - RIM) & (distance > MIDDLE)).astype(float)


def _sunken(shape: Callable[..., Grid]) -> Callable[..., Grid]:
    """The same upside down: the robot starts in a pit and climbs."""
    return lambda *args: -shape(*args)


KINDS: dict[str, Callable[[Grid, Grid, float, float, np.random.Generator], Grid]] = {
    "flat": _flat,
    "slope_down": _slope,
    "slope_up": _sunken(_slope),
    "steps_down": _steps,
    "steps_up": _sunken(_steps),
    "rubble": _rubble,
    "waves": _waves,
}
"""Kind of ground -> its heights in m at x, y (m from the middle of the cell), for a severity in m or m per m."""


def make_terrain(config: TerrainConfig) -> Terrain:
    """The terrain of a task: levels along y, kinds along x."""
    per_cell = round(config.cell / config.spacing)
    margin = round(MARGIN / config.spacing)
    kinds = tuple(config.kinds)
    rows, columns = config.levels * per_cell, len(kinds) * per_cell
    heights = np.zeros((rows + 2 * margin + 1, columns + 2 * margin + 1))
    origins = np.zeros((config.levels, len(kinds), 3), np.float32)
    half = 0.5 * per_cell * config.spacing
    offset = np.arange(per_cell + 1) * config.spacing - half
    x, y = np.meshgrid(offset, offset)
    rng = np.random.default_rng(config.seed)
    for level in range(config.levels):
        share = level / max(config.levels - 1, 1)
        for column, (kind, severity) in enumerate(config.kinds.items()):
            size = severity.first + share * (severity.last - severity.first)
            cell = KINDS[kind](x, y, size, half, rng)
            row_at, column_at = margin + level * per_cell, margin + column * per_cell
            heights[row_at : row_at + per_cell + 1, column_at : column_at + per_cell + 1] = cell
            origins[level, column] = (
                (column + 0.5) * 2.0 * half - 0.5 * columns * config.spacing,
                (level + 0.5) * 2.0 * half - 0.5 * rows * config.spacing,
                cell[per_cell // 2, per_cell // 2],
            )
    return Terrain(HeightField(heights.astype(np.float32), config.spacing), origins, kinds)
