"""Which host a launch takes, and the description and parameters that ros2_control gets."""

import xml.etree.ElementTree as ET

import pytest
from humanoid_rl.launching import hosts
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot

VARIANTS = ("rev_1_0", "mode_11", "mode_13", "mode_15")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ros2_control_tag_is_that_of_the_robot(variant: str) -> None:
    robot = load_robot("g1", variant)
    root = ET.fromstring(hosts.control_description(robot, 0.05, 30))
    control = root.find("ros2_control")
    assert control is not None
    assert tuple(joint.get("name") for joint in control.findall("joint")) == robot.joint_names
    parameters = {entry.get("name"): entry.text for entry in control.findall("hardware/param")}
    assert parameters == {
        "mode_machine": ", ".join(map(str, robot.mode_machine)),
        "state_timeout": "0.05",
        "sender_priority": "30",
    }
    # ros2_control takes its limits from the URDF: they are those that every other part of the workspace has.
    limits = {joint.get("name"): joint.find("limit") for joint in root.findall("joint")}
    for index, name in enumerate(robot.joint_names):
        limit = limits[name]
        assert limit is not None
        assert [float(limit.get(key, "nan")) for key in ("lower", "upper", "velocity", "effort")] == [
            robot.position_lower[index],
            robot.position_upper[index],
            robot.velocity_limit[index],
            robot.effort_limit[index],
        ]


def test_parameters_name_the_joints_in_motor_order_and_the_policys_period() -> None:
    robot = load_robot()
    parameters = hosts.control_parameters(robot, 0.04, activate=True)
    controller = parameters["joint_command_controller"]["ros__parameters"]
    assert controller["joints"] == list(robot.joint_names)
    assert (controller["policy_period"], controller["auto_activate"]) == (0.04, True)
    assert parameters["imu_sensor_broadcaster"]["ros__parameters"]["frame_id"] == robot.imu_link
    manager = parameters["controller_manager"]["ros__parameters"]
    assert (manager["update_rate"], manager["thread_priority"]) == (500, hosts.HOST_PRIORITY)
    assert set(hosts.CONTROLLERS) == {name for name, value in manager.items() if isinstance(value, dict)}


def test_auto_takes_ros2_control_where_it_is_and_a_missing_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "missing_for_ros2_control", lambda: "")
    assert hosts.choose_host("auto") == hosts.choose_host("ros2_control") == "ros2_control"
    assert hosts.choose_host("embedded") == "embedded"
    monkeypatch.setattr(
        hosts, "missing_for_ros2_control", lambda: "controller_manager not installed: apt install it"
    )
    assert hosts.choose_host("auto") == "embedded"
    with pytest.raises(
        UserError, match="host:=ros2_control: controller_manager not installed: apt install it"
    ):
        hosts.choose_host("ros2_control")


def test_what_is_missing_is_named_with_its_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "installed", lambda package: package != "imu_sensor_broadcaster")
    assert "apt install ros-$ROS_DISTRO-imu-sensor-broadcaster" in hosts.missing_for_ros2_control()
    monkeypatch.setattr(hosts, "installed", lambda package: True)
    monkeypatch.setattr(hosts, "PLUGINS", "lib/libno_such_library.so")
    assert "was built without ros2_control" in hosts.missing_for_ros2_control()
