"""What has to hold before a real robot is commanded: pure functions over what was received, no ROS.

A check returns what it found, for the list that the operator reads, and raises UserError with one line that names
the thing and the remedy where it does not hold. Thresholds: preflight_config.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_core.rotation import projected_gravity
from humanoid_rl_core.unitree_hg_wire import (
    LowStateArrays,
    WireError,
    low_state_crc_ok,
    low_state_record,
    read_low_state,
)
from numpy.typing import NDArray

from humanoid_rl.real_robot.preflight_config import (
    BatteryLimits,
    ImuLimits,
    JointLimits,
    LinkLimits,
    MotorLimits,
    SwitcherLimits,
)

GRAVITY = 9.81
"""m/s^2"""

PROGRAMS = {
    "robot_twin": "a running twin",
    "embedded_host": "the host of another deployment",
    "ros2_control_node": "the host of another deployment",
    "policy_node": "the policy node of another deployment",
}
"""Executables, modules and nodes that must not run beside a deployment on a real robot."""


# --- what was received ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateWindow:
    """The LowStates of a time of listening."""

    rate: float
    """Hz over the window, 0 with fewer than two messages."""
    received: int
    malformed: int
    """Not a LowState by size or encapsulation."""
    wrong_crc: int
    state: LowStateArrays | None
    """The newest with a right CRC."""
    motor_flags: NDArray[np.uint32]
    """[n], MotorState.motorstate of that one."""
    ticks: int
    """How many different ticks the valid ones had."""


def state_window(times: Sequence[float], messages: Sequence[bytes], motor_count: int) -> StateWindow:
    """Decode what arrived.

    Args:
        times: [k] s, when each message came, ascending.
        messages: [k] DDS bytes.
        motor_count: joints of the robot.
    """
    malformed = wrong_crc = 0
    newest: bytes | None = None
    ticks: set[int] = set()
    for message in messages:
        try:
            tick = int(low_state_record(message)["tick"])
        except WireError:
            malformed += 1
            continue
        if not low_state_crc_ok(message):
            wrong_crc += 1
            continue
        newest = message
        ticks.add(tick)
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    flags = np.zeros(motor_count, np.uint32)
    if newest is not None:
        flags = low_state_record(newest)["motor_state"]["motorstate"][:motor_count].copy()
    return StateWindow(
        rate=(len(times) - 1) / span if span > 0.0 else 0.0,
        received=len(messages),
        malformed=malformed,
        wrong_crc=wrong_crc,
        state=None if newest is None else read_low_state(newest, motor_count),
        motor_flags=flags,
        ticks=len(ticks),
    )


# --- LowState ------------------------------------------------------------------------------------------


def check_link(window: StateWindow, limits: LinkLimits, where: str) -> str:
    """LowState arrives, intact, alive and at its rate. `where`: interface and domain, for the message."""
    if not window.received:
        raise UserError(
            f"no LowState within {limits.first_state:g} s on {where}: is the robot on, the cable in, "
            "the interface:= the robot's and the domain:= right?"
        )
    if window.malformed:
        raise UserError(
            f"{window.malformed} of {window.received} LowStates are no unitree_hg/LowState: "
            "another kind of robot, or other firmware"
        )
    if window.wrong_crc:
        raise UserError(
            f"{window.wrong_crc} of {window.received} LowStates have a wrong CRC: "
            "another kind of robot or firmware, or a broken link"
        )
    if window.ticks < 2:
        raise UserError(
            "the tick of LowState stands still: the robot's firmware has frozen, restart the robot"
        )
    lowest = limits.rate * (1.0 - limits.rate_tolerance)
    highest = limits.rate * (1.0 + limits.rate_tolerance)
    if window.rate < lowest:
        raise UserError(
            f"LowState arrives at {window.rate:.0f} Hz, expected {limits.rate:.0f}: "
            "use a cable, and end what keeps this machine busy"
        )
    if window.rate > highest:
        raise UserError(
            f"LowState arrives at {window.rate:.0f} Hz, expected {limits.rate:.0f}: "
            "a second robot or twin publishes it, end that one"
        )
    return f"{window.rate:.0f} Hz, CRC right in {window.received} of {window.received}"


def check_machine(
    mode_machine: int, robot: RobotModel, allowed: Sequence[int], variants: Mapping[str, Sequence[int]]
) -> str:
    """The robot is the variant that is described, and one that the policy may drive.

    Args:
        mode_machine: of LowState.
        robot: description in the chosen variant.
        allowed: mode_machine of the policy's contract.
        variants: mode_machine by variant of the description.
    """
    if mode_machine not in robot.mode_machine:
        fitting = [name for name, modes in variants.items() if mode_machine in modes]
        known = ", ".join(f"{name} {', '.join(map(str, modes))}" for name, modes in variants.items())
        remedy = (
            f"start with variant:={fitting[0]} and a policy trained for it"
            if fitting
            else f"this robot is not described here (known: {known})"
        )
        raise UserError(
            f"mode_machine of the robot is {mode_machine}, variant:={robot.variant} is right for "
            f"{', '.join(map(str, robot.mode_machine))}: {remedy}"
        )
    if mode_machine not in allowed:
        raise UserError(
            f"mode_machine of the robot is {mode_machine}, the policy may drive {', '.join(map(str, allowed))}: "
            "choose a policy trained for this robot"
        )
    return str(mode_machine)


def check_imu(state: LowStateArrays, limits: ImuLimits) -> str:
    """The IMU works, and the robot is upright and does not swing."""
    if not all(np.isfinite(part).all() for part in (state.imu_quat, state.imu_gyro, state.imu_accel)):
        raise UserError("the IMU reports values that are no numbers: restart the robot")
    norm = float(np.linalg.norm(state.imu_quat))
    if abs(norm - 1.0) > limits.quaternion_norm:
        raise UserError(
            f"the IMU quaternion has norm {norm:.2f}, it has not started: wait, or restart the robot"
        )
    tilt = math.acos(min(1.0, max(-1.0, -float(projected_gravity(state.imu_quat / norm)[2]))))
    if tilt > limits.tilt:
        raise UserError(
            f"the pelvis is tilted by {tilt:.2f} rad (limit {limits.tilt:g}): hang the robot upright from its hoist"
        )
    rate = float(np.linalg.norm(state.imu_gyro))
    if rate > limits.rate:
        raise UserError(
            f"the pelvis turns at {rate:.1f} rad/s (limit {limits.rate:g}): wait until the robot hangs still"
        )
    pull = float(np.linalg.norm(state.imu_accel))
    if abs(pull - GRAVITY) > limits.gravity:
        raise UserError(
            f"the accelerometer reads {pull:.1f} m/s^2 at rest, expected {GRAVITY}: "
            "wait until the robot hangs still; if it does, its IMU is broken"
        )
    return f"tilt {tilt:.2f} rad, turning {rate:.2f} rad/s, {pull:.1f} m/s^2"


def check_motors(
    state: LowStateArrays, flags: NDArray[np.uint32], robot: RobotModel, limits: MotorLimits
) -> str:
    """No motor reports an error, and none is hot."""
    for name in limits.flag_ignored:
        if name not in robot.joint_names:
            raise UserError(
                f"config/preflight: motors.flag_ignored: no joint '{name}'{nearest(name, robot.joint_names)}"
            )
    raised = [
        f"{name} 0x{flag:x}"
        for name, flag in zip(robot.joint_names, flags.tolist(), strict=True)
        if flag and name not in limits.flag_ignored
    ]
    if raised:
        raise UserError(
            f"motor error flags: {_some(raised)}: restart the robot; if they come back, see the vendor"
        )
    for kind, values, limit in (
        ("winding", state.winding_temperature, limits.winding_temperature),
        ("casing", state.casing_temperature, limits.casing_temperature),
    ):
        hot = int(np.argmax(values))
        if values[hot] > limit:
            raise UserError(
                f"{robot.joint_names[hot]}: {kind} at {values[hot]:.0f} degrees Celsius (limit {limit:g} to start): "
                "let it cool down"
            )
    return f"no error flags, windings up to {state.winding_temperature.max():.0f} degrees Celsius"


def check_joints(state: LowStateArrays, robot: RobotModel, limits: JointLimits) -> str:
    """Joints are numbers, within their limits, near the expected poses, and at rest."""
    kinds = [kind_of(name) for name in robot.joint_names]
    for kind in limits.distance_of:
        if kind not in kinds:
            raise UserError(
                f"config/preflight: joints.distance_of: no joint kind '{kind}'{nearest(kind, kinds)}"
            )
    position = state.joint_pos
    if not (np.isfinite(position).all() and np.isfinite(state.joint_vel).all()):
        broken = int(np.argmin(np.isfinite(position) & np.isfinite(state.joint_vel)))
        raise UserError(f"{robot.joint_names[broken]} reports a value that is no number: restart the robot")
    beyond = np.maximum(robot.position_lower - position, position - robot.position_upper)
    worst = int(np.argmax(beyond))
    if beyond[worst] > limits.beyond_limit:
        raise UserError(
            f"{robot.joint_names[worst]} is at {position[worst]:.2f} rad, beyond its limits "
            f"{robot.position_lower[worst]:.2f} to {robot.position_upper[worst]:.2f}: "
            "move it back by hand; if it is not there, its zero is lost, calibrate the robot"
        )
    hanging = np.clip(np.zeros(robot.joint_count), robot.position_lower, robot.position_upper)
    lower = np.minimum(hanging, robot.default_position)
    upper = np.maximum(hanging, robot.default_position)
    away = np.maximum(lower - position, position - upper)
    allowed = np.array([limits.distance_of.get(kind, limits.distance) for kind in kinds])
    worst = int(np.argmax(away - allowed))
    if away[worst] > allowed[worst]:
        raise UserError(
            f"{robot.joint_names[worst]} is at {position[worst]:.2f} rad, {away[worst]:.2f} rad from the hanging and "
            f"the standing pose (limit {allowed[worst]:g}): move it there by hand"
        )
    fastest = int(np.argmax(np.abs(state.joint_vel)))
    if abs(state.joint_vel[fastest]) > limits.speed:
        raise UserError(
            f"{robot.joint_names[fastest]} moves at {abs(state.joint_vel[fastest]):.1f} rad/s "
            f"(limit {limits.speed:g}): wait until the robot hangs still, hands off"
        )
    farthest = int(np.argmax(away))
    return f"within limits, {robot.joint_names[farthest]} is {max(away[farthest], 0.0):.2f} rad from the poses expected"


def kind_of(joint: str) -> str:
    """`left_elbow_joint` -> `elbow`, as config/robot names kinds."""
    return joint.removesuffix("_joint").removeprefix("left_").removeprefix("right_")


# --- battery, other nodes, other commanders ------------------------------------------------------------


def check_battery(state_of_charge: int | None, limits: BatteryLimits) -> str:
    """Charge enough. `state_of_charge` in percent, None where nothing reported it."""
    if state_of_charge is None:
        if limits.required:
            raise UserError(
                f"no BmsState on /lf/bmsstate within {limits.timeout:g} s: if the robot runs from a supply, "
                "set battery.required: false in config/preflight"
            )
        return "none reports, none is required"
    if state_of_charge > 100:
        raise UserError(
            f"BmsState reports a charge of {state_of_charge} %: other firmware, or a broken battery"
        )
    if state_of_charge < limits.state_of_charge:
        raise UserError(
            f"the battery is at {state_of_charge} % (limit {limits.state_of_charge:g} to start): charge it"
        )
    return f"{state_of_charge} %"


@dataclass(frozen=True)
class Process:
    """A running program of this machine."""

    pid: int
    command: tuple[str, ...]


def check_processes(processes: Iterable[Process]) -> str:
    """No twin, host or policy node runs on this machine, whatever its domain."""
    for process in processes:
        name = _program(process.command)
        if name in PROGRAMS:
            raise UserError(
                f"robot:=real refuses to start next to {PROGRAMS[name]}: {name} runs on this machine "
                f"(process {process.pid}), end it first"
            )
    return "no twin and no other deployment on this machine"


def _program(command: Sequence[str]) -> str:
    """What a command line runs: its first word, or the script or module that its Python interpreter was given."""
    words = list(command)
    if words and Path(words[0]).name.startswith("python"):
        words = [word for word in words[1:] if not word.startswith("-")]
    return Path(words[0]).name.removesuffix(".py").rpartition(".")[2] if words else ""


def check_nodes(names: Iterable[str], own: str) -> str:
    """No twin, host or policy node is in the DDS domain. `own`: name of the node that looks."""
    for name in names:
        if name in PROGRAMS and name != own:
            raise UserError(
                f"robot:=real refuses to start next to {PROGRAMS[name]}: node {name} is in the robot's domain, "
                "end it first"
            )
    return "no twin and no other deployment in the domain"


def check_state_publishers(nodes: Sequence[str]) -> str:
    """One robot publishes /lowstate. `nodes`: the name of each publisher's node."""
    if len(nodes) > 1:
        raise UserError(
            f"{len(nodes)} publish /lowstate ({_names(nodes)}): two robots, or a robot and a twin, "
            "are in this network and domain; separate them"
        )
    return "one robot"


