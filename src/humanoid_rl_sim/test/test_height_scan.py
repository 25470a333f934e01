"""The actor sees the ground: what the critic gets, with noise and latency, mirrored, trained, exported, evaluated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from humanoid_rl_core.contract import check_sensors
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_core.typed_yaml import load_dataclass, load_yaml, parse_yaml
from humanoid_rl_sim.learning import evaluation, velocity_suite
from humanoid_rl_sim.learning.actor import GraphActor, OnnxActor, actor_graph, baseline_graph
from humanoid_rl_sim.learning.configuration import PpoConfig, SacConfig, TrainingConfig, from_yaml
from humanoid_rl_sim.learning.learners import learner_for
from humanoid_rl_sim.learning.policy_export import export_run
from humanoid_rl_sim.learning.run_files import latest_checkpoint
from humanoid_rl_sim.learning.training import train
from humanoid_rl_sim.tasks.configuration import LatencyConfig, ObservationTermConfig, TaskConfig, load_task
from humanoid_rl_sim.tasks.environment import START_LIFT, Environment, make_policy_graph
from humanoid_rl_sim.tasks.graphed import NoHostSync, StaticStep
from humanoid_rl_sim.tasks.making import make_environment
from humanoid_rl_sim.tasks.symmetry import make_mirror
from humanoid_rl_sim.tasks.terrain import HeightScanConfig, Severity

ROUGH = load_task("rough")
SCAN = HeightScanConfig(1.2, 0.6, 0.3)


def seeing(*, noise: float = 0.0, history: int = 2, **changes) -> TaskConfig:
    """The rough task on small, high steps, with the scan as the actor's last term, and no latency."""
    assert ROUGH.terrain is not None
    terrain = dataclasses.replace(
        ROUGH.terrain,
        kinds={"steps_down": Severity(0.1, 0.3), "steps_up": Severity(0.1, 0.3)},
        levels=2, cell=4.0, spacing=0.1, height_scan=SCAN,
    )  # fmt: skip
    terms = (*ROUGH.observation.terms, ObservationTermConfig("height_scan", scale=2.0, noise=noise))
    observation = dataclasses.replace(ROUGH.observation, terms=terms, history=history)
    basis = {"terrain": terrain, "observation": observation, "latency": LatencyConfig(), "push": None}
    return dataclasses.replace(ROUGH, **(basis | changes))


@pytest.fixture
def make():
    made: list[Environment] = []

    def factory(task: TaskConfig, num_envs: int = 6, **options) -> Environment:
        made.append(make_environment(task, "mujoco", num_envs, seed=5, **options))
        return made[-1]

    yield factory
    for environment in made:
        environment.close()


def seen(environment: Environment, observation: torch.Tensor) -> torch.Tensor:
    """[N, P] the scan in the newest frame, in m."""
    name, start, stop, scale = environment.graph.observation_layout[-1]
    assert name == "height_scan"
    return observation[:, -environment.graph.frame_size :][:, start:stop] / scale


def test_the_actor_sees_what_the_critic_gets(make):
    environment = make(seeing(), training=False)
    observation, privileged = environment.reset()
    for _ in range(12):
        scan = privileged[:, -len(SCAN.points) :]
        torch.testing.assert_close(seen(environment, observation), scan)
        assert scan.amax() - scan.amin() > 0.08
        result = environment.step(torch.randn(6, 29))
        observation, privileged = result.observation, result.privileged
    environment.simulator.state.base_pos[:, 2] += 1.5  # beyond the clip
    scan = environment._privileged()[:, -len(SCAN.points) :]
    torch.testing.assert_close(seen(environment, environment._observe()[0]), scan)
    assert scan.max() == 1.0


def test_noise_in_training_is_uniform_of_the_terms_half_width(make):
    environment = make(seeing(noise=0.05), 64)
    for _ in range(3):
        observation, privileged = environment.reset()
        error = seen(environment, observation) - privileged[:, -len(SCAN.points) :]
        assert 0.048 < error.abs().max() <= 0.05 + 1e-6
        assert error.mean().abs() < 3e-3 and abs(error.std() - 0.05 / 3**0.5) < 2e-3
    quiet = make(seeing(noise=0.05), training=False)
    observation, privileged = quiet.reset()
    torch.testing.assert_close(seen(quiet, observation), privileged[:, -len(SCAN.points) :])


def test_the_scan_is_as_late_as_the_other_sensors(make):
    environment = make(seeing(latency=LatencyConfig(sensor_step_probability=1.0)))
    environment.reset()
    before = None
    for _ in range(5):
        result = environment.step(torch.zeros(6, 29))
        if before is not None:
            torch.testing.assert_close(seen(environment, result.observation), before)
        before = result.privileged[:, -len(SCAN.points) :]
    assert not (result.terminated | result.truncated).any()


