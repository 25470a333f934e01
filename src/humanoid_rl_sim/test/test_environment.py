"""The batched control step: what it rewards, when it ends, what it hands to a learner."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.tasks.configuration import (
    LatencyConfig,
    PushConfig,
    Range,
    TaskConfig,
    load_task,
    task_directory,
    task_names,
)
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import NoHostSync
from humanoid_rl_sim.tasks.making import make_environment

N = 6


def quiet(name: str = "stand", **changes) -> TaskConfig:
    """The task without anything random in it, save the yaw at the start."""
    task = load_task(name)
    terms = tuple(dataclasses.replace(term, noise=0.0) for term in task.observation.terms)
    still = dataclasses.replace(
        task.reset, joint_noise=0.0, joint_vel_noise=0.0, tilt_noise=0.0, base_velocity_noise=0.0
    )
    return dataclasses.replace(
        task,
        observation=dataclasses.replace(task.observation, terms=terms),
        reset=still,
        push=None,
        latency=LatencyConfig(),
        **{"action_scale_factors": {}, **changes},
    )


@pytest.fixture
def make():
    made: list[Environment] = []

    def factory(task: TaskConfig, *, num_envs: int = N, seed: int = 0, training: bool = True) -> Environment:
        environment = make_environment(task, "mujoco", num_envs, seed=seed, training=training)
        made.append(environment)
        return environment

    yield factory
    for environment in made:
        environment.close()


def zero_action(environment: Environment) -> torch.Tensor:
    return torch.zeros(environment.num_envs, environment.graph.action_size)


@pytest.mark.parametrize("name", task_names())
def test_every_shipped_task_runs_and_stays_finite(make, name):
    environment = make(load_task(name))
    observation, privileged = environment.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        action = torch.randn(N, environment.graph.action_size, generator=generator)
        result = environment.step(action)
        assert result.observation.shape == observation.shape == (N, environment.graph.observation_size)
        assert result.privileged.shape == privileged.shape == (N, environment.privileged_size)
        for value in vars(result).values():
            assert torch.isfinite(value.float()).all()


def test_no_tensor_shares_the_read_only_memory_of_the_description(make):
    """Torch warns where one does, by default only once in a process."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The given NumPy array is not writable")
            make(load_task("stand"))
    finally:
        torch.set_warn_always(always)


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not(make):
    task = load_task("stand")
    rewards = {}
    for run, seed in enumerate((3, 3, 4)):
        environment = make(task, seed=seed)
        environment.reset()
        rewards[run] = torch.stack([environment.step(zero_action(environment)).reward for _ in range(150)])
    assert torch.equal(rewards[0], rewards[1])
    assert not torch.equal(rewards[0], rewards[2])


def test_observation_is_the_policy_graphs_view_of_the_simulator(make):
    environment = make(quiet(), training=False)
    environment.reset()
    action = torch.full((N, environment.graph.action_size), 0.3)
    result = environment.step(action)
    state = environment.simulator.state
    expected, _ = environment.graph.observe(
        state.joint_pos, state.joint_vel, state.imu_gyro, state.imu_quat, environment.view.command, action
    )
    torch.testing.assert_close(result.observation, expected)


def test_action_zero_asks_for_the_default_pose_and_units_are_scaled(make):
    task = quiet()
    environment = make(task, training=False)
    robot = environment.robot
    environment.reset()
    environment.step(zero_action(environment))
    np.testing.assert_allclose(environment._target[0].numpy(), robot.default_position, atol=1e-6)
    action = zero_action(environment)
    knee = robot.joint_names.index("left_knee_joint")
    action[:, knee] = 1.0
    environment.step(action)
    step = task.action_scale * robot.effort_limit[knee] / robot.gains[task.gains].stiffness[knee]
    assert float(environment._target[0, knee]) == pytest.approx(robot.default_position[knee] + step, abs=1e-6)


