"""Every reward term against a number worked out by hand."""

import inspect
import math

import pytest
import torch
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.contract import SimulationState
from humanoid_rl_sim.tasks import rewards
from humanoid_rl_sim.tasks.environment import joint_groups
from humanoid_rl_sim.tasks.view import StepView

ROBOT = load_robot()
JOINTS = ROBOT.joint_count
CPU = torch.device("cpu")
KNEE = ROBOT.joint_names.index("left_knee_joint")
ELBOW = ROBOT.joint_names.index("left_elbow_joint")
TERMS = {
    name
    for name, value in vars(rewards).items()
    if inspect.isfunction(value) and value.__module__ == rewards.__name__ and not name.startswith("_")
}


def make_view() -> StepView:
    """Two robots at rest in the default pose: the first told to walk forward at 0.5 m/s, the second to stand."""

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(2, *shape)

    state = SimulationState.zeros(2, JOINTS, CPU)
    default = torch.zeros(JOINTS)
    state.foot_contact[:] = True
    state.foot_pos[:, 0, 1], state.foot_pos[:, 1, 1] = 0.1, -0.1
    return StepView(
        robot=ROBOT,
        period=0.02,
        state=state,
        default_pos=default,
        position_lower=torch.full((JOINTS,), -1.0),
        position_upper=torch.full((JOINTS,), 1.0),
        effort_limit=torch.full((JOINTS,), 50.0),
        command=torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        action=zeros(JOINTS),
        last_action=zeros(JOINTS),
        last_joint_vel=zeros(JOINTS),
        projected_gravity=torch.tensor([[0.0, 0.0, -1.0]]).repeat(2, 1),
        base_lin_vel_yaw=zeros(3),
        base_height=torch.full((2,), 0.981),
        foot_height=zeros(2),
        air_time=zeros(2),
        contact_time=torch.ones(2, 2),
        joint_groups=joint_groups(ROBOT, CPU),
    )


def leaning(view: StepView) -> None:
    view.projected_gravity[0] = torch.tensor([0.3, 0.4, -math.sqrt(0.75)])


def high(view: StepView) -> None:
    view.base_height[:] = torch.tensor([1.2, 1.1])


def moving(view: StepView) -> None:
    view.base_lin_vel_yaw[:] = torch.tensor([[0.5, 0.3, 9.0], [0.4, 0.0, 9.0]])


def turning(view: StepView) -> None:
    view.command[0, 2] = 0.2
    view.state.base_ang_vel[:] = torch.tensor([[9.0, 9.0, 0.6], [9.0, 9.0, 0.2]])


def falling(view: StepView) -> None:
    view.state.base_lin_vel[0] = torch.tensor([9.0, 9.0, -0.5])
    view.state.base_ang_vel[0] = torch.tensor([0.3, 0.4, 9.0])


def drifting(view: StepView) -> None:
    # sqrt(0.981 / 9.81) = sqrt(0.1); the feet's midpoint of the second is 0.2 m behind its base.
    view.state.base_lin_vel[0] = torch.tensor([0.5, 0.0, 9.0])
    view.state.foot_pos[1, :, 0] = -0.2


def lurching(view: StepView) -> None:
    view.state.base_lin_vel[:, 0] = 30.0


def bent(view: StepView) -> None:
    view.state.joint_pos[0, KNEE], view.state.joint_pos[0, ELBOW] = 0.4, -0.3


def acting(view: StepView) -> None:
    view.action[0, :2] = torch.tensor([3.0, 4.0])
    view.last_action[0, :2] = torch.tensor([2.0, 2.0])


def working(view: StepView) -> None:
    view.state.joint_torque[0, :2] = torch.tensor([25.0, -10.0])
    view.state.joint_vel[0, :2] = torch.tensor([2.0, 3.0])
    view.last_joint_vel[0, :2] = torch.tensor([1.98, 3.0])


def at_limits(view: StepView) -> None:
    view.state.joint_pos[0, :3] = torch.tensor([0.95, -0.85, 0.79])


