"""The simulators by the name users give them (`sim:=NAME`)."""

from __future__ import annotations

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel

from humanoid_rl_sim.simulators.camera import CameraConfig
from humanoid_rl_sim.simulators.contract import Collision, Simulator
from humanoid_rl_sim.simulators.height_field import HeightField

ISAAC_ENGINES = ("newton", "ovphysx", "isaacsim")
SIMULATORS = ("mujoco", "mujoco_warp", *(f"isaac:{engine}" for engine in ISAAC_ENGINES))
SIMULATOR_KINDS = ("mujoco", "mujoco_warp", "isaac")
"""As launch files have it, with an argument of its own for Isaac's engine."""


def check_simulator(name: str) -> None:
    """Raises UserError unless `name` is one of `SIMULATORS`."""
    if name not in SIMULATORS:
        raise UserError(
            f"unknown simulator '{name}'{nearest(name, SIMULATORS)}; simulators: {', '.join(SIMULATORS)}"
        )


VISUALIZERS = ("kit", "newton_gl", "viser", "rerun")
"""Of Isaac Lab: Isaac Sim's window, a window without it, and two pages in a browser."""


def check_visualizer(name: str, visualizer: str) -> None:
    """Raises UserError unless the simulator can be watched by `visualizer`; "" is none."""
    if not visualizer:
        return
    if visualizer not in VISUALIZERS:
        known = ", ".join(VISUALIZERS)
        raise UserError(
            f"unknown visualizer '{visualizer}'{nearest(visualizer, VISUALIZERS)}; visualizers: {known}"
        )
    if not name.startswith("isaac:"):
        raise UserError(f"simulator {name} has no visualizer; humanoid-rl view shows every training")
    if (visualizer == "kit") != (name == "isaac:isaacsim"):
        raise UserError(f"visualizer {visualizer} does not go with {name}: kit is that of isaac:isaacsim")


def check_camera(name: str) -> None:
    """Raises UserError unless the simulator renders what a camera sees."""
    if not name.startswith("isaac:"):
        engines = ", ".join(f"isaac:{engine}" for engine in ISAAC_ENGINES)
        raise UserError(f"simulator {name} has no camera; simulators that have one: {engines}")


def make_simulator(
    name: str,
    robot: RobotModel,
    num_envs: int,
    *,
    timestep: float,
    collision: Collision = "feet",
    height_field: HeightField | None = None,
    camera: CameraConfig | None = None,
    visualizer: str = "",
) -> Simulator:
    """A simulator with `num_envs` copies of `robot`; imports its engine only now.

    Args:
        name: one of `SIMULATORS`.
        robot: the robot.
        num_envs: number of environments.
        timestep: physics step in s.
        collision: what collides: the soles with the ground, the robot also with itself, or all with all.
        height_field: the ground; level without.
        camera: what every robot carries.
        visualizer: one of `VISUALIZERS`; "" for none.

    Raises:
        UserError: unknown name, or a camera or visualizer that the simulator does not have.
    """
    check_simulator(name)
    check_visualizer(name, visualizer)
    if camera is not None:
        check_camera(name)
    if name == "mujoco":
        from humanoid_rl_sim.simulators.mujoco import MujocoSimulator

        return MujocoSimulator(
            robot, num_envs, timestep=timestep, collision=collision, height_field=height_field
        )
    if name == "mujoco_warp":
        try:
            from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
        except ModuleNotFoundError as error:
            raise UserError(
                f"simulator mujoco_warp needs the package {error.name}: pip install -r requirements/gpu.txt"
            ) from None
        return MujocoWarpSimulator(
            robot, num_envs, timestep=timestep, collision=collision, height_field=height_field
        )
    try:
        from humanoid_rl_sim.simulators.isaac import IsaacSimulator
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulator {name} needs the package {error.name}: run make isaac, and this with tools/isaac before it"
        ) from None
    return IsaacSimulator(
        robot,
        num_envs,
        engine=name.removeprefix("isaac:"),
        timestep=timestep,
        collision=collision,
        height_field=height_field,
        camera=camera,
        visualizer=visualizer,
    )
