"""Twin, host and policy node as the launch file starts them, over DDS; what the robot is told is read raw
from /lowcmd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from humanoid_rl.deployment import LaunchProcess, Recorder, bring_up, confined, run_deployment
from humanoid_rl.drive import MINUTE, Tracking, drive
from humanoid_rl.launching.hosts import installed_hosts
from humanoid_rl.operator_client import Operator, polled_qos
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_core.unitree_hg_wire import DAMPING_KD, low_cmd_crc_ok, low_cmd_record
from rclpy.node import Node

from humanoid_rl_interfaces.msg import HostStatus, PolicyStatus
from unitree_hg.msg import LowCmd

MOTORS = len(load_robot().joint_names)
CYCLE = 0.002
STALE_COMMAND = 0.06  # three policy periods, rule H3
STALE_STATE = 0.05  # rule H4
END = 20.0
DRIVES = 4  # a minute without a stall of 20 ms is not to be had at every try on a busy machine
# What the gains alone survive with room to spare, also on a machine too slow for real time; a shipped
# policy is pushed as hard as the demo pushes it.
GENTLE_PUSH, SHIPPED_PUSH = 0.1, 0.25


class Wire:
    """Every LowCmd on the wire: when it came, and whether it is the damping command."""

    def __init__(self, node: Node) -> None:
        self._subscription = node.create_subscription(
            LowCmd, "/lowcmd", lambda message: None, polled_qos(depth=500), raw=True
        )
        self._stop = threading.Event()
        self.commands: list[tuple[float, bool]] = []
        self.corrupt = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.wait(0.001):
            with self._subscription.handle:
                while (item := self._subscription.handle.take_message(LowCmd, True)) is not None:
                    self.corrupt += not low_cmd_crc_ok(item[0])
                    self.commands.append((time.monotonic(), is_damping(item[0])))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def since(self, begin: float) -> list[tuple[float, bool]]:
        return [command for command in self.commands if command[0] >= begin]

    def longest_silence(self, begin: float, end: float) -> float:
        times = [begin, *(stamp for stamp, _ in self.commands if begin < stamp < end), end]
        return float(np.diff(times).max())


def is_damping(message: bytes) -> bool:
    motors = low_cmd_record(message)["motor_cmd"][:MOTORS]
    return bool(
        (motors["kp"] == 0.0).all()
        and (motors["kd"] == DAMPING_KD).all()
        and (motors["dq"] == 0.0).all()
        and (motors["tau"] == 0.0).all()
    )


class Deployment:
    """A launched deployment, its operator, and ears on the wire."""

    def __init__(self, launch: LaunchProcess, operator: Operator) -> None:
        self.launch, self.operator = launch, operator
        self.wire = Wire(operator.observer)
        self.recorder = Recorder(operator, time.monotonic())

    def close(self) -> None:
        self.wire.close()

    def watch_launch(self, watch: bool) -> None:
        """Whether waiting ends with an error when the launch ends."""

        def while_waiting() -> None:
            if watch:
                self.launch.check_alive()
            self.recorder.sample()

        self.operator.while_waiting = while_waiting

    def wait(self, reached: Callable[[], bool], otherwise: str, timeout: float = 10.0) -> None:
        self.operator.wait_until(reached, otherwise, timeout)

    def node_pid(self, executable: str) -> int:
        found = [pid for pid, line in self.launch.members().items() if f"/{executable}" in line]
        assert len(found) == 1, self.launch.members()
        return found[0]

    def policy_is(self, state: int) -> bool:
        return self.recorder.policy is not None and self.recorder.policy.state == state

    def host_is(self, state: int) -> bool:
        return self.recorder.host is not None and self.recorder.host.state == state


@pytest.fixture(params=installed_hosts())
def host(request: pytest.FixtureRequest) -> str:
    """Every test that deploys runs with every host that is installed."""
    return request.param


@pytest.fixture
def deployment(standing_policy: Path, tmp_path: Path, domain: int, host: str) -> Iterator[Deployment]:
    """A deployment whose robot stands free of the crane and whose policy runs."""
    arguments = {"policy": str(standing_policy), "viewer": "none", "auto_start": "false", "host": host}
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, tmp_path / "launch.log", domain) as launch,
        Operator("end_to_end") as operator,
        closing(Deployment(launch, operator)) as running,
    ):
        running.watch_launch(True)
        bring_up(operator, running.recorder)
        operator.start()
        running.wait(lambda: running.host_is(HostStatus.ACTIVE), "the host does not follow")
        running.watch_launch(False)
        yield running
    assert running.wire.corrupt == 0
    assert launch.left_behind == {}


def damping_after(wire: Wire, begin: float, limit: float) -> float:
    """Seconds from `begin` to the first damping command, once the wire stays in damping for 0.3 s."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        time.sleep(0.05)
        commands = wire.since(begin)
        first = next((stamp for stamp, damping in commands if damping), None)
        if first is not None and commands[-1][0] - first > 0.3:
            break
    else:
        pytest.fail("no damping on the wire within 5 s")
    assert all(damping for stamp, damping in commands if stamp >= first), "damping was not held"
    # A machine that did not run the host, or this listener, for a while is not the host's fault.
    noise = wire.longest_silence(begin - 0.2, first + 0.05)
    print(f"damping {1e3 * (first - begin):.1f} ms after the fault, longest silence {1e3 * noise:.1f} ms")
    assert first - begin <= limit + 2 * CYCLE + noise
    return first - begin


