"""ROS node: an exported policy at its control rate, behind the safety guard.

    policy_node --ros-args -p policy:=PATH_OR_NAME [-p name:=value ...]

    policy      path of an .onnx file, or the name of one in policies/        (required)
    robot       a description in config/robot/                                (g1)
    variant     of the robot                                                  (rev_1_0)
    safety      path of the guard's thresholds                                (config/safety/<robot>.yaml)
    joystick    path of the gamepad's layout                                  (config/control/joystick.yaml)
    auto_start  stand up and start by itself, once, when the sensors are there (false)
    provider    of onnxruntime: cpu, cuda or tensorrt; refused where it would fall back to the CPU (cpu)
    rt_priority of the control loop, SCHED_FIFO, 1 to 99; 0 leaves its scheduling alone (0)
    cpu         number of the processor the control loop is pinned to; -1: any (-1)
    lock_memory keep the memory of the process in RAM                         (false)

A thin adapter: what happens in a tick is in `controller`, what may happen in `state_machine` and `guard`.
Three threads: the control loop, on an absolute monotonic schedule, owns the controller and reads the newest
/joint_states and /imu/data itself when a tick begins; the executor runs services, commands and diagnostics
and hands requests to the loop through a queue; the main thread waits for a signal.
Time is the wall clock, as everywhere in a deployment; ages are kept on the monotonic clock.
"""

import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist, TwistStamped
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.onnx_policy import OnnxPolicy, providers_named
from humanoid_rl_core.real_time import RealTime
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import RobotModel, load_robot
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Imu, JointState, Joy
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from humanoid_rl_inference import guard
from humanoid_rl_inference.command_codec import JointCommandEncoder
from humanoid_rl_inference.controller import Controller, Reply
from humanoid_rl_inference.guard import Sensors
from humanoid_rl_inference.joystick import Joystick, load_joystick
from humanoid_rl_inference.motion import JointTargets
from humanoid_rl_inference.node_parameters import Parameter, read_parameters
from humanoid_rl_inference.polling import PolledGroup, never_called, take
from humanoid_rl_inference.safety_config import load_safety_config
from humanoid_rl_inference.sensor_codec import (
    ImuDecoder,
    JointStateDecoder,
    MessageError,
    motor_temperatures,
)
from humanoid_rl_inference.state_machine import Event, State
from humanoid_rl_inference.status_markers import status_markers
from humanoid_rl_inference.tick_statistics import TickStatistics
from humanoid_rl_inference.velocity_command import command_indices
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, MotorStatus, PolicyStatus

NAME = "policy_node"
PARAMETERS: dict[str, Parameter] = {
    "policy": "",
    "robot": "g1",
    "variant": "rev_1_0",
    "safety": "",
    "joystick": "",
    "auto_start": False,
    "provider": "cpu",
    "rt_priority": 0,
    "cpu": -1,
    "lock_memory": False,
}

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
MARKERS_PERIOD = 0.1  # s, while somebody listens
LOG_INTERVAL = 1.0  # s between two messages about the same kind of trouble
REPLY_TIMEOUT = 1.0  # s; 50 ticks at 50 Hz: a loop that has not answered by then is gone
HOST_STATUS_AGE = 1.0  # s; 10 messages of 10 Hz: an older one says nothing about the host any more
FIGURES_EVERY = 10  # ticks between two computations of the percentiles, ~0.1 ms each
RETRY_EVERY = 25  # ticks between two attempts of auto_start to stand up
FULL_COLLECTION_EVERY = 50  # ticks between two full garbage collections, see ControlLoop
# The interpreter lets a thread of bytecode run for 5 ms before another gets its turn; a tick waits that long
# for a callback otherwise.
SWITCH_INTERVAL = 0.0005  # s


def find_policy(policy: str) -> Path:
    """The file a `policy` parameter means: a path, or the name of a file in policies/.

    Raises:
        UserError: empty, or neither.
    """
    if not policy:
        raise UserError("parameter 'policy' is empty: give -p policy:=PATH_OR_NAME")
    path = Path(policy).expanduser()
    if path.exists() or path.suffix == ".onnx" or len(path.parts) > 1:
        return path
    directory = share_dir() / "policies"
    known = sorted(file.stem for file in directory.glob("*.onnx"))
    if policy not in known:
        hint = nearest(policy, known) or f" (known: {', '.join(known) or 'none'})"
        raise UserError(f"policy '{policy}' is no file and no name in {directory}{hint}")
    return directory / f"{policy}.onnx"


