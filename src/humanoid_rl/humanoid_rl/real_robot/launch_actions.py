"""`robot:=real` in a launch file: arguments, discovery, and a preflight before the first node.

The preflight is a process of its own: it listens for seconds and waits for the operator, and Ctrl-C has to work
meanwhile. Its refusal becomes the launch's, in one line, and nothing is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from humanoid_rl_core.errors import UserError
from launch.actions import ExecuteProcess

from humanoid_rl.launching.launch_files import ended_with_parent
from humanoid_rl.real_robot.network_interface import (
    ROBOT_DOMAIN,
    Route,
    check_middleware,
    choose_address,
    confined_to_interface,
    network_interfaces,
)
from humanoid_rl.real_robot.preflight_config import preflight_config_of
from humanoid_rl.real_robot.robot_checks import check_confirm

if TYPE_CHECKING:
    from humanoid_rl_core.contract import PolicyContract
    from launch import LaunchContext
    from launch.events.process import ProcessExited


def check_real_arguments(chosen: Mapping[str, str]) -> None:
    """Refuse what makes no sense for robot:=real, and what belongs to it for robot:=sim.

    Raises:
        UserError: in one line.
    """
    if chosen["robot"] != "real":
        if chosen["interface"]:
            raise UserError("interface:= goes with robot:=real; robot:=sim stays on this machine")
        if chosen["confirm"]:
            raise UserError("confirm:= goes with robot:=real; the simulated robot needs no hoist")
        return
    if not chosen["interface"]:
        known = ", ".join(interface.name for interface in network_interfaces())
        raise UserError(
            f"robot:=real needs interface:=, the network interface the robot is connected to (there are: {known})"
        )
    check_confirm(chosen["confirm"])
    if chosen["auto_start"] == "true":
        raise UserError(
            "auto_start:=true is not possible with robot:=real: the operator calls /policy/stand and /policy/start"
        )
    if chosen["start"] != "standing":
        raise UserError(
            f"start:={chosen['start']} places the simulated robot; a real one hangs where it hangs"
        )
    if chosen["sim"] != "mujoco" or chosen["engine"]:
        raise UserError("sim:= and engine:= choose the physics of robot:=sim; a real robot has its own")
    check_middleware(os.environ)


def confined_to_robot(chosen: Mapping[str, str]) -> list[Any]:
    """Actions after which every process talks through interface:= alone, in the robot's domain.

    Raises:
        UserError: the interface cannot lead to a robot.
    """
    route = _route(chosen)
    return confined_to_interface(route, chosen["domain"])


def _route(chosen: Mapping[str, str]) -> Route:
    config = preflight_config_of(chosen["model"])
    return choose_address(network_interfaces(), chosen["interface"], config.robot_network)


def after_preflight(
    chosen: Mapping[str, str], contract: PolicyContract, nodes: Sequence[Any]
) -> list[ExecuteProcess]:
    """The preflight, and the nodes once it has passed.

    Args:
        chosen: launch arguments.
        contract: of the policy.
        nodes: launch actions.
    """
    route = _route(chosen)
    where = f"{chosen['interface']} ({route.address.ip}), domain {chosen['domain'] or ROBOT_DOMAIN}"
    command = [
        *ended_with_parent("INT"), sys.executable, "-m", "humanoid_rl.real_robot.robot_preflight",
        "--robot", chosen["model"], "--variant", chosen["variant"], "--where", where,
        "--mode-machine", *map(str, contract.mode_machine), "--confirm", chosen["confirm"],
    ]  # fmt: skip
    if route.warning:
        print(f"robot_preflight: warning: {route.warning}", flush=True)

    def on_exit(event: ProcessExited, context: LaunchContext) -> Any:
        if context.is_shutdown:
            return None
        if event.returncode == 0:
            return list(nodes)
        lines = str(process.get_stderr()).strip().splitlines()
        reason = lines[-1] if lines else f"the preflight ended with exit code {event.returncode}"
        # An exception, not a Shutdown action: only that gives `ros2 launch` a non-zero exit code.
        raise UserError(f"nothing was started: {reason}")

    process = ExecuteProcess(
        cmd=command,
        name="robot_preflight",
        additional_env={"PYTHONUNBUFFERED": "1"},
        # The last line on stderr is told by the launch, as its own error.
        output={"stdout": "screen", "stderr": "log"},
        cached_output=True,
        on_exit=on_exit,
    )
    return [process]