def test_a_fall_terminates_and_the_next_observation_is_a_new_episode(make):
    environment = make(quiet(), training=False)
    environment.reset()
    environment.simulator.add_base_velocity(
        torch.tensor([True] + [False] * (N - 1)), torch.tensor([[3.0, 0.0, 0.0]]).repeat(N, 1)
    )
    for step in range(150):  # noqa: B007 - read after the loop
        result = environment.step(zero_action(environment))
        if bool(result.terminated.any()):
            break
    assert result.terminated.tolist() == [True] + [False] * (N - 1)
    assert not result.truncated.any()
    assert 10 < step < 149
    assert environment.episode_steps[0] == 0 and environment.episode_steps[1] == step + 1
    # Before the reset it lies, after it stands.
    assert result.final_privileged[0, 9] < -0.1
    assert abs(float(result.privileged[0, 9])) < 0.02
    assert not torch.equal(result.final_observation[0], result.observation[0])
    torch.testing.assert_close(result.final_observation[1:], result.observation[1:])


def test_running_out_of_time_truncates_and_does_not_terminate(make):
    environment = make(quiet(episode_length=0.2), training=False)
    environment.reset()
    for _ in range(10):
        result = environment.step(zero_action(environment))
    assert result.truncated.all() and not result.terminated.any()
    assert (environment.episode_steps == 0).all()


def test_a_delayed_action_acts_late(make):
    task = quiet()
    late = dataclasses.replace(task, latency=LatencyConfig(action=Range(0.02, 0.02)))
    joints = {}
    for name, config in (("at once", task), ("late", late)):
        environment = make(config)
        environment.reset()
        action = zero_action(environment)
        elbow = environment.robot.joint_names.index("left_elbow_joint")
        action[:, elbow] = 2.0
        before = environment.simulator.state.joint_pos[0, elbow].clone()
        environment.step(action)
        joints[name] = float(environment.simulator.state.joint_pos[0, elbow] - before)
    assert joints["at once"] > 0.01
    assert abs(joints["late"]) < 0.2 * joints["at once"]


def test_late_sensors_show_the_step_before(make):
    task = dataclasses.replace(quiet(), latency=LatencyConfig(sensor_step_probability=1.0))
    environment, present = make(task), make(quiet())
    layout = {name: slice(start, stop) for name, start, stop, _ in environment.graph.observation_layout}
    environment.reset()
    present.reset()
    generator = torch.Generator().manual_seed(1)
    before = None
    for _ in range(5):
        action = torch.randn(N, environment.graph.action_size, generator=generator)
        delayed, now = environment.step(action).observation, present.step(action).observation
        if before is not None:
            torch.testing.assert_close(
                delayed[:, layout["joint_pos_rel"]], before[:, layout["joint_pos_rel"]]
            )
        torch.testing.assert_close(delayed[:, layout["last_action"]], now[:, layout["last_action"]])
        before = now


def test_noise_is_of_the_configured_size_and_only_in_training(make):
    base = quiet()
    terms = tuple(
        dataclasses.replace(term, noise=0.1 if term.name == "joint_pos_rel" else 0.0)
        for term in base.observation.terms
    )
    task = dataclasses.replace(base, observation=dataclasses.replace(base.observation, terms=terms))
    difference = {}
    for training in (True, False):
        environment = make(task, num_envs=64, training=training)
        observation, _ = environment.reset()
        layout = {name: rest for name, *rest in environment.graph.observation_layout}
        start, stop, scale = layout["joint_pos_rel"]
        true = environment.simulator.state.joint_pos - torch.as_tensor(
            environment.robot.default_position, dtype=torch.float32
        )
        difference[training] = (observation[:, start:stop] / scale - true).abs()
    assert difference[False].max() < 1e-6
    assert 0.095 < difference[True].max() <= 0.1 + 1e-6
    assert difference[True].mean() == pytest.approx(0.05, rel=0.05)