def check_commanders(nodes: Sequence[str], commands: int, active_mode: str) -> str:
    """Nobody else commands the motors.

    The onboard controller publishes /lowcmd too while it is active, as no ROS node; it is what will be released.
    A ROS node that publishes is somebody else in any case, whether it has spoken yet or not.

    Args:
        nodes: the name of the node of each publisher of /lowcmd.
        commands: LowCmds that came while listening.
        active_mode: the onboard controller's, "" when it is released.
    """
    named = [name for name in nodes if not name.startswith("_")]
    if named:
        raise UserError(
            f"node {_names(named)} publishes /lowcmd: somebody else commands the robot, end that first"
        )
    if commands and not active_mode:
        raise UserError(
            f"{commands} LowCmds came on /lowcmd, and the onboard controller is not active: "
            "somebody else commands the robot, end that program first"
        )
    return f"the onboard controller alone ({active_mode})" if commands else "nobody"


# --- the onboard controller ----------------------------------------------------------------------------

MOTION_SWITCHER_REQUEST = "/api/motion_switcher/request"
MOTION_SWITCHER_RESPONSE = "/api/motion_switcher/response"
CHECK_MODE, RELEASE_MODE = 1001, 1003
"""Topics and api ids: unitree_ros2, example/src/include/g1/g1_motion_switch_client.hpp."""

