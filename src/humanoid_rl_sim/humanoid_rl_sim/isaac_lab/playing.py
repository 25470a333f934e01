"""A policy in Isaac Lab's own loop, judged by Isaac Lab's own managers."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import isaaclab.sim as sim_utils
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.robot import RobotModel
from isaaclab.app import launch_simulation
from isaaclab.envs import ManagerBasedRLEnv

from humanoid_rl_sim.isaac_lab import ENVIRONMENT
from humanoid_rl_sim.isaac_lab.configuration import environment_cfg, shipped_usd
from humanoid_rl_sim.learning.onnx_batch import OnnxBatch
from humanoid_rl_sim.simulators.isaac_session import without_kernel_prints
from humanoid_rl_sim.simulators.robot_usd import write_robot_usd
from humanoid_rl_sim.simulators.torch_device import choose_device

SETTLING = 2.0
"""s at the start of an episode that do not count for its mean velocity, as in `learning.evaluation`."""


@dataclass
class Played:
    """What the robots did. Episodes that the end of the run cut short are not in it."""

    episodes: int = 0
    survived: int = 0
    """Of them, those that only the time ended."""
    ends: dict[str, int] = field(default_factory=dict)
    """How many of them each of Isaac Lab's termination terms ended; one may be ended by several."""
    log: dict[str, float] = field(default_factory=dict)
    """What Isaac Lab's command and reward managers log when an episode ends: the mean over the episodes."""
    velocities: list[tuple[float, float, float]] = field(default_factory=list)
    """Of each survived episode longer than `SETTLING`: mean m/s forward, m/s left, rad/s, after it."""
    errors: list[tuple[float, float]] = field(default_factory=list)
    """Of the same: distance of that mean from the command, m/s and rad/s."""

    @property
    def survival(self) -> float:
        """Fraction of the episodes that were survived."""
        return self.survived / self.episodes if self.episodes else math.nan


def play(
    policy: OnnxPolicy,
    robot: RobotModel,
    *,
    engine: str = "ovphysx",
    num_envs: int = 4,
    seconds: float = 10.0,
    command: Sequence[float] | None = None,
    seed: int = 0,
    device: str = "",
    task: str | None = None,
) -> Played:
    """Run a policy for `seconds` of simulated time, in episodes of that length.

    Args:
        policy: to be played.
        robot: that it was loaded for.
        engine: one of `isaac_scene.ENGINES`.
        num_envs: number of robots.
        seconds: length of an episode and of the run.
        command: m/s forward, m/s left, rad/s; None to draw from the policy's ranges.
        seed: of starts and commands.
        device: of the physics; "" is the GPU where there is one.
        task: whose starts and terminations; None for that of the policy's training.

    Raises:
        UserError: the policy, the engine or the device cannot be used, or another simulation is open.
    """
    if sim_utils.SimulationContext.instance() is not None:
        raise UserError("another simulation is open in this process; close it first")
    with contextlib.ExitStack() as stack:
        usd = shipped_usd(robot)
        if usd is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="humanoid_rl_isaac_"))
            usd = Path(folder) / f"{robot.name}.usda"
            write_robot_usd(robot, usd)
        configuration = environment_cfg(
            policy.contract,
            robot,
            usd,
            engine=engine,
            num_envs=num_envs,
            seconds=seconds,
            command=command,
            device=choose_device(device),
            seed=seed,
            task=task,
        )
        launcher = {"device": configuration.sim.device, "headless": True, "visualizer": []}
        stack.enter_context(launch_simulation(configuration, launcher))
        # Isaac Lab prints its managers' tables.
        with contextlib.redirect_stdout(sys.stderr):
            environment = gymnasium.make(ENVIRONMENT, cfg=configuration).unwrapped
        assert isinstance(environment, ManagerBasedRLEnv)
        stack.callback(environment.close)
        if engine == "newton":
            without_kernel_prints()
        return run(environment, OnnxBatch(policy, num_envs))


def run(environment: ManagerBasedRLEnv, batch: OnnxBatch) -> Played:
    """Isaac Lab's loop for the length of one episode; who falls starts another meanwhile."""
    played = Played(ends=dict.fromkeys(environment.termination_manager.active_terms, 0))
    moved, steps = torch.zeros(batch.count, 3), torch.zeros(batch.count)
    observation = _groups(environment.reset()[0])
    started = torch.ones(batch.count, dtype=torch.bool)
    with torch.inference_mode():
        for _ in range(environment.max_episode_length):
            counts = environment.episode_length_buf.cpu() * environment.step_dt >= SETTLING
            moved += counts[:, None] * _velocity(observation["motion"])
            steps += counts
            command = observation["policy"]["command"].cpu()
            sensors = {name: values.cpu().numpy() for name, values in observation["policy"].items()}
            target = batch.step(sensors, started.numpy()).joint_target
            seen, _, terminated, truncated, extras = environment.step(torch.from_numpy(target))
            observation, terminated, truncated = _groups(seen), terminated.cpu(), truncated.cpu()
            started = terminated | truncated
            if not started.any():
                continue
            _note(played, environment, started, extras["log"])
            survived = truncated & ~terminated
            played.survived += int(survived.sum())
            for i in (survived & (steps > 0.0)).nonzero().squeeze(-1).tolist():
                forward, left, turning = (moved[i] / steps[i]).tolist()
                vx, vy, yaw_rate = command[i].tolist()
                played.velocities.append((forward, left, turning))
                played.errors.append((math.hypot(forward - vx, left - vy), abs(turning - yaw_rate)))
            moved[started], steps[started] = 0.0, 0.0
    return played


def _groups(observation: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Group -> term -> [N, .]: none of this environment's groups is concatenated."""
    return observation


def _velocity(motion: dict[str, torch.Tensor]) -> torch.Tensor:
    """[N, 3] m/s forward, m/s left, rad/s about the vertical of the base."""
    return torch.cat((motion["base_lin_vel"][:, :2], motion["base_ang_vel"][:, 2:]), 1).cpu()


def _note(played: Played, environment: ManagerBasedRLEnv, done: torch.Tensor, log: dict[str, Any]) -> None:
    """Takes up the episodes that have just ended."""
    ended = int(done.sum())
    for name in played.ends:
        played.ends[name] += int(environment.termination_manager.get_term(name).cpu()[done].sum())
    for key, value in log.items():
        if key.startswith(("Metrics/", "Episode_Reward/")):
            before = played.log.get(key, 0.0)
            played.log[key] = before + (float(value) - before) * ended / (played.episodes + ended)
    played.episodes += ended
