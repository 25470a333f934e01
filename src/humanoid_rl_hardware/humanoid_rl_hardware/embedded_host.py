"""The embedded host: a ROS 2 node in Python between joint commands and the robot's low-level protocol.

=============================  ==========================================================================
/lowstate          in          unitree_hg/LowState, 500 Hz, from the robot or its twin
/lowcmd            out         unitree_hg/LowCmd, 500 Hz while activated
/joint_command     in          humanoid_rl_interfaces/JointCommand at the policy's rate
/joint_states      out         sensor_msgs/JointState for each valid LowState, motor order, activated or not
/imu/data          out         sensor_msgs/Imu, ditto, in the frame of the robot's IMU
/motor_status      out         humanoid_rl_interfaces/MotorStatus, 10 Hz
/host/status       out         humanoid_rl_interfaces/HostStatus, 10 Hz
/diagnostics       out         1 Hz and whenever the state changes
/host/{activate,deactivate,estop,reset}   std_srvs/Trigger
=============================  ==========================================================================

The cycle runs in the main thread at absolute times. It polls its inputs, operator services included, so that
no lock and no other thread stands between an emergency stop and the next LowCmd. A second thread serves the
parameter services and publishes the slow topics from what the cycle left behind.
"""

from __future__ import annotations

import array
import gc
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.real_time import RealTime
from humanoid_rl_core.robot import RobotModel, load_robot
from humanoid_rl_core.unitree_hg_wire import (
    LowCmdWriter,
    LowStateArrays,
    WireError,
    low_state_crc_ok,
    read_low_state,
)
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Imu, JointState
from std_srvs.srv import Trigger

from humanoid_rl_hardware.host_rules import (
    CYCLE_PERIOD,
    SHUTDOWN_CYCLES,
    Damping,
    HostRules,
    HostState,
    Reply,
)
from humanoid_rl_hardware.joint_targets import FIELDS, JointMap, RefusedCommandError
from humanoid_rl_hardware.period_statistics import PeriodStatistics, Schedule
from humanoid_rl_interfaces.msg import HostStatus, JointCommand, MotorStatus
from unitree_hg.msg import LowCmd, LowState

STATE_DEADLINE = 5.0
"""s after activation within which the first LowState is expected; a robot that is on sends 500 a second."""

STATUS_PERIOD = 0.1
DIAGNOSTICS_PERIOD = 1.0
COMPLAINT_PERIOD = 1.0
"""s between two log lines about the same kind of refused message."""

LINGER = 0.1
"""s the publisher outlives its last command. Its goodbye travels on a socket of its own: a receiver that reads
the goodbye first throws away the commands it has not read yet, which a capture of the network showed."""

LATEST_RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATEST_BEST_EFFORT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
# A queue of one would let a refused command push out the valid one that came just before it.
COMMAND_QUEUE = 8
COMMANDS_BEST_EFFORT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=COMMAND_QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT
)


