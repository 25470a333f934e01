"""What the bridge to Isaac Lab costs: `tools/isaac python benchmarks/isaac_throughput.py --engine ovphysx --envs 256`.

The task's whole step (action, latency, physics, observation, reward, resets) over Isaac Lab's own loop on the same
scene: `write_data_to_sim`, `step`, `update` for every physics step. The two take turns, so that both see the same
robots and the same machine. With `--camera`, also what an image of the robots' cameras costs.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from humanoid_rl_sim.simulators.camera import CameraConfig
from humanoid_rl_sim.simulators.isaac import IsaacSimulator
from humanoid_rl_sim.simulators.registry import ISAAC_ENGINES
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.making import make_environment

EXPLORATION = 0.3
"""Standard deviation of the actions."""
WARM_UP = 5
"""Control steps before the clock runs: kernels are compiled in the first."""


def main() -> int:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="ovphysx", choices=ISAAC_ENGINES)
    parser.add_argument("--envs", type=int, default=256, help="robots (default 256)")
    parser.add_argument("--task", default="walk", help="task (default walk)")
    parser.add_argument("--camera", action="store_true", help="render the head camera, 64 x 40 pixels, too")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure (default 20)")
    options = parser.parse_args()
    environment = make_environment(
        load_task(options.task),
        f"isaac:{options.engine}",
        options.envs,
        seed=1,
        # The environment itself looks once and never again.
        camera=CameraConfig(period=1e9) if options.camera else None,
    )
    simulator = environment.simulator
    assert isinstance(simulator, IsaacSimulator)
    environment.reset()
    shape = (options.envs, environment.graph.action_size)
    times, looks, count, end = [], [], 0, float("inf")
    while time.perf_counter() < end:
        action = EXPLORATION * torch.randn(shape, device=environment.device)
        begin = _now(environment.device)
        simulator.step_scene(environment.decimation)
        between = _now(environment.device)
        environment.step(action)
        count += 1
        if count > WARM_UP:
            times.append((between - begin, _now(environment.device) - between))
            if options.camera:
                begin = _now(environment.device)
                simulator.images()
                looks.append(_now(environment.device) - begin)
        if count == WARM_UP:
            end = time.perf_counter() + options.seconds
    bare, whole = np.median(times, axis=0)
    print(
        f"{options.engine}, {environment.device}, {options.envs} robots, task {options.task}, {len(times)} steps: "
        f"Isaac Lab's loop {options.envs / bare:,.0f}/s, environment {options.envs / whole:,.0f}/s, "
        f"environment / Isaac Lab {bare / whole:.2f}"
    )
    if looks:
        look = float(np.median(looks))
        print(f"camera: {options.envs / look:,.0f} images/s, a look of all is {look / whole:.2f} of a step")
    environment.close()
    return 0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    raise SystemExit(main())
