"""The MuJoCo model of a robot, derived from its URDF: nothing about the robot is written twice.

qpos = [base position 3 (m, world), base orientation 4 (w, x, y, z), joint positions n (rad)];
qvel = [base linear velocity 3 (m/s, world), base angular velocity 3 (rad/s, base frame), joint velocities n].
Actuators and the robot's numbers are in motor order; `joint_qpos_address` and `joint_qvel_address` give the
places of the joints in qpos and qvel in motor order.

Sensors: imu_gyro (3, rad/s, IMU frame), imu_accel (3, m/s^2, IMU frame, gravity included), imu_quat (4,
w x y z, IMU to world), left_foot_contact and right_foot_contact (4: number of contacts with the ground, then
the force of the ground on the foot in N, world frame), and, where it may touch itself, self_contact (1:
number of contacts of the robot with itself).
"""

import itertools
import math
import xml.etree.ElementTree as ET
from typing import get_args

import mujoco
import numpy as np
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import Gains, RobotModel
from numpy.typing import NDArray

from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.simulators.height_field import HeightField

BASE_JOINT = "floating_base_joint"
FLOOR = "floor"
MOST_ABOVE = 4.0
"""m above the floor up to which `nearest_sole` measures; twice what anybody lifts the robot to for it."""
HOME_KEYFRAME = "home"
TRACKING_CAMERA = "tracking"
IMU_SENSORS = ("imu_gyro", "imu_accel", "imu_quat")
FOOT_CONTACT_SENSORS = ("left_foot_contact", "right_foot_contact")
SELF_CONTACT_SENSOR = "self_contact"

# Groups as the viewers expect them: 0 scene, 2 looks of the robot, 3 collision shapes (hidden by default).
VISUAL_GROUP, COLLISION_GROUP = 2, 3

# Rubber on common floors; the middle of the range the robot is evaluated on, 0.4 to 1.2.
SOLE_FRICTION = 0.8

# A height field is prisms to MuJoCo: what sinks into one is pushed out through the nearest wall, on level ground too,
# which tilts the force where prisms meet. Balls of 5 mm left 6 mm of depth horizontally in half of the cases (in
# single precision with depths of metres). With balls of 25 mm a policy that never falls on a plane fell in 16 of 144
# walks on a level field; with capsules along the feet in none, and it was as precise as on the plane.
SOLE_RADIUS_ON_HEIGHT_FIELD = 0.025


def build_mujoco_model(
    robot: RobotModel, *, timestep: float = 0.005, collision: Collision = "feet", visual: bool = False
) -> mujoco.MjModel:
    """Compiled `build_mujoco_spec`; same arguments."""
    return build_mujoco_spec(robot, timestep=timestep, collision=collision, visual=visual).compile()


def build_mujoco_spec(
    robot: RobotModel,
    *,
    timestep: float = 0.005,
    collision: Collision = "feet",
    visual: bool = False,
    height_field: HeightField | None = None,
) -> mujoco.MjSpec:
    """The robot on the floor, torque-driven, ready to be extended and compiled.

    Actuator i drives motor i with force = gainprm[0] ctrl + biasprm[1] q + biasprm[2] q̇, limited to the
    effort limit. As built it is a torque motor (gainprm[0] = 1, no bias); `set_position_gains` makes it a PD
    controller at physics rate.

    Args:
        robot: from `load_robot`.
        timestep: physics step in s.
        collision: "feet": only the soles touch the floor, the fast choice for training, where a fall ends the
            episode anyway. "self": the robot's shapes also touch each other. "full": and all of them the floor.
        visual: keep the visual shapes and add light, sky, a floor pattern and the camera "tracking".
        height_field: the floor; a level one without.

    Raises:
        UserError: unknown collision choice or a timestep that is not positive.
    """
    if collision not in get_args(Collision):
        known = get_args(Collision)
        raise UserError(
            f"unknown collision '{collision}'{nearest(collision, known)} (known: {', '.join(known)})"
        )
    if not timestep > 0.0:
        raise UserError(f"timestep must be positive, got {timestep} s")
    spec = mujoco.MjSpec.from_string(_with_compiler_options(robot.urdf, visual))
    spec.modelname = f"{robot.name}_{robot.variant}"
    _set_options(spec, timestep)
    spec.body(robot.base_link).add_freejoint(name=BASE_JOINT)
    spec.body(robot.base_link).pos = [0.0, 0.0, robot.default_base_height]
    _add_floor(spec, height_field)
    if visual:
        _add_looks(spec, robot)
    _set_joints(spec, robot)
    _set_shapes(spec, robot, collision)
    if height_field is not None:
        _round_soles(spec, robot)
    _add_actuators(spec, robot)
    _add_sensors(spec, robot, collision)
    _add_home(spec, robot)
    if collision != "feet":
        _exclude_neighbours(spec)
    return spec


