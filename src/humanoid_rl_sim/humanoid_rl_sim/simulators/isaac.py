"""The `isaac` simulator: Isaac Lab 3 on Newton, OVPhysX or Isaac Sim behind the simulator contract.

Here and nowhere else are Isaac Lab's conventions turned into the contract's: quaternions (x, y, z, w) into
(w, x, y, z), the world that all robots share into one for each, bodies in the engine's order into names.

One simulation exists in a process at a time (`isaac_session.py`): `close` one before making the next.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from humanoid_rl_core.robot import Gains, RobotModel
from isaaclab.assets import Articulation
from isaaclab.sensors import Camera, ContactSensor
from isaaclab.utils.warp.proxy_array import ProxyArray

from humanoid_rl_sim.simulators.camera import CameraConfig, Channel, Images
from humanoid_rl_sim.simulators.contract import (
    Collision,
    InitialState,
    ModelProperties,
    SimulationState,
    Simulator,
)
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.isaac_friction import friction_setter
from humanoid_rl_sim.simulators.isaac_scene import DATA_TYPES, contact_sensor, touching_links
from humanoid_rl_sim.simulators.isaac_session import open_session
from humanoid_rl_sim.simulators.mujoco_model import add_sole_sites, build_mujoco_spec
from humanoid_rl_sim.simulators.quaternion import rotate
from humanoid_rl_sim.simulators.torch_device import choose_device

TORSO = "torso_link"
LEAST_FORCE = 1e-2
"""N; what is less is the rounding of the difference of two forces."""


class IsaacSimulator(Simulator):
    """Isaac Lab behind the simulator contract.

    Args:
        robot: the robot to simulate.
        num_envs: number of robots.
        engine: "newton", "ovphysx" or "isaacsim".
        timestep: physics step in s.
        device: "cuda", "cuda:1", "cpu"; "" is the GPU where there is one.
        collision: what collides.
        height_field: the ground; level without.
        camera: what every robot carries.
        visualizer: of Isaac Lab's (`registry.VISUALIZERS`), to watch by; "" for none.

    Raises:
        UserError: unknown engine, no such camera or device, or another simulation is still open in this process.
    """

    def __init__(
        self,
        robot: RobotModel,
        num_envs: int,
        *,
        engine: str,
        timestep: float = 0.005,
        device: str = "",
        collision: Collision = "feet",
        height_field: HeightField | None = None,
        camera: CameraConfig | None = None,
        visualizer: str = "",
    ) -> None:
        device = choose_device(device)
        self.robot, self.num_envs, self.timestep = robot, num_envs, timestep
        self.height_field, self.engine, self.collision = height_field, engine, collision
        self.camera, self._watched = camera, bool(visualizer)
        self.device = torch.device(device)
        links = touching_links(robot, collision)
        with contextlib.ExitStack() as stack:
            self._context, self._scene = open_session(
                stack,
                robot,
                num_envs,
                engine=engine,
                timestep=timestep,
                device=device,
                collision=collision,
                sensed_links=links,
                height_field=height_field,
                camera=camera,
                visualizer=visualizer,
            )
            self._robot: Articulation = self._scene["robot"]
            self._sensors: list[ContactSensor] = [self._scene[contact_sensor(link)] for link in links]
            self._set_up()
            self._resources = stack.pop_all()

    def _set_up(self) -> None:
        """What follows from the scene once its engine has loaded it."""
        robot, articulation, n = self.robot, self._robot, len(self.robot.joint_names)
        names = articulation.body_names
        self._origins = self._scene.env_origins.to(self.device)
        self._foot_bodies = [names.index(link) for link in robot.foot_links]
        self._base, self._torso = names.index(robot.base_link), names.index(TORSO)
        spec = build_mujoco_spec(robot, timestep=self.timestep, height_field=self.height_field)
        sites = add_sole_sites(spec, robot)
        self._soles = self._tensor(np.array([spec.site(site).pos for site in sites]))
        data = articulation.data
        self._mass = data.body_mass.torch[:, self._torso].clone()
        self._inertia = data.body_inertia.torch[:, self._torso].clone()
        self._com = data.body_com_pose_b.torch[:, self._torso].clone()
        self._everyone = torch.arange(self.num_envs, dtype=torch.int32, device=self.device)
        self._set_friction = friction_setter(self.engine, articulation)
        self._target = self._tensor(robot.default_position).repeat(self.num_envs, 1)
        self._before = self._target.clone(), torch.zeros_like(self._target)
        self.state = SimulationState.zeros(self.num_envs, n, self.device)
        self.properties = ModelProperties.nominal(self.num_envs, n, self.device)
        self._gains = robot.gains["stiff"]
        self._apply_actuators()
        standing = torch.zeros(self.num_envs, 3, device=self.device)
        standing[:, 2] = robot.default_base_height
        upright = torch.tensor([1.0, 0.0, 0.0, 0.0], device=self.device).repeat(self.num_envs, 1)
        still = torch.zeros_like(standing)
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.reset(
            everyone,
            InitialState(
                self._target.clone(), torch.zeros_like(self._target), standing, upright, still, still
            ),
        )

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def set_gains(self, gains: Gains) -> None:
        self._gains = gains
        self._apply_actuators()

    def set_joint_target(self, joint_target: torch.Tensor) -> None:
        self._target.copy_(joint_target)

    def advance(self, substeps: int, *, observed: bool = True) -> None:
        self._robot.actuators.target_command.set_position_index(value=self._target)
        if substeps > 1:
            self.step_scene(substeps - 1)
        # The engines do not tell what their drives did: the torque follows from the state that the step began with.
        data = self._robot.data
        self._before = data.joint_pos.torch.clone(), data.joint_vel.torch.clone()
        self.step_scene(1)
        if self._watched and observed:
            self._context.render()

    def step_scene(self, substeps: int) -> None:
        """Isaac Lab's own loop, to the targets that were last set."""
        for _ in range(substeps):
            self._scene.write_data_to_sim()
            self._context.step(render=False)
            self._scene.update(self.timestep)

    def refresh(self) -> None:
        self._refresh_kinematics(slice(None))
        state = self.state
        position, velocity = self._before
        torque = self._stiffness * (self._target - position) - self._damping * velocity
        state.joint_torque.copy_(torque.clamp(-self._effort_limit, self._effort_limit))
        for foot, sensor in enumerate(self._sensors[:2]):
            data = sensor.data
            if self.collision == "feet":
                force = _tracked(data.net_normal_forces_w)[:, 0] + _tracked(data.net_friction_forces_w)[:, 0]
            else:
                normal, friction = (
                    _tracked(data.normal_force_matrix_w),
                    _tracked(data.friction_force_matrix_w),
                )
                force = normal[:, 0, 0] + friction[:, 0, 0]
            state.foot_force[:, foot] = force
            state.foot_contact[:, foot] = (force != 0.0).any(1)
        if self.collision != "feet":
            state.self_contact.copy_(self._touches_itself())

    def _refresh_kinematics(self, rows: slice | torch.Tensor) -> None:
        """Everything that follows from positions and velocities."""
        state, data = self.state, self._robot.data
        state.joint_pos[rows] = data.joint_pos.torch[rows]
        state.joint_vel[rows] = data.joint_vel.torch[rows]
        state.base_pos[rows] = data.root_link_pos_w.torch[rows] - self._origins[rows]
        state.base_quat[rows] = state.imu_quat[rows] = _scalar_first(data.root_link_quat_w.torch[rows])
        # Not root_link_lin_vel_w: on OVPhysX that is the velocity of the base's centre of mass.
        state.base_lin_vel[rows] = data.body_link_lin_vel_w.torch[rows, self._base]
        # The IMU is fixed to the base without rotation.
        state.base_ang_vel[rows] = state.imu_gyro[rows] = data.root_link_ang_vel_b.torch[rows]
        position, quat = data.body_link_pos_w.torch[rows], data.body_link_quat_w.torch[rows]
        linear, angular = data.body_link_lin_vel_w.torch[rows], data.body_link_ang_vel_w.torch[rows]
        for foot, body in enumerate(self._foot_bodies):
            arm = rotate(_scalar_first(quat[:, body]), self._soles[foot])
            state.foot_pos[rows, foot] = position[:, body] + arm - self._origins[rows]
            state.foot_vel[rows, foot] = linear[:, body] + torch.linalg.cross(angular[:, body], arm)

    def images(self) -> Images:
        if self.camera is None:
            raise ValueError("the simulator was made without a camera")
        sensor: Camera = self._scene["camera"]
        output, mount = sensor.data.output, self.camera.mount(self.robot)
        assert output is not None
        rendered: dict[Channel, torch.Tensor] = {
            channel: output[DATA_TYPES[channel]].torch.clone() for channel in self.camera.channels
        }
        depth = rendered.get("depth")
        if depth is not None:
            depth = depth.squeeze(-1)
            depth = torch.where((depth >= mount.near) & (depth <= mount.far), depth, 0.0)
        return Images(rendered.get("color"), depth)

    def _touches_itself(self) -> torch.Tensor:
        """[N] bool: some link is pressed by more than the ground."""
        touches = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        for sensor in self._sensors:
            data = sensor.data
            total, by_ground = _tracked(data.net_normal_forces_w), _tracked(data.normal_force_matrix_w)
            by_robot = total[:, 0] - by_ground[:, 0, 0]
            touches |= by_robot.norm(dim=1) > LEAST_FORCE
        return touches

    def reset(self, mask: torch.Tensor, initial: InitialState) -> None:
        rows = mask.nonzero().squeeze(-1)
        if rows.numel() == 0:
            return
        ids = rows.to(torch.int32)
        robot, quat = self._robot, initial.base_quat[rows]
        pose = torch.cat((initial.base_pos[rows] + self._origins[rows], quat[:, 1:], quat[:, :1]), 1)
        twist = torch.cat((initial.base_lin_vel[rows], rotate(quat, initial.base_ang_vel[rows])), 1)
        robot.write_root_link_pose_to_sim_index(root_pose=pose, env_ids=ids)
        robot.write_joint_position_to_sim_index(position=initial.joint_pos[rows], env_ids=ids)
        robot.write_joint_velocity_to_sim_index(velocity=initial.joint_vel[rows], env_ids=ids)
        robot.write_root_link_velocity_to_sim_index(root_velocity=twist, env_ids=ids)
        self._target[rows] = initial.joint_pos[rows]
        self._scene.reset(rows.tolist())
        self._refresh_kinematics(rows)
        # As if at rest in the air; the next step finds the contacts.
        state = self.state
        state.joint_torque[rows] = 0.0
        state.foot_force[rows] = 0.0
        state.foot_contact[rows] = False
        state.self_contact[rows] = False

    def add_base_velocity(self, mask: torch.Tensor, delta: torch.Tensor) -> None:
        rows = mask.nonzero().squeeze(-1)
        if rows.numel() == 0:
            return
        twist = self._robot.data.body_link_vel_w.torch[rows, self._base]
        twist[:, :3] += delta[rows]
        self._robot.write_root_link_velocity_to_sim_index(root_velocity=twist, env_ids=rows.to(torch.int32))

    def set_properties(self, properties: ModelProperties) -> None:
        self.properties = properties
        robot, torso = self._robot, [self._torso]
        mass = self._mass + properties.base_mass_offset.to(self.device)
        com = self._com.clone()
        com[:, :3] += properties.base_com_offset.to(self.device)
        robot.set_masses_index(masses=mass[:, None], body_ids=torso)
        # A payload is spread like the torso itself: inertia grows with mass.
        inertia = self._inertia * (mass / self._mass)[:, None]
        robot.set_inertias_index(inertias=inertia[:, None], body_ids=torso)
        robot.set_coms_index(coms=com[:, None], body_ids=torso)
        armature = self._tensor(self.robot.armature) * properties.armature_scale.to(self.device)
        robot.write_joint_armature_to_sim_index(armature=armature)
        self._set_friction(properties.friction)
        self._apply_actuators()

    def _apply_actuators(self) -> None:
        properties, robot = self.properties, self._robot
        self._stiffness = self._tensor(self._gains.stiffness) * properties.stiffness_scale.to(self.device)
        self._damping = self._tensor(self._gains.damping) * properties.damping_scale.to(self.device)
        limit = self._tensor(self.robot.effort_limit) * properties.effort_limit_scale.to(self.device)
        self._effort_limit = limit
        robot.write_joint_stiffness_to_sim_index(stiffness=self._stiffness)
        robot.write_joint_damping_to_sim_index(damping=self._damping)
        robot.write_joint_effort_limit_to_sim_index(limits=limit)

    def close(self) -> None:
        self._resources.close()


def _tracked(force: ProxyArray | None) -> torch.Tensor:
    """What a contact sensor was told to track."""
    assert force is not None
    return force.torch


def _scalar_first(quat: torch.Tensor) -> torch.Tensor:
    """(x, y, z, w) -> (w, x, y, z)."""
    return torch.cat((quat[..., 3:], quat[..., :3]), -1)
