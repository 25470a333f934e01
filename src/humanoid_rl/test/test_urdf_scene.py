"""Visual shapes and forward kinematics read from a URDF."""

import mujoco
import numpy as np
import pytest
from humanoid_rl.views.urdf_scene import read_scene
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot

from humanoid_rl_core import rotation

ARM = """
<robot name="arm">
  <material name="steel"><color rgba="0.1 0.2 0.3 1"/></material>
  <link name="base">
    <visual><geometry><box size="0.4 0.2 0.1"/></geometry><material name="steel"/></visual>
  </link>
  <joint name="lift" type="prismatic">
    <parent link="base"/><child link="carriage"/><origin xyz="0 0 1"/><axis xyz="0 0 2"/>
    <limit lower="0" upper="1" effort="1" velocity="1"/>
  </joint>
  <link name="carriage"/>
  <joint name="elbow" type="revolute">
    <parent link="carriage"/><child link="hand"/><origin xyz="0.5 0 0" rpy="0 0 1.5707963267948966"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="1" velocity="1"/>
  </joint>
  <link name="hand">
    <visual>
      <origin xyz="0 0 -0.3"/><geometry><capsule radius="0.05" length="0.2"/></geometry>
      <material name="own"><color rgba="1 0 0 0.5"/></material>
    </visual>
  </link>
  <joint name="finger" type="continuous">
    <parent link="hand"/><child link="tip"/><origin xyz="0 0 -0.4"/><axis xyz="0 1 0"/>
    <mimic joint="elbow" multiplier="-2" offset="0.1"/>
  </joint>
  <link name="tip"><visual><geometry><sphere radius="0.02"/></geometry></visual></link>
</robot>
"""


def test_shapes_carry_size_place_and_colour() -> None:
    box, capsule, sphere = read_scene(ARM).visuals
    assert (box.link, box.kind, box.size, box.colour) == (
        "base",
        "box",
        (0.4, 0.2, 0.1),
        (0.1, 0.2, 0.3, 1.0),
    )
    assert (capsule.kind, capsule.size, capsule.colour) == ("capsule", (0.05, 0.2), (1.0, 0.0, 0.0, 0.5))
    assert capsule.position.tolist() == [0.0, 0.0, -0.3]
    assert (sphere.kind, sphere.size) == ("sphere", (0.02,))


def test_joints_turn_slide_and_mimic() -> None:
    scene = read_scene(ARM)
    assert scene.moving_joints == ("lift", "elbow", "finger")
    assert scene.path("tip") == "base/carriage/hand/tip"
    transforms = dict(
        zip(scene.links, scene.link_transforms({"lift": 0.25, "elbow": np.pi / 2}), strict=True)
    )
    # The axis has length 2 in the file and is a direction only.
    assert transforms["carriage"][:3, 3] == pytest.approx([0.0, 0.0, 1.25])
    # Turned by 90 degrees about z, then about the new y: the hand's -z points along the base's -y.
    assert transforms["hand"][:3, 3] == pytest.approx([0.5, 0.0, 1.25])
    assert transforms["tip"][:3, 3] == pytest.approx([0.5, -0.4, 1.25])
    finger = 0.1 - 2 * np.pi / 2
    expected = rotation.to_matrix(rotation.from_rpy(0, 0, np.pi / 2)) @ rotation.to_matrix(
        rotation.from_rpy(0, np.pi / 2 + finger, 0)
    )
    assert transforms["tip"][:3, :3] == pytest.approx(expected)


def test_the_lowest_point_counts_shape_and_tilt() -> None:
    scene = read_scene(ARM)
    level = rotation.IDENTITY
    # The box below the base: 0.05. Lowered to -1 the hand hangs to -0.3 - 0.1 - 0.05, the tip to -0.4 - 0.02.
    assert scene.lowest_point({}, level) == pytest.approx(-0.05)
    assert scene.lowest_point({"lift": -1.0}, level) == pytest.approx(-0.45)
    assert scene.lowest_point({}, rotation.from_rpy(0, np.pi / 2, 0)) == pytest.approx(-0.5 - 0.05)


@pytest.mark.parametrize("seed", range(3))
def test_the_g1s_kinematics_are_those_of_mujoco(seed: int) -> None:
    robot = load_robot()
    scene = read_scene(robot.urdf)
    model = mujoco.MjModel.from_xml_string(robot.urdf)
    data = mujoco.MjData(model)
    generator = np.random.default_rng(seed)
    positions = generator.uniform(robot.position_lower, robot.position_upper)
    for name, q in zip(robot.joint_names, positions, strict=True):
        data.qpos[model.joint(name).qposadr] = q
    mujoco.mj_kinematics(model, data)
    transforms = dict(
        zip(
            scene.links,
            scene.link_transforms(dict(zip(robot.joint_names, positions, strict=True))),
            strict=True,
        )
    )
    compared = 0
    for index in range(1, model.nbody):
        name = model.body(index).name
        assert transforms[name][:3, 3] == pytest.approx(data.xpos[index], abs=1e-9), name
        assert transforms[name][:3, :3].ravel() == pytest.approx(data.xmat[index], abs=1e-9), name
        compared += 1
    assert compared >= 29  # MuJoCo joins links without a joint to their parents


def test_the_g1_stands_on_the_floor_at_its_default_height() -> None:
    robot = load_robot()
    joints = dict(zip(robot.joint_names, robot.default_position, strict=True))
    lowest = read_scene(robot.urdf).lowest_point(joints, rotation.IDENTITY)
    assert lowest == pytest.approx(-robot.default_base_height, abs=0.005)


def test_every_part_of_the_g1_can_be_seen() -> None:
    robot = load_robot()
    scene = read_scene(robot.urdf)
    seen = {visual.link for visual in scene.visuals}
    moved = {joint.child for joint in scene.joints if joint.kind != "fixed"}
    assert moved <= seen
    assert set(scene.moving_joints) == set(robot.joint_names)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<robot", "<robot><robot", "not valid XML"),
        (
            '<sphere radius="0.02"/>',
            '<mesh filename="tip.stl"/>',
            "is a mesh; the viewer draws box, cylinder",
        ),
        ('<sphere radius="0.02"/>', "", "visual 0 of link 'tip' has no geometry"),
        ('radius="0.02"', 'radius="wide"', "radius of visual 0 of link 'tip' is 'wide', expected 1 numbers"),
        ('size="0.4 0.2 0.1"', 'size="0.4 0.2"', "box size of visual 0 of link 'base' is '0.4 0.2'"),
        (
            '<child link="tip"/>',
            '<child link="tap"/>',
            "joint 'finger' names link 'tap', which is not defined",
        ),
        ('<child link="tip"/>', '<child link="hand"/>', "link 'hand' has two parent joints"),
        ('type="continuous"', 'type="floating"', "joint 'finger' is of type 'floating'"),
        ('<axis xyz="0 0 2"/>', '<axis xyz="0 0 0"/>', "axis of joint 'lift' has length zero"),
        ('<link name="tip">', '<link name="far"/><link name="tip">', "expected one root link, found 2"),
        (
            "</robot>",
            '<link name="a"/><link name="b"/>'
            '<joint name="ab" type="fixed"><parent link="a"/><child link="b"/></joint>'
            '<joint name="ba" type="fixed"><parent link="b"/><child link="a"/></joint></robot>',
            "links a, b form a loop",
        ),
    ],
)
def test_a_broken_description_is_refused_by_name(old: str, new: str, said: str) -> None:
    assert old in ARM
    with pytest.raises(UserError) as error:
        read_scene(ARM.replace(old, new, 1))
    assert said in str(error.value) and "\n" not in str(error.value)
