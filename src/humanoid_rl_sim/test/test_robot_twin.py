"""The node `robot_twin` as a process, seen over DDS like a robot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Vector3
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.nodes.twin_node import check_network
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from humanoid_rl_core import unitree_hg_wire as wire
from humanoid_rl_interfaces.srv import InjectFault, Push
from unitree_hg.msg import LowCmd, LowState

DOMAIN = 43
ROBOT = load_robot()
N = ROBOT.joint_count
START_TIME = 30.0  # s; importing and listening take five on an idle machine
BUSY = 0.15  # a machine busy with other work makes the twin late, by no more than this


def twin_environment(**changes: str) -> dict[str, str]:
    confined = {
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_STATIC_PEERS": "",
        "ROS_LOCALHOST_ONLY": "",
        "PYTHONUNBUFFERED": "1",
    }
    return os.environ | confined | changes


class TwinProcess:
    """`robot_twin` in a process of its own, its output collected."""

    def __init__(self, *parameters: str, **environment: str) -> None:
        arguments = [sys.executable, "-m", "humanoid_rl_sim.nodes.robot_twin"]
        if parameters:
            arguments += ["--ros-args", *(word for p in parameters for word in ("-p", p))]
        self.process = subprocess.Popen(
            arguments,
            env=twin_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait(self, timeout: float = START_TIME) -> int:
        code = self.process.wait(timeout)
        self._reader.join(timeout=5.0)
        return code

    def wait_for(self, text: str) -> None:
        assert until(lambda: text in self.output or self.process.poll() is not None, START_TIME), self.output
        assert text in self.output, self.output

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; the host running the tests may be busy, so limits are generous."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def start() -> Iterator[Callable[..., TwinProcess]]:
    """Starts twins and leaves none behind."""
    running: list[TwinProcess] = []

    def launch(*parameters: str, **environment: str) -> TwinProcess:
        running.append(TwinProcess(*parameters, **environment))
        return running[-1]

    yield launch
    for twin in running:
        twin.end()


class Observer(Node):
    """A host and an operator: polls LowState, sends LowCmd, calls services, keeps the latest of the rest."""

    def __init__(self, context: Context) -> None:
        super().__init__("observer", context=context)
        self.latest: dict[str, Any] = {}
        self.arrivals: dict[str, int] = {}
        self.states: list[tuple[float, bytes]] = []
        self.create_subscription(LowState, "/lowstate", self._on_state, QoSProfile(depth=50), raw=True)
        for topic, kind in {
            "/clock": Clock,
            "/ground_truth/odom": Odometry,
            "/tf": TFMessage,
            "/ground_truth/contacts": MarkerArray,
            "/diagnostics": DiagnosticArray,
        }.items():
            self.create_subscription(kind, topic, lambda m, t=topic: self._keep(t, m), 10)
        self.low_cmd = self.create_publisher(LowCmd, "/lowcmd", QoSProfile(depth=1))
        self._service_clients: dict[str, Any] = {}

    def _on_state(self, message: bytes) -> None:
        self.states.append((time.monotonic(), message))

    def _keep(self, topic: str, message: Any) -> None:
        self.latest[topic] = message
        self.arrivals[topic] = self.arrivals.get(topic, 0) + 1

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self._service_clients.get(name) or self.create_client(kind, name)
        self._service_clients[name] = client
        assert client.wait_for_service(timeout_sec=10.0), name
        future = client.call_async(request)
        assert until(future.done, 10.0), name
        return future.result()

    def diagnostic(self, key: str) -> str:
        status = self.latest["/diagnostics"].status[0]
        return {value.key: value.value for value in status.values}[key]

    def state(self) -> wire.LowStateArrays:
        """The next LowState to come."""
        self.states.clear()
        assert until(lambda: bool(self.states), 5.0), "no LowState"
        return wire.read_low_state(self.states[-1][1], N)


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Observer]:
    for name, value in twin_environment().items():
        monkeypatch.setenv(name, value)
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Observer(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    yield node
    executor.shutdown()
    spinner.join(timeout=5.0)
    node.destroy_node()
    rclpy.shutdown(context=context)


class Holder:
    """A controller: holds the default pose with the stiff gains at 250 Hz from a thread."""

    def __init__(self, observer: Observer) -> None:
        self._stop = threading.Event()
        gains = ROBOT.gains["stiff"]
        self._bytes = wire.LowCmdWriter(N).command(
            5, ROBOT.default_position, 0.0, 0.0, gains.stiffness, gains.damping
        )
        self._publisher = observer.low_cmd
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self._publisher.publish(self._bytes)

    def __enter__(self) -> Holder:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()


def test_twin_is_a_robot_on_the_wire_from_hoist_to_push(
    start: Callable[..., TwinProcess], observer: Observer
) -> None:
    twin = start("start:=standing", "sensor_noise:=0")
    assert until(lambda: len(observer.states) > 1500, START_TIME), twin.output

    # LowState: 500 Hz on average, every message valid, no tick skipped, real time.
    first, last = observer.states[200], observer.states[-1]
    stream = observer.states[200:1500]
    assert all(wire.low_state_crc_ok(message) for _, message in stream)
    ticks = [wire.read_low_state(message, N).tick for _, message in stream]
    assert len(ticks) > 0.9 * (ticks[-1] - ticks[0]) / 2
    rate = (len(observer.states) - 201) / (last[0] - first[0])
    assert rate == pytest.approx(500.0, rel=BUSY)
    elapsed = wire.read_low_state(last[1], N).tick - wire.read_low_state(first[1], N).tick
    assert elapsed / 1000.0 == pytest.approx(last[0] - first[0], rel=BUSY)

    # Ground truth, clock and diagnostics.
    assert until(lambda: len(observer.latest) == 5, 10.0), observer.latest.keys()
    odometry = observer.latest["/ground_truth/odom"]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "pelvis")
    assert odometry.pose.pose.position.z == pytest.approx(ROBOT.default_base_height, abs=0.05)
    assert odometry.pose.pose.orientation.w == pytest.approx(1.0, abs=0.02)
    transform = observer.latest["/tf"].transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "pelvis")
    assert transform.transform.translation.z == pytest.approx(odometry.pose.pose.position.z, abs=0.02)
    before, counted = time.monotonic(), dict(observer.arrivals)
    simulated = observer.latest["/clock"].clock
    time.sleep(3.0)
    seconds = time.monotonic() - before
    later = observer.latest["/clock"].clock
    passed = later.sec - simulated.sec + (later.nanosec - simulated.nanosec) * 1e-9
    assert passed == pytest.approx(seconds, rel=BUSY, abs=0.1)
    for topic, expected in {
        "/clock": 100,
        "/ground_truth/odom": 50,
        "/tf": 50,
        "/ground_truth/contacts": 29,
    }.items():
        measured = (observer.arrivals[topic] - counted[topic]) / passed
        assert measured == pytest.approx(expected, rel=BUSY), topic
    assert observer.diagnostic("hoist") == "carried"
    assert observer.diagnostic("motors") == "braking"
    # Of the last second alone, in which anything may have happened: some second is a calm one.
    assert until(lambda: abs(float(observer.diagnostic("real_time_factor")) - 1.0) < BUSY, 10.0)

    # On the hoist a push is refused; a controller brings it onto its feet without a person.
    refused = observer.call(Push, "/twin/push", Push.Request(velocity=Vector3(x=0.2)))
    assert not refused.success
    assert "on the hoist" in refused.message
    with Holder(observer):
        assert until(lambda: observer.diagnostic("hoist") == "off", 20.0), twin.output
        assert observer.diagnostic("motors") == "following"
        contacts = observer.latest["/ground_truth/contacts"].markers
        assert [marker.action for marker in contacts] == [contacts[0].ADD] * 2
        # 1 mm per N: both arrows together are the weight.
        lengths = [marker.points[1].z - marker.points[0].z for marker in contacts]
        assert sum(lengths) == pytest.approx(0.327, abs=0.05)

        assert observer.call(Push, "/twin/push", Push.Request(velocity=Vector3(y=0.1))).success
        assert until(lambda: abs(observer.latest["/ground_truth/odom"].twist.twist.linear.y) > 0.03, 2.0)
        hot = InjectFault.Request(fault="overheat", joint="left_knee_joint", value=99.0, duration=0.0)
        assert observer.call(InjectFault, "/twin/inject_fault", hot).success
        assert observer.state().winding_temperature[3] == 99.0
        unknown = observer.call(InjectFault, "/twin/inject_fault", InjectFault.Request(fault="explode"))
        assert not unknown.success
        assert "valid: none, drop_state" in unknown.message
        assert observer.call(InjectFault, "/twin/inject_fault", InjectFault.Request(fault="none")).success
        assert observer.state().winding_temperature[3] < 99.0

    # Loss of command, hoist, reset.
    assert until(lambda: observer.diagnostic("motors") == "braking", 5.0)
    lifted = observer.call(SetBool, "/twin/hoist", SetBool.Request(data=True))
    assert lifted.success
    assert "carried" in lifted.message
    assert observer.call(Trigger, "/twin/reset", Trigger.Request()).success
    for _ in range(3):
        observer.low_cmd.publish(wire.LowCmdWriter(N).damping(mode_machine=6))
        time.sleep(0.05)
    assert until(lambda: int(observer.diagnostic("commands_rejected_mode_machine")) >= 1, 5.0)

    # A second one beside it is refused, whatever its seed.
    second = start("seed:=1")
    assert second.wait() == 2
    assert re.fullmatch(r"robot_twin: refusing to start: .* publishes /lowstate .*", second.output), (
        second.output
    )

    twin.process.send_signal(signal.SIGINT)
    assert twin.wait(10.0) == 0
    assert "Traceback" not in twin.output
    assert "ignored LowCmd in the last second: mode_machine" in twin.output


def test_dropped_state_is_silence_on_the_wire(start: Callable[..., TwinProcess], observer: Observer) -> None:
    twin = start()
    assert until(lambda: len(observer.states) > 100, START_TIME), twin.output
    drop = InjectFault.Request(fault="drop_state", duration=0.5)
    assert observer.call(InjectFault, "/twin/inject_fault", drop).success
    assert until(lambda: time.monotonic() - observer.states[-1][0] > 0.3, 5.0)
    observer.states.clear()
    assert until(lambda: bool(observer.states), 5.0)
    twin.process.send_signal(signal.SIGTERM)
    assert twin.wait(10.0) == 0


def test_twin_stops_when_another_robot_appears(start: Callable[..., TwinProcess], observer: Observer) -> None:
    twin = start()
    assert until(lambda: bool(observer.states), START_TIME), twin.output
    observer.create_publisher(LowState, "/lowstate", QoSProfile(depth=1))
    assert twin.wait(15.0) == 2
    assert twin.lines[-1].startswith("robot_twin: stopped: another robot or twin publishes /lowstate")
    assert "Traceback" not in twin.output


@pytest.mark.parametrize("delay", [0.3, 0.8, 1.5, 3.0])
def test_stopped_while_starting_it_leaves_quietly(start: Callable[..., TwinProcess], delay: float) -> None:
    twin = start()
    time.sleep(delay)
    twin.process.send_signal(signal.SIGINT)
    code = twin.wait()
    # Before the interpreter has come to the program's first line the signal is the operating system's.
    assert code == 0 or (delay < 0.5 and code in (-signal.SIGINT, 1)), twin.output
    if code == 0:
        assert "Traceback" not in twin.output


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("star:=hoisted", "unknown parameter 'star', did you mean 'start'?"),
        ("start:=flying", "start: 'flying' is neither hoisted nor standing"),
        ("timestep:=fast", "parameter timestep: expected float, got 'fast'"),
        ("timestep:=0.003", "timestep: must divide the cycle of 0.002 s, 0.003 s does not"),
        ("auto_lower:=1", "parameter auto_lower: expected bool, got 1"),
        ("variant:=rev_9", "robot g1 has no variant 'rev_9'"),
        ("mode_machine:=300", "mode_machine: must fit a byte, 300 does not"),
    ],
)
def test_wrong_parameter_is_one_line_and_no_node(
    start: Callable[..., TwinProcess], parameter: str, message: str
) -> None:
    twin = start(parameter)
    assert twin.wait() == 2
    assert len(twin.lines) == 1
    assert twin.lines[0].startswith(f"robot_twin: {message}")


def test_twin_refuses_a_network_on_which_a_robot_may_be(start: Callable[..., TwinProcess]) -> None:
    twin = start(ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET")
    assert twin.wait() == 2
    assert len(twin.lines) == 1
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET is not confined to this machine" in twin.lines[0]


@pytest.mark.parametrize(
    ("environment", "allowed"),
    [
        ({}, False),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, True),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, False),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}, False),
        ({"ROS_LOCALHOST_ONLY": "1"}, True),
        ({"ROS_LOCALHOST_ONLY": "0"}, False),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": "192.168.123.161"}, False),
    ],
)
def test_network_is_allowed_only_when_confined_to_this_machine(
    environment: dict[str, str], allowed: bool
) -> None:
    check_network(environment, allow_network=True)
    if allowed:
        check_network(environment, allow_network=False)
    else:
        with pytest.raises(UserError, match="refusing to start"):
            check_network(environment, allow_network=False)


def test_twin_needs_well_below_one_core(start: Callable[..., TwinProcess], observer: Observer) -> None:
    twin = start("start:=standing")
    assert until(lambda: bool(observer.states), START_TIME), twin.output

    def cpu_seconds() -> float:
        fields = Path(f"/proc/{twin.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Holder(observer):
        time.sleep(1.0)
        used, before = cpu_seconds(), observer.state().tick
        time.sleep(4.0)
        used, simulated = cpu_seconds() - used, (observer.state().tick - before) / 1000.0
    # Per second of robot time, which a busy machine does not stretch. Measured: 0.14.
    assert used / simulated < 0.5, f"{used / simulated:.2f} of a core"
