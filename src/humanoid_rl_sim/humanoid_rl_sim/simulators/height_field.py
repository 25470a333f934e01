"""The ground as a grid of heights: what a simulator collides with, and what tasks look up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class HeightField:
    """Heights on a square grid centred on the world's origin.

    Between the grid points the ground is two triangles per square, cut from its corner of least x and y to the
    opposite one, which is how MuJoCo cuts it.
    """

    heights: NDArray[np.float32]
    """[rows, columns] m; rows along y, columns along x, both growing."""
    spacing: float
    """m between two grid points."""

    @property
    def half_size(self) -> tuple[float, float]:
        """m, from the centre to the edge, along x and y."""
        rows, columns = self.heights.shape
        return 0.5 * (columns - 1) * self.spacing, 0.5 * (rows - 1) * self.spacing


class Ground:
    """Heights under points, on a device, without a word to the host.

    Beyond the edge the look-up goes on with the heights of the edge; an engine has no ground there.
    """

    def __init__(self, field: HeightField, device: torch.device) -> None:
        self._heights = torch.as_tensor(field.heights, dtype=torch.float32, device=device).flatten()
        self._rows, self._columns = field.heights.shape
        self._half_x, self._half_y = field.half_size
        self._spacing = field.spacing

    def height(self, xy: torch.Tensor) -> torch.Tensor:
        """World points [..., 2] in m -> heights [...] in m."""
        # What is no number must not become an index.
        xy = xy.nan_to_num()
        column = ((xy[..., 0] + self._half_x) / self._spacing).clamp(0.0, self._columns - 1.001)
        row = ((xy[..., 1] + self._half_y) / self._spacing).clamp(0.0, self._rows - 1.001)
        left, below = column.long(), row.long()
        u, v = column - left, row - below
        corner = below * self._columns + left
        here, across = self._heights.take(corner), self._heights.take(corner + self._columns + 1)
        # The triangle of the point has, beside the diagonal's two corners, the one to the right or the one above.
        right = u > v
        third = self._heights.take(torch.where(right, corner + 1, corner + self._columns))
        return torch.where(
            right,
            here + u * (third - here) + v * (across - third),
            here + v * (third - here) + u * (across - third),
        )
