"""The `mujoco_warp` simulator: MuJoCo's physics on a GPU, all worlds in one batch of kernels.

Every tensor of `state` is filled from zero-copy views of the engine's arrays, no method synchronises with the
host, and everything a control step calls can be captured in a CUDA graph (`humanoid_rl_sim.tasks.graphed`). On
the CPU the same code runs on Warp's CPU device: slow, and meant for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from humanoid_rl_core.robot import Gains, RobotModel

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
from humanoid_rl_sim.simulators.quaternion import multiply, rotate_inverse
from humanoid_rl_sim.simulators.torch_device import choose_device

RANDOMISED = (
    "geom_friction", "body_mass", "body_inertia", "body_ipos", "dof_armature",
    "actuator_gainprm", "actuator_biasprm", "actuator_forcerange",
)  # fmt: skip
"""Model fields of which every world has its own."""
DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0")
"""What `mujoco_warp.set_const` computes from them."""
CONTACTS_PER_PAIR = 4
"""Contacts that the engine keeps of one shape on a height field."""
MORE_CONTACTS, MORE_CONSTRAINTS = 16, 110
"""Contacts (on average) and constraint rows per world beside those of the soles where more collides: a fallen robot
rests on a dozen shapes of 3 rows each."""
INCOMPLETE = int(
    mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ | mjw.OverflowType.BROADPHASE
    | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD | mjw.OverflowType.HFIELD
)  # fmt: skip
"""The engine's flags for contacts or constraints that found no room."""


