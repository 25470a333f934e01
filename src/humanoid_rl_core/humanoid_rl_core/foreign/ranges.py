"""Ranges of the velocity command, as the user or a foreign file gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError, nearest
from .answers import as_range
from .description import VELOCITY_COMMANDS


def command_range(where: str, value: Any) -> np.ndarray:
    """{vx: [lower, upper], vy: ..., yaw_rate: ...} in m/s and rad/s as [3, 2].

    Raises:
        UserError: a command is missing, unknown, or its range is none.
    """
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected {{{': [lower, upper], '.join(VELOCITY_COMMANDS)}: [lower, upper]}}"
        )
    for name in value:
        if name not in VELOCITY_COMMANDS:
            raise UserError(f"{where}: unknown command '{name}'{nearest(str(name), VELOCITY_COMMANDS)}")
    for name in VELOCITY_COMMANDS:
        if name not in value:
            raise UserError(f"{where}: lacks '{name}'")
    return np.array([as_range(f"{where}: {name}", value[name]) for name in VELOCITY_COMMANDS])
