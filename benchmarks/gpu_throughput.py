"""What one GPU does: `python benchmarks/gpu_throughput.py [--quick]`.

Four ratios, each measured in this one run. The environment's step over the bare physics: the same model with the
same randomised properties, from the same states, to the same joint targets (the environment's act after their
latency), nothing else in the loop; the two take turns step by step. PPO training over the environment's step. PPO with
its gradient steps replayed as a CUDA graph over PPO that launches them kernel by kernel. PPO on the device over plain
stable-baselines3 with the same environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from humanoid_rl_sim.learning.configuration import TrainingConfig, load_training_config
from humanoid_rl_sim.learning.device_ppo import DevicePPO
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.learning.training import make_model
from humanoid_rl_sim.simulators.mujoco_warp import MujocoWarpSimulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import StaticStep
from humanoid_rl_sim.tasks.making import make_environment
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

TASK = "walk"
EXPLORATION = 0.5
"""Standard deviation of the actions: untrained robots that fall about once a second, the costly part of a training."""
STEP_SIZES, TRAINING_SIZES = (4096, 16384), (4096, 8192, 16384)
SB3_SIZE = 4096


def trained_environment(num_envs: int) -> Environment:
    """The task on the GPU as it is trained."""
    return make_environment(load_task(TASK), "mujoco_warp", num_envs, seed=1)


def milliseconds(work: Callable[[], Any]) -> float:
    """Duration on the device."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def step_over_bare(num_envs: int, steps: int) -> dict[str, float]:
    """Environment steps per second of the environment and of the bare physics."""
    environment = trained_environment(num_envs)
    simulator = environment.simulator
    assert isinstance(simulator, MujocoWarpSimulator)
    bare = MujocoWarpSimulator(environment.robot, num_envs, timestep=simulator.timestep)
    bare.set_gains(environment.robot.gains[environment.task.gains])
    bare.set_properties(simulator.properties)
    step = StaticStep(environment)
    action = torch.zeros(num_envs, environment.graph.action_size, device=environment.device)
    times = []
    for count in range(steps + 50):
        action.normal_(0.0, EXPLORATION)
        bare.copy_state(simulator)
        bare.set_joint_target(environment.graph.decode(action))
        pair = (
            milliseconds(lambda: bare.advance(environment.decimation)),
            milliseconds(lambda: step(action)),
        )
        if count >= 50:
            times.append(pair)
    physics, whole = np.array(times).sum(0) / len(times) / 1e3
    bare.close()
    environment.close()
    return {"bare": num_envs / physics, "step": num_envs / whole, "ratio": physics / whole}


class _Clock(BaseCallback):
    """Environment steps per second of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self._mark: tuple[float, int] | None = None

    def _on_rollout_start(self) -> None:
        torch.cuda.synchronize()
        now = time.perf_counter()
        if self._mark is not None:
            self.rates.append((self.num_timesteps - self._mark[1]) / (now - self._mark[0]))
        self._mark = (now, self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def training_rate(
    num_envs: int, learner: Literal["sb3", "device"], updates: int, *, graphed: bool = True
) -> float:
    """Median environment steps per second of PPO, rollouts and updates; `graphed` is about the device's updates."""
    config: TrainingConfig = dataclasses.replace(
        load_training_config(TASK), num_envs=num_envs, learner=learner, sim="mujoco_warp"
    )
    env, clock = Sb3VecEnv(trained_environment(num_envs)), _Clock()
    model = make_model(config, env)
    if isinstance(model, DevicePPO):
        model.graph_updates = graphed
    model.set_logger(configure(None, []))
    model.learn(num_envs * config.ppo.rollout_steps * (updates + 2), callback=clock)
    env.close()
    return float(np.median(clock.rates[1:]))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_throughput: no CUDA GPU; make bench measures the CPU", file=sys.stderr)
        return 1
    torch.set_float32_matmul_precision("high")
    share = 10 if options.quick else 1
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, task {TASK}")
    step_rates = {}
    for num_envs in STEP_SIZES:
        rates = step_over_bare(num_envs, 500 // share)
        step_rates[num_envs] = rates["step"]
        print(
            f"{num_envs:6d} envs: bare physics {rates['bare']:,.0f}/s, environment {rates['step']:,.0f}/s, "
            f"environment / bare {rates['ratio']:.2f}",
            flush=True,
        )
    for num_envs in TRAINING_SIZES:
        rate = training_rate(num_envs, "device", 40 // share)
        of_step = (
            f", training / environment {rate / step_rates[num_envs]:.2f}" if num_envs in step_rates else ""
        )
        launched = training_rate(num_envs, "device", 40 // share, graphed=False)
        print(
            f"{num_envs:6d} envs: PPO {rate:,.0f}/s{of_step}; updates launched kernel by kernel {launched:,.0f}/s, "
            f"graphed / launched {rate / launched:.2f}",
            flush=True,
        )
        if num_envs == SB3_SIZE:
            plain = training_rate(num_envs, "sb3", max(40 // share // 10, 2))
            print(
                f"{num_envs:6d} envs: plain stable-baselines3 {plain:,.0f}/s, device / plain {rate / plain:.1f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