def test_robot_stands_up_runs_and_survives_a_push(
    standing_policy: Path, baseline_policy: Path, tmp_path: Path, domain: int, host: str
) -> None:
    push = GENTLE_PUSH if standing_policy == baseline_policy else SHIPPED_PUSH
    output = tmp_path / "deployment.json"
    result = run_deployment(
        standing_policy,
        output,
        push=(push, 0.0),
        run_time=10.0,
        domain=domain,
        launch_arguments={"host": host},
    )

    assert result["survived"], result["failure"]
    assert result["left_behind"] == []
    assert json.loads(output.read_text()) == result
    names = [event["name"] for event in result["events"]]
    assert [name for name in names if not name.endswith("_state")][-4:] == [
        "hoist_off", "start", "push", "end",
    ]  # fmt: skip
    times = {event["name"]: event["time"] for event in result["events"]}
    assert times["push"] - times["start"] >= 10.0
    rows = len(result["time_s"])
    assert result["time_s"][-1] - result["time_s"][0] > 15.0 and rows > 300
    for name in ("joint_pos", "joint_target"):
        assert np.shape(result[name]) == (rows, MOTORS)
    assert len(result["base_height_m"]) == len(result["base_tilt_rad"]) == rows
    assert min(result["base_height_m"]) > 0.6 and max(result["base_tilt_rad"]) < 0.6
    # The policy was obeyed: in RUNNING the joints are where it wants them, up to what gravity takes.
    settled = np.searchsorted(result["time_s"], times["push"] - 1.0)
    error = np.abs(np.subtract(result["joint_pos"][settled], result["joint_target"][settled]))
    assert error.max() < 0.3
    assert np.median(result["tick_latency_s"]) < 0.02
    assert abs(np.median(result["tick_period_s"]) - 0.02) < 0.002
    assert result["host_period_error_s"]["p50"] < CYCLE
    assert list(tmp_path.glob(".*")) == []


class StalledError(Exception):
    """The safety rules stopped a robot that was upright: the machine kept a loop from its deadline."""


def drive_a_minute(log: Path, domain: int, host: str) -> Tracking:
    """One deployment of the walking policy, driven by the script. A fall fails the test."""
    arguments = {"policy": "g1_walk", "viewer": "none", "auto_start": "false", "host": host}
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, log, domain) as launch,
        Operator("drive") as operator,
    ):
        recorder = Recorder(operator, time.monotonic())

        def while_waiting() -> None:
            launch.check_alive()
            recorder.sample()

        def watch() -> None:
            while_waiting()
            if recorder.stopped_upright:
                raise StalledError(recorder.stopped_upright)
            assert not recorder.fallen and not recorder.recording.stops, recorder.recording.events

        operator.while_waiting = while_waiting
        bring_up(operator, recorder)
        operator.start()
        tracking = drive(operator.observer, MINUTE, watch)
    assert launch.left_behind == {}
    return tracking


def test_walking_policy_follows_a_minute_of_commands(tmp_path: Path, domain: int, host: str) -> None:
    """velocity-v1's limits, over ROS 2: twin, host and policy node in real time, every change of command included."""
    for attempts_left in reversed(range(DRIVES)):
        try:
            tracking = drive_a_minute(tmp_path / f"launch_{attempts_left}.log", domain, host)
            break
        except StalledError as stalled:
            print(f"again: {stalled}")
            if not attempts_left:
                raise
    print(tracking)
    assert tracking.distance > 15.0
    assert tracking.velocity_error < 0.25 and tracking.yaw_rate_error < 0.3


def test_killed_policy_node_means_damping_within_60_ms_and_ends_the_launch(deployment: Deployment) -> None:
    victim = deployment.node_pid("policy_node")
    begin = time.monotonic()
    assert not any(damping for _, damping in deployment.wire.since(begin - 0.5))
    os.kill(victim, signal.SIGKILL)
    damping_after(deployment.wire, begin, STALE_COMMAND)
    deployment.wait(lambda: deployment.host_is(HostStatus.DAMPING), "the host did not latch")
    assert deployment.recorder.host is not None and "joint command" in deployment.recorder.host.cause

    # The host held the robot while it sank, and then the launch ended with the reason.
    assert deployment.launch.process is not None
    assert deployment.launch.process.wait(END) == 1
    assert deployment.wire.commands[-1][0] - begin > 1.5
    assert "policy_node ended with exit code -9" in deployment.launch.reason()
    assert deployment.launch.members() == {}


