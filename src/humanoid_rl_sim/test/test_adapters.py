"""The environment as other libraries see it: stable-baselines3's and gymnasium's vector environments."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import (
    check_action_space,
    check_observation_space,
)
from gymnasium.vector import AutoresetMode
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.gymnasium_vector_env import GymnasiumVectorEnv
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment, StepResult
from stable_baselines3.common.vec_env import VecMonitor

N = 4


@pytest.fixture
def make():
    made: list[Environment] = []

    def factory(**changes) -> Environment:
        task = dataclasses.replace(load_task("stand"), **changes)
        simulator = make_simulator(
            "mujoco", load_robot(task.robot, task.variant), N, timestep=task.physics_timestep
        )
        made.append(Environment(task, simulator, seed=2))
        return made[-1]

    yield factory
    for environment in made:
        environment.close()


@pytest.fixture
def results(monkeypatch) -> list[StepResult]:
    """What the environment itself returned, step by step."""
    kept: list[StepResult] = []
    step = Environment.step

    def recording(self: Environment, action: torch.Tensor) -> StepResult:
        kept.append(step(self, action))
        return kept[-1]

    monkeypatch.setattr(Environment, "step", recording)
    return kept


def topple(environment: Environment, robot: int) -> None:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[robot] = True
    environment.simulator.add_base_velocity(mask, torch.tensor([[4.0, 0.0, 0.0]]).repeat(N, 1))


def random_actions(env, count: int):
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield generator.normal(0.0, 0.3, (N, env.action_space.shape[-1])).astype(np.float32)


def test_observations_and_actions_fit_their_spaces(make):
    env = Sb3VecEnv(make(episode_length=0.1))
    size = env.environment.graph.observation_size + env.environment.privileged_size
    assert env.observation_space.shape == (size,)
    observation = env.reset()
    for action in random_actions(env, 12):
        assert observation.shape == (N, size) and observation.dtype == np.float32
        assert all(env.observation_space.contains(row) for row in observation)
        assert all(env.action_space.contains(row) for row in action)
        observation, reward, done, infos = env.step(action)
        assert reward.shape == done.shape == (N,) and done.dtype == bool and len(infos) == N


def test_a_time_limit_is_marked_and_its_last_observation_is_the_one_before_the_reset(make, results):
    env = Sb3VecEnv(make(episode_length=0.1))
    env.reset()
    for step, action in enumerate(random_actions(env, 10), start=1):
        observation, _, done, infos = env.step(action)
        assert done.all() == done.any() == (step % 5 == 0)
        for i, info in enumerate(infos):
            if not done[i]:
                assert info == {}
                continue
            final = torch.cat((results[-1].final_observation, results[-1].final_privileged), 1)[i].numpy()
            assert info["TimeLimit.truncated"] is True
            np.testing.assert_array_equal(info["terminal_observation"], final)
            assert np.abs(info["terminal_observation"] - observation[i]).max() > 0.01


def test_a_fall_is_no_time_limit(make):
    env = Sb3VecEnv(make(episode_length=60.0, push=None))
    env.reset()
    topple(env.environment, 1)
    for _ in range(150):
        observation, _, done, infos = env.step(np.zeros((N, env.action_space.shape[0]), np.float32))
        if done.any():
            break
    assert done.tolist() == [False, True, False, False]
    assert infos[1]["TimeLimit.truncated"] is False
    # Height of the base relative to standing: it had fallen, and stands again.
    height = env.environment.graph.observation_size + 9
    assert infos[1]["terminal_observation"][height] < -0.1 < -0.03 < observation[1][height]


def test_episode_returns_and_lengths_are_the_sums_that_a_monitor_finds(make):
    env = VecMonitor(Sb3VecEnv(make(episode_length=0.1)))
    own, theirs = [], []
    env.reset()
    for action in random_actions(env, 15):
        env.step_async(action)
        _, _, done, infos = env.venv.step_wait()
        own += [infos[i]["episode"] for i in np.flatnonzero(done)]
    inner = env.venv
    inner.environment.generator.manual_seed(7)
    env.reset()
    returns = np.zeros(N)
    lengths = np.zeros(N, int)
    for action in random_actions(env, 15):
        _, reward, done, infos = inner.step(action)
        returns += reward
        lengths += 1
        for i in np.flatnonzero(done):
            theirs.append((returns[i], lengths[i]))
            assert infos[i]["episode"] == {"r": pytest.approx(returns[i], rel=1e-5), "l": lengths[i]}
            returns[i], lengths[i] = 0.0, 0
    assert len(own) == len(theirs) == 3 * N
    assert {length for _, length in theirs} == {5}


def test_attributes_are_shared_and_cannot_be_set_for_one_environment(make):
    env = Sb3VecEnv(make())
    assert env.get_attr("num_envs") == [N] * N and env.get_attr("num_envs", [0, 2]) == [N] * 2
    assert env.env_is_wrapped(VecMonitor) == [False] * N
    with pytest.raises(NotImplementedError):
        env.set_attr("num_envs", 3)
    with pytest.raises(NotImplementedError):
        env.env_method("reset")


def test_gymnasium_accepts_the_spaces(make):
    env = GymnasiumVectorEnv(make())
    check_observation_space(env.single_observation_space)
    check_action_space(env.single_action_space)
    assert env.observation_space.shape == (N, *env.single_observation_space.shape)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_gymnasium_steps_reset_where_an_episode_ends_and_give_its_last_observation(make, results):
    env = GymnasiumVectorEnv(make(episode_length=0.1))
    observation, info = env.reset(seed=5)
    assert env.observation_space.contains(observation) and info == {}
    kept = []
    for step, action in enumerate(random_actions(env, 10), start=1):
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == (N,)
        assert truncated.all() == truncated.any() == (step % 5 == 0) and not terminated.any()
        if truncated.any():
            assert info["_final_obs"].all()
            np.testing.assert_array_equal(info["final_obs"], results[-1].final_observation.numpy())
            assert np.abs(info["final_obs"] - observation).max() > 0.01
        else:
            assert info == {}
        kept.append((observation, observation.copy()))
    # Nothing handed out is written to again.
    assert all(np.array_equal(given, copy) for given, copy in kept)


def test_gymnasium_seeds_make_a_reset_repeatable(make):
    env = GymnasiumVectorEnv(make())
    first, other, again = (env.reset(seed=seed)[0] for seed in (5, 6, [5, 5, 5, 5]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
