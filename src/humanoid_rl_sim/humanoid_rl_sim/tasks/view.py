"""What a reward or termination term sees of one control step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from humanoid_rl_core.robot import RobotModel

from humanoid_rl_sim.simulators.contract import SimulationState


@dataclass
class StepView:
    """State after a control step, shapes as in `SimulationState`; every term reads it, none writes it."""

    robot: RobotModel
    period: float
    """s, control period."""
    state: SimulationState
    default_pos: torch.Tensor
    """[n] rad."""
    position_lower: torch.Tensor
    """[n] rad."""
    position_upper: torch.Tensor
    """[n] rad."""
    effort_limit: torch.Tensor
    """[n] Nm."""
    command: torch.Tensor
    """[N, 3] vx m/s, vy m/s, yaw rate rad/s."""
    action: torch.Tensor
    """[N, n] the policy's action, clipped."""
    last_action: torch.Tensor
    """[N, n] the action before it."""
    last_joint_vel: torch.Tensor
    """[N, n] rad/s, one control step ago."""
    projected_gravity: torch.Tensor
    """[N, 3] unit vector of gravity in the base frame."""
    base_lin_vel_yaw: torch.Tensor
    """[N, 3] m/s, base velocity in the frame that shares the base's yaw and is otherwise level."""
    base_height: torch.Tensor
    """[N] m, base above the ground under it."""
    foot_height: torch.Tensor
    """[N, 2] m, soles above the ground under them."""
    air_time: torch.Tensor
    """[N, 2] s, how long each foot has been in the air."""
    contact_time: torch.Tensor
    """[N, 2] s, how long each foot has been on the ground."""
    joint_groups: dict[str, torch.Tensor]
    """Joint indices of named groups: legs, ankles, hips, waist, arms, all."""
