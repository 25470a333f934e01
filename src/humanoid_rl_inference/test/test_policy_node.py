"""The policy node as a process of its own, over DDS: simulated sensors in, joint commands and status out."""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_inference.policy_node import PolicyNode
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Imu, JointState, Joy
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from humanoid_rl_inference import policy_node
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, MotorStatus, PolicyStatus

# Every test process its own: parallel runs on one machine must not see each other.
DOMAIN = int(os.environ.get("ROS_DOMAIN_ID", "0")) or 40 + os.getpid() % 60
NEWEST = QoSProfile(depth=1)
TIMEOUT = 20.0  # s for anything that happens at all; generous, the machine may be busy
STARTED: list[subprocess.Popen] = []


class Robot:
    """What the policy node sees of a robot and its host: sensors at 500 Hz and the host's services.

    The joints follow the position targets at once when they are driven, so that the robot stands where it is
    told to. Attributes may be changed at any time; the next sample has them.
    """

    def __init__(self, model: RobotModel) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("robot", context=self.context)
        self.model = model
        self.heal()
        self.status: PolicyStatus | None = None
        self.command: JointCommand | None = None
        self.commands = 0
        self.calls: list[str] = []
        self._joints = self.node.create_publisher(JointState, "/joint_states", NEWEST)
        self._imu = self.node.create_publisher(Imu, "/imu/data", NEWEST)
        self._motors = self.node.create_publisher(MotorStatus, "/motor_status", NEWEST)
        self._host = self.node.create_publisher(HostStatus, "/host/status", NEWEST)
        self.cmd_vel = self.node.create_publisher(TwistStamped, "/cmd_vel", NEWEST)
        self.cmd_vel_unstamped = self.node.create_publisher(Twist, "/cmd_vel_unstamped", NEWEST)
        self.joy = self.node.create_publisher(Joy, "/joy", NEWEST)
        self.node.create_subscription(PolicyStatus, "/policy/status", self._on_status, 10)
        self.node.create_subscription(JointCommand, "/joint_command", self._on_command, 1)
        for name in ("estop", "reset"):
            self.node.create_service(Trigger, f"/host/{name}", self._host_service(name))
        self._clients = {
            name: self.node.create_client(Trigger, f"/policy/{name}")
            for name in ("stand", "start", "stop", "estop", "reset")
        }
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._spin, daemon=True),
            threading.Thread(target=self._publish, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def heal(self) -> None:
        """Nothing is wrong: sensors at rest, all topics, host following commands."""
        n = len(self.model.joint_names)
        self.follow = False
        self.position = self.model.default_position + 0.1
        self.velocity = np.zeros(n)
        self.names = list(self.model.joint_names)
        self.reverse = False
        self.quat = np.array([1.0, 0.0, 0.0, 0.0])
        self.winding = np.full(n, 40.0)
        self.silent: set[str] = set()
        self.host_state, self.host_cause = HostStatus.ACTIVE, ""
        self.follow = True

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _publish(self) -> None:
        due = time.monotonic()
        for tick in itertools.count():
            if self._stop.is_set():
                return
            stamp = self.node.get_clock().now().to_msg()
            if "joint_states" not in self.silent:
                step = -1 if self.reverse else 1
                message = JointState(name=self.names[::step])
                message.header.stamp = stamp
                message.position = self.position[::step].tolist()
                message.velocity = self.velocity[::step].tolist()
                message.effort = np.zeros(len(self.position)).tolist()
                self._joints.publish(message)
            if "imu" not in self.silent:
                imu = Imu()
                imu.header.stamp = stamp
                imu.header.frame_id = self.model.imu_link
                q = imu.orientation
                q.w, q.x, q.y, q.z = (float(v) for v in self.quat)
                self._imu.publish(imu)
            if tick % 50 == 0:
                if "motor_status" not in self.silent:
                    motors = MotorStatus(joint_names=list(self.model.joint_names))
                    motors.header.stamp = stamp
                    motors.winding_temperature = self.winding.tolist()
                    motors.casing_temperature = motors.voltage = [30.0] * len(self.winding)
                    self._motors.publish(motors)
                host = HostStatus(state=self.host_state, cause=self.host_cause)
                host.header.stamp = stamp
                self._host.publish(host)
            due += 0.002
            time.sleep(max(0.0, due - time.monotonic()))

    def _host_service(self, name: str) -> Callable[[Any, Any], Any]:
        def serve(_request: Any, response: Any) -> Any:
            self.calls.append(name)
            if name == "reset":
                self.host_state, self.host_cause = HostStatus.READY, ""
            response.success = True
            return response

        return serve

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _on_command(self, message: JointCommand) -> None:
        self.command = message
        self.commands += 1
        if self.follow and max(message.stiffness) > 0.0:
            order = [message.joint_names.index(name) for name in self.model.joint_names]
            self.position = np.array(message.position)[order]

    def call(self, name: str) -> Any:
        client = self._clients[name]
        assert client.wait_for_service(TIMEOUT), f"/policy/{name} is not there"
        done = threading.Event()
        future = client.call_async(Trigger.Request())
        future.add_done_callback(lambda _: done.set())
        assert done.wait(TIMEOUT), f"/policy/{name} did not answer"
        return future.result()

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.005)
        raise AssertionError(f"never: {what}; last status: {self.status}")

    def wait_state(self, state: int) -> PolicyStatus:
        self.wait(f"state {state}", lambda: self.status is not None and self.status.state == state)
        assert self.status is not None
        return self.status

    def wait_fault(self) -> str:
        return str(self.wait_state(PolicyStatus.FAULT).cause)

    def run(self) -> None:
        """Stand, wait for the pose, start."""
        self.wait_state(PolicyStatus.IDLE)
        self.wait("stand granted", lambda: bool(self.call("stand").success))
        self.wait("standing complete", lambda: self.status is not None and self.status.standing_complete)
        reply = self.call("start")
        assert reply.success, reply.message
        self.wait_state(PolicyStatus.RUNNING)

    def driven(self) -> bool:
        return self.command is not None and max(self.command.stiffness) > 0.0

    def damped(self) -> bool:
        return (
            self.command is not None
            and not any(self.command.stiffness)
            and all(value == 8.0 for value in self.command.damping)
        )


