"""ROS node: the robot's own gamepad as /joy, and its e-stop button.

    wireless_remote [--ros-args -p joystick:=PATH]

=====================================  ===================================================================
/lowstate                in            unitree_hg/LowState, whose wireless_remote holds the gamepad's state
/joy                     out           sensor_msgs/Joy, 25 Hz and at every press, while a remote is connected
/host/estop /policy/estop   called     std_srvs/Trigger, at the press, every 100 ms until answered
=====================================  ===================================================================

The axes and buttons of /joy are those of an Xbox-type pad (humanoid_rl_core/wireless_remote.py), so the layout in
config/control/joystick.yaml is the same, and says which button is the e-stop. That button does not depend on /joy
or on the policy node.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import rclpy
from humanoid_rl_core.dds_transport import keep_off_shared_memory
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from humanoid_rl_inference.joystick import load_joystick
from humanoid_rl_inference.node_parameters import read_parameters
from humanoid_rl_inference.polling import PolledGroup, never_called, take
from humanoid_rl_inference.remote_watch import RemoteWatch, StopCalls
from unitree_hg.msg import LowState

NAME = "wireless_remote"
ESTOP_SERVICES = ("/host/estop", "/policy/estop")
PERIOD = 0.02  # s between two looks: what an e-stop waits at most
# Looks between two Joy messages where no button changed; 25 Hz is twelve within the command's timeout.
JOY_EVERY = 2
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class WirelessRemote(Node):
    """See the module. Raises UserError for an unknown parameter or an impossible layout."""

    def __init__(self) -> None:
        super().__init__(NAME)
        default = str(share_dir() / "config" / "control" / "joystick.yaml")
        path = str(read_parameters(self, {"joystick": ""})["joystick"]) or default
        self._watch = RemoteWatch(load_joystick(path).buttons.estop)
        self._state = self.create_subscription(
            LowState, "/lowstate", never_called, NEWEST, callback_group=PolledGroup(), raw=True
        )
        self._joy = self.create_publisher(Joy, "/joy", 10)
        self._estops: dict[str, Client] = {name: self.create_client(Trigger, name) for name in ESTOP_SERVICES}
        self._calls = StopCalls(ESTOP_SERVICES, self._call)
        self._looks = 0
        self._buttons: list[int] = []
        self._trouble: str | None = None
        self.create_timer(PERIOD, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        # 500 of them come in a second: the timer takes the newest, no callback runs for each.
        state = take(self._state)
        seen = self._watch.look(now, state)
        if seen.estop:
            self.get_logger().error("e-stop button: stopping host and policy")
            self._calls.stop(now)
        else:
            self._calls.advance(now)
        self._looks += 1
        if seen.joy is not None:
            axes, buttons = seen.joy
            if buttons != self._buttons or self._looks % JOY_EVERY == 0 or seen.trouble:
                message = Joy(axes=axes, buttons=buttons)
                message.header.stamp = self.get_clock().now().to_msg()
                self._joy.publish(message)
                self._buttons = buttons
        if state is not None or seen.trouble:
            self._tell(seen.trouble)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self.get_logger().warning(f"no remote: {trouble}")
            else:
                self.get_logger().info("remote connected")

    def _call(self, service: str) -> bool:
        client = self._estops[service]
        if not client.service_is_ready():
            return False
        client.call_async(Trigger.Request()).add_done_callback(
            lambda future: self._on_answer(service, future.result())
        )
        return True

    def _on_answer(self, service: str, response: Trigger.Response | None) -> None:
        done = response is not None and response.success
        if service in self._calls.pending:
            self.get_logger().info(f"{service}: {response.message if response else 'no answer'}")
        self._calls.answered(service, done)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Returns 0 then, 2 for a mistake of the user's, told in one line."""
    stop = threading.Event()

    def leave(_signum: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        keep_off_shared_memory(os.environ, rclpy.get_rmw_implementation_identifier())
        rclpy.init(
            args=list(sys.argv if argv is None else argv), signal_handler_options=SignalHandlerOptions.NO
        )
        node = WirelessRemote()
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0
