"""Rules H1 to H9 (docs: rules every host obeys), each fault injected for real."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from humanoid_rl_interfaces.msg import HostStatus, JointCommand

from . import commander as commander_module
from .bench import (
    COMMAND_TIMEOUT,
    CYCLE,
    PATIENCE,
    PUNCTUALITY,
    STATE_TIMEOUT,
    Bench,
    final_damping,
    longest_silence,
    unless_stalled,
    wait_for,
)
from .commander import POLICY_PERIOD, standing_command
from .fake_robot import STATE_FAULTS, SentCommand

# --- H1 ---


@unless_stalled
def test_h1_nothing_on_the_wire_before_activation(bench: Bench) -> None:
    bench.commander.start()
    bench.pause(0.3)
    assert bench.wire.commands() == []


@pytest.mark.parametrize("fault", [fault for fault in STATE_FAULTS if fault != "frozen_tick"])
@unless_stalled
def test_h1_nothing_on_the_wire_until_a_valid_state(bench: Bench, fault: str) -> None:
    bench.wire.set_fault(fault)
    bench.pause(2 * STATE_TIMEOUT)
    assert bench.request("activate").success
    bench.commander.start()
    bench.pause(0.2)
    assert bench.wire.commands() == []
    bench.wait_for_state(HostStatus.WAITING_STATE)
    bench.commander.stop()
    bench.pause(COMMAND_TIMEOUT)
    bench.wire.set_fault("")
    wait_for(lambda: len(bench.wire.commands()) > 10, "damping once the state is valid")
    assert all(command.damping for command in bench.wire.commands())


# --- H2 ---


@unless_stalled
def test_h2_every_command_is_sealed_and_touches_the_robots_motors_alone(bench: Bench) -> None:
    bench.follow()
    bench.pause(0.3)
    bench.request("estop")
    bench.pause(0.1)
    bench.request("deactivate")
    bench.pause(0.1)
    commands = bench.wire.commands()
    assert {command.damping for command in commands} == {True, False}
    assert [error for command in commands for error in command.wire_errors(bench.wire.mode_machine)] == []


# --- H3 ---


@unless_stalled
def test_h3_commands_that_stop_end_in_latched_damping(bench: Bench) -> None:
    bench.assert_damping_after(bench.commander.stop, COMMAND_TIMEOUT)
    bench.assert_latched("joint command")


# --- H4 ---


@pytest.mark.parametrize("fault", STATE_FAULTS)
@unless_stalled
def test_h4_states_that_stop_being_valid_end_in_latched_damping(bench: Bench, fault: str) -> None:
    bench.assert_damping_after(lambda: bench.wire.set_fault(fault), STATE_TIMEOUT)
    bench.wait_for_error("LowState")
    assert not bench.request("reset").success, "reset without a valid state"
    bench.assert_latched("LowState")


# --- H5 ---


@unless_stalled
def test_h5_estop_damps_within_one_cycle_and_stays(bench: Bench) -> None:
    bench.follow()
    bench.pause(0.1)
    asked = time.time()
    assert bench.request("estop").success
    answered = time.time()
    bench.pause(0.2)
    late = [command for command in bench.wire.commands(answered) if not command.damping]
    assert len(late) <= 1, "a cycle that began before the answer may still end after it, a second one not"
    assert any(command.damping for command in bench.wire.commands(asked))
    bench.assert_latched("emergency stop")


@unless_stalled
def test_h5_estop_forbids_activation_until_reset(bench: Bench) -> None:
    bench.request("estop")
    refusal = bench.request("activate")
    assert not refusal.success
    assert "reset" in refusal.message
    bench.pause(0.1)
    assert bench.wire.commands() == []
    assert bench.request("reset").success
    bench.activate()


# --- H6 ---


@unless_stalled
def test_h6_a_command_inside_the_limits_is_passed_on_unchanged(bench: Bench) -> None:
    bench.follow()
    bench.pause(0.1)
    sent, asked = bench.wire.commands()[-1], bench.commander.message
    for motor_field, command_field in (
        ("q", "position"),
        ("dq", "velocity"),
        ("tau", "effort"),
        ("kp", "stiffness"),
        ("kd", "damping"),
    ):
        expected = np.array(getattr(asked, command_field), np.float32)
        np.testing.assert_array_equal(sent.motor(motor_field), expected)


@pytest.mark.parametrize("trial", range(40))
@unless_stalled
def test_h6_no_command_in_no_state_asks_for_more_than_the_limits(bench: Bench, trial: int) -> None:
    robot = bench.robot
    n = len(robot.joint_names)
    rng = np.random.default_rng(trial)
    size = (0.2, 1.0, 10.0, 1e5)[trial % 4]
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    span = robot.position_upper - robot.position_lower
    joint_pos = middle + 0.55 * span * rng.uniform(-1, 1, n)
    joint_vel = robot.velocity_limit * rng.uniform(-1, 1, n)
    bench.wire.set_joints(joint_pos, joint_vel)
    bench.commander.message = JointCommand(
        joint_names=list(robot.joint_names),
        position=(middle + size * span * rng.uniform(-1, 1, n)).tolist(),
        velocity=(size * robot.velocity_limit * rng.uniform(-1, 1, n)).tolist(),
        effort=(size * robot.effort_limit * rng.uniform(-1, 1, n)).tolist(),
        stiffness=(rng.uniform(0, 500, n) * rng.integers(0, 2, n)).tolist(),
        damping=(rng.uniform(0, 50, n) * rng.integers(0, 2, n)).tolist(),
    )
    bench.pause(0.02)  # the host's newest state is this one
    bench.follow()
    bench.pause(0.02)
    followed = [command for command in bench.wire.commands() if not command.damping]
    for command in followed:
        position = command.motor("q")
        assert np.all((position >= robot.position_lower) & (position <= robot.position_upper))
        assert np.all(np.abs(command.motor("dq")) <= robot.velocity_limit)
        assert np.all(np.abs(torque(command, joint_pos, joint_vel)) <= robot.effort_limit)


def torque(command: SentCommand, joint_pos: np.ndarray, joint_vel: np.ndarray) -> np.ndarray:
    """[n] Nm: what the motors make of a command, as float32 reports the state."""
    q, dq = joint_pos.astype(np.float32), joint_vel.astype(np.float32)
    return (
        command.motor("kp") * (command.motor("q") - q)
        + command.motor("kd") * (command.motor("dq") - dq)
        + command.motor("tau")
    )


# --- H7 ---


Malform = Callable[[JointCommand], None]


def unknown_joint(message: JointCommand) -> None:
    message.joint_names[3] = "left_kne_joint"


def missing_joint(message: JointCommand) -> None:
    for name in ("joint_names", "position", "velocity", "effort", "stiffness", "damping"):
        setattr(message, name, getattr(message, name)[:-1])


def duplicate_joint(message: JointCommand) -> None:
    message.joint_names[3] = message.joint_names[4]


def no_joint(message: JointCommand) -> None:
    for name in ("joint_names", "position", "velocity", "effort", "stiffness", "damping"):
        setattr(message, name, [])


def values(name: str, value: float) -> Malform:
    def change(message: JointCommand) -> None:
        getattr(message, name)[3] = value

    change.__name__ = f"{name} {value:g}"
    return change


def short(name: str) -> Malform:
    def change(message: JointCommand) -> None:
        setattr(message, name, getattr(message, name)[:-1])

    change.__name__ = f"short {name}"
    return change


MALFORMED = [
    unknown_joint,
    missing_joint,
    duplicate_joint,
    no_joint,
    *(values(name, float("nan")) for name in ("position", "velocity", "effort", "stiffness", "damping")),
    values("position", float("inf")),
    values("stiffness", -1.0),
    values("damping", -1.0),
    values("stiffness", 1e6),
    *(short(name) for name in ("position", "velocity", "effort", "stiffness", "damping")),
]


@pytest.mark.parametrize("malform", MALFORMED, ids=lambda malform: malform.__name__)
@unless_stalled
def test_h7_a_malformed_command_is_rejected_whole(bench: Bench, malform: Malform) -> None:
    bench.follow()
    before = bench.wait_for_state(HostStatus.ACTIVE).rejected_commands
    bad = copy.deepcopy(bench.commander.message)
    bad.position = [value + 0.01 for value in bad.position]
    malform(bad)
    begin = time.time()
    for _ in range(5):
        bench.commander.send(bad)
        bench.pause(0.01)
    wait_for(lambda: bench.status().rejected_commands > before, "the rejection is counted", timeout=3.0)
    bench.assert_active()
    good = np.array(bench.commander.message.position, np.float32)
    for command in bench.wire.commands(begin):
        np.testing.assert_array_equal(command.motor("q"), good)


@unless_stalled
def test_h7_bytes_that_are_no_command_do_no_harm(bench: Bench) -> None:
    bench.follow()
    whole = serialize_message(bench.commander.message)
    for cut in (5, 40, 700, len(whole) - 9):
        bench.commander.send(whole[:cut])
        bench.pause(0.03)
    bench.assert_active()
    assert bench.host.running


@unless_stalled
def test_h7_a_malformed_command_does_not_displace_the_valid_one_before_it(bench: Bench) -> None:
    bench.follow()
    bench.commander.stop()
    good, bad = standing_command(bench.robot), standing_command(bench.robot)
    unknown_joint(bad)
    for _ in range(6):
        bench.commander.send(good)
        bench.commander.send(bad)
        bench.pause(POLICY_PERIOD)
    assert not any(command.damping for command in bench.wire.commands()[-10:])


@unless_stalled
def test_h7_malformed_commands_count_as_none(bench: Bench) -> None:
    bad = standing_command(bench.robot)
    unknown_joint(bad)

    def only_malformed() -> float:
        last = bench.commander.stop()
        for _ in range(10):
            bench.commander.send(bad)
            bench.pause(0.01)
        return last

    bench.assert_damping_after(only_malformed, COMMAND_TIMEOUT)
    bench.assert_latched("joint command")


@unless_stalled
def test_h7_joints_are_mapped_by_name(bench: Bench) -> None:
    straight = standing_command(bench.robot)
    shuffle = np.random.default_rng(7).permutation(len(straight.joint_names))
    bench.commander.message = JointCommand(
        joint_names=[straight.joint_names[i] for i in shuffle],
        **{
            name: [getattr(straight, name)[i] for i in shuffle]
            for name in ("position", "velocity", "effort", "stiffness", "damping")
        },
    )
    bench.follow()
    bench.pause(0.1)
    sent = bench.wire.commands()[-1]
    np.testing.assert_array_equal(sent.motor("q"), np.array(straight.position, np.float32))
    np.testing.assert_array_equal(sent.motor("kp"), np.array(straight.stiffness, np.float32))


# --- H8 (the host's own end: test_end_of_process.py) ---


@unless_stalled
def test_h8_a_killed_commander_ends_in_latched_damping(bench: Bench) -> None:
    command = [sys.executable, str(Path(commander_module.__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"commanding\n"
            bench.activate()
            bench.wait_until_followed()
            bench.pause(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    killed = time.time()
    bench.pause(COMMAND_TIMEOUT + 0.1)
    commands = bench.wire.commands()
    last_followed = max(command.time for command in commands if not command.damping)
    assert last_followed - killed < COMMAND_TIMEOUT + PUNCTUALITY + 3 * longest_silence(commands)
    assert commands[-1].damping
    bench.assert_latched("joint command")


# --- H9 ---


@unless_stalled
def test_h9_the_period_is_kept_measured_and_published(bench: Bench) -> None:
    bench.follow()

    def kept() -> bool:
        """The median of a second on the wire is right; measured anew while the machine is too busy for it."""
        begin = time.time()
        bench.pause(1.0)
        times = np.array([command.time for command in bench.wire.commands(begin)])
        return len(times) > 100 and bool(abs(np.median(np.diff(times)) - CYCLE) < 0.2 * CYCLE)

    wait_for(kept, "500 commands a second")
    status = bench.status()
    assert status.period == pytest.approx(CYCLE)
    assert 0.0 <= status.period_error_p50 <= status.period_error_p99 <= status.period_error_max < PATIENCE
    assert status.period_error_p50 < CYCLE
    assert status.cycles >= len(bench.wire.commands()) - 1


# --- deactivation ---


@unless_stalled
def test_deactivation_ends_in_damping_for_a_tenth_of_a_second_and_then_silence(bench: Bench) -> None:
    bench.follow()
    bench.pause(0.1)
    assert bench.request("deactivate").success
    bench.pause(0.3)
    commands = bench.wire.commands()
    assert final_damping(commands) > 0.08
    bench.wait_for_state(HostStatus.INACTIVE)
    bench.pause(0.1)
    assert len(bench.wire.commands()) == len(commands)
