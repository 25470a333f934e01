"""The robot's body in Isaac Lab, on the engine that the user chooses.

The motors are the engine's own drives, which it integrates implicitly: a torque computed here would be explicit, and
the brake's 8 Nm s/rad at a wrist of 0.004 kg m^2 then blows up at any step of more than a millisecond. Feed-forward
torque goes into the drive's target, so that the effort limit holds for the sum, as it does in MuJoCo.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import numpy as np
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel
from isaaclab.assets import Articulation
from isaaclab.sensors import ContactSensor, Imu

from humanoid_rl_core import rotation

from ..simulators.isaac_scene import contact_sensor
from ..simulators.isaac_session import open_session
from ..simulators.mujoco_model import build_mujoco_model
from ..simulators.torch_device import choose_device
from .body import CYCLE, BaseState, Body, Floats, FootContact
from .hoist import SLACK, Rope, Suspension, Wrench, heaviest, weight
from .mujoco_body import sole_depth

TIMESTEP = 0.004
"""s. Step, reading and the wire cost 1 ms of a processor on OVPhysX: with 4 ms a busy machine keeps up too."""
LOCK_STIFFNESS, LOCK_DAMPING, LOCK_EFFORT = 1e5, 1e4, 1e5
"""Nm/rad, Nm s/rad, Nm of a seized joint: 100 Nm turn it by 1 mrad. Engines that integrate the damping alone
implicitly are stable with a stiffness of up to damping / timestep, 2.5e6 Nm/rad."""


class IsaacRope(Rope["IsaacBody"]):
    """The rope of a robot in Isaac Lab."""

    def feel(self, hung: IsaacBody) -> Suspension:
        return hung.suspension()

    def pull(self, hung: IsaacBody, wrench: Wrench) -> None:
        hung.set_wrench(wrench)


class IsaacBody(Body):
    """One robot in Isaac Lab."""

    def __init__(
        self, robot: RobotModel, *, engine: str, timestep: float = TIMESTEP, device: str = ""
    ) -> None:
        """
        :param engine: one of `isaac_scene.ENGINES`.
        :param timestep: s, a multiple of `CYCLE`.
        :param device: of the physics, `torch_device.choose_device`; "": the GPU where there is one, except for
            OVPhysX, which steps one robot faster on the CPU.
        :raises UserError: not a multiple, unknown engine, no such device.
        """
        cycles = round(timestep / CYCLE)
        if cycles < 1 or not math.isclose(cycles * CYCLE, timestep):
            raise UserError(
                f"timestep: must be a multiple of the cycle of {CYCLE:g} s, {timestep:g} s is not"
            )
        self.robot, self.timestep, self.hung = robot, timestep, self
        self.device = choose_device(device or ("" if engine == "newton" else "cpu"))
        mine = _threads()
        with contextlib.ExitStack() as stack:
            self._context, scene = open_session(
                stack,
                robot,
                1,
                engine=engine,
                timestep=timestep,
                device=self.device,
                collision="full",
                sensed_links=robot.foot_links,
                threads=0,
            )
            self._articulation: Articulation = scene["robot"]
            self._imu_sensor: Imu = scene["imu"]
            self._soles: list[ContactSensor] = [scene[contact_sensor(link)] for link in robot.foot_links]
            self._origin = _numbers(scene.env_origins)
            self._set_up()
            self._resources = stack.pop_all()
        _without_priority(_threads() - mine)

    def _set_up(self) -> None:
        robot, articulation = self.robot, self._articulation
        model = build_mujoco_model(robot, collision="full")
        self._model, self._weight = model, weight(model)
        names, n = articulation.body_names, robot.joint_count
        self._base = names.index(robot.base_link)
        self._link = names.index(model.body(heaviest(model)).name)
        self._feet = [names.index(link) for link in robot.foot_links]
        targets = articulation.actuators.target_command
        self._targets = targets.position.torch, targets.velocity.torch, targets.effort.torch
        self._gains_written: tuple[Floats, Floats] | None = None
        self._locked: dict[int, float] = {}
        self._command = tuple(np.zeros(n) for _ in range(5))
        self._changed = True
        self._wrench = torch.zeros(2, 1, 1, 3, device=self.device)
        self._pulled = False
        self.reset(robot.default_base_height, robot.default_position)

    def close(self) -> None:
        self._resources.close()

    def rope(self, high: float) -> IsaacRope:
        return IsaacRope(self._weight, high)

    def sole_depth(self, joint_pos: Floats) -> float:
        return sole_depth(self._model, self.robot, joint_pos)

    def reset(self, height: float, joint_pos: Floats) -> None:
        articulation, n = self._articulation, self.robot.joint_count
        nothing = np.zeros(n)
        pose = np.array([*self._origin, 0.0, 0.0, 0.0, 1.0])
        pose[2] += height
        articulation.write_root_link_pose_to_sim_index(root_pose=self._tensor(pose))
        articulation.write_joint_position_to_sim_index(position=self._tensor(joint_pos))
        articulation.write_joint_velocity_to_sim_index(velocity=self._tensor(nothing))
        articulation.write_root_link_velocity_to_sim_index(root_velocity=self._tensor(np.zeros(6)))
        articulation.reset()
        for sensor in (self._imu_sensor, *self._soles):
            sensor.reset()
        self.set_wrench(SLACK)
        self._pulled = False
        if self._locked:
            self._locked.clear()
            self._write_effort_limits()
        self.drive(joint_pos, nothing, nothing, nothing, nothing)
        self._joint_pos, self._joint_vel = np.array(joint_pos), nothing
        self._joint_acc, self._joint_effort = nothing, nothing
        # As of a robot at rest in the air; the next step finds the contacts.
        self._stepped = False
        self._gyro, self._accel = np.zeros(3), np.array([0.0, 0.0, 9.81])
        self._read_base()

    def drive(self, q: Floats, dq: Floats, tau: Floats, kp: Floats, kd: Floats) -> None:
        self._command = tuple(np.asarray(value, dtype=np.float64) for value in (q, dq, tau, kp, kd))
        self._changed = True

    def step(self) -> None:
        articulation = self._articulation
        before, speed = self._joint_pos, self._joint_vel
        if self._changed:
            self._write_motors()
            self._changed = False
        articulation.write_data_to_sim()
        if self._pulled and not self._wrench.any():
            # Engines keep the last wrench until told of the next: now they know that it is over.
            articulation.permanent_wrench_composer.reset()
            self._pulled = False
        self._context.step(render=False)
        articulation.update(self.timestep)
        self._imu_sensor.update(self.timestep)
        data, imu = articulation.data, self._imu_sensor.data
        self._joint_pos, self._joint_vel = _numbers(data.joint_pos.torch), _numbers(data.joint_vel.torch)
        self._joint_acc = (self._joint_vel - speed) / self.timestep
        rate, acceleration = imu.ang_vel_b, imu.lin_acc_b
        assert rate is not None and acceleration is not None
        self._gyro, self._accel = _numbers(rate.torch), _numbers(acceleration.torch)
        self._read_base()
        self._stepped = True
        # Of the state that the step began with, as MuJoCo has it; the engines do not tell.
        q, dq, tau, kp, kd = self._command
        limit = self.robot.effort_limit
        self._joint_effort = np.clip(kp * (q - before) + kd * (dq - speed) + tau, -limit, limit)

    def _read_base(self) -> None:
        data = self._articulation.data
        pose = _numbers(data.root_link_pose_w.torch)
        # Not root_link_vel_w: on OVPhysX that is the velocity of the base's centre of mass.
        twist = _numbers(data.body_link_vel_w.torch[:, self._base])
        self._position, self._velocity, self._rate = pose[:3] - self._origin, twist[:3], twist[3:]
        self._quaternion = np.roll(pose[3:], 1)  # from (x, y, z, w)

    def _write_motors(self) -> None:
        q, dq, tau, kp, kd = self._command
        # One target has it all: PhysX follows a position at once, and a velocity half a step late.
        by_place = kp > 0.0
        by_speed = (kd > 0.0) & ~by_place
        limit = self.robot.effort_limit
        effort = np.where(by_place | by_speed, 0.0, np.clip(tau, -limit, limit))
        q = q + np.divide(kd * dq + tau, kp, out=np.zeros_like(tau), where=by_place)
        dq = np.where(by_speed, dq + np.divide(tau, kd, out=np.zeros_like(tau), where=by_speed), 0.0)
        if self._locked:
            joints, places = list(self._locked), list(self._locked.values())
            kp, kd = kp.copy(), kd.copy()
            q[joints], dq[joints], effort[joints] = places, 0.0, 0.0
            kp[joints], kd[joints] = LOCK_STIFFNESS, LOCK_DAMPING
        for target, values in zip(self._targets, (q, dq, effort), strict=True):
            target.copy_(torch.from_numpy(values))
        written = self._gains_written
        if written is None or not (np.array_equal(written[0], kp) and np.array_equal(written[1], kd)):
            self._articulation.write_joint_stiffness_to_sim_index(stiffness=self._tensor(kp))
            self._articulation.write_joint_damping_to_sim_index(damping=self._tensor(kd))
            self._gains_written = kp, kd

    def set_wrench(self, wrench: Wrench) -> None:
        """Force and torque on the heaviest link from the next step on."""
        self._wrench.copy_(torch.tensor(wrench).view(2, 1, 1, 3))
        self._pulled = True
        self._articulation.permanent_wrench_composer.set_forces_and_torques_index(
            forces=self._wrench[0], torques=self._wrench[1], body_ids=[self._link], is_global=True
        )

    def suspension(self) -> Suspension:
        """What a rope to the heaviest link feels."""
        data = self._articulation.data
        x, y, z, w = data.body_link_quat_w.torch[0, self._link].tolist()
        rate = data.body_link_ang_vel_w.torch[0, self._link].tolist()
        return Suspension(
            tuple(self._position.tolist()),
            tuple(self._velocity.tolist()),
            (2.0 * (x * z + w * y), 2.0 * (y * z - w * x)),
            tuple(rate),
        )

    @property
    def diverged(self) -> bool:
        known = (self._joint_pos, self._joint_vel, self._position, self._quaternion, self._velocity)
        return not all(bool(np.isfinite(values).all()) for values in known)

    def push(self, velocity: tuple[float, float, float]) -> None:
        # Joint rates are relative: moving the base alone moves every link alike.
        twist = self._articulation.data.body_link_vel_w.torch[:, self._base].clone()
        twist[0, :3] += torch.tensor(velocity, device=twist.device)
        self._articulation.write_root_link_velocity_to_sim_index(root_velocity=twist)
        self._read_base()

    def lock(self, joint: int) -> None:
        self._locked[joint] = float(self._joint_pos[joint])
        self._write_effort_limits()

    def unlock(self, joint: int) -> None:
        self._locked.pop(joint, None)
        self._write_effort_limits()

    def _write_effort_limits(self) -> None:
        limits = self.robot.effort_limit.copy()
        limits[list(self._locked)] = LOCK_EFFORT
        self._articulation.write_joint_effort_limit_to_sim_index(limits=self._tensor(limits))
        self._changed = True

    def joint_pos(self) -> Floats:
        return self._joint_pos.copy()

    def joint_vel(self) -> Floats:
        return self._joint_vel.copy()

    def joint_acc(self) -> Floats:
        return self._joint_acc

    def joint_effort(self) -> Floats:
        return self._joint_effort

    def imu(self) -> tuple[Floats, Floats, Floats]:
        # The IMU is fixed to the base without rotation.
        return self._gyro, self._accel, self._quaternion

    def base_state(self) -> BaseState:
        rate = np.asarray(rotation.rotate_inverse(self._quaternion, self._rate), dtype=np.float64)
        return BaseState(self._position.copy(), self._quaternion.copy(), self._velocity.copy(), rate)

    def foot_contacts(self) -> tuple[FootContact, FootContact]:
        places = self._articulation.data.body_link_pos_w.torch[0].cpu().numpy()
        left, right = (
            self._foot_contact(link, sensor, places[body] - self._origin)
            for link, sensor, body in zip(self.robot.foot_links, self._soles, self._feet, strict=True)
        )
        return left, right

    def _foot_contact(self, link: str, sensor: ContactSensor, position: Floats) -> FootContact:
        if not self._stepped:
            return FootContact(link, False, position, np.zeros(3))
        # Only now: nobody listens most of the time, and an update costs as much as the rest of the reading.
        sensor.update(self.timestep, force_recompute=True)
        pressing, rubbing = sensor.data.normal_force_matrix_w, sensor.data.friction_force_matrix_w
        assert pressing is not None and rubbing is not None
        force = _numbers(pressing.torch[:, 0, 0] + rubbing.torch[:, 0, 0])
        return FootContact(link, bool(force.any()), position, force)

    def _tensor(self, values: Floats) -> torch.Tensor:
        """[1, .] for Isaac Lab."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)[None]


def _numbers(tensor: torch.Tensor) -> Floats:
    """The first row as a copy on the host."""
    return tensor[0].cpu().numpy().astype(np.float64)


def _threads() -> set[int]:
    """Of this process; empty where the system does not tell."""
    folder = Path("/proc/self/task")
    return {int(task.name) for task in folder.iterdir()} if folder.is_dir() else set()


def _without_priority(threads: set[int]) -> None:
    """One of OVPhysX's threads never sleeps. With the twin's real-time priority it uses up the time that the kernel
    leaves to such threads: all of them then stand still for 50 ms of every second, and the host gives up the robot."""
    for thread in threads:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
