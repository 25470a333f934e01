"""An Isaac Lab environment around a policy's contract: raw sensors out, joint targets in.

Only Isaac Lab's own terms make it up: its observation, action, command, event, reward and termination managers around
the USD of `urdf/`. The observation group `policy` has the inputs of the exported graph by their names, in the
contract's joint order; the action is the graph's `joint_target`. What the graph does in between (observation,
statistics, history, scales) has no second form here.

Gains, effort limits, pose and period are the contract's. What ends an episode, how it starts and how long a physics
step is come from the task that the policy was trained on, or from `walk` where an imported policy does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import isaaclab.sim as sim_utils
import numpy as np
import torch
from humanoid_rl_core.contract import UNKNOWN, PolicyContract
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel, load_robot
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg
from isaaclab.envs import ManagerBasedEnv, ManagerBasedRLEnvCfg, mdp
from isaaclab.managers import (
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    SceneEntityCfg,
    TerminationTermCfg,
)
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import ImuCfg
from isaaclab.utils import configclass
from isaaclab_physx.sim.spawners.materials import RigidBodyMaterialCfg
from pxr import Sdf

from humanoid_rl_sim.simulators.ground_usd import SLAB
from humanoid_rl_sim.simulators.isaac_scene import ENGINES, GROUND, ROBOT, SPACING, Engine
from humanoid_rl_sim.simulators.isaac_session import without_pinned_memory
from humanoid_rl_sim.simulators.robot_usd import HASH_KEY
from humanoid_rl_sim.tasks.configuration import COMMAND_NAMES, TaskConfig, load_task

COMMAND = "base_velocity"
FALLBACK_TASK = "walk"
TRACKING_STD = 0.5
"""m/s and rad/s: the width of the tracking rewards in Isaac Lab's own velocity tasks."""


def imu_quat(env: ManagerBasedEnv) -> torch.Tensor:
    """[N, 4] attitude of the IMU, (w, x, y, z) where Isaac Lab has (x, y, z, w).

    The IMU is fixed to the base without rotation.
    """
    return mdp.root_quat_w(env).roll(1, dims=1)


@configclass
class SensorsCfg(ObservationGroupCfg):
    """The inputs of the exported graph, by their names."""

    joint_pos: ObservationTermCfg | None = None
    joint_vel: ObservationTermCfg | None = None
    imu_gyro: ObservationTermCfg = ObservationTermCfg(func=mdp.imu_ang_vel)
    imu_quat: ObservationTermCfg = ObservationTermCfg(func=imu_quat)
    command: ObservationTermCfg = ObservationTermCfg(
        func=mdp.generated_commands, params={"command_name": COMMAND}
    )
    """All of `COMMAND_NAMES`, whichever of them the policy takes."""
    concatenate_terms: bool = False


@configclass
class MotionCfg(ObservationGroupCfg):
    """What only a simulation knows, for judging: velocities of the base in its own frame, m/s and rad/s."""

    base_lin_vel: ObservationTermCfg = ObservationTermCfg(func=mdp.base_lin_vel)
    base_ang_vel: ObservationTermCfg = ObservationTermCfg(func=mdp.base_ang_vel)
    concatenate_terms: bool = False


@configclass
class ObservationsCfg:
    policy: SensorsCfg = SensorsCfg()
    motion: MotionCfg = MotionCfg()


@configclass
class ActionsCfg:
    joint_target: mdp.JointPositionActionCfg | None = None


@configclass
class CommandsCfg:
    base_velocity: mdp.UniformVelocityCommandCfg | None = None


@configclass
class EventsCfg:
    """Every episode starts near the default pose, within the noise of the task's starts."""

    reset_base: EventTermCfg | None = None
    reset_joints: EventTermCfg | None = None


@configclass
class RewardsCfg:
    """The two terms of Isaac Lab's velocity tasks that say how well a command is followed."""

    track_lin_vel_xy_exp: RewardTermCfg = RewardTermCfg(
        func=mdp.track_lin_vel_xy_exp, weight=1.0, params={"command_name": COMMAND, "std": TRACKING_STD}
    )
    track_ang_vel_z_exp: RewardTermCfg = RewardTermCfg(
        func=mdp.track_ang_vel_z_exp, weight=0.5, params={"command_name": COMMAND, "std": TRACKING_STD}
    )


@configclass
class TerminationsCfg:
    time_out: TerminationTermCfg = TerminationTermCfg(func=mdp.time_out, time_out=True)
    tilted: TerminationTermCfg | None = None
    too_low: TerminationTermCfg | None = None


