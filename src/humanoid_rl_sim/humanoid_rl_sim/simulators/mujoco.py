"""The `mujoco` simulator: MuJoCo on the CPU, one world per environment, stepped by a C++ thread pool."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import torch
from humanoid_rl_core.robot import Gains, RobotModel
from mujoco.batch import Batch

from humanoid_rl_sim.simulators.contract import (
    Collision,
    InitialState,
    ModelProperties,
    SimulationState,
    Simulator,
)
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.mujoco_model import (
    FOOT_CONTACT_SENSORS,
    SELF_CONTACT_SENSOR,
    add_sole_sites,
    build_mujoco_spec,
    joint_qpos_address,
    joint_qvel_address,
    sensor_slice,
)

FOOT_POSITION_SENSORS = ("left_foot_pos", "right_foot_pos")
FOOT_VELOCITY_SENSORS = ("left_foot_vel", "right_foot_vel")


class MujocoSimulator(Simulator):
    """`mujoco.batch.Batch` behind the simulator contract.

    Args:
        robot: the robot to simulate.
        num_envs: number of independent worlds.
        timestep: physics step in s.
        num_threads: worker threads, 0 = one per core.
        collision: what collides (`mujoco_model.build_mujoco_spec`).
        height_field: the ground; level without.
    """

    def __init__(
        self,
        robot: RobotModel,
        num_envs: int,
        *,
        timestep: float = 0.005,
        num_threads: int = 0,
        collision: Collision = "feet",
        height_field: HeightField | None = None,
    ) -> None:
        self.robot = robot
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.timestep, self.height_field = timestep, height_field
        spec = build_mujoco_spec(robot, timestep=timestep, collision=collision, height_field=height_field)
        _add_foot_sensors(spec, robot)
        self.model = spec.compile()
        self._soles = np.flatnonzero(self.model.geom_priority > 0)
        self.batch = Batch(self.model, num_envs, num_threads, persistent=True)
        self.state = SimulationState.zeros(num_envs, len(robot.joint_names), self.device)

        # The batch numbers state variables by address, the contract by motor.
        self._qpos_joint = torch.as_tensor(np.asarray(joint_qpos_address(self.model, robot)))
        self._qvel_joint = torch.as_tensor(np.asarray(joint_qvel_address(self.model, robot)))
        self._qpos = torch.from_numpy(self.batch.bind("qpos"))
        self._qvel = torch.from_numpy(self.batch.bind("qvel"))
        self._ctrl = torch.from_numpy(self.batch.bind("ctrl"))
        self._actuator_force = _read_only(self.batch.bind("actuator_force"))
        self._sensordata = _read_only(self.batch.bind("sensordata"))
        self._gyro = sensor_slice(self.model, "imu_gyro")
        self._imu_quat = sensor_slice(self.model, "imu_quat")
        self._feet = [
            tuple(sensor_slice(self.model, name) for name in names)
            for names in zip(FOOT_POSITION_SENSORS, FOOT_VELOCITY_SENSORS, FOOT_CONTACT_SENSORS, strict=True)
        ]
        self._self_contact = sensor_slice(self.model, SELF_CONTACT_SENSOR) if collision != "feet" else None
        self.properties = ModelProperties.nominal(num_envs, len(robot.joint_names), self.device)
        self._gains = robot.gains["stiff"]
        self._apply_actuators()
        self.batch.reset(keyframe=0)
        self.refresh()

    def set_gains(self, gains: Gains) -> None:
        self._gains = gains
        self._apply_actuators()

    def set_joint_target(self, joint_target: torch.Tensor) -> None:
        self._ctrl.copy_(joint_target)

    def advance(self, substeps: int, *, observed: bool = True) -> None:
        # Position- and velocity-dependent sensors are made current; the next step continues from there.
        stage = mujoco.mjtStage.mjSTAGE_VEL if observed else mujoco.mjtStage.mjSTAGE_NONE
        self.batch.step(nstep=substeps, stage=int(stage))

    def refresh(self) -> None:
        self._refresh_rows(slice(None))

    def _refresh_rows(self, rows: slice | torch.Tensor) -> None:
        # index_select: torch spreads advanced indexing over threads that compete with the engine's.
        state, qpos, qvel, sensors = self.state, self._qpos[rows], self._qvel[rows], self._sensordata[rows]
        state.joint_pos[rows] = qpos.index_select(1, self._qpos_joint).float()
        state.joint_vel[rows] = qvel.index_select(1, self._qvel_joint).float()
        state.joint_torque[rows] = self._actuator_force[rows].float()
        state.base_pos[rows] = qpos[:, 0:3].float()
        state.base_quat[rows] = qpos[:, 3:7].float()
        state.base_lin_vel[rows] = qvel[:, 0:3].float()
        state.base_ang_vel[rows] = qvel[:, 3:6].float()
        state.imu_gyro[rows] = sensors[:, self._gyro].float()
        state.imu_quat[rows] = sensors[:, self._imu_quat].float()
        for foot, (position, velocity, contact) in enumerate(self._feet):
            touch = sensors[:, contact]  # number of contacts, then the force of the ground on the foot
            state.foot_pos[rows, foot] = sensors[:, position].float()
            state.foot_vel[rows, foot] = sensors[:, velocity].float()
            state.foot_contact[rows, foot] = touch[:, 0] > 0
            state.foot_force[rows, foot] = touch[:, 1:4].float()
        if self._self_contact is not None:
            state.self_contact[rows] = sensors[:, self._self_contact.start] > 0

    def reset(self, mask: torch.Tensor, initial: InitialState) -> None:
        rows = mask.nonzero().squeeze(-1)
        if rows.numel() == 0:
            return
        ids = rows.numpy().astype(np.int32)
        self.batch.reset(ids, keyframe=0, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        qpos = torch.zeros(rows.numel(), self.model.nq, dtype=torch.float64)
        qvel = torch.zeros(rows.numel(), self.model.nv, dtype=torch.float64)
        qpos[:, 0:3] = initial.base_pos[rows].double()
        qpos[:, 3:7] = initial.base_quat[rows].double()
        qpos[:, self._qpos_joint] = initial.joint_pos[rows].double()
        qvel[:, 0:3] = initial.base_lin_vel[rows].double()
        qvel[:, 3:6] = initial.base_ang_vel[rows].double()
        qvel[:, self._qvel_joint] = initial.joint_vel[rows].double()
        self._qpos[rows] = qpos
        self._qvel[rows] = qvel
        self._ctrl[rows] = initial.joint_pos[rows].double()
        self.batch.forward(ids)
        self._refresh_rows(rows)

    def add_base_velocity(self, mask: torch.Tensor, delta: torch.Tensor) -> None:
        self._qvel[:, 0:3] += torch.where(mask[:, None], delta, 0.0).double()

    def set_properties(self, properties: ModelProperties) -> None:
        self.properties = properties
        model, batch = self.model, self.batch
        batch.expand("geom_friction")[:, self._soles, 0] = properties.friction.double().numpy()[:, None]
        torso = model.body("torso_link").id
        nominal_mass = float(model.body_mass[torso])
        mass = nominal_mass + properties.base_mass_offset.double().numpy()
        batch.expand("body_mass")[:, torso] = mass
        # A payload is spread like the torso itself: inertia grows with mass.
        batch.expand("body_inertia")[:, torso] = model.body_inertia[torso] * (mass / nominal_mass)[:, None]
        batch.expand("body_ipos")[:, torso] = (
            model.body_ipos[torso] + properties.base_com_offset.double().numpy()
        )
        dofs = self._qvel_joint.numpy()
        armature = batch.expand("dof_armature")
        armature[:, dofs] = model.dof_armature[dofs] * properties.armature_scale.double().numpy()
        self._apply_actuators()
        batch.set_const()
        batch.forward()

    def _apply_actuators(self) -> None:
        """Affine actuators: force = kp (target - q) - kd dq, limited to the effort limit."""
        stiffness = np.asarray(self._gains.stiffness) * self.properties.stiffness_scale.double().numpy()
        damping = np.asarray(self._gains.damping) * self.properties.damping_scale.double().numpy()
        limit = np.asarray(self.robot.effort_limit) * self.properties.effort_limit_scale.double().numpy()
        self.batch.expand("actuator_gainprm")[:, :, 0] = stiffness
        bias = self.batch.expand("actuator_biasprm")
        bias[:, :, 1], bias[:, :, 2] = -stiffness, -damping
        force_range = self.batch.expand("actuator_forcerange")
        force_range[:, :, 0], force_range[:, :, 1] = -limit, limit

    def close(self) -> None:
        del self.batch


def _read_only(array: np.ndarray) -> torch.Tensor:
    """A tensor over an output of the engine; nobody writes to it, which is what torch would warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _add_foot_sensors(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    """Position and velocity of the middle of each sole, world frame."""
    for side, site in zip(("left", "right"), add_sole_sites(spec, robot), strict=True):
        for name, kind in (
            (f"{side}_foot_pos", mujoco.mjtSensor.mjSENS_FRAMEPOS),
            (f"{side}_foot_vel", mujoco.mjtSensor.mjSENS_FRAMELINVEL),
        ):
            spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site)
