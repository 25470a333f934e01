"""Rule H7 in the core: names decide, and a command is taken whole or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_hardware.joint_targets import FIELDS, JointMap, RefusedCommandError


def command(robot: RobotModel) -> dict[str, Any]:
    """A valid command whose every value tells joint and field."""
    n = len(robot.joint_names)
    values = {field: 0.01 * np.arange(n) + 0.5 * row for row, field in enumerate(FIELDS)}
    return {"names": list(robot.joint_names), **values}


def take(robot: RobotModel, given: dict[str, Any]) -> Any:
    return JointMap(robot.joint_names).targets(given["names"], {field: given[field] for field in FIELDS})


def test_joints_are_mapped_by_name_in_whatever_order_they_come(robot: RobotModel) -> None:
    straight = command(robot)
    shuffle = np.random.default_rng(0).permutation(len(robot.joint_names))
    shuffled = {
        "names": [straight["names"][i] for i in shuffle],
        **{field: straight[field][shuffle] for field in FIELDS},
    }
    targets = take(robot, shuffled)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(targets, field), straight[field])


def test_the_order_learned_from_one_command_is_not_applied_to_another(robot: RobotModel) -> None:
    joint_map = JointMap(robot.joint_names)
    names = list(robot.joint_names)
    backwards = names[::-1]
    assert joint_map.order(names).tolist() == list(range(len(names)))
    assert joint_map.order(backwards).tolist() == list(range(len(names)))[::-1]
    names[0], names[1] = names[1], names[0]
    assert joint_map.order(names).tolist()[:3] == [1, 0, 2]


def with_value(field: str, index: int, value: float) -> Any:
    def change(given: dict[str, Any]) -> None:
        given[field] = given[field].copy()
        given[field][index] = value

    return change


def with_name(index: int, name: str) -> Any:
    def change(given: dict[str, Any]) -> None:
        given["names"][index] = name

    return change


def without_joint(given: dict[str, Any]) -> None:
    given["names"].pop()
    for field in FIELDS:
        given[field] = given[field][:-1]


def with_short(field: str) -> Any:
    def change(given: dict[str, Any]) -> None:
        given[field] = given[field][:-1]

    return change


def with_nothing(given: dict[str, Any]) -> None:
    given["names"] = []
    for field in FIELDS:
        given[field] = np.zeros(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_name(3, "left_kne_joint"), "unknown joint 'left_kne_joint', did you mean 'left_knee_joint'?"),
        (with_name(3, ""), "unknown joint ''"),
        (with_name(0, "left_knee_joint"), "joint 'left_knee_joint' is named twice"),
        (without_joint, "joint 'right_wrist_yaw_joint' is missing"),
        (with_nothing, "joint 'left_hip_pitch_joint' is missing and 28 more"),
        (with_short("position"), "position has 28 values for 29 joints"),
        (with_short("velocity"), "velocity has 28 values for 29 joints"),
        (with_short("effort"), "effort has 28 values for 29 joints"),
        (with_short("stiffness"), "stiffness has 28 values for 29 joints"),
        (with_short("damping"), "damping has 28 values for 29 joints"),
        (with_value("position", 3, np.nan), "position of 'left_knee_joint' is nan"),
        (with_value("velocity", 0, np.inf), "velocity of 'left_hip_pitch_joint' is inf"),
        (with_value("effort", 28, -np.inf), "effort of 'right_wrist_yaw_joint' is -inf"),
        (with_value("stiffness", 3, np.nan), "stiffness of 'left_knee_joint' is nan"),
        (with_value("damping", 3, np.nan), "damping of 'left_knee_joint' is nan"),
        (with_value("stiffness", 3, -1.0), "stiffness of 'left_knee_joint' is -1, outside 0 to 1000 Nm/rad"),
        (with_value("stiffness", 3, 5e3), "stiffness of 'left_knee_joint' is 5000, outside 0 to 1000 Nm/rad"),
        (with_value("damping", 3, -0.1), "damping of 'left_knee_joint' is -0.1, outside 0 to 100 Nm s/rad"),
        (with_value("damping", 3, 101.0), "damping of 'left_knee_joint' is 101, outside 0 to 100 Nm s/rad"),
    ],
)
def test_a_malformed_command_is_refused_whole_and_the_reason_names_the_joint(
    robot: RobotModel, change: Any, message: str
) -> None:
    given = command(robot)
    take(robot, given)
    change(given)
    with pytest.raises(RefusedCommandError) as refusal:
        take(robot, given)
    assert str(refusal.value) == message
