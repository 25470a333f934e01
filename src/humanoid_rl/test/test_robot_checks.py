"""The preflight's checks as functions: each thing that can be wrong with a robot, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from humanoid_rl.real_robot.preflight_config import preflight_config_of
from humanoid_rl.real_robot.robot_checks import (
    CHECK_MODE,
    CONFIRM_WORD,
    RELEASE_MODE,
    Answer,
    Process,
    active_mode,
    check_battery,
    check_commanders,
    check_confirm,
    check_imu,
    check_joints,
    check_link,
    check_machine,
    check_motors,
    check_nodes,
    check_processes,
    check_state_publishers,
    confirmation_text,
    release_onboard_controller,
    state_window,
)
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import index_of, load_robot, variants_of
from humanoid_rl_core.unitree_hg_wire import (
    ENCAPSULATION,
    LOW_STATE_SIZE,
    LowStateArrays,
    low_state_record,
    seal_low_state,
)

ROBOT = load_robot()
CONFIG = preflight_config_of("g1")
KNEE = index_of(ROBOT, "left_knee_joint")
PERIOD = 0.002


def low_state(tick: int = 1, **changes: float) -> bytes:
    """A LowState of a robot that hangs straight; `changes` set one field of the left knee, or tilt the IMU (roll)."""
    buffer = bytearray(LOW_STATE_SIZE)
    buffer[0:4] = ENCAPSULATION
    record = low_state_record(buffer)
    record["tick"], record["mode_machine"] = tick, 5
    roll = changes.pop("roll", 0.0)
    record["imu_state"]["quaternion"] = (np.cos(roll / 2), np.sin(roll / 2), 0.0, 0.0)
    record["imu_state"]["accelerometer"] = (0.0, 0.0, 9.81)
    motors = record["motor_state"]
    motors["temperature"][:] = 30
    for name, value in changes.items():
        motors[name][KNEE] = value
    seal_low_state(buffer)
    return bytes(buffer)


def hanging(**changes: float) -> LowStateArrays:
    window = state_window([0.0], [low_state(**changes)], ROBOT.joint_count)
    assert window.state is not None
    return window.state


def times(count: int, period: float = PERIOD) -> list[float]:
    return [period * i for i in range(count)]


# --- LowState ---


def test_good_link_and_robot_pass_every_check() -> None:
    messages = [low_state(tick) for tick in range(500)]
    window = state_window(times(500), messages, ROBOT.joint_count)
    assert "500 Hz" in check_link(window, CONFIG.link, "eth0")
    state = hanging()
    assert check_machine(5, ROBOT, (5,), variants_of("g1")) == "5"
    check_imu(state, CONFIG.imu)
    check_joints(state, ROBOT, CONFIG.joints)
    check_motors(state, window.motor_flags, ROBOT, CONFIG.motors)


WRONG_LINKS = {
    "nothing": ([], [], "no LowState within 5 s on eth0, domain 0"),
    "other message": (times(3), [b"short"] * 3, "3 of 3 LowStates are no unitree_hg/LowState"),
    "wrong crc": (
        times(3),
        [low_state(1), low_state(2)[:-1] + b"\0", low_state(3)],
        "1 of 3 LowStates have a wrong CRC",
    ),
    "frozen": (times(500), [low_state(7)] * 500, "the tick of LowState stands still"),
    "slow": (
        times(300, 0.01),
        [low_state(t) for t in range(300)],
        "arrives at 100 Hz, expected 500: use a cable",
    ),
    "two robots": (
        times(1000, 0.001),
        [low_state(t) for t in range(1000)],
        "1000 Hz, expected 500: a second robot",
    ),
}


@pytest.mark.parametrize("case", WRONG_LINKS)
def test_wrong_link_is_refused(case: str) -> None:
    stamps, messages, line = WRONG_LINKS[case]
    with pytest.raises(UserError) as refused:
        check_link(state_window(stamps, messages, ROBOT.joint_count), CONFIG.link, "eth0, domain 0")
    assert line in str(refused.value)


@pytest.mark.parametrize(
    ("mode_machine", "allowed", "line"),
    [
        (13, (5,), "variant:=rev_1_0 is right for 5: start with variant:=mode_13"),
        (4, (5,), "this robot is not described here (known: rev_1_0 5, mode_11 11"),
        (5, (6,), "the policy may drive 6: choose a policy trained for this robot"),
    ],
)
def test_other_machine_is_refused(mode_machine: int, allowed: tuple[int, ...], line: str) -> None:
    with pytest.raises(UserError) as refused:
        check_machine(mode_machine, ROBOT, allowed, variants_of("g1"))
    assert line in str(refused.value)


def changed(name: str, value: object, index: object = ...) -> LowStateArrays:
    state = hanging()
    getattr(state, name)[index] = value
    return state


WRONG_BODIES: dict[str, tuple[Callable[[], object], str]] = {
    "nan imu": (lambda: check_imu(changed("imu_gyro", np.nan, 0), CONFIG.imu), "the IMU reports values"),
    "zero quaternion": (
        lambda: check_imu(changed("imu_quat", 0.0), CONFIG.imu),
        "norm 0.00, it has not started",
    ),
    "lying": (
        lambda: check_imu(hanging(roll=1.5), CONFIG.imu),
        "tilted by 1.50 rad (limit 0.5): hang the robot",
    ),
    "upside down": (lambda: check_imu(hanging(roll=3.1), CONFIG.imu), "tilted by 3.10 rad"),
    "swinging": (lambda: check_imu(changed("imu_gyro", 1.5, 2), CONFIG.imu), "turns at 1.5 rad/s"),
    "falling": (lambda: check_imu(changed("imu_accel", 0.0), CONFIG.imu), "reads 0.0 m/s^2"),
    "hot winding": (
        lambda: check_motors(changed("winding_temperature", 95.0, KNEE), NO_FLAGS, ROBOT, CONFIG.motors),
        "left_knee_joint: winding at 95 degrees Celsius (limit 80 to start): let it cool down",
    ),
    "hot casing": (
        lambda: check_motors(changed("casing_temperature", 70.0, KNEE), NO_FLAGS, ROBOT, CONFIG.motors),
        "left_knee_joint: casing at 70",
    ),
    "nan joint": (
        lambda: check_joints(hanging(q=np.nan), ROBOT, CONFIG.joints),
        "left_knee_joint reports a value",
    ),
    "beyond limit": (
        lambda: check_joints(hanging(q=-0.3), ROBOT, CONFIG.joints),
        "left_knee_joint is at -0.30 rad, beyond its limits",
    ),
    "folded leg": (
        lambda: check_joints(hanging(q=2.0), ROBOT, CONFIG.joints),
        "left_knee_joint is at 2.00 rad, 1.33 rad from the hanging and the standing pose (limit 0.8)",
    ),
    "moved by hand": (
        lambda: check_joints(hanging(dq=-2.0), ROBOT, CONFIG.joints),
        "left_knee_joint moves at 2.0 rad/s (limit 1): wait",
    ),
}
NO_FLAGS = np.zeros(ROBOT.joint_count, np.uint32)


@pytest.mark.parametrize("case", WRONG_BODIES)
def test_robot_that_is_not_fit_is_refused(case: str) -> None:
    check, line = WRONG_BODIES[case]
    with pytest.raises(UserError) as refused:
        check()
    assert line in str(refused.value)


def test_motor_error_flag_is_refused_unless_the_joint_is_excepted() -> None:
    window = state_window([0.0], [low_state(motorstate=0x40)], ROBOT.joint_count)
    assert window.state is not None
    with pytest.raises(UserError, match="motor error flags: left_knee_joint 0x40: restart"):
        check_motors(window.state, window.motor_flags, ROBOT, CONFIG.motors)
    excepted = type(CONFIG.motors)(80.0, 65.0, ("left_knee_joint",))
    check_motors(window.state, window.motor_flags, ROBOT, excepted)
    with pytest.raises(UserError, match="no joint 'left_kne_joint', did you mean 'left_knee_joint'"):
        check_motors(window.state, NO_FLAGS, ROBOT, type(CONFIG.motors)(80.0, 65.0, ("left_kne_joint",)))


def test_forearms_of_a_limp_robot_may_hang() -> None:
    """A limp elbow hangs at 1.5 rad; the twin's does too."""
    state = hanging()
    state.joint_pos[[index_of(ROBOT, f"{side}_elbow_joint") for side in ("left", "right")]] = 1.55
    check_joints(state, ROBOT, CONFIG.joints)


