"""The MuJoCo model says what the URDF says, and the robot stands on it."""

import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import Gains, RobotModel, load_robot
from humanoid_rl_sim.simulators.mujoco_model import (
    FLOOR,
    build_mujoco_model,
    build_mujoco_spec,
    joint_qpos_address,
    joint_qvel_address,
    sensor_slice,
    set_position_gains,
)

VARIANTS = ("rev_1_0", "mode_11", "mode_13", "mode_15")
COLLISIONS = ("feet", "full")


@pytest.fixture(scope="module")
def g1() -> RobotModel:
    return load_robot()


@pytest.fixture(scope="module")
def model(g1) -> mujoco.MjModel:
    return build_mujoco_model(g1)


def at_home(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    return data


def tilt(data: mujoco.MjData) -> float:
    """rad between the base's z axis and the vertical."""
    return float(np.arccos(np.clip(1.0 - 2.0 * (data.qpos[4] ** 2 + data.qpos[5] ** 2), -1.0, 1.0)))


def stand(model: mujoco.MjModel, robot: RobotModel, gains: Gains, seconds: float) -> mujoco.MjData:
    set_position_gains(model, gains)
    data = at_home(model)
    data.ctrl[:] = robot.default_position
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)
        if data.qpos[2] < 0.5:
            break
    return data


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("collision", COLLISIONS)
def test_no_mass_is_lost_with_the_links_behind_fixed_joints(variant, collision):
    robot = load_robot("g1", variant)
    total = sum(float(mass.get("value", "nan")) for mass in ET.fromstring(robot.urdf).iter("mass"))
    model = build_mujoco_model(robot, collision=collision)
    assert model.body_mass.sum() == pytest.approx(total, abs=1e-9)
    assert model.body_subtreemass[model.body("pelvis").id] == pytest.approx(total, abs=1e-9)


def test_no_inertia_is_lost_with_the_links_behind_fixed_joints(g1, model):
    data = at_home(model)
    mass_matrix = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass_matrix)
    # kg m^2 about the pelvis frame, whole robot in the default pose; from the vendor's URDF in MuJoCo 4.0.
    expected = [
        [3.779085, 3.8e-05, 0.362892],
        [3.8e-05, 3.448614, -0.000628],
        [0.362892, -0.000628, 0.573392],
    ]
    # The vendor's right knee differs from the mirrored left one in one product of inertia; worth 7e-5 here.
    np.testing.assert_allclose(mass_matrix[3:6, 3:6], expected, atol=1e-4)


def test_bodies_stand_where_the_vendors_description_puts_them(g1, model):
    data = at_home(model)
    base = data.body("pelvis").xpos
    # In the pelvis frame, m; from the vendor's URDF in MuJoCo 4.0 in the same pose.
    for link, expected in {
        "left_ankle_roll_link": (-0.001418, 0.118506, -0.721698),
        "right_ankle_roll_link": (-0.001418, -0.118506, -0.721698),
    }.items():
        np.testing.assert_allclose(data.body(link).xpos - base, expected, atol=2e-6)
    np.testing.assert_allclose(data.site("imu_in_pelvis").xpos - base, [0.04525, 0.0, -0.08339], atol=1e-9)
    np.testing.assert_allclose(data.subtree_com[1] - base, [0.030594, 0.000082, -0.087591], atol=2e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_joints_and_motors_carry_the_robots_numbers_in_motor_order(variant):
    robot = load_robot("g1", variant)
    model = build_mujoco_model(robot)
    assert (model.nq, model.nv, model.nu) == (36, 35, 29)
    assert model.joint("floating_base_joint").qposadr[0] == model.joint("floating_base_joint").dofadr[0] == 0
    for i, name in enumerate(robot.joint_names):
        joint, actuator = model.joint(name), model.actuator(i)
        assert actuator.name == name
        assert actuator.trnid[0] == joint.id
        assert joint.qposadr[0] == joint_qpos_address(model, robot)[i]
        assert joint.dofadr[0] == joint_qvel_address(model, robot)[i]
        np.testing.assert_array_equal(joint.range, [robot.position_lower[i], robot.position_upper[i]])
        np.testing.assert_array_equal(actuator.forcerange, [-robot.effort_limit[i], robot.effort_limit[i]])
    assert model.jnt_limited[1:].all()
    assert model.actuator_forcelimited.all()
    np.testing.assert_array_equal(model.dof_armature[joint_qvel_address(model, robot)], robot.armature)
    assert not model.dof_armature[:6].any()


def test_motors_are_torque_motors_with_the_effort_limit(g1, model):
    data = at_home(model)
    np.testing.assert_array_equal(data.ctrl, 0.0)
    data.ctrl[:] = np.linspace(-200.0, 200.0, 29)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.actuator_force, np.clip(data.ctrl, -g1.effort_limit, g1.effort_limit))
    np.testing.assert_allclose(data.qfrc_actuator[joint_qvel_address(model, g1)], data.actuator_force)


