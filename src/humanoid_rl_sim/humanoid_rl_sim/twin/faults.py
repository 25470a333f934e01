"""Faults a virtual robot can be given on purpose, each for a while or until cleared."""

from __future__ import annotations

import math
from dataclasses import dataclass

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel, index_of

FAULTS: dict[str, str] = {
    "drop_state": "no LowState is published",
    "freeze_state": "the same LowState is published again and again, tick included",
    "nan_imu": "quaternion, gyroscope and accelerometer are NaN (the CRC is right)",
    "stuck_joint": "the joint seizes at its present angle",
    "delay_state": "LowState is published `value` seconds late",
    "bad_crc": "LowState carries a wrong CRC",
    "overheat": "the joint's winding reports `value` degrees Celsius (0: 130)",
}
"""Name -> what it does."""

NEEDS_JOINT = ("stuck_joint", "overheat")
OVERHEAT_DEFAULT = 130.0
"""degrees Celsius; above the vendor's limit of 120 for a winding."""
LONGEST_DELAY = 5.0
"""s; bounds the memory that late messages take."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One active fault."""

    name: str
    joint: int
    """Motor index, -1 when the fault has no joint."""
    value: float
    since: float
    """s, the virtual robot's time."""
    until: float
    """s, the virtual robot's time; inf until cleared."""


def parse_fault(robot: RobotModel, name: str, joint: str, value: float, duration: float, now: float) -> Fault:
    """A fault from the words of a user.

    :param joint: a joint's name for ``stuck_joint`` and ``overheat``, else empty.
    :param value: seconds (``delay_state``) or degrees Celsius (``overheat``), else unused.
    :param duration: s; 0 means until cleared.
    :param now: s, the virtual robot's time.
    :raises UserError: an unknown fault or joint, or a number that makes no sense.
    """
    if name not in FAULTS:
        known = ", ".join(["none", *FAULTS])
        raise UserError(f"unknown fault '{name}'{nearest(name, FAULTS)}; valid: {known}")
    if not (math.isfinite(duration) and duration >= 0.0):
        raise UserError(f"{name}: duration must be 0 (until cleared) or positive seconds, not {duration}")
    if not math.isfinite(value):
        raise UserError(f"{name}: value must be finite, not {value}")
    index = -1
    if name in NEEDS_JOINT:
        if not joint:
            raise UserError(f"{name} needs a joint, for example {robot.joint_names[3]}")
        index = index_of(robot, joint)
    elif joint:
        raise UserError(f"{name} takes no joint, but '{joint}' was given")
    if name == "delay_state" and not 0.0 < value <= LONGEST_DELAY:
        raise UserError(
            f"delay_state: value must be the delay in seconds, above 0 and up to {LONGEST_DELAY:g}"
        )
    if name == "overheat":
        value = value or OVERHEAT_DEFAULT
        if not -50.0 <= value <= 300.0:
            raise UserError(f"overheat: value must be degrees Celsius between -50 and 300, not {value:g}")
    return Fault(name, index, value, now, now + duration if duration else math.inf)