class PolicyNode(Node):
    """Topics, services and parameters around a Controller.

    Raises:
        UserError: a parameter, the policy or a configuration file is not as it must be. Nothing is published
            or offered before all of them are.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        values = read_parameters(self, PARAMETERS)
        self.real_time = RealTime(
            int(values["rt_priority"]), int(values["cpu"]), lock_memory=bool(values["lock_memory"])
        )
        robot = load_robot(str(values["robot"]), str(values["variant"]))
        config = share_dir() / "config"
        safety_path = str(values["safety"]) or str(config / "safety" / f"{robot.name}.yaml")
        safety = load_safety_config(safety_path)
        joystick_path = str(values["joystick"]) or str(config / "control" / "joystick.yaml")
        joystick = load_joystick(joystick_path)
        providers = providers_named(str(values["provider"]))
        policy = OnnxPolicy(find_policy(str(values["policy"])), robot, providers)
        contract = policy.contract
        self._command_names = tuple(contract.command_names)
        self._command_indices = command_indices(contract.command_names)

        self.robot: RobotModel = robot
        self.policy_name = str(contract.name)
        self.controller = Controller(robot, policy, safety)
        self.statistics = TickStatistics(self.controller.period, safety.deadlines.window)
        self.auto_start = bool(values["auto_start"])
        self.requests: SimpleQueue[tuple[Event, str, Future[Reply] | None]] = SimpleQueue()
        self.rejected_messages = 0
        self._safety = safety
        self._joystick = Joystick(
            joystick, contract.command_names, contract.command_lower, contract.command_upper
        )
        # Replaced as a whole by the executor and read by the loop: (values [k], monotonic time).
        self.command: tuple[np.ndarray, float] | None = None
        self._motor_status: tuple[np.ndarray, np.ndarray, float] | None = None
        self._host: tuple[str, float, float] = ("", -math.inf, -math.inf)
        self._host_reset_at = -math.inf
        self._logged: dict[str, float] = {}

        self._joint_decoder = JointStateDecoder(robot.joint_names)
        self._imu_decoder = ImuDecoder()
        self._encoder = JointCommandEncoder(robot.joint_names)
        self.sensors = Sensors.unknown(len(robot.joint_names))
        self._stamp = math.nan
        self._status = PolicyStatus(policy=self.policy_name)
        self._offer()

    def _offer(self) -> None:
        polled = PolledGroup()
        self._joint_states = self.create_subscription(
            JointState, "/joint_states", never_called, NEWEST, callback_group=polled, raw=True
        )
        self._imu = self.create_subscription(
            Imu, "/imu/data", never_called, NEWEST, callback_group=polled, raw=True
        )
        self.create_subscription(MotorStatus, "/motor_status", self._on_motor_status, NEWEST)
        self.create_subscription(HostStatus, "/host/status", self._on_host_status, NEWEST)
        self.create_subscription(TwistStamped, "/cmd_vel", self._on_twist_stamped, NEWEST)
        self.create_subscription(Twist, "/cmd_vel_unstamped", self._on_twist, NEWEST)
        self.create_subscription(Joy, "/joy", self._on_joy, 10)
        self._command_publisher = self.create_publisher(JointCommand, "/joint_command", 1)
        self._status_publisher = self.create_publisher(PolicyStatus, "/policy/status", 10)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._host_estop = self.create_client(Trigger, "/host/estop")
        self._host_reset = self.create_client(Trigger, "/host/reset")
        for event in (Event.STAND, Event.START, Event.STOP, Event.ESTOP, Event.RESET):
            self.create_service(Trigger, f"/policy/{event.value}", self._service(event))
        self._markers_publisher = self.create_publisher(MarkerArray, "/policy/markers", 1)
        self.create_timer(1.0, self._publish_diagnostics)
        self.create_timer(MARKERS_PERIOD, self._publish_markers)

    # ------------------------------------------------------------------ executor thread: what comes in

    def _service(self, event: Event) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def serve(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            answer: Future[Reply] = Future()
            self._ask(event, f"{event.value} service", answer)
            try:
                reply = answer.result(REPLY_TIMEOUT)
                response.success, response.message = reply.accepted, reply.message
            except TimeoutError:
                response.success, response.message = False, "the control loop does not answer"
            return response

        return serve

    def _ask(self, event: Event, source: str, answer: "Future[Reply] | None" = None) -> None:
        """Hand an operator's event to the control loop, and to the host what concerns it too."""
        if event is Event.ESTOP:
            # First of all, and not through the loop: the loop may be what is stuck.
            self._call_host(self._host_estop)
        self.requests.put((event, source, answer))

    def _call_host(self, client: Client) -> None:
        if not client.service_is_ready():
            self.complain("host service", f"{client.srv_name} is not there")
            return
        client.call_async(Trigger.Request()).add_done_callback(
            lambda future: self._on_host_reply(client, future)
        )

    def _on_host_reply(self, client: Client, future: Any) -> None:
        response = future.result()
        if response is None or not response.success:
            reason = response.message if response else "no answer"
            self.get_logger().error(f"{client.srv_name} failed: {reason}")
        elif client is self._host_reset:
            # A status from before the reset would still say that the host is damping.
            self._host_reset_at = time.time()
            self._host = ("", -math.inf, -math.inf)

    def _on_motor_status(self, message: MotorStatus) -> None:
        try:
            winding, casing = motor_temperatures(message, self.robot.joint_names)
        except MessageError as error:
            self._reject("/motor_status", error)
            return
        age = time.time() - (message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)
        self._motor_status = (winding, casing, time.monotonic() - age)

    def _on_host_status(self, message: HostStatus) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        if stamp < self._host_reset_at:
            return
        fault = ""
        if message.state == HostStatus.DAMPING:
            fault = f"host is damping: {message.cause}"
        elif message.state == HostStatus.INACTIVE:
            fault = "host is inactive, call /host/activate"
        self._host = (fault, time.monotonic(), stamp)

    def _on_twist(self, twist: Twist) -> None:
        command = np.array([twist.linear.x, twist.linear.y, twist.angular.z])[self._command_indices]
        if not np.isfinite(command).all():
            self._reject("/cmd_vel", MessageError(f"command {command.tolist()} is not finite"))
            return
        self.command = (command, time.monotonic())

    def _on_twist_stamped(self, message: TwistStamped) -> None:
        self._on_twist(message.twist)

    def _on_joy(self, message: Joy) -> None:
        try:
            wish = self._joystick.update(message.axes, message.buttons)
        except UserError as error:
            self._reject("/joy", error)
            return
        for event in wish.events:
            self._ask(event, f"{event.value} button")
        if wish.command is not None:
            self.command = (wish.command, time.monotonic())

    def _publish_markers(self) -> None:
        if not self._markers_publisher.get_subscription_count():
            return
        controller = self.controller
        notes = [controller.cause, self.sensors.host_fault]
        self._markers_publisher.publish(
            status_markers(
                self.robot.base_link,
                controller.state,
                notes,
                self._command_names,
                controller.command.tolist(),
            )
        )

    def _publish_diagnostics(self) -> None:
        controller, statistics = self.controller, self.statistics
        figures, interventions = statistics.figures, controller.interventions
        now = time.monotonic()
        unwatched = guard.motor_status_missing(self.sensors, now, self._safety.sensors.motor_status_age)
        level, summary = DiagnosticStatus.OK, controller.state.name
        if controller.state is State.FAULT:
            level, summary = DiagnosticStatus.ERROR, controller.cause
        elif statistics.late_ticks:
            window = self._safety.deadlines.window
            level = DiagnosticStatus.WARN
            summary = f"{statistics.late_ticks} of the last {window} ticks were late"
        elif unwatched:
            level, summary = DiagnosticStatus.WARN, unwatched
        values: dict[str, object] = {
            "state": controller.state.name,
            "policy": self.policy_name,
            "ticks": statistics.ticks,
            "deadline_misses": statistics.deadline_misses,
            "tick_latency_p50 [s]": f"{figures.latency_p50:.6f}",
            "tick_latency_p99 [s]": f"{figures.latency_p99:.6f}",
            "tick_latency_max [s]": f"{figures.latency_max:.6f}",
            "tick_computation_p99 [s]": f"{figures.computation_p99:.6f}",
            "period_error_p99 [s]": f"{figures.period_error_p99:.6f}",
            "rejected_messages": self.rejected_messages,
            "ticks_position_limited": interventions.position,
            "ticks_rate_limited": interventions.rate,
            "ticks_effort_limited": interventions.effort,
        }
        most = sorted(interventions.joints.items(), key=lambda item: -item[1])[:3]
        values["most_limited_joints"] = ", ".join(f"{name} {count}" for name, count in most)
        status = DiagnosticStatus(level=level, name=NAME, message=summary, hardware_id=self.robot.name)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)

    # ---------------------------------------------------------------------- control thread: one tick

    def read_sensors(self, now: float) -> None:
        """Take the newest messages; now in s, monotonic."""
        sensors = self.sensors
        # The wall clock is read after the message is taken: the other way round, a pause of this thread in
        # between would make a fresh sample look as if it came from the future.
        try:
            if (data := take(self._joint_states)) is not None:
                sensors.joint_pos, sensors.joint_vel, stamp = self._joint_decoder.decode(data)
                sensors.joint_time = now - (time.time() - stamp)
                self._stamp = stamp
        except MessageError as error:
            self._reject("/joint_states", error)
        try:
            if (data := take(self._imu)) is not None:
                sensors.imu_gyro, sensors.imu_quat, stamp = self._imu_decoder.decode(data)
                sensors.imu_time = now - (time.time() - stamp)
        except MessageError as error:
            self._reject("/imu/data", error)
        if (status := self._motor_status) is not None:
            sensors.winding_temperature, sensors.casing_temperature, sensors.motor_time = status
        fault, received, _ = self._host
        sensors.host_fault = fault if now - received <= HOST_STATUS_AGE else ""

    def answer_requests(self, now: float) -> None:
        """Apply what operators asked for since the last tick."""
        while True:
            try:
                event, source, answer = self.requests.get_nowait()
            except Empty:
                return
            self.auto_start = False  # from here on a person decides
            reply = self.apply(event, now, source)
            if answer is not None:
                answer.set_result(reply)

    def apply(self, event: Event, now: float, source: str) -> Reply:
        """One event through the state machine, told in the log."""
        before = self.controller.state
        cause = f"emergency stop ({source})" if event is Event.ESTOP else ""
        reply = self.controller.request(event, now, self.sensors, self.statistics.late_ticks, cause)
        if event is Event.RESET and reply.accepted:
            self.statistics.forgive()
            self._call_host(self._host_reset)
        if not reply.accepted:
            self.complain(f"refused {event.value}", reply.message)
        elif self.controller.state is not before:
            self.get_logger().info(f"{before.name} -> {self.controller.state.name} ({source})")
        return reply

    def advance_auto_start(self, now: float) -> None:
        """Stand up, then start, by itself; a person's request or a fault ends it."""
        state = self.controller.state
        if state is State.IDLE and self.statistics.ticks % RETRY_EVERY == 0:
            self.apply(Event.STAND, now, "auto_start")
        elif state is State.STANDING and self.controller.not_standing(now, self.sensors) is None:
            self.apply(Event.START, now, "auto_start")
        elif state in (State.RUNNING, State.FAULT):
            self.auto_start = False

    def tick(self, begin: float) -> None:
        """Read, decide, publish; begin in s, monotonic."""
        self.read_sensors(begin)
        self.answer_requests(begin)
        if self.auto_start:
            self.advance_auto_start(begin)
        before = self.controller.state
        command, received = self.command or (None, -math.inf)
        targets = self.controller.tick(
            begin, self.sensors, command, begin - received, self.statistics.late_ticks
        )
        self.send(targets)
        self.statistics.published(time.time() - self._stamp, time.monotonic() - begin)
        if self.controller.state is not before:
            self.get_logger().error(f"{before.name} -> FAULT: {self.controller.cause}")

    def send(self, targets: JointTargets) -> None:
        """Publish a JointCommand, stamped now."""
        sec, nanosec = divmod(time.time_ns(), 1_000_000_000)
        self._command_publisher.publish(self._encoder.encode(targets, sec, nanosec))

    def report(self, now: float) -> None:
        """Publish /policy/status."""
        statistics, controller, status = self.statistics, self.controller, self._status
        if statistics.ticks % FIGURES_EVERY == 0:
            statistics.refresh()
        figures = statistics.figures
        stamp = status.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.time_ns(), 1_000_000_000)
        status.state = int(controller.state)
        status.cause = controller.cause
        status.standing_complete = controller.not_standing(now, self.sensors) is None
        status.command = controller.command.tolist()
        status.ticks = statistics.ticks
        status.deadline_misses = statistics.deadline_misses
        status.tick_latency = statistics.last_latency
        status.tick_latency_p50 = figures.latency_p50
        status.tick_latency_p99 = figures.latency_p99
        status.tick_latency_max = figures.latency_max
        status.period_error_p99 = figures.period_error_p99
        self._status_publisher.publish(status)

    def _reject(self, topic: str, error: Exception) -> None:
        self.rejected_messages += 1
        self.complain(topic, f"{topic} rejected: {error}", error=True)

    def complain(self, kind: str, text: str, error: bool = False) -> None:
        """Log, at most once per LOG_INTERVAL and kind."""
        now = time.monotonic()
        if now - self._logged.get(kind, -math.inf) >= LOG_INTERVAL:
            self._logged[kind] = now
            if error:
                self.get_logger().error(text)
            else:
                self.get_logger().warning(text)


