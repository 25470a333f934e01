"""Nodes in launch files: none is restarted, and an essential one takes the launch with it when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanoid_rl_sim.simulators.isaac_runner import isaac_runner
from launch.actions import LogInfo, OpaqueFunction, Shutdown, TimerAction
from launch_ros.actions import Node

from humanoid_rl.launching.launch_files import ahead_of_others, ended_with_parent

if TYPE_CHECKING:
    from launch import LaunchContext
    from launch.events.process import ProcessExited


def supervised_node(
    package: str,
    executable: str,
    *,
    parameters: dict[str, Any] | None = None,
    parameter_files: list[Path] | None = None,
    arguments: list[str] | None = None,
    environment: dict[str, str] | None = None,
    grace: float = 0.0,
    may_finish: bool = False,
    once: bool = False,
    essential: bool = True,
    patience: float = 5.0,
    priority: int = 0,
    in_isaac: bool = False,
) -> Node:
    """A node that ends with the launch, and, if it is essential, the launch with it.

    Args:
        package: ROS package of the executable.
        executable: name in lib/<package>.
        parameters: ROS parameters by name.
        parameter_files: YAML files of ROS parameters.
        arguments: further command line arguments.
        environment: variables on top of the launch's own.
        grace: seconds between the end of this node and the end of the launch; the others go on meanwhile.
        may_finish: exit code 0 is the expected end and ends the launch well.
        once: exit code 0 is the expected end and the launch goes on.
        essential: the launch makes no sense without it.
        priority: of a control loop, 1 to 99, that runs before other work of the machine; 0 for all others.
        patience: seconds the node gets to leave after SIGINT before it is sent SIGTERM.
        in_isaac: the node steps Isaac Lab, so it runs in the environment of `make isaac`.

    Raises:
        UserError: that environment is not there.
    """

    def on_exit(event: ProcessExited, context: LaunchContext) -> Any:
        if context.is_shutdown or not essential or (once and event.returncode == 0):
            return None
        if may_finish and event.returncode == 0:
            return Shutdown(reason=f"{executable} is done")
        reason = f"{executable} ended with exit code {event.returncode}"

        def end(_: LaunchContext) -> None:
            # An exception, not a Shutdown action: only that gives `ros2 launch` a non-zero exit code.
            raise RuntimeError(f"{reason}: ending the launch")

        return [
            LogInfo(msg=f"{reason}; the launch ends in {grace:g} s"),
            TimerAction(period=grace, actions=[OpaqueFunction(function=end)]),
        ]

    prefix = [*(ahead_of_others(priority) if priority else []), *ended_with_parent("INT")]
    # The installed executables are bound to this environment's Python; the other one has the same modules.
    module = ["python", "-m", f"{package}.nodes.{executable}"] if in_isaac else []
    return Node(
        package=None if in_isaac else package,
        executable=isaac_runner("sim:=isaac") if in_isaac else executable,
        exec_name=executable,
        parameters=[*([parameters] if parameters else []), *map(str, parameter_files or [])],
        arguments=[*module, *(arguments or [])],
        additional_env=environment,
        output="screen",
        prefix=" ".join(prefix) or None,
        sigterm_timeout=str(patience),
        on_exit=on_exit,
        respawn=False,
    )
