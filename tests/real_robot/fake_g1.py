"""A process that is on the network what a G1 is: the vendor's topics, its motion switcher, its battery; nothing else.

    python fake_g1.py [--soc 87] [--mode ai] [--releases 1] ...

It shares the physics with the twin and nothing above it: no node called robot_twin, no /twin services, no topic or
service of this workspace. Its node's name begins with an underscore, as the names of programs do that are no ROS nodes.
Orders come as words on stdin (`press B`, `press`, `fault drop_state`), its state goes as JSON to stdout twice a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from humanoid_rl_core.robot import load_robot
from humanoid_rl_core.unitree_hg_wire import LowCmdWriter
from humanoid_rl_core.wireless_remote import RemoteState, encode_remote
from humanoid_rl_sim.twin.virtual_g1 import VirtualG1
from rclpy.qos import QoSProfile, ReliabilityPolicy

from humanoid_rl_core import rotation
from unitree_api.msg import Request, Response
from unitree_hg.msg import BmsState, LowCmd, LowState

CHECK_MODE, RELEASE_MODE = 1001, 1003
BUSY = 7002
RELIABLE = QoSProfile(depth=1)
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
BATTERY_CYCLES = 250
COME_TO_REST = 3.0  # s, the robot's time; done before it says a word
REPORT_CYCLES = 250


class MotionSwitcher:
    """Answers CheckMode and ReleaseMode as the robot's does."""

    def __init__(self, mode: str, releases: int, stuck: bool) -> None:
        self.mode, self._releases, self._stuck = mode, releases, stuck
        self.asked: list[int] = []

    def answer(self, api_id: int) -> tuple[int, str]:
        """Status code and JSON."""
        self.asked.append(api_id)
        if api_id == CHECK_MODE:
            return 0, json.dumps({"form": "0", "name": self.mode})
        if self._stuck:
            return BUSY, ""
        self._releases -= 1
        if self._releases <= 0:
            self.mode = ""
        return 0, ""


class StillG1(VirtualG1):
    """One that has come to rest on its hoist and then costs next to nothing: for what is refused before it moves."""

    def _step(self) -> None:
        if self.time < COME_TO_REST:
            super()._step()


def taken(subscription: Any, raw: bool) -> Any:
    with subscription.handle:
        item = subscription.handle.take_message(subscription.msg_type, raw)
    return None if item is None else item[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--physics", action="store_true", help="falls and stands; else it hangs still")
    parser.add_argument("--mode", default="ai", help="of the onboard controller")
    parser.add_argument("--releases", type=int, default=1, help="that it takes")
    parser.add_argument("--stuck", action="store_true", help="refuses to be released")
    parser.add_argument("--silent", action="store_true", help="the motion switcher does not answer")
    parser.add_argument("--onboard-commands", action="store_true", help="LowCmds while a mode is active")
    parser.add_argument("--goes-on", action="store_true", help="LowCmds after the release too")
    parser.add_argument("--soc", type=int, default=87, help="percent, -1: no battery reports")
    parser.add_argument("--mode-machine", type=int, default=5)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument(
        "--fault", nargs="+", default=[], help="of humanoid_rl_sim.twin.faults, with joint and value"
    )
    options = parser.parse_args()

    robot = load_robot()
    kind = VirtualG1 if options.physics else StillG1
    twin = kind(robot, start="hoisted", sensor_noise=1.0, mode_machine=options.mode_machine)
    switcher = MotionSwitcher(options.mode, options.releases, options.stuck)
    while twin.time < COME_TO_REST:
        twin.cycle()
    onboard = LowCmdWriter(robot.joint_count).damping(options.mode_machine)

    def fault(words: list[str]) -> None:
        joint = words[1] if len(words) > 1 else ""
        twin.inject_fault(words[0], joint, float(words[2]) if len(words) > 2 else 0.0, 0.0)

    if options.fault:
        fault(options.fault)

    def obey_orders() -> None:
        for line in sys.stdin:
            order, *words = line.split()
            if order == "press":
                twin.set_wireless_remote(encode_remote(RemoteState(pressed=frozenset(words))))
            elif order == "push_stick":
                twin.set_wireless_remote(
                    encode_remote(RemoteState(ly=float(words[0]), pressed=frozenset({"L1"})))
                )
            elif order == "unplug":
                twin.set_wireless_remote(bytes(40))
            elif order == "fault":
                fault(words)

    rclpy.init()
    node = rclpy.create_node("_g1", start_parameter_services=False, enable_rosout=False)
    low_state = node.create_publisher(LowState, "/lowstate", RELIABLE)
    battery = node.create_publisher(BmsState, "/lf/bmsstate", RELIABLE)
    low_cmd = node.create_subscription(LowCmd, "/lowcmd", lambda _: None, NEWEST, raw=True)
    response = node.create_publisher(Response, "/api/motion_switcher/response", RELIABLE)
    request = node.create_subscription(Request, "/api/motion_switcher/request", lambda _: None, RELIABLE)
    command = (
        node.create_publisher(LowCmd, "/lowcmd", RELIABLE)
        if options.onboard_commands or options.goes_on
        else None
    )
    threading.Thread(target=obey_orders, daemon=True).start()

    due = time.monotonic()
    period = 1.0 / options.rate
    cycle = 0
    while True:
        due += period
        if (wait := due - time.monotonic()) > 0.0:
            time.sleep(wait)
        elif wait < -0.05:
            due -= wait
        if (data := taken(low_cmd, True)) is not None and not (command and switcher.mode):
            twin.receive(data)
        if (state := twin.cycle()) is not None:
            low_state.publish(state)
        if command and (switcher.mode or options.goes_on) and cycle % 5 == 0:
            command.publish(onboard)
        if cycle % 10 == 0 and not options.silent and (asked := taken(request, False)) is not None:
            answer = Response()
            answer.header.identity = asked.header.identity
            answer.header.status.code, answer.data = switcher.answer(asked.header.identity.api_id)
            response.publish(answer)
        if options.soc >= 0 and cycle % BATTERY_CYCLES == 0:
            battery.publish(BmsState(soc=options.soc))
        if cycle % REPORT_CYCLES == 0:
            base = twin.base_state()
            gravity = rotation.projected_gravity(base.quaternion)
            report = {
                "time": time.monotonic(),
                "position": [float(value) for value in base.position[:2]],
                "height": float(base.position[2]),
                "tilt": float(np.arccos(np.clip(-gravity[2], -1.0, 1.0))),
                "hoist": twin.hoist_state,
                "braking": twin.braking,
                "stiff": bool(twin._stiff),
                "accepted": twin.accepted,
                "rejected": sum(twin.rejected.values()),
                "mode": switcher.mode,
                "asked": switcher.asked,
            }
            print(json.dumps(report), flush=True)
        cycle += 1


if __name__ == "__main__":
    main()
