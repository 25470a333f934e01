"""The scripted deployment: launch, stand up, run, push, and write down what happened.

The launch is a child process in a session of its own; whatever happens here, nothing of it is left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.rotation import projected_gravity
from nav_msgs.msg import Odometry
from sensor_msgs.msg import JointState

from humanoid_rl.launching.launch_files import ended_with_parent
from humanoid_rl.operator_client import Operator, Polled
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, PolicyStatus

BRING_UP_TIMEOUT = 60.0
BRING_UP_ATTEMPTS = 5
END_TIMEOUT = 20.0
HOIST_TIMEOUT = 40.0
HOIST_OFF = "off"  # in the twin's diagnostics
RECORD_PERIOD = 0.02
# A base that is this low or tilted this far does not come back up; the tasks' own terminations.
FALLEN_HEIGHT = 0.5
FALLEN_TILT = 0.8
UPRIGHT_TILT = 0.3  # a push that is survived stays well below it; a fall goes through it


class LaunchProcess:
    """`humanoid-rl launch NAME key:=value...` as a child with its own session. A context manager.

    Args:
        name: launch file.
        arguments: key -> value.
        log: file for everything the launch and its nodes print.
        domain: DDS domain, None for the environment's.
    """

    def __init__(self, name: str, arguments: dict[str, str], log: Path, domain: int | None = None) -> None:
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # SIGTERM makes the launch end its children, should this process be killed outright.
        self._command = [*ended_with_parent("TERM"), sys.executable, "-m", "humanoid_rl", "launch", name]
        self._command += [f"{key}:={value}" for key, value in arguments.items()]
        self._environment = dict(os.environ, PYTHONUNBUFFERED="1")
        if domain is not None:
            self._environment["ROS_DOMAIN_ID"] = str(domain)
        self.process: subprocess.Popen[bytes] | None = None
        self.left_behind: dict[int, str] = {}

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Process id of the launch, which is its session's id too."""
        assert self.process is not None
        return self.process.pid

    def check_alive(self) -> None:
        """Raises UserError, with the reason the launch printed, when it has ended."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise UserError(f"the launch ended with exit code {code}: {self.reason()} (log: {self.log})")

    def reason(self) -> str:
        """The line of the log that says why the launch ended."""
        lines = self.log.read_text(errors="replace").splitlines()
        for line in reversed(lines):
            if "Caught exception in launch" in line:
                return line.partition("traceback): ")[2] or line
        return lines[-1] if lines else "it printed nothing"

    def members(self) -> dict[int, str]:
        """Living processes of the launch's session: pid -> command line."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    words = (stat.parent / "cmdline").read_bytes().split(b"\0")
                    found[int(stat.parent.name)] = b" ".join(words).decode(errors="replace").strip()
        return found

    def end(self) -> int:
        """End the launch as Ctrl-C does. Returns its exit code; what will not end is killed.

        `left_behind` then names the processes that the launch itself did not end.
        """
        assert self.process is not None
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(END_TIMEOUT)
        finally:
            self.left_behind = self.members()
            for pid in self.left_behind:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self.process.wait()


