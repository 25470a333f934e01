"""What the `isaac` simulator asks Isaac Lab for: the physics of each engine, ground and robots as USD, the sensors.

Isaac Lab 3 runs without Isaac Sim on Newton (MuJoCo-Warp inside) and on OVPhysX (PhysX); with Isaac Sim the same scene
runs on its PhysX. Here are Isaac Lab's own names and conventions: quaternions (x, y, z, w), a world that all
environments share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import isaaclab.sim as sim_utils
import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg
from isaaclab.physics import PhysicsCfg
from isaaclab.renderers import RendererCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import CameraCfg, ContactSensorCfg, ImuCfg
from isaaclab.utils import configclass

from humanoid_rl_sim.simulators.camera import CameraConfig, Channel
from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.simulators.ground_usd import write_ground_usd
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.mujoco_model import build_mujoco_spec
from humanoid_rl_sim.simulators.robot_usd import write_robot_usd

GROUND = "/World/ground"
ROBOT = "{ENV_REGEX_NS}/Robot"
DATA_TYPES: Mapping[Channel, str] = {"color": "rgb", "depth": "distance_to_image_plane"}
"""Isaac Lab's names of what a camera renders."""
SPACING = 2.5
"""m between neighbouring robots on level ground, so that the broad phase need not look at pairs. On a height field
they stand where the task puts them, in each other's places too: they do not collide either way."""


@dataclass(frozen=True)
class Engine:
    """One of the physics engines behind Isaac Lab."""

    physics: Callable[[bool], PhysicsCfg]
    """Its settings, for a height field or for level ground."""
    ground_friction: float
    """Of the ground, such that the sole's friction alone counts: an engine takes the greater of the two, another their
    product."""
    friction_combination: Literal["multiply", "max"]
    """How an engine of PhysX's combines the two."""
    ground_filter: str
    """The key of a contact sensor that tells the ground's share of the force."""
    renderer: Callable[[], RendererCfg]
    """What renders camera images."""


def _newton(height_field: bool) -> PhysicsCfg:
    from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg

    # Cone, integrator, iterations: as in `mujoco_model`, for the reasons given there. A mesh is its convex hull to
    # MuJoCo, so Newton finds the contacts with it.
    solver = MJWarpSolverCfg(
        cone="elliptic",
        integrator="implicitfast",
        iterations=10,
        ls_iterations=20,
        njmax=200,
        nconmax=48,
        use_mujoco_contacts=not height_field,
    )
    return NewtonCfg(solver_cfg=solver)


def _ovphysx(height_field: bool) -> PhysicsCfg:
    from isaaclab_ov.physics import OvPhysxCfg

    return OvPhysxCfg(enable_enhanced_determinism=True)


def _isaacsim(height_field: bool) -> PhysicsCfg:
    if find_spec("isaacsim") is None:
        raise UserError(
            "engine isaacsim needs Isaac Sim: tools/isaac python -m pip install 'isaaclab[isaacsim]==3.0.0'"
        )
    from isaaclab_physx.physics import PhysxCfg

    return PhysxCfg(enable_enhanced_determinism=True)


def _warp_renderer() -> RendererCfg:
    from isaaclab_newton.renderers import NewtonWarpRendererCfg

    return NewtonWarpRendererCfg()


def _rtx_renderer() -> RendererCfg:
    from isaaclab_physx.renderers import IsaacRtxRendererCfg

    return IsaacRtxRendererCfg()


ENGINES: Mapping[str, Engine] = {
    "newton": Engine(_newton, 1e-3, "max", "filter_shape_prim_expr", _warp_renderer),
    "ovphysx": Engine(_ovphysx, 1.0, "multiply", "filter_prim_paths_expr", _warp_renderer),
    "isaacsim": Engine(_isaacsim, 1.0, "multiply", "filter_prim_paths_expr", _rtx_renderer),
}
"""By the name users give them (`sim:=isaac engine:=NAME`)."""


@configclass
class SceneCfg(InteractiveSceneCfg):
    """What stands in every environment, in the order in which Isaac Lab makes it."""

    ground: AssetBaseCfg | None = None
    robot: ArticulationCfg | None = None
    imu: ImuCfg | None = None
    camera: CameraCfg | None = None


