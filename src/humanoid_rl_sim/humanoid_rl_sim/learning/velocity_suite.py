"""The evaluation suites velocity-v1 and rough-v1: does a walking policy follow every command, on every floor, pushed
and loaded? rough-v1 is the same on every kind and level of the task's terrain; an episode ends where the robot has
crossed its cell.

A policy is judged in MuJoCo on the CPU, never in the engine of a GPU training; the transfer report runs the same in
every simulator. Every shape collides, so it is never judged on the training's simplified contacts. The policy sees
noisy sensors as in training.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from humanoid_rl_core.robot import load_robot

from humanoid_rl_sim.learning.actor import Actor, run_episodes
from humanoid_rl_sim.tasks.configuration import (
    LatencyConfig,
    PushConfig,
    RandomisationConfig,
    Range,
    TaskConfig,
)
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.making import make_environment

COMMANDS = tuple(itertools.product((-0.5, 0.0, 0.5, 1.0), (-0.3, 0.0, 0.3), (-0.5, 0.0, 0.5)))
"""vx m/s, vy m/s, yaw rate rad/s."""
REPETITIONS = 9
"""Episodes per command: 324 in all. On a terrain twice the number of its kinds."""
EPISODE = 20.0
"""s."""
PUSHES = PushConfig(interval=Range(5.0, 5.0), speed=Range(0.5, 0.5))
RANDOMISATION = RandomisationConfig(friction=Range(0.4, 1.2), payload=Range(-2.0, 2.0))
LATENCY = LatencyConfig(action=Range(0.0, 0.02))
VELOCITY_ERROR, YAW_RATE_ERROR = 0.25, 0.3
"""m/s and rad/s: what the mean error of a successful episode stays below."""
STRIDE = 0.5
"""s: velocities are averaged over about a stride before they are compared, because every gait sways."""
START = 1.0
"""s after the start that are not judged: nobody walks at 1 m/s from the first step."""
PUSH_SWEEP = tuple(np.round(np.arange(0.25, 3.01, 0.25), 2).tolist())
"""m/s."""
SWEEP_EPISODES = 24
SURVIVED = 0.9
"""Fraction of the sweep's episodes that must survive a push for it to count as survived."""


@dataclasses.dataclass
class Trajectory:
    """What is measured of every episode, [N] each, sums over judged steps."""

    velocity_error: torch.Tensor
    yaw_rate_error: torch.Tensor
    power: torch.Tensor
    action_rate: torch.Tensor
    slip: torch.Tensor
    self_contact: torch.Tensor
    peak_torque: torch.Tensor
    """[N, n] largest |torque| relative to the effort limit."""
    fell: torch.Tensor
    judged: torch.Tensor
    """[N] steps that were judged, at least 1."""
    kind: torch.Tensor | None = None
    """[N] index of the kind of ground in the task's terrain."""
    level: torch.Tensor | None = None
    """[N] level of the ground."""


def suite_name(task: TaskConfig) -> str:
    """The suite that judges a task's policies."""
    return "velocity-v1" if task.terrain is None else "rough-v1"


def condition(task: TaskConfig) -> TaskConfig:
    """The task under the suite's conditions; rewards and observation are its own."""
    terrain = task.terrain and dataclasses.replace(task.terrain, curriculum=False)
    return dataclasses.replace(
        task,
        push=PUSHES,
        randomisation=RANDOMISATION,
        latency=LATENCY,
        terrain=terrain,
        episode_length=10 * EPISODE,
    )