@contextlib.contextmanager
def confined(domain: int | None = None) -> Iterator[None]:
    """This machine only, as the nodes of a simulated deployment are; for nodes of this process."""
    wanted = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": ""}
    if domain is not None:
        wanted["ROS_DOMAIN_ID"] = str(domain)
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@dataclass
class Recording:
    """What a deployment looked like; `as_json` is the layout of deployment.json.

    Times are seconds since the launch was started; the traces share `time_s`.
    """

    joint_names: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    joint_pos: list[list[float]] = field(default_factory=list)
    joint_target: list[list[float]] = field(default_factory=list)
    base_height_m: list[float] = field(default_factory=list)
    base_tilt_rad: list[float] = field(default_factory=list)
    tick_latency_s: list[float] = field(default_factory=list)
    tick_stamp_s: list[tuple[int, float]] = field(default_factory=list)
    host_period_error_s: dict[str, float] = field(default_factory=dict)
    deadline_misses: int = 0
    real_time_factor: float = 1.0
    stops: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to what they mean."""
        periods = [
            later - earlier
            for (tick, earlier), (next_tick, later) in itertools.pairwise(self.tick_stamp_s)
            if next_tick == tick + 1
        ]
        return {
            "joint_names": self.joint_names,
            "events": self.events,
            "time_s": np.round(self.time_s, 4).tolist(),
            "joint_pos": np.round(np.array(self.joint_pos), 4).tolist(),
            "joint_target": np.round(np.array(self.joint_target), 4).tolist(),
            "base_height_m": np.round(self.base_height_m, 4).tolist(),
            "base_tilt_rad": np.round(self.base_tilt_rad, 4).tolist(),
            "tick_latency_s": np.round(self.tick_latency_s, 7).tolist(),
            "tick_period_s": np.round(periods, 7).tolist(),
            "host_period_error_s": self.host_period_error_s,
            "deadline_misses": self.deadline_misses,
            "real_time_factor_min": self.real_time_factor,
        }


class Recorder:
    """Polls a running deployment's topics into a Recording."""

    def __init__(self, operator: Operator, started: float) -> None:
        self._operator = operator
        self._started = started
        node = operator.observer
        self._joint_states = Polled(node, JointState, "/joint_states")
        self._commands = Polled(node, JointCommand, "/joint_command")
        self._odometry = Polled(node, Odometry, "/ground_truth/odom")
        self._policy = Polled(node, PolicyStatus, "/policy/status", depth=200)
        self._diagnostics = Polled(node, DiagnosticArray, "/diagnostics", depth=20)
        self._host = Polled(node, HostStatus, "/host/status", depth=10)
        self._joint_pos: dict[str, float] = {}
        self._joint_target: dict[str, float] = {}
        self._height = self._tilt = math.nan
        self.recording = Recording()
        self.policy: PolicyStatus | None = None
        self.host: HostStatus | None = None
        self.twin: dict[str, str] = {}
        self.stopped_upright = ""

    @property
    def now(self) -> float:
        """Seconds since the launch was started."""
        return time.monotonic() - self._started

    def event(self, name: str, **details: Any) -> None:
        """Note something that happened now."""
        self.recording.events.append({"time": round(self.now, 3), "name": name, **details})

    @property
    def fallen(self) -> str:
        """How the robot fell, "" while it is up."""
        if self._height < FALLEN_HEIGHT:
            return f"the base is at {self._height:.2f} m"
        if self._tilt > FALLEN_TILT:
            return f"the base is tilted by {self._tilt:.2f} rad"
        return ""

    def forget_stops(self) -> None:
        """From here on a stop counts: what happened on the way up is over."""
        self.sample()
        self.recording.stops, self.stopped_upright = 0, ""

    @property
    def connected(self) -> bool:
        """Whether the host has heard its robot."""
        waiting = (HostStatus.INACTIVE, HostStatus.WAITING_STATE)
        return self.host is not None and self.host.state not in waiting

    def record(self, seconds: float) -> None:
        """Poll and record for that long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.sample()
            time.sleep(RECORD_PERIOD)

    def sample(self) -> None:
        """Take what has come, and add one row to the traces once every source has spoken."""
        for state in self._joint_states.take_all():
            self._joint_pos = dict(zip(state.name, state.position, strict=True))
        for command in self._commands.take_all():
            self._joint_target = dict(zip(command.joint_names, command.position, strict=True))
        for odometry in self._odometry.take_all():
            pose = odometry.pose.pose
            self._height = pose.position.z
            q = pose.orientation
            gravity = projected_gravity(np.array([q.w, q.x, q.y, q.z]))
            self._tilt = math.acos(min(1.0, max(-1.0, -float(gravity[2]))))
        recording = self.recording
        for status in self._policy.take_all():
            self._note_state("policy", self.policy, status)
            self.policy = status
            if status.state in (PolicyStatus.STANDING, PolicyStatus.RUNNING):
                stamp = status.header.stamp
                recording.tick_stamp_s.append((status.ticks, stamp.sec + 1e-9 * stamp.nanosec))
                recording.tick_latency_s.append(status.tick_latency)
            recording.deadline_misses = status.deadline_misses
        for array in self._diagnostics.take_all():
            for diagnostic in array.status:
                if diagnostic.name == "robot_twin":
                    self.twin = {pair.key: pair.value for pair in diagnostic.values}
                    factor = float(self.twin["real_time_factor"])
                    recording.real_time_factor = min(recording.real_time_factor, factor)
        for host in self._host.take_all():
            self._note_state("host", self.host, host)
            self.host = host
            worst = max(recording.host_period_error_s.get("max", 0.0), host.period_error_max)
            recording.host_period_error_s = {
                "p50": host.period_error_p50,
                "p99": host.period_error_p99,
                "max": worst,
            }
        complete = bool(self._joint_pos and self._joint_target) and not math.isnan(self._height)
        if complete and (not recording.time_s or self.now - recording.time_s[-1] >= 0.9 * RECORD_PERIOD):
            recording.joint_names = recording.joint_names or list(self._joint_pos)
            recording.time_s.append(self.now)
            recording.joint_pos.append([self._joint_pos[name] for name in recording.joint_names])
            recording.joint_target.append([self._joint_target[name] for name in recording.joint_names])
            recording.base_height_m.append(self._height)
            recording.base_tilt_rad.append(self._tilt)

    def _note_state(self, who: str, before: Any, now: Any) -> None:
        if before is None or before.state != now.state:
            # Once a guard or the host has stopped it, the robot sinks; that is not what a fall is.
            if (type(now), now.state) in STOPPED and not self.recording.stops:
                self.stopped_upright = now.cause if self._tilt < UPRIGHT_TILT else ""
            self.recording.stops += (type(now), now.state) in STOPPED
            self.event(f"{who}_state", state=STATE_NAMES[type(now)][now.state], cause=now.cause)


def _names(message: type, *constants: str) -> dict[int, str]:
    return {getattr(message, name): name for name in constants}


STATE_NAMES = {
    PolicyStatus: _names(PolicyStatus, "IDLE", "STANDING", "RUNNING", "FAULT"),
    HostStatus: _names(HostStatus, "INACTIVE", "WAITING_STATE", "READY", "ACTIVE", "DAMPING"),
}

STOPPED = ((PolicyStatus, PolicyStatus.FAULT), (HostStatus, HostStatus.DAMPING))


def run_deployment(
    policy: Path,
    output: Path,
    *,
    push: tuple[float, float] = (0.5, 0.0),
    run_time: float = 10.0,
    settle_time: float = 5.0,
    domain: int | None = None,
    launch_arguments: dict[str, str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Deploy a policy on the twin, run it, push it, and write what happened.

    Args:
        policy: ONNX file.
        output: deployment.json; written whole or not at all. The launch's log goes beside it.
        push: m/s added to the base (x forward, y left, world frame).
        run_time: s of running before the push.
        settle_time: s the robot has to stay up after it.
        domain: DDS domain, None for the environment's.
        launch_arguments: further arguments of deploy.launch.py.
        progress: told what happens, a line at a time.

    Returns:
        The contents of `output`: `survived` says whether the robot stayed up, `failure` why not, `fell`
        whether it fell by itself rather than being stopped while upright (a missed deadline, an error).

    Raises:
        UserError: the deployment did not come up.
    """
    arguments = {"policy": str(policy), "robot": "sim", "viewer": "none", "auto_start": "false"}
    arguments |= launch_arguments or {}
    log = output.with_name("deployment.log")
    started = time.monotonic()
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, log) as launch,
        Operator("deployment") as operator,
    ):
        recorder = Recorder(operator, started)

        def while_waiting() -> None:
            launch.check_alive()
            recorder.sample()

        operator.while_waiting = while_waiting
        bring_up(operator, recorder, progress)
        recorder.event("start")
        operator.start()
        progress(f"running for {run_time:g} s")
        recorder.record(run_time)
        failure = _failure(recorder)
        if failure:
            failure = f"before the push: {failure}"
        progress(f"push of {math.hypot(*push):.2f} m/s")
        recorder.event("push", velocity=list(push))
        operator.push(*push)
        recorder.record(settle_time)
        failure = failure or _failure(recorder)
        progress(f"fell: {failure}" if failure else "still standing")
        recorder.event("end")
    result = {
        **recorder.recording.as_json(),
        "policy_file": policy.name,
        "push_velocity": list(push),
        "survived": not failure,
        "failure": failure,
        "fell": bool(recorder.fallen) and not recorder.stopped_upright,
        "left_behind": sorted(launch.left_behind.values()),
    }
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(result) + "\n")
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return result


