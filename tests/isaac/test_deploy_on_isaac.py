"""A deployment whose robot stands in Isaac Lab: twin, host and policy node as the launch file starts them, over DDS."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from domain_coordinator import domain_id
from humanoid_rl.deployment import LaunchProcess, Recorder, bring_up, confined
from humanoid_rl.operator_client import Operator, polled_qos
from humanoid_rl_core.robot import load_robot
from rclpy.node import Node

from humanoid_rl_core import unitree_hg_wire as wire
from humanoid_rl_interfaces.msg import PolicyStatus
from unitree_hg.msg import LowState

MOTORS = load_robot().joint_count
RUN_TIME = 10.0


class LowStates:
    """Every LowState on the wire, with its time of arrival."""

    def __init__(self, node: Node) -> None:
        self._subscription = node.create_subscription(
            LowState, "/lowstate", lambda message: None, polled_qos(depth=1000), raw=True
        )
        self._stop = threading.Event()
        self.taken: list[tuple[float, bytes]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.wait(0.001):
            with self._subscription.handle:
                while (item := self._subscription.handle.take_message(LowState, True)) is not None:
                    self.taken.append((time.monotonic(), item[0]))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def files_of_isaac() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("humanoid_rl_isaac_*")}


@pytest.fixture
def domain() -> Iterator[int]:
    """A DDS domain: ROS_DOMAIN_ID where it is set, one that nobody on this machine uses otherwise."""
    if given := os.environ.get("ROS_DOMAIN_ID"):
        yield int(given)
        return
    with domain_id() as free:
        yield int(free)


@pytest.mark.parametrize("policy", ["g1_stand", "g1_walk"])
def test_policy_of_mujoco_stands_and_runs_on_ovphysx(policy: str, tmp_path: Path, domain: int) -> None:
    before = files_of_isaac()
    arguments = {
        "policy": policy, "sim": "isaac", "engine": "ovphysx", "host": "embedded", "viewer": "none",
        "auto_start": "false",
    }  # fmt: skip
    log = tmp_path / "launch.log"
    with (
        confined(domain),
        LaunchProcess("deploy", arguments, log, domain) as launch,
        Operator("deploy_on_isaac") as operator,
        closing(LowStates(operator.observer)) as states,
    ):
        recorder = Recorder(operator, time.monotonic())

        def while_waiting() -> None:
            launch.check_alive()
            recorder.sample()

        operator.while_waiting = while_waiting
        bring_up(operator, recorder)
        operator.start()
        states.taken.clear()
        recorder.record(RUN_TIME)
        taken = states.taken.copy()
        events = recorder.recording.events
        assert not recorder.fallen and not recorder.stopped_upright, events
        assert recorder.policy is not None and recorder.policy.state == PolicyStatus.RUNNING, events

    assert "isaac:ovphysx: physics at 4 ms" in log.read_text()
    assert launch.left_behind == {}
    assert files_of_isaac() <= before

    # The wire is the robot's: valid, every 2 ms of its time, and its time is the world's.
    assert all(wire.low_state_crc_ok(message) for _, message in taken)
    received = [wire.read_low_state(message, MOTORS) for _, message in taken]
    robot_time = (received[-1].tick - received[0].tick) / 1000.0
    wall_time = taken[-1][0] - taken[0][0]
    assert wall_time > 0.8 * RUN_TIME
    print(
        f"{policy}: {len(taken) / robot_time:.0f} LowStates/s, real-time factor {robot_time / wall_time:.3f}"
    )
    # A busy machine lets this listener miss some.
    assert np.median(np.diff([state.tick for state in received])) == 2.0
    assert robot_time / wall_time > 0.7
    gravity = np.array([state.imu_accel for state in received]).mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(gravity), 9.81, atol=0.5)
