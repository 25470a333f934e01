"""Joint targets of a JointCommand, mapped by name into motor order, or refused whole (rule H7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from humanoid_rl_core.errors import nearest
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

FIELDS = ("position", "velocity", "effort", "stiffness", "damping")

MAX_STIFFNESS = 1000.0
"""Nm/rad. Four times the stiffest gain in config/robot/g1.yaml: it catches a unit mistake (per degree instead
of per radian is a factor of 57), it is no claim of stability."""

MAX_DAMPING = 100.0
"""Nm s/rad. Twelve times the damping every host falls back to; same purpose as `MAX_STIFFNESS`."""


class RefusedCommandError(ValueError):
    """A joint command that must not reach the robot; the text is one line that names the joint and field."""


@dataclass(frozen=True, slots=True)
class JointTargets:
    """Targets of every joint, each float64 [n] in motor order.

    Torque of a motor = stiffness (position - q) + damping (velocity - dq) + effort.
    """

    position: Floats
    """rad."""
    velocity: Floats
    """rad/s."""
    effort: Floats
    """Nm, feed-forward."""
    stiffness: Floats
    """Nm/rad."""
    damping: Floats
    """Nm s/rad."""


class JointMap:
    """Brings named joint values into the robot's motor order. Names alone decide, never their order.

    :param joint_names: of the robot, in motor order.
    """

    def __init__(self, joint_names: Sequence[str]) -> None:
        self.joint_names = tuple(joint_names)
        self._index = {name: index for index, name in enumerate(self.joint_names)}
        # A publisher sends the same names every time; the last list seen needs no second look.
        self._known_names: list[str] | None = None
        self._known_order = np.zeros(0, np.intp)

    def order(self, names: Sequence[str]) -> NDArray[np.intp]:
        """[n] position in ``names`` of the robot's joint i.

        :raises RefusedCommandError: a joint is unknown, missing or named twice.
        """
        names = list(names)
        if names == self._known_names:
            return self._known_order
        order = np.full(len(self.joint_names), -1, np.intp)
        for position, name in enumerate(names):
            index = self._index.get(name)
            if index is None:
                raise RefusedCommandError(f"unknown joint '{name}'{nearest(name, self.joint_names)}")
            if order[index] >= 0:
                raise RefusedCommandError(f"joint '{name}' is named twice")
            order[index] = position
        if np.any(order < 0):
            absent = [self.joint_names[index] for index in np.flatnonzero(order < 0)]
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise RefusedCommandError(f"joint '{absent[0]}' is missing{more}")
        self._known_names, self._known_order = names, order
        return order

    def targets(self, names: Sequence[str], values: Mapping[str, ArrayLike]) -> JointTargets:
        """The targets in motor order.

        :param names: joint of each value, every joint of the robot exactly once.
        :param values: one array per name in `FIELDS`, each as long as ``names``.
        :raises RefusedCommandError: see `order`; or an array of another length, a value that is not finite,
            a gain that is negative or beyond `MAX_STIFFNESS` / `MAX_DAMPING`.
        """
        order = self.order(names)
        mapped = {field: self._mapped(field, values[field], order) for field in FIELDS}
        for field, unit, most in (
            ("stiffness", "Nm/rad", MAX_STIFFNESS),
            ("damping", "Nm s/rad", MAX_DAMPING),
        ):
            gain = mapped[field]
            if gain.min() < 0.0 or gain.max() > most:
                joint = int(np.argmax((gain < 0.0) | (gain > most)))
                raise RefusedCommandError(
                    f"{field} of '{self.joint_names[joint]}' is {gain[joint]:g}, outside 0 to {most:g} {unit}"
                )
        return JointTargets(**mapped)

    def _mapped(self, field: str, values: ArrayLike, order: NDArray[np.intp]) -> Floats:
        array = np.asarray(values, np.float64)
        if array.shape != order.shape:
            raise RefusedCommandError(f"{field} has {array.size} values for {order.size} joints")
        array = array[order]
        finite = np.isfinite(array)
        if not finite.all():
            joint = int(np.argmin(finite))
            raise RefusedCommandError(f"{field} of '{self.joint_names[joint]}' is {array[joint]}")
        return array
