"""web_view: the live robot in a browser, from the same ROS topics whatever runs below them.

Reads  /joint_states /imu/data /ground_truth/odom /tf /joint_command /policy/status /host/status
       /motor_status /battery_state /train/status /ground_truth/contacts /train/markers
Writes /cmd_vel (only while "send commands" is on), calls /policy/* /host/estop /twin/push.
Parameters: host, port, robot, variant, rate (Hz), command_limits (m/s, m/s, rad/s).

Nothing here runs a callback per message: the robot's topics come at 500 Hz and a browser shows 30 pictures a
second, so each tick takes the newest message of a topic and the executor only ever sees service responses.
"""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import rclpy
import viser
from geometry_msgs.msg import TwistStamped
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel, load_robot
from humanoid_rl_inference.polling import PolledGroup, never_called, take
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.callback_groups import CallbackGroup
from rclpy.client import Client
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import BatteryState, Imu, JointState
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker as MarkerMessage
from visualization_msgs.msg import MarkerArray

from humanoid_rl.views.urdf_scene import UrdfScene, read_scene
from humanoid_rl.views.web_panel import Actions, Panel, PanelState, Training
from humanoid_rl.views.web_scene import Marker, MarkerKind, WebScene
from humanoid_rl_core import rotation
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, MotorStatus, PolicyStatus, TrainStatus
from humanoid_rl_interfaces.srv import Push

Array = NDArray[np.floating[Any]]
Message = TypeVar("Message")

_IDLE_RATE = 5.0  # Hz, of the loop while no browser looks
_PANEL_RATE = 5.0  # Hz, of the numbers: faster cannot be read
_FRESH = 1.0  # s, after which a pose source counts as gone and the next one is taken
_STATUS_FRESH = 3.0  # s; the slowest status topic comes at 1 Hz
_ESTOP_PATIENCE = 2.0  # s, in which an e-stop goes on looking for its service
_ANSWER_PATIENCE = 2.0  # s, after which a service that was called counts as dead
_WORLD_FRAMES = ("odom", "world", "map", "")
_SHORTEST_ARROW = 0.02  # m; shorter ones are a velocity of zero, and would be drawn as a head alone
_SOLID_MARKERS: dict[int, MarkerKind] = {
    MarkerMessage.SPHERE: "sphere",
    MarkerMessage.CYLINDER: "cylinder",
    MarkerMessage.CUBE: "box",
}
_PUSH_HEADING = {"front": np.pi, "back": 0.0, "left": -np.pi / 2, "right": np.pi / 2}


class Latest(Generic[Message]):
    """The newest message of a topic, of those that `keep` accepts, and when it was seen."""

    def __init__(
        self,
        node: Node,
        kind: type[Message],
        topic: str,
        group: CallbackGroup,
        *,
        depth: int = 1,
        keep: Callable[[Message], bool] = lambda _: True,
    ) -> None:
        qos = QoSProfile(
            depth=depth,
            history=HistoryPolicy.KEEP_LAST,
            reliability=ReliabilityPolicy.BEST_EFFORT,  # hears reliable publishers too
            durability=DurabilityPolicy.VOLATILE,
        )
        self._subscription = node.create_subscription(kind, topic, never_called, qos, callback_group=group)
        self._depth = depth
        self._keep = keep
        self.message: Message | None = None
        self._seen = -np.inf

    def poll(self) -> bool:
        """Takes what has come since the last poll; True when that was something."""
        found = False
        for _ in range(self._depth):
            message = take(self._subscription)
            if message is None:
                break
            if self._keep(message):
                self.message, self._seen, found = message, time.monotonic(), True
        return found

    @property
    def age(self) -> float | None:
        """Seconds since a message was last seen, None before the first."""
        return None if self.message is None else time.monotonic() - self._seen

    def fresh(self, within: float) -> Message | None:
        """The message, unless it is older than `within` seconds."""
        age = self.age
        return self.message if age is not None and age <= within else None


@dataclass
class _Call:
    """A service call on its way: not yet sent while `future` is None."""

    client: Client
    request: Any
    label: str
    deadline: float
    future: Future | None = None