NO_PARAMETER = "{}"
"""Parameter of both: an empty JSON object, as unitree_sdk2_python sends it."""

SWITCHER_ERRORS = {
    7001: "parameter is invalid",
    7002: "switcher is busy",
    7003: "event is invalid",
    7004: "no such mode",
    7005: "no such command",
    7006: "the check failed",
    7007: "the selection failed",
    7008: "the release failed",
}
"""Status codes: unitree_sdk2, robot/b2/motion_switcher/motion_switcher_error.hpp."""


def active_mode(code: int, data: str) -> str:
    """The onboard controller's mode from the answer to CheckMode, "" when none is active.

    Args:
        code: status of the response, 0 is done.
        data: JSON with `name`, and `form`; a released robot answers with an empty name.

    Raises:
        UserError: the motion switcher refused, or the answer is not understood. An answer that is not understood is
            never taken for "none".
    """
    if code:
        reason = SWITCHER_ERRORS.get(code, "unknown to this version")
        raise UserError(
            f"the motion switcher refused CheckMode with code {code} ({reason}): restart the robot"
        )
    try:
        name = json.loads(data)["name"]
    except (ValueError, TypeError, KeyError):
        name = None
    if not isinstance(name, str):
        raise UserError(
            f"the motion switcher's answer to CheckMode is not understood: {data[:80]!r}: other firmware?"
        )
    return name