def test_position_gains_make_a_pd_controller_within_the_effort_limit(g1):
    model = build_mujoco_model(g1)
    set_position_gains(model, g1.gains["stiff"])
    data = at_home(model)
    rng = np.random.default_rng(0)
    data.ctrl[:] = g1.default_position + rng.normal(0.0, 0.3, 29)
    velocity = rng.normal(0.0, 2.0, 29)
    data.qvel[joint_qvel_address(model, g1)] = velocity
    mujoco.mj_forward(model, data)
    error = data.ctrl - g1.default_position
    torque = g1.gains["stiff"].stiffness * error - g1.gains["stiff"].damping * velocity
    assert (np.abs(torque) > g1.effort_limit).any()
    np.testing.assert_allclose(data.actuator_force, np.clip(torque, -g1.effort_limit, g1.effort_limit))


def test_home_is_the_default_pose_with_the_soles_on_the_floor(g1, model):
    data = at_home(model)
    np.testing.assert_array_equal(data.qpos[:7], [0.0, 0.0, g1.default_base_height, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(data.qpos[joint_qpos_address(model, g1)], g1.default_position)
    soles = [i for i in range(model.ngeom) if "_sole_" in model.geom(i).name]
    assert len(soles) == 8
    lowest = min(data.geom_xpos[i][2] - model.geom_size[i][0] for i in soles)
    assert lowest == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("timestep", [0.005, 0.002])
def test_stiff_gains_alone_keep_the_robot_standing(variant, timestep):
    robot = load_robot("g1", variant)
    data = stand(build_mujoco_model(robot, timestep=timestep), robot, robot.gains["stiff"], 5.0)
    assert data.time > 4.99
    assert data.qpos[2] == pytest.approx(robot.default_base_height, abs=0.01)
    assert tilt(data) < 0.05
    assert np.abs(data.qvel).max() < 0.05


def test_compliant_gains_alone_do_not_keep_it_standing(g1):
    data = stand(build_mujoco_model(g1), g1, g1.gains["compliant"], 5.0)
    assert data.qpos[2] < 0.5


@pytest.mark.parametrize("friction", [0.4, 1.2])
def test_soles_do_not_chatter_on_any_floor_the_robot_is_evaluated_on(g1, friction):
    model = build_mujoco_model(g1)
    for i in range(model.ngeom):
        if "_sole_" in model.geom(i).name:
            model.geom_friction[i, 0] = friction
    set_position_gains(model, g1.gains["stiff"])
    data = at_home(model)
    data.ctrl[:] = g1.default_position
    feet = [sensor_slice(model, name) for name in ("left_foot_contact", "right_foot_contact")]
    lowest = np.inf
    for step in range(600):
        mujoco.mj_step(model, data)
        # The first 0.2 s settle the soles into the floor.
        if step >= 40:
            lowest = min(lowest, *(float(data.sensordata[foot][3]) for foot in feet))
    assert lowest > 100.0


def test_small_pushes_are_survived_and_large_ones_are_not(g1):
    model = build_mujoco_model(g1)
    set_position_gains(model, g1.gains["stiff"])

    def falls(speed: float) -> int:
        fallen = 0
        for direction in np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False):
            data = at_home(model)
            data.ctrl[:] = g1.default_position
            data.qvel[:2] = speed * np.array([np.cos(direction), np.sin(direction)])
            for _ in range(600):
                mujoco.mj_step(model, data)
            fallen += data.qpos[2] < 0.5
        return fallen

    assert falls(0.15) == 0
    assert falls(0.8) == 8


def test_foot_sensors_give_the_ground_force_that_carries_the_robot(g1):
    model = build_mujoco_model(g1)
    data = stand(model, g1, g1.gains["stiff"], 5.0)
    left, right = (data.sensordata[sensor_slice(model, f"{side}_foot_contact")] for side in ("left", "right"))
    assert left[0] == right[0] == 4.0
    np.testing.assert_allclose(left[1:] + right[1:], [0.0, 0.0, 33.341142 * 9.81], atol=1.0)
    data.qpos[2] += 0.5
    mujoco.mj_forward(model, data)
    np.testing.assert_array_equal(data.sensordata[sensor_slice(model, "left_foot_contact")], np.zeros(4))


def test_imu_reads_in_its_own_frame(g1, model):
    data = at_home(model)
    # Pitched nose up by 90 degrees, in free fall, turning about the world's vertical.
    data.qpos[2] = 2.0
    data.qpos[3:7] = [np.sqrt(0.5), 0.0, -np.sqrt(0.5), 0.0]
    data.qvel[3:6] = [0.7, 0.0, 0.0]
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.sensordata[sensor_slice(model, "imu_gyro")], [0.7, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(data.sensordata[sensor_slice(model, "imu_quat")], data.qpos[3:7], atol=1e-9)
    resting = stand(build_mujoco_model(g1), g1, g1.gains["stiff"], 5.0)
    accelerometer = resting.sensordata[sensor_slice(model, "imu_accel")]
    assert np.linalg.norm(accelerometer) == pytest.approx(9.81, abs=0.05)
    assert accelerometer[2] > 9.7


def test_only_soles_touch_in_feet_mode(g1):
    model = build_mujoco_model(g1, collision="feet")
    names = {model.geom(i).name for i in range(model.ngeom)}
    assert names == {FLOOR} | {
        f"{side}_sole_{end}_{edge}"
        for side in ("left", "right")
        for end in ("heel", "toe")
        for edge in ("left", "right")
    }
    data = at_home(model)
    # Feet into each other and the pelvis through the floor.
    data.qpos[joint_qpos_address(model, g1)[[1, 7]]] = [-0.5, 0.5]
    data.qpos[2] = 0.0
    mujoco.mj_forward(model, data)
    assert all(FLOOR in (model.geom(c.geom1).name, model.geom(c.geom2).name) for c in data.contact)


def test_whole_body_rests_on_the_floor_in_full_mode(g1):
    model = build_mujoco_model(g1, collision="full")
    set_position_gains(model, Gains(np.zeros(29), np.full(29, 2.0)))
    data = at_home(model)
    for _ in range(1000):
        mujoco.mj_step(model, data)
    assert 0.03 < data.qpos[2] < 0.4
    assert data.xipos[1:, 2].min() > 0.0
    assert np.abs(data.qvel).max() < 1.0


def test_links_collide_with_each_other_but_not_with_their_neighbours(g1):
    model = build_mujoco_model(g1, collision="full")
    data = at_home(model)
    qpos = joint_qpos_address(model, g1)

    def touching(**joints: float) -> set[frozenset[str]]:
        data.qpos[qpos] = g1.default_position
        data.qpos[2] = 3.0
        for joint, value in joints.items():
            data.qpos[qpos[g1.joint_names.index(f"{joint}_joint")]] = value
        mujoco.mj_forward(model, data)
        return {
            frozenset(model.body(model.geom_bodyid[geom]).name for geom in contact.geom)
            for contact in data.contact
        }

    assert touching() == set()
    legs = touching(left_hip_roll=-0.4, right_hip_roll=0.4)
    assert frozenset(("left_knee_link", "right_knee_link")) in legs
    assert frozenset(("left_shoulder_yaw_link", "torso_link")) in touching(left_shoulder_roll=-0.8)
    # Joints alone at their limits: what is one or two joints apart never collides.
    for i, name in enumerate(g1.joint_names):
        for limit in (g1.position_lower[i], g1.position_upper[i]):
            for pair in touching(**{name.removesuffix("_joint"): limit}):
                a, b = (model.body(link).id for link in pair)
                parent = model.body_parentid
                assert b not in (parent[a], parent[parent[a]]), pair
                assert a not in (parent[b], parent[parent[b]]), pair


def test_visual_model_has_the_same_physics(g1, model):
    visual = build_mujoco_model(g1, visual=True)
    assert visual.ngeom > 100
    trajectories = []
    for each in (model, visual):
        data = at_home(each)
        data.ctrl[:] = 5.0
        for _ in range(50):
            mujoco.mj_step(each, data)
        trajectories.append(data.qpos.copy())
    np.testing.assert_allclose(trajectories[0], trajectories[1], atol=1e-9)


def test_spec_can_be_extended_before_it_is_compiled(g1):
    spec = build_mujoco_spec(g1)
    spec.worldbody.add_geom(name="step", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.2, 0.2, 0.05])
    assert spec.compile().geom("step").id >= 0


def test_wrong_choices_are_refused(g1, model):
    with pytest.raises(UserError, match=r"unknown collision 'foot' \(known: feet, self, full\)"):
        build_mujoco_model(g1, collision="foot")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="timestep must be positive"):
        build_mujoco_model(g1, timestep=0.0)
    with pytest.raises(UserError, match="no sensor 'imu_gyr', did you mean 'imu_gyro'"):
        sensor_slice(model, "imu_gyr")
