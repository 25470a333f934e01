"""Images that a robot's camera takes: how they are asked for, and what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import CameraMount, RobotModel

Channel = Literal["color", "depth"]


@dataclass(frozen=True)
class CameraConfig:
    """One camera on every robot: a pinhole with square pixels and the optical axis in the middle."""

    name: str = "head"
    """One of the robot's `cameras`."""
    width: int = 64
    """pixels"""
    height: int = 40
    """pixels"""
    period: float = 0.1
    """s between two images."""
    channels: tuple[Channel, ...] = get_args(Channel)
    """What is rendered."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ValueError(f"{name} must be between 1 and 4096 pixels, found {getattr(self, name)}")
        if not (math.isfinite(self.period) and self.period > 0.0):
            raise ValueError(f"period must be a positive number of s, found {self.period}")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must name color, depth or both, each once")

    def mount(self, robot: RobotModel) -> CameraMount:
        """Where it sits.

        Raises:
            UserError: the robot has no camera of that name.
        """
        if self.name not in robot.cameras:
            known = ", ".join(robot.cameras) or "none"
            raise UserError(
                f"robot {robot.name} has no camera '{self.name}'{nearest(self.name, robot.cameras)} (known: {known})"
            )
        return robot.cameras[self.name]

    def focal_length(self, robot: RobotModel) -> float:
        """In pixels, along both axes."""
        return 0.5 * self.width / math.tan(0.5 * self.mount(robot).horizontal_fov)


@dataclass(frozen=True)
class Images:
    """What the cameras of all robots saw at one instant; rows from top to bottom."""

    color: torch.Tensor | None
    """[N, height, width, 3] uint8, sRGB."""
    depth: torch.Tensor | None
    """[N, height, width] float32 m along the optical axis; 0 where the camera measures none: nearer than `near`,
    farther than `far`, or nothing there."""

    def without(self, mask: torch.Tensor) -> Images:
        """The same with the rows in `mask` [N] black and without depth."""

        def cleared(image: torch.Tensor | None) -> torch.Tensor | None:
            return image if image is None else image.masked_fill(mask.view(-1, *[1] * (image.dim() - 1)), 0)

        return Images(cleared(self.color), cleared(self.depth))