def test_the_command_path_uses_no_shared_memory(deployment: Deployment, host: str) -> None:
    """With it, the host fell silent 0.5 s after three of four kills, and the robot got nothing at all."""
    talker = {"embedded": "embedded_host", "ros2_control": "ros2_control_node"}[host]
    for executable in ("robot_twin", talker, "policy_node"):
        mapped = Path(f"/proc/{deployment.node_pid(executable)}/maps").read_text()
        assert "fastrtps" in mapped and "/dev/shm/fast" not in mapped


def test_emergency_stop_damps_and_holds_until_reset(deployment: Deployment) -> None:
    begin = time.monotonic()
    deployment.operator.trigger("/policy/estop")
    answered = time.monotonic() - begin
    damping_after(deployment.wire, begin, answered + 0.02)
    deployment.wait(lambda: deployment.policy_is(PolicyStatus.FAULT), "the policy node is not in FAULT")
    deployment.wait(lambda: deployment.host_is(HostStatus.DAMPING), "the host did not latch")
    for refused in ("/policy/stand", "/policy/start"):
        with pytest.raises(UserError, match="was refused"):
            deployment.operator.trigger(refused)
    assert all(damping for _, damping in deployment.wire.since(begin + answered + 0.1))

    # An explicit reset, with the robot put back on its feet, and it stands again.
    deployment.operator.trigger("/twin/reset")
    deployment.operator.trigger("/policy/reset")
    deployment.wait(lambda: deployment.policy_is(PolicyStatus.IDLE), "the policy node did not reset")
    deployment.wait(lambda: not deployment.host_is(HostStatus.DAMPING), "the host did not reset")
    deployment.operator.stand()


def test_host_stops_on_its_own_service_too(deployment: Deployment) -> None:
    begin = time.monotonic()
    deployment.operator.trigger("/host/estop")
    answered = time.monotonic() - begin
    damping_after(deployment.wire, begin, answered)
    deployment.wait(lambda: deployment.policy_is(PolicyStatus.FAULT), "the policy node went on")


def test_lost_state_damps_and_is_named(deployment: Deployment) -> None:
    begin = time.monotonic()
    deployment.operator.inject("drop_state")
    answered = time.monotonic() - begin
    damping_after(deployment.wire, begin, answered + STALE_STATE)
    deployment.wait(lambda: deployment.host_is(HostStatus.DAMPING), "the host did not latch")
    assert deployment.recorder.host is not None and "LowState" in deployment.recorder.host.cause
    deployment.wait(lambda: deployment.policy_is(PolicyStatus.FAULT), "the policy node went on")
    assert deployment.recorder.policy is not None and deployment.recorder.policy.cause
    # The data come back; the robot stays damped until somebody says so.
    deployment.operator.inject("none")
    time.sleep(0.5)
    assert all(damping for _, damping in deployment.wire.since(begin + answered + STALE_STATE + 0.5))


def test_ctrl_c_ends_everything_with_the_robot_in_damping(deployment: Deployment) -> None:
    assert deployment.launch.process is not None
    os.kill(deployment.launch.pid, signal.SIGINT)
    assert deployment.launch.process.wait(END) == 128 + signal.SIGINT
    assert deployment.launch.members() == {}
    time.sleep(0.1)
    last = [damping for _, damping in deployment.wire.commands[-10:]]
    assert last == [True] * 10


def test_terminated_launch_leaves_nothing_running(deployment: Deployment) -> None:
    assert deployment.launch.process is not None
    os.kill(deployment.launch.pid, signal.SIGTERM)
    assert deployment.launch.process.wait(END) == 128 + signal.SIGTERM
    assert deployment.launch.members() == {}
    assert deployment.wire.commands[-1][1]


def test_launch_killed_outright_takes_its_nodes_with_it(deployment: Deployment) -> None:
    os.kill(deployment.launch.pid, signal.SIGKILL)
    deadline = time.monotonic() + END
    while deployment.launch.members() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert deployment.launch.members() == {}
    assert deployment.wire.commands[-1][1]


def test_second_deployment_in_the_domain_is_refused(
    deployment: Deployment, standing_policy: Path, python_m_humanoid_rl: list[str], domain: int
) -> None:
    arguments = [f"policy:={standing_policy}", "viewer:=none"]
    began = time.monotonic()
    second = subprocess.run(
        [*python_m_humanoid_rl, "launch", "deploy", *arguments],
        env=dict(os.environ, ROS_DOMAIN_ID=str(domain)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    errors = [line for line in (second.stdout + second.stderr).splitlines() if "ERROR" in line]
    assert len(errors) == 1 and f"published in ROS domain {domain}" in errors[0]
    assert "process started" not in second.stdout + second.stderr
    # It never said a word on the first one's wire, which is still there.
    observer = deployment.operator.observer
    assert [observer.count_publishers(topic) for topic in ("/lowstate", "/lowcmd")] == [1, 1]
    deployment.launch.check_alive()
    assert deployment.wire.longest_silence(began, time.monotonic()) < 1.0