def test_pushes_come_at_the_configured_interval_and_speed(make):
    task = dataclasses.replace(quiet(), push=PushConfig(interval=Range(0.1, 0.1), speed=Range(0.5, 0.5)))
    environment = make(task)
    environment.reset()
    jumps = []
    for _ in range(10):
        before = environment.simulator.state.base_lin_vel[:, :2].clone()
        environment.step(zero_action(environment))
        jumps.append((environment.simulator.state.base_lin_vel[:, :2] - before).norm(dim=1))
    jump = torch.stack(jumps)
    # The base is pushed, the rest of the robot drags at it within the same control step.
    assert (jump[[4, 9]] > 0.15).all()
    assert (jump[[0, 1, 2, 3, 6, 7, 8]] < 0.15).all()


def test_commands_are_drawn_within_their_ranges_and_some_are_zero(make):
    task = load_task("walk")
    environment = make(task, num_envs=256)
    environment.reset()
    command = environment.view.command
    for axis, limits in enumerate((task.command.vx, task.command.vy, task.command.yaw_rate)):
        assert (command[:, axis] >= limits.lower).all() and (command[:, axis] <= limits.upper).all()
        assert command[:, axis].max() > 0.8 * limits.upper
    zero = (command == 0).all(1).float().mean()
    assert float(zero) == pytest.approx(task.command.standing_fraction, abs=0.07)


def test_reward_terms_are_weighted_and_scaled_by_the_period(make):
    environment = make(quiet(rewards={"alive": {"weight": 2.0}}), training=False)
    environment.reset()
    result = environment.step(zero_action(environment))
    torch.testing.assert_close(result.reward, torch.full((N,), 2.0 * 0.02))
    assert environment.pop_reward_terms() == {"alive": pytest.approx(2.0)}
    assert environment.pop_reward_terms() == {"alive": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewards": {"uprigth": {"weight": 1.0, "std": 1.0}}},
            "unknown reward 'uprigth', did you mean 'upright'",
        ),
        ({"rewards": {"upright": {"std": 1.0}}}, "reward 'upright' needs the parameter 'weight'"),
        ({"rewards": {"upright": {"weight": 1.0}}}, "reward 'upright' needs the parameter 'std'"),
        ({"rewards": {"upright": {"weight": 1.0, "sdt": 1.0}}}, "has no parameter 'sdt', did you mean 'std'"),
        ({"rewards": {"torch": {"weight": 1.0}}}, "unknown reward 'torch'"),
        ({"terminations": {"tiltd": {"limit": 1.0}}}, "unknown termination 'tiltd', did you mean 'tilted'"),
        ({"gains": "stif"}, "no gain set 'stif', did you mean 'stiff'"),
        ({"action_scale_factors": {"leg": 0.5}}, "unknown joint group 'leg', did you mean 'legs'"),
        ({"physics_timestep": 0.003}, "not a multiple"),
    ],
)
def test_a_task_that_cannot_be_is_refused_by_name(make, changes, message):
    with pytest.raises(UserError, match=message):
        make(quiet(**changes))


@pytest.mark.parametrize("rewards", [{"self_collision": {}}, {"legs_apart": {"term": "self_collision"}}])
def test_a_reward_for_touching_itself_is_refused_where_nothing_but_the_soles_collides(rewards):
    rewards = {name: {"weight": -1.0, **config} for name, config in rewards.items()}
    with pytest.raises(UserError, match=r"self_collision.* never .* collision: feet.*collision: self"):
        quiet(rewards=rewards, collision="feet")
    assert quiet(rewards=rewards, collision="self").collision == "self"


def test_an_unknown_task_or_key_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="unknown task 'stnad', did you mean 'stand'"):
        load_task("stnad")
    path = tmp_path / "odd.yaml"
    path.write_text((task_directory() / "stand.yaml").read_text() + "episode_lenght: 3\n")
    with pytest.raises(UserError, match=r"episode_lenght.*episode_length"):
        load_task(str(path))


