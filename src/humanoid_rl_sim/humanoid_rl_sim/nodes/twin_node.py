"""The virtual G1 on ROS 2: publishes LowState and obeys LowCmd as the robot does, in real time.

Topics (absolute names)
    /lowstate, /lowcmd (unitree_hg, 500 Hz), /clock (100 Hz), /ground_truth/odom and /tf odom -> base link
    (50 Hz), /ground_truth/contacts (30 Hz, while somebody listens), /diagnostics (1 Hz).
Services
    /twin/push, /twin/hoist (true: up), /twin/reset, /twin/inject_fault.
Parameters, read once at start: `PARAMETERS`.

The 500 Hz loop owns the main thread; services run in a second one and take turns with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, TransformStamped, Vector3
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import load_robot
from nav_msgs.msg import Odometry
from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from humanoid_rl_core import rotation
from humanoid_rl_interfaces.srv import InjectFault, Push
from unitree_hg.msg import LowCmd, LowState

from ..twin.bodies import make_body
from ..twin.body import CYCLE
from ..twin.virtual_g1 import COMMAND_TIMEOUT, VirtualG1

LOCALHOST_HINT = "set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, or allow_network:=true if no robot is in reach"
LISTEN_TIME = 3.5
"""s of listening for another robot before saying a word. Half of the time discovery takes 0.1 s; when the
first announcements are lost, Fast DDS repeats them after 3 s (measured: 2.9 s)."""
LONGEST_LAG = 0.05
"""s of lag that is caught up by stepping faster; beyond it time is given up and the robot slows down."""

CLOCK_CYCLES = 5
ODOMETRY_CYCLES = 10
CONTACT_CYCLES = 17
STATUS_CYCLES = 500
"""Robot cycles between two messages: 100, 50, 29 and 1 Hz."""

ARROW_SCALE = 0.001
"""m per N: the arrow of a foot that carries the whole robot is a third of a metre long."""


@dataclass(frozen=True)
class TwinParameters:
    """Parameters of the node, as `VirtualG1` takes them."""

    robot: str = "g1"
    variant: str = "rev_1_0"
    start: str = "hoisted"
    """``hoisted``: hanging with straight legs; ``standing``: default pose, soles on the floor, on the hoist
    until a controller holds it."""
    auto_lower: bool = True
    """Lower the hoist without a person once a controller holds the robot; see `VirtualG1`."""
    simulator: str = "mujoco"
    """What steps the robot: one of `bodies.SIMULATORS`."""
    timestep: float = 0.0
    """s, physics; 0: the simulator's own choice."""
    device: str = ""
    """Of Isaac Lab's physics, as torch names it; empty: the engine's own choice."""
    seed: int = 0
    """Of the sensor noise."""
    sensor_noise: float = 1.0
    """Factor on `virtual_g1.NOISE`; 0 for exact sensors."""
    mode_machine: int = 0
    """Reported and demanded; 0: that of the robot description."""
    command_timeout: float = COMMAND_TIMEOUT
    """s without a valid LowCmd after which the motors brake."""
    allow_network: bool = False
    """Start although discovery reaches beyond this machine."""


PARAMETERS = {name: field.default for name, field in TwinParameters.__dataclass_fields__.items()}
"""Name -> default."""

_ROS_OWN_PARAMETERS = ("use_sim_time", "start_type_description_service")


def check_network(environment: Mapping[str, str], allow_network: bool) -> None:
    """A twin in reach of a robot's network could be taken for it, and commands to it reach the robot.

    :param environment: as `os.environ`.
    :raises UserError: discovery reaches beyond this machine and ``allow_network`` is not set.
    """
    if allow_network:
        return
    if environment.get("ROS_STATIC_PEERS", "").strip("; "):
        raise UserError(
            f"refusing to start: ROS_STATIC_PEERS={environment['ROS_STATIC_PEERS']} names other machines; "
            "unset it, or allow_network:=true if no robot is in reach"
        )
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        return
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if reach != "LOCALHOST":
        said = f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}" if reach else "DDS discovery"
        raise UserError(f"refusing to start: {said} is not confined to this machine; {LOCALHOST_HINT}")


