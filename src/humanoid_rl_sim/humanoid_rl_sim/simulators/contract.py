"""What every simulator offers to the tasks: batched torch tensors in, batched torch tensors out.

Conventions: `N` environments, `n` joints in motor order, SI units, quaternions (w, x, y, z), all floating point
tensors float32 on `Simulator.device`. Vectors are in the world frame unless the name or docstring says otherwise.
Masked operations take a boolean mask [N] and touch nothing outside it; a simulator that is `capturable` does not
synchronise with the host in any method a step calls.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from humanoid_rl_core.robot import Gains, RobotModel

from humanoid_rl_sim.simulators.camera import CameraConfig, Images
from humanoid_rl_sim.simulators.height_field import HeightField

Collision = Literal["feet", "self", "full"]
"""What collides: the soles with the ground; the robot also with itself; or every shape with the ground too. An engine
may let every shape touch the ground with "self" as well."""


@dataclass
class SimulationState:
    """State of all environments; the tensors are updated in place by `Simulator.refresh`."""

    joint_pos: torch.Tensor
    """[N, n] rad."""
    joint_vel: torch.Tensor
    """[N, n] rad/s."""
    joint_torque: torch.Tensor
    """[N, n] Nm, as applied in the last physics step, after the effort limit."""
    base_pos: torch.Tensor
    """[N, 3] m, base link origin."""
    base_quat: torch.Tensor
    """[N, 4] base orientation."""
    base_lin_vel: torch.Tensor
    """[N, 3] m/s, base link origin."""
    base_ang_vel: torch.Tensor
    """[N, 3] rad/s, base frame."""
    imu_gyro: torch.Tensor
    """[N, 3] rad/s, IMU frame."""
    imu_quat: torch.Tensor
    """[N, 4] IMU orientation."""
    foot_pos: torch.Tensor
    """[N, 2, 3] m, sole centre, left then right."""
    foot_vel: torch.Tensor
    """[N, 2, 3] m/s, sole centre."""
    foot_force: torch.Tensor
    """[N, 2, 3] N, net force the ground exerts on the foot."""
    foot_contact: torch.Tensor
    """[N, 2] bool, whether the foot touches the ground."""
    self_contact: torch.Tensor
    """[N] bool, whether the robot touches itself; never where nothing but the soles collides."""

    @classmethod
    def zeros(cls, num_envs: int, num_joints: int, device: torch.device) -> SimulationState:
        def new(*shape: int) -> torch.Tensor:
            return torch.zeros((num_envs, *shape), device=device)

        return cls(
            joint_pos=new(num_joints),
            joint_vel=new(num_joints),
            joint_torque=new(num_joints),
            base_pos=new(3),
            base_quat=new(4),
            base_lin_vel=new(3),
            base_ang_vel=new(3),
            imu_gyro=new(3),
            imu_quat=new(4),
            foot_pos=new(2, 3),
            foot_vel=new(2, 3),
            foot_force=new(2, 3),
            foot_contact=torch.zeros((num_envs, 2), dtype=torch.bool, device=device),
            self_contact=torch.zeros(num_envs, dtype=torch.bool, device=device),
        )


@dataclass(frozen=True)
class InitialState:
    """State to which environments are reset; every tensor has one row per environment."""

    joint_pos: torch.Tensor
    """[N, n] rad."""
    joint_vel: torch.Tensor
    """[N, n] rad/s."""
    base_pos: torch.Tensor
    """[N, 3] m."""
    base_quat: torch.Tensor
    """[N, 4]."""
    base_lin_vel: torch.Tensor
    """[N, 3] m/s."""
    base_ang_vel: torch.Tensor
    """[N, 3] rad/s, base frame."""


@dataclass(frozen=True)
class ModelProperties:
    """Per-environment physical properties, relative to the nominal robot."""

    friction: torch.Tensor
    """[N] sliding friction coefficient between sole and ground."""
    base_mass_offset: torch.Tensor
    """[N] kg, added to the torso."""
    base_com_offset: torch.Tensor
    """[N, 3] m, added to the torso's centre of mass."""
    stiffness_scale: torch.Tensor
    """[N, n] factor on the commanded stiffness."""
    damping_scale: torch.Tensor
    """[N, n] factor on the commanded damping."""
    effort_limit_scale: torch.Tensor
    """[N, n] factor on the effort limits (motor strength)."""
    armature_scale: torch.Tensor
    """[N, n] factor on the reflected rotor inertia."""

    @classmethod
    def nominal(
        cls, num_envs: int, num_joints: int, device: torch.device, friction: float = 1.0
    ) -> ModelProperties:
        ones = torch.ones(num_envs, num_joints, device=device)
        zeros = torch.zeros(num_envs, device=device)
        return cls(
            friction=torch.full((num_envs,), friction, device=device),
            base_mass_offset=zeros,
            base_com_offset=torch.zeros(num_envs, 3, device=device),
            stiffness_scale=ones,
            damping_scale=ones,
            effort_limit_scale=ones,
            armature_scale=ones,
        )


class Simulator(ABC):
    """A batch of `num_envs` independent robots, each alone on the ground, under joint PD control at physics rate."""

    robot: RobotModel
    num_envs: int
    device: torch.device
    timestep: float
    """Physics time step in s."""
    capturable: bool = False
    """Whether everything a control step calls can be captured in a CUDA graph."""
    height_field: HeightField | None = None
    """The ground, the same for all; None where it is level and at height 0."""
    camera: CameraConfig | None = None
    """What every robot carries; None without."""
    state: SimulationState
    properties: ModelProperties
    """As last set."""

    @functools.cached_property
    def overflows(self) -> torch.Tensor:
        """[] int64: how often, since the start, an environment had more contacts or constraints in a control step than
        the engine has room for, so that some were left out. Zero for an engine that makes room; any other adds to it
        in place."""
        return torch.zeros((), dtype=torch.long, device=self.device)

    @abstractmethod
    def set_gains(self, gains: Gains) -> None:
        """Joint stiffness and damping of every environment (before per-environment scaling)."""

    @abstractmethod
    def set_joint_target(self, joint_target: torch.Tensor) -> None:
        """Position targets [N, n] in rad; held until set again."""

    @abstractmethod
    def advance(self, substeps: int, *, observed: bool = True) -> None:
        """Integrate `substeps` physics steps. `state` is stale until `refresh`.

        With `observed=False` another `advance` follows before anybody looks: sensors need not be made current.
        """

    @abstractmethod
    def refresh(self) -> None:
        """Bring `state` up to date with the current instant."""

    @abstractmethod
    def reset(self, mask: torch.Tensor, initial: InitialState) -> None:
        """Put the environments in `mask` [N] into their rows of `initial`; the others stay bit-identical.

        `state` is up to date for the environments in `mask` afterwards.
        """

    @abstractmethod
    def add_base_velocity(self, mask: torch.Tensor, delta: torch.Tensor) -> None:
        """Push: add `delta` [N, 3] in m/s to the linear velocity of the base of the environments in `mask`."""

    @abstractmethod
    def set_properties(self, properties: ModelProperties) -> None:
        """Give every environment its own physical properties."""

    def images(self) -> Images:
        """What the cameras see now, rendered when asked for; the tensors are fresh.

        Raises:
            ValueError: there is no camera.
        """
        raise ValueError("the simulator has no camera")

    @abstractmethod
    def close(self) -> None:
        """Release threads and memory; the simulator cannot be used afterwards."""
