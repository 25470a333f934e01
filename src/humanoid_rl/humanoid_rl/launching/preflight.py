"""What is checked before any node of a deployment starts. Each failure is one line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.resources import share_dir

if TYPE_CHECKING:
    from humanoid_rl_core.contract import PolicyContract

DEFAULT_POLICY = "g1_stand"
RUNS_VARIABLE = "HUMANOID_RL_RUNS"
# Two participants of one machine find each other in 0.1-0.3 s; where the first announcements are lost on a
# loaded machine, the next ones come after 3 s, the default of Fast DDS.
DISCOVERY_TIME = 3.5
MAX_DOMAIN = 232  # the highest DDS domain whose ports exist


def runs_dir() -> Path:
    """Directory of the training runs: $HUMANOID_RL_RUNS, or runs/ in the working directory."""
    return Path(os.environ.get(RUNS_VARIABLE) or "runs")


def find_policy(name: str = "") -> Path:
    """The ONNX file meant by a path, by a name in policies/, or by the name of a run.

    Args:
        name: a path, `g1_stand`, or a run; "" is the standing policy of policies/.

    Raises:
        UserError: there is none; the message says which names exist.
    """
    policies = share_dir() / "policies"
    as_path = Path(name).expanduser()
    if name and (as_path.suffix == ".onnx" or as_path.parent != Path(".")):
        if as_path.is_file():
            return as_path.resolve()
        if (as_path / "policy.onnx").is_file():
            return (as_path / "policy.onnx").resolve()
        raise UserError(f"policy {as_path} does not exist")
    shipped = {path.stem: path for path in sorted(policies.glob("*.onnx"))}
    trained = {path.parent.name: path for path in sorted(runs_dir().glob("*/policy.onnx"))}
    wanted = name or DEFAULT_POLICY
    for table in (shipped, trained):
        if wanted in table:
            return table[wanted].resolve()
    known = [*shipped, *trained]
    if not name:
        raise UserError(
            f"no policy was named and {policies / DEFAULT_POLICY}.onnx does not exist: name one "
            f"({', '.join(known) or 'train and export one with `humanoid-rl train` and `export`'})"
        )
    raise UserError(
        f"no policy '{name}'{nearest(name, known)} in {policies} or {runs_dir().resolve()} "
        f"(there are: {', '.join(known) or 'none'})"
    )


def check_policy(path: Path, robot: str, variant: str) -> PolicyContract:
    """Load a policy with every refusal of its contract, and return the contract.

    Raises:
        UserError: the file is no policy, not one for this robot, or one that sees what no sensor of the robot gives.
    """
    from humanoid_rl_core.contract import check_sensors
    from humanoid_rl_core.onnx_policy import OnnxPolicy
    from humanoid_rl_core.robot import load_robot

    model = load_robot(robot, variant)
    contract = OnnxPolicy(path, model).contract
    try:
        check_sensors(contract, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return contract


def check_domain_number(domain: str) -> None:
    """Raises UserError unless domain is "" (the environment's) or a DDS domain number."""
    if domain and not (domain.isdecimal() and int(domain) <= MAX_DOMAIN):
        raise UserError(f"domain:={domain} is no DDS domain (0 to {MAX_DOMAIN})")


def check_domain_free(seconds: float = DISCOVERY_TIME) -> None:
    """Refuse to start beside another robot or twin of the same domain.

    The discovery settings are the environment's (ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE), so it
    looks exactly as far as the nodes will.

    Args:
        seconds: how long to listen for others.

    Raises:
        UserError: somebody publishes /lowstate or /lowcmd.
    """
    import rclpy
    from rclpy.context import Context
    from rclpy.signals import SignalHandlerOptions

    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    context = Context()
    try:
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("deploy_preflight", context=context, start_parameter_services=False)
    except Exception as error:
        raise UserError(f"ROS 2 cannot join domain {domain}: {str(error).splitlines()[0]}") from None
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for topic in ("/lowstate", "/lowcmd"):
                for publisher in node.get_publishers_info_by_topic(topic):
                    who = publisher.node_name
                    raise UserError(
                        f"{topic} is already published in ROS domain {domain}"
                        f"{'' if who.startswith('_') else f' by node {who}'}: "
                        "end that robot, twin or host first, or choose another domain:="
                    )
            time.sleep(0.05)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
