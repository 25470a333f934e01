"""One host, one fake robot, one commander and one operator: what a conformance test acts with."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from humanoid_rl_core.robot import RobotModel
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from humanoid_rl_interfaces.msg import HostStatus

from .commander import POLICY_PERIOD, Commander, standing_command
from .fake_robot import FakeRobot, SentCommand
from .hosts import HostProcess

CYCLE = 0.002
COMMAND_TIMEOUT = 0.060
STATE_TIMEOUT = 0.050
REQUESTS = ("activate", "deactivate", "estop", "reset")
PATIENCE = 20.0
"""s to wait for what must happen at all but has no deadline, such as a process coming up."""

PUNCTUALITY = 0.010
"""s: how late a host's reaction may be on the wire; five cycles."""

ATTEMPTS = 8
"""Tries to see a host react on time, on a machine that may be busy with other things."""

STALL = 0.030
"""s: a gap in what the tests or the host send that could latch a faultless host."""

Test = TypeVar("Test", bound=Callable[..., None])


def unless_stalled(test: Test) -> Test:
    """Repeats a failed test when the machine kept the tests or the host from running in time.

    Rules H3 and H4 latch on 60 and 50 ms of silence. A busy machine can keep either process off the processor
    for that long; the host is then right to latch, and the test has shown nothing.
    """

    @functools.wraps(test)
    def repeated(bench: Bench, **arguments: Any) -> None:
        for attempts_left in reversed(range(ATTEMPTS)):
            bench.restore()
            try:
                return test(bench, **arguments)
            except AssertionError:
                if not attempts_left or not bench.stalled:
                    raise

    return repeated  # type: ignore[return-value]


