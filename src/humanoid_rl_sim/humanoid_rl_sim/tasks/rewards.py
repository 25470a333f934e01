"""Reward terms: pure functions of a `StepView` to one value per environment, [N].

Terms are rates: the environment multiplies each by its weight and by the control period, so that a return does
not depend on the control frequency. Weights make penalties of the positive ones.
"""

from __future__ import annotations

import torch

from humanoid_rl_sim.tasks.view import StepView


def alive(view: StepView) -> torch.Tensor:
    """1 in every step."""
    return torch.ones_like(view.command[:, 0])


def upright(view: StepView, *, std: float) -> torch.Tensor:
    """exp(-sin²(tilt) / std²)."""
    return torch.exp(-view.projected_gravity[:, :2].square().sum(1) / std**2)


def base_height(view: StepView, *, std: float, target: float | None = None) -> torch.Tensor:
    """exp(-(height error / std)²); without `target` the robot's default base height, m."""
    height = view.robot.default_base_height if target is None else target
    return torch.exp(-((view.base_height - height) / std).square())


def track_linear_velocity(view: StepView, *, std: float) -> torch.Tensor:
    """exp(-|v_xy - command|² / std²) in the base's yaw frame, m/s."""
    error = (view.base_lin_vel_yaw[:, :2] - view.command[:, :2]).square().sum(1)
    return torch.exp(-error / std**2)


def track_yaw_rate(view: StepView, *, std: float) -> torch.Tensor:
    """exp(-(yaw rate - command)² / std²), rad/s."""
    return torch.exp(-((view.state.base_ang_vel[:, 2] - view.command[:, 2]) / std).square())


def capture_point_error(view: StepView, *, clip: float) -> torch.Tensor:
    """Squared distance in m² from the capture point to the midpoint of the feet, at most clip².

    The capture point is where a linear inverted pendulum of the base's height would have to step to come to rest:
    position + velocity sqrt(height / g) (Pratt et al. 2006).
    """
    state = view.state
    time_constant = torch.sqrt(view.base_height[:, None].clamp(min=0.1) / 9.81)
    point = state.base_pos[:, :2] + state.base_lin_vel[:, :2] * time_constant
    return (point - state.foot_pos[:, :, :2].mean(1)).square().sum(1).clamp(max=clip**2)


def vertical_velocity(view: StepView) -> torch.Tensor:
    """Squared vertical velocity of the base, m²/s²."""
    return view.state.base_lin_vel[:, 2].square()


def tilt_rate(view: StepView) -> torch.Tensor:
    """Squared roll and pitch rate of the base, rad²/s²."""
    return view.state.base_ang_vel[:, :2].square().sum(1)


def default_pose(view: StepView, *, std: float, joints: str = "all") -> torch.Tensor:
    """exp(-mean squared joint deviation / std²) over the joint group, rad."""
    index = view.joint_groups[joints]
    deviation = (view.state.joint_pos - view.default_pos).index_select(1, index)
    return torch.exp(-deviation.square().mean(1) / std**2)


def joint_deviation(view: StepView, *, joints: str) -> torch.Tensor:
    """Sum of absolute deviations from the default pose over the joint group, rad."""
    index = view.joint_groups[joints]
    return (view.state.joint_pos - view.default_pos).index_select(1, index).abs().sum(1)


def action_rate(view: StepView) -> torch.Tensor:
    """Squared change of the action between two control steps."""
    return (view.action - view.last_action).square().sum(1)


def action_size(view: StepView) -> torch.Tensor:
    """Squared action."""
    return view.action.square().sum(1)


def torque(view: StepView) -> torch.Tensor:
    """Squared joint torque relative to the effort limit."""
    return (view.state.joint_torque / view.effort_limit).square().sum(1)


def mechanical_power(view: StepView) -> torch.Tensor:
    """Sum of |torque x velocity|, W."""
    return (view.state.joint_torque * view.state.joint_vel).abs().sum(1)


def joint_velocity(view: StepView) -> torch.Tensor:
    """Squared joint velocity, rad²/s²."""
    return view.state.joint_vel.square().sum(1)


def joint_acceleration(view: StepView) -> torch.Tensor:
    """Squared joint acceleration over one control step, rad²/s⁴."""
    return ((view.state.joint_vel - view.last_joint_vel) / view.period).square().sum(1)


def position_limits(view: StepView, *, margin: float) -> torch.Tensor:
    """How far the joints are inside `margin` (a fraction of the range) of their limits, rad, summed."""
    reserve = margin * (view.position_upper - view.position_lower)
    below = (view.position_lower + reserve - view.state.joint_pos).clamp(min=0.0)
    above = (view.state.joint_pos - view.position_upper + reserve).clamp(min=0.0)
    return (below + above).sum(1)


def foot_slip(view: StepView) -> torch.Tensor:
    """Squared horizontal speed of feet in contact, m²/s²."""
    speed = view.state.foot_vel[:, :, :2].square().sum(2)
    return (speed * view.state.foot_contact).sum(1)


def single_support(view: StepView, *, longest: float) -> torch.Tensor:
    """While a walking command is given: time in the current support phase, s, with exactly one foot on the ground.

    Grows with the duration of the phase up to `longest` s, which rewards regular steps; zero when told to stand.
    """
    in_contact = view.state.foot_contact
    phase = torch.where(in_contact, view.contact_time, view.air_time).amin(1).clamp(max=longest)
    one_foot = in_contact[:, 0] != in_contact[:, 1]
    return phase * one_foot * _walking(view)


def foot_clearance(view: StepView, *, height: float, std: float) -> torch.Tensor:
    """While walking: sum over feet in the air of exp(-((z - height)/std)²), z their height above the ground in m."""
    in_air = ~view.state.foot_contact
    closeness = torch.exp(-((view.foot_height - height) / std).square())
    return (closeness * in_air).sum(1) * _walking(view)


def stand_still(view: StepView) -> torch.Tensor:
    """When told to stand: number of feet in the air."""
    return (~view.state.foot_contact).sum(1) * ~_walking(view)


def feet_too_close(view: StepView, *, distance: float) -> torch.Tensor:
    """How much nearer than `distance` m the soles are to each other, horizontally."""
    gap = (view.state.foot_pos[:, 0, :2] - view.state.foot_pos[:, 1, :2]).norm(dim=1)
    return (distance - gap).clamp(min=0.0)


def self_collision(view: StepView) -> torch.Tensor:
    """1 where the robot touches itself, which the task's `collision` must allow: self or full."""
    return view.state.self_contact.float()


def _walking(view: StepView) -> torch.Tensor:
    """[N] bool: the command asks for motion."""
    return view.command.abs().amax(1) > 0.05
