"""The simulators by the name users give them (`sim:=NAME`)."""

from __future__ import annotations

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel

from humanoid_rl_sim.simulators.contract import Simulator

SIMULATORS = ("mujoco", "mujoco_warp")


def make_simulator(name: str, robot: RobotModel, num_envs: int, *, timestep: float) -> Simulator:
    """A simulator with `num_envs` copies of `robot`; imports its engine only now.

    Raises:
        UserError: unknown name.
    """
    if name == "mujoco":
        from humanoid_rl_sim.simulators.mujoco import MujocoSimulator

        return MujocoSimulator(robot, num_envs, timestep=timestep)
    if name == "mujoco_warp":
        try:
            from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
        except ModuleNotFoundError as error:
            raise UserError(
                f"simulator mujoco_warp needs the package {error.name}: pip install -r requirements/gpu.txt"
            ) from None
        return MujocoWarpSimulator(robot, num_envs, timestep=timestep)
    raise UserError(
        f"unknown simulator '{name}'{nearest(name, SIMULATORS)}; simulators: {', '.join(SIMULATORS)}"
    )
