"""The host alone: the process between joint commands and the robot's low-level protocol.

    ros2 launch humanoid_rl host.launch.py host:=ros2_control

For a robot or twin that runs already, and for commands that come from somewhere else than the policy node.
Nothing is sent before /host/activate is called.
"""

from typing import Any

from humanoid_rl.launching.hosts import HOSTS, choose_host, host_actions
from humanoid_rl.launching.launch_files import confined_to_this_machine, refuse_unknown_arguments
from humanoid_rl.launching.preflight import check_domain_number
from humanoid_rl_core.errors import UserError
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction

ARGUMENTS = [
    DeclareLaunchArgument(
        "host", default_value="auto", choices=list(HOSTS),
        description="auto: ros2_control where it is installed, else embedded.",
    ),
    DeclareLaunchArgument("model", default_value="g1", description="Robot description (config/robot)."),
    DeclareLaunchArgument("variant", default_value="rev_1_0", description="Variant of the description."),
    DeclareLaunchArgument(
        "policy_period", default_value="0.02",
        description="s, period of the joint commands; three of them without one latch the host.",
    ),
    DeclareLaunchArgument("domain", default_value="", description="DDS domain; empty: ROS_DOMAIN_ID."),
]  # fmt: skip


def confine(context: LaunchContext) -> list[Any]:
    """This machine alone."""
    chosen = context.launch_configurations
    check_domain_number(chosen["domain"])
    return confined_to_this_machine(chosen["domain"])


def bring_up(context: LaunchContext) -> list[Any]:
    """The host."""
    chosen = context.launch_configurations
    try:
        policy_period = float(chosen["policy_period"])
    except ValueError:
        raise UserError(f"policy_period:={chosen['policy_period']} is no number of seconds") from None
    return host_actions(
        choose_host(chosen["host"]),
        robot=chosen["model"],
        variant=chosen["variant"],
        policy_period=policy_period,
        activate=False,
    )


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [refuse_unknown_arguments("host", ARGUMENTS), *ARGUMENTS]
        + [OpaqueFunction(function=function) for function in (confine, bring_up)]
    )