@dataclass(frozen=True)
class Answer:
    """A response of the motion switcher: status code, 0 is done, and JSON."""

    code: int
    data: str


def release_onboard_controller(
    ask: Callable[[int], Answer | None], sleep: Callable[[float], None], limits: SwitcherLimits
) -> list[str]:
    """Release whatever mode is active, and return the names of those that were.

    Args:
        ask: sends a request of that api id and returns the answer, None where none came in time.
        sleep: waits, s.

    Raises:
        UserError: nobody answers, or a mode is still active after `limits.attempts` releases.
    """
    released: list[str] = []
    code = 0
    for attempt in range(limits.attempts + 1):
        mode = asked_mode(ask, limits)
        if not mode:
            return released
        if attempt == limits.attempts:
            break
        if mode not in released:
            released.append(mode)
        answer = ask(RELEASE_MODE)
        # Without an answer it may have been released all the same: the next look tells.
        code = answer.code if answer else 0
        sleep(limits.pause)
    why = (
        f" (last answer: code {code}, {SWITCHER_ERRORS.get(code, 'unknown to this version')})" if code else ""
    )
    raise UserError(
        f"the onboard controller stays active in mode '{mode}' after {limits.attempts} releases{why}: "
        "switch it to debug mode with its remote (L2+R2), or restart the robot"
    )


