"""Which robot walks on which cell of a terrain, and what the ground is like under it."""

from __future__ import annotations

import torch

from humanoid_rl_sim.simulators.height_field import Ground
from humanoid_rl_sim.tasks.terrain import RIM, Terrain, TerrainConfig


class Cells:
    """The kind and the level of ground of every robot; the tensors are updated in place.

    Args:
        config: the task's terrain.
        terrain: made from it.
        num_envs: number of robots.
        device: where the tensors live.
        curriculum: start on the easy levels; otherwise all levels are taken evenly.
    """

    def __init__(
        self,
        config: TerrainConfig,
        terrain: Terrain,
        num_envs: int,
        device: torch.device,
        *,
        curriculum: bool,
    ) -> None:
        self.ground = Ground(terrain.field, device)
        self.kinds, self.levels = terrain.kinds, config.levels
        self._origins = torch.as_tensor(terrain.origins, device=device).reshape(-1, 3)
        self._reach = 0.5 * config.cell - 0.5 * RIM
        robots = torch.arange(num_envs, device=device)
        self.kind = robots % len(self.kinds)
        """[N] index into `kinds`."""
        first = min(config.first_levels, config.levels) if curriculum else config.levels
        self.level = robots.div(len(self.kinds), rounding_mode="floor") % first
        """[N] 0 is the easiest."""
        scan = config.height_scan
        self.scan_points = torch.as_tensor(
            [] if scan is None else scan.points, dtype=torch.float32, device=device
        ).reshape(-1, 2)
        """[P, 2] m, where the critic sees the ground, in the base's yaw frame."""

    @property
    def scan_size(self) -> int:
        """Number of points of the height scan."""
        return len(self.scan_points)

    def origin(self) -> torch.Tensor:
        """[N, 3] m, where the robots start: the ground in the middle of their cells."""
        return self._origins.index_select(0, self.level * len(self.kinds) + self.kind)

    def crossed(self, base_pos: torch.Tensor) -> torch.Tensor:
        """[N] bool: whether robots at `base_pos` [N, 3] have reached the edge of their cell."""
        return (base_pos - self.origin())[:, :2].abs().amax(1) > self._reach

    def regrade(self, passed: torch.Tensor, failed: torch.Tensor, lot: torch.Tensor) -> None:
        """Who `passed` [N] an episode without falling goes a level up, who `failed` [N] a level down.

        Who has passed the last level goes on anywhere, by `lot` [N] in [0, 1), so that no level is forgotten.
        """
        level = self.level + passed.long() - failed.long()
        anywhere = (lot * self.levels).long()
        self.level.copy_(torch.where(level >= self.levels, anywhere, level.clamp(min=0)))

    def scan(
        self, base_pos: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, points: torch.Tensor
    ) -> torch.Tensor:
        """[N, P] m: how far the ground is below the base at the points of a scan.

        Args:
            base_pos: [N, 3] m.
            cos: [N] cosine of the base's yaw.
            sin: [N] sine of it.
            points: [P, 2] m, x and y in the base's yaw frame.
        """
        x, y = points.unbind(1)
        cos, sin = cos[:, None], sin[:, None]
        points = torch.stack((cos * x - sin * y, sin * x + cos * y), 2) + base_pos[:, None, :2]
        return base_pos[:, 2:3] - self.ground.height(points)
