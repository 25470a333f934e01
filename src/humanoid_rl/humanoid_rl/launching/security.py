"""DDS security (SROS 2) for a deployment: a keystore with an enclave for each process, and what switches it on.

Keys, certificates and signed permissions are made by `ros2 security` of the package sros2; who may say what is in
config/security/deploy.policy.xml. With security enforced a process takes part only under its enclave, and whatever
has none, an unsecured robot included, is neither heard nor answered.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir

POLICY_FILE = "config/security/deploy.policy.xml"
ENCLAVES = ("robot_twin", "embedded_host", "policy_node", "operator")
"""Names in the policy file: one for each process of a deployment; viewers and tools are `operator`."""

GENERATION_TIME = 120.0
PROBE_TIME = 60.0
TIMED_OUT = 124  # as timeout(1) has it
PROBE = (
    "import rclpy; rclpy.init(args=[]); rclpy.create_node('security_probe', start_parameter_services=False)"
)


def check_arguments(chosen: Mapping[str, str]) -> None:
    """Refuse arguments of deploy.launch.py that security:=true cannot go with.

    Raises:
        UserError: see the line.
    """
    if chosen["security"] != "true":
        return
    if chosen["robot"] == "real":
        raise UserError(
            "security:=true cannot protect the link to a robot: one that speaks without it is not heard; "
            "keep others off its network"
        )
    if chosen["host"] == "ros2_control":
        raise UserError("security:=true has no enclave for host:=ros2_control: take host:=embedded")


def secured(chosen: Mapping[str, str], name: str) -> dict[str, str]:
    """Environment variables of a process of a deployment under `chosen`: none without security:=true."""
    return security_environment(chosen_keystore(chosen), name) if chosen["security"] == "true" else {}


def chosen_keystore(chosen: Mapping[str, str]) -> Path:
    """Folder of the keys, from the argument `keystore`."""
    return Path(chosen["keystore"]).expanduser().resolve()


def prepare(chosen: Mapping[str, str]) -> None:
    """Make the keystore that security:=true needs, and refuse a middleware that cannot be secured.

    Raises:
        UserError: see `make_keystore` and `check_middleware`.
    """
    if chosen["security"] == "true":
        make_keystore(chosen_keystore(chosen))
        check_middleware(chosen_keystore(chosen))


def enclave(name: str) -> str:
    """Full name of an enclave of `ENCLAVES`."""
    assert name in ENCLAVES, name
    return f"/humanoid_rl/{name}"


def security_environment(keystore: Path, name: str) -> dict[str, str]:
    """Environment variables under which a process takes part in a secured deployment, and in no other.

    Args:
        keystore: made by `make_keystore`.
        name: of the process in `ENCLAVES`.
    """
    return {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(keystore),
        "ROS_SECURITY_ENCLAVE_OVERRIDE": enclave(name),
    }


def make_keystore(keystore: Path) -> None:
    """Make a keystore with every enclave of a deployment, or complete one; what it has is kept.

    Raises:
        UserError: `ros2 security` is not installed or refuses.
    """
    policy = share_dir() / POLICY_FILE
    if shutil.which("ros2") is None or _run(["ros2", "security", "--help"]).returncode:
        raise UserError(
            "security needs the command `ros2 security`: install the package ros-$ROS_DISTRO-sros2, "
            "which Python wheels of ROS do not have"
        )
    made = _run(["ros2", "security", "generate_artifacts", "-k", str(keystore), "-p", str(policy)])
    absent = [
        name for name in ENCLAVES if not (keystore / f"enclaves{enclave(name)}/permissions.p7s").is_file()
    ]
    if made.returncode or absent:
        said = (made.stderr or made.stdout).strip().splitlines() or [f"no enclave {', '.join(absent)}"]
        raise UserError(f"`ros2 security` made no complete keystore in {keystore}: {said[-1]}")
    # Whoever reads the private keys can sign permissions of their own.
    (keystore / "private").chmod(0o700)


def check_middleware(keystore: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a middleware that cannot be secured, before any node is started with the wish that it is.

    Raises:
        UserError: a node does not come up under the keystore; the line has the middleware's own reason.
    """
    as_operator = {**environment, **security_environment(keystore, "operator")}
    probe = _run([sys.executable, "-c", PROBE], as_operator, PROBE_TIME)
    if probe.returncode:
        said = [line for line in probe.stderr.splitlines() if "Error: " in line] or probe.stderr.splitlines()
        said = said or [f"its process ended with code {probe.returncode}"]
        reason = said[0].partition("Error: ")[2] or said[0]
        raise UserError(
            f"this middleware starts no secured node ({reason}): take a ROS 2 install whose middleware is built "
            "with security, or leave it off and keep others off the network"
        )


def _run(
    words: list[str], environment: Mapping[str, str] | None = None, timeout: float = GENERATION_TIME
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, TIMED_OUT, "", f"it had not ended after {timeout:g} s")
