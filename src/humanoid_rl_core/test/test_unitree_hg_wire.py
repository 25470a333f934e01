"""The wire codec against rosidl's own serialisation, a C++ compiler's layout and a bitwise CRC."""

from __future__ import annotations

import re
import shutil
import subprocess
import timeit
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from humanoid_rl_core import unitree_hg_wire as wire
from unitree_hg.msg import IMUState, LowCmd, LowState, MotorCmd, MotorState

NESTED = {
    "unitree_hg/IMUState": IMUState,
    "unitree_hg/MotorCmd": MotorCmd,
    "unitree_hg/MotorState": MotorState,
}
NUMPY_TYPE = {"uint8": "u1", "uint32": "<u4", "int16": "<i2", "float": "<f4"}
C_TYPE = {"uint8": "std::uint8_t", "uint32": "std::uint32_t", "int16": "std::int16_t", "float": "float"}


def random_scalar(kind: str, rng: np.random.Generator) -> Any:
    if kind == "float":
        return float(np.float32(rng.normal(scale=100.0)))
    info = np.iinfo(NUMPY_TYPE[kind])
    return int(rng.integers(info.min, info.max, endpoint=True))


def random_message(cls: Any, rng: np.random.Generator) -> Any:
    """Every field of the message set to a random value, down to the last reserve word."""
    message = cls()
    for name, spec in cls.get_fields_and_field_types().items():
        kind, length = re.fullmatch(r"([\w/]+)(?:\[(\d+)\])?", spec).groups()  # type: ignore[union-attr]
        count = int(length or 1)
        if kind in NESTED:
            values = [random_message(NESTED[kind], rng) for _ in range(count)]
        else:
            values = [random_scalar(kind, rng) for _ in range(count)]
        setattr(message, name, values if length else values[0])
    return message


def cdr_leaves(cls: Any, prefix: str, offset: int) -> tuple[list[tuple[str, int, int]], int]:
    """(path, offset in the CDR body, size) of every scalar, by XCDR1's rule: align each to its own size."""
    leaves: list[tuple[str, int, int]] = []
    for name, spec in cls.get_fields_and_field_types().items():
        kind, length = re.fullmatch(r"([\w/]+)(?:\[(\d+)\])?", spec).groups()  # type: ignore[union-attr]
        for index in range(int(length or 1)):
            path = f"{prefix}{name}" + (f"[{index}]" if length else "")
            if kind in NESTED:
                inner, offset = cdr_leaves(NESTED[kind], path + ".", offset)
                leaves += inner
            else:
                size = np.dtype(NUMPY_TYPE[kind]).itemsize
                offset += -offset % size
                leaves.append((path, offset, size))
                offset += size
    return leaves, offset


def without_padding(cls: Any, cdr: bytes) -> bytes:
    """The CDR bytes with padding zeroed; rosidl leaves whatever the buffer held there."""
    leaves, end = cdr_leaves(cls, "", 0)
    assert end + 4 == len(cdr)
    out = bytearray(len(cdr))
    out[:4] = cdr[:4]
    for _, offset, size in leaves:
        out[4 + offset : 4 + offset + size] = cdr[4 + offset : 4 + offset + size]
    return bytes(out)


def bitwise_crc(words: np.ndarray) -> int:
    """The CRC written out bit by bit, sharing nothing with the implementation under test."""
    crc = 0xFFFFFFFF
    for word in words.tolist():
        for bit in range(31, -1, -1):
            feedback = (crc >> 31) ^ ((word >> bit) & 1)
            crc = (crc << 1) & 0xFFFFFFFF
            if feedback:
                crc ^= 0x04C11DB7
    return crc


@pytest.mark.parametrize(
    ("word", "expected"),
    # Published outputs of the CRC unit of STM32 microcontrollers, which implements this very CRC on words.
    [(0x00000000, 0xC704DD7B), (0xFFFFFFFF, 0x00000000), (0x12345678, 0xDF8A8A2B)],
)
def test_crc_of_one_word_is_the_published_value(word: int, expected: int) -> None:
    assert wire.crc32_words(word.to_bytes(4, "little")) == expected


