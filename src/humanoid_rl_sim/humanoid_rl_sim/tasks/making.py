"""From a task's configuration to the environment that runs it."""

from __future__ import annotations

from humanoid_rl_core.robot import load_robot

from humanoid_rl_sim.simulators.camera import CameraConfig
from humanoid_rl_sim.simulators.contract import Collision
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import TaskConfig
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.terrain import make_terrain


def make_environment(
    task: TaskConfig,
    sim: str,
    num_envs: int,
    *,
    seed: int = 0,
    training: bool = True,
    collision: Collision | None = None,
    level: bool = False,
    camera: CameraConfig | None = None,
    visualizer: str = "",
) -> Environment:
    """The task's robot on the task's ground in the simulator of that name.

    Args:
        task: the task.
        sim: one of the simulators (`humanoid_rl_sim.simulators.registry`).
        num_envs: number of robots.
        seed: seeds every random draw.
        training: False turns observation noise, pushes, latency, randomisation and curricula off.
        collision: what collides; the task's choice without.
        level: on level ground in place of the task's terrain.
        camera: what every robot carries; its images are `Environment.images`.
        visualizer: to watch by; one of `registry.VISUALIZERS`, "" for none.

    Raises:
        UserError: unknown robot or simulator, a simulator whose engine is not installed, or that has no
            camera or visualizer.
    """
    terrain = make_terrain(task.terrain) if task.terrain and not level else None
    simulator = make_simulator(
        sim,
        load_robot(task.robot, task.variant),
        num_envs,
        timestep=task.physics_timestep,
        collision=collision or task.collision,
        height_field=terrain.field if terrain else None,
        camera=camera,
        visualizer=visualizer,
    )
    return Environment(task, simulator, seed=seed, training=training, terrain=terrain, level=level)