def joint_qpos_address(model: mujoco.MjModel, robot: RobotModel) -> NDArray[np.intp]:
    """[n] indices into qpos of the joints in motor order."""
    return np.array([model.joint(name).qposadr[0] for name in robot.joint_names], dtype=np.intp)


def joint_qvel_address(model: mujoco.MjModel, robot: RobotModel) -> NDArray[np.intp]:
    """[n] indices into qvel of the joints in motor order."""
    return np.array([model.joint(name).dofadr[0] for name in robot.joint_names], dtype=np.intp)


def sensor_slice(model: mujoco.MjModel, name: str) -> slice:
    """Place of a sensor in sensordata.

    Raises:
        UserError: no such sensor.
    """
    try:
        sensor = model.sensor(name)
    except KeyError:
        known = [model.sensor(i).name for i in range(model.nsensor)]
        raise UserError(f"the model has no sensor '{name}'{nearest(name, known)}") from None
    return slice(int(sensor.adr[0]), int(sensor.adr[0] + sensor.dim[0]))


def add_sole_sites(spec: mujoco.MjSpec, robot: RobotModel) -> tuple[str, ...]:
    """A site in the middle of each sole, on its surface; their names, left then right."""
    names = ("left_sole", "right_sole")
    for name, link in zip(names, robot.foot_links, strict=True):
        soles = [geom for geom in spec.body(link).geoms if geom.priority > 0]
        centre = np.mean([geom.pos for geom in soles], axis=0) - [0.0, 0.0, soles[0].size[0]]
        spec.body(link).add_site(name=name, pos=centre)
    return names


def nearest_sole(
    model: mujoco.MjModel, data: mujoco.MjData, robot: RobotModel
) -> tuple[float, NDArray[np.float64], int]:
    """The place of the feet that is nearest to the floor, or deepest in it; its poses must be up to date.

    Returns:
        Its distance in m, itself in the world [3] m, and the number of its body.
    """
    feet = [model.body(link).id for link in robot.foot_links]
    floor, line = model.geom(FLOOR).id, np.zeros(6)
    nearest = (math.inf, np.zeros(3), 0)
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] in feet and model.geom_contype[geom]:
            gap = mujoco.mj_geomDistance(model, data, floor, geom, MOST_ABOVE, line)
            if gap < nearest[0]:
                nearest = (float(gap), line[3:6].copy(), int(model.geom_bodyid[geom]))
    return nearest


def set_position_gains(model: mujoco.MjModel, gains: Gains) -> None:
    """Turn the torque motors into PD controllers: ctrl becomes the position target in rad, motor order."""
    model.actuator_gainprm[:, 0] = gains.stiffness
    model.actuator_biasprm[:, 0] = 0.0
    model.actuator_biasprm[:, 1] = -gains.stiffness
    model.actuator_biasprm[:, 2] = -gains.damping


def _with_compiler_options(urdf: str, visual: bool) -> str:
    """The URDF with MuJoCo's own element, which it reads before the links."""
    root = ET.fromstring(urdf)
    options = ET.SubElement(ET.SubElement(root, "mujoco"), "compiler")
    options.set("discardvisual", "false" if visual else "true")
    # Links behind fixed joints become part of their parents: fewer bodies, the same masses.
    options.set("fusestatic", "true")
    return ET.tostring(root, encoding="unicode")