def test_crc_follows_the_check_value_of_crc32_mpeg2() -> None:
    # The catalogue's check of CRC-32/MPEG-2 is over the nine bytes "123456789"; the first eight are two
    # whole words, the ninth is appended here by hand.
    crc = wire.crc32_words(b"4321" + b"8765")
    crc ^= ord("9") << 24
    for _ in range(8):
        crc = ((crc << 1) ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    assert crc == 0x0376E6E7


@pytest.mark.parametrize("words", [0, 1, 2, 250, 522])
def test_crc_equals_the_bitwise_definition(words: int) -> None:
    data = np.random.default_rng(words).integers(0, 2**32, words, dtype=np.uint32)
    assert wire.crc32_words(data.tobytes()) == bitwise_crc(data)
    assert wire.crc32_words(data) == bitwise_crc(data)


def test_crc_refuses_half_a_word() -> None:
    with pytest.raises(wire.WireError, match="whole 32-bit words"):
        wire.crc32_words(b"\0" * 6)


CASES = [
    pytest.param(LowCmd, wire.LOW_CMD_C, wire.low_cmd_to_c, wire.low_cmd_to_cdr, id="LowCmd"),
    pytest.param(LowState, wire.LOW_STATE_C, wire.low_state_to_c, wire.low_state_to_cdr, id="LowState"),
]


def record_of(message: Any, cls: Any, dtype: np.dtype) -> np.ndarray:
    """The C record filled from the ROS message attribute by attribute."""
    record = np.zeros((), dtype)

    def fill(target: np.ndarray, source: Any, kind: Any) -> None:
        for name, spec in kind.get_fields_and_field_types().items():
            base = spec.split("[")[0]
            value = getattr(source, name)
            if base not in NESTED:
                target[name] = value
            elif "[" in spec:
                for index, item in enumerate(value):
                    fill(target[name][index : index + 1].reshape(()), item, NESTED[base])
            else:
                fill(target[name], value, NESTED[base])

    fill(record, message, cls)
    return record


@pytest.mark.parametrize(("cls", "dtype", "to_c", "to_cdr"), CASES)
@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_those_of_rosidl_in_both_directions(
    cls: Any, dtype: np.dtype, to_c: Any, to_cdr: Any, seed: int
) -> None:
    message = random_message(cls, np.random.default_rng(seed))
    rosidl = serialize_message(message)
    record = record_of(message, cls, dtype)
    assert to_cdr(record) == without_padding(cls, rosidl)
    assert deserialize_message(to_cdr(record), cls) == message
    assert to_c(rosidl).tobytes() == record.tobytes()


@pytest.mark.parametrize("cls", [LowCmd, LowState])
def test_cdr_records_read_every_field_of_a_rosidl_message(cls: Any) -> None:
    message = random_message(cls, np.random.default_rng(7))
    cdr = serialize_message(message)
    record = wire.low_cmd_record(cdr) if cls is LowCmd else wire.low_state_record(cdr)
    motors = message.motor_cmd if cls is LowCmd else message.motor_state
    name = "motor_cmd" if cls is LowCmd else "motor_state"
    assert wire.motor_modes(record).tolist() == [motor.mode for motor in motors]
    for field in record[name].dtype.names:
        expected = np.array([getattr(motor, field) for motor in motors])
        np.testing.assert_array_equal(record[name][field], expected, err_msg=field)
    for field in set(record.dtype.names) & set(cls.get_fields_and_field_types()) - {name, "imu_state"}:
        np.testing.assert_array_equal(record[field], getattr(message, field), err_msg=field)
    if cls is LowState:
        for field in IMUState.get_fields_and_field_types():
            np.testing.assert_array_equal(record["imu_state"][field], getattr(message.imu_state, field))


@pytest.mark.parametrize(("cls", "dtype", "to_c", "to_cdr"), CASES)
def test_c_layout_is_the_one_the_compiler_makes(
    cls: Any, dtype: np.dtype, to_c: Any, to_cdr: Any, tmp_path: Path
) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "a C++ compiler is part of this workspace's requirements"
    leaves, _ = cdr_leaves(cls, "", 0)
    structs = []
    for kind in ([MotorCmd] if cls is LowCmd else [IMUState, MotorState]) + [cls]:
        members = []
        for name, spec in kind.get_fields_and_field_types().items():
            base, length = re.fullmatch(r"([\w/]+)(?:\[(\d+)\])?", spec).groups()  # type: ignore[union-attr]
            members.append(
                f"{C_TYPE.get(base, base.split('/')[-1])} {name}{f'[{length}]' if length else ''};"
            )
        structs.append(f"struct {kind.__name__} {{ {' '.join(members)} }};")
    prints = "\n".join(f'std::printf("%zu\\n", offsetof({cls.__name__}, {path}));' for path, _, _ in leaves)
    source = tmp_path / "layout.cpp"
    source.write_text(
        "#include <cstddef>\n#include <cstdint>\n#include <cstdio>\n"
        + "\n".join(structs)
        + f'\nint main() {{ std::printf("%zu\\n", sizeof({cls.__name__}));\n{prints}\n}}\n'
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, "-std=c++17", "-w", "-o", program, source], check=True)
    size, *offsets = map(int, subprocess.run([program], check=True, capture_output=True).stdout.split())
    assert size == dtype.itemsize == (1004 if cls is LowCmd else 2092)

    def offset_in(path: str) -> int:
        kind, offset = dtype, 0
        for step in path.split("."):
            name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", step).groups()  # type: ignore[union-attr]
            assert kind.fields is not None
            kind, start = kind.fields[name][:2]
            offset += start
            if index is not None:
                assert kind.subdtype is not None
                kind = kind.subdtype[0]
                offset += int(index) * kind.itemsize
        return offset

    assert [offset_in(path) for path, _, _ in leaves] == offsets


