"""Termination terms: [N] bool, True where the episode has failed."""

from __future__ import annotations

import math

import torch

from humanoid_rl_sim.tasks.view import StepView


def tilted(view: StepView, *, limit: float) -> torch.Tensor:
    """The base leans more than `limit` rad from upright."""
    return -view.projected_gravity[:, 2] < math.cos(limit)


def too_low(view: StepView, *, height: float) -> torch.Tensor:
    """The base is lower than `height` m above the ground."""
    return view.base_height < height
