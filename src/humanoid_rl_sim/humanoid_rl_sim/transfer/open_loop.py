"""The same joint targets from the same state in every simulator: whatever differs afterwards is the simulators'.

Two kinds of targets. `record_policy` takes two seconds of what a policy commands in MuJoCo, contacts and all.
`in_the_air` drops the robot from a height while its joints follow smooth random targets, so that nothing but its
inertias, motors and integration can differ.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from humanoid_rl_core.robot import Gains, RobotModel, load_robot
from numpy.typing import NDArray

from humanoid_rl_sim.learning.actor import MakeActor, run_episodes
from humanoid_rl_sim.simulators.contract import InitialState, Simulator
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import TaskConfig
from humanoid_rl_sim.tasks.making import make_environment

Floats = NDArray[np.float32]

WALKS = ((0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.5))
"""vx m/s, vy m/s, yaw rate rad/s of the recorded robots."""
PUSH = 0.2
"""m/s with which a robot that only stands is pushed, one from each side: without, it would have nothing to do."""
WARM_UP = 2.0
"""s before the recording, after which a walk is a walk."""
RECORDED = 2.0
"""s."""
HEIGHT = 3.0
"""m of the base at the start of the fall; after `FALL` the feet are still a metre above the ground."""
FALL = 0.5
"""s."""
AMPLITUDE = 0.25
"""rad, largest excursion of the targets in the fall: enough to load the motors."""
FREQUENCIES = (1.0, 2.0, 3.0)
"""Hz of the sines that the targets in the fall are made of."""
CANDIDATES = 8
"""Falls that are tried for each that is taken: the hands of some touch the hips, and contacts are not what is asked."""


@dataclass(frozen=True)
class OpenLoop:
    """K robots that start from a state and are told targets."""

    start: dict[str, Floats]
    """The fields of `InitialState`, [K, ...] each."""
    targets: Floats
    """[T, K, n] rad, each held for `period`."""
    period: float
    """s."""
    gains: Gains
    """With which the motors follow."""

    @property
    def robots(self) -> int:
        return self.targets.shape[1]

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """For an NPZ file; `from_arrays` reads them."""
        return {
            **{f"{prefix}.start.{name}": values for name, values in self.start.items()},
            f"{prefix}.targets": self.targets,
            f"{prefix}.period": np.array(self.period),
            f"{prefix}.stiffness": self.gains.stiffness,
            f"{prefix}.damping": self.gains.damping,
        }

    @classmethod
    def from_arrays(cls, arrays: Any, prefix: str) -> OpenLoop | None:
        """What `arrays` wrote, None where it is not there."""
        if f"{prefix}.targets" not in arrays:
            return None
        start = {
            field.name: arrays[f"{prefix}.start.{field.name}"] for field in dataclasses.fields(InitialState)
        }
        gains = Gains(arrays[f"{prefix}.stiffness"], arrays[f"{prefix}.damping"])
        return cls(start, arrays[f"{prefix}.targets"], float(arrays[f"{prefix}.period"]), gains)


def record_policy(
    task: TaskConfig, make_actor: MakeActor, gains: Gains, *, moves: bool, seed: int
) -> OpenLoop | None:
    """What a policy commands within `RECORDED` seconds on level ground in MuJoCo, without noise.

    Args:
        task: the task.
        make_actor: the policy.
        gains: those it runs under.
        moves: whether the task commands motion: `WALKS`, otherwise pushes from all sides.
        seed: of the poses the robots start from, `WARM_UP` before the recording.

    Returns:
        The robots that stayed up; None where none did.
    """
    count = len(WALKS)
    environment = make_environment(
        task, "mujoco", count, seed=seed, training=False, collision="full", level=True
    )
    environment.max_episode_steps = 1 << 30
    environment.set_command(torch.tensor(WALKS) * float(moves))
    begin = round(WARM_UP / task.control_period)
    start: dict[str, Floats] = {}
    targets: list[torch.Tensor] = []
    fell = torch.zeros(count, dtype=torch.bool)

    def on_step(step: int, outcome: Any) -> None:
        nonlocal fell
        fell = fell | outcome.terminated
        if step >= begin:
            targets.append(environment.joint_target.clone())
        if step + 1 == begin:
            state = environment.simulator.state
            start.update(
                {
                    field.name: getattr(state, field.name).numpy().copy()
                    for field in dataclasses.fields(InitialState)
                }
            )
            if not moves:
                angle = 2.0 * math.pi * torch.arange(count) / count
                delta = PUSH * torch.stack((torch.cos(angle), torch.sin(angle), 0.0 * angle), 1)
                environment.simulator.add_base_velocity(torch.ones(count, dtype=torch.bool), delta)
                start["base_lin_vel"] += delta.numpy()

    try:
        steps = begin + round(RECORDED / task.control_period)
        run_episodes(environment, make_actor(environment), steps, on_step)
    finally:
        environment.close()
    stood = ~fell.numpy()
    if not stood.any():
        return None
    return OpenLoop(
        {name: values[stood] for name, values in start.items()},
        torch.stack(targets).numpy()[:, stood],
        task.control_period,
        gains,
    )


def in_the_air(task: TaskConfig, gains: Gains, robots: int, *, seed: int) -> OpenLoop:
    """A fall from `HEIGHT` with smooth random targets around the default pose, in which no robot touches itself.

    Args:
        task: whose robot and control period are meant.
        gains: of the motors.
        robots: how many.
        seed: of the targets.
    """
    robot = load_robot(task.robot, task.variant)
    tried = _fall(robot, gains, task.control_period, CANDIDATES * robots, seed=seed)
    simulator = make_simulator(
        "mujoco", robot, tried.robots, timestep=task.physics_timestep, collision="full"
    )
    try:
        touched = replay(simulator, tried)["self_contact"].any(0)
    finally:
        simulator.close()
    free = np.flatnonzero(~touched)[:robots]
    assert len(free) == robots, "the targets of a fall are too large"
    start = {name: values[free] for name, values in tried.start.items()}
    return dataclasses.replace(tried, start=start, targets=tried.targets[:, free])


def _fall(robot: RobotModel, gains: Gains, period: float, robots: int, *, seed: int) -> OpenLoop:
    """Targets within the joints' limits, whatever they make touch."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(FALL / period)) * period
    n = robot.joint_count
    # Sines that start at 0; their amplitudes add up to at most AMPLITUDE.
    share = generator.uniform(-1.0, 1.0, (len(FREQUENCIES), robots, n)) / len(FREQUENCIES)
    waves = np.sin(2.0 * math.pi * np.outer(time, FREQUENCIES))
    swing = AMPLITUDE * np.einsum("tf,fkn->tkn", waves, share)
    pose = np.tile(robot.default_position, (robots, 1))
    targets = np.clip(pose + swing, robot.position_lower, robot.position_upper)
    zeros = np.zeros((robots, 3), np.float32)
    start = {
        "joint_pos": pose.astype(np.float32),
        "joint_vel": np.zeros((robots, n), np.float32),
        "base_pos": zeros + np.array([0.0, 0.0, HEIGHT], np.float32),
        "base_quat": np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (robots, 1)),
        "base_lin_vel": zeros,
        "base_ang_vel": zeros,
    }
    return OpenLoop(start, targets.astype(np.float32), period, gains)


def replay(simulator: Simulator, commands: OpenLoop) -> dict[str, Floats]:
    """The commands in a simulator of as many robots.

    Returns:
        joint_pos [T + 1, K, n] rad, base_pos [T + 1, K, 3] m and base_quat [T + 1, K, 4], beginning with the start,
        and self_contact [T + 1, K].
    """
    device, substeps = simulator.device, round(commands.period / simulator.timestep)
    start = InitialState(**{name: torch.as_tensor(v).to(device) for name, v in commands.start.items()})
    targets = torch.as_tensor(commands.targets).to(device)
    told = ("joint_pos", "base_pos", "base_quat", "self_contact")
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in told}
    simulator.set_gains(commands.gains)
    with torch.no_grad():
        simulator.reset(torch.ones(simulator.num_envs, dtype=torch.bool, device=device), start)
        for target in (None, *targets):
            if target is not None:
                simulator.set_joint_target(target)
                simulator.advance(substeps)
                simulator.refresh()
            for name in told:
                seen[name].append(getattr(simulator.state, name).cpu().clone())
    return {name: torch.stack(values).numpy() for name, values in seen.items()}