def bring_up(
    operator: Operator, recorder: Recorder, progress: Callable[[str], None] = lambda line: None
) -> None:
    """Wait for every node, stand up, and wait until the crane is off.

    Three programs that start at once can keep a small machine from its 20 ms for a moment, and then the
    safety rules do what they are for. So a fault on the way up is reset, and the robot stood up again.

    Raises:
        UserError: it did not come to stand freely.
    """
    progress("bringing up twin, host and policy node")
    operator.wait_until(
        lambda: recorder.policy is not None and recorder.connected and bool(recorder.twin),
        "no robot, host or policy node",
        BRING_UP_TIMEOUT,
    )
    for attempt in range(1, BRING_UP_ATTEMPTS + 1):
        progress("standing up")
        recorder.event("stand")
        try:
            operator.stand()
            operator.wait_for(
                lambda status: recorder.twin.get("hoist") == HOIST_OFF,
                "the crane did not let go",
                HOIST_TIMEOUT,
            )
        except UserError as error:
            operator.while_waiting()  # where the launch is gone, it says so
            if attempt == BRING_UP_ATTEMPTS:
                raise
            progress(f"again: {error}")
            recorder.event("again", cause=str(error))
            operator.trigger("/twin/reset")
            recorder.twin.clear()
            operator.wait_until(lambda: recorder.twin.get("hoist", HOIST_OFF) != HOIST_OFF, "no crane")
            for service in ("/policy/reset", "/host/reset"):
                # Whichever has nothing to reset says no.
                with contextlib.suppress(UserError):
                    operator.trigger(service)
        else:
            recorder.event("hoist_off")
            recorder.forget_stops()
            return


