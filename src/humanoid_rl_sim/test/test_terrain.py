"""Terrain: tasks look up the ground that physics collides with, and who walks well gets harder ground."""

from __future__ import annotations

import dataclasses
import itertools
import math

import mujoco
import numpy as np
import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.actor import OnnxActor
from humanoid_rl_sim.learning.evaluation import evaluate_velocity
from humanoid_rl_sim.simulators.height_field import Ground
from humanoid_rl_sim.simulators.mujoco_model import FLOOR, build_mujoco_spec
from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
from humanoid_rl_sim.tasks.cells import Cells
from humanoid_rl_sim.tasks.configuration import TaskConfig, load_task
from humanoid_rl_sim.tasks.environment import START_LIFT, Environment
from humanoid_rl_sim.tasks.making import make_environment
from humanoid_rl_sim.tasks.terrain import (
    KINDS,
    MIDDLE,
    RIM,
    HeightScanConfig,
    Severity,
    TerrainConfig,
    make_terrain,
)

CPU = torch.device("cpu")
SIMULATORS = ("mujoco", "mujoco_warp")
"""Those of this environment; what the robots of Isaac Lab stand on is in the conformance suite."""
EVERY_KIND = TerrainConfig(kinds={kind: Severity(0.02, 0.1) for kind in KINDS}, levels=3, cell=6.0)
ROUGH = load_task("rough")


def rough(**terrain) -> TaskConfig:
    """The task on a small terrain."""
    assert ROUGH.terrain is not None
    small = {"levels": 3, "cell": 4.0, "spacing": 0.1, **terrain}
    return dataclasses.replace(ROUGH, terrain=dataclasses.replace(ROUGH.terrain, **small))


@pytest.fixture
def make():
    made: list[Environment] = []

    def factory(task: TaskConfig, num_envs: int, sim: str = "mujoco", **options) -> Environment:
        made.append(make_environment(task, sim, num_envs, seed=5, **options))
        return made[-1]

    yield factory
    for environment in made:
        environment.close()


def test_heights_are_those_that_a_ray_meets_in_mujoco():
    terrain = make_terrain(EVERY_KIND)
    model = build_mujoco_spec(load_robot(), height_field=terrain.field).compile()
    data = mujoco.MjData(model)
    data.qpos[2] = 50.0  # out of the way
    mujoco.mj_forward(model, data)
    half_x, half_y = terrain.field.half_size
    points = np.random.default_rng(0).uniform((-half_x, -half_y), (half_x, half_y), (500, 2))
    heights = Ground(terrain.field, CPU).height(torch.as_tensor(points, dtype=torch.float32)).numpy()
    hit = np.zeros(1, np.int32)
    for (x, y), height in zip(points, heights, strict=True):
        distance = mujoco.mj_ray(
            model, data, np.array([x, y, 20.0]), np.array([0.0, 0.0, -1.0]), None, 1, -1, hit
        )
        assert model.geom(int(hit[0])).name == FLOOR
        assert 20.0 - distance == pytest.approx(height, abs=1e-4)
    assert np.ptp(heights) > 0.2


def test_beyond_the_edge_the_ground_goes_on_and_no_number_is_no_crash():
    ground = Ground(make_terrain(EVERY_KIND).field, CPU)
    points = torch.tensor([[1e6, 0.0], [0.0, -1e6], [torch.nan, 0.0], [torch.inf, -torch.inf]])
    assert torch.isfinite(ground.height(points)).all()


def test_cells_meet_at_height_zero_and_robots_start_on_level_ground():
    terrain = make_terrain(EVERY_KIND)
    ground = Ground(terrain.field, CPU)
    around = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=2)))
    for origin in torch.as_tensor(terrain.origins).reshape(-1, 3):
        rim = ground.height(origin[:2] + around[around.abs().amax(1) == 1.0] * (3.0 - 0.5 * RIM))
        assert rim.abs().max() < 1e-6
        middle = ground.height(origin[:2] + around * (MIDDLE - 0.1))
        assert (middle - origin[2]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"flat"}))
def test_levels_get_harder(kind):
    config = dataclasses.replace(EVERY_KIND, kinds={kind: Severity(0.02, 0.1)})
    per_cell = round(config.cell / config.spacing)
    margin = round(2.0 / config.spacing)
    heights = make_terrain(config).field.heights[margin:-margin, margin:-margin]
    relief = [np.ptp(heights[level * per_cell : (level + 1) * per_cell]) for level in range(3)]
    assert relief[0] * 2.0 < relief[1] < relief[2]