class MujocoWarpSimulator(Simulator):
    """MuJoCo-Warp behind the simulator contract.

    Args:
        robot: the robot to simulate.
        num_envs: number of independent worlds.
        timestep: physics step in s.
        device: "cuda", "cuda:1", "cpu"; "" is the GPU where there is one.
        collision: what collides (`mujoco_model.build_mujoco_spec`).
        height_field: the ground; level without.

    Raises:
        UserError: a CUDA device is asked for and there is none.
    """

    capturable = True

    def __init__(
        self,
        robot: RobotModel,
        num_envs: int,
        *,
        timestep: float = 0.005,
        device: str = "",
        collision: Collision = "feet",
        height_field: HeightField | None = None,
    ) -> None:
        self.device = torch.device(choose_device(device))
        wp.init()
        self.robot, self.num_envs, self.timestep = robot, num_envs, timestep
        self.height_field = height_field
        spec = build_mujoco_spec(robot, timestep=timestep, collision=collision, height_field=height_field)
        sole_sites = add_sole_sites(spec, robot)
        self.mj_model = model = spec.compile()
        soles_count = int((model.geom_priority > 0).sum())
        contacts = soles_count * (1 if height_field is None else CONTACTS_PER_PAIR)
        constraints = 3 * contacts + len(robot.joint_names)
        if collision != "feet":
            contacts, constraints = contacts + MORE_CONTACTS, constraints + MORE_CONSTRAINTS
        with self._engine():
            # The sums and inverses that depend on a randomised field are per world too.
            self._model = mjw.put_model(model, dict.fromkeys((*RANDOMISED, *DERIVED), num_envs))
            # Printing from a kernel costs more than what it tells of; `overflows` counts what matters.
            self._model.opt.warn_overflow = 0
            self._data = mjw.make_data(model, nworld=num_envs, nconmax=contacts, njmax=constraints)
        self._graphs: dict[int, wp.Graph] = {}
        self.state = SimulationState.zeros(num_envs, len(robot.joint_names), self.device)

        def view(name: str) -> torch.Tensor:
            return wp.to_torch(getattr(self._data, name))

        def index(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.long, device=self.device)

        self._qpos_joint, self._qvel_joint = (
            index(joint_qpos_address(model, robot)),
            index(joint_qvel_address(model, robot)),
        )
        self._qpos, self._qvel, self._ctrl = view("qpos"), view("qvel"), view("ctrl")
        self._warmstart, self._force, self._sensors = (
            view("qacc_warmstart"), view("actuator_force"), view("sensordata"),
        )  # fmt: skip
        self._xquat, self._cvel, self._com = view("xquat"), view("cvel"), view("subtree_com")
        self._site_pos, self._overflow = view("site_xpos"), view("overflow")
        self.overflows = torch.zeros((), dtype=torch.long, device=self.device)
        self._soles = index(np.flatnonzero(model.geom_priority > 0))
        self._foot_bodies = index(np.array([model.body(link).id for link in robot.foot_links]))
        self._foot_sites = index(np.array([model.site(name).id for name in sole_sites]))
        self._contacts = [sensor_slice(model, name) for name in FOOT_CONTACT_SENSORS]
        self._self_contact = sensor_slice(model, SELF_CONTACT_SENSOR) if collision != "feet" else None
        imu = model.site(robot.imu_link)
        self._imu_body = int(model.site_bodyid[imu.id])
        self._imu_mount = torch.as_tensor(model.site_quat[imu.id], dtype=torch.float32, device=self.device)
        self._home = torch.as_tensor(model.key("home").qpos, dtype=torch.float32, device=self.device)
        self._nominal = {
            name: torch.as_tensor(getattr(model, name), dtype=torch.float32, device=self.device)
            for name in ("body_mass", "body_inertia", "body_ipos", "dof_armature")
        }
        self._torso = model.body("torso_link").id
        self.properties = ModelProperties.nominal(num_envs, len(robot.joint_names), self.device)
        self._gains = robot.gains["stiff"]
        self._apply_actuators()
        self._qpos.copy_(self._home.expand_as(self._qpos))
        with self._engine():
            mjw.forward(self._model, self._data)
        self.refresh()

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """Warp on this simulator's device and on torch's current stream, also while that one is captured."""
        if self.device.type == "cpu":
            with wp.ScopedDevice("cpu"):
                yield
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        with wp.ScopedStream(stream, sync_enter=False, sync_exit=False):
            if not torch.cuda.is_current_stream_capturing():
                yield
                return
            wp.capture_begin(stream=stream, external=True)
            try:
                yield
            finally:
                wp.capture_end(stream=stream)

    def set_gains(self, gains: Gains) -> None:
        self._gains = gains
        self._apply_actuators()

    def set_joint_target(self, joint_target: torch.Tensor) -> None:
        self._ctrl.copy_(joint_target)

    def advance(self, substeps: int, *, observed: bool = True) -> None:
        if self.device.type == "cpu" or torch.cuda.is_current_stream_capturing():
            with self._engine():
                self._step(substeps)
            return
        # Outside a capture the solver would ask the host after every iteration whether to go on.
        if substeps not in self._graphs:
            self._graphs[substeps] = self._captured(lambda: self._step(substeps))
        with self._engine():
            wp.capture_launch(self._graphs[substeps])

    def _captured(self, work: Callable[[], None]) -> wp.Graph:
        """`work` as a graph, captured on Warp's own stream: torch's default stream cannot be."""
        before = [tensor.clone() for tensor in (self._qpos, self._qvel, self._warmstart)]
        torch.cuda.synchronize(self.device)
        with wp.ScopedDevice(str(self.device)):
            work()  # loads the kernels
            with wp.ScopedCapture() as capture:
                work()
            wp.synchronize_device()
        for tensor, value in zip((self._qpos, self._qvel, self._warmstart), before, strict=True):
            tensor.copy_(value)
        return capture.graph

    def _step(self, substeps: int) -> None:
        for _ in range(substeps):
            mjw.step(self._model, self._data)

    def refresh(self) -> None:
        self._update_kinematics()
        self.overflows += (self._overflow.bitwise_and(INCOMPLETE) != 0).sum()
        self._overflow.zero_()
        state, data = self.state, self._sensors
        state.joint_torque.copy_(self._force)
        for foot, contact in enumerate(self._contacts):
            touch = data[:, contact]  # number of contacts, then the force of the ground on the foot
            state.foot_contact[:, foot] = touch[:, 0] > 0
            state.foot_force[:, foot] = touch[:, 1:4]
        if self._self_contact is not None:
            state.self_contact.copy_(data[:, self._self_contact.start] > 0)

    def _update_kinematics(self) -> None:
        """Everything that follows from qpos and qvel."""
        with self._engine():
            mjw.kinematics(self._model, self._data)
            mjw.com_pos(self._model, self._data)
            mjw.com_vel(self._model, self._data)
        state, qpos, qvel = self.state, self._qpos, self._qvel
        state.joint_pos.copy_(qpos.index_select(1, self._qpos_joint))
        state.joint_vel.copy_(qvel.index_select(1, self._qvel_joint))
        state.base_pos.copy_(qpos[:, 0:3])
        state.base_quat.copy_(qpos[:, 3:7])
        state.base_lin_vel.copy_(qvel[:, 0:3])
        state.base_ang_vel.copy_(qvel[:, 3:6])
        imu = multiply(self._xquat[:, self._imu_body], self._imu_mount)
        state.imu_quat.copy_(imu)
        state.imu_gyro.copy_(rotate_inverse(imu, self._cvel[:, self._imu_body, 0:3]))
        feet = self._site_pos.index_select(1, self._foot_sites)
        state.foot_pos.copy_(feet)
        # cvel is the velocity (rotation, translation) at the centre of mass of the whole tree.
        twist = self._cvel.index_select(1, self._foot_bodies)
        arm = feet - self._com[:, 1:2]
        state.foot_vel.copy_(twist[..., 3:6] + torch.linalg.cross(twist[..., 0:3], arm))

    def reset(self, mask: torch.Tensor, initial: InitialState) -> None:
        rows = mask[:, None]
        qpos = self._home.expand(self.num_envs, -1).clone()
        qpos[:, 0:3], qpos[:, 3:7] = initial.base_pos, initial.base_quat
        qpos[:, self._qpos_joint] = initial.joint_pos
        qvel = torch.zeros_like(self._qvel)
        qvel[:, 0:3], qvel[:, 3:6] = initial.base_lin_vel, initial.base_ang_vel
        qvel[:, self._qvel_joint] = initial.joint_vel
        for array, value in (
            (self._qpos, qpos), (self._qvel, qvel), (self._ctrl, initial.joint_pos),
            (self._warmstart, torch.zeros_like(qvel)),
        ):  # fmt: skip
            array.copy_(torch.where(rows, value, array))
        self._update_kinematics()
        # As if at rest in the air; the next step finds the contacts.
        state = self.state
        state.joint_torque.copy_(torch.where(rows, 0.0, state.joint_torque))
        state.foot_force.copy_(torch.where(rows[..., None], 0.0, state.foot_force))
        state.foot_contact.logical_and_(~rows)
        state.self_contact.logical_and_(~mask)

    def copy_state(self, other: MujocoWarpSimulator) -> None:
        """Take over the physical state of another simulator of the same size, solver's memory included."""
        self._qpos.copy_(other._qpos)
        self._qvel.copy_(other._qvel)
        self._warmstart.copy_(other._warmstart)

    def add_base_velocity(self, mask: torch.Tensor, delta: torch.Tensor) -> None:
        self._qvel[:, 0:3] += torch.where(mask[:, None], delta, 0.0)

    def set_properties(self, properties: ModelProperties) -> None:
        self.properties = properties
        nominal, torso = self._nominal, self._torso
        self._field("geom_friction")[:, self._soles, 0] = properties.friction[:, None]
        mass = nominal["body_mass"][torso] + properties.base_mass_offset
        self._field("body_mass")[:, torso] = mass
        # A payload is spread like the torso itself: inertia grows with mass.
        growth = mass / nominal["body_mass"][torso]
        self._field("body_inertia")[:, torso] = nominal["body_inertia"][torso] * growth[:, None]
        self._field("body_ipos")[:, torso] = nominal["body_ipos"][torso] + properties.base_com_offset
        armature = nominal["dof_armature"][self._qvel_joint] * properties.armature_scale
        self._field("dof_armature")[:, self._qvel_joint] = armature
        self._apply_actuators()
        with self._engine():
            mjw.set_const(self._model, self._data)
            mjw.forward(self._model, self._data)

    def _apply_actuators(self) -> None:
        """Affine actuators: force = kp (target - q) - kd dq, limited to the effort limit."""

        def vector(values: np.ndarray) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        stiffness = vector(self._gains.stiffness) * self.properties.stiffness_scale
        damping = vector(self._gains.damping) * self.properties.damping_scale
        limit = vector(self.robot.effort_limit) * self.properties.effort_limit_scale
        self._field("actuator_gainprm")[:, :, 0] = stiffness
        bias = self._field("actuator_biasprm")
        bias[:, :, 1], bias[:, :, 2] = -stiffness, -damping
        force_range = self._field("actuator_forcerange")
        force_range[:, :, 0], force_range[:, :, 1] = -limit, limit

    def _field(self, name: str) -> torch.Tensor:
        """[N, ...] view of a model field that every world has its own of."""
        return wp.to_torch(getattr(self._model, name))

    def close(self) -> None:
        self._graphs.clear()
        del self._model, self._data