@pytest.mark.parametrize(
    "terrain", [None, dataclasses.replace(seeing().terrain, height_scan=None)], ids=["level", "no scan"]
)
def test_the_term_without_a_scan_is_one_line(terrain):
    with pytest.raises(
        UserError, match="task rough: observation term 'height_scan' needs a terrain"
    ) as refused:
        make_policy_graph(seeing(terrain=terrain), load_robot())
    assert "\n" not in str(refused.value)


def test_a_scan_whose_points_do_not_fit_is_refused_with_the_files_name():
    task = load_yaml(share_dir() / "config" / "task" / "rough.yaml")
    task["terrain"]["height_scan"] = {"length": 1.0, "spacing": 0.3}
    with pytest.raises(UserError, match=r"mine\.yaml: terrain\.height_scan: length 1\.0 m is not a multiple"):
        load_dataclass(TaskConfig, task, "mine.yaml")


def test_level_ground_is_seen_as_how_much_higher_than_standing_the_base_is(make):
    environment = make(seeing(), training=False, level=True)
    assert environment.cells is None
    observation, _ = environment.reset()
    torch.testing.assert_close(seen(environment, observation), torch.zeros(6, len(SCAN.points)))
    observation = environment.step(torch.zeros(6, 29)).observation
    height = environment.simulator.state.base_pos[:, 2:3] - environment.robot.default_base_height
    assert height.abs().max() > 1e-4
    torch.testing.assert_close(seen(environment, observation), height.expand(-1, len(SCAN.points)))


def test_pushes_are_judged_on_level_ground_that_the_actor_sees(monkeypatch):
    monkeypatch.setattr(velocity_suite, "PUSH_SWEEP", (0.25,))
    made = []

    def make_actor(environment: Environment) -> GraphActor:
        made.append(environment)
        return GraphActor(baseline_graph(environment.graph))

    velocity_suite.largest_push(seeing(), make_actor, (0.0, 0.0, 0.0), seed=0, episodes=2)
    (environment,) = made
    assert environment.cells is None and environment.sensors.height_scan.shape == (2, len(SCAN.points))
    assert float(environment.sensors.height_scan.std(1).max()) == 0.0


def test_robots_that_are_mirror_images_see_mirror_images(make):
    """On ground that is its own mirror image: a square staircase, seen facing its side."""
    environment = make(seeing(history=3), 2, training=False)
    cells = environment.cells
    offset = torch.tensor([[0.9, 0.35, 0.8], [0.9, -0.35, 0.8]])
    cells.kind[:], cells.level[:] = 0, 1
    environment.reset()
    environment.simulator.state.base_pos[:] = cells.origin() + offset
    angle = torch.tensor([0.3, -0.3])
    environment._yaw = torch.cos(angle), torch.sin(angle)
    scan = environment.depth(torch.as_tensor(SCAN.points, dtype=torch.float32))
    assert (scan[0] - scan[1]).abs().max() > 0.1
    mirror = make_mirror(environment.robot, environment.graph)
    graph = environment.graph
    observation = torch.zeros(2, graph.observation_size)
    _, start, stop, _ = graph.observation_layout[-1]
    for frame in range(3):
        observation[:, frame * graph.frame_size + start : frame * graph.frame_size + stop] = scan
    torch.testing.assert_close(mirror.observation(observation)[0], observation[1], atol=1e-4, rtol=0)
    assert torch.equal(mirror.observation(mirror.observation(observation)), observation)


def test_a_step_at_fixed_addresses_equals_the_plain_step(make):
    task = seeing(noise=0.05, latency=LatencyConfig(sensor_step_probability=0.5))
    plain, static = make(task), make(task)
    step = StaticStep(static)
    plain.reset()
    plain.step(torch.zeros(6, 29))
    for _ in range(40):
        action = 2.0 * torch.randn(6, 29)
        expected = plain.step(action)
        assert torch.equal(expected.observation, step(action).observation)
    with NoHostSync():
        static._observe()


LEARNERS = {
    "ppo sb3": {"learner": "sb3"},
    "ppo device": {"learner": "device", "symmetry": 0.5},
    "sac": {"learner": "device", "algorithm": "sac"},
}


