"""The arithmetic of the policy graph against independent computations."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph, projected_gravity
from scipy.spatial.transform import Rotation
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

NAMES = ("joint_pos", "joint_vel", "imu_gyro", "imu_quat", "command")


def tensors(readings, step=None):
    """Readings as tensors: [T, size], or the one step as [1, size]."""
    return [torch.from_numpy(readings[n] if step is None else readings[n][step : step + 1]) for n in NAMES]


def test_projected_gravity_is_world_down_turned_into_the_imu_frame():
    rotations = Rotation.random(500, random_state=0)
    quaternions = torch.tensor(rotations.as_quat(scalar_first=True), dtype=torch.float32)
    expected = rotations.inv().apply([0.0, 0.0, -1.0])
    np.testing.assert_allclose(projected_gravity(quaternions), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rpy", "expected"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
        ((0.0, 0.0, 1.2), (0.0, 0.0, -1.0)),
        ((0.0, 0.5, 0.0), (np.sin(0.5), 0.0, -np.cos(0.5))),  # leaning forward: gravity pulls forward
        ((0.5, 0.0, 0.0), (0.0, -np.sin(0.5), -np.cos(0.5))),  # leaning right: gravity pulls to the right
    ],
)
def test_projected_gravity_points_where_the_robot_leans(rpy, expected):
    quaternion = Rotation.from_euler("xyz", rpy).as_quat(scalar_first=True)
    np.testing.assert_allclose(projected_gravity(torch.tensor(quaternion[None]))[0], expected, atol=1e-7)


@pytest.mark.parametrize("length", [0.5, 0.99, 1.01, 3.0])
def test_projected_gravity_does_not_depend_on_the_quaternions_length(length):
    quaternion = torch.tensor([[0.8, 0.3, -0.4, 0.33]])
    torch.testing.assert_close(projected_gravity(length * quaternion), projected_gravity(quaternion))


def test_zero_quaternion_gives_zero_gravity_and_not_nan():
    assert projected_gravity(torch.zeros(2, 4)).tolist() == [[0.0] * 3] * 2


def test_observation_frame_holds_the_scaled_terms_where_the_layout_says(make_graph, robot, sensors):
    graph = make_graph(history=1)
    readings = sensors(5)
    last_action = torch.linspace(-1, 1, 5 * 29).reshape(5, 29)
    observation, frames = graph.observe(*tensors(readings), last_action)
    rotations = Rotation.from_quat(readings["imu_quat"], scalar_first=True)
    expected = {
        "base_ang_vel": 0.25 * readings["imu_gyro"],
        "projected_gravity": rotations.inv().apply([0.0, 0.0, -1.0]),
        "command": 2.0 * np.clip(readings["command"], [-0.5, -0.3, -0.5], [1.0, 0.3, 0.5]),
        "joint_pos_rel": readings["joint_pos"] - robot.default_position,
        "joint_vel": 0.05 * readings["joint_vel"],
        "last_action": last_action.numpy(),
    }
    assert [name for name, *_ in graph.observation_layout] == list(expected)
    for name, start, stop, _ in graph.observation_layout:
        np.testing.assert_allclose(observation[:, start:stop], expected[name], atol=2e-6, err_msg=name)
    assert graph.observation_layout[-1][2] == graph.frame_size == observation.shape[1]
    assert frames.shape == (5, 0)


def test_history_stacks_frames_from_oldest_to_newest(make_graph, sensors):
    graph, single = make_graph(history=3), make_graph(history=1)
    readings = sensors(5)
    state = graph.initial_state(1)
    action = torch.zeros(1, 29)
    past = [torch.zeros(1, graph.frame_size)] * 2
    for step in range(5):
        observation, frames = graph.observe(*tensors(readings, step), state)
        past.append(single.observe(*tensors(readings, step), action)[0])
        torch.testing.assert_close(observation, torch.cat(past[-3:], dim=1), rtol=0, atol=0)
        action = torch.full((1, 29), 0.1 * step)
        state = graph.next_state(action, frames)
    assert state.shape == (1, graph.state_size) == (1, 29 + 2 * graph.frame_size)


@pytest.mark.parametrize("history", [1, 3])
def test_state_remembers_the_clipped_action(make_graph, sensors, history):
    graph = make_graph(history=history, action_clip=2.0)
    _, frames = graph.observe(*tensors(sensors(4)), graph.initial_state(4))
    action = torch.linspace(-5, 5, 4 * 29).reshape(4, 29)
    state = graph.next_state(action, frames)
    torch.testing.assert_close(state[:, :29], action.clamp(-2.0, 2.0))
    observation, _ = graph.observe(*tensors(sensors(4)), state)
    torch.testing.assert_close(observation[:, -29:], action.clamp(-2.0, 2.0))


def test_action_is_clipped_before_it_is_decoded(make_graph, robot):
    graph = make_graph(action_clip=0.5)
    target = graph.decode(torch.full((1, 29), 100.0))
    scale = 0.25 * robot.effort_limit / robot.gains["compliant"].stiffness
    np.testing.assert_allclose(target[0], robot.default_position + 0.5 * scale, rtol=1e-6)


def test_joint_targets_stay_within_the_position_limits(make_graph, robot):
    graph = make_graph(action_clip=1e3)
    np.testing.assert_allclose(graph.decode(torch.full((1, 29), 1e3))[0], robot.position_upper, rtol=1e-6)
    np.testing.assert_allclose(graph.decode(torch.full((1, 29), -1e3))[0], robot.position_lower, rtol=1e-6)


def test_zero_action_asks_for_the_default_pose(make_graph, robot):
    np.testing.assert_allclose(make_graph().decode(torch.zeros(1, 29))[0], robot.default_position, atol=1e-7)


def test_forward_is_observe_normalise_network_decode_and_next_state(make_graph, sensors):
    graph = make_graph(action_clip=0.2)
    state = torch.randn(6, graph.state_size)
    target, state_next, action = graph(*tensors(sensors(6)), state)
    observation, frames = graph.observe(*tensors(sensors(6)), state)
    mean = graph.network(graph.normalise(observation))
    assert mean.abs().max() > 0.2, "the clip must matter here"
    torch.testing.assert_close(action, mean.clamp(-0.2, 0.2))
    torch.testing.assert_close(target, graph.decode(mean))
    torch.testing.assert_close(state_next, graph.next_state(mean, frames))


def test_environments_of_a_batch_do_not_mix(make_graph, sensors):
    graph = make_graph()
    state = torch.randn(4, graph.state_size)
    readings = sensors(4)
    batched = graph(*tensors(readings), state)
    for row in range(4):
        alone = graph(*tensors(readings, row), state[row : row + 1])
        for one, many in zip(alone, batched, strict=True):
            torch.testing.assert_close(one[0], many[row], atol=1e-6, rtol=1e-6)


class _NoEnvironment(gymnasium.Env):
    """The spaces VecNormalize asks for."""

    observation_space = spaces.Box(-np.inf, np.inf, (288,), dtype=np.float32)
    action_space = spaces.Box(-1, 1, (1,), dtype=np.float32)


def test_normalisation_is_that_of_stable_baselines3(make_graph):
    graph = make_graph()
    assert graph.observation_size == 288
    rng = np.random.default_rng(3)
    reference = VecNormalize(DummyVecEnv([_NoEnvironment]), training=False)
    reference.obs_rms.mean = rng.normal(0.0, 2.0, 288)
    reference.obs_rms.var = rng.uniform(0.0, 3.0, 288)
    reference.obs_rms.mean[:5] = reference.obs_rms.var[:5] = 0.0  # a term that never changed
    graph.set_normalisation(reference.obs_rms.mean, reference.obs_rms.var)
    observation = rng.normal(0.0, 10.0, (50, 288)).astype(np.float32)
    observation[:, :5] = 3e-4
    expected = reference.normalize_obs(observation)
    assert np.abs(expected).max() == 10.0, "the clip must be reached"
    np.testing.assert_allclose(graph.normalise(torch.from_numpy(observation)), expected, atol=1e-5)


def test_normalisation_is_the_identity_until_it_is_set(robot):
    graph = PolicyGraph(
        joint_names=["a"],
        default_position=[0.0],
        action_scale=[1.0],
        position_lower=[-1.0],
        position_upper=[1.0],
        command_names=[],
        command_lower=[],
        command_upper=[],
        observation=[ObservationTerm("joint_vel")],
    )
    torch.testing.assert_close(graph.normalise(torch.tensor([[0.5]])), torch.tensor([[0.5]]))


def test_setting_the_normalisation_keeps_the_buffers_in_place(make_graph):
    graph = make_graph()
    addresses = graph.obs_mean.data_ptr(), graph.obs_var.data_ptr()
    graph.set_normalisation(np.ones(288), np.ones(288))
    assert (graph.obs_mean.data_ptr(), graph.obs_var.data_ptr()) == addresses
    assert graph.obs_mean.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (np.zeros(3), np.ones(288), r"mean: shape \(3,\)"),
        (np.zeros(288), np.full(288, np.nan), "var has a non-finite value"),
        (np.zeros(288), np.full(288, -1.0), "var has a negative value"),
    ],
)
def test_unusable_statistics_are_refused_and_change_nothing(make_graph, mean, var, message):
    graph = make_graph()
    before = graph.obs_mean.clone(), graph.obs_var.clone()
    with pytest.raises(ValueError, match=message):
        graph.set_normalisation(mean, var)
    torch.testing.assert_close((graph.obs_mean, graph.obs_var), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observation": [ObservationTerm("joint_vle")]},
            "unknown observation term 'joint_vle', did you mean",
        ),
        ({"observation": [ObservationTerm("command")] * 2}, "'command' is listed twice"),
        ({"observation": []}, "the observation has no terms"),
        ({"history": 0}, "history must be at least 1"),
        ({"action_clip": 0.0}, "action_clip must be positive"),
    ],
)
def test_wrong_configuration_is_named(make_graph, changes, message):
    with pytest.raises(UserError, match=message):
        make_graph(**changes)


def test_vector_of_the_wrong_length_is_named(make_graph):
    with pytest.raises(ValueError, match=r"action_scale must have shape \(29,\), not \(28,\)"):
        make_graph(action_scale=np.ones(28))


def test_forward_without_a_network_says_so(make_graph, sensors):
    graph = make_graph()
    graph.network = None
    with pytest.raises(ValueError, match="no network"):
        graph(*tensors(sensors(1)), graph.initial_state(1))


def test_step_never_looks_at_the_data_on_the_host(make_graph):
    """Meta tensors have no data: whatever would branch on it, or fetch it from a GPU, raises."""
    graph = make_graph().to("meta")
    inputs = [torch.empty(8, size, device="meta") for size in (29, 29, 3, 4, 3)]
    target, state, action = graph(*inputs, graph.initial_state(8))
    assert (target.shape, state.shape, action.shape) == ((8, 29), (8, graph.state_size), (8, 29))