def start_node(*parameters: str) -> subprocess.Popen:
    """The installed executable itself, not `ros2 run`: signals then reach it and nobody else."""
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)]
    executables = [prefix / "lib/humanoid_rl_inference/policy_node" for prefix in prefixes]
    command = [str(next(path for path in executables if path.exists())), "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(DOMAIN),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    STARTED.append(process)
    return process


def end_node(process: subprocess.Popen, number: int = signal.SIGINT) -> str:
    """Signal it, check that it leaves as it should, return what it said."""
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    # The executor logs what its callbacks raise; a message that reached a polled subscription's is one.
    assert "callback:" not in errors
    return output + errors


@pytest.fixture(scope="module", autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def bot(robot: RobotModel) -> Iterator[Robot]:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    bot = Robot(robot)
    yield bot
    bot.close()


class SharedNode:
    """One policy node for most tests; the next test that wants it starts it again when one has ended it."""

    def __init__(self, *parameters: str) -> None:
        self._parameters = parameters
        self._process: subprocess.Popen | None = None

    def ensure(self) -> None:
        if self._process is None:
            self._process = start_node(*self._parameters)
        assert self._process.poll() is None, "the policy node has died"

    def end(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            end_node(process)


@pytest.fixture(scope="module")
def patient_safety(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped thresholds, but for time: a machine that is busy must not fail tests of other things."""
    text = (share_dir() / "config" / "safety" / "g1.yaml").read_text()
    for old, new in (
        ("joint_state_age: 0.05", "joint_state_age: 0.5"),
        ("imu_age: 0.05", "imu_age: 0.5"),
        ("misses: 10 ", "misses: 50 "),
    ):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("safety") / "patient.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def node(bot: Robot, policy_file: Path, patient_safety: Path) -> Iterator[SharedNode]:
    node = SharedNode(f"policy:={policy_file}", f"safety:={patient_safety}")
    yield node
    node.end()


@pytest.fixture
def idle(bot: Robot, node: SharedNode) -> Robot:
    """A healthy robot whose policy node is IDLE, whatever the test before has left."""
    node.ensure()
    bot.heal()
    bot.wait("idle", lambda: bot.call("reset").success or bot.call("estop") is None)
    bot.wait_state(PolicyStatus.IDLE)
    bot.calls.clear()
    return bot


@pytest.fixture
def running(idle: Robot) -> Robot:
    idle.run()
    return idle


def test_heartbeat_is_damping_while_idle(idle: Robot) -> None:
    idle.wait("a damping command", idle.damped)
    before = idle.commands
    time.sleep(1.0)
    assert idle.damped()
    assert 30 <= idle.commands - before <= 60


def test_stand_then_start_runs_the_policy_at_its_rate(running: Robot) -> None:
    begin, before = time.monotonic(), running.commands
    time.sleep(2.0)
    rate = (running.commands - before) / (time.monotonic() - begin)
    assert 35.0 < rate < 55.0
    assert running.command is not None and running.status is not None
    np.testing.assert_allclose(running.command.stiffness, running.model.gains["compliant"].stiffness)
    np.testing.assert_allclose(running.command.damping, running.model.gains["compliant"].damping)
    assert running.status.state == PolicyStatus.RUNNING
    assert running.status.policy == "untrained"
    assert 0.0 < running.status.tick_latency_p50 < 0.02


def test_stop_holds_the_standing_pose_and_a_second_stop_damps(running: Robot) -> None:
    assert running.call("stop").success
    running.wait_state(PolicyStatus.STANDING)
    running.wait("standing again", lambda: running.status is not None and running.status.standing_complete)
    assert running.command is not None
    np.testing.assert_allclose(running.command.position, running.model.default_position, atol=1e-6)
    assert running.call("stop").success
    running.wait("damping", running.damped)


def _silence(topic: str) -> Callable[[Robot], None]:
    return lambda bot: bot.silent.add(topic)


def _set(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Robot], None]:
    def apply(bot: Robot) -> None:
        bot.follow = False
        values = np.array(getattr(bot, name))
        change(values)
        setattr(bot, name, values)

    return apply


def _lean(quat: np.ndarray) -> np.ndarray:
    """Write the attitude of a body leaning 1.2 rad to its left, w x y z."""
    quat[:] = [np.cos(0.6), -np.sin(0.6), 0.0, 0.0]
    return quat


def _rename(bot: Robot) -> None:
    bot.names = [name.replace("left_knee", "left_nee") for name in bot.names]


def _host_damps(bot: Robot) -> None:
    bot.host_state, bot.host_cause = HostStatus.DAMPING, "LowState 0.051 s old"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (_silence("joint_states"), "joint state 0.5"),
        (_silence("imu"), "imu 0.5"),
        (_set("quat", lambda q: q.__setitem__(1, np.nan)), "imu quaternion x value nan is not finite"),
        (_set("quat", lambda q: q.fill(0.0)), "imu quaternion norm 0.000"),
        (_set("quat", _lean), "tilt 1.20 rad exceeds 1.00"),
        (
            _set("velocity", lambda v: v.__setitem__(3, 25.1)),
            "left_knee_joint velocity 25.1 rad/s exceeds 20.0",
        ),
        (_set("position", lambda p: p.__setitem__(3, np.inf)), "left_knee_joint position inf is not finite"),
        (_set("position", lambda p: p.__setitem__(3, 9.0)), "left_knee_joint position 9.00 rad"),
        (_set("winding", lambda w: w.__setitem__(9, 121.0)), "right_knee_joint winding temperature 121 C"),
        (_rename, "joint state 0.5"),
        (_host_damps, "host is damping: LowState 0.051 s old"),
    ],
    ids=[
        "joint states stop",
        "imu stops",
        "nan in the imu",
        "zero quaternion",
        "tilt",
        "joint velocity",
        "infinite position",
        "joint position",
        "hot winding",
        "unknown joint",
        "host damps",
    ],
)
def test_fault_is_named_latched_and_damps(running: Robot, fault: Callable[[Robot], None], cause: str) -> None:
    fault(running)
    assert running.wait_fault().startswith(cause)
    running.wait("damping", running.damped)
    running.heal()
    time.sleep(0.2)
    assert running.status is not None and running.status.state == PolicyStatus.FAULT
    refusal = running.call("start")
    assert not refusal.success and "reset first" in refusal.message
    assert running.call("reset").success
    running.wait_state(PolicyStatus.IDLE)
    running.wait("the host's reset", lambda: "reset" in running.calls)


def test_estop_damps_tells_the_host_and_needs_a_reset(running: Robot) -> None:
    assert running.call("estop").success
    assert running.wait_fault() == "emergency stop (estop service)"
    running.wait("damping", running.damped)
    running.wait("the host's e-stop", lambda: running.calls == ["estop"])
    assert not running.call("stand").success


def test_rviz_is_shown_the_state_while_it_listens(running: Robot) -> None:
    shown: list[MarkerArray] = []
    subscription = running.node.create_subscription(MarkerArray, "/policy/markers", shown.append, NEWEST)
    running.wait("markers", lambda: bool(shown))
    assert shown[-1].markers[0].text.startswith("RUNNING\n")
    assert shown[-1].markers[0].header.frame_id == running.model.base_link
    running.node.destroy_subscription(subscription)


def test_stand_is_refused_without_fresh_sensors(idle: Robot) -> None:
    idle.silent.add("joint_states")
    time.sleep(0.7)
    reply = idle.call("stand")
    assert not reply.success and reply.message.startswith("stand refused: joint state 0.")


def test_start_is_refused_before_the_pose_is_reached_and_while_tilted(idle: Robot) -> None:
    assert "stand first" in idle.call("start").message
    idle.wait("stand", lambda: bool(idle.call("stand").success))
    assert "the standing motion takes" in idle.call("start").message
    idle.quat = _lean(np.zeros(4))
    assert idle.wait_fault() == "tilt 1.20 rad exceeds 1.00"


def test_joints_are_mapped_by_name_whatever_their_order(running: Robot) -> None:
    running.reverse = True
    running.velocity[3] = 25.1
    assert running.wait_fault().startswith("left_knee_joint velocity 25.1")


def test_commands_come_from_both_topics_and_time_out_to_zero(running: Robot) -> None:
    def command() -> list[float]:
        assert running.status is not None
        return [round(value, 3) for value in running.status.command]

    def send(message: Any, publisher: Any, expected: list[float]) -> None:
        end = time.monotonic() + TIMEOUT
        while command() != expected:
            assert time.monotonic() < end, f"command stays {command()}, expected {expected}"
            publisher.publish(message)
            time.sleep(0.05)

    stamped = TwistStamped()
    stamped.twist.linear.x, stamped.twist.angular.z = 5.0, -0.25
    send(stamped, running.cmd_vel, [1.0, 0.0, -0.25])  # 5 m/s is clamped to the policy's range
    unstamped = Twist()
    unstamped.linear.y = 0.1
    send(unstamped, running.cmd_vel_unstamped, [0.0, 0.1, 0.0])
    running.wait("zero after the timeout", lambda: command() == [0.0, 0.0, 0.0])
    assert running.status is not None and running.status.state == PolicyStatus.RUNNING


def test_gamepad_drives_with_the_dead_man_and_stops_in_an_emergency(running: Robot) -> None:
    def press(*pressed: int, forward: float = 0.0) -> Joy:
        return Joy(axes=[0.0, forward, 0.0, 0.0], buttons=[int(i in pressed) for i in range(8)])

    def hold(message: Joy, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end
            running.joy.publish(message)
            time.sleep(0.05)

    def vx() -> float:
        assert running.status is not None
        return float(running.status.command[0])

    hold(press(4, forward=1.0), lambda: vx() > 0.9)
    hold(press(forward=1.0), lambda: vx() == 0.0)
    hold(press(1), lambda: running.status is not None and running.status.state == PolicyStatus.FAULT)
    assert running.status is not None and running.status.cause == "emergency stop (estop button)"


def test_diagnostics_carry_state_and_timing(running: Robot) -> None:
    seen: dict[str, str] = {}

    def remember(message: DiagnosticArray) -> None:
        seen.update({value.key: value.value for value in message.status[0].values})

    subscription = running.node.create_subscription(DiagnosticArray, "/diagnostics", remember, 10)
    running.wait("diagnostics of a running node", lambda: seen.get("state") == "RUNNING")
    running.node.destroy_subscription(subscription)
    assert float(seen["tick_latency_p99 [s]"]) > 0.0


def test_sigterm_sends_a_last_damping_command_and_ends_with_0(
    bot: Robot, node: SharedNode, policy_file: Path, patient_safety: Path
) -> None:
    node.end()
    bot.heal()
    bot.status = None
    process = start_node(f"policy:={policy_file}", f"safety:={patient_safety}", "auto_start:=true")
    bot.wait_state(PolicyStatus.RUNNING)  # auto_start: nobody has asked for it
    end_node(process, signal.SIGTERM)
    bot.wait("a last damping command", bot.damped)
    assert bot.status is not None and bot.status.state == PolicyStatus.RUNNING


def test_pause_while_reading_does_not_put_samples_into_the_future(
    policy_file: Path, robot: RobotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclpy.init(args=["--ros-args", "-p", f"policy:={policy_file}"], domain_id=DOMAIN)
    try:
        node = PolicyNode()

        def take_after_a_pause(subscription: Any) -> bytes:
            time.sleep(0.05)  # the thread loses the processor, and meanwhile a new sample arrives
            message = JointState(name=list(robot.joint_names)) if subscription.topic_name[1] == "j" else Imu()
            message.header.stamp = node.get_clock().now().to_msg()
            if isinstance(message, JointState):
                message.position = message.velocity = robot.default_position.tolist()
            return bytes(serialize_message(message))

        monkeypatch.setattr(policy_node, "take", take_after_a_pause)
        now = time.monotonic()
        node.read_sensors(now)
        assert -0.01 < now - node.sensors.joint_time < 0.04
        assert -0.01 < now - node.sensors.imu_time < 0.04
        node.destroy_node()
    finally:
        rclpy.shutdown()


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.6, 0.9])
def test_interrupt_during_start_up_leaves_no_traceback(policy_file: Path, delay: float) -> None:
    process = start_node(f"policy:={policy_file}")
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT)
    # Before Python itself has our handler, its own one ends the process.
    assert process.returncode == 0 or (delay < 0.1 and process.returncode in (-signal.SIGINT, 130, 1))
    assert delay < 0.1 or "Traceback" not in errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["policy:=/nowhere/g1.onnx"], "/nowhere/g1.onnx"),
        (["policy:=no_such_policy"], "no_such_policy"),
        ([], "parameter 'policy' is empty"),
        (["policy:={truncated}"], "truncated"),
        (["policy:={seeing}"], "asks for the ground at 9 points"),
        (["policy:={policy}", "polcy:=x"], "unknown parameter 'polcy', did you mean 'policy'?"),
        (["policy:={policy}", "auto_start:=3"], "parameter 'auto_start' must be true or false"),
        (["policy:={policy}", "rt_priority:=high"], "parameter 'rt_priority' must be a whole number"),
        (["policy:={policy}", "rt_priority:=100"], "rt_priority is 100, expected 1 to 99"),
        (["policy:={policy}", "provider:=cude"], "provider 'cude' is unknown, did you mean 'cuda'?"),
        (["policy:={policy}", "provider:=cuda"], "provider 'CUDAExecutionProvider' "),
        (["policy:={policy}", "robot:=g2"], "g2"),
        (["policy:={policy}", "variant:=mode_11"], "variant"),
        (["policy:={policy}", "safety:=/nowhere.yaml"], "/nowhere.yaml"),
        (["policy:={policy}", "safety:={safety}"], "unknown key 'body.tlt', did you mean 'tilt'?"),
        (["policy:={policy}", "joystick:=/nowhere.yaml"], "/nowhere.yaml"),
    ],
    ids=lambda value: None if isinstance(value, list) else value.split("'")[-2] if "'" in value else value,
)
def test_mistake_of_the_user_is_one_line_and_exit_2(
    policy_file: Path, seeing_policy_file: Path, tmp_path: Path, parameters: list[str], message: str
) -> None:
    truncated, safety = tmp_path / "truncated.onnx", tmp_path / "safety.yaml"
    truncated.write_bytes(policy_file.read_bytes()[:1000])
    original = share_dir() / "config" / "safety" / "g1.yaml"
    safety.write_text(original.read_text().replace("tilt:", "tlt:"))
    names = {"policy": policy_file, "truncated": truncated, "safety": safety, "seeing": seeing_policy_file}
    process = start_node(*(parameter.format(**names) for parameter in parameters))
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    assert output == ""
    (line,) = errors.strip().splitlines()
    assert line.startswith("policy_node: ") and message in line
