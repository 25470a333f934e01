"""The velocity commands a Twist or a gamepad can give, by the names policies use."""

from collections.abc import Sequence

import numpy as np
from humanoid_rl_core.errors import UserError, nearest
from numpy.typing import NDArray

# m/s, m/s, rad/s in the heading frame of the base (x forward, y left, z up), REP 103:
# Twist.linear.x, Twist.linear.y, Twist.angular.z.
VELOCITY_COMMANDS = ("vx", "vy", "yaw_rate")


def command_indices(command_names: Sequence[str]) -> NDArray[np.intp]:
    """Index in VELOCITY_COMMANDS of each of a policy's commands, [k].

    Raises:
        UserError: a command no topic can give.
    """
    for name in command_names:
        if name not in VELOCITY_COMMANDS:
            known = ", ".join(VELOCITY_COMMANDS)
            raise UserError(
                f"the policy wants a command '{name}', which no topic gives"
                f"{nearest(name, VELOCITY_COMMANDS)} (known: {known})"
            )
    return np.array([VELOCITY_COMMANDS.index(name) for name in command_names], dtype=np.intp)
