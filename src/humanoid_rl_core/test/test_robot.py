"""The G1 against literal facts of the vendor's URDF (unitree_ros, g1_29dof_rev_1_0, modes 11 to 15)."""

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel, index_of, indices_of, load_robot

from humanoid_rl_core import robot as robot_module
from humanoid_rl_core import rotation

# Motor order. Axis (0 x, 1 y, 2 z), lower rad, upper rad, effort Nm, velocity rad/s.
JOINTS = [
    ("left_hip_pitch_joint", 1, -2.5307, 2.8798, 88, 32),
    ("left_hip_roll_joint", 0, -0.5236, 2.9671, 139, 20),
    ("left_hip_yaw_joint", 2, -2.7576, 2.7576, 88, 32),
    ("left_knee_joint", 1, -0.087267, 2.8798, 139, 20),
    ("left_ankle_pitch_joint", 1, -0.87267, 0.5236, 35, 30),
    ("left_ankle_roll_joint", 0, -0.2618, 0.2618, 35, 30),
    ("right_hip_pitch_joint", 1, -2.5307, 2.8798, 88, 32),
    ("right_hip_roll_joint", 0, -2.9671, 0.5236, 139, 20),
    ("right_hip_yaw_joint", 2, -2.7576, 2.7576, 88, 32),
    ("right_knee_joint", 1, -0.087267, 2.8798, 139, 20),
    ("right_ankle_pitch_joint", 1, -0.87267, 0.5236, 35, 30),
    ("right_ankle_roll_joint", 0, -0.2618, 0.2618, 35, 30),
    ("waist_yaw_joint", 2, -2.618, 2.618, 88, 32),
    ("waist_roll_joint", 0, -0.52, 0.52, 35, 30),
    ("waist_pitch_joint", 1, -0.52, 0.52, 35, 30),
    ("left_shoulder_pitch_joint", 1, -3.0892, 2.6704, 25, 37),
    ("left_shoulder_roll_joint", 0, -1.5882, 2.2515, 25, 37),
    ("left_shoulder_yaw_joint", 2, -2.618, 2.618, 25, 37),
    ("left_elbow_joint", 1, -1.0472, 2.0944, 25, 37),
    ("left_wrist_roll_joint", 0, -1.972222054, 1.972222054, 25, 37),
    ("left_wrist_pitch_joint", 1, -1.614429558, 1.614429558, 5, 22),
    ("left_wrist_yaw_joint", 2, -1.614429558, 1.614429558, 5, 22),
    ("right_shoulder_pitch_joint", 1, -3.0892, 2.6704, 25, 37),
    ("right_shoulder_roll_joint", 0, -2.2515, 1.5882, 25, 37),
    ("right_shoulder_yaw_joint", 2, -2.618, 2.618, 25, 37),
    ("right_elbow_joint", 1, -1.0472, 2.0944, 25, 37),
    ("right_wrist_roll_joint", 0, -1.972222054, 1.972222054, 25, 37),
    ("right_wrist_pitch_joint", 1, -1.614429558, 1.614429558, 5, 22),
    ("right_wrist_yaw_joint", 2, -1.614429558, 1.614429558, 5, 22),
]

# kg; the side stands for left and right.
CENTRE_MASSES = {
    "pelvis": 3.813,
    "pelvis_contour_link": 0.001,
    "waist_yaw_link": 0.214,
    "waist_roll_link": 0.086,
    "torso_link": 6.78,
    "logo_link": 0.001,
    "head_link": 1.036,
}
SIDE_MASSES = {
    "hip_pitch_link": 1.35,
    "hip_roll_link": 1.52,
    "hip_yaw_link": 1.702,
    "knee_link": 1.932,
    "ankle_pitch_link": 0.074,
    "ankle_roll_link": 0.608,
    "shoulder_pitch_link": 0.718,
    "shoulder_roll_link": 0.643,
    "shoulder_yaw_link": 0.734,
    "elbow_link": 0.6,
    "wrist_roll_link": 0.08544498,
    "wrist_pitch_link": 0.48404956,
    "wrist_yaw_link": 0.08457647,
    "rubber_hand": 0.17,
}

