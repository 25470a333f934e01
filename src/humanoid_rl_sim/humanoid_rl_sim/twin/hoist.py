"""The crane a humanoid hangs from before it stands on its own: a rope that pulls up and never pushes down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import mujoco
import numpy as np

RAISE_SPEED = 0.2
"""m/s, a hand-operated gantry crane."""
LOWER_SPEED = 0.1
"""m/s, slow enough that a standing controller takes the weight without a jolt."""
STIFFNESS = 4000.0
"""N/m; the robot's weight stretches the rope by 8 cm."""
DAMPING = 500.0
"""N s/m; about 0.7 of critical for 33 kg."""
SWAY_STIFFNESS = 300.0
"""N/m sideways while the rope carries the whole weight: a pendulum of about 1 m."""
SWAY_DAMPING = 100.0
"""N s/m; half of critical: the swing dies out in a second."""
UPRIGHT_STIFFNESS = 150.0
"""Nm/rad: weight times 0.45 m, the height of the shoulders with the slings above the centre of mass."""
UPRIGHT_DAMPING = 15.0
"""Nm s/rad; as stiff a damper as a torso of 0.1 kg m^2 takes at a 2 ms step."""
STRONGEST_PULL = 2.5
"""times the weight."""
LYING = 0.25
"""m; with the base this low the robot sits or lies on the floor."""
SLACK_TIME = 0.5
"""s that a controller, or the floor, must bear the weight alone before the rope comes off."""


Hung = TypeVar("Hung")
Wrench = tuple[float, float, float, float, float, float]
"""Force in N at the link's centre of mass, then torque in Nm, world frame."""
SLACK: Wrench = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Suspension:
    """What the rope feels of a robot; all in the world frame."""

    base: tuple[float, float, float]
    """m"""
    base_velocity: tuple[float, float, float]
    """m/s"""
    link_up: tuple[float, float]
    """x and y of the z axis of the link that the rope is tied to."""
    link_rate: tuple[float, float, float]
    """rad/s, of that link."""


class Rope(ABC, Generic[Hung]):
    """A rope from above to the heaviest link (the torso), which keeps the base at a height.

    The support (sideways and upright) fades with the tension, so a robot that stands on a slack rope
    stands alone.
    """

    def __init__(self, weight: float, high: float) -> None:
        """
        :param weight: N, of the robot.
        :param high: m, height of the base when raised.
        """
        self.attached = False
        self.raised = False
        """Where the winch was told to go: up, or down and off."""
        self.tension = 0.0
        """N"""
        self._weight, self._high = weight, high
        self._height = self._winch = 0.0
        self._anchor_x = self._anchor_y = 0.0
        self._slack = 0.0

    @abstractmethod
    def feel(self, hung: Hung) -> Suspension:
        """Where the robot is and how it moves."""

    @abstractmethod
    def pull(self, hung: Hung, wrench: Wrench) -> None:
        """Pulls the link from the next step on, until told anew."""

    def hang(self, hung: Hung, height: float) -> None:
        """Carries the robot with its base at a height (m) at once, above where it is."""
        self.release(hung)
        self._height = self._winch = height
        self._anchor_x, self._anchor_y, _ = self.feel(hung).base
        self.attached = self.raised = True
        self._slack = 0.0

    def lift(self, hung: Hung) -> None:
        """Starts to pull up from where the robot is."""
        if not self.attached:
            self._anchor_x, self._anchor_y, z = self.feel(hung).base
            # The rope starts slack: its own stretch is wound up before the robot moves.
            self._height = z - self._weight / STIFFNESS
        self._winch = self._high
        self.attached = self.raised = True
        self._slack = 0.0

    def lower(self) -> None:
        """Starts to let down. The rope comes off once it is slack and a controller holds the robot, or once
        the robot lies on the floor; a limp one that stands by chance is caught when it buckles."""
        self.raised = False
        self._slack = 0.0

    def release(self, hung: Hung) -> None:
        """Takes the rope off at once."""
        self.attached = self.raised = False
        self.tension = 0.0
        self.pull(hung, SLACK)

    def apply(self, hung: Hung, dt: float, held: bool) -> None:
        """Pulls for the next step of ``dt`` seconds.

        :param held: whether a controller keeps the joints stiff.
        """
        if not self.attached:
            return
        if self.raised:
            self._height += min(RAISE_SPEED * dt, max(self._winch - self._height, 0.0))
        elif self.tension > 0.0:
            self._height -= LOWER_SPEED * dt
        felt = self.feel(hung)
        x, y, z = felt.base
        vx, vy, vz = felt.base_velocity
        up_x, up_y = felt.link_up
        wx, wy, wz = felt.link_rate
        pull = self._weight + STIFFNESS * (self._height - z) - DAMPING * vz
        self.tension = min(max(pull, 0.0), STRONGEST_PULL * self._weight)
        share = min(self.tension / self._weight, 1.0)
        self.pull(
            hung,
            (
                share * (SWAY_STIFFNESS * (self._anchor_x - x) - SWAY_DAMPING * vx),
                share * (SWAY_STIFFNESS * (self._anchor_y - y) - SWAY_DAMPING * vy),
                self.tension,
                # Torque towards upright: the link's z axis x world z.
                share * (UPRIGHT_STIFFNESS * up_y - UPRIGHT_DAMPING * wx),
                share * (-UPRIGHT_STIFFNESS * up_x - UPRIGHT_DAMPING * wy),
                share * -UPRIGHT_DAMPING * wz,
            ),
        )
        if self.raised:
            return
        borne = self.tension == 0.0 and (held or z < LYING)
        self._slack = self._slack + dt if borne else 0.0
        if self._slack >= SLACK_TIME:
            self.release(hung)


class Hoist(Rope[mujoco.MjData]):
    """The rope of a robot in MuJoCo."""

    def __init__(self, model: mujoco.MjModel, base: int, high: float) -> None:
        """
        :param base: body index of the base link, which has a free joint.
        :param high: m, height of the base when raised.
        """
        super().__init__(weight(model), high)
        self._base, self._link = base, heaviest(model)

    def feel(self, hung: mujoco.MjData) -> Suspension:
        up = hung.xmat[self._link].tolist()
        return Suspension(
            hung.xpos[self._base].tolist(),
            hung.qvel[0:3].tolist(),
            (up[2], up[5]),  # third column of the rotation matrix
            hung.cvel[self._link, 0:3].tolist(),  # cvel is (angular, linear), world
        )

    def pull(self, hung: mujoco.MjData, wrench: Wrench) -> None:
        hung.xfrc_applied[self._link] = wrench


def heaviest(model: mujoco.MjModel) -> int:
    """Body index of the link that the rope is tied to."""
    return int(np.argmax(model.body_mass))


def weight(model: mujoco.MjModel) -> float:
    """N"""
    return float(model.body_mass.sum()) * -float(model.opt.gravity[2])
