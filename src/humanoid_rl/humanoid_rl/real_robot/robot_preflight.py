"""The preflight of a real robot, as a program: everything between `ros2 launch` and the first node that commands.

    python -m humanoid_rl.real_robot.robot_preflight --robot g1 --variant rev_1_0 --where "eth0, domain 0" \\
        --mode-machine 5

1. Is there a way to ask the operator: a terminal, or --confirm.
2. No twin and no other deployment on this machine and in the domain.
3. LowState, battery, other commanders: listened to, nothing said.
4. CheckMode of the motion switcher.
5. The operator is told what is going to happen, and types the word.
6. LowState once more, since that may have taken minutes; then ReleaseMode until CheckMode says that none is active.
7. Nobody else's LowCmd comes, and the limp robot is at rest.

Exit code 0: the nodes may start. 2: refused, the last line on stderr says why. 130: interrupted. Nothing is ever
published on /lowcmd from here. What is checked stands in robot_checks; this is its ROS side.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import RobotModel, load_robot, variants_of
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from humanoid_rl.launching.preflight import DISCOVERY_TIME
from humanoid_rl.real_robot import robot_checks as checks
from humanoid_rl.real_robot.preflight_config import (
    PreflightConfig,
    load_preflight_config,
    preflight_config_of,
)
from humanoid_rl.real_robot.robot_checks import Answer, Process, StateWindow
from unitree_api.msg import Request, Response
from unitree_hg.msg import BmsState, LowCmd, LowState

NAME = "robot_preflight"
REFUSED = 2
POLL = 0.002  # s, the robot's cycle
TERMINAL = "/dev/tty"
# Two seconds of LowState: a poll that comes late loses none.
STATE_QUEUE = 1000
RELEASED = "; the onboard controller has been RELEASED, the robot is limp: leave it on its hoist"


def _qos(depth: int, reliability: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability)


@dataclass
class Heard:
    """What came while listening: LowStates with their times (s, monotonic), and the number of LowCmds."""

    times: list[float]
    states: list[bytes]
    commands: int = 0


class RobotLink:
    """Ears in the robot's domain, and the motion switcher's client. A context manager."""

    def __init__(self) -> None:
        keep_off_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier())
        self._context = Context()
        try:
            rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
            self._node = rclpy.create_node(NAME, context=self._context, start_parameter_services=False)
        except Exception as error:  # rmw raises its own for a middleware that does not start
            self._context.try_shutdown()
            raise UserError(f"ROS 2 cannot join the robot's domain: {str(error).splitlines()[0]}") from None
        node: Node = self._node
        self._joined = time.monotonic()
        best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
        self._state = node.create_subscription(
            LowState, "/lowstate", _unused, _qos(STATE_QUEUE, best_effort), raw=True
        )
        self._command = node.create_subscription(
            LowCmd, "/lowcmd", _unused, _qos(STATE_QUEUE, best_effort), raw=True
        )
        self._battery = node.create_subscription(BmsState, "/lf/bmsstate", _unused, _qos(1, best_effort))
        self._response = node.create_subscription(
            Response, checks.MOTION_SWITCHER_RESPONSE, _unused, _qos(10, reliable)
        )
        self._request = node.create_publisher(Request, checks.MOTION_SWITCHER_REQUEST, _qos(1, reliable))
        self.state_of_charge: int | None = None

    def __enter__(self) -> RobotLink:
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_node()
        self._context.try_shutdown()

    def listen(self, seconds: float) -> Heard:
        """Everything that arrives in that time; what was queued before is thrown away."""
        for subscription in (self._state, self._command):
            for _ in _taken(subscription, True):
                pass
        heard = Heard([], [])
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._hear(heard, now)
            time.sleep(POLL)
        return heard

    def _hear(self, heard: Heard, now: float) -> None:
        for state in _taken(self._state, True):
            heard.times.append(now)
            heard.states.append(state)
        heard.commands += sum(1 for _ in _taken(self._command, True))
        for battery in _taken(self._battery, False):
            self.state_of_charge = int(battery.soc)

    def wait(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Whether it came true within the time since the node was made."""
        while not reached():
            if time.monotonic() - self._joined > seconds:
                return False
            self._hear(Heard([], []), 0.0)
            time.sleep(POLL)
        return True

    def first_state(self, seconds: float) -> bool:
        """Whether a LowState comes within that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in _taken(self._state, True):
                return True
            time.sleep(POLL)
        return False

    def node_names(self) -> list[str]:
        """Of every node in the domain."""
        return [str(name) for name in self._node.get_node_names()]

    def publishers(self, topic: str, message: type) -> list[str]:
        """The node of each publisher of that type; a name with an underscore in front is no ROS node's.

        The robots of this vendor share topic names: endpoints of unitree_go on the same topic are none of ours.
        """
        wanted = f"{message.__module__.partition('.')[0]}/msg/{message.__name__}"
        found = self._node.get_publishers_info_by_topic(topic)
        return [str(info.node_name) for info in found if info.topic_type == wanted]

    def ask_motion_switcher(self, api_id: int, timeout: float) -> Answer | None:
        """One request and its answer; None when none comes within the timeout (s)."""
        deadline = time.monotonic() + timeout
        # A request that is sent before both ends have found each other reaches nobody.
        while not (
            self._node.count_subscribers(checks.MOTION_SWITCHER_REQUEST)
            and self._node.count_publishers(checks.MOTION_SWITCHER_RESPONSE)
        ):
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL)
        request = Request(parameter=checks.NO_PARAMETER)
        request.header.identity.id = time.monotonic_ns()
        request.header.identity.api_id = api_id
        self._request.publish(request)
        while time.monotonic() < deadline:
            for response in _taken(self._response, False):
                if response.header.identity == request.header.identity:
                    return Answer(int(response.header.status.code), str(response.data))
            time.sleep(POLL)
        return None


def _unused(_: Any) -> None:
    raise RuntimeError("an executor ran a subscription that is polled")


def _taken(subscription: Any, raw: bool) -> Iterator[Any]:
    with subscription.handle:
        while (item := subscription.handle.take_message(subscription.msg_type, raw)) is not None:
            yield item[0]


def running_processes() -> Iterator[Process]:
    """The programs of this machine, as far as /proc shows them."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().rstrip(b"\0").split(b"\0")
            yield Process(int(entry.parent.name), tuple(word.decode(errors="replace") for word in words))


