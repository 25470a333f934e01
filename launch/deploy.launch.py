"""A policy on a robot: the twin that simulates one, host, policy node and a viewer, each a process of its own.

    ros2 launch humanoid_rl deploy.launch.py robot:=sim policy:=g1_stand
    ros2 launch humanoid_rl deploy.launch.py robot:=real interface:=eth0 policy:=g1_stand

Everything that can be refused is refused before the first node starts; a real robot has to pass a preflight, and
the operator to confirm it (humanoid_rl/real_robot). The nodes find each other in any order. When the policy
node ends, the host is left time to hold the robot in damping; then the launch ends.
"""

import re
from collections.abc import Mapping
from typing import Any

from humanoid_rl.launching import security
from humanoid_rl.launching.hosts import HOSTS, choose_host, host_actions
from humanoid_rl.launching.launch_files import confined_to_this_machine, refuse_unknown_arguments
from humanoid_rl.launching.preflight import check_domain_free, check_domain_number, check_policy, find_policy
from humanoid_rl.launching.supervised_node import supervised_node
from humanoid_rl.launching.viewing import VIEWERS, check_port, choose_viewer, viewer_actions
from humanoid_rl.real_robot.launch_actions import after_preflight, check_real_arguments, confined_to_robot
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.real_time import RealTime
from humanoid_rl_sim.simulators.isaac_runner import isaac_runner
from humanoid_rl_sim.twin.bodies import ENGINES
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable

# After the policy node is gone the robot sinks in damping; the host stays for that long.
SINKING_TIME = 2.0
# The faster loop goes first: 500 Hz host and twin, 50 Hz policy. The host is what keeps the robot safe.
TWIN_PRIORITY, POLICY_PRIORITY = 25, 20  # the host: hosts.HOST_PRIORITY
# Seconds between SIGINT and SIGTERM: Isaac Lab cannot be stopped while it loads, and has files to remove afterwards.
TWIN_PATIENCE, ISAAC_PATIENCE = 5.0, 30.0
BOOLEAN = ["true", "false"]
ARGUMENTS = [
    DeclareLaunchArgument(
        "robot", default_value="sim", choices=["sim", "real"], description="The simulated robot or a G1."
    ),
    DeclareLaunchArgument(
        "sim", default_value="mujoco", choices=["mujoco", "isaac"], description="Physics of the simulated robot."
    ),
    DeclareLaunchArgument(
        "engine", default_value="", choices=["", *ENGINES], description="Engine of sim:=isaac; empty: ovphysx."
    ),
    DeclareLaunchArgument("model", default_value="g1", description="Robot description (config/robot)."),
    DeclareLaunchArgument("variant", default_value="rev_1_0", description="Variant of the description."),
    DeclareLaunchArgument(
        "policy", default_value="", description="ONNX file, name in policies/ or run; empty: g1_stand."
    ),
    DeclareLaunchArgument(
        "host", default_value="auto", choices=list(HOSTS),
        description="Process that talks to the robot; auto: ros2_control where it is installed, else embedded.",
    ),
    DeclareLaunchArgument(
        "viewer", default_value="auto", choices=list(VIEWERS),
        description="auto: RViz or the browser view where there is a display, else none.",
    ),
    DeclareLaunchArgument("port", default_value="8080", description="TCP port of the browser view."),
    DeclareLaunchArgument(
        "domain", default_value="", description="DDS domain; empty: ROS_DOMAIN_ID, with robot:=real the robot's 0."
    ),
    DeclareLaunchArgument(
        "interface", default_value="", description="Network interface of the robot (robot:=real)."
    ),
    DeclareLaunchArgument(
        "confirm", default_value="",
        description="robot:=real: the word that the operator is asked for otherwise, for use by scripts.",
    ),
    DeclareLaunchArgument(
        "start", default_value="standing", choices=["standing", "hoisted"],
        description="Where the twin starts: soles on the floor, or hanging from the crane.",
    ),
    DeclareLaunchArgument(
        "auto_start", default_value="", choices=["", *BOOLEAN],
        description="Stand up and start the policy; false: wait for /policy/stand and /policy/start, "
        "as robot:=real always does; empty: true with robot:=sim.",
    ),
    DeclareLaunchArgument(
        "provider", default_value="cpu", choices=["cpu", "cuda", "tensorrt"],
        description="onnxruntime's execution provider; one that cannot be had is refused.",
    ),
    DeclareLaunchArgument(
        "rt", default_value="false", choices=BOOLEAN,
        description="SCHED_FIFO and locked memory for host and policy node (docs/realtime.md).",
    ),
    DeclareLaunchArgument("host_cpu", default_value="-1", description="Processor of the host's cycle; -1: any."),
    DeclareLaunchArgument("policy_cpu", default_value="-1", description="That of the policy node; -1: any."),
    DeclareLaunchArgument(
        "security", default_value="false", choices=BOOLEAN,
        description="DDS security (SROS 2): whoever has no key is not heard (docs/safety.md).",
    ),
    DeclareLaunchArgument(
        "keystore", default_value="~/.ros/humanoid_rl_keystore",
        description="Folder of the keys of security:=true; made when it is missing.",
    ),
]  # fmt: skip