@dataclass(frozen=True)
class BasePose:
    """Root of the robot in the world: m, (w, x, y, z); velocity: vx, vy in its own frame, m/s, or None."""

    position: Array
    quaternion: Array
    source: str
    velocity: tuple[float, float] | None = None


def _vector(v: Any) -> Array:
    return np.array([v.x, v.y, v.z])


def _quaternion(q: Any) -> Array:
    return np.array([q.w, q.x, q.y, q.z])


def _valid(position: Array, quaternion: Array) -> bool:
    return bool(np.isfinite(position).all() and abs(float(quaternion @ quaternion) - 1.0) < 0.01)


def read_markers(message: MarkerArray, frames: Mapping[str, tuple[Array, Array]]) -> dict[str, Marker]:
    """Shapes of a MarkerArray in the world frame, by "namespace_id".

    frames: link -> (position [3], quaternion [4]) in the world; markers in other frames, of kinds that are
    not drawn, with non-finite numbers, or that delete are left out.
    """
    shapes: dict[str, Marker] = {}
    for marker in message.markers:
        if marker.action != MarkerMessage.ADD:
            continue
        if marker.header.frame_id in _WORLD_FRAMES:
            frame: tuple[Array, Array] = (np.zeros(3), rotation.IDENTITY)
        elif marker.header.frame_id in frames:
            frame = frames[marker.header.frame_id]
        else:
            continue
        position, quaternion = _vector(marker.pose.position), _quaternion(marker.pose.orientation)
        if not quaternion.any():
            quaternion = rotation.IDENTITY  # the message's default, read by every viewer as no rotation
        position = frame[0] + rotation.rotate(frame[1], position)
        quaternion = rotation.multiply(frame[1], quaternion)
        size = _vector(marker.scale)
        points: Array = np.array([[p.x, p.y, p.z] for p in marker.points]).reshape(-1, 3)
        points = position + rotation.rotate(quaternion, points) if len(points) else points
        if marker.type == MarkerMessage.ARROW:
            kind: MarkerKind = "arrow"
            if len(points) != 2:  # the other form: along x of the pose, as long as scale.x
                points = np.stack([position, position + rotation.rotate(quaternion, [size[0], 0.0, 0.0])])
                size = np.array([size[1], 2 * size[1], 0.0])
            if np.linalg.norm(points[1] - points[0]) < _SHORTEST_ARROW:
                continue
        elif marker.type in (MarkerMessage.LINE_LIST, MarkerMessage.LINE_STRIP) and len(points) >= 2:
            kind = "lines"
            if marker.type == MarkerMessage.LINE_STRIP:
                points = np.stack([points[:-1], points[1:]], axis=1)
            points = points[: len(points) // 2 * 2].reshape(-1, 2, 3) if points.ndim == 2 else points
        elif marker.type in _SOLID_MARKERS:
            kind = _SOLID_MARKERS[marker.type]
        else:
            continue
        colour = (marker.color.r, marker.color.g, marker.color.b, marker.color.a)
        if _valid(position, quaternion) and np.isfinite(points).all() and colour[3] > 0.0:
            name = f"{marker.ns}_{marker.id}".replace("/", "_").strip("_")
            shapes[name] = Marker(kind, colour, position, quaternion, size, points)
    return shapes


class WebView(Node):
    """The node: `tick` once per picture, from the main thread; buttons call in from the server's threads."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__("web_view", **node_options)
        host = str(self.declare_parameter("host", "127.0.0.1").value)
        port = int(self.declare_parameter("port", 8080).value)
        self.robot: RobotModel = load_robot(
            str(self.declare_parameter("robot", "g1").value),
            str(self.declare_parameter("variant", "rev_1_0").value),
        )
        self.rate = float(self.declare_parameter("rate", 30.0).value)
        limits = self.declare_parameter("command_limits", [1.0, 0.5, 1.0]).value
        if self.rate <= 0.0:
            raise UserError(f"web_view: rate is {self.rate}, expected Hz above zero")
        if len(limits) != 3 or min(limits) <= 0.0:
            raise UserError("web_view: command_limits needs three numbers above zero (m/s, m/s, rad/s)")

        self._model: UrdfScene = read_scene(self.robot.urdf)
        self._subscribe()
        self._cmd_vel = self.create_publisher(TwistStamped, "/cmd_vel", 1)
        self._policy = {
            name: self.create_client(Trigger, f"/policy/{name}")
            for name in ("stand", "start", "stop", "reset", "estop")
        }
        self._host_estop = self.create_client(Trigger, "/host/estop")
        self._push = self.create_client(Push, "/twin/push")
        self._calls: list[_Call] = []
        self._calls_lock = threading.Lock()
        self._joints: dict[str, float] = dict(
            zip(self.robot.joint_names, self.robot.default_position.tolist(), strict=True)
        )
        self._base = BasePose(np.array([0.0, 0.0, self.robot.default_base_height]), rotation.IDENTITY, "")
        self._watchers = 0
        self._next_panel = 0.0

        check_port(host, port)
        self.server = viser.ViserServer(host=host, port=port, verbose=False)
        if port not in (0, self.server.get_port()):
            # Taken since the check; viser moves on to the next free port without a word.
            self.server.stop()
            raise UserError(_port_in_use(host, port))
        self._scene = WebScene(self.server, self._model)
        actions = Actions(self.estop, self._call_policy, self._push_robot, self._on_sending)
        self.panel = Panel(self.server, actions, limits)
        self._pose_default()
        shown = "localhost" if host in ("0.0.0.0", "::") else host
        self.get_logger().info(f"web view on http://{shown}:{self.server.get_port()}")

    def _subscribe(self) -> None:
        polled = PolledGroup()
        self._joint_states = Latest(self, JointState, "/joint_states", polled)
        self._imu = Latest(self, Imu, "/imu/data", polled)
        self._odom = Latest(self, Odometry, "/ground_truth/odom", polled)
        # Several nodes write to /tf: enough depth for all of them between two polls.
        self._tf = Latest(
            self,
            TFMessage,
            "/tf",
            polled,
            depth=50,
            keep=lambda message: any(self._places_base(t) for t in message.transforms),
        )
        self._joint_command = Latest(self, JointCommand, "/joint_command", polled)
        self._policy_status = Latest(self, PolicyStatus, "/policy/status", polled)
        self._host_status = Latest(self, HostStatus, "/host/status", polled)
        self._motor_status = Latest(self, MotorStatus, "/motor_status", polled)
        self._battery = Latest(self, BatteryState, "/battery_state", polled)
        self._train_status = Latest(self, TrainStatus, "/train/status", polled)
        self._marker_topics = {
            topic: Latest(self, MarkerArray, topic, polled)
            for topic in ("/ground_truth/contacts", "/train/markers")
        }
        self._pose_topics = (self._joint_states, self._imu, self._odom, self._tf, self._joint_command)
        self._status_topics = (
            self._policy_status,
            self._host_status,
            self._motor_status,
            self._battery,
            self._train_status,
        )

    # -- the loop ------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """One round: newest messages to the browsers, commands and calls out. Returns seconds to the next."""
        self._advance_calls()
        watched = self._count_clients()
        if not watched:
            for topic in (*self._pose_topics, *self._status_topics):
                topic.poll()  # keeps the ages right for the browser that comes next
            return 1.0 / _IDLE_RATE
        if self.panel.sending:
            self._publish_command(self.panel.command)
        with self.server.atomic():
            self._update_scene()
            now = time.monotonic()
            if now >= self._next_panel:
                self._next_panel = now + 1.0 / _PANEL_RATE
                self._update_panel()
        return 1.0 / self.rate

    def _count_clients(self) -> int:
        clients = len(self.server.get_clients())
        if self._watchers and not clients and self.panel.sending:
            # Nobody sees the robot any more: whoever closed the page must not leave it walking.
            self.panel.stop_sending()
            self._publish_command((0.0, 0.0, 0.0))
        if clients > self._watchers:
            self._next_panel = 0.0
        self._watchers = clients
        return clients

    def _publish_command(self, command: Iterable[float]) -> None:
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self.robot.base_link
        message.twist.linear.x, message.twist.linear.y, message.twist.angular.z = command
        self._cmd_vel.publish(message)

    def _pose_default(self) -> None:
        self._scene.pose_robot(self._base.position, self._base.quaternion, self._joints, follow=True)

    def _update_scene(self) -> None:
        moved = [topic.poll() for topic in self._pose_topics]
        changed = any(moved)
        joints = self._joint_states.message
        if moved[0] and joints is not None:
            positions = zip(joints.name, joints.position, strict=False)
            self._joints.update({name: q for name, q in positions if np.isfinite(q)})
        if changed:
            self._base = self._read_base()
            self._scene.pose_robot(
                self._base.position, self._base.quaternion, self._joints, follow=self.panel.follow
            )
        heading = float(rotation.yaw(self._base.quaternion))
        arrows = self.panel.arrows
        self._scene.show_command(self._shown_command() if arrows else None, self._base.position, heading)
        self._scene.show_velocity(self._base.velocity if arrows else None, self._base.position, heading)
        self._update_ghost()
        self._update_markers()

    def _shown_command(self) -> tuple[float, float, float] | None:
        status = self._policy_status.fresh(_STATUS_FRESH)
        if status is not None and status.state == PolicyStatus.RUNNING and len(status.command) == 3:
            vx, vy, yaw_rate = status.command
            return vx, vy, yaw_rate
        return self.panel.command if self.panel.sending else None

    def _update_ghost(self) -> None:
        command = self._joint_command.fresh(_FRESH) if self.panel.ghost else None
        # Damping commands have no target to show.
        shown = command is not None and any(command.stiffness)
        self._scene.ghost.visible = shown
        if command is not None and shown:
            target = dict(zip(command.joint_names, command.position, strict=False))
            self._scene.ghost.pose(self._base.position, self._base.quaternion, target)

    def _update_markers(self) -> None:
        for name, topic in self._marker_topics.items():
            topic.poll()
            message = topic.fresh(_FRESH) if self.panel.markers else None
            shapes: dict[str, Marker] = {}
            if message is not None:
                frames = {}
                if any(m.header.frame_id not in _WORLD_FRAMES for m in message.markers):
                    frames = self._link_frames()
                shapes = read_markers(message, frames)
            self._scene.show_markers(name, shapes)

    def _link_frames(self) -> dict[str, tuple[Array, Array]]:
        transforms = self._model.link_transforms(self._joints)
        base = self._base
        return {
            link: (
                base.position + rotation.rotate(base.quaternion, transform[:3, 3]),
                rotation.multiply(base.quaternion, _matrix_to_quaternion(transform[:3, :3])),
            )
            for link, transform in zip(self._model.links, transforms, strict=True)
        }

    def _read_base(self) -> BasePose:
        """The best source there is: true odometry, tf, the IMU's orientation with the feet on the floor."""
        odom = self._odom.fresh(_FRESH)
        if odom is not None:
            position, quaternion = _vector(odom.pose.pose.position), _quaternion(odom.pose.pose.orientation)
            if _valid(position, quaternion):
                speed = odom.twist.twist.linear
                return BasePose(position, quaternion, "ground truth", (speed.x, speed.y))
        tf = self._tf.fresh(_FRESH)
        for transform in tf.transforms if tf is not None else ():
            if self._places_base(transform):
                position = _vector(transform.transform.translation)
                quaternion = _quaternion(transform.transform.rotation)
                if _valid(position, quaternion):
                    return BasePose(position, quaternion, "tf")
        imu = self._imu.fresh(_FRESH)
        if imu is not None and _valid(np.zeros(3), _quaternion(imu.orientation)):
            quaternion = self._base_orientation(_quaternion(imu.orientation))
            height = -self._model.lowest_point(self._joints, quaternion)
            return BasePose(np.array([0.0, 0.0, height]), quaternion, "IMU, feet on the floor")
        return self._base

    def _places_base(self, transform: Any) -> bool:
        return transform.child_frame_id == self.robot.base_link and transform.header.frame_id in _WORLD_FRAMES

    def _base_orientation(self, imu: Array) -> Array:
        """Root's orientation from that of the IMU's link, through the joints between them."""
        link = self._model.links.index(self.robot.imu_link)
        turned = _matrix_to_quaternion(self._model.link_transforms(self._joints)[link][:3, :3])
        return np.asarray(rotation.multiply(imu, rotation.conjugate(turned)))

    # -- the panel -----------------------------------------------------------------------------------------

    def _update_panel(self) -> None:
        for topic in self._status_topics:
            topic.poll()
        self.panel.show(self._panel_state(), can_push=self._push.service_is_ready())

    def _panel_state(self) -> PanelState:
        policy = self._policy_status.fresh(_STATUS_FRESH)
        host = self._host_status.fresh(_STATUS_FRESH)
        hottest_joint, hottest = self._hottest()
        battery = self._battery.fresh(10.0)
        known = self._base.source != ""
        return PanelState(
            policy_state=_constant(PolicyStatus, ("IDLE", "STANDING", "RUNNING", "FAULT"), policy),
            policy_name=policy.policy if policy else "",
            policy_cause=policy.cause if policy else "",
            tick_latency_p50=policy.tick_latency_p50 if policy else None,
            tick_latency_p99=policy.tick_latency_p99 if policy else None,
            deadline_misses=policy.deadline_misses if policy else None,
            host_state=_constant(
                HostStatus, ("INACTIVE", "WAITING_STATE", "READY", "ACTIVE", "DAMPING"), host
            ),
            host_cause=host.cause if host else "",
            host_period_p99=host.period_error_p99 if host else None,
            hottest_joint=hottest_joint,
            hottest=hottest,
            battery=battery.percentage if battery and np.isfinite(battery.percentage) else None,
            joint_state_age=self._joint_states.age,
            base_source=self._base.source,
            base_height=float(self._base.position[2]) if known else None,
            base_tilt=float(rotation.tilt(self._base.quaternion)) if known else None,
            training=self._training(),
        )

    def _hottest(self) -> tuple[str, float | None]:
        motors = self._motor_status.fresh(_STATUS_FRESH)
        if motors is None or not motors.joint_names:
            return "", None
        temperatures = np.maximum(motors.winding_temperature, motors.casing_temperature)
        if len(temperatures) != len(motors.joint_names):
            return "", None
        index = int(np.argmax(temperatures))
        return motors.joint_names[index], float(temperatures[index])

    def _training(self) -> Training | None:
        status = self._train_status.fresh(_STATUS_FRESH)
        if status is None:
            return None
        return Training(
            status.phase,
            status.run,
            status.steps,
            status.total_steps,
            status.steps_per_second,
            status.mean_reward,
            status.mean_episode_length,
            status.eta,
        )

    # -- buttons: called from the server's threads, never wait ----------------------------------------------

    def estop(self) -> None:
        """Damps the robot through the host and the policy node, whichever of them is alive."""
        self.panel.say("E-STOP", "bad")
        deadline = time.monotonic() + _ESTOP_PATIENCE
        calls = [
            _Call(self._host_estop, Trigger.Request(), "E-STOP: host", deadline),
            _Call(self._policy["estop"], Trigger.Request(), "E-STOP: policy node", deadline),
        ]
        for call in calls:
            self._send(call)
        with self._calls_lock:
            self._calls += calls
        self.panel.stop_sending()

    def _call_policy(self, name: str) -> None:
        self._call_once(self._policy[name], Trigger.Request(), name, f"/policy/{name}")

    def _push_robot(self, side: str, speed: float) -> None:
        heading = float(rotation.yaw(self._base.quaternion)) + _PUSH_HEADING[side]
        request = Push.Request()
        request.velocity.x, request.velocity.y = speed * np.cos(heading), speed * np.sin(heading)
        self._call_once(self._push, request, f"push {speed:.1f} m/s from the {side}", "/twin/push")

    def _on_sending(self, sending: bool) -> None:
        if not sending:
            self._publish_command((0.0, 0.0, 0.0))

    def _call_once(self, client: Client, request: Any, label: str, service: str) -> None:
        if not client.service_is_ready():
            self.panel.say(f"{label}: nobody offers {service}", "bad")
            return
        call = _Call(client, request, label, 0.0)
        self._send(call)
        with self._calls_lock:
            self._calls.append(call)

    def _send(self, call: _Call) -> None:
        """Sends the request if its service is there, else leaves it to the next tick."""
        if call.future is None and call.client.service_is_ready():
            call.deadline = time.monotonic() + _ANSWER_PATIENCE
            call.future = call.client.call_async(call.request)

    def _advance_calls(self) -> None:
        """Sends what still waits for its service, reports answers and the lack of them."""
        with self._calls_lock:
            calls = list(self._calls)
        for call in calls:
            self._send(call)
            if call.future is not None and call.future.done():
                answer = call.future.result()
                detail = f": {answer.message}" if answer.message else ""
                self.panel.say(f"{call.label}{detail or ': done'}", "ok" if answer.success else "bad")
            elif time.monotonic() > call.deadline:
                found = "did not answer" if call.future is not None else "not found"
                self.panel.say(f"{call.label} {found}", "bad")
                if call.future is not None:
                    call.client.remove_pending_request(call.future)
            else:
                continue
            with self._calls_lock:
                self._calls.remove(call)

    def close(self) -> None:
        """Stops the web server; a browser that still sent commands has sent its last one: zero."""
        if self.panel.sending:
            self._publish_command((0.0, 0.0, 0.0))
        self.server.stop()


def _constant(kind: Any, names: Iterable[str], message: Any) -> str:
    if message is None:
        return ""
    return next((name for name in names if getattr(kind, name) == message.state), f"state {message.state}")


def _matrix_to_quaternion(matrix: Array) -> Array:
    """Quaternion [4] of a rotation matrix [3, 3], by the numerically largest component (Shepperd 1978)."""
    m = matrix
    squares = np.array(
        [
            1.0 + m[0, 0] + m[1, 1] + m[2, 2],
            1.0 + m[0, 0] - m[1, 1] - m[2, 2],
            1.0 - m[0, 0] + m[1, 1] - m[2, 2],
            1.0 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    largest = int(np.argmax(squares))
    w, x, y, z = (
        (squares[0], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
        (m[2, 1] - m[1, 2], squares[1], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
        (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], squares[2], m[1, 2] + m[2, 1]),
        (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[3]),
    )[largest]
    return np.array([w, x, y, z]) / (2.0 * np.sqrt(squares[largest]))


def _port_in_use(host: str, port: int) -> str:
    return (
        f"web_view: port {port} on {host} is in use; stop the program that holds it or choose another, "
        f"e.g. port:={port + 1}"
    )


def check_port(host: str, port: int) -> None:
    """Raises UserError when the web server could not listen there, saying why."""
    if not 0 <= port <= 65535:
        raise UserError(f"web_view: port is {port}, expected 1..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: not TIME_WAIT
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(_port_in_use(host, port)) from None
            if error.errno == errno.EACCES:
                raise UserError(f"web_view: no right to open port {port}; choose one above 1023") from None
            raise UserError(
                f"web_view: cannot listen on host '{host}' ({error}); use 127.0.0.1, or 0.0.0.0 for every "
                "network of this machine"
            ) from None


@dataclass
class _Stop:
    """Set by SIGINT and SIGTERM. A plain flag: an Event's lock could be held where the signal strikes."""

    asked: bool = field(default=False)

    def __call__(self, *_: object) -> None:
        self.asked = True


def main(args: list[str] | None = None) -> int:
    """Runs until SIGINT or SIGTERM; returns 0, or 2 after one line about what the user can repair."""
    stop = _Stop()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    spinner = threading.Thread(target=_spin, args=(executor,), name="ros", daemon=True)
    view: WebView | None = None
    try:
        view = WebView()
        executor.add_node(view)
        spinner.start()
        while not stop.asked:
            started = time.monotonic()
            pause = view.tick()
            time.sleep(max(0.0, started + pause - time.monotonic()))
        return 0
    except InvalidParameterTypeException as error:
        print(f"web_view: {error}", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if view is not None:
            view.close()
        executor.shutdown()
        if spinner.is_alive():
            spinner.join(timeout=2.0)
        if view is not None:
            view.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return


if __name__ == "__main__":
    raise SystemExit(main())
