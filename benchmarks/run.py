"""The benchmarks of this workspace: `make bench`, or `python benchmarks/run.py --only simulator`.

    python benchmarks/run.py --only deployment --seconds 300 host:=ros2_control

Arguments of the form key:=value are those of deploy.launch.py.

Ratios are taken within one run, so that they hold on any machine; absolute figures belong to the machine and
its load, both of which are printed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from humanoid_rl.launching.launch_files import (
    check_arguments,
    declared_arguments,
    launch_file,
    split_arguments,
)
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.learning.evaluation import write_json

BENCHMARKS = {
    "simulator": "simulator_throughput",
    "training": "training_throughput",
    "deployment": "control_timing",
}
LATEST = Path(__file__).parent / "results" / "latest.json"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in ("mujoco", "torch", "onnxruntime")},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures simulator, training and deployment.")
    parser.add_argument("--only", choices=BENCHMARKS, help="one of them")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each to measure (default 20)")
    parser.add_argument(
        "--output", type=Path, nargs="?", const=LATEST, help=f"write JSON (without a path: {LATEST.name})"
    )
    parser.add_argument("launch", nargs="*", metavar="key:=value", help="argument of the deployment's launch")
    options = parser.parse_args(argv)
    if not 0.0 < options.seconds < float("inf"):
        parser.error(f"--seconds is {options.seconds}, expected a positive number")
    if options.launch and options.only not in (None, "deployment"):
        parser.error(f"{options.launch[0]} goes with the benchmark deployment, not with {options.only}")
    results: dict[str, Any] = {"machine": machine()}
    try:
        launch_arguments = split_arguments(options.launch)
        check_arguments("deploy", launch_arguments, declared_arguments(launch_file("deploy")))
        for name in [options.only] if options.only else BENCHMARKS:
            print(f"measuring {name}", file=sys.stderr)
            benchmark = importlib.import_module(BENCHMARKS[name])
            load = os.getloadavg()[0]
            arguments = {"launch_arguments": launch_arguments} if name == "deployment" else {}
            results[name] = benchmark.measure(options.seconds, **arguments) | {"load_1min_before": load}
            print(f"{name} (load before {load:.1f})")
            for title, value in benchmark.lines(results[name]):
                print(f"  {title:<32}{value}")
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.output, results)
    except (UserError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    host = results["machine"]
    print(f"{host['cpu']}, {host['cpus']} CPUs, MuJoCo {host['mujoco']}, PyTorch {host['torch']}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