@configclass
class SceneCfg(InteractiveSceneCfg):
    ground: AssetBaseCfg | None = None
    robot: ArticulationCfg | None = None
    imu: ImuCfg | None = None


def environment_cfg(
    contract: PolicyContract,
    robot: RobotModel,
    usd: Path,
    *,
    engine: str = "ovphysx",
    num_envs: int = 1,
    seconds: float | None = None,
    command: Sequence[float] | None = None,
    device: str = "cpu",
    seed: int = 0,
    task: str | None = None,
) -> ManagerBasedRLEnvCfg:
    """The configuration of a `ManagerBasedRLEnv` in which the policy of this contract can act.

    Args:
        contract: of the policy.
        robot: the robot that the policy was loaded for.
        usd: its file, such as `urdf/g1.usda`.
        engine: one of `isaac_scene.ENGINES`.
        num_envs: number of robots.
        seconds: length of an episode; None for the task's.
        command: `COMMAND_NAMES`, held for the whole episode; None to draw from the ranges of the contract.
        device: of the physics.
        seed: of starts and commands.
        task: whose starts, terminations and physics step these are; None for that of the policy's training.

    Raises:
        UserError: unknown engine or task, a command beyond the policy's range, or an input or a termination that this
            environment does not have.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'{nearest(engine, ENGINES)}; engines: {', '.join(ENGINES)}")
    if contract.height_scan is not None:
        raise UserError(
            f"policy '{contract.name}' sees the ground, which this environment does not measure; "
            "choose a policy without a height scan"
        )
    if command is not None:
        _check_command(contract, command)
    # Whoever makes the environment of this, Isaac Lab's own commands too, needs it by then.
    without_pinned_memory()
    choice = ENGINES[engine]
    known = contract.training.task not in ("", UNKNOWN)
    config = load_task(task or (contract.training.task if known else FALLBACK_TASK))
    substeps = max(1, round(contract.control_period / config.physics_timestep))
    seconds = config.episode_length if seconds is None else seconds
    joints = list(contract.joint_names)
    observations, actions, commands = ObservationsCfg(), ActionsCfg(), CommandsCfg()
    observations.policy.joint_pos = ObservationTermCfg(
        func=mdp.joint_pos, params={"asset_cfg": _joints(joints)}
    )
    observations.policy.joint_vel = ObservationTermCfg(
        func=mdp.joint_vel, params={"asset_cfg": _joints(joints)}
    )
    actions.joint_target = mdp.JointPositionActionCfg(
        asset_name="robot", joint_names=joints, preserve_order=True, use_default_offset=False
    )
    commands.base_velocity = _command(contract, command, seconds)
    return ManagerBasedRLEnvCfg(
        seed=seed,
        decimation=substeps,
        episode_length_s=seconds,
        sim=sim_utils.SimulationCfg(
            dt=contract.control_period / substeps,
            render_interval=substeps,
            device=device,
            physics=choice.physics(False),
            save_logs_to_file=False,
        ),
        scene=SceneCfg(
            num_envs=num_envs,
            env_spacing=SPACING,
            ground=_ground(choice),
            robot=_robot(contract, robot, usd),
            imu=ImuCfg(prim_path=f"{ROBOT}/{robot.base_link}"),
        ),
        observations=observations,
        actions=actions,
        commands=commands,
        events=_starts(config),
        rewards=RewardsCfg(),
        terminations=_terminations(config),
    )


def _check_command(contract: PolicyContract, command: Sequence[float]) -> None:
    """The graph clamps commands, so one beyond its range would be another than it seems."""
    ranges = dict(
        zip(
            contract.command_names,
            zip(contract.command_lower, contract.command_upper, strict=True),
            strict=True,
        )
    )
    for name, value in zip(COMMAND_NAMES, command, strict=True):
        lower, upper = ranges.get(name, (0.0, 0.0))
        if not lower <= value <= upper:
            raise UserError(
                f"policy '{contract.name}' takes {name} from {lower:g} to {upper:g}, not {value:g}"
            )


def walking_policy_cfg() -> ManagerBasedRLEnvCfg:
    """What the registered environment is without a configuration given: that of the walking policy shipped here."""
    robot = load_robot()
    contract = OnnxPolicy(share_dir() / "policies" / "g1_walk.onnx", robot).contract
    usd = shipped_usd(robot)
    assert usd is not None
    return environment_cfg(contract, robot, usd, num_envs=16)


def shipped_usd(robot: RobotModel) -> Path | None:
    """The file of `urdf/` where it was made from this very description, else None."""
    path = share_dir() / "urdf" / f"{robot.name}.usda"
    layer = Sdf.Layer.FindOrOpen(str(path)) if path.is_file() else None
    if layer is None or layer.customLayerData.get(HASH_KEY) != robot.description_hash:
        return None
    return path


def _joints(names: list[str]) -> SceneEntityCfg:
    return SceneEntityCfg("robot", joint_names=names, preserve_order=True)


def _ground(engine: Engine) -> AssetBaseCfg:
    """Level, with the friction that leaves the sole's to count."""
    material = RigidBodyMaterialCfg(
        static_friction=engine.ground_friction,
        dynamic_friction=engine.ground_friction,
        restitution=0.0,
        friction_combine_mode=engine.friction_combination,
    )
    return AssetBaseCfg(
        prim_path=GROUND,
        spawn=sim_utils.CuboidCfg(
            size=(SLAB, SLAB, 1.0),
            collision_props=sim_utils.CollisionBaseCfg(),
            physics_material=material,
        ),
        init_state=AssetBaseCfg.InitialStateCfg(pos=(0.0, 0.0, -0.5)),
    )


