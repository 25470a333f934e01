"""The robot's body in MuJoCo."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel

from ..simulators.mujoco_model import (
    FOOT_CONTACT_SENSORS,
    IMU_SENSORS,
    build_mujoco_spec,
    joint_qpos_address,
    joint_qvel_address,
    nearest_sole,
    sensor_slice,
)
from .body import CYCLE, BaseState, Body, Floats, FootContact
from .hoist import Hoist

_DIVERGED = tuple(
    int(kind)
    for kind in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
    )
)


class MujocoBody(Body):
    """One robot in MuJoCo; `hung` is its data."""

    hung: mujoco.MjData

    def __init__(self, robot: RobotModel, timestep: float = CYCLE) -> None:
        """
        :param timestep: s, of the physics; `CYCLE` must be a multiple.
        :raises UserError: it is not.
        """
        substeps = round(CYCLE / timestep) if timestep > 0.0 else 0
        if substeps < 1 or not math.isclose(substeps * timestep, CYCLE):
            raise UserError(f"timestep: must divide the cycle of {CYCLE:g} s, {timestep:g} s does not")
        self.robot, self.timestep = robot, timestep
        spec = build_mujoco_spec(robot, timestep=timestep, collision="full")
        for joint in robot.joint_names:
            # Closed by `lock` at the joint's angle of that moment.
            spec.add_equality(
                name=f"stuck_{joint}",
                type=mujoco.mjtEq.mjEQ_JOINT,
                objtype=mujoco.mjtObj.mjOBJ_JOINT,
                name1=joint,
                active=False,
                solref=[2.0 * timestep, 1.0],
                solimp=[0.99, 0.999, 0.001, 0.5, 2.0],
            )
        self.model: mujoco.MjModel = spec.compile()
        self.hung = self.data = mujoco.MjData(self.model)
        self._warnings = self.data.warning
        model = self.model
        self._qpos_address = joint_qpos_address(model, robot)
        self._qvel_address = joint_qvel_address(model, robot)
        self._stuck = np.array([model.equality(f"stuck_{joint}").id for joint in robot.joint_names])
        self._base = model.body(robot.base_link).id
        self._feet = tuple(model.body(link).id for link in robot.foot_links)
        gyro, accel, quat = map(self._sensor, IMU_SENSORS)
        self._imu = gyro, accel, quat
        self._contact = tuple(map(self._sensor, FOOT_CONTACT_SENSORS))
        self._bias = model.actuator_biasprm

    def rope(self, high: float) -> Hoist:
        return Hoist(self.model, self._base, high)

    def sole_depth(self, joint_pos: Floats) -> float:
        return sole_depth(self.model, self.robot, joint_pos)

    def reset(self, height: float, joint_pos: Floats) -> None:
        mujoco.mj_resetData(self.model, self.data)
        qpos = self.data.qpos
        qpos[0:3] = (0.0, 0.0, height)
        qpos[3:7] = (1.0, 0.0, 0.0, 0.0)
        qpos[self._qpos_address] = joint_pos
        self._bias[:, 1:3] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def drive(self, q: Floats, dq: Floats, tau: Floats, kp: Floats, kd: Floats) -> None:
        self._bias[:, 1] = -kp
        self._bias[:, 2] = -kd
        self.data.ctrl[:] = kp * q + kd * dq + tau

    def step(self) -> None:
        mujoco.mj_step(self.model, self.data)

    @property
    def diverged(self) -> bool:
        # MuJoCo has then put the model back to its zero pose.
        return any(self._warnings[kind].number for kind in _DIVERGED)

    def push(self, velocity: tuple[float, float, float]) -> None:
        # Joint rates are relative: moving the floating base alone moves every link alike.
        self.data.qvel[0:3] += velocity

    def lock(self, joint: int) -> None:
        constraint = self._stuck[joint]
        self.model.eq_data[constraint, 0] = self.data.qpos[self._qpos_address[joint]]
        self.data.eq_active[constraint] = 1

    def unlock(self, joint: int) -> None:
        self.data.eq_active[self._stuck[joint]] = 0

    def joint_pos(self) -> Floats:
        return self.data.qpos[self._qpos_address]

    def joint_vel(self) -> Floats:
        return self.data.qvel[self._qvel_address]

    def joint_acc(self) -> Floats:
        return self.data.qacc[self._qvel_address]

    def joint_effort(self) -> Floats:
        return self.data.actuator_force

    def imu(self) -> tuple[Floats, Floats, Floats]:
        return self._imu

    def base_state(self) -> BaseState:
        qpos, qvel = self.data.qpos, self.data.qvel
        return BaseState(qpos[0:3].copy(), qpos[3:7].copy(), qvel[0:3].copy(), qvel[3:6].copy())

    def foot_contacts(self) -> tuple[FootContact, FootContact]:
        left, right = (
            FootContact(link, bool(sensor[0] > 0.0), self.data.xpos[body].copy(), sensor[1:4].copy())
            for link, body, sensor in zip(self.robot.foot_links, self._feet, self._contact, strict=True)
        )
        return left, right

    def _sensor(self, name: str) -> Floats:
        """A live view of one sensor's readings."""
        return self.data.sensordata[sensor_slice(self.model, name)]


def sole_depth(model: mujoco.MjModel, robot: RobotModel, joint_pos: Floats) -> float:
    """`Body.sole_depth`, with a model of which all links collide."""
    data = mujoco.MjData(model)
    data.qpos[0:7] = (0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0)
    data.qpos[joint_qpos_address(model, robot)] = joint_pos
    mujoco.mj_kinematics(model, data)
    return 2.0 - nearest_sole(model, data, robot)[0]