def run(
    task: TaskConfig,
    make_actor: Callable[[Environment], Actor],
    commands: np.ndarray,
    *,
    sim: str = "mujoco",
    seed: int,
) -> Trajectory:
    """One episode per row of `commands` [N, 3] under the suite's conditions. What is measured comes back on the CPU."""
    task = condition(task)
    n, period = len(commands), task.control_period
    environment = make_environment(task, sim, n, seed=seed, collision="full")
    device = environment.device
    command = torch.as_tensor(commands, dtype=torch.float32, device=device)
    environment.set_command(command)
    window, skipped = round(STRIDE / period), round(START / period)
    recent: list[torch.Tensor] = []
    result = Trajectory(
        velocity_error=torch.zeros(n, device=device),
        yaw_rate_error=torch.zeros(n, device=device),
        power=torch.zeros(n, device=device),
        action_rate=torch.zeros(n, device=device),
        slip=torch.zeros(n, device=device),
        self_contact=torch.zeros(n, device=device),
        peak_torque=torch.zeros(n, len(environment.robot.joint_names), device=device),
        fell=torch.zeros(n, dtype=torch.bool, device=device),
        judged=torch.zeros(n, device=device),
    )
    if environment.cells is not None:
        result.kind, result.level = environment.cells.kind, environment.cells.level
    walking = torch.ones(n, dtype=torch.bool, device=device)
    steps = round(EPISODE / period)

    def on_step(step: int, outcome: Any) -> None:
        view, state = environment.view, environment.simulator.state
        result.fell |= walking & outcome.terminated
        walking.logical_and_(~(outcome.terminated | outcome.truncated))
        recent.append(torch.cat((view.base_lin_vel_yaw[:, :2], state.base_ang_vel[:, 2:3]), 1))
        del recent[:-window]
        if step < skipped:
            return
        result.judged += walking
        error = torch.stack(recent).mean(0) - command
        result.velocity_error += walking * error[:, :2].norm(dim=1)
        result.yaw_rate_error += walking * error[:, 2].abs()
        result.power += walking * (state.joint_torque * state.joint_vel).abs().sum(1)
        result.action_rate += walking * (view.action - view.last_action).abs().mean(1)
        speed = state.foot_vel[:, :, :2].norm(dim=2) * state.foot_contact
        result.slip += walking * speed.sum(1) / state.foot_contact.sum(1).clamp(min=1)
        result.self_contact += walking * state.self_contact
        peak = walking[:, None] * state.joint_torque.abs() / view.effort_limit
        result.peak_torque.copy_(torch.maximum(result.peak_torque, peak))

    try:
        run_episodes(environment, make_actor(environment), steps, on_step)
    finally:
        environment.close()
    result.judged.clamp_(min=1.0)
    for name in ("velocity_error", "yaw_rate_error", "power", "action_rate", "slip", "self_contact"):
        getattr(result, name).div_(result.judged)
    here: dict[str, Any] = {name: None if rows is None else rows.cpu() for name, rows in vars(result).items()}
    return Trajectory(**here)


def evaluate(
    task: TaskConfig,
    make_actor: Callable[[Environment], Actor],
    *,
    sim: str = "mujoco",
    seed: int = 0,
    repetitions: int | None = None,
    sweep_episodes: int = SWEEP_EPISODES,
) -> dict[str, Any]:
    """The whole suite, or with `sweep_episodes=0` all but its push sweep. Returns the contents of evaluation.json."""
    if repetitions is None:
        repetitions = REPETITIONS if task.terrain is None else 2 * len(task.terrain.kinds)
    commands = np.repeat(np.array(COMMANDS), repetitions, axis=0)
    measured = _run_spread(task, make_actor, commands, sim=sim, seed=seed)
    stays = ~measured.fell
    follows = (measured.velocity_error < VELOCITY_ERROR) & (measured.yaw_rate_error < YAW_RATE_ERROR)
    success = (stays & follows).reshape(-1, repetitions)
    names = load_robot(task.robot, task.variant).joint_names
    peak = measured.peak_torque[stays].amax(0) if bool(stays.any()) else torch.full((len(names),), math.nan)

    def mean(values: torch.Tensor, chosen: torch.Tensor = stays) -> float:
        return float(values[chosen].mean()) if bool(chosen.any()) else math.nan

    def of(values: torch.Tensor, i: int) -> float:
        rows = torch.zeros_like(stays)
        rows[i * repetitions : (i + 1) * repetitions] = True
        return mean(values, rows & stays)

    return {
        "task": task.name,
        "kind": "velocity",
        "suite": suite_name(task),
        "simulator": sim,
        "episodes": len(commands),
        "seed": seed,
        "success": float(success.float().mean()),
        "survival": float(stays.float().mean()),
        "velocity_error_mps": mean(measured.velocity_error),
        "yaw_rate_error_radps": mean(measured.yaw_rate_error),
        "power_w": mean(measured.power),
        "action_rate": mean(measured.action_rate),
        "foot_slip_mps": mean(measured.slip),
        "self_contact": mean(measured.self_contact),
        "peak_torque_of_limit": dict(zip(names, np.round(peak.tolist(), 3).tolist(), strict=True)),
        "largest_push_survived_mps": {
            name: largest_push(task, make_actor, command, sim=sim, seed=seed, episodes=sweep_episodes)
            if sweep_episodes
            else math.nan
            for name, command in (("standing", (0.0, 0.0, 0.0)), ("walking", (0.5, 0.0, 0.0)))
        },
        "conditions": [
            {
                "vx": command[0],
                "vy": command[1],
                "yaw_rate": command[2],
                "success": float(success[i].float().mean()),
                "velocity_error_mps": of(measured.velocity_error, i),
                "yaw_rate_error_radps": of(measured.yaw_rate_error, i),
            }
            for i, command in enumerate(COMMANDS)
        ],
        **({} if task.terrain is None else {"terrain": _by_ground(task, measured, success.flatten())}),
    }


def _run_spread(
    task: TaskConfig, make_actor: Callable[[Environment], Actor], commands: np.ndarray, *, sim: str, seed: int
) -> Trajectory:
    """`run`, on a terrain with the commands dealt out to the robots at random.

    Cells are taken in the order of the robots, so that equal commands side by side would all meet the same levels.
    """
    if task.terrain is None:
        return run(task, make_actor, commands, sim=sim, seed=seed)
    order = np.random.default_rng(seed).permutation(len(commands))
    measured = run(task, make_actor, commands[order], sim=sim, seed=seed)
    back = torch.as_tensor(np.argsort(order))
    rows = {field.name: getattr(measured, field.name) for field in dataclasses.fields(measured)}
    return Trajectory(**{name: values[back] for name, values in rows.items()})


