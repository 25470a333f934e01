"""`humanoid-rl doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from humanoid_rl_core.errors import UserError

BUILD = "run `make build`, then `source tools/environment.sh`"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)

State = Literal["ok", "missing", "absent"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    state: State  # absent: optional, and the workspace works without it
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok     ", "missing": "MISSING", "absent": "-      "}[self.state]
        remedy = f"  -> {self.remedy}" if self.remedy and self.state != "ok" else ""
        return f"{mark} {self.subject:<22} {self.detail}{remedy}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def check_python() -> Iterator[Finding]:
    """The interpreter and what learning and inference import."""
    version = sys.version_info[:2]
    supported = OLDEST_PYTHON <= version <= NEWEST_PYTHON
    yield Finding(
        "python",
        "ok" if supported else "missing",
        f"{platform.python_version()} ({sys.executable})",
        "use Python 3.11, 3.12 or 3.13: make build PYTHON=python3.12",
    )
    for distribution in ("numpy", "torch", "mujoco", "stable-baselines3", "onnx", "onnxruntime", "xacro"):
        found = _version(distribution)
        yield Finding(distribution, "ok" if found else "missing", found or "not installed", BUILD)
    viser = _version("viser")
    yield Finding("viser", "ok" if viser else "absent", viser or "not installed, no browser view", BUILD)


def check_gpu() -> Iterator[Finding]:
    """CUDA, optional: MuJoCo on the CPU is the default simulator."""
    if not _module("torch"):
        return
    import torch

    if torch.cuda.is_available():
        yield Finding("gpu", "ok", torch.cuda.get_device_name(0))
    else:
        cpus = len(os.sched_getaffinity(0))
        yield Finding("gpu", "absent", f"no CUDA device: training runs on the {cpus} CPU cores")


def check_ros() -> Iterator[Finding]:
    """ROS 2, from an install or from wheels, and its optional tools."""
    distribution = os.environ.get("ROS_DISTRO", "")
    yield Finding(
        "ROS 2",
        "ok" if distribution and _module("rclpy") else "missing",
        (distribution or "ROS_DISTRO is not set") + ("" if _module("rclpy") else ", no rclpy"),
        BUILD,
    )
    if _module("rclpy"):
        probe = subprocess.run(
            [sys.executable, "-c", "import rclpy; print(rclpy.get_rmw_implementation_identifier())"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        name = probe.stdout.strip().splitlines()[-1:] or [""]
        detail = name[0] if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]
        yield Finding("rmw", "ok" if probe.returncode == 0 else "missing", detail, "unset RMW_IMPLEMENTATION")
    for module in ("launch", "launch_ros"):
        found = _module(module)
        yield Finding(module, "ok" if found else "missing", _version(module) or "not installed", BUILD)
    colcon = shutil.which("colcon")
    yield Finding("colcon", "ok" if colcon else "missing", colcon or "not on the PATH", BUILD)
    for package, without in (
        ("ros2launch", "`ros2 launch` is not there: `humanoid-rl launch` runs the same files"),
        ("controller_manager", "no ros2_control: host:=embedded"),
        ("rviz2", "no RViz: viewer:=web"),
        ("robot_state_publisher", "no /robot_description and link frames; the browser view needs none"),
    ):
        prefix = _ament_prefix(package)
        yield Finding(package, "ok" if prefix else "absent", str(prefix) if prefix else without)


def check_workspace() -> Iterator[Finding]:
    """The built packages, the shared files and the policies."""
    for package in (
        "unitree_hg",
        "unitree_api",
        "humanoid_rl_interfaces",
        "humanoid_rl_core",
        "humanoid_rl_sim",
        "humanoid_rl_inference",
        "humanoid_rl_hardware",
        "humanoid_rl",
    ):
        prefix = _ament_prefix(package)
        yield Finding(package, "ok" if prefix else "missing", str(prefix) if prefix else "not built", BUILD)
    from humanoid_rl_core.resources import share_dir

    try:
        share = share_dir()
    except UserError as error:
        yield Finding("shared files", "missing", str(error))
        return
    yield Finding("shared files", "ok", str(share))
    policies = sorted(path.stem for path in (share / "policies").glob("*.onnx"))
    yield Finding(
        "policies",
        "ok" if policies else "absent",
        ", ".join(policies) or "none yet",
        "train one: humanoid-rl train task=stand --name mine; humanoid-rl export --run mine",
    )
    from humanoid_rl.launching.preflight import runs_dir

    runs = runs_dir().resolve()
    existing = next(folder for folder in (runs, *runs.parents) if folder.exists())
    writable = os.access(existing, os.W_OK)
    yield Finding(
        "runs",
        "ok" if writable else "missing",
        f"{runs}{'' if writable else ' cannot be written'}",
        "change to a directory you may write to, or set HUMANOID_RL_RUNS",
    )


def _ament_prefix(package: str) -> Path | None:
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share/ament_index/resource_index/packages" / package).is_file():
            return Path(prefix)
    return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (check_python, check_gpu, check_ros, check_workspace)


def run_doctor() -> int:
    """Print every finding. Returns 1 if something the workspace needs is missing."""
    missing = 0
    for check in CHECKS:
        for finding in check():
            print(finding, flush=True)
            missing += finding.state == "missing"
    print(f"{missing} missing" if missing else "everything needed is there")
    return 1 if missing else 0
