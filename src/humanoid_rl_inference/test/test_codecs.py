"""Serialized messages: the fast way gives what rosidl gives, for every layout."""

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_inference.command_codec import JointCommandEncoder, joint_command, joint_command_layout
from humanoid_rl_inference.motion import JointTargets
from humanoid_rl_inference.sensor_codec import (
    ImuDecoder,
    JointStateDecoder,
    MessageError,
    joint_order,
    motor_temperatures,
)
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState

from humanoid_rl_interfaces.msg import JointCommand, MotorStatus


def joint_state(names: list[str], seed: int = 0, frame: str = "", effort: bool = True) -> JointState:
    rng = np.random.default_rng(seed)
    message = JointState(name=names)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = 1_795_000_000 + seed, 4_000_000 + seed
    message.position = rng.normal(size=len(names)).tolist()
    message.velocity = rng.normal(size=len(names)).tolist()
    message.effort = rng.normal(size=len(names)).tolist() if effort else []
    return message


@pytest.mark.parametrize("frame", ["", "a", "ab", "abc", "abcd", "pelvis"])
@pytest.mark.parametrize("effort", [True, False])
def test_joint_states_are_read_in_place_and_right(robot: RobotModel, frame: str, effort: bool) -> None:
    decoder = JointStateDecoder(robot.joint_names)
    for seed in range(50):
        message = joint_state(list(robot.joint_names), seed, frame, effort)
        position, velocity, stamp = decoder.decode(bytes(serialize_message(message)))
        np.testing.assert_array_equal(position, message.position)
        np.testing.assert_array_equal(velocity, message.velocity)
        assert stamp == pytest.approx(1_795_000_000 + seed + 0.004, abs=1e-6)
    assert decoder.general == 1, "only the first message needs the general way, whatever is in the padding"


def test_joint_states_are_mapped_by_name(robot: RobotModel) -> None:
    decoder = JointStateDecoder(robot.joint_names)
    names = list(np.random.default_rng(1).permutation(robot.joint_names))
    for seed in range(3):
        message = joint_state(names, seed)
        position, velocity, _ = decoder.decode(bytes(serialize_message(message)))
        for i, name in enumerate(robot.joint_names):
            assert position[i] == message.position[names.index(name)]
            assert velocity[i] == message.velocity[names.index(name)]


def test_change_of_layout_is_noticed_when_the_length_is_the_same(robot: RobotModel) -> None:
    decoder = JointStateDecoder(robot.joint_names)
    names = list(robot.joint_names)
    decoder.decode(bytes(serialize_message(joint_state(names))))
    swapped = names.copy()
    swapped[0], swapped[6] = swapped[6], swapped[0]
    swapped[1], swapped[7] = swapped[7], swapped[1]
    message = joint_state(swapped, 1)
    position, _, _ = decoder.decode(bytes(serialize_message(message)))
    assert position[0] == message.position[6] and position[7] == message.position[1]
    shifted = joint_state(names, 2)
    shifted.velocity, shifted.effort = [*shifted.velocity, 0.0], shifted.effort[:-1]
    with pytest.raises(MessageError, match="30 values of velocity for 29 joints"):
        decoder.decode(bytes(serialize_message(shifted)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n[:-1], "joint 'right_wrist_yaw_joint' is missing"),
        (lambda n: [*n[:-1], n[0]], "joint 'left_hip_pitch_joint' is there twice"),
        (lambda n: ["left_hip_pitc_joint", *n[1:]], "unknown joint .*did you mean 'left_hip_pitch_joint'"),
        (lambda n: [*n, "tail_joint"], "unknown joint 'tail_joint'"),
    ],
)
def test_wrong_joints_are_rejected(robot: RobotModel, change: object, message: str) -> None:
    names = change(list(robot.joint_names))  # type: ignore[operator]
    decoder = JointStateDecoder(robot.joint_names)
    good = bytes(serialize_message(joint_state(list(robot.joint_names))))
    decoder.decode(good)
    with pytest.raises(MessageError, match=message):
        decoder.decode(bytes(serialize_message(joint_state(names))))
    decoder.decode(good)


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x00\x00", b"\xff" * 64])
def test_bytes_that_are_no_message_are_rejected(robot: RobotModel, data: bytes) -> None:
    with pytest.raises(MessageError):
        JointStateDecoder(robot.joint_names).decode(data)


@pytest.mark.parametrize("frame", ["", "a", "imu", "imu_in_pelvis"])
def test_imu_is_read_in_place_and_right(frame: str) -> None:
    decoder = ImuDecoder()
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y, z, w, *gyro = rng.normal(size=7).tolist()
        message = Imu()
        message.header.frame_id = frame
        message.orientation.x, message.orientation.y, message.orientation.z = x, y, z
        message.orientation.w = w
        message.angular_velocity.x, message.angular_velocity.y, message.angular_velocity.z = gyro
        read_gyro, quat, _ = decoder.decode(bytes(serialize_message(message)))
        assert quat.tolist() == [w, x, y, z]
        assert read_gyro.tolist() == gyro
    assert decoder.general == 1


def test_imu_with_nan_is_passed_on_for_the_guard_to_name() -> None:
    message = Imu()
    message.angular_velocity.y = float("nan")
    for _ in range(2):
        decoder = ImuDecoder()
        gyro, _, _ = decoder.decode(bytes(serialize_message(message)))
        assert np.isnan(gyro[1])


def test_joint_command_is_what_rosidl_writes(robot: RobotModel) -> None:
    encoder = JointCommandEncoder(robot.joint_names)
    mask = joint_command_layout(robot.joint_names)[0].meaningful_mask()
    rng = np.random.default_rng(0)
    for i in range(20):
        targets = JointTargets(*rng.normal(size=(3, 29)))
        stamp = (1_795_000_000 + i, 4_000_000_000 + i)
        ours = encoder.encode(targets, *stamp)
        message = joint_command(robot.joint_names, targets, *stamp)
        theirs = np.frombuffer(bytes(serialize_message(message)), dtype=np.uint8)
        # Every byte but padding, of which the serializer leaves chance contents.
        assert ours == (theirs & mask).tobytes()
        assert deserialize_message(ours, JointCommand) == message


def test_joint_order_maps_by_name() -> None:
    assert joint_order(["b", "c", "a"], ["a", "b", "c"]).tolist() == [2, 0, 1]


def test_motor_temperatures_are_mapped_by_name_and_checked(robot: RobotModel) -> None:
    message = MotorStatus(joint_names=list(robot.joint_names)[::-1])
    message.winding_temperature = [float(i) for i in range(29)]
    message.casing_temperature = [30.0] * 29
    winding, casing = motor_temperatures(message, robot.joint_names)
    assert winding.tolist() == [float(28 - i) for i in range(29)] and set(casing) == {30.0}
    message.casing_temperature = [30.0] * 28
    with pytest.raises(MessageError, match="28 values of casing_temperature"):
        motor_temperatures(message, robot.joint_names)