def refuse_unavailable(context: LaunchContext) -> None:
    """What this version cannot do is said first, in one line."""
    chosen = context.launch_configurations
    check_real_arguments(chosen)
    if chosen["engine"] and chosen["sim"] != "isaac":
        raise UserError(f"engine:={chosen['engine']} goes with sim:=isaac")
    if chosen["sim"] == "isaac":
        isaac_runner("sim:=isaac")
    security.check_arguments(chosen)
    for name in ("host_cpu", "policy_cpu"):
        processor(chosen, name)
    choose_host(chosen["host"])
    check_domain_number(chosen["domain"])
    check_port(chosen["port"])
    choose_viewer(chosen["viewer"])


def processor(chosen: Mapping[str, str], name: str) -> int:
    """Number of a processor of this machine, -1 for any."""
    if not re.fullmatch(r"-?\d+", chosen[name]):
        raise UserError(f"{name}:={chosen[name]} is no number of a processor")
    return RealTime(cpu=int(chosen[name])).cpu


def confine(context: LaunchContext) -> list[Any]:
    """A twin never leaves this machine, so that no robot finds it; a robot's nodes keep to its interface."""
    chosen = context.launch_configurations
    if chosen["robot"] == "real":
        return confined_to_robot(chosen)
    security.prepare(chosen)
    as_operator = security.secured(chosen, "operator").items()
    return [
        *confined_to_this_machine(chosen["domain"]),
        *(SetEnvironmentVariable(name, value) for name, value in as_operator),
    ]


def bring_up(context: LaunchContext) -> list[Any]:
    """Preflight, then every process."""
    chosen = context.launch_configurations
    host = "embedded" if chosen["security"] == "true" else choose_host(chosen["host"])
    real_time = chosen["rt"] == "true"
    policy = find_policy(chosen["policy"])
    contract = check_policy(policy, chosen["model"], chosen["variant"])
    robot = {"robot": chosen["model"], "variant": chosen["variant"]}
    real = chosen["robot"] == "real"
    auto_start = not real and chosen["auto_start"] != "false"
    in_isaac = chosen["sim"] == "isaac"
    twin = supervised_node(
        "humanoid_rl_sim",
        "robot_twin",
        parameters={
            **robot,
            "start": chosen["start"],
            "simulator": f"isaac:{chosen['engine'] or ENGINES[0]}" if in_isaac else "mujoco",
        },
        environment=security.secured(chosen, "robot_twin"),
        priority=TWIN_PRIORITY,
        in_isaac=in_isaac,
        patience=ISAAC_PATIENCE if in_isaac else TWIN_PATIENCE,
    )
    nodes = [
        LogInfo(msg=f"policy {contract.name}: {policy}"),
        *host_actions(
            host,
            **robot,
            policy_period=contract.control_period,
            activate=True,
            real_time=real_time,
            cpu=processor(chosen, "host_cpu"),
            environment=security.secured(chosen, "embedded_host"),
        ),
        supervised_node(
            "humanoid_rl_inference",
            "policy_node",
            parameters={
                **robot,
                "policy": str(policy),
                "auto_start": auto_start,
                "provider": chosen["provider"],
                "rt_priority": POLICY_PRIORITY if real_time else 0,
                "cpu": processor(chosen, "policy_cpu"),
                "lock_memory": real_time,
            },
            environment=security.secured(chosen, "policy_node"),
            grace=SINKING_TIME,
            priority=POLICY_PRIORITY,
        ),
        *viewer_actions(
            chosen["viewer"],
            robot=chosen["model"],
            variant=chosen["variant"],
            port=chosen["port"],
            described=host == "ros2_control",
        ),
    ]
    if real:
        remote = supervised_node("humanoid_rl_inference", "wireless_remote")
        return after_preflight(chosen, contract, [*nodes, remote])
    check_domain_free()
    return [twin, *nodes]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            refuse_unknown_arguments("deploy", ARGUMENTS),
            *ARGUMENTS,
            OpaqueFunction(function=refuse_unavailable),
            OpaqueFunction(function=confine),
            OpaqueFunction(function=bring_up),
        ]
    )