@pytest.fixture(scope="module", params=LEARNERS, ids=LEARNERS)
def run(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of a task whose actor sees the ground, through the training's own files."""
    folder = tmp_path_factory.mktemp("scan")
    task = folder / "seeing.yaml"
    latency = LatencyConfig(sensor_step_probability=0.5)
    task.write_text(json.dumps(dataclasses.asdict(seeing(noise=0.02, latency=latency))))  # which is YAML too
    choice = dict(LEARNERS[request.param])
    config = TrainingConfig(
        task=str(task), num_envs=8, steps=128, seed=1, evaluation_episodes=2, evaluation_interval=128,
        ppo=PpoConfig(
            rollout_steps=8, minibatches=2, hidden_sizes=(16,), critic_hidden_sizes=(16,),
            learning_rate=5e-3, maximum_learning_rate=5e-3, symmetry_coefficient=choice.pop("symmetry", 0.0),
        ),
        sac=SacConfig(
            batch_size=32, replay_capacity=400, gradient_steps=2, warm_up_steps=5, log_steps=8,
            hidden_sizes=(16,), critic_hidden_sizes=(16,), learning_rate=5e-3,
        ),
        **choice,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate_velocity", lambda *args, **kwargs: {"success": 0.5})
        train(config, folder / "run")
    return folder / "run"


def test_trained_exported_and_torch_act_the_same_on_the_terrain(run, make):
    policy = OnnxPolicy(export_run(run), load_robot())
    task = load_task(policy.contract.training.task)
    assert policy.contract.height_scan is not None
    assert policy.contract.height_scan.size == len(SCAN.points) == 15
    model = learner_for(from_yaml(run / "config.yaml")).load(latest_checkpoint(run), None, "cpu")
    environment = make(dataclasses.replace(task, latency=LatencyConfig()), 4)  # the noise stays
    trained, exported = GraphActor(actor_graph(model.policy)), OnnxActor(policy, 4)
    blind = OnnxActor(policy, 4)
    largest = difference = 0.0
    with torch.no_grad():
        observation, _ = environment.reset()
        started = torch.ones(4, dtype=torch.bool)
        for _ in range(30):
            expected = environment.graph.clip_action(trained.act(environment, observation, started).action)
            action = exported.act(environment, observation, started).action
            largest = max(largest, float((action - expected).abs().max()))
            sensors = environment.sensors
            environment._last_sensors = sensors._replace(height_scan=0.0 * sensors.height_scan)
            other = blind.act(environment, observation, started).action
            environment._last_sensors = sensors
            difference = max(difference, float((other - action).abs().max()))
            result = environment.step(expected)
            observation, started = result.observation, result.terminated | result.truncated
    assert largest <= 1e-5
    assert difference > 1e-4, "what it sees must matter here"


def test_the_exported_file_is_evaluated_on_the_terrain_and_pushed_on_level_ground(run, monkeypatch):
    monkeypatch.setattr(velocity_suite, "EPISODE", 1.2)
    monkeypatch.setattr(velocity_suite, "COMMANDS", ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0)))
    monkeypatch.setattr(velocity_suite, "PUSH_SWEEP", (0.25,))
    monkeypatch.setattr(velocity_suite, "SWEEP_EPISODES", 2)
    path = export_run(run)
    result = evaluation.evaluate_policy(path, episodes=4)
    assert result["suite"] == "rough-v1" and result["episodes"] == 4
    assert {row["kind"] for row in result["terrain"]} == {"steps_down", "steps_up"}
    assert set(result["largest_push_survived_mps"]) == {"standing", "walking"}


def test_on_a_task_that_does_not_see_it_the_policy_sees_the_ground_all_the_same(run, make):
    policy = OnnxPolicy(export_run(run), load_robot())
    given: list[torch.Tensor] = []
    step = policy.step
    policy.step = lambda **sensors: (given.append(torch.as_tensor(sensors["height_scan"])), step(**sensors))[
        1
    ]
    for task in (load_task("walk"), seeing(observation=ROUGH.observation)):
        environment = make(task, 2, training=False)
        observation, _ = environment.reset()
        OnnxActor(policy, 2).act(environment, observation, torch.ones(2, dtype=torch.bool))
    level, rough = torch.stack(given[:2]), torch.stack(given[2:])
    torch.testing.assert_close(level, torch.zeros(2, 15))
    assert rough.max() > START_LIFT + 0.05


def test_no_robot_may_be_driven_by_it(run):
    with pytest.raises(
        UserError, match=r"asks for the ground at 15 points, but .* has no sensor that gives it"
    ):
        check_sensors(OnnxPolicy(export_run(run), load_robot()).contract, load_robot())


def test_the_snippet_of_the_docs_is_a_task_whose_actor_sees_the_ground():
    page = (Path(__file__).parents[3] / "docs" / "add_a_task.md").read_text()
    section = page.split("### See the ground\n")[1].split("\n## ")[0]
    snippet = parse_yaml(section.split("```yaml\n")[1].split("```")[0], "docs")
    task = load_yaml(share_dir() / "config" / "task" / "rough.yaml")
    task["terrain"] |= snippet["terrain"]
    task["observation"] = snippet["observation"]
    graph = make_policy_graph(load_dataclass(TaskConfig, task, "docs"), load_robot())
    assert graph.height_scan is not None and graph.height_scan.size == 11 * 7
    assert graph.observation_layout[-1][0] == "height_scan"