def slipping(view: StepView) -> None:
    view.state.foot_vel[:, 0] = torch.tensor([0.3, 0.4, 9.0])
    view.state.foot_contact[1, 0] = False


def stepping(view: StepView) -> None:
    """The left foot of both is 0.05 m up since 0.3 s; the right one bears since 0.2 s."""
    view.state.foot_contact[:, 0] = False
    view.foot_height[:, 0] = 0.05
    view.air_time[:, 0], view.contact_time[:, 0] = 0.3, 0.0
    view.contact_time[:, 1] = 0.2


def folded(view: StepView) -> None:
    view.state.self_contact[0] = True


def side_by_side(view: StepView) -> None:
    view.state.foot_pos[0] = torch.tensor([[0.03, 0.04, 0.0], [0.0, 0.0, 0.5]])


CASES = [
    ("alive", {}, None, [1.0, 1.0]),
    ("upright", {"std": 0.5}, leaning, [math.exp(-1.0), 1.0]),
    ("base_height", {"std": 0.1, "target": 1.0}, high, [math.exp(-4.0), math.exp(-1.0)]),
    ("track_linear_velocity", {"std": 0.5}, moving, [math.exp(-0.36), math.exp(-0.64)]),
    ("track_yaw_rate", {"std": 0.2}, turning, [math.exp(-4.0), math.exp(-1.0)]),
    ("capture_point_error", {"clip": 0.4}, drifting, [0.025, 0.04]),
    ("capture_point_error", {"clip": 0.4}, lurching, [0.16, 0.16]),
    ("vertical_velocity", {}, falling, [0.25, 0.0]),
    ("tilt_rate", {}, falling, [0.25, 0.0]),
    ("default_pose", {"std": 0.1, "joints": "knees"}, bent, [math.exp(-8.0), 1.0]),
    ("default_pose", {"std": 0.5}, bent, [math.exp(-1.0 / JOINTS), 1.0]),
    ("joint_deviation", {"joints": "arms"}, bent, [0.3, 0.0]),
    ("joint_deviation", {"joints": "all"}, bent, [0.7, 0.0]),
    ("action_rate", {}, acting, [5.0, 0.0]),
    ("action_size", {}, acting, [25.0, 0.0]),
    ("torque", {}, working, [0.29, 0.0]),
    ("mechanical_power", {}, working, [80.0, 0.0]),
    ("joint_velocity", {}, working, [13.0, 0.0]),
    ("joint_acceleration", {}, working, [1.0, 0.0]),
    ("position_limits", {"margin": 0.1}, at_limits, [0.2, 0.0]),
    ("foot_slip", {}, slipping, [0.25, 0.0]),
    ("single_support", {"longest": 1.0}, None, [0.0, 0.0]),
    ("single_support", {"longest": 1.0}, stepping, [0.2, 0.0]),
    ("single_support", {"longest": 0.1}, stepping, [0.1, 0.0]),
    ("foot_clearance", {"height": 0.1, "std": 0.05}, stepping, [math.exp(-1.0), 0.0]),
    ("stand_still", {}, stepping, [0.0, 1.0]),
    ("feet_too_close", {"distance": 0.18}, side_by_side, [0.13, 0.0]),
    ("self_collision", {}, folded, [1.0, 0.0]),
]


@pytest.mark.parametrize(("name", "parameters", "arrange", "expected"), CASES)
def test_reward_term_equals_the_number_worked_out_by_hand(name, parameters, arrange, expected):
    view = make_view()
    if arrange is not None:
        arrange(view)
    value = getattr(rewards, name)(view, **parameters).float()
    assert value.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_base_height_aims_at_the_robots_own_height_by_default():
    view = make_view()
    view.base_height[:] = torch.tensor([ROBOT.default_base_height, ROBOT.default_base_height - 0.1])
    assert rewards.base_height(view, std=0.1).tolist() == pytest.approx([1.0, math.exp(-1.0)], rel=1e-4)


def test_no_reward_term_is_without_a_worked_out_number():
    assert {name for name, *_ in CASES} == TERMS