def wait_for(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Returns as soon as ``condition()`` holds. :raises AssertionError: it does not within ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(CYCLE)


def longest_silence(commands: Sequence[SentCommand]) -> float:
    """s between two commands in succession."""
    return max((b.time - a.time for a, b in pairwise(commands)), default=0.0)


def final_damping(commands: Sequence[SentCommand]) -> float:
    """s for which damping, and nothing else, was the last thing sent; 0 when it was not."""
    begin = None
    for command in reversed(commands):
        if not command.damping:
            break
        begin = command.time
    return 0.0 if begin is None else commands[-1].time - begin


def sent_at(status: HostStatus) -> float:
    """s since the epoch."""
    return float(status.header.stamp.sec + 1e-9 * status.header.stamp.nanosec)


class Bench:
    """See the module.

    :param start_host: starts the host under test.
    """

    def __init__(self, context: Context, robot: RobotModel, start_host: Callable[[], HostProcess]) -> None:
        self.robot = robot
        self._wire_node = rclpy.create_node("fake_robot", context=context)
        self._operator = rclpy.create_node("operator", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._operator)
        self.wire = FakeRobot(self._wire_node, robot)
        self.commander = Commander(self._wire_node, robot)
        self._clients = {name: self._operator.create_client(Trigger, f"/host/{name}") for name in REQUESTS}
        self._status: HostStatus | None = None
        self._diagnostics: list[DiagnosticStatus] = []
        self._operator.create_subscription(HostStatus, "/host/status", self._on_status, 10)
        self._operator.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.host = start_host()
        try:
            wait_for(self._connected, "host reachable")
        except AssertionError as error:
            error.add_note(self.host.output)
            self.close()
            raise

    def close(self) -> None:
        self.host.kill()
        self.commander.stop()
        self.wire.close()
        self._executor.shutdown()
        self._operator.destroy_node()
        self._wire_node.destroy_node()

    # --- the operator ---

    def request(self, name: str) -> Any:
        """Calls /host/<name>; its Trigger response."""
        future = self._clients[name].call_async(Trigger.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=PATIENCE)
        assert future.done(), f"/host/{name} did not answer"
        return future.result()

    def status(self) -> HostStatus:
        """A HostStatus published after this call."""
        asked = time.time()
        self._spin_until(lambda: self._status is not None and sent_at(self._status) > asked, "a HostStatus")
        assert self._status is not None
        return self._status

    def assert_active(self) -> None:
        """The host follows commands, as it says itself."""
        status = self.status()
        assert status.state == HostStatus.ACTIVE, f"state {status.state}: {status.cause}; {self._gaps}"

    def wait_for_state(self, state: int) -> HostStatus:
        """The first HostStatus with this state."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.status()).state != state:
            assert time.monotonic() < deadline, f"state {status.state} ({status.cause}), expected {state}"
        return status

    def wait_for_error(self, text: str) -> None:
        """Until diagnostics report an error that contains ``text``."""
        self._diagnostics.clear()
        self._spin_until(
            lambda: any(
                entry.level == DiagnosticStatus.ERROR and text in entry.message for entry in self._diagnostics
            ),
            f"a diagnostic error with '{text}'",
        )

    # --- acts the tests share ---

    def restore(self) -> None:
        """A healthy robot at its default pose, no commander, an inactive host without a latch."""
        self.commander.stop()
        self.commander.message = standing_command(self.robot)
        self.wire.set_fault("")
        self.wire.set_joints(self.robot.default_position, 0.0 * self.robot.default_position)
        self.request("deactivate")
        self.request("reset")
        self.wait_for_state(HostStatus.INACTIVE)
        self.wire.forget()

    def activate(self) -> None:
        """Activates and waits for the damping that precedes the first joint command."""
        response = self.request("activate")
        assert response.success, response.message
        wait_for(lambda: bool(self.wire.commands()), "a LowCmd after activation")

    def follow(self) -> None:
        """Activates and commands until the host follows."""
        self.activate()
        self.commander.start()
        self.wait_until_followed()

    def wait_until_followed(self, since: float = 0.0) -> None:
        """Until the host has followed a joint command after ``since``, s since the epoch.

        :raises AssertionError: it latched before it did.
        """

        def followed() -> bool:
            if any(not command.damping for command in self.wire.commands(since)):
                return True
            self._executor.spin_once(timeout_sec=0.0)
            status = self._status
            latched = status is not None and sent_at(status) > asked and status.state == HostStatus.DAMPING
            assert not latched, f"latched instead of following: {status}; {self._gaps}"
            return False

        asked = time.time()
        wait_for(followed, "following joint commands")

    def pause(self, duration: float) -> None:
        """Lets robot and host run for ``duration`` s."""
        time.sleep(duration)

    def assert_damping_after(self, inject: Callable[[], float], timeout: float) -> None:
        """Damping begins ``timeout`` s after a fault of a host that follows commands, and never ends.

        A host that the machine kept from running sent nothing meanwhile and may have missed the last message
        before the fault, so the longest silence on the wire is allowed on either side. At least one of
        `ATTEMPTS` must be on time without that allowance.

        :param inject: brings the fault about; returns when, s since the epoch.
        """
        delays = []
        for attempt in range(ATTEMPTS):
            if attempt:
                self.restore()
            self.follow()
            self.pause(0.1)
            delays.append(self._delay_of_damping(inject(), timeout))
            if timeout - 2 * CYCLE < delays[-1] < timeout + PUNCTUALITY:
                return
        raise AssertionError(f"damping {[round(1e3 * delay, 1) for delay in delays]} ms after the faults")

    def _delay_of_damping(self, fault: float, timeout: float) -> float:
        wait_for(lambda: bool(self._damping_since(fault)), "damping", timeout=timeout + 5.0)
        self.pause(0.1)
        silence = longest_silence(self.wire.commands(fault - 5 * CYCLE))
        begin = self._damping_since(fault)[0].time
        assert timeout - 2 * CYCLE - silence < begin - fault < timeout + PUNCTUALITY + 3 * silence, (
            f"damping {1e3 * (begin - fault):.1f} ms after the fault, silent for {1e3 * silence:.1f} ms"
        )
        after = self.wire.commands(begin)
        assert after, "damping was sent once and not repeated"
        assert all(command.damping for command in after)
        return begin - fault

    def assert_latched(self, cause: str) -> None:
        """Valid states and commands change nothing: damping every cycle, with a cause, until reset."""
        self.wire.set_fault("")
        self.commander.stop()
        self.commander.start()
        self.pause(0.05)
        begin = time.time()
        self.pause(0.3)
        commands = self.wire.commands(begin)
        assert all(command.damping for command in commands)
        # Every cycle; the half leaves room for a machine that has other things to do.
        assert len(commands) > 0.5 * 0.3 / CYCLE
        status = self.wait_for_state(HostStatus.DAMPING)
        assert cause in status.cause
        self.commander.stop()
        assert self.request("reset").success
        self.wait_for_state(HostStatus.READY)
        self.commander.start()
        self.wait_until_followed(since=time.time())

    @property
    def stalled(self) -> bool:
        """Whether tests or host may have been kept from running long enough to latch a faultless host.

        A gap in what they sent shows it. The middleware's own threads wait for a processor too, unseen; more
        processes that want to run than there are processors is taken as a sign of that.
        """
        return max(self._gaps.values()) > STALL or os.getloadavg()[0] > (os.cpu_count() or 1)

    @property
    def _gaps(self) -> dict[str, float]:
        """s that each party was late by, at most, since `restore`."""
        return {
            "robot": self.wire.widest_gap,
            "commander": self.commander.widest_gap - POLICY_PERIOD,
            "host": longest_silence(self.wire.commands()),
        }

    def _damping_since(self, fault: float) -> list[SentCommand]:
        return [command for command in self.wire.commands(fault) if command.damping]

    def _connected(self) -> bool:
        assert self.host.running, "the host ended by itself"
        return (
            self.wire.connected
            and self.commander.connected
            and all(client.service_is_ready() for client in self._clients.values())
        )

    def _spin_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
            self._executor.spin_once(timeout_sec=0.05)

    def _on_status(self, message: HostStatus) -> None:
        self._status = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._diagnostics += message.status
