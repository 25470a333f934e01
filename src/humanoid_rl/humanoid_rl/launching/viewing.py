"""Which viewer a launch starts, and how: RViz where it is installed, the browser view elsewhere."""

from __future__ import annotations

import os
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from launch.actions import LogInfo
from launch_ros.actions import Node

from humanoid_rl.launching.supervised_node import supervised_node

VIEWERS = ("auto", "rviz", "web", "none")
RVIZ_CONFIG = "config/rviz/humanoid_rl.rviz"
MAX_PORT = 65535


def installed(package: str) -> bool:
    """Whether the ament index has a package."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def check_port(port: str) -> None:
    """Raises UserError unless `port` is the number of a TCP port."""
    if not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
        raise UserError(f"port:={port} is no TCP port (1 to {MAX_PORT})")


def choose_viewer(viewer: str) -> str:
    """`auto` resolved: RViz with a display, the browser view with a display but no RViz, else none.

    Raises:
        UserError: RViz was asked for and is not installed.
    """
    if viewer == "rviz" and not installed("rviz2"):
        raise UserError("viewer:=rviz needs rviz2, which is not installed: take viewer:=web")
    if viewer != "auto":
        return viewer
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "none"
    return "rviz" if installed("rviz2") else "web"


def viewer_actions(
    viewer: str,
    *,
    robot: str,
    variant: str,
    port: str,
    essential: bool = False,
    described: bool = False,
) -> list[Any]:
    """Launch actions of a viewer, and robot_state_publisher where it is installed.

    Args:
        viewer: one of VIEWERS.
        robot: robot description.
        variant: its variant.
        port: TCP port of the browser view.
        essential: the launch ends with the viewer; else it may be closed or fail without ending the robot.
        described: somebody else runs robot_state_publisher.
    """
    viewer = choose_viewer(viewer)
    actions: list[Any] = []
    if not described and installed("robot_state_publisher"):
        actions.append(
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                parameters=[{"robot_description": load_robot(robot, variant).urdf}],
            )
        )
    if viewer == "rviz":
        config = str(share_dir() / RVIZ_CONFIG)
        actions.append(
            supervised_node("rviz2", "rviz2", arguments=["-d", config], may_finish=True, essential=essential)
        )
    elif viewer == "web":
        parameters = {"robot": robot, "variant": variant, "port": int(port)}
        actions.append(LogInfo(msg=f"browser view: http://localhost:{port}"))
        actions.append(
            supervised_node(
                "humanoid_rl", "web_view", parameters=parameters, may_finish=True, essential=essential
            )
        )
    return actions
