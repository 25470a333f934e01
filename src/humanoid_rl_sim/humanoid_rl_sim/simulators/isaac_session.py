"""One simulation in Isaac Lab, from its launch to its end: one exists in a process at a time, as Isaac Lab has it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import isaaclab.sim as sim_utils
import warp as wp
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel
from isaaclab.app import launch_simulation
from isaaclab.scene import InteractiveScene
from isaaclab.utils import instantiate

from humanoid_rl_sim.simulators.camera import CameraConfig
from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.simulators.height_field import HeightField
from humanoid_rl_sim.simulators.isaac_scene import ENGINES, scene_configuration


def open_session(
    stack: contextlib.ExitStack,
    robot: RobotModel,
    num_envs: int,
    *,
    engine: str,
    timestep: float,
    device: str,
    collision: Collision,
    sensed_links: Sequence[str],
    height_field: HeightField | None = None,
    camera: CameraConfig | None = None,
    visualizer: str = "",
    threads: int | None = None,
) -> tuple[sim_utils.SimulationContext, InteractiveScene]:
    """Ground and robots in an engine, ready to be stepped.

    Args:
        stack: gives back what the simulation holds when it is closed.
        robot: the robot.
        num_envs: number of robots.
        engine: one of `isaac_scene.ENGINES`.
        timestep: physics step in s.
        device: from `torch_device.choose_device`.
        collision: what collides.
        sensed_links: the links that get a contact sensor.
        height_field: the ground; level without.
        camera: what every robot carries.
        visualizer: of Isaac Lab's (`registry.VISUALIZERS`), to watch by; "" for none.
        threads: of OVPhysX beside the caller's; None for Isaac Lab's choice.

    Raises:
        UserError: unknown engine, or another simulation is still open in this process.
    """
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'{nearest(engine, ENGINES)}; engines: {', '.join(ENGINES)}")
    if sim_utils.SimulationContext.instance() is not None:
        raise UserError("simulator isaac: another simulation is open in this process; close it first")
    without_pinned_memory()
    choice = ENGINES[engine]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="humanoid_rl_isaac_")))
    physics = choice.physics(height_field is not None)
    launcher = {
        "device": device,
        "headless": visualizer != "kit",
        "visualizer": [visualizer] if visualizer else [],
        "enable_cameras": camera is not None,
    }
    stack.enter_context(launch_simulation(physics, launcher))
    configuration = sim_utils.SimulationCfg(
        dt=timestep, device=device, physics=physics, save_logs_to_file=False
    )
    context = sim_utils.SimulationContext(configuration)
    stack.callback(sim_utils.SimulationContext.clear_instance)
    scene_cfg = scene_configuration(
        robot,
        num_envs,
        choice,
        folder,
        collision=collision,
        height_field=height_field,
        sensed_links=sensed_links,
        camera=camera,
    )
    scene: InteractiveScene = instantiate(scene_cfg)
    with _ovphysx_threads(threads if engine == "ovphysx" else None):
        context.reset()
    if engine == "newton":
        without_kernel_prints()
    return context, scene


@contextlib.contextmanager
def _ovphysx_threads(count: int | None) -> Iterator[None]:
    """Isaac Lab gives OVPhysX 8 threads and leaves no choice. They wait in loops: with a single robot they cost more
    than they do, and under a real-time priority they keep everybody else from the processors."""
    if count is None:
        yield
        return
    import ovphysx

    configure: Any = ovphysx.PhysXConfig
    ovphysx.PhysXConfig = lambda **settings: configure(**settings | {"num_threads": count})
    try:
        yield
    finally:
        ovphysx.PhysXConfig = configure


def without_kernel_prints() -> None:
    """MuJoCo-Warp prints a line for every robot whose line search ended at its limit, as it often does in a fall."""
    from isaaclab_newton.physics import NewtonManager

    solver: Any = NewtonManager._solver
    solver.mjw_model.opt.warn_overflow = False


def without_pinned_memory() -> None:
    """Warp's pinned allocator needs CUDA, and OVPhysX asks for it on the CPU too."""
    wp.init()
    if not wp.is_cuda_available():
        cpu: Any = wp.get_device("cpu")
        cpu.pinned_allocator = cpu.default_allocator
