"""Which network transports a node on the robot's command path may use.

Fast DDS connects processes of one machine through shared memory. A reader that is killed amid a sample leaves
that memory in a state in which a writer's samples reach nobody any more, not even readers that live: seen as
0.5 s of damping commands and then silence, after the policy node beside a host was killed. Rule H8 asks for
damping in exactly that case. So host, twin and policy node take part over UDP alone; who reads them, or talks
to them, may have both.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Environment variables that name the XML profile, of Fast DDS 2 and 3."""


def loopback_profile() -> Path:
    """The Fast DDS profile that confines a process to the loopback network."""
    return share_dir() / "config" / "dds" / "loopback.xml"


def keep_off_shared_memory(environment: MutableMapping[str, str], rmw_implementation: str) -> None:
    """Change an environment so that nodes created under it use no shared memory, with the same reach.

    Args:
        environment: `os.environ`, before rclpy.init, or that of a process about to be started.
        rmw_implementation: as `rclpy.get_rmw_implementation_identifier()`. Others than Fast DDS use no shared
            memory unless they are told to, and are left alone.

    Raises:
        UserError: the environment brings a Fast DDS profile of its own and wants LOCALHOST too; only one of
            the two can say what the transports are.
    """
    if "fastrtps" not in rmw_implementation:
        return
    ours = str(loopback_profile())
    profile = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), "")
    localhost = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    if environment.get("ROS_LOCALHOST_ONLY") == "1" or localhost:
        if profile not in ("", ours):
            raise UserError(
                f"{PROFILE_VARIABLES[0]}={profile} cannot be combined with LOCALHOST discovery here: unset it"
            )
        if not loopback_profile().is_file():
            raise UserError(f"{ours} is missing: without it discovery would leave this machine")
        # Under LOCALHOST rmw_fastrtps adds shared memory whatever the profile says.
        environment.pop("ROS_LOCALHOST_ONLY", None)  # rcl warns of it whatever its value
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
        environment.update(dict.fromkeys(PROFILE_VARIABLES, ours))
    elif not profile:
        environment["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