# --- battery, others ---


@pytest.mark.parametrize(
    ("charge", "line"),
    [
        (None, "no BmsState on /lf/bmsstate"),
        (29, "at 29 % (limit 30 to start): charge it"),
        (0, "at 0 %"),
        (255, "255 %"),
    ],
)
def test_battery_is_refused(charge: int | None, line: str) -> None:
    with pytest.raises(UserError) as refused:
        check_battery(charge, CONFIG.battery)
    assert line in str(refused.value)


def test_full_battery_passes_and_a_supply_needs_none() -> None:
    assert check_battery(87, CONFIG.battery) == "87 %"
    assert "none is required" in check_battery(None, type(CONFIG.battery)(False, 5.0, 30.0))


@pytest.mark.parametrize(
    "command",
    [
        ("/usr/bin/python3", "/opt/lib/humanoid_rl_sim/robot_twin", "--ros-args"),
        ("/usr/bin/python3.12", "-m", "humanoid_rl_sim.nodes.robot_twin"),
        ("python3", "-u", "robot_twin.py"),
        ("/opt/lib/humanoid_rl_sim/robot_twin",),
    ],
)
def test_running_twin_is_refused_however_it_was_started(command: tuple[str, ...]) -> None:
    others = [Process(1, ("/sbin/init",)), Process(2, ())]
    with pytest.raises(UserError, match=r"refuses to start next to a running twin.*process 77"):
        check_processes([*others, Process(77, command)])