VARIANTS = ("rev_1_0", "mode_11", "mode_13", "mode_15")


def numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def origin(element: ET.Element) -> tuple[np.ndarray, np.ndarray]:
    found = element.find("origin")
    xyz = "0 0 0" if found is None else found.get("xyz", "0 0 0")
    rpy = "0 0 0" if found is None else found.get("rpy", "0 0 0")
    return numbers(xyz), numbers(rpy)


def masses(robot: RobotModel) -> dict[str, float]:
    return {
        link.get("name", ""): float(mass.get("value", "nan"))
        for link in ET.fromstring(robot.urdf).findall("link")
        if (mass := link.find("inertial/mass")) is not None
    }


def inertia(link: ET.Element) -> np.ndarray:
    values = {key: float(value) for key, value in link.find("inertial/inertia").attrib.items()}
    return np.array(
        [
            [values["ixx"], values["ixy"], values["ixz"]],
            [values["ixy"], values["iyy"], values["iyz"]],
            [values["ixz"], values["iyz"], values["izz"]],
        ]
    )


def link_poses(robot: RobotModel, positions: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position (m) and quaternion (w, x, y, z) of every link in the base frame."""
    poses = {robot.base_link: (np.zeros(3), rotation.IDENTITY)}
    waiting = list(ET.fromstring(robot.urdf).findall("joint"))
    while waiting:
        joint = waiting.pop(0)
        parent, child = joint.find("parent").get("link"), joint.find("child").get("link")
        if parent not in poses:
            waiting.append(joint)
            continue
        position, quaternion = poses[parent]
        xyz, rpy = origin(joint)
        local = rotation.from_rpy(*rpy)
        if joint.get("type") == "revolute":
            axis = numbers(joint.find("axis").get("xyz"))
            angle = positions[robot.joint_names.index(joint.get("name"))]
            local = rotation.multiply(local, rotation.from_axis_angle(axis, angle))
        poses[child] = (position + rotation.rotate(quaternion, xyz), rotation.multiply(quaternion, local))
    return poses


@pytest.fixture(scope="module")
def g1() -> RobotModel:
    return load_robot()


def test_joints_stand_in_motor_order_with_the_vendors_limits(g1):
    assert g1.joint_names == tuple(joint[0] for joint in JOINTS)
    table = np.array([joint[2:] for joint in JOINTS])
    np.testing.assert_array_equal(g1.position_lower, table[:, 0])
    np.testing.assert_array_equal(g1.position_upper, table[:, 1])
    np.testing.assert_array_equal(g1.effort_limit, table[:, 2])
    np.testing.assert_array_equal(g1.velocity_limit, table[:, 3])


def test_every_joint_turns_about_the_vendors_axis(g1):
    axes = {
        joint.get("name"): numbers(joint.find("axis").get("xyz"))
        for joint in ET.fromstring(g1.urdf).findall("joint")
        if joint.get("type") == "revolute"
    }
    for name, axis, *_ in JOINTS:
        np.testing.assert_array_equal(axes[name], np.eye(3)[axis], err_msg=name)


def test_every_link_has_the_vendors_mass(g1):
    expected = CENTRE_MASSES | {
        f"{side}_{link}": mass for side in ("left", "right") for link, mass in SIDE_MASSES.items()
    }
    assert masses(g1) == pytest.approx(expected, abs=1e-12)
    assert sum(masses(g1).values()) == pytest.approx(33.34, abs=0.005)


@pytest.mark.parametrize("variant", VARIANTS)
def test_right_side_mirrors_the_left(variant):
    robot = load_robot("g1", variant)
    root = ET.fromstring(robot.urdf)
    links = {link.get("name"): link for link in root.findall("link")}
    joints = {joint.get("name"): joint for joint in root.findall("joint")}
    flip = np.diag([1.0, -1.0, 1.0])
    sided = [name for name in links if name.startswith("left_")]
    assert len(sided) == 14
    for name in sided:
        left, right = links[name], links["right_" + name.removeprefix("left_")]
        left_com, right_com = origin(left.find("inertial"))[0], origin(right.find("inertial"))[0]
        np.testing.assert_allclose(flip @ left_com, right_com, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(flip @ inertia(left) @ flip, inertia(right), atol=1e-12, err_msg=name)
    for name in [name for name in joints if name.startswith("left_")]:
        left, right = joints[name], joints["right_" + name.removeprefix("left_")]
        (left_xyz, left_rpy), (right_xyz, right_rpy) = origin(left), origin(right)
        # The vendor's shoulders differ by 0.01 mm.
        np.testing.assert_allclose(flip @ left_xyz, right_xyz, atol=1.1e-5, err_msg=name)
        np.testing.assert_allclose(left_rpy * [-1.0, 1.0, -1.0], right_rpy, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_inertias_are_those_of_real_bodies(variant):
    for link in ET.fromstring(load_robot("g1", variant).urdf).findall("link"):
        if link.find("inertial") is None:
            continue
        moments = np.linalg.eigvalsh(inertia(link))
        assert moments[0] > 0.0, link.get("name")
        # Triangle inequality, with the vendor's rounding.
        assert moments[0] + moments[1] >= moments[2] * (1 - 1e-3), link.get("name")


def test_forward_kinematics_of_the_default_pose(g1):
    # In the pelvis frame, m; from the vendor's URDF loaded into MuJoCo 4.0 in the same pose.
    expected = {
        "left_ankle_roll_link": ((-0.001418, 0.118506, -0.721698), (0.999996, 0.0, -0.003, 0.0)),
        "right_ankle_roll_link": ((-0.001418, -0.118506, -0.721698), (0.999996, 0.0, -0.003, 0.0)),
        "left_rubber_hand": ((0.126177, 0.223815, -0.052861), (0.916776, 0.089704, 0.386436, 0.046281)),
        "right_rubber_hand": ((0.126177, -0.223805, -0.052861), (0.916776, -0.089704, 0.386436, -0.046281)),
        "d435_link": ((0.05366, 0.01753, 0.47387), (0.91496, 0.0, 0.403545, 0.0)),
        "imu_in_pelvis": ((0.04525, 0.0, -0.08339), (1.0, 0.0, 0.0, 0.0)),
    }
    poses = link_poses(g1, g1.default_position)
    for link, (position, quaternion) in expected.items():
        np.testing.assert_allclose(poses[link][0], position, atol=2e-6, err_msg=link)
        np.testing.assert_allclose(poses[link][1], quaternion, atol=2e-6, err_msg=link)


def sole_points(robot: RobotModel) -> np.ndarray:
    """Lowest points of the sole spheres in the base frame at the default pose, [8, 3] m."""
    poses = link_poses(robot, robot.default_position)
    links = {link.get("name"): link for link in ET.fromstring(robot.urdf).findall("link")}
    points = []
    for foot in robot.foot_links:
        for collision in links[foot].findall("collision"):
            sphere = collision.find("geometry/sphere")
            if sphere is not None:
                position, quaternion = poses[foot]
                centre = position + rotation.rotate(quaternion, origin(collision)[0])
                points.append(centre - [0.0, 0.0, float(sphere.get("radius"))])
    return np.array(points)


def test_soles_touch_the_floor_at_the_default_height(g1):
    points = sole_points(g1)
    assert points.shape == (8, 3)
    assert g1.default_base_height + points[:, 2].min() == pytest.approx(0.0, abs=1e-4)
    # Level within 2 mm from heel to toe.
    assert np.ptp(points[:, 2]) < 0.002


def test_centre_of_mass_is_well_inside_the_soles(g1):
    poses, links = link_poses(g1, g1.default_position), ET.fromstring(g1.urdf).findall("link")
    moment, total = np.zeros(3), 0.0
    for link in links:
        inertial = link.find("inertial")
        if inertial is None:
            continue
        position, quaternion = poses[link.get("name")]
        mass = float(inertial.find("mass").get("value"))
        moment += mass * (position + rotation.rotate(quaternion, origin(inertial)[0]))
        total += mass
    com = moment / total
    # From the vendor's URDF loaded into MuJoCo 4.0 in the same pose.
    np.testing.assert_allclose(com, [0.030594, 0.000082, -0.087591], atol=2e-6)
    points = sole_points(g1)
    assert points[:, 0].min() + 0.05 < com[0] < points[:, 0].max() - 0.05
    assert abs(com[1]) < 0.001


def test_motors_give_armature_and_compliant_gains(g1):
    # unitree motors, mjlab g1_constants.py: kp and kd at 10 Hz, damping ratio 2.
    expected = {
        "left_hip_pitch_joint": (0.01017752, 40.18, 2.558),
        "left_hip_roll_joint": (0.025101925, 99.10, 6.309),
        "right_knee_joint": (0.025101925, 99.10, 6.309),
        "right_ankle_roll_joint": (2 * 0.003609725, 28.50, 1.814),
        "waist_yaw_joint": (0.01017752, 40.18, 2.558),
        "waist_pitch_joint": (2 * 0.003609725, 28.50, 1.814),
        "left_elbow_joint": (0.003609725, 14.25, 0.907),
        "right_wrist_yaw_joint": (0.00425, 16.78, 1.068),
    }
    compliant = g1.gains["compliant"]
    for joint, (armature, stiffness, damping) in expected.items():
        i = index_of(g1, joint)
        assert g1.armature[i] == pytest.approx(armature, rel=1e-6)
        assert compliant.stiffness[i] == pytest.approx(stiffness, abs=0.006)
        assert compliant.damping[i] == pytest.approx(damping, abs=0.0006)


def test_stiff_gains_stay_within_what_the_motors_take(g1):
    stiff = g1.gains["stiff"]
    assert stiff.stiffness.shape == stiff.damping.shape == (29,)
    assert stiff.stiffness.max() <= 300.0
    assert (stiff.damping > 0.0).all()


def test_default_pose_is_mirrored(g1):
    def default(joint: str) -> float:
        return g1.default_position[index_of(g1, joint)]

    assert default("left_shoulder_roll_joint") == 0.2
    assert default("right_shoulder_roll_joint") == -0.2
    assert default("left_knee_joint") == default("right_knee_joint") == 0.669
    assert not np.signbit(default("right_hip_roll_joint"))


def test_variants_differ_where_the_machines_do(g1):
    hips = indices_of(g1, [".*_hip_pitch_joint"])
    wrists = indices_of(g1, [".*_wrist_pitch_joint", ".*_wrist_yaw_joint"])
    others = np.setdiff1d(np.arange(29), np.concatenate([hips, wrists]))
    for variant, mode, hip, hip_velocity, wrist, wrist_velocity, mass in [
        ("rev_1_0", 5, 88.0, 32.0, 5.0, 22.0, 33.341142),
        ("mode_11", 11, 139.0, 20.0, 5.0, 22.0, 33.340142),
        ("mode_13", 13, 88.0, 32.0, 13.4, 27.0, 33.741043),
        ("mode_15", 15, 139.0, 20.0, 13.4, 27.0, 33.740043),
    ]:
        robot = load_robot("g1", variant)
        assert robot.mode_machine == (mode,)
        assert set(robot.effort_limit[hips]) == {hip}
        assert set(robot.velocity_limit[hips]) == {hip_velocity}
        assert set(robot.armature[hips]) == {0.025101925 if hip == 139.0 else 0.01017752}
        assert set(robot.effort_limit[wrists]) == {wrist}
        assert set(robot.velocity_limit[wrists]) == {wrist_velocity}
        np.testing.assert_array_equal(robot.effort_limit[others], g1.effort_limit[others])
        assert sum(masses(robot).values()) == pytest.approx(mass, abs=1e-6)
        yaw = next(
            j for j in ET.fromstring(robot.urdf).findall("joint") if j.get("name") == "left_wrist_yaw_joint"
        )
        assert origin(yaw)[0][0] == (0.051 if wrist == 13.4 else 0.046)
    assert len({load_robot("g1", variant).description_hash for variant in VARIANTS}) == 4


def test_loading_twice_gives_the_same_object():
    assert load_robot() is load_robot("g1", "rev_1_0")


def test_arrays_of_the_shared_model_cannot_be_written(g1):
    with pytest.raises(ValueError, match="read-only"):
        g1.default_position[0] = 1.0


def test_unknown_names_are_refused_with_the_known_ones(g1):
    with pytest.raises(UserError, match=r"unknown robot 'h1'.*known: .*g1"):
        load_robot("h1")
    with pytest.raises(UserError, match=r"no variant 'mode_12'.*rev_1_0, mode_11, mode_13, mode_15"):
        load_robot("g1", "mode_12")
    with pytest.raises(UserError, match=r"no joint 'left_kne_joint', did you mean 'left_knee_joint'\?"):
        index_of(g1, "left_kne_joint")
    with pytest.raises(UserError, match=r"no joint like '\.\*_tail_joint'"):
        indices_of(g1, [".*_tail_joint"])


def test_description_names_every_collision_once(g1):
    names = [collision.get("name") for collision in ET.fromstring(g1.urdf).iter("collision")]
    assert None not in names
    assert len(set(names)) == len(names)


# --- the two sources against each other, on an edited copy ---


@pytest.fixture
def share(tmp_path, monkeypatch) -> Path:
    shutil.copytree(share_dir() / "urdf", tmp_path / "urdf")
    shutil.copytree(share_dir() / "config" / "robot", tmp_path / "config" / "robot")
    monkeypatch.setenv("HUMANOID_RL_SHARE", str(tmp_path))
    yield tmp_path
    robot_module._load.cache_clear()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


CONTRADICTIONS = [
    ("yaml", "  - waist_yaw_joint\n", "", "joint_order lacks the description's joint 'waist_yaw_joint'"),
    ("yaml", "  - waist_yaw_joint\n", "  - waist_yawn_joint\n", "joint_order lacks .*'waist_yaw_joint'"),
    (
        "yaml",
        "  - waist_yaw_joint\n",
        "  - waist_yaw_joint\n  - waist_yaw_joint\n",
        "has 'waist_yaw_joint' twice",
    ),
    (
        "yaml",
        "  - waist_yaw_joint\n",
        "  - waist_yaw_joint\n  - tail_joint\n",
        "the description has no joint 'tail_joint'",
    ),
    ("yaml", "imu_link: imu_in_pelvis", "imu_link: imu_in_pelvs", "did you mean 'imu_in_pelvis'"),
    ("yaml", "base_link: pelvis", "base_link: torso_link", "base_link is 'torso_link', .* root is pelvis"),
    ("yaml", "default: 0.669", "default: 3.0", r"left_knee_joint: default 3.0 rad is outside the limits"),
    ("yaml", 'motor: "4010"}', 'motor: "401"}', "no motor '401', did you mean '4010'"),
    ("yaml", '{hip_pitch: "7520-22"}', '{hip_pith: "7520-22"}', None),
    ("yaml", "      knee: [300, 8]\n", "", "gains.stiff.table: missing key 'knee'"),
    (
        "yaml",
        "      knee: [300, 8]\n",
        "      knees: [300, 8]\n",
        "no joint kind 'knees', did you mean 'knee'",
    ),
    ("yaml", ", damping_ratio: 2.0", "", "gains.compliant: give natural_frequency and damping_ratio"),
    ("yaml", "default_base_height", "default_bas_height", "unknown key 'default_bas_height', did you mean"),
    (
        "yaml",
        "link: d435_link",
        "link: d345_link",
        "cameras.head: .* no link 'd345_link', did you mean 'd435_link'",
    ),
    (
        "yaml",
        "near: 0.3, far: 3.0",
        "near: 3.0, far: 0.3",
        "cameras.head: near must be above zero and below far",
    ),
    (
        "yaml",
        "horizontal_fov: 1.518",
        "horizontal_fov: 87",
        "cameras.head: horizontal_fov must be between 0 and pi",
    ),
    ("yaml", "description: g1.urdf.xacro", "description: g2.urdf.xacro", "no such robot description"),
    ("urdf", '<link name="logo_link">', '<link name="head_link">', "two links named 'head_link'"),
    ("urdf", '<xacro:include filename="primitives.xacro"/>', "<unclosed>", "xacro: "),
    ("urdf", 'lower="-0.52" upper="0.52"', 'lower="0.52" upper="-0.52"', "lower limit is not below"),
]


@pytest.mark.parametrize(("source", "old", "new", "message"), CONTRADICTIONS)
def test_contradictions_between_description_and_config_are_named(share, source, old, new, message):
    path = share / ("config/robot/g1.yaml" if source == "yaml" else "urdf/g1.urdf.xacro")
    edit(path, old, new)
    if message is None:
        load_robot()
        with pytest.raises(UserError, match="no joint kind 'hip_pith', did you mean 'hip_pitch'"):
            load_robot("g1", "mode_11")
        return
    with pytest.raises(UserError, match=message) as error:
        load_robot()
    assert "\n" not in str(error.value)


def test_mimic_joints_are_refused(share):
    edit(
        share / "urdf" / "primitives.xacro",
        '<axis xyz="${axis}"/>',
        '<axis xyz="${axis}"/><mimic joint="x"/>',
    )
    with pytest.raises(UserError, match="joint 'left_hip_pitch_joint' mimics another"):
        load_robot()


def test_hash_ignores_looks_and_notation_but_no_dynamics(share, g1):
    def reload() -> str:
        robot_module._load.cache_clear()
        return load_robot().description_hash

    xacro = share / "urdf" / "g1.urdf.xacro"
    assert reload() == g1.description_hash
    edit(xacro, 'rgba="0.80 0.81 0.83 1"', 'rgba="0.1 0.1 0.1 1"')
    edit(xacro, 'material="accent"', 'material="visor"')
    edit(xacro, 'mass="6.78"', 'mass="6.7800"')
    edit(share / "config" / "robot" / "g1.yaml", "knee: [300, 8]", "knee: [250, 8]")
    edit(share / "config" / "robot" / "g1.yaml", "near: 0.3", "near: 0.2")
    assert reload() == g1.description_hash
    edit(xacro, 'mass="6.7800"', 'mass="6.7801"')
    heavier = reload()
    assert heavier != g1.description_hash
    edit(share / "config" / "robot" / "g1.yaml", "default: 0.669", "default: 0.668")
    assert reload() not in (heavier, g1.description_hash)


def test_expanded_description_needs_no_files(g1):
    assert "package://" not in g1.urdf
    assert not re.search(r"\$\{|xacro:|<mesh", g1.urdf)


def test_the_head_camera_sits_where_the_description_has_it(g1):
    camera = g1.cameras["head"]
    assert (camera.frame, camera.body) == ("d435_link", "torso_link")
    positions = np.random.default_rng(4).uniform(g1.position_lower, g1.position_upper)
    poses = link_poses(g1, positions)
    position, quaternion = poses[camera.body]
    expected_position, expected_quaternion = poses[camera.frame]
    np.testing.assert_allclose(
        position + rotation.rotate(quaternion, camera.position), expected_position, atol=1e-12
    )
    np.testing.assert_allclose(
        rotation.multiply(quaternion, camera.quaternion), expected_quaternion, atol=1e-12
    )
