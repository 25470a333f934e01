"""Timing of a running deployment: the wire, the policy's tick, missed deadlines, beside a bare loop.

Periods and latency of the wire are taken from the times at which twin and host published, which the middleware
sends along with each message: who listens, and how busy it is, does not show in them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from humanoid_rl.deployment import run_deployment
from humanoid_rl.launching.hosts import HOST_PRIORITY
from humanoid_rl_core.export import export_policy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import gain_set, make_policy_graph
from rclpy.context import Context
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sleep_loop import PERIOD, percentiles

from humanoid_rl_interfaces.msg import HostStatus, PolicyStatus
from unitree_hg.msg import LowCmd, LowState

# Less than the gains alone survive; it is there because a deployment ends with one.
PUSH = 0.1
SETTLE = 1.0
NOMINAL = 0.02
POLL = 0.1  # s between two looks at what came
QUEUE = 1000  # messages: 2 s of 500 Hz, should this process be kept from looking


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


class Wire:
    """Listens, in a thread of its own, from construction to `stop`: when what was published, and misses."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            "control_timing", context=self._context, start_parameter_services=False
        )
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        self._subscriptions = {
            topic: self._node.create_subscription(kind, topic, lambda message: None, qos, raw=raw)
            for topic, kind, raw in (
                ("/lowstate", LowState, True),
                ("/lowcmd", LowCmd, True),
                ("/host/status", HostStatus, False),
                ("/policy/status", PolicyStatus, False),
            )
        }
        self._stamps: dict[str, list[int]] = {topic: [] for topic in self._subscriptions}
        self._numbers: dict[str, list[int]] = {topic: [] for topic in self._subscriptions}
        self._misses: dict[str, list[int]] = {topic: [] for topic in self._subscriptions}
        self._cycles: list[int] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._end.wait(POLL):
            for topic, subscription in self._subscriptions.items():
                raw = subscription.raw
                with subscription.handle:
                    while taken := subscription.handle.take_message(subscription.msg_type, raw):
                        message, info = taken
                        self._stamps[topic].append(info["source_timestamp"])
                        self._numbers[topic].append(info["publication_sequence_number"])
                        if not raw:
                            self._misses[topic].append(message.deadline_misses)
                        if topic == "/host/status":
                            self._cycles.append(message.cycles)

    def stop(self) -> dict[str, Any]:
        """End listening. Returns the figures, s."""
        if not self._end.is_set():
            self._end.set()
            self._thread.join()
            self._node.destroy_node()
            self._context.try_shutdown()
        heard = [
            (np.array(self._stamps[topic]), np.array(self._numbers[topic]))
            for topic in ("/lowstate", "/lowcmd")
        ]
        return {
            **wire_figures(*heard),
            "low_cmds_sent": _increase(self._cycles),
            "host_deadline_misses": _increase(self._misses["/host/status"]),
            "policy_ticks": len(self._stamps["/policy/status"]),
            "policy_deadline_misses": _increase(self._misses["/policy/status"]),
        }


def wire_figures(
    states: tuple[np.ndarray, np.ndarray], commands: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Period of LowCmd, and the age of the newest LowState when it left; s.

    What a busy listener did not hear shows as a gap in the writer's numbering and is left out: it was sent in time.

    Args:
        states: of each LowState heard, [n] ns when it was published, [n] its number.
        commands: the same of each LowCmd, [k].
    """
    state_times, state_numbers = states
    times, numbers = commands
    following = np.diff(numbers) == 1
    newest = np.searchsorted(state_times, times, side="right") - 1
    # The one after it was heard too, so that no newer one was missed.
    seen = (newest >= 0) & (newest < state_times.size - 1)
    seen[seen] = np.diff(state_numbers)[newest[seen]] == 1
    return {
        "low_cmds": times.size,
        "low_cmd_period_error_s": percentiles(np.abs(1e-9 * np.diff(times)[following] - PERIOD)),
        "low_state_to_low_cmd_s": percentiles(1e-9 * (times[seen] - state_times[newest[seen]])),
    }


def _increase(counts: list[int]) -> int:
    return counts[-1] - counts[0] if counts else 0


def measure(seconds: float, launch_arguments: dict[str, str] | None = None) -> dict[str, Any]:
    """One deployment on the twin, with the bare loop as a process beside it while the policy runs.

    The bare loop has the host's priority, so that it is measured under the conditions the host works under.

    Args:
        seconds: the policy runs for.
        launch_arguments: of deploy.launch.py, such as `host`.
    """
    wire: Wire | None = None
    loop: subprocess.Popen[bytes] | None = None

    def progress(line: str) -> None:
        nonlocal loop, wire
        print(f"  {line}", file=sys.stderr)
        if line.startswith("running"):
            script = Path(__file__).with_name("sleep_loop.py")
            words = [sys.executable, str(script), str(seconds), str(HOST_PRIORITY)]
            loop = subprocess.Popen(words, stdout=subprocess.PIPE)
            wire = Wire()
        elif line.startswith("push") and wire is not None:
            wire.stop()

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        policy = policy_file(Path(folder))
        try:
            deployment = run_deployment(
                policy,
                Path(folder, "deployment.json"),
                push=(PUSH, 0.0),
                run_time=seconds,
                settle_time=SETTLE,
                launch_arguments=launch_arguments,
                progress=progress,
            )
            assert loop is not None and wire is not None
            bare = json.loads(loop.communicate(timeout=seconds + 30.0)[0])
        finally:
            if loop is not None:
                loop.kill()
                loop.wait()
            if wire is not None:
                wire.stop()
    latency = np.array(deployment["tick_latency_s"])
    return {
        "policy": policy.name,
        "ticks": latency.size,
        "tick_latency_s": percentiles(latency),
        "tick_period_error_s": percentiles(np.abs(np.array(deployment["tick_period_s"]) - NOMINAL)),
        **wire.stop(),
        "bare_loop_period_error_s": bare,
        "real_time_factor_min": deployment["real_time_factor_min"],
        "survived": deployment["survived"],
    }


def lines(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table."""

    def milliseconds(values: dict[str, float]) -> str:
        return " / ".join(f"{1e3 * values[key]:.3f}" for key in ("p50", "p99", "max")) + " ms p50/p99/max"

    host, bare = result["low_cmd_period_error_s"], result["bare_loop_period_error_s"]
    return [
        ("policy", f"{result['policy']}, {result['ticks']} ticks"),
        ("tick, state in to command out", milliseconds(result["tick_latency_s"])),
        ("policy 50 Hz period error", milliseconds(result["tick_period_error_s"])),
        (
            "LowCmd heard / sent",
            f"{result['low_cmds']} / {result['low_cmds_sent']}",
        ),
        ("LowCmd 500 Hz period error", milliseconds(host)),
        ("bare 500 Hz loop period error", milliseconds(bare)),
        ("LowCmd / bare loop", " / ".join(f"{host[key] / bare[key]:.2f}" for key in host) + " p50/p99/max"),
        ("newest LowState to LowCmd", milliseconds(result["low_state_to_low_cmd_s"])),
        ("missed deadlines, host", f"{result['host_deadline_misses']} of {result['low_cmds_sent']} cycles"),
        ("missed deadlines, policy", f"{result['policy_deadline_misses']} of {result['policy_ticks']} ticks"),
        ("lowest real-time factor", f"{result['real_time_factor_min']:.3f}"),
        ("robot", "stayed up" if result["survived"] else "did not stay up"),
    ]
