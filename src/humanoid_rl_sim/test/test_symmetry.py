"""The mirror image of what a policy sees is what it sees in the mirror image of the world."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel, load_robot
from humanoid_rl_sim.simulators.contract import InitialState
from humanoid_rl_sim.simulators.mujoco import MujocoSimulator
from humanoid_rl_sim.tasks.configuration import Range, TaskConfig, load_task
from humanoid_rl_sim.tasks.environment import Environment, make_policy_graph
from humanoid_rl_sim.tasks.symmetry import AXIAL, POLAR, joint_mirror, make_mirror

PAIRS, STEPS = 8, 10


def walk(history: int = 1) -> TaskConfig:
    task = load_task("walk")
    return dataclasses.replace(task, observation=dataclasses.replace(task.observation, history=history))


def even(robot: RobotModel) -> RobotModel:
    """The robot with the links in its middle balanced: the vendor's has its torso's mass 0.34 mm to the left."""
    root = ET.fromstring(robot.urdf)
    for link in root.findall("link"):
        inertial = link.find("inertial")
        if inertial is None or link.get("name", "").startswith(("left_", "right_")):
            continue
        origin, inertia = inertial.find("origin"), inertial.find("inertia")
        assert origin is not None and inertia is not None
        x, _, z = origin.get("xyz", "").split()
        origin.set("xyz", f"{x} 0 {z}")
        inertia.set("ixy", "0")
        inertia.set("iyz", "0")
    return dataclasses.replace(robot, urdf=ET.tostring(root, encoding="unicode"))


def test_joints_swap_sides_and_pitch_keeps_its_sign():
    robot = load_robot()
    index, sign = joint_mirror(robot)
    assert [robot.joint_names[i] for i in index] == [
        name.replace("left", "X").replace("right", "left").replace("X", "right") for name in robot.joint_names
    ]
    about_y = ("pitch", "knee", "elbow")
    assert sign.tolist() == [
        1.0 if any(word in name for word in about_y) else -1.0 for name in robot.joint_names
    ]


@pytest.mark.parametrize("variant", ["rev_1_0", "mode_11", "mode_13", "mode_15"])
def test_every_variant_is_its_own_mirror_image_and_twice_mirrored_is_as_before(variant):
    robot = load_robot("g1", variant)
    graph = make_policy_graph(walk(history=3), robot)
    mirror = make_mirror(robot, graph)
    for mirrored, size in ((mirror.action, 29), (mirror.observation, graph.observation_size)):
        values = torch.randn(4, size)
        assert not torch.equal(mirrored(values), values)
        assert torch.equal(mirrored(mirrored(values)), values)


@pytest.mark.parametrize(("balanced", "tolerance"), [(True, 2e-4), (False, 0.05)])
def test_physics_in_the_mirror_is_the_mirror_image_of_physics(balanced, tolerance):
    """0.2 s of random robots that tumble under random actions, and their twins; both touch the floor.

    Of a balanced robot the twins differ by rounding and what the solver leaves, 3e-5; of the vendor's by 0.02, a
    tenth of the sensors' noise, where a foot touches down a step earlier.
    """
    robot = even(load_robot()) if balanced else load_robot()
    task = walk(history=3)
    environment = Environment(
        task, MujocoSimulator(robot, 2 * PAIRS, timestep=task.physics_timestep), training=False
    )
    mirror = make_mirror(robot, environment.graph)
    generator = torch.Generator().manual_seed(2)

    def normal(scale: float, *shape: int) -> torch.Tensor:
        return scale * torch.randn(PAIRS, *shape, generator=generator)

    def both(values: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        return torch.cat((values, mirrored))

    polar, axial = (torch.tensor(signs, dtype=torch.float32) for signs in (POLAR, AXIAL))
    default = torch.as_tensor(robot.default_position.copy(), dtype=torch.float32)
    angle, speed = normal(0.2, 29), normal(1.0, 29)
    vector = normal(0.15, 3)
    linear, angular, command = normal(0.4, 3), normal(0.8, 3), normal(0.2, 3)
    height = torch.tensor([0.0, 0.0, robot.default_base_height - 0.01]).repeat(2 * PAIRS, 1)
    environment.set_command(both(command, command * torch.tensor([1.0, -1.0, -1.0])))
    environment.reset()
    environment.simulator.reset(
        torch.ones(2 * PAIRS, dtype=torch.bool),
        InitialState(
            joint_pos=both(default + angle, default + mirror.action(angle)),
            joint_vel=both(speed, mirror.action(speed)),
            base_pos=height,
            base_quat=torch.nn.functional.normalize(
                torch.cat((torch.ones(2 * PAIRS, 1), both(vector, vector * axial)), 1)
            ),
            base_lin_vel=both(linear, linear * polar),
            base_ang_vel=both(angular, angular * axial),
        ),
    )
    environment._frames.zero_()  # as if nothing had been seen before
    environment._recurrent.zero_()
    largest, touched = 0.0, 0
    for _ in range(STEPS):
        action = normal(1.0, 29)
        result = environment.step(both(action, mirror.action(action)))
        observation, twin = result.final_observation.split(PAIRS)
        difference = (mirror.observation(observation) - twin).abs().max()
        largest = max(largest, float(difference))
        touched += int(environment.simulator.state.foot_contact.sum())
        assert float((observation - twin).abs().max()) > 0.5
        assert not result.terminated.any()
    assert touched > PAIRS
    assert largest < tolerance
    environment.close()


def replaced(robot: RobotModel, joint: str, **values: float) -> RobotModel:
    """The robot with other numbers for one joint."""
    arrays = {}
    for name, value in values.items():
        array = getattr(robot, name).copy()
        array[robot.joint_names.index(joint)] = value
        arrays[name] = array
    return dataclasses.replace(robot, **arrays)


@pytest.mark.parametrize(
    ("joint", "values", "message"),
    [
        (
            "left_knee_joint",
            {"position_upper": 2.0},
            "upper position limits .*left_knee_joint and right_knee",
        ),
        ("right_hip_roll_joint", {"position_lower": -1.0}, "lower position limits .*hip_roll"),
        (
            "waist_yaw_joint",
            {"default_position": 0.1},
            "default positions .*waist_yaw_joint and waist_yaw_joint",
        ),
        ("left_elbow_joint", {"effort_limit": 1.0}, "effort limits .*left_elbow"),
    ],
)
def test_a_joint_that_is_not_like_its_partner_is_named(joint, values, message):
    with pytest.raises(UserError, match=message):
        joint_mirror(replaced(load_robot(), joint, **values))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name="left_knee_joint"', 'name="odd_knee_joint"', "'right_knee_joint' has no mirror image 'left_knee_joint'"),
        ('xyz="0 0.064452 -0.1027"', 'xyz="0 0.08 -0.1027"', "places of the joints .*left_"),
    ],
)  # fmt: skip
def test_a_description_that_is_no_mirror_image_is_refused(old, new, message):
    robot = load_robot()
    assert old in robot.urdf
    names = tuple(old_name.replace("left_knee", "odd_knee") for old_name in robot.joint_names)
    changed = dataclasses.replace(
        robot, urdf=robot.urdf.replace(old, new), joint_names=names if "knee" in old else robot.joint_names
    )
    with pytest.raises(UserError, match=message):
        joint_mirror(changed)


def test_a_command_range_that_prefers_a_side_is_refused():
    task = walk()
    robot = load_robot()
    one_sided = dataclasses.replace(task.command, vy=Range(-0.1, 0.3))
    with pytest.raises(UserError, match=r"range of command vy, -0.1 to 0.3, is not symmetric"):
        make_mirror(robot, make_policy_graph(dataclasses.replace(task, command=one_sided), robot))
