"""The process that talks to the robot: the embedded host, or ros2_control where it is installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import rclpy
import yaml
from ament_index_python.packages import get_package_prefix
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel, expand_xacro, load_robot
from launch.actions import OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnShutdown

from humanoid_rl.launching.supervised_node import supervised_node
from humanoid_rl.launching.viewing import installed

HOSTS = ("auto", "embedded", "ros2_control")
CONTROL_CONFIG = "config/control/ros2_control.yaml"
PLUGINS = "lib/libhumanoid_rl_hardware_ros2_control.so"
"""Built by humanoid_rl_hardware where ros2_control was installed at that time."""
NEEDED = (
    "controller_manager", "joint_state_broadcaster", "imu_sensor_broadcaster", "robot_state_publisher",
)  # fmt: skip
CONTROLLERS = ("joint_state_broadcaster", "imu_sensor_broadcaster", "joint_command_controller")
HOST_PRIORITY = 30
"""Real-time priority of either host's cycle, above twin and policy node (launch/deploy.launch.py)."""


def missing_for_ros2_control() -> str:
    """What keeps ros2_control from being the host, with the remedy; empty when nothing does."""
    absent = [package for package in NEEDED if not installed(package)]
    if absent:
        names = " ".join(f"ros-$ROS_DISTRO-{name.replace('_', '-')}" for name in absent)
        return (
            f"{', '.join(absent)} not installed: apt install {names}, then make build, or take host:=embedded"
        )
    if not Path(get_package_prefix("humanoid_rl_hardware"), PLUGINS).is_file():
        return "humanoid_rl_hardware was built without ros2_control: make clean build, or take host:=embedded"
    return ""


def installed_hosts() -> list[str]:
    """The hosts that can be chosen here."""
    return ["embedded"] if missing_for_ros2_control() else ["embedded", "ros2_control"]


def choose_host(host: str) -> str:
    """`auto` resolved: ros2_control where it is installed, else embedded.

    Raises:
        UserError: ros2_control was asked for and cannot be used.
    """
    if host == "embedded":
        return host
    missing = missing_for_ros2_control()
    if host == "ros2_control" and missing:
        raise UserError(f"host:=ros2_control: {missing}")
    return "embedded" if missing else "ros2_control"


def host_actions(
    host: str,
    *,
    robot: str,
    variant: str,
    policy_period: float,
    activate: bool,
    real_time: bool = False,
    cpu: int = -1,
    environment: dict[str, str] | None = None,
) -> list[Any]:
    """Launch actions of a host.

    Args:
        host: embedded or ros2_control.
        robot: robot description.
        variant: its variant.
        policy_period: s, period of the joint commands; three of them without one latch the host.
        activate: follow joint commands from the start instead of waiting for /host/activate.
        real_time: SCHED_FIFO and locked memory, docs/realtime.md.
        cpu: processor of the cycle, -1 for any.
        environment: variables on top of the launch's own; the embedded host's.
    """
    if host == "embedded":
        options = {
            "robot": robot, "variant": variant, "auto_activate": activate, "policy_period": policy_period,
            "rt_priority": HOST_PRIORITY if real_time else 0, "cpu": cpu, "lock_memory": real_time,
        }  # fmt: skip
        return [
            supervised_node(
                "humanoid_rl_hardware", "embedded_host", parameters=options, environment=environment,
                priority=HOST_PRIORITY,
            )
        ]  # fmt: skip
    parameters = control_parameters(load_robot(robot, variant), policy_period, activate)
    manager = parameters["controller_manager"]["ros__parameters"]
    manager["lock_memory"] = real_time
    if cpu >= 0:
        manager["cpu_affinity"] = [cpu]
    # Only when it comes to be started: a preflight before it may refuse, and files would be left.
    return [OpaqueFunction(function=lambda _: _ros2_control(load_robot(robot, variant), parameters))]


def control_parameters(robot: RobotModel, policy_period: float, activate: bool) -> dict[str, Any]:
    """Parameters of the controller manager and of every controller, by node name."""
    with (share_dir() / CONTROL_CONFIG).open() as file:
        parameters: dict[str, Any] = yaml.safe_load(file)
    parameters["controller_manager"]["ros__parameters"]["thread_priority"] = HOST_PRIORITY
    parameters["joint_state_broadcaster"]["ros__parameters"]["joints"] = list(robot.joint_names)
    parameters["imu_sensor_broadcaster"]["ros__parameters"]["frame_id"] = robot.imu_link
    parameters["joint_command_controller"]["ros__parameters"] |= {
        "joints": list(robot.joint_names),
        "policy_period": policy_period,
        "auto_activate": activate,
        "robot": f"{robot.name} {robot.variant}",
    }
    return parameters


def control_description(robot: RobotModel, state_timeout: float, sender_priority: int) -> str:
    """URDF of the robot with its ros2_control tag."""
    return expand_xacro(
        share_dir() / "urdf" / f"{robot.name}.ros2_control.xacro",
        {
            "variant": robot.variant,
            "state_timeout": str(state_timeout),
            "sender_priority": str(sender_priority),
        },
    )


def _without_shared_memory() -> dict[str, str]:
    """What a process that cannot do it by itself needs in its environment; humanoid_rl_core/dds_transport.py."""
    environment = dict(os.environ)
    keep_off_shared_memory(environment, rclpy.get_rmw_implementation_identifier())
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def _ros2_control(robot: RobotModel, parameters: dict[str, Any]) -> list[Any]:
    """robot_state_publisher, controller manager, and the spawner that brings up the controllers."""
    state_timeout = parameters["joint_command_controller"]["ros__parameters"]["state_timeout"]
    description = control_description(robot, state_timeout, HOST_PRIORITY)
    folder = Path(tempfile.mkdtemp(prefix="humanoid_rl_"))
    file = folder / "ros2_control.yaml"
    file.write_text(yaml.safe_dump(parameters))
    remove = OpaqueFunction(function=lambda _: shutil.rmtree(folder, ignore_errors=True))
    return [
        RegisterEventHandler(OnShutdown(on_shutdown=[remove])),
        supervised_node(
            "robot_state_publisher", "robot_state_publisher", parameters={"robot_description": description}
        ),
        supervised_node(
            "controller_manager", "ros2_control_node", parameter_files=[file],
            environment=_without_shared_memory(), priority=HOST_PRIORITY,
        ),
        supervised_node(
            "controller_manager",
            "spawner",
            arguments=[
                *CONTROLLERS, "--param-file", str(file), "--controller-manager-timeout", "20",
                "--controller-ros-args", "-r imu_sensor_broadcaster/imu:=/imu/data",
            ],
            once=True,
        ),
    ]  # fmt: skip