def _robot(contract: PolicyContract, robot: RobotModel, usd: Path) -> ArticulationCfg:
    """Armature is the file's; velocity is not limited, as in the other simulators."""

    def by_joint(values: np.ndarray) -> dict[str, float]:
        return dict(zip(contract.joint_names, map(float, values), strict=True))

    motors = ImplicitActuatorCfg(
        joint_names_expr=list(contract.joint_names),
        stiffness=by_joint(contract.stiffness),
        damping=by_joint(contract.damping),
        joint_effort_limit=by_joint(contract.effort_limit),
        joint_velocity_limit=1000.0,
    )
    return ArticulationCfg(
        prim_path=ROBOT,
        spawn=sim_utils.UsdFileCfg(usd_path=str(usd)),
        init_state=ArticulationCfg.InitialStateCfg(
            pos=(0.0, 0.0, robot.default_base_height), joint_pos=by_joint(contract.default_position)
        ),
        actuators={"motors": motors},
    )


def _command(
    contract: PolicyContract, command: Sequence[float] | None, seconds: float
) -> mdp.UniformVelocityCommandCfg:
    ranges = dict.fromkeys(COMMAND_NAMES, (0.0, 0.0))
    if command is not None:
        ranges |= {name: (value, value) for name, value in zip(COMMAND_NAMES, command, strict=True)}
    else:
        lower, upper = contract.command_lower.tolist(), contract.command_upper.tolist()
        ranges |= dict(zip(contract.command_names, zip(lower, upper, strict=True), strict=True))
    return mdp.UniformVelocityCommandCfg(
        asset_name="robot",
        resampling_time_range=(2.0 * seconds, 2.0 * seconds),
        ranges=mdp.UniformVelocityCommandCfg.Ranges(
            lin_vel_x=ranges["vx"], lin_vel_y=ranges["vy"], ang_vel_z=ranges["yaw_rate"]
        ),
    )


def _starts(task: TaskConfig) -> EventsCfg:
    noise = task.reset

    def around(half_width: float) -> tuple[float, float]:
        return -half_width, half_width

    tilt, velocity = around(noise.tilt_noise), around(noise.base_velocity_noise)
    base = {"pose_range": {"roll": tilt, "pitch": tilt}, "velocity_range": {"x": velocity, "y": velocity}}
    joints = {"position_range": around(noise.joint_noise), "velocity_range": around(noise.joint_vel_noise)}
    starts = EventsCfg()
    # A class, which Isaac Lab's managers take as well as functions, but not its types.
    reset_base: Any = mdp.reset_root_state_uniform
    starts.reset_base = EventTermCfg(func=reset_base, mode="reset", params=base)
    starts.reset_joints = EventTermCfg(func=mdp.reset_joints_by_offset, mode="reset", params=joints)
    return starts


def _terminations(task: TaskConfig) -> TerminationsCfg:
    ends = TerminationsCfg()
    for name, values in task.terminations.items():
        match name:
            case "tilted":
                ends.tilted = TerminationTermCfg(
                    func=mdp.bad_orientation, params={"limit_angle": values["limit"]}
                )
            case "too_low":
                ends.too_low = TerminationTermCfg(
                    func=mdp.root_height_below_minimum, params={"minimum_height": values["height"]}
                )
            case _:
                raise UserError(
                    f"task {task.name} ends episodes by '{name}', which this environment does not have; play it by "
                    "another with --task"
                )
    return ends