def test_steps_are_as_high_as_the_task_says():
    config = dataclasses.replace(EVERY_KIND, kinds={"steps_up": Severity(0.08, 0.08)})
    heights = np.unique(make_terrain(config).field.heights.round(4))
    np.testing.assert_allclose(np.diff(heights), 0.08, atol=1e-4)
    assert heights.max() == 0.0 and len(heights) > 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": {"stepps_up": Severity(0, 1)}}, "unknown kind 'stepps_up'.*steps_up"),
        ({"kinds": {}}, "at least one kind"),
        ({"levels": 0}, "levels must be at least 1"),
        ({"cell": 1.0}, "cell must be at least"),
        ({"spacing": 0.0}, "spacing must be above 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"cell": math.inf}, "cell must be at least .* and finite, got inf"),
        (
            {"kinds": {"rubble": Severity(-0.1, 1)}},
            r"kinds\.rubble\.first must be finite and at least 0, got -0.1",
        ),
        ({"kinds": {"waves": Severity(0, math.inf)}}, r"kinds\.waves\.last must be finite .*, got inf"),
    ],
)
def test_a_terrain_that_cannot_be_is_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(EVERY_KIND, **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("spacing", 0.0), ("spacing", -0.1), ("length", -0.1), ("width", math.inf), ("length", 1.0)],
)
def test_a_height_scan_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} .*{value}"):  # the loader of the YAML names file and key
        HeightScanConfig(**{name: value})


@pytest.mark.parametrize("sim", SIMULATORS)
def test_robots_stand_on_their_ground(make, sim):
    """Soles on the ground after 0.5 s wherever the cell is, and the view's heights say so."""
    task = dataclasses.replace(rough(curriculum=False), gains="stiff")
    environment = make(task, 21, sim, training=False)
    environment.reset()
    heights = {float(z) for z in environment.cells.origin()[:, 2]}
    assert len(heights) > 5
    for _ in range(25):
        environment.step(torch.zeros(21, 29))
    view = environment.view
    assert view.foot_height.abs().max() < 0.01
    assert (view.base_height - environment.robot.default_base_height).abs().max() < 0.05
    assert view.state.foot_contact.any(1).all()
    assert int(environment.broken_episodes) == int(environment.simulator.overflows) == 0


def test_who_walks_on_a_plane_walks_on_a_level_field():
    """The edges between a field's prisms must not trip anybody: with balls for soles one in ten fell."""
    task = load_task("walk")
    level = TerrainConfig(kinds={"flat": Severity(0.0, 0.0)}, levels=1, cell=30.0, height_scan=None)
    policy = OnnxPolicy(share_dir() / "policies" / "g1_walk.onnx", load_robot())
    for terrain in (None, level):
        result = evaluate_velocity(
            dataclasses.replace(task, terrain=terrain, collision="self"),
            lambda environment: OnnxActor(policy, environment.num_envs),
            episodes=48,
            seed=1,
        )
        assert result["survival"] == 1.0
        assert result["velocity_error_mps"] < 0.08


def test_both_simulators_agree_on_rough_ground(make):
    """Robots dropped anywhere on all kinds of ground, feet on edges and slopes, for 0.3 s."""
    environments = [make(rough(curriculum=False), 14, sim, training=False) for sim in SIMULATORS]
    for environment in environments:
        environment.cells.origin = lambda cells=environment.cells: _anywhere(cells)
        environment.reset()
    for step in range(15):
        results = [environment.step(torch.zeros(14, 29)) for environment in environments]
        alike = (results[0].observation - results[1].observation).abs().amax(1) < 0.15
        assert alike.float().mean() > 0.85, step
    bases = [environment.simulator.state.base_pos for environment in environments]
    assert (bases[0] - bases[1]).abs().amax(1).median() < 5e-3


def _anywhere(cells: Cells) -> torch.Tensor:
    """Places on the slopes and stones of every cell, instead of its middle."""
    middle = cells._origins.index_select(0, cells.level * len(cells.kinds) + cells.kind)
    place = middle.clone()
    place[:, 0] += 1.2
    place[:, 2] = cells.ground.height(place[:, :2])
    return place