def read_parameters(node: Node) -> TwinParameters:
    """The node's parameters, checked by name and type. The node declares overrides automatically.

    :raises UserError: an unknown parameter or one of another type.
    """
    given = {
        name: node.get_parameter(name).value
        for name in node.get_parameters_by_prefix("")
        if name not in _ROS_OWN_PARAMETERS and not name.startswith("qos_overrides")
    }
    for name, value in given.items():
        if name not in PARAMETERS:
            raise UserError(
                f"unknown parameter '{name}'{nearest(name, PARAMETERS)}; known: {', '.join(PARAMETERS)}"
            )
        wanted = type(PARAMETERS[name])
        if wanted is float and type(value) is int:
            given[name] = float(value)
        elif type(value) is not wanted:
            raise UserError(f"parameter {name}: expected {wanted.__name__}, got {value!r}")
    for name, default in PARAMETERS.items():
        if name not in given:
            node.declare_parameter(name, default)
    return TwinParameters(**given)


class _Polled(CallbackGroup):
    """Subscriptions in this group never wake an executor; their owner takes messages when it wants them."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        return


class TwinNode(Node):
    """Puts a `VirtualG1` on DDS. Call `run_until` from the main thread and spin the node in another."""

    def __init__(self, context: Context) -> None:
        super().__init__("robot_twin", context=context, automatically_declare_parameters_from_overrides=True)
        self.parameters = read_parameters(self)

    def start(self, twin: VirtualG1) -> None:
        """Creates topics and services. Nothing is published before `run_until`."""
        self._twin = twin
        self._turn = threading.Lock()
        self._base_link = twin.robot.base_link
        latest = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
        newest = QoSProfile(
            depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        self._low_state = self.create_publisher(LowState, "/lowstate", latest)
        self._low_cmd = self.create_subscription(
            LowCmd, "/lowcmd", lambda _: None, newest, callback_group=_Polled(), raw=True
        )
        self._clock_topic = self.create_publisher(Clock, "/clock", latest)
        self._odometry = self.create_publisher(Odometry, "/ground_truth/odom", latest)
        self._tf = self.create_publisher(TFMessage, "/tf", 10)
        self._contacts = self.create_publisher(MarkerArray, "/ground_truth/contacts", latest)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(Push, "/twin/push", self._on_push)
        self.create_service(SetBool, "/twin/hoist", self._on_hoist)
        self.create_service(Trigger, "/twin/reset", self._on_reset)
        self.create_service(InjectFault, "/twin/inject_fault", self._on_inject_fault)
        self._odometry_message = Odometry()
        self._odometry_message.header.frame_id = "odom"
        self._odometry_message.child_frame_id = self._base_link
        self._transform = TransformStamped()
        self._transform.header.frame_id = "odom"
        self._transform.child_frame_id = self._base_link
        self._given_up = 0.0
        self._rejected = dict(twin.rejected)
        self._diverged = 0
        self._hoist_state = twin.hoist_state
        self._braking = True

    # --- services ---

    def _on_push(self, request: Push.Request, response: Push.Response) -> Push.Response:
        velocity = (request.velocity.x, request.velocity.y, request.velocity.z)
        return self._answer(response, lambda: self._push(velocity))

    def _push(self, velocity: tuple[float, float, float]) -> str:
        self._twin.push(velocity)
        return f"pushed by ({velocity[0]:g}, {velocity[1]:g}, {velocity[2]:g}) m/s"

    def _on_hoist(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        return self._answer(response, lambda: f"hoist: {self._twin.hoist(request.data)}")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._reset)

    def _reset(self) -> str:
        self._twin.reset()
        return f"back at the start: {self._twin.start}"

    def _on_inject_fault(
        self, request: InjectFault.Request, response: InjectFault.Response
    ) -> InjectFault.Response:
        return self._answer(
            response,
            lambda: self._twin.inject_fault(request.fault, request.joint, request.value, request.duration),
        )

    def _answer(self, response: Any, action: Any) -> Any:
        """Runs an action between two cycles and tells the caller, and the log, what came of it."""
        try:
            with self._turn:
                response.message = action()
            response.success = True
            self.get_logger().info(response.message)
        except UserError as error:
            response.success, response.message = False, str(error)
            self.get_logger().warning(response.message)
        return response

    # --- the loop ---

    def run_until(self, stop: threading.Event) -> None:
        """Steps the robot on an absolute 500 Hz schedule of the monotonic clock until told to stop.

        :raises UserError: another publisher of /lowstate appeared.
        """
        twin, turn = self._twin, self._turn
        publish, take = self._low_state.publish, self._low_cmd.handle.take_message
        clock = time.monotonic
        cycle = 0
        deadline = clock()
        self._status_wall, self._status_time = deadline, twin.time
        while not stop.is_set():
            deadline += CYCLE
            now = clock()
            if now < deadline:
                time.sleep(deadline - now)
            elif now - deadline > LONGEST_LAG:
                self._given_up += now - deadline
                deadline = now
            command = take(LowCmd, True)
            with turn:
                if command is not None:
                    twin.receive(command[0])
                state = twin.cycle()
            if state is not None:
                publish(state)
            cycle += 1
            if cycle % CLOCK_CYCLES == 0:
                self._publish_clock()
            if cycle % ODOMETRY_CYCLES == 1:
                self._publish_odometry()
            if cycle % CONTACT_CYCLES == 2 and self._contacts.get_subscription_count():
                self._publish_contacts()
            if cycle % STATUS_CYCLES == 3:
                self._publish_status()

    def _publish_clock(self) -> None:
        message = Clock()
        nanoseconds = round(self._twin.time * 1e9)
        message.clock.sec, message.clock.nanosec = divmod(nanoseconds, 1_000_000_000)
        self._clock_topic.publish(message)

    def _publish_odometry(self) -> None:
        base = self._twin.base_state()
        stamp = self.get_clock().now().to_msg()
        x, y, z = base.position.tolist()
        qw, qx, qy, qz = base.quaternion.tolist()
        odometry, transform = self._odometry_message, self._transform
        odometry.header.stamp = transform.header.stamp = stamp
        position, orientation = odometry.pose.pose.position, odometry.pose.pose.orientation
        position.x, position.y, position.z = x, y, z
        orientation.x, orientation.y, orientation.z, orientation.w = qx, qy, qz, qw
        twist = odometry.twist.twist  # in the child frame, as the message demands
        linear = rotation.rotate_inverse(base.quaternion, base.linear_velocity).tolist()
        twist.linear.x, twist.linear.y, twist.linear.z = linear
        twist.angular.x, twist.angular.y, twist.angular.z = base.angular_velocity.tolist()
        self._odometry.publish(odometry)
        translation, turned = transform.transform.translation, transform.transform.rotation
        translation.x, translation.y, translation.z = x, y, z
        turned.x, turned.y, turned.z, turned.w = qx, qy, qz, qw
        self._tf.publish(TFMessage(transforms=[transform]))

    def _publish_contacts(self) -> None:
        stamp = self.get_clock().now().to_msg()
        message = MarkerArray()
        for index, foot in enumerate(self._twin.foot_contacts()):
            marker = Marker()
            marker.header.frame_id, marker.header.stamp = "odom", stamp
            marker.ns, marker.id, marker.type = "foot_contact", index, Marker.ARROW
            marker.action = Marker.ADD if foot.touching else Marker.DELETE
            start = foot.position
            end = start + ARROW_SCALE * foot.force
            marker.points = [Point(x=p[0], y=p[1], z=p[2]) for p in (start.tolist(), end.tolist())]
            marker.scale = Vector3(x=0.02, y=0.04, z=0.06)
            marker.color.r, marker.color.g, marker.color.b, marker.color.a = 0.1, 0.7, 0.3, 1.0
            marker.pose.orientation.w = 1.0
            message.markers.append(marker)
        self._contacts.publish(message)

    def _publish_status(self) -> None:
        twin, now = self._twin, time.monotonic()
        if self.count_publishers("/lowstate") > 1:
            raise UserError(
                "stopped: another robot or twin publishes /lowstate in this ROS domain; only one may"
            )
        factor = (twin.time - self._status_time) / max(now - self._status_wall, 1e-9)
        self._status_wall, self._status_time = now, twin.time
        ignored = {
            reason: count - self._rejected[reason]
            for reason, count in twin.rejected.items()
            if count > self._rejected[reason]
        }
        self._rejected = dict(twin.rejected)
        troubles = []
        if ignored:
            told = ", ".join(f"{reason} {count}" for reason, count in ignored.items())
            troubles.append(f"ignored LowCmd in the last second: {told}")
        if self.count_publishers("/lowcmd") > 1:
            troubles.append("more than one node publishes /lowcmd")
        if self._given_up:
            troubles.append(f"too slow for real time: {self._given_up:.3f} s given up")
            self._given_up = 0.0
        if twin.diverged > self._diverged:
            troubles.append("the physics diverged; the robot was put back to its start")
            self._diverged = twin.diverged
        for trouble in troubles:
            self.get_logger().warning(trouble)
        if twin.hoist_state != self._hoist_state:
            self._hoist_state = twin.hoist_state
            self.get_logger().info(f"hoist: {self._hoist_state}")
        if twin.braking != self._braking:
            self._braking = twin.braking
            told = "no valid LowCmd, motors brake" if self._braking else "motors follow LowCmd"
            self.get_logger().info(told)
        values = {
            "real_time_factor": f"{factor:.3f}",
            "hoist": twin.hoist_state,
            "motors": "braking" if twin.braking else "following",
            "faults": ", ".join(twin.faults) or "none",
            "commands_accepted": str(twin.accepted),
            **{f"commands_rejected_{reason}": str(count) for reason, count in twin.rejected.items()},
            "hottest_winding": f"{twin.winding_temperature.max():.1f}",
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if troubles or twin.faults else DiagnosticStatus.OK,
            name="robot_twin",
            message="; ".join(troubles) or (f"faults: {', '.join(twin.faults)}" if twin.faults else "ok"),
            hardware_id=f"virtual {twin.robot.name}",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _listen(node: Node, deadline: float, stop: threading.Event) -> None:
    """Until the deadline (monotonic clock). :raises UserError: somebody publishes /lowstate already."""
    while time.monotonic() < deadline and not stop.is_set():
        for publisher in node.get_publishers_info_by_topic("/lowstate"):
            name = publisher.node_name
            who = f"node {name}" if name and not name.startswith("_") else "a robot or a twin"
            raise UserError(
                f"refusing to start: {who} publishes /lowstate in ROS domain {_domain()} already; "
                "end it or choose another ROS_DOMAIN_ID"
            )
        time.sleep(0.05)


def _domain() -> str:
    return os.environ.get("ROS_DOMAIN_ID") or "0"


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


def run(arguments: Sequence[str], stop: threading.Event) -> None:
    """The whole life of the node.

    :param arguments: command line without the program's name.
    :param stop: set by a signal handler.
    :raises UserError: anything the user can repair, in one line.
    """
    context = Context()
    environment = dict(os.environ)  # as the user set it
    keep_off_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier())
    try:
        rclpy.init(args=list(arguments), context=context, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy raises half a dozen types for a bad command line or environment
        raise UserError(f"ROS 2 does not start: {str(error).splitlines()[0]}") from None
    try:
        node = TwinNode(context)
    except BaseException:
        context.try_shutdown()
        raise
    joined = time.monotonic()
    executor = SingleThreadedExecutor(context=context)
    made = contextlib.ExitStack()
    spinner = threading.Thread(target=_spin, args=(executor,), name="services", daemon=True)
    try:
        parameters = node.parameters
        check_network(environment, parameters.allow_network)
        mujoco.set_mju_user_warning(lambda text: node.get_logger().error(f"physics: {text}"))
        robot = load_robot(parameters.robot, parameters.variant)
        body = made.enter_context(
            contextlib.closing(make_body(parameters.simulator, robot, parameters.timestep, parameters.device))
        )
        twin = VirtualG1(
            robot,
            body=body,
            start=parameters.start,  # type: ignore[arg-type]  # checked by VirtualG1
            auto_lower=parameters.auto_lower,
            seed=parameters.seed,
            sensor_noise=parameters.sensor_noise,
            mode_machine=parameters.mode_machine or None,
            command_timeout=parameters.command_timeout,
        )
        _listen(node, joined + LISTEN_TIME, stop)
        if stop.is_set():
            return
        node.start(twin)
        executor.add_node(node)
        spinner.start()
        # What exists now lives until the end: no collection has to look at it again.
        gc.collect()
        gc.freeze()
        # Services share the interpreter with the loop: let it have it back within half a cycle.
        sys.setswitchinterval(CYCLE / 2.0)
        node.get_logger().info(
            f"virtual {twin.robot.name} {twin.robot.variant}, mode_machine {twin.mode_machine}, "
            f"{twin.start}, ROS domain {_domain()}"
        )
        if body.timestep > CYCLE:
            node.get_logger().info(f"{parameters.simulator}: physics at {1e3 * body.timestep:g} ms")
        node.run_until(stop)
    finally:
        executor.shutdown(timeout_sec=1.0)
        if spinner.is_alive():
            spinner.join(timeout=1.0)
        mujoco.set_mju_user_warning(None)
        made.close()
        node.destroy_node()
        context.try_shutdown()
