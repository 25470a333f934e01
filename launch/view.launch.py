"""Looks at a robot that somebody else runs: RViz where it is installed, else the browser view.

ros2 launch humanoid_rl view.launch.py
"""

from typing import Any

from humanoid_rl.launching.launch_files import refuse_unknown_arguments
from humanoid_rl.launching.preflight import check_domain_number
from humanoid_rl.launching.viewing import check_port, installed, viewer_actions
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable

ARGUMENTS = [
    DeclareLaunchArgument(
        "viewer", default_value="auto", choices=["auto", "rviz", "web"],
        description="auto: RViz where it is installed, else the browser view.",
    ),
    DeclareLaunchArgument("model", default_value="g1", description="Robot description (config/robot)."),
    DeclareLaunchArgument("variant", default_value="rev_1_0", description="Variant of the description."),
    DeclareLaunchArgument("port", default_value="8080", description="TCP port of the browser view."),
    DeclareLaunchArgument("domain", default_value="", description="DDS domain; empty: ROS_DOMAIN_ID."),
]  # fmt: skip


def bring_up(context: LaunchContext) -> list[Any]:
    """The viewer alone."""
    chosen = context.launch_configurations
    check_domain_number(chosen["domain"])
    check_port(chosen["port"])
    viewer = chosen["viewer"]
    if viewer == "auto":
        # Whoever asks to see something gets it, with or without a display on this machine.
        viewer = "rviz" if installed("rviz2") else "web"
    return [
        *([SetEnvironmentVariable("ROS_DOMAIN_ID", chosen["domain"])] if chosen["domain"] else []),
        *viewer_actions(
            viewer, robot=chosen["model"], variant=chosen["variant"], port=chosen["port"], essential=True
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [refuse_unknown_arguments("view", ARGUMENTS), *ARGUMENTS, OpaqueFunction(function=bring_up)]
    )