def scene_configuration(
    robot: RobotModel,
    num_envs: int,
    engine: Engine,
    folder: Path,
    *,
    collision: Collision,
    height_field: HeightField | None,
    sensed_links: Sequence[str],
    camera: CameraConfig | None = None,
) -> SceneCfg:
    """Ground, robots, contact sensors of some links, IMU, camera; writes the USD files they come from into `folder`.

    Joints are in motor order. Armature, effort limits and the stiff gains are the robot model's; velocity is not
    limited, as in the other simulators.
    """
    robot_file, ground_file = folder / "robot.usda", folder / "ground.usda"
    mount = None if camera is None else camera.mount(robot)
    write_robot_usd(robot, robot_file, collision=collision, height_field=height_field, camera=mount)
    write_ground_usd(
        ground_file, height_field, friction=engine.ground_friction, combination=engine.friction_combination
    )

    def by_joint(values: np.ndarray) -> dict[str, float]:
        return dict(zip(robot.joint_names, map(float, values), strict=True))

    gains = robot.gains["stiff"]
    motors = ImplicitActuatorCfg(
        joint_names_expr=list(robot.joint_names),
        stiffness=by_joint(gains.stiffness),
        damping=by_joint(gains.damping),
        armature=by_joint(robot.armature),
        joint_effort_limit=by_joint(robot.effort_limit),
        joint_velocity_limit=1000.0,
        friction=0.0,
    )
    scene = SceneCfg(
        num_envs=num_envs,
        env_spacing=SPACING if height_field is None else 0.0,
        ground=AssetBaseCfg(prim_path=GROUND, spawn=sim_utils.UsdFileCfg(usd_path=str(ground_file))),
        robot=ArticulationCfg(
            prim_path=ROBOT,
            spawn=sim_utils.UsdFileCfg(usd_path=str(robot_file), activate_contact_sensors=True),
            init_state=ArticulationCfg.InitialStateCfg(pos=(0.0, 0.0, robot.default_base_height)),
            joint_ordering=robot.joint_names,
            actuators={"motors": motors},
        ),
        imu=ImuCfg(prim_path=f"{ROBOT}/{robot.base_link}", offset=ImuCfg.OffsetCfg(pos=imu_position(robot))),
        camera=None if camera is None else _camera(camera, robot, engine),
    )
    for link in sensed_links:
        sensor = ContactSensorCfg(prim_path=f"{ROBOT}/{link}", track_friction_forces=True)
        if collision != "feet":
            setattr(sensor, engine.ground_filter, [f"{GROUND}/shape"])
        setattr(scene, contact_sensor(link), sensor)
    return scene


def _camera(camera: CameraConfig, robot: RobotModel, engine: Engine) -> CameraCfg:
    mount = camera.mount(robot)
    x, y, z = mount.position.tolist()
    qw, qx, qy, qz = mount.quaternion.tolist()
    half_width = math.tan(0.5 * mount.horizontal_fov)
    # The farthest corner of the image is farther from the lens than `far` is along its axis.
    corner = math.hypot(1.0, half_width, half_width * camera.height / camera.width)
    return CameraCfg(
        prim_path=f"{ROBOT}/{mount.body}/{camera.name}_camera",
        offset=CameraCfg.OffsetCfg(pos=(x, y, z), rot=(qx, qy, qz, qw), convention="world"),
        spawn=sim_utils.PinholeCameraCfg(
            focal_length=1.0,
            horizontal_aperture=2.0 * half_width,
            clipping_range=(mount.near, mount.far * corner),
        ),
        width=camera.width,
        height=camera.height,
        data_types=[DATA_TYPES[channel] for channel in camera.channels],
        update_latest_camera_pose=True,
        renderer_cfg=engine.renderer(),
    )


def touching_links(robot: RobotModel, collision: Collision) -> tuple[str, ...]:
    """The links that can touch something: the feet, left and right, and then the others with shapes that collide."""
    if collision == "feet":
        return robot.foot_links
    model = build_mujoco_spec(robot, collision=collision).compile()
    links = (model.body(int(body)).name for body in np.unique(model.geom_bodyid))
    return *robot.foot_links, *(link for link in links if link not in ("world", *robot.foot_links))


def imu_position(robot: RobotModel) -> tuple[float, float, float]:
    """m, of the IMU in the frame of the base, to which it is fixed without rotation."""
    x, y, z = build_mujoco_spec(robot).compile().site(robot.imu_link).pos.tolist()
    return x, y, z


def contact_sensor(link: str) -> str:
    """The name of a link's contact sensor in the scene."""
    return f"{link}_contact"