def test_crc_of_a_message_is_over_its_c_struct_and_ignores_padding_garbage() -> None:
    rng = np.random.default_rng(3)
    for cls, to_c, crc in [
        (LowCmd, wire.low_cmd_to_c, wire.low_cmd_crc),
        (LowState, wire.low_state_to_c, wire.low_state_crc),
    ]:
        clean = without_padding(cls, serialize_message(random_message(cls, rng)))
        expected = bitwise_crc(np.frombuffer(to_c(clean).tobytes(), "<u4")[:-1])
        assert crc(clean) == expected
        padding = [i for i in range(4, len(clean)) if not clean[i]]
        dirty = bytearray(clean)
        covered = {4 + offset + k for _, offset, size in cdr_leaves(cls, "", 0)[0] for k in range(size)}
        for index in padding:
            if index not in covered:
                dirty[index] = 0xA5
        assert dirty != clean
        assert crc(dirty) == expected


@pytest.mark.parametrize("cls", [LowCmd, LowState])
def test_any_flipped_data_bit_breaks_the_crc(cls: Any) -> None:
    seal = wire.seal_low_cmd if cls is LowCmd else wire.seal_low_state
    check = wire.low_cmd_crc_ok if cls is LowCmd else wire.low_state_crc_ok
    rng = np.random.default_rng(11)
    cdr = bytearray(without_padding(cls, serialize_message(random_message(cls, rng))))
    assert not check(cdr)
    seal(cdr)
    assert check(cdr)
    for _, offset, size in cdr_leaves(cls, "", 0)[0]:
        byte, bit = 4 + offset + int(rng.integers(size)), 1 << int(rng.integers(8))
        cdr[byte] ^= bit
        assert not check(cdr)
        cdr[byte] ^= bit


def test_foreign_bytes_are_refused_and_named() -> None:
    good = wire.LowCmdWriter(29).damping(5)
    with pytest.raises(wire.WireError, match="LowCmd: 1003 bytes, expected 1004"):
        wire.low_cmd_to_c(good[:-1])
    with pytest.raises(wire.WireError, match="encapsulation 00000000"):
        wire.low_cmd_to_c(b"\0\0\0\0" + good[4:])
    with pytest.raises(wire.WireError, match="LowState: 1004 bytes, expected 2092"):
        wire.read_low_state(good, 29)
    assert not wire.low_cmd_crc_ok(good[:-1])
    assert not wire.low_state_crc_ok(good)
    assert not wire.low_cmd_crc_ok(b"")


