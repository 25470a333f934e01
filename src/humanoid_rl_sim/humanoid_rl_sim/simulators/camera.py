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

    def control_steps(self, control_period: float) -> int:
        """Control steps between two images.

        Raises:
            UserError: the period is no multiple of the control period, in s.
        """
        steps = round(self.period / control_period)
        if steps < 1 or abs(steps * control_period / self.period - 1.0) > 1e-6:
            below = max(1, int(self.period / control_period))
            raise UserError(
                f"camera period {self.period:g} s is not a multiple of the control period {control_period:g} s; "
                f"take {below * control_period:g} or {(below + 1) * control_period:g}"
            )
        return steps

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
    number: int = 0
    """How many images the environment has had until this one."""

    def without(self, mask: torch.Tensor) -> Images:
        """The same with the rows in `mask` [N] black and without depth."""

        def cleared(image: torch.Tensor | None) -> torch.Tensor | None:
            return image if image is None else image.masked_fill(mask.view(-1, *[1] * (image.dim() - 1)), 0)

        return Images(cleared(self.color), cleared(self.depth), self.number)