class PolledCallbackGroup(CallbackGroup):
    """Entities no executor ever waits for, because the cycle takes from them itself."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        raise RuntimeError("an executor ran an entity that the host's cycle polls")


def _unused(*_: Any) -> Any:
    """Callback of a polled entity."""
    raise RuntimeError("an executor ran an entity that the host's cycle polls")


def _floats(values: NDArray[np.floating[Any]]) -> array.array[float]:
    """What rclpy copies in one piece into a float64[] field."""
    return array.array("d", np.ascontiguousarray(values, np.float64).tobytes())


class EmbeddedHost(Node):
    """See the module. Parameters (read once, at start):

    - ``robot``, ``variant``: the robot description.
    - ``policy_period``: s, period of the joint commands; three of them without one latch the host (H3).
    - ``state_timeout``: s, age at which LowState counts as lost (H4).
    - ``auto_activate``: activate at start instead of waiting for /host/activate.
    - ``rt_priority``: SCHED_FIFO priority of the cycle's thread, 0 = leave the scheduler alone.
    - ``cpu``: processor to pin the cycle's thread to, -1 = any.
    - ``lock_memory``: keep the memory of the process in RAM.

    :raises UserError: a parameter makes no sense or the robot is unknown.
    """

    def __init__(self) -> None:
        super().__init__("embedded_host")
        name = self._option("robot", "g1")
        variant = self._option("variant", "rev_1_0")
        policy_period = self._option("policy_period", 0.02)
        state_timeout = self._option("state_timeout", 0.05)
        auto_activate = self._option("auto_activate", False)
        self._real_time = RealTime(
            priority=self._option("rt_priority", 0),
            cpu=self._option("cpu", -1),
            lock_memory=self._option("lock_memory", False),
        )
        for parameter, value in (("policy_period", policy_period), ("state_timeout", state_timeout)):
            if not CYCLE_PERIOD <= value <= 1.0:
                raise UserError(f"{parameter} is {value:g} s, expected {CYCLE_PERIOD:g} to 1 s")

        self.robot: RobotModel = load_robot(name, variant)
        self.rules = HostRules(self.robot, policy_period=policy_period, state_timeout=state_timeout)
        self._joint_map = JointMap(self.robot.joint_names)
        self._writer = LowCmdWriter(len(self.robot.joint_names))
        self._period = PeriodStatistics(CYCLE_PERIOD)
        self._schedule = Schedule(CYCLE_PERIOD)
        self._cycles = 0
        self._activated_at = math.nan
        self._last_refusal = ""
        self._complained: dict[str, float] = {}
        self._sending = False
        self._closing = False

        polled = PolledCallbackGroup()
        self._low_state = self.create_subscription(
            LowState, "/lowstate", _unused, LATEST_BEST_EFFORT, callback_group=polled, raw=True
        )
        self._joint_command = self.create_subscription(
            JointCommand, "/joint_command", _unused, COMMANDS_BEST_EFFORT, callback_group=polled
        )
        requests: dict[str, Callable[[float], Reply]] = {
            "/host/estop": lambda now: self.rules.estop(),
            "/host/reset": self.rules.reset,
            "/host/deactivate": lambda now: self.rules.deactivate(),
            "/host/activate": self._activate,
        }
        self._operator_services = [
            (self.create_service(Trigger, topic, _unused, callback_group=polled), handler)
            for topic, handler in requests.items()
        ]
        self._low_cmd = self.create_publisher(LowCmd, "/lowcmd", LATEST_RELIABLE)
        self._joint_states = self.create_publisher(JointState, "/joint_states", LATEST_RELIABLE)
        self._imu = self.create_publisher(Imu, "/imu/data", LATEST_RELIABLE)
        self._motor_status = self.create_publisher(MotorStatus, "/motor_status", 1)
        self._host_status = self.create_publisher(HostStatus, "/host/status", 1)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

        self._joint_state_message = JointState(name=list(self.robot.joint_names))
        self._imu_message = Imu()
        self._imu_message.header.frame_id = self.robot.imu_link

        self._reported: tuple[HostState, str] = (HostState.INACTIVE, "")
        self._diagnostics_time = -math.inf
        self.create_timer(STATUS_PERIOD, self._publish_slow_topics)
        if auto_activate:
            self._activate(time.monotonic())

    def _option(self, name: str, default: Any) -> Any:
        """A parameter that is read once; changing it later is refused by rclpy.

        :raises UserError: its value is of another type than the default.
        """
        try:
            return self.declare_parameter(name, default, ParameterDescriptor(read_only=True)).value
        except InvalidParameterTypeException as error:
            raise UserError(f"parameter {name}: {error}") from error

    # --- the cycle: main thread ------------------------------------------------------------------------

    def run(self, keep_going: Callable[[], bool]) -> None:
        """Cycles until ``keep_going()`` is False, then damps for `SHUTDOWN_TIME` and returns."""
        for refusal in self._real_time.apply():
            self.get_logger().warning(refusal)
        # A garbage collection would stop the cycle for milliseconds. What exists now stays; the little that
        # the slow thread leaves behind is collected there.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._schedule.start(time.monotonic())
        while True:
            time.sleep(self._schedule.next(time.monotonic()))
            self._schedule.begin(time.monotonic())
            if not self._closing and not keep_going():
                self.rules.deactivate()
                self._closing = True
            self._cycle(time.monotonic())
            if self._closing and not self._sending:
                return

    def damp_blindly(self) -> None:
        """Damping cycles without looking at any input: the way out when the cycle itself failed."""
        if not self._sending:
            return
        damping = self._writer.damping(self.rules.mode_machine)
        for _ in range(SHUTDOWN_CYCLES):
            self._low_cmd.publish(damping)
            time.sleep(CYCLE_PERIOD)

    def flush(self) -> None:
        """Gives subscribers time to read the last commands before they hear that the publisher is gone."""
        time.sleep(LINGER)

    def _cycle(self, now: float) -> None:
        state = self._take_state(now)
        self._take_commands(now)
        replies = [] if self._closing else self._take_requests(now)
        output = self.rules.step(now)
        self._sending = output is not None
        if output is not None:
            if isinstance(output, Damping):
                command = self._writer.damping(self.rules.mode_machine)
            else:
                command = self._writer.command(
                    self.rules.mode_machine,
                    output.position,
                    output.velocity,
                    output.effort,
                    output.stiffness,
                    output.damping,
                )
            self._low_cmd.publish(command)
            self._cycles += 1
            self._period.tick(time.monotonic())
        else:
            self._period.pause()
        # Answered after the command went out: who reads "damping" can rely on it.
        for service, header, reply in replies:
            service.send_response(Trigger.Response(success=reply.success, message=reply.message), header)
        if state is not None:
            self._publish_state(state)

    def _take_state(self, now: float) -> LowStateArrays | None:
        """The LowState that arrived since the last cycle, if it is valid."""
        taken = self._low_state.handle.take_message(LowState, True)
        if taken is None:
            return None
        data: bytes = taken[0]
        try:
            state = read_low_state(data, len(self.robot.joint_names))
            refusal = self.rules.receive_state(now, state, low_state_crc_ok(data))
        except WireError as error:
            self.rules.refuse_state()
            refusal = str(error)
        if refusal:
            self._last_refusal = refusal
            self._complain(now, "LowState", refusal)
            return None
        return state

    def _take_commands(self, now: float) -> None:
        """Every joint command since the last cycle, oldest first; the last valid one is followed."""
        for _ in range(COMMAND_QUEUE):
            try:
                taken = self._joint_command.handle.take_message(JointCommand, False)
                if taken is None:
                    return
                message = taken[0]
                values = {field: getattr(message, field) for field in FIELDS}
                self.rules.receive_targets(now, self._joint_map.targets(message.joint_names, values))
            except (RefusedCommandError, RuntimeError) as error:  # RuntimeError: bytes rmw cannot decode
                self.rules.refuse_targets()
                self._complain(now, "joint command", str(error))

    def _take_requests(self, now: float) -> list[tuple[Any, Any, Reply]]:
        """The operator's requests of this cycle with what to answer."""
        replies = []
        for service, handler in self._operator_services:
            request, header = service.handle.service_take_request(Trigger.Request)
            if request is not None:
                replies.append((service, header, handler(now)))
        return replies

    def _activate(self, now: float) -> Reply:
        if not self.rules.activated:
            self._activated_at = now
        return self.rules.activate()

    def _publish_state(self, state: LowStateArrays) -> None:
        stamp = self.get_clock().now().to_msg()
        joints = self._joint_state_message
        joints.header.stamp = stamp
        joints.position = _floats(state.joint_pos)
        joints.velocity = _floats(state.joint_vel)
        joints.effort = _floats(state.joint_effort)
        self._joint_states.publish(joints)

        imu = self._imu_message
        imu.header.stamp = stamp
        q = imu.orientation
        q.w, q.x, q.y, q.z = state.imu_quat.tolist()
        rate = imu.angular_velocity
        rate.x, rate.y, rate.z = state.imu_gyro.tolist()
        acceleration = imu.linear_acceleration
        acceleration.x, acceleration.y, acceleration.z = state.imu_accel.tolist()
        self._imu.publish(imu)

    def _complain(self, now: float, kind: str, reason: str) -> None:
        if now - self._complained.get(kind, -math.inf) > COMPLAINT_PERIOD:
            self._complained[kind] = now
            self.get_logger().error(f"{kind} refused: {reason}")

    # --- slow topics: the executor's thread ------------------------------------------------------------

    def _publish_slow_topics(self) -> None:
        now = time.monotonic()
        rules = self.rules
        state, cause, low_state = rules.state, rules.cause, rules.low_state
        stamp = self.get_clock().now().to_msg()
        errors = self._period.errors()

        status = HostStatus(
            state=int(state),
            cause=cause,
            mode_machine=rules.mode_machine,
            cycles=self._cycles,
            rejected_commands=rules.rejected_commands,
            rejected_states=rules.rejected_states,
            period=CYCLE_PERIOD,
            period_error_p50=errors.p50,
            period_error_p99=errors.p99,
            period_error_max=errors.max,
            low_state_age=rules.state_age(now),
            deadline_misses=self._schedule.misses,
        )
        status.header.stamp = stamp
        self._host_status.publish(status)

        if low_state is not None:
            motors = MotorStatus(
                joint_names=list(self.robot.joint_names),
                winding_temperature=low_state.winding_temperature.tolist(),
                casing_temperature=low_state.casing_temperature.tolist(),
                voltage=low_state.voltage.tolist(),
            )
            motors.header.stamp = stamp
            self._motor_status.publish(motors)

        level, message = self._judgement(now, state, cause)
        if (state, message) != self._reported:
            if level == DiagnosticStatus.ERROR:
                self.get_logger().error(message)
            else:
                self.get_logger().info(message)
        elif now - self._diagnostics_time < DIAGNOSTICS_PERIOD:
            return
        self._reported = (state, message)
        self._diagnostics_time = now
        self._publish_diagnostics(stamp, level, message, status)
        gc.collect(1)

    def _judgement(self, now: float, state: HostState, cause: str) -> tuple[bytes, str]:
        """Level and one line for diagnostics and log."""
        if state == HostState.DAMPING:
            level = DiagnosticStatus.WARN if cause == "deactivating" else DiagnosticStatus.ERROR
            return level, f"damping: {cause}"
        if state == HostState.WAITING_STATE:
            if now - self._activated_at <= STATE_DEADLINE:
                return DiagnosticStatus.WARN, "waiting for the first LowState"
            reason = (
                f"every one is refused: {self._last_refusal}"
                if self._last_refusal
                else "none arrives on /lowstate; is the robot on, the network interface right?"
            )
            return (
                DiagnosticStatus.ERROR,
                f"no valid LowState within {STATE_DEADLINE:.0f} s of activation: {reason}",
            )
        commanders = self.count_publishers("/lowcmd")
        if commanders > 1:
            return (
                DiagnosticStatus.WARN,
                f"{commanders} nodes publish /lowcmd, one alone may",
            )
        return DiagnosticStatus.OK, {
            HostState.INACTIVE: "inactive",
            HostState.READY: "ready: damping until the first joint command",
            HostState.ACTIVE: "active: following joint commands",
        }[state]

    def _publish_diagnostics(self, stamp: Any, level: bytes, message: str, status: HostStatus) -> None:
        values: dict[str, float | int] = {
            "mode_machine": status.mode_machine,
            "cycles": status.cycles,
            "deadline misses": status.deadline_misses,
            "rejected joint commands": status.rejected_commands,
            "rejected LowStates": status.rejected_states,
            "LowState age [ms]": round(1e3 * status.low_state_age, 1),
            "period error p50 [us]": round(1e6 * status.period_error_p50, 1),
            "period error p99 [us]": round(1e6 * status.period_error_p99, 1),
            "period error max [us]": round(1e6 * status.period_error_max, 1),
        }
        diagnostic = DiagnosticStatus(
            level=level,
            name="embedded_host: robot link",
            hardware_id=f"{self.robot.name} {self.robot.variant}",
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message_array = DiagnosticArray(status=[diagnostic])
        message_array.header.stamp = stamp
        self._diagnostics.publish(message_array)


def main(args: list[str] | None = None) -> int:
    """Runs the host until SIGINT or SIGTERM.

    :returns: 0 after an orderly stop, 1 when the host failed (after damping), 2 on a user's mistake.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    host: EmbeddedHost | None = None
    try:
        # rclpy's own handlers would invalidate the publishers before the damping commands are out.
        keep_off_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier())
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        host = EmbeddedHost()
    except (UserError, RuntimeError) as error:  # RuntimeError: rcl refuses an argument or the DDS domain
        print(f"embedded_host: {str(error).splitlines()[0]}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        return _run(host, stop)
    finally:
        host.destroy_node()
        rclpy.try_shutdown()


def _run(host: EmbeddedHost, stop: threading.Event) -> int:
    """The cycle in this thread, the slow topics in another; damping whatever ends them."""
    executor = SingleThreadedExecutor()
    executor.add_node(host)
    slow = threading.Thread(target=executor.spin, name="slow_topics", daemon=True)
    # The cycle waits at most this long for the interpreter when the slow thread holds it (default 5 ms).
    sys.setswitchinterval(CYCLE_PERIOD / 10)
    try:
        slow.start()
        host.run(lambda: slow.is_alive() and not stop.is_set())
        if not slow.is_alive():
            host.get_logger().fatal("the slow topics' thread died; stopped after damping")
            return 1
        return 0
    except Exception as error:
        host.damp_blindly()
        host.get_logger().fatal(
            f"stopped after damping: {error!r} at {traceback.extract_tb(error.__traceback__)[-1]}"
        )
        return 1
    finally:
        host.flush()
        executor.shutdown()
        slow.join(timeout=1.0)


if __name__ == "__main__":
    sys.exit(main())