def test_written_command_is_read_back_by_rosidl_and_unused_slots_are_zero() -> None:
    rng = np.random.default_rng(5)
    writer = wire.LowCmdWriter(29)
    writer.command(9, *rng.normal(size=(5, 29)))  # what an earlier message left must not shine through
    q, dq, tau, kp, kd = rng.normal(size=(5, 29))
    cdr = writer.command(5, q, dq, tau, kp, kd)
    message = deserialize_message(cdr, LowCmd)
    assert (message.mode_machine, message.mode_pr) == (5, 0)
    for field, values in {"q": q, "dq": dq, "tau": tau, "kp": kp, "kd": kd}.items():
        sent = [getattr(motor, field) for motor in message.motor_cmd]
        np.testing.assert_array_equal(sent, [*values.astype(np.float32), *[0.0] * 6])
    assert [motor.mode for motor in message.motor_cmd] == [1] * 29 + [0] * 6
    assert all(motor.reserve == 0 for motor in message.motor_cmd)
    assert list(message.reserve) == [0] * 4
    assert message.crc == bitwise_crc(np.frombuffer(wire.low_cmd_to_c(cdr).tobytes(), "<u4")[:-1])


def test_damping_command_brakes_and_holds_nothing() -> None:
    message = deserialize_message(wire.LowCmdWriter(29).damping(5), LowCmd)
    assert message.mode_machine == 5
    assert wire.low_cmd_crc_ok(wire.LowCmdWriter(29).damping(5))
    for motor in message.motor_cmd[:29]:
        assert (motor.mode, motor.q, motor.dq, motor.tau, motor.kp, motor.kd) == (1, 0.0, 0.0, 0.0, 0.0, 8.0)


@pytest.mark.parametrize("count", [0, 36])
def test_writer_refuses_more_motors_than_a_message_holds(count: int) -> None:
    with pytest.raises(wire.WireError, match="1 to 35"):
        wire.LowCmdWriter(count)


def test_state_arrays_hold_what_rosidl_wrote() -> None:
    message = random_message(LowState, np.random.default_rng(13))
    state = wire.read_low_state(serialize_message(message), 29)
    motors = message.motor_state[:29]
    np.testing.assert_array_equal(state.joint_pos, [motor.q for motor in motors])
    np.testing.assert_array_equal(state.joint_vel, [motor.dq for motor in motors])
    np.testing.assert_array_equal(state.joint_effort, [motor.tau_est for motor in motors])
    np.testing.assert_array_equal(state.casing_temperature, [motor.temperature[0] for motor in motors])
    np.testing.assert_array_equal(state.winding_temperature, [motor.temperature[1] for motor in motors])
    np.testing.assert_array_equal(state.voltage, [motor.vol for motor in motors])
    np.testing.assert_array_equal(state.imu_quat, message.imu_state.quaternion)
    np.testing.assert_array_equal(state.imu_gyro, message.imu_state.gyroscope)
    np.testing.assert_array_equal(state.imu_accel, message.imu_state.accelerometer)
    assert (state.mode_machine, state.mode_pr, state.tick) == (
        message.mode_machine,
        message.mode_pr,
        message.tick,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "where", ["joint_pos", "joint_vel", "joint_effort", "imu_quat", "imu_gyro", "imu_accel"]
)
def test_one_non_finite_reading_makes_a_state_non_finite(where: str, value: float) -> None:
    state = wire.read_low_state(serialize_message(random_message(LowState, np.random.default_rng(1))), 29)
    assert state.finite()
    getattr(state, where)[-1] = value
    assert not state.finite()


def test_codec_is_fast_enough_for_500_messages_a_second() -> None:
    writer = wire.LowCmdWriter(29)
    values = np.linspace(0.0, 1.0, 29)
    state = bytearray(wire.LOW_STATE_SIZE)
    state[:4] = wire.ENCAPSULATION
    wire.seal_low_state(state)

    def cycle() -> None:
        assert wire.low_state_crc_ok(state)
        wire.read_low_state(state, 29)
        writer.command(5, values, values, values, values, values)

    # The best of many: a busy machine makes a single run slow, a slow codec makes them all slow.
    seconds = min(timeit.repeat(cycle, number=100, repeat=20)) / 100
    assert seconds < 200e-6, f"{seconds * 1e6:.0f} us for one read and one write"