class Terminal:
    """The terminal that this program was started from.

    Not stdin: under launch that is nobody's keyboard, and a word in a pipe is no operator's.

    Raises:
        OSError: there is none, or this program is in its background and cannot read from it.
    """

    def __init__(self, path: str = TERMINAL) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
        if os.tcgetpgrp(self._descriptor) != os.getpgrp():
            os.close(self._descriptor)
            raise OSError("in the background of the terminal")

    def ask(self, text: str) -> str:
        """The line typed in answer, without blanks around it; what was typed before the question does not count."""
        termios.tcflush(self._descriptor, termios.TCIFLUSH)
        os.write(self._descriptor, text.encode())
        answer = b""
        while not answer.endswith(b"\n") and (typed := os.read(self._descriptor, 1024)):
            answer += typed
        return answer.decode(errors="replace").strip()

    def close(self) -> None:
        """Leave it to the others."""
        os.close(self._descriptor)


def open_terminal() -> Terminal | None:
    """The terminal, None where there is none to type on."""
    try:
        return Terminal()
    except OSError:
        return None


class Checklist:
    """Runs checks, shows what each found, and keeps what was refused."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self.refusals: list[str] = []

    def run(self, subject: str, check: Callable[[], str]) -> bool:
        """Whether it holds."""
        try:
            self._show(f"  ok  {subject}: {check()}")
        except UserError as error:
            self._show(f"  NO  {subject}: {error}")
            self.refusals.append(str(error))
            return False
        return True

    def conclude(self) -> None:
        """Raises UserError with the first refusal when there was one."""
        if self.refusals:
            more = len(self.refusals) - 1
            raise UserError(self.refusals[0] + (f" (and {more} more, see the list above)" if more else ""))


@dataclass(frozen=True)
class Preflight:
    """One preflight of one robot.

    Args:
        robot: description in the chosen variant.
        allowed: mode_machine of the policy's contract.
        config: thresholds.
        where: interface and domain, for messages.
        confirm: the operator's word, "" to ask for it on the terminal.
        show: takes the lines for the operator.
    """

    robot: RobotModel
    allowed: tuple[int, ...]
    config: PreflightConfig
    where: str
    confirm: str
    show: Callable[[str], None]

    def run(self) -> None:
        """Every step of the module's list.

        Raises:
            UserError: refused.
        """
        checks.check_confirm(self.confirm)
        terminal = None if self.confirm else open_terminal()
        if not self.confirm and terminal is None:
            raise UserError(
                "robot:=real asks the operator before it does anything, and there is no terminal to ask on: start it "
                f"from one, or give confirm:={checks.CONFIRM_WORD}, which says that the robot hangs from its hoist"
            )
        alone = Checklist(self.show)
        alone.run("this machine", lambda: checks.check_processes(running_processes()))
        alone.conclude()
        with RobotLink() as link:
            mode = self._look(link)
            self._ask_operator(terminal, mode)
            self._check_again(link)
            self._release(link)
            self._check_released(link)

    def _switcher(self, link: RobotLink) -> Callable[[int], Answer | None]:
        return lambda api_id: link.ask_motion_switcher(api_id, self.config.motion_switcher.timeout)

    def _look(self, link: RobotLink) -> str:
        """Steps 2 to 4. Returns the onboard controller's mode."""
        config, todo = self.config, Checklist(self.show)
        link.first_state(config.link.first_state)
        link.wait(lambda: False, DISCOVERY_TIME)  # by then everybody has been found
        if config.battery.required:
            link.wait(lambda: link.state_of_charge is not None, config.battery.timeout)
        heard = link.listen(config.link.window)
        todo.run("domain", lambda: checks.check_nodes(link.node_names(), NAME))
        todo.run(
            "publishers of /lowstate",
            lambda: checks.check_state_publishers(link.publishers("/lowstate", LowState)),
        )
        self._check_state(todo, heard)
        todo.run("battery", lambda: checks.check_battery(link.state_of_charge, config.battery))
        mode = ""

        def onboard_controller() -> str:
            nonlocal mode
            mode = checks.asked_mode(self._switcher(link), config.motion_switcher)
            return f"active in mode '{mode}'" if mode else "not active"

        # Whose LowCmd it is can only be told once the onboard controller has been asked.
        if not heard.states:
            self.show("  --  onboard controller: not asked, there is no robot")
        elif todo.run("onboard controller", onboard_controller):
            publishers = link.publishers("/lowcmd", LowCmd)
            todo.run("commanders", lambda: checks.check_commanders(publishers, heard.commands, mode))
        todo.conclude()
        return mode

    def _check_state(self, todo: Checklist, heard: Heard) -> None:
        window = checks.state_window(heard.times, heard.states, self.robot.joint_count)
        if todo.run("LowState", lambda: checks.check_link(window, self.config.link, self.where)):
            self._check_body(todo, window)

    def _check_body(self, todo: Checklist, window: StateWindow) -> None:
        state, config, robot = window.state, self.config, self.robot
        assert state is not None
        variants = variants_of(robot.name)
        todo.run(
            "mode_machine", lambda: checks.check_machine(state.mode_machine, robot, self.allowed, variants)
        )
        todo.run("IMU", lambda: checks.check_imu(state, config.imu))
        todo.run("joints", lambda: checks.check_joints(state, robot, config.joints))
        todo.run("motors", lambda: checks.check_motors(state, window.motor_flags, robot, config.motors))

    def _ask_operator(self, terminal: Terminal | None, mode: str) -> None:
        text = checks.confirmation_text(self.robot.name.upper(), self.where, mode)
        if terminal is None:
            self.show(f"{text}{self.confirm} (confirm:=)")
            return
        try:
            word = terminal.ask(f"\n{text}")
        finally:
            terminal.close()
        if word != checks.CONFIRM_WORD:
            raise UserError(
                f"the operator did not confirm ('{word[:40]}' is not '{checks.CONFIRM_WORD}'): nothing was done to "
                "the robot"
            )

    def _check_again(self, link: RobotLink) -> None:
        """The robot is as it was before the operator read and typed."""
        again = Checklist(lambda line: None)
        self._check_state(again, link.listen(self.config.link.window))
        again.run("domain", lambda: checks.check_nodes(link.node_names(), NAME))
        again.conclude()

    def _release(self, link: RobotLink) -> None:
        released = checks.release_onboard_controller(
            self._switcher(link), time.sleep, self.config.motion_switcher
        )
        for mode in released:
            self.show(f"  ok  onboard controller: mode '{mode}' released, the robot is limp")

    def _check_released(self, link: RobotLink) -> None:
        """Nobody commands, and the robot has come to rest; what moves or speaks is given time."""
        limits = self.config.released
        deadline = time.monotonic() + limits.timeout
        while True:
            todo = Checklist(lambda line: None)
            heard = link.listen(max(limits.quiet, self.config.link.window))
            publishers = link.publishers("/lowcmd", LowCmd)
            todo.run("commanders", lambda: checks.check_commanders(publishers, heard.commands, ""))  # noqa: B023
            self._check_state(todo, heard)
            if not todo.refusals:
                self.show("  ok  released: nobody commands, the robot is at rest")
                return
            if time.monotonic() > deadline:
                raise UserError(todo.refusals[0] + RELEASED)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--robot", default="g1")
    parser.add_argument("--variant", default="rev_1_0")
    parser.add_argument("--where", required=True, help="interface and domain, for messages")
    parser.add_argument(
        "--mode-machine", type=int, nargs="+", required=True, help="that the policy may drive"
    )
    parser.add_argument("--config", default="", help="thresholds (default: config/preflight/<robot>.yaml)")
    parser.add_argument(
        "--confirm", default="", help="the operator's word, instead of asking on the terminal"
    )
    options = parser.parse_args(arguments)
    try:
        Preflight(
            robot=load_robot(options.robot, options.variant),
            allowed=tuple(options.mode_machine),
            config=load_preflight_config(options.config)
            if options.config
            else preflight_config_of(options.robot),
            where=options.where,
            confirm=options.confirm,
            show=lambda line: print(line, flush=True),
        ).run()
    except UserError as error:
        print(f"{error}", file=sys.stderr, flush=True)
        return REFUSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
