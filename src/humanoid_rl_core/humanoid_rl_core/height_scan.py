"""Where a policy that sees the ground looks at it: the geometry of the sensor input `height_scan`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


def scan_shape(length: float, width: float, spacing: float) -> tuple[int, int]:
    """Number of points along x and along y of a grid of `length` by `width` m, `spacing` m apart.

    Raises:
        ValueError: the spacing is not positive, a side is negative, or one is no multiple of the spacing.
    """
    if not (math.isfinite(spacing) and spacing > 0.0):
        raise ValueError(f"spacing must be positive (m), got {spacing}")
    counts = []
    for name, side in (("length", length), ("width", width)):
        if not (math.isfinite(side) and side >= 0.0):
            raise ValueError(f"{name} must not be negative (m), got {side}")
        steps = side / spacing
        if not math.isfinite(steps) or abs(steps - round(steps)) > 1e-6:
            raise ValueError(f"{name} {side} m is not a multiple of spacing {spacing} m")
        counts.append(round(steps) + 1)
    return counts[0], counts[1]


def scan_points(length: float, width: float, spacing: float) -> NDArray[np.float64]:
    """[P, 2] x (ahead), y (left) in m of that grid, centred on 0: row by row from behind to ahead, each from right
    to left.

    Raises:
        ValueError: as `scan_shape`.
    """
    rows, columns = scan_shape(length, width, spacing)
    x = np.linspace(-0.5 * length, 0.5 * length, rows)
    y = np.linspace(-0.5 * width, 0.5 * width, columns)
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)


@dataclass(frozen=True)
class HeightScan:
    """A level grid of points around the robot at which a policy sees how deep the ground is.

    The value at a point is the height of `origin` above the ground at that point (along the world's vertical, m)
    less `standing_height`: 0 on level ground under a standing robot, positive where the ground is lower.

    length, width: m along x and y of `frame`, multiples of the spacing. spacing: m between two points.
    origin: link of the robot in the middle of the grid, whose height counts.
    standing_height: m, of `origin` above level ground in the default pose.
    frame: `base_yaw`, level, x where the base faces.
    clip: m, the graph clips the values to +-clip.

    Raises:
        ValueError: a size is out of its range.
    """

    length: float
    width: float
    spacing: float
    origin: str
    standing_height: float
    frame: Literal["base_yaw"] = "base_yaw"
    clip: float = 1.0

    def __post_init__(self) -> None:
        scan_shape(self.length, self.width, self.spacing)
        if not (math.isfinite(self.standing_height) and self.standing_height > 0.0):
            raise ValueError(f"standing_height must be positive (m), got {self.standing_height}")
        if not (math.isfinite(self.clip) and self.clip > 0.0):
            raise ValueError(f"clip must be positive (m), got {self.clip}")

    @property
    def size(self) -> int:
        """P, the number of points."""
        rows, columns = scan_shape(self.length, self.width, self.spacing)
        return rows * columns

    @property
    def points(self) -> NDArray[np.float64]:
        """[P, 2] x, y in m; see `scan_points`."""
        return scan_points(self.length, self.width, self.spacing)

    @property
    def mirrored(self) -> NDArray[np.intp]:
        """[P] the point that each point meets with left and right exchanged (y -> -y)."""
        rows, columns = scan_shape(self.length, self.width, self.spacing)
        return np.arange(rows * columns).reshape(rows, columns)[:, ::-1].ravel()