def asked_mode(ask: Callable[[int], Answer | None], limits: SwitcherLimits) -> str:
    """The onboard controller's mode, "" when none is active.

    Raises:
        UserError: nobody answers, or not in a way that is understood.
    """
    answer = ask(CHECK_MODE)
    if answer is None:
        raise UserError(
            f"the motion switcher did not answer within {limits.timeout:g} s: without it nobody knows whether the "
            "onboard controller commands the robot too; wait until the robot has started, or restart it"
        )
    return active_mode(answer.code, answer.data)


# --- the operator --------------------------------------------------------------------------------------

CONFIRM_WORD = "hanging"
"""What the operator types, or gives as confirm:=, to say that the robot hangs from its hoist."""


def check_confirm(word: str) -> None:
    """Raises UserError unless `confirm:=` is absent ("") or the right word."""
    if word and word != CONFIRM_WORD:
        raise UserError(
            f"confirm:={word} is not the word: confirm:={CONFIRM_WORD} says that the robot hangs from its hoist"
        )


def confirmation_text(robot: str, where: str, mode: str) -> str:
    """What the operator is told and asked before anything is done to the robot.

    Args:
        robot: name and mode_machine.
        where: interface and domain.
        mode: active mode of the onboard controller, "" when none is.
    """
    release = (
        f"Its onboard controller (mode '{mode}') will be RELEASED. From then on the robot is LIMP: it falls unless it "
        "hangs from its hoist."
        if mode
        else "Its onboard controller is released: the robot is LIMP and has to hang from its hoist."
    )
    return (
        f"{robot} on {where} passed the preflight.\n{release}\n"
        "Then the motors are switched on in damping; /policy/stand makes them stiff.\n"
        "Feet clear of the floor, nobody within reach, the e-stop in your hand.\n"
        f"Type '{CONFIRM_WORD}' if the robot hangs from its hoist, anything else to leave it as it is: "
    )


def _some(items: Sequence[str], most: int = 4) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


def _names(nodes: Sequence[str]) -> str:
    return ", ".join("no ROS node" if name.startswith("_") else name for name in sorted(set(nodes)))