def test_who_crosses_goes_up_and_who_falls_goes_down(make):
    environment = make(rough(), 4 * 7)
    cells = environment.cells
    cells.level[:] = 1
    environment.reset()
    # The simulator's own state decides: three robots are put over the edge, three on their backs.
    state, simulator = environment.simulator.state, environment.simulator
    simulator._qpos[:3, 0] += 2.2
    simulator._qpos[3:6, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    result = environment.step(torch.zeros(28, 29))
    assert result.truncated[:3].all() and not result.terminated[:3].any()
    assert result.terminated[3:6].all()
    assert cells.level[:6].tolist() == [2, 2, 2, 0, 0, 0]
    assert (cells.level[6:] == 1).all()
    # They start again in the middle of their new cell.
    offset = state.base_pos - cells.origin()
    assert offset[:, :2].abs().max() < 0.5
    assert (offset[:6, 2] - environment.robot.default_base_height - START_LIFT).abs().max() < 1e-4


def test_grades_stay_within_the_levels_and_the_best_go_on_anywhere():
    config = dataclasses.replace(EVERY_KIND, kinds={"flat": Severity(0, 0)}, levels=4)
    cells = Cells(config, make_terrain(config), 6, CPU, curriculum=True)
    cells.level[:] = torch.tensor([0, 3, 3, 3, 2, 1])
    yes = torch.tensor([False, True, True, True, False, False])
    no = torch.tensor([True, False, False, False, True, False])
    cells.regrade(yes, no, torch.tensor([0.9, 0.0, 0.3, 0.99, 0.9, 0.9]))
    assert cells.level.tolist() == [0, 0, 1, 3, 1, 1]


def test_without_training_robots_stay_where_they_are(make):
    environment = make(rough(), 42, training=False)
    assert set(environment.cells.level.tolist()) == {0, 1, 2}
    level = environment.cells.level.clone()
    environment.reset()
    for _ in range(60):
        environment.step(2.0 * torch.randn(42, 29))
    assert torch.equal(environment.cells.level, level)


def test_the_critic_sees_the_ground_ahead(make):
    """On a staircase that goes down from the middle, the points beyond it are lower by whole steps."""
    severity = {"steps_down": Severity(0.1, 0.1)}
    task = dataclasses.replace(
        rough(kinds=severity, levels=1, spacing=0.05),
        reset=dataclasses.replace(ROUGH.reset, joint_noise=0.0, tilt_noise=0.0),
    )
    environment = make(task, 8, training=False)
    _, privileged = environment.reset()
    scan = privileged[:, -environment.cells.scan_size :]
    points = environment.cells.scan_points
    near = points.norm(dim=1) < 0.3
    assert (scan[:, near].abs() < START_LIFT + 0.01).all()
    assert scan.max() > 0.05  # somebody's scan reaches over the first step
    steps = (scan - scan[:, near].mean(1, keepdim=True)) / 0.1
    assert ((steps - steps.round()).abs() < 0.15).float().mean() > 0.9


def test_scan_turns_with_the_robot(make):
    environment = make(rough(kinds={"slope_down": Severity(0.3, 0.3)}, levels=1), 2, training=False)
    cells = environment.cells
    base = cells.origin() + torch.tensor([1.5, 0.0, 0.8])
    ahead = torch.tensor([1.0, -1.0]), torch.zeros(2)  # the first looks downhill, the second back up
    scan = cells.scan(base, *ahead, cells.scan_points)
    x = cells.scan_points[:, 0]
    assert scan[0, x > 0.3].mean() > scan[0, x < -0.3].mean() + 0.1
    assert scan[1, x > 0.3].mean() < scan[1, x < -0.3].mean() - 0.1


def test_contacts_that_find_no_room_are_counted(monkeypatch):
    from humanoid_rl_sim.simulators import mujoco_warp

    robot = load_robot()
    simulator = MujocoWarpSimulator(robot, 2, device="cpu")
    simulator.advance(20)
    simulator.refresh()
    assert int(simulator.overflows) == 0
    monkeypatch.setattr(mujoco_warp, "MORE_CONSTRAINTS", -3 * 8 - 20)
    simulator = MujocoWarpSimulator(robot, 2, device="cpu", collision="full")
    for count in (1, 2):
        simulator.advance(20)
        simulator.refresh()
        assert int(simulator.overflows) == 2 * count


@pytest.mark.parametrize("sim", SIMULATORS)
@pytest.mark.parametrize("collision", ["feet", "self", "full"])
def test_a_robot_that_folds_its_arms_touches_itself(make, sim, collision):
    stiff = dataclasses.replace(load_task("walk"), gains="stiff")
    environment = make(stiff, 2, sim, collision=collision, training=False)
    environment.reset()
    robot, simulator = environment.robot, environment.simulator
    target = torch.as_tensor(robot.default_position.copy(), dtype=torch.float32).repeat(2, 1)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        target[1, robot.joint_names.index(f"{side}_shoulder_roll_joint")] = sign * 1.2
    touched = torch.zeros(2, dtype=torch.bool)
    for _ in range(20):
        simulator.set_joint_target(target)
        simulator.advance(4)
        simulator.refresh()
        touched |= simulator.state.self_contact
    assert touched.tolist() == [False, collision != "feet"]
