"""The crane a humanoid hangs from before it stands on its own: a rope that pulls up and never pushes down."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(slots=True)
class Hoist:
    """A rope from above to the heaviest link (the torso), which keeps the base at a height.

    The support (sideways and upright) fades with the tension, so a robot that stands on a slack rope
    stands alone.
    """

    model: mujoco.MjModel
    base: int
    """Body index of the base link."""
    high: float
    """m, height of the base when raised."""
    attached: bool = False
    raised: bool = False
    """Where the winch was told to go: up, or down and off."""
    tension: float = 0.0
    """N"""
    _height: float = 0.0
    _winch: float = 0.0
    _anchor_x: float = 0.0
    _anchor_y: float = 0.0
    _slack: float = 0.0
    _body: int = 0
    _weight: float = 0.0

    def __post_init__(self) -> None:
        self._body = int(np.argmax(self.model.body_mass))
        self._weight = float(self.model.body_mass.sum()) * -float(self.model.opt.gravity[2])

    def hang(self, data: mujoco.MjData, height: float) -> None:
        """Carries the robot with its base at a height (m) at once, above where it is."""
        self.release(data)
        self._height = self._winch = height
        self._anchor_x, self._anchor_y = data.qpos[0:2].tolist()
        self.attached = self.raised = True
        self._slack = 0.0

    def lift(self, data: mujoco.MjData) -> None:
        """Starts to pull up from where the robot is."""
        x, y, z = data.xpos[self.base]
        if not self.attached:
            self._anchor_x, self._anchor_y = float(x), float(y)
            # The rope starts slack: its own stretch is wound up before the robot moves.
            self._height = float(z) - self._weight / STIFFNESS
        self._winch = self.high
        self.attached = self.raised = True
        self._slack = 0.0

    def lower(self) -> None:
        """Starts to let down. The rope comes off once it is slack and a controller holds the robot, or once
        the robot lies on the floor; a limp one that stands by chance is caught when it buckles."""
        self.raised = False
        self._slack = 0.0

    def release(self, data: mujoco.MjData) -> None:
        """Takes the rope off at once."""
        self.attached = self.raised = False
        self.tension = 0.0
        data.xfrc_applied[self._body] = 0.0

    def apply(self, data: mujoco.MjData, dt: float, held: bool) -> None:
        """Writes the rope's pull into ``data.xfrc_applied`` for the next step of ``dt`` seconds.

        :param held: whether a controller keeps the joints stiff.
        """
        if not self.attached:
            return
        if self.raised:
            self._height += min(RAISE_SPEED * dt, max(self._winch - self._height, 0.0))
        elif self.tension > 0.0:
            self._height -= LOWER_SPEED * dt
        x, y, z = data.xpos[self.base].tolist()
        vx, vy, vz = data.qvel[0:3].tolist()
        pull = self._weight + STIFFNESS * (self._height - z) - DAMPING * vz
        self.tension = min(max(pull, 0.0), STRONGEST_PULL * self._weight)
        share = min(self.tension / self._weight, 1.0)
        wx, wy, wz = data.cvel[self._body, 0:3].tolist()  # cvel is (angular, linear), world
        up = data.xmat[self._body]
        force = data.xfrc_applied[self._body]
        force[0] = share * (SWAY_STIFFNESS * (self._anchor_x - x) - SWAY_DAMPING * vx)
        force[1] = share * (SWAY_STIFFNESS * (self._anchor_y - y) - SWAY_DAMPING * vy)
        force[2] = self.tension
        # Torque towards upright: body z axis (third column of the rotation matrix) x world z.
        force[3] = share * (UPRIGHT_STIFFNESS * float(up[5]) - UPRIGHT_DAMPING * wx)
        force[4] = share * (-UPRIGHT_STIFFNESS * float(up[2]) - UPRIGHT_DAMPING * wy)
        force[5] = share * -UPRIGHT_DAMPING * wz
        if self.raised:
            return
        borne = self.tension == 0.0 and (held or z < LYING)
        self._slack = self._slack + dt if borne else 0.0
        if self._slack >= SLACK_TIME:
            self.release(data)