def _by_ground(task: TaskConfig, measured: Trajectory, success: torch.Tensor) -> list[dict[str, Any]]:
    """Success by kind of ground and level; a level without episodes has none."""
    assert task.terrain is not None and measured.kind is not None and measured.level is not None
    rows = []
    for index, kind in enumerate(task.terrain.kinds):
        on_kind = measured.kind == index
        levels = [on_kind & (measured.level == level) for level in range(task.terrain.levels)]
        rows.append(
            {
                "kind": kind,
                "success": float(success[on_kind].float().mean()),
                "survival": float((~measured.fell)[on_kind].float().mean()),
                "levels": [
                    float(success[there].float().mean()) if bool(there.any()) else None for there in levels
                ],
            }
        )
    return rows


def largest_push(
    task: TaskConfig,
    make_actor: Callable[[Environment], Actor],
    command: tuple[float, float, float],
    *,
    sim: str = "mujoco",
    seed: int,
    episodes: int,
) -> float:
    """Largest sudden change of the base's velocity in m/s that `SURVIVED` of the episodes survive, and every smaller
    one of `PUSH_SWEEP`; from all directions, 3 s after the start, on the nominal robot and level ground."""
    n = episodes * len(PUSH_SWEEP)
    environment = make_environment(task, sim, n, seed=seed, training=False, collision="full", level=True)
    environment.max_episode_steps = 1 << 30
    environment.set_command(torch.tensor(command).repeat(n, 1))
    speed = torch.tensor(PUSH_SWEEP).repeat_interleave(episodes)
    direction = 2.0 * math.pi * torch.arange(episodes).repeat(len(PUSH_SWEEP)) / episodes
    delta = torch.stack((speed * torch.cos(direction), speed * torch.sin(direction), 0.0 * speed), 1)
    fell = torch.zeros(n, dtype=torch.bool)
    push_step = round(3.0 / task.control_period)

    def on_step(step: int, outcome: Any) -> None:
        nonlocal fell
        fell = fell | outcome.terminated.cpu()
        if step == push_step:
            environment.simulator.add_base_velocity(
                torch.ones(n, dtype=torch.bool, device=environment.device), delta.to(environment.device)
            )

    try:
        run_episodes(environment, make_actor(environment), round(7.0 / task.control_period), on_step)
    finally:
        environment.close()
    survived = 0.0
    for size, fraction in zip(
        PUSH_SWEEP, (~fell).float().reshape(-1, episodes).mean(1).tolist(), strict=True
    ):
        if fraction < SURVIVED:
            break
        survived = size
    return survived


def figure(value: float | None, spec: str) -> str:
    """A number by its format; - for what was no number and is null in JSON."""
    return "-" if value is None else format(value, spec)


def table(result: dict[str, Any]) -> list[str]:
    """A result in lines; also one that was read back from JSON."""
    pushes = result["largest_push_survived_mps"]
    torque = {name: value for name, value in result["peak_torque_of_limit"].items() if value is not None}
    hardest = max(torque, key=lambda name: torque[name]) if torque else None
    lines = [
        f"{result['suite']}: success {result['success']:.1%} of {result['episodes']} episodes "
        f"(stayed up in {result['survival']:.1%})",
        f"mean error {figure(result['velocity_error_mps'], '.3f')} m/s, "
        f"{figure(result['yaw_rate_error_radps'], '.3f')} rad/s; "
        f"power {figure(result['power_w'], '.0f')} W, action rate {figure(result['action_rate'], '.2f')}, "
        f"slip {figure(result['foot_slip_mps'], '.3f')} m/s, "
        f"touches itself {figure(result['self_contact'], '.1%')} of the time",
        f"peak torque {figure(torque.get(hardest), '.0%')} of the limit ({hardest or '-'}); largest push survived "
        f"{figure(pushes['standing'], 'g')} m/s standing, {figure(pushes['walking'], 'g')} m/s walking",
        "    vx    vy  yaw   success  m/s    rad/s",
    ]
    lines += [
        f"{row['vx']:6.1f}{row['vy']:6.1f}{row['yaw_rate']:5.1f}{row['success']:9.0%}"
        f"{figure(row['velocity_error_mps'], '.3f'):>7s}{figure(row['yaw_rate_error_radps'], '.3f'):>8s}"
        for row in result["conditions"]
    ]
    if "terrain" in result:
        lines.append("ground        success   by level, from the easiest")
        lines += [
            f"{row['kind']:12s}{figure(row['success'], '.0%'):>9s}   "
            + " ".join(f"{figure(value, '.0%'):>4s}" for value in row["levels"])
            for row in result["terrain"]
        ]
    return lines
