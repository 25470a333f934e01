"""The operator's side of a deployment, for programs: services called with a deadline, and states awaited.

Needs rclpy and the workspace's messages.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import rclpy
from humanoid_rl_core.errors import UserError
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger

from humanoid_rl_interfaces.msg import PolicyStatus
from humanoid_rl_interfaces.srv import InjectFault, Push

SERVICE_TIMEOUT = 10.0
STANDING_TIMEOUT = 20.0
BRING_UP_TIMEOUT = 60.0


def polled_qos(depth: int = 1) -> QoSProfile:
    """Best effort, the newest `depth` samples: fits every publisher of the workspace."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


class Polled:
    """A subscription whose messages are taken when wanted; no executor runs it.

    At 500 Hz a callback a message would cost more than everything else here.
    """

    def __init__(self, node: Node, message_type: type, topic: str, depth: int = 1) -> None:
        self._subscription = node.create_subscription(
            message_type, topic, lambda message: None, polled_qos(depth)
        )

    def take_all(self) -> list[Any]:
        """What came since the last call, oldest first, at most `depth` messages."""
        taken = []
        with self._subscription.handle:
            while (
                item := self._subscription.handle.take_message(self._subscription.msg_type, False)
            ) is not None:
                taken.append(item[0])
        return taken


class Operator:
    """Calls the services of a running deployment. A context manager.

    Args:
        name: name of its node.

    While it waits it calls `while_waiting`, which may raise when waiting has become pointless. The node for
    polled subscriptions is `observer`; nothing spins it.
    """

    def __init__(self, name: str = "operator") -> None:
        self.while_waiting: Callable[[], None] = lambda: None
        self.context = Context()
        rclpy.init(args=[], context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(name, context=self.context, start_parameter_services=False)
        self.observer = rclpy.create_node(
            f"{name}_observer", context=self.context, start_parameter_services=False
        )
        self._status = Polled(self.observer, PolicyStatus, "/policy/status")
        self._last_status: PolicyStatus | None = None
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        rclpy.shutdown(context=self.context)
        self._thread.join(timeout=2.0)
        self._node.destroy_node()
        self.observer.destroy_node()

    def call(self, service_type: type, name: str, request: Any, timeout: float = SERVICE_TIMEOUT) -> Any:
        """Call a service and return its response.

        Raises:
            UserError: the service is not there or does not answer in time.
        """
        client = self._node.create_client(service_type, name)
        try:
            deadline = time.monotonic() + timeout
            while not client.service_is_ready():
                self._wait(deadline, f"service {name} did not appear in {timeout:g} s")
            future = client.call_async(request)
            while not future.done():
                self._wait(deadline, f"service {name} did not answer in {timeout:g} s", 0.005)
            return future.result()
        finally:
            self._node.destroy_client(client)

    def trigger(self, name: str, timeout: float = SERVICE_TIMEOUT) -> str:
        """Call a std_srvs/Trigger and return its message.

        Raises:
            UserError: as `call`, and when the service says no; the line carries its reason.
        """
        response = self.call(Trigger, name, Trigger.Request(), timeout)
        return self._accepted(name, response)

    def stand(self) -> None:
        """/policy/stand, asked again while sensors are still to come, and wait until the robot stands."""
        deadline = time.monotonic() + SERVICE_TIMEOUT
        while True:
            try:
                self.trigger("/policy/stand", BRING_UP_TIMEOUT)
                break
            except UserError as error:
                self._wait(deadline, str(error), 0.2)
        self.wait_for(
            lambda status: status.state == PolicyStatus.STANDING and status.standing_complete,
            "the robot did not get to its standing pose",
            STANDING_TIMEOUT,
        )

    def start(self) -> None:
        """/policy/start, and wait until the policy runs."""
        self.trigger("/policy/start")
        self.wait_for(lambda status: status.state == PolicyStatus.RUNNING, "the policy did not start")

    def push(self, vx: float, vy: float) -> None:
        """Push the twin: m/s added to its base at once, world frame."""
        request = Push.Request()
        request.velocity.x, request.velocity.y = float(vx), float(vy)
        self._accepted("/twin/push", self.call(Push, "/twin/push", request))

    def hoist(self, up: bool) -> None:
        """Lift the twin, or set it down."""
        self._accepted("/twin/hoist", self.call(SetBool, "/twin/hoist", SetBool.Request(data=up)))

    def inject(self, fault: str, *, joint: str = "", value: float = 0.0, duration: float = 0.0) -> None:
        """Break the twin on purpose; see InjectFault.srv."""
        request = InjectFault.Request(fault=fault, joint=joint, value=float(value), duration=float(duration))
        self._accepted("/twin/inject_fault", self.call(InjectFault, "/twin/inject_fault", request))

    def status(self) -> PolicyStatus | None:
        """The newest /policy/status, None before the first."""
        for message in self._status.take_all():
            self._last_status = message
        return self._last_status

    def wait_for(
        self, reached: Callable[[PolicyStatus], bool], otherwise: str, timeout: float = SERVICE_TIMEOUT
    ) -> PolicyStatus:
        """Wait for a policy status.

        Raises:
            UserError: not within the timeout, or the policy node is in FAULT and not expected to be.
        """
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if status is not None and reached(status):
                return status
            if status is not None and status.state == PolicyStatus.FAULT:
                raise UserError(f"{otherwise}: the policy node is in FAULT: {status.cause}")
            self._wait(deadline, f"{otherwise} within {timeout:g} s")

    def wait_until(
        self, reached: Callable[[], bool], otherwise: str, timeout: float = SERVICE_TIMEOUT
    ) -> None:
        """Wait for anything. Raises UserError with `otherwise` when it does not come within the timeout."""
        deadline = time.monotonic() + timeout
        while not reached():
            self._wait(deadline, f"{otherwise} within {timeout:g} s")

    def _wait(self, deadline: float, message: str, pause: float = 0.02) -> None:
        self.while_waiting()
        if time.monotonic() > deadline:
            raise UserError(message)
        time.sleep(pause)

    @staticmethod
    def _accepted(name: str, response: Any) -> str:
        if not response.success:
            raise UserError(f"{name} was refused: {response.message}")
        return str(response.message)