@pytest.mark.parametrize("program", ["embedded_host", "ros2_control_node", "policy_node"])
def test_running_deployment_is_refused(program: str) -> None:
    with pytest.raises(UserError, match=f"{program} runs on this machine"):
        check_processes([Process(5, (f"/opt/lib/{program}",))])
    with pytest.raises(UserError, match=f"node {program} is in the robot's domain"):
        check_nodes(["rviz2", program], "robot_preflight")


def test_program_that_only_names_a_twin_is_none() -> None:
    commands = [("vim", "robot_twin"), ("python3", "plot.py", "robot_twin"), ("grep", "-r", "policy_node")]
    check_processes(Process(pid, command) for pid, command in enumerate(commands))


def test_second_publisher_of_the_state_is_refused() -> None:
    check_state_publishers(["_NODE_NAME_UNKNOWN_"])
    with pytest.raises(UserError, match=r"2 publish /lowstate \(no ROS node, robot_twin\)"):
        check_state_publishers(["robot_twin", "_NODE_NAME_UNKNOWN_"])


def test_commands_of_the_active_onboard_controller_are_no_reason_and_all_others_are() -> None:
    assert check_commanders([], 0, "") == "nobody"
    # A program that is no ROS node and silent may be the robot's own.
    assert check_commanders(["_NODE_NAME_UNKNOWN_"], 0, "") == "nobody"
    assert "ai" in check_commanders(["_NODE_NAME_UNKNOWN_"], 500, "ai")
    with pytest.raises(
        UserError, match="500 LowCmds came on /lowcmd, and the onboard controller is not active"
    ):
        check_commanders(["_NODE_NAME_UNKNOWN_"], 500, "")
    for mode in ("", "ai"):
        with pytest.raises(UserError, match="node rl_controller publishes /lowcmd"):
            check_commanders(["_NODE_NAME_UNKNOWN_", "rl_controller"], 0, mode)


# --- the onboard controller ---


class Switcher:
    """A motion switcher whose mode ends after a number of releases."""

    def __init__(self, mode: str, releases: int, answers: bool = True) -> None:
        self.mode, self.releases, self.answers = mode, releases, answers
        self.asked: list[int] = []

    def __call__(self, api_id: int) -> Answer | None:
        self.asked.append(api_id)
        if not self.answers:
            return None
        if api_id == CHECK_MODE:
            return Answer(0, f'{{"form": "0", "name": "{self.mode}"}}')
        self.releases -= 1
        if self.releases > 0:
            return Answer(7002, "")
        self.mode = ""
        return Answer(0, "")


def release(switcher: Switcher) -> list[str]:
    return release_onboard_controller(switcher, lambda seconds: None, CONFIG.motion_switcher)


def test_released_robot_is_not_released_again() -> None:
    switcher = Switcher("", 0)
    assert release(switcher) == []
    assert switcher.asked == [CHECK_MODE]


@pytest.mark.parametrize("releases", [1, 2, 5])
def test_release_is_repeated_until_the_check_says_none(releases: int) -> None:
    switcher = Switcher("ai", releases)
    assert release(switcher) == ["ai"]
    assert switcher.asked == [CHECK_MODE, RELEASE_MODE] * releases + [CHECK_MODE]


def test_mode_that_stays_active_is_refused_after_a_bounded_number_of_releases() -> None:
    switcher = Switcher("ai", 100)
    with pytest.raises(
        UserError, match=r"active in mode 'ai' after 5 releases \(last answer: code 7002, switcher is busy\)"
    ):
        release(switcher)
    assert switcher.asked.count(RELEASE_MODE) == CONFIG.motion_switcher.attempts


def test_silent_motion_switcher_is_refused_and_not_taken_for_released() -> None:
    with pytest.raises(UserError, match="the motion switcher did not answer within 5 s"):
        release(Switcher("ai", 1, answers=False))


@pytest.mark.parametrize("data", ["", "{}", "none", "[]", '{"name": null}', '{"name": 0}', "null"])
def test_answer_that_is_not_understood_is_never_taken_for_released(data: str) -> None:
    with pytest.raises(UserError, match="answer to CheckMode is not understood"):
        active_mode(0, data)


def test_error_of_the_motion_switcher_is_told_with_its_meaning() -> None:
    with pytest.raises(UserError, match=r"code 7006 \(the check failed\)"):
        active_mode(7006, '{"name": ""}')


# --- the operator ---


@pytest.mark.parametrize("word", ["yes", "Hanging", "hanging ", "true"])
def test_wrong_word_is_refused(word: str) -> None:
    with pytest.raises(
        UserError, match=f"is not the word: confirm:={CONFIRM_WORD} says that the robot hangs"
    ):
        check_confirm(word)
    check_confirm(CONFIRM_WORD)
    check_confirm("")


@pytest.mark.parametrize("mode", ["", "ai"])
def test_operator_is_told_that_the_robot_is_limp_and_has_to_hang(mode: str) -> None:
    text = confirmation_text("G1", "eth0", mode)
    assert "LIMP" in text and "hangs from its hoist" in text and CONFIRM_WORD in text
    assert ("will be RELEASED" in text) == bool(mode)
