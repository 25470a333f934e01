"""The bodies by the names of the simulators that step them."""

from __future__ import annotations

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel

from .body import CYCLE, Body

ENGINES = ("ovphysx", "newton")
"""Of Isaac Lab, those that step one robot without Isaac Sim."""
SIMULATORS = ("mujoco", *(f"isaac:{engine}" for engine in ENGINES))


def make_body(simulator: str, robot: RobotModel, timestep: float = 0.0, device: str = "") -> Body:
    """A robot in a simulator, which is imported only now.

    :param simulator: one of `SIMULATORS`.
    :param timestep: s; 0 for the simulator's own.
    :param device: of Isaac Lab's physics, see `isaac_body.IsaacBody`.
    :raises UserError: unknown simulator, not installed, or a timestep or device that it cannot have.
    """
    if simulator not in SIMULATORS:
        raise UserError(
            f"unknown simulator '{simulator}'{nearest(simulator, SIMULATORS)}; simulators: {', '.join(SIMULATORS)}"
        )
    if simulator == "mujoco":
        if device:
            raise UserError(
                f"device: goes with the simulators isaac:*, mujoco steps on the CPU, not {device}"
            )
        from .mujoco_body import MujocoBody

        return MujocoBody(robot, timestep or CYCLE)
    try:
        from .isaac_body import TIMESTEP, IsaacBody
    except ModuleNotFoundError as error:
        raise UserError(
            f"simulator {simulator} needs the package {error.name}, which is in the environment of make isaac"
        ) from None
    engine = simulator.removeprefix("isaac:")
    return IsaacBody(robot, engine=engine, timestep=timestep or TIMESTEP, device=device)