class ControlLoop(threading.Thread):
    """Ticks the node at its period until `stop` is set, and sets it itself when it ends.

    Tick k is due at start + k x period, whatever the ticks before took; ticks that cannot be kept any more
    are left out and counted. Garbage is collected in the time left over after a tick: the young generation
    each time (microseconds), everything once a second; what lives since start-up is frozen and left
    alone.
    """

    def __init__(self, node: PolicyNode, stop: threading.Event) -> None:
        super().__init__(name="control", daemon=True)
        self._node = node
        self._stop_event = stop
        self.error: BaseException | None = None

    def run(self) -> None:
        """Loop; every failure of a tick becomes a FAULT of the robot, not the end of the process."""
        for refusal in self._node.real_time.apply():
            self._node.get_logger().warning(refusal)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop()
            # The host would damp by itself once commands are too old; this spares it the wait.
            self._node.send(self._node.controller.trip("shut down", time.monotonic(), self._node.sensors))
        except BaseException as error:
            self.error = error
        finally:
            self._stop_event.set()

    def _loop(self) -> None:
        node = self._node
        period = node.statistics.period
        due = time.monotonic() + period
        while not self._stop_event.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            begin = time.monotonic()
            left_out = max(0, math.floor((begin - due) / period))
            due += left_out * period
            node.statistics.begin(due, begin, left_out)
            try:
                node.tick(begin)
                node.report(begin)
            except Exception as error:  # a bug in the loop must end in damping, with its name
                cause = f"control loop: {type(error).__name__}: {error}"
                node.complain("control loop", cause, error=True)
                node.send(node.controller.trip(cause, begin, node.sensors))
            gc.collect(2 if node.statistics.ticks % FULL_COLLECTION_EVERY == 0 else 0)
            due += period