def _failure(recorder: Recorder) -> str:
    """Why the deployment is not standing and running, "" if it is."""
    policy, host = recorder.policy, recorder.host
    if recorder.stopped_upright:
        return f"stopped while upright: {recorder.stopped_upright}"
    if recorder.fallen:
        return recorder.fallen
    if policy is None or policy.state != PolicyStatus.RUNNING:
        return f"the policy node is not running: {policy.cause if policy else 'no status'}"
    if host is None or host.state != HostStatus.ACTIVE:
        return f"the host is not active: {host.cause if host else 'no status'}"
    return ""


def summary(result: dict[str, Any]) -> Sequence[str]:
    """A deployment in a few lines."""
    latency = np.array(result["tick_latency_s"]) * 1e3
    jitter = np.abs(np.array(result["tick_period_s"]) - 0.02) * 1e3
    host = result["host_period_error_s"]
    outcome = "stayed up" if result["survived"] else f"fell ({result['failure']})"
    lines = [f"push of {math.hypot(*result['push_velocity']):.2f} m/s over ROS 2: {outcome}"]
    if latency.size and jitter.size:
        lines.append(
            "policy tick p50/p99/max "
            f"{np.percentile(latency, 50):.2f}/{np.percentile(latency, 99):.2f}/{latency.max():.2f} ms, "
            f"period error p99 {np.percentile(jitter, 99):.2f} ms"
        )
    if host:
        lines.append(f"host period error p50/p99 {host['p50'] * 1e6:.0f}/{host['p99'] * 1e6:.0f} us")
    return lines