def _set_options(spec: mujoco.MjSpec, timestep: float) -> None:
    option = spec.option
    option.timestep = timestep
    # Joint damping and PD damping are integrated implicitly: stable at 5 ms with stiff gains.
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Elliptic cones: with pyramidal ones the soles chatter at 5 ms under stiff ankles (kp 300, kd 3, friction
    # 0.4: feet unloaded in 8 % of the steps while standing), with elliptic ones never, at the same speed.
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    # As in mjlab's velocity tasks for this robot at this timestep (tasks/velocity/velocity_env_cfg.py).
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    option.iterations = 10
    option.ls_iterations = 20


def _add_floor(spec: mujoco.MjSpec, field: HeightField | None) -> None:
    floor = spec.worldbody.add_geom(name=FLOOR, contype=1, conaffinity=1, condim=3)
    if field is None:
        floor.type, floor.size = mujoco.mjtGeom.mjGEOM_PLANE, [0.0, 0.0, 0.05]
        return
    # MuJoCo stores heights as fractions of the highest, above the lowest.
    lowest, relief = float(field.heights.min()), max(float(np.ptp(field.heights)), 1e-3)
    rows, columns = field.heights.shape
    spec.add_hfield(
        name=FLOOR,
        nrow=rows,
        ncol=columns,
        size=[*field.half_size, relief, 1.0],
        userdata=((field.heights - lowest) / relief).ravel(),
    )
    floor.type, floor.hfieldname, floor.pos = mujoco.mjtGeom.mjGEOM_HFIELD, FLOOR, [0.0, 0.0, lowest]


def _add_looks(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1920, 1080
    spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
    spec.visual.headlight.diffuse = [0.3, 0.3, 0.3]
    spec.visual.quality.shadowsize = 4096
    base = spec.body(robot.base_link)
    base.add_light(
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=[1.0, -1.0, 4.0],
        dir=[-0.25, 0.25, -1.0],
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=[0.6, 0.6, 0.6],
        castshadow=True,
    )
    base.add_camera(
        name=TRACKING_CAMERA,
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=[1.7, -1.5, 0.35],
        xyaxes=[0.66, 0.75, 0.0, -0.11, 0.10, 0.99],
        fovy=45.0,
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.95, 0.97, 1.0],
        rgb2=[0.62, 0.72, 0.84],
        width=256,
        height=256,
    )
    spec.add_texture(
        name="tiles",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        mark=mujoco.mjtMark.mjMARK_EDGE,
        rgb1=[0.86, 0.88, 0.90],
        rgb2=[0.80, 0.82, 0.85],
        markrgb=[0.72, 0.75, 0.78],
        width=300,
        height=300,
    )
    tiles = spec.add_material(name="tiles", texrepeat=[2.0, 2.0], texuniform=True)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    spec.geom(FLOOR).material = "tiles"


def _set_joints(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    for i, name in enumerate(robot.joint_names):
        joint = spec.joint(name)
        joint.armature = robot.armature[i]
        # The limit belongs to the motor, below; a second copy at the joint would have to be kept in step when
        # motor strength is randomised.
        joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_FALSE


def _set_shapes(spec: mujoco.MjSpec, robot: RobotModel, collision: Collision) -> None:
    for geom in spec.geoms:
        if geom.name == FLOOR:
            continue
        if geom.contype == 0 and geom.conaffinity == 0:
            geom.group = VISUAL_GROUP
            continue
        geom.group = COLLISION_GROUP
        geom.condim = 3
        is_sole = geom.parent.name in robot.foot_links and geom.type == mujoco.mjtGeom.mjGEOM_SPHERE
        if is_sole:
            # Priority: the sole's friction counts, whatever it stands on, so that randomising it is enough.
            geom.priority = 1
            geom.friction = [SOLE_FRICTION, 0.005, 0.0001]
        elif geom.type == mujoco.mjtGeom.mjGEOM_CYLINDER:
            # URDF has no capsules; the capsule within the cylinder collides analytically, which is faster and
            # smoother than MuJoCo's general convex collision of cylinders.
            geom.type = mujoco.mjtGeom.mjGEOM_CAPSULE
            geom.size = [geom.size[0], max(geom.size[1] - geom.size[0], 1e-4), 0.0]
        # The floor's contype is 1; shapes of the robot find each other by 2.
        of_robot = 0 if collision == "feet" else 2
        on_floor = 1 if is_sole or collision == "full" else 0
        geom.contype, geom.conaffinity = of_robot, of_robot | on_floor


def _round_soles(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    """Two capsules along each foot in the place of its balls, with their lowest lines where the balls' lowest points
    were: an edge between heel and toe meets the foot."""
    radius = SOLE_RADIUS_ON_HEIGHT_FIELD
    for link in robot.foot_links:
        balls = sorted(
            (geom for geom in spec.body(link).geoms if geom.priority > 0), key=lambda geom: geom.pos[0]
        )
        for side in (-1.0, 1.0):
            heel, *_, toe = [ball for ball in balls if side * ball.pos[1] > 0.0]
            along = toe.pos - heel.pos
            quat = np.zeros(4)
            mujoco.mju_quatZ2Vec(quat, along / np.linalg.norm(along))
            heel.type = mujoco.mjtGeom.mjGEOM_CAPSULE
            heel.pos = 0.5 * (heel.pos + toe.pos) + [0.0, 0.0, radius - heel.size[0]]
            heel.quat = quat
            heel.size = [radius, 0.5 * np.linalg.norm(along), 0.0]
            spec.delete(toe)


def _add_actuators(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    for i, name in enumerate(robot.joint_names):
        actuator = spec.add_actuator(
            name=name,
            target=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gaintype=mujoco.mjtGain.mjGAIN_FIXED,
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
            forcelimited=mujoco.mjtLimited.mjLIMITED_TRUE,
            forcerange=[-robot.effort_limit[i], robot.effort_limit[i]],
        )
        actuator.gainprm[:] = 0.0
        actuator.gainprm[0] = 1.0
        actuator.biasprm[:] = 0.0


def _add_sensors(spec: mujoco.MjSpec, robot: RobotModel, collision: Collision) -> None:
    spec.body(robot.imu_link).add_site(name=robot.imu_link, size=[0.01, 0.01, 0.01], group=5)
    kinds = (
        mujoco.mjtSensor.mjSENS_GYRO,
        mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        mujoco.mjtSensor.mjSENS_FRAMEQUAT,
    )
    for name, kind in zip(IMU_SENSORS, kinds, strict=True):
        spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=robot.imu_link)
    found, force = mujoco.mjtConDataField.mjCONDATA_FOUND, mujoco.mjtConDataField.mjCONDATA_FORCE
    fields = (1 << int(found)) | (1 << int(force))
    net_force = 3  # sensor/contact attribute reduce="netforce"
    for name, link in zip(FOOT_CONTACT_SENSORS, robot.foot_links, strict=True):
        # Force points from the first to the second: the ground first gives the ground's force on the foot.
        spec.add_sensor(
            name=name,
            type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            objname="world",
            reftype=mujoco.mjtObj.mjOBJ_BODY,
            refname=link,
            intprm=[fields, net_force, 1],
        )
    if collision != "feet":
        # Between any two links of the tree that hangs from the base (XBODY stands for a subtree).
        tree = {"objtype": mujoco.mjtObj.mjOBJ_XBODY, "reftype": mujoco.mjtObj.mjOBJ_XBODY}
        spec.add_sensor(
            name=SELF_CONTACT_SENSOR,
            type=mujoco.mjtSensor.mjSENS_CONTACT,
            objname=robot.base_link,
            refname=robot.base_link,
            intprm=[1 << int(found), net_force, 1],
            **tree,
        )


def _add_home(spec: mujoco.MjSpec, robot: RobotModel) -> None:
    # Compiling a copy tells where the joints are in qpos, whatever their order in the tree.
    model = spec.copy().compile()
    qpos = model.qpos0.copy()
    qpos[:7] = [0.0, 0.0, robot.default_base_height, 1.0, 0.0, 0.0, 0.0]
    qpos[joint_qpos_address(model, robot)] = robot.default_position
    spec.add_key(name=HOME_KEYFRAME, qpos=qpos, qvel=np.zeros(model.nv), ctrl=np.zeros(model.nu))


def _exclude_neighbours(spec: mujoco.MjSpec) -> None:
    """Exclude the pairs of links that overlap by design.

    MuJoCo excludes parent and child by itself; here go links two joints apart (the hips' and wrists' joint
    groups nest in each other) and pairs that overlap in the zero or the home pose.
    """
    model = spec.copy().compile()
    pairs: set[tuple[int, int]] = set()
    for a, b in itertools.combinations(range(1, model.nbody), 2):
        grandparents = {model.body_parentid[model.body_parentid[body]] for body in (a, b)}
        siblings = model.body_parentid[a] == model.body_parentid[b]
        if a in grandparents or b in grandparents or siblings:
            pairs.add((a, b))
    data = mujoco.MjData(model)
    home = model.key(HOME_KEYFRAME).id
    for pose in (model.qpos0, model.key_qpos[home]):
        data.qpos[:] = pose
        # Clear of the floor, whose contacts are wanted.
        data.qpos[2] += 1.0
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            first, second = sorted(int(body) for body in model.geom_bodyid[contact.geom])
            pairs.add((first, second))
    for a, b in sorted(pairs):
        if a > 0:
            spec.add_exclude(bodyname1=model.body(a).name, bodyname2=model.body(b).name)