def _spin(node: PolicyNode, stop: threading.Event) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=0.1)
        except Exception as error:  # one bad callback must not take the services away
            if not stop.is_set():
                node.complain("callback", f"callback: {type(error).__name__}: {error}", error=True)
    executor.shutdown(timeout_sec=1.0)


def run(argv: Sequence[str]) -> int:
    """Bring the node up and keep it until a signal; see start_policy_node.main."""
    stop = threading.Event()

    def leave(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        arguments = remove_ros_args(list(argv))[1:]
        if set(arguments) & {"-h", "--help"}:
            print(__doc__)
            return 0
        if arguments:
            raise UserError(f"unknown argument '{arguments[0]}': parameters go behind --ros-args, see --help")
        keep_off_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier())
        rclpy.init(args=list(argv), signal_handler_options=SignalHandlerOptions.NO)
        node = PolicyNode()
    except UserError as error:
        return _refuse(str(error))
    except Exception as error:  # rcl's own refusals of arguments and parameter files have no common base
        if os.environ.get("HUMANOID_RL_TRACEBACK"):
            raise
        return _refuse(f"{type(error).__name__}: {' '.join(str(error).split())}")
    loop = ControlLoop(node, stop)
    spinner = threading.Thread(target=_spin, args=(node, stop), name="executor", daemon=True)
    period = node.controller.period
    node.get_logger().info(
        f"policy '{node.policy_name}' at {1.0 / period:.0f} Hz, damping until /policy/stand"
    )
    loop.start()
    spinner.start()
    stop.wait()
    loop.join(timeout=1.0)
    spinner.join(timeout=2.0)
    node.destroy_node()
    rclpy.try_shutdown()
    if loop.error is not None:
        print(f"{NAME}: control loop ended: {type(loop.error).__name__}: {loop.error}", file=sys.stderr)
        return 1
    return 0


def _refuse(line: str) -> int:
    print(f"{NAME}: {line}", file=sys.stderr, flush=True)
    rclpy.try_shutdown()
    return 2
