"""Timing of a running deployment: the policy's tick, the periods of policy and host, beside a bare loop."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from humanoid_rl.deployment import run_deployment
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import gain_set, make_policy_graph
from sleep_loop import percentiles

# Less than the gains alone survive; it is there because a deployment ends with one.
PUSH = 0.1
SETTLE = 1.0
NOMINAL = 0.02


def policy_file(folder: Path) -> Path:
    """The standing policy that ships, or one of the same size whose action is always zero."""
    shipped = share_dir() / "policies" / "g1_stand.onnx"
    if shipped.is_file():
        return shipped
    task = load_task("stand")
    robot = load_robot(task.robot, task.variant)
    graph = make_policy_graph(task, robot)
    last = torch.nn.Linear(128, graph.action_size)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    graph.network = torch.nn.Sequential(
        torch.nn.Linear(graph.observation_size, 128),
        torch.nn.ELU(),
        torch.nn.Linear(128, 128),
        torch.nn.ELU(),
        last,
    )
    training = {
        "task": "stand", "simulator": "none", "seed": 0, "steps": 0, "git_revision": "", "metrics": {},
    }  # fmt: skip
    return export_policy(
        folder / "zero.onnx", graph, robot, gain_set(task, robot),
        name="zero", control_period=NOMINAL, training=training,
    )  # fmt: skip


def measure(seconds: float) -> dict[str, Any]:
    """One deployment on the twin, with the bare loop as a process beside it while the policy runs.

    The host's p50 and p99 are of its last 10 s, its maximum is since the launch.

    Args:
        seconds: the policy runs for.
    """
    loop: subprocess.Popen[bytes] | None = None

    def progress(line: str) -> None:
        nonlocal loop
        print(f"  {line}", file=sys.stderr)
        if line.startswith("running"):
            script = Path(__file__).with_name("sleep_loop.py")
            loop = subprocess.Popen([sys.executable, str(script), str(seconds)], stdout=subprocess.PIPE)

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        policy = policy_file(Path(folder))
        try:
            deployment = run_deployment(
                policy,
                Path(folder, "deployment.json"),
                push=(PUSH, 0.0),
                run_time=seconds,
                settle_time=SETTLE,
                progress=progress,
            )
            assert loop is not None
            bare = json.loads(loop.communicate(timeout=seconds + 30.0)[0])
        finally:
            if loop is not None:
                loop.kill()
                loop.wait()
    latency = np.array(deployment["tick_latency_s"])
    return {
        "policy": policy.name,
        "ticks": latency.size,
        "tick_latency_s": percentiles(latency),
        "tick_period_error_s": percentiles(np.abs(np.array(deployment["tick_period_s"]) - NOMINAL)),
        "host_period_error_s": deployment["host_period_error_s"],
        "bare_loop_period_error_s": bare,
        "deadline_misses": deployment["deadline_misses"],
        "real_time_factor_min": deployment["real_time_factor_min"],
        "survived": deployment["survived"],
    }


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table."""

    def milliseconds(values: dict[str, float]) -> str:
        return " / ".join(f"{1e3 * values[key]:.3f}" for key in ("p50", "p99", "max")) + " ms p50/p99/max"

    return [
        ("policy", f"{result['policy']}, {result['ticks']} ticks"),
        ("tick, state in to command out", milliseconds(result["tick_latency_s"])),
        ("policy 50 Hz period error", milliseconds(result["tick_period_error_s"])),
        ("host 500 Hz period error", milliseconds(result["host_period_error_s"])),
        ("bare 500 Hz loop period error", milliseconds(result["bare_loop_period_error_s"])),
        ("deadline misses", f"{result['deadline_misses']}"),
        ("lowest real-time factor", f"{result['real_time_factor_min']:.3f}"),
        ("robot", "stayed up" if result["survived"] else "did not stay up"),
    ]