@pytest.mark.parametrize("name", ["full_range_at", "initial_fraction"])
def test_a_command_curriculum_beyond_the_training_is_refused(name):
    with pytest.raises(UserError, match=f"command.{name} must be between 0 and 1, got 1.5"):
        dataclasses.replace(load_task("walk").command, **{name: 1.5})


def test_yaw_frame_velocity_is_the_base_velocity_without_tilt(make):
    environment = make(quiet(), training=False)
    environment.reset()
    state, view = environment.simulator.state, environment.view
    w, x, y, z = state.base_quat[0].tolist()
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    state.base_lin_vel[0] = torch.tensor([0.4 * math.cos(yaw), 0.4 * math.sin(yaw), 0.1])
    environment._update_frame()
    torch.testing.assert_close(view.base_lin_vel_yaw[0], torch.tensor([0.4, 0.0, 0.1]), atol=1e-6, rtol=0)


def test_pushes_grow_with_the_training(make):
    task = load_task("walk")
    push = dataclasses.replace(task.push, speed=Range(0.5, 0.5), full_strength_at=0.4)
    environment = make(dataclasses.replace(task, push=push))
    for progress, expected in ((0.0, 0.0), (0.2, 0.25), (0.4, 0.5), (1.0, 0.5)):
        environment.training_progress.fill_(progress)
        environment.reset()
        speed = environment._push_delta.norm(dim=1)
        torch.testing.assert_close(speed, torch.full_like(speed, expected))


def test_command_ranges_grow_with_the_training(make):
    task = load_task("walk")
    command = dataclasses.replace(task.command, standing_fraction=0.0, vy=Range(0.2, 0.6))
    growing = dataclasses.replace(command, full_range_at=0.4, initial_fraction=0.25)
    plain, environment = (
        make(dataclasses.replace(task, command=each), num_envs=64, seed=5) for each in (command, growing)
    )
    easiest = torch.tensor([0.0, 0.2, 0.0])  # nearest to zero
    for progress, share in ((0.0, 0.25), (0.2, 0.625), (0.4, 1.0), (1.0, 1.0)):
        environment.training_progress.fill_(progress)
        with NoHostSync():
            for each in (plain, environment):
                each._resample_command(torch.ones(64, dtype=torch.bool))
        expected = easiest + share * (plain.view.command - easiest)
        torch.testing.assert_close(environment.view.command, expected)
    assert float(environment.view.command[:, 1].min()) >= 0.2


def test_an_evaluation_commands_the_full_ranges(make):
    task = load_task("walk")
    growing = dataclasses.replace(task.command, full_range_at=0.5, initial_fraction=0.0)
    plain, environment = (
        make(dataclasses.replace(task, command=each), seed=5, training=False)
        for each in (task.command, growing)
    )
    for each in (plain, environment):
        each.reset()
    assert torch.equal(environment.view.command, plain.view.command)
    assert float(environment.view.command.abs().max()) > 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0e5])
def test_physics_that_breaks_ends_its_own_episode_and_is_counted(make, value):
    environment, healthy = make(load_task("walk"), seed=1), make(load_task("walk"), seed=1)
    for each in (environment, healthy):
        each.reset()
    refresh = environment.simulator.refresh

    def break_one() -> None:
        refresh()
        environment.simulator.state.joint_vel[1, 3] = value
        environment.simulator.state.imu_gyro[1] = value

    environment.simulator.refresh = break_one
    result, expected = (each.step(torch.zeros(N, 29)) for each in (environment, healthy))
    for field in dataclasses.fields(result):
        tensor = getattr(result, field.name)
        assert torch.isfinite(tensor.float()).all(), field.name
        others = torch.arange(N) != 1
        if field.name not in ("observation", "privileged"):  # noise and resets draw anew
            assert torch.equal(tensor[others], getattr(expected, field.name)[others]), field.name
    assert result.terminated.tolist() == [i == 1 for i in range(N)]
    assert result.reward[1] == 0.0 and environment.episode_steps[1] == 0
    assert int(environment.broken_episodes) == 1 and int(healthy.broken_episodes) == 0
