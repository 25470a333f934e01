"""Turns a virtual environment that holds the ROS 2 wheels into a prefix colcon can build against.

Two repairs, both needed only where ROS 2 comes from PyPI:

* the CMake exports in the wheels name the include directories of the machine that built them;
  they are rewritten to this interpreter's, so that message packages may depend on std_msgs;
* `launch`, `launch_ros` and the `ros2` command line are on PyPI only inside the wheel
  `isaacsim-ros2` (pure Python, tagged cp312); those packages are unpacked beside the others.

Run with the virtual environment's own interpreter; running it again changes nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import numpy

LAUNCH_WHEEL = "isaacsim-ros2==6.2.0.0"
LAUNCH_ROOT = "isaacsim/exts/isaacsim.ros2.core/jazzy/rclpy/"
LAUNCH_PACKAGES = (
    "composition_interfaces",
    "launch",
    "launch_ros",
    "launch_testing",
    "launch_testing_ros",
    "launch_xml",
    "launch_yaml",
    "osrf_pycommon",
    "ros2cli",
    "ros2node",
    "ros2param",
    "ros2pkg",
    "ros2run",
    "ros2service",
    "ros2topic",
    "rosidl_runtime_py",
)
BUILD_MACHINE_INCLUDE = re.compile(r"/opt/python/cp3\d+-cp3\d+/include/python3\.\d+")
BUILD_MACHINE_NUMPY = re.compile(
    r"/opt/python/cp3\d+-cp3\d+/lib/python3\.\d+/site-packages/numpy/_core/include"
)


def rewrite_cmake_exports(prefix: Path) -> int:
    """Point the wheels' CMake exports at this interpreter. Returns the number of files changed."""
    changed = 0
    for path in prefix.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        fixed = BUILD_MACHINE_NUMPY.sub(numpy.get_include(), text)
        fixed = BUILD_MACHINE_INCLUDE.sub(sysconfig.get_path("include"), fixed)
        if fixed != text:
            path.write_text(fixed)
            changed += 1
    return changed


def unpack_launch(site_packages: Path) -> int:
    """Unpack the launch packages into `site_packages`. Returns the number of files written."""
    if (site_packages / "launch_ros").is_dir():
        return 0
    with tempfile.TemporaryDirectory() as download:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--python-version", "3.12",
             "--only-binary=:all:", "--dest", download, LAUNCH_WHEEL],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(download).glob("*.whl")
        written = 0
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(
                archive.namelist(), reverse=True
            ):  # launch_ros/ last but one: the marker above
                package, _, rest = name.removeprefix(LAUNCH_ROOT).partition("/")
                if name.startswith(LAUNCH_ROOT) and rest and package.split("-")[0] in LAUNCH_PACKAGES:
                    target = site_packages / package.replace(".egg-info", ".egg-info") / rest
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
                    written += 1
    return written


def main() -> int:
    prefix = Path(sys.prefix)
    site_packages = Path(sysconfig.get_path("purelib"))
    print(f"CMake exports rewritten: {rewrite_cmake_exports(prefix)}")
    print(f"launch files unpacked: {unpack_launch(site_packages)}")
    (prefix / "COLCON_IGNORE").touch()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
