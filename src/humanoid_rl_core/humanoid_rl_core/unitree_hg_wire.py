"""LowCmd and LowState of the Unitree G1 as NumPy structured dtypes: DDS bytes, C layout and CRC.

The robot speaks ``unitree_hg`` over DDS at 500 Hz. The bytes of a message have two layouts:

``*_CDR``
    What travels on the wire and what ``rclpy.serialization.serialize_message`` yields: XCDR1, little-endian,
    behind a 4-byte encapsulation header. LowCmd 1004 bytes, LowState 2092 bytes.
``*_C``
    The C struct with the compiler's padding. Only its CRC matters: the vendor computes it over all 32-bit
    words but the last. LowCmd 1004 bytes, LowState 2092 bytes (the sizes equal the CDR ones by accident: the
    encapsulation header is as long as the padding that CDR leaves out in front of the first motor).

CDR does not align a struct, only its members, so ``mode`` of motor 0 lies closer to what precedes it than
``mode`` of the later motors does. The CDR dtypes therefore hold the modes apart from the rest of a motor:
``first_motor_mode``, ``later_motor_mode["mode"]`` (34) and ``motor_cmd`` / ``motor_state`` without ``mode``.
Their motor records overlap what follows: read and write them field by field
(``record["motor_cmd"]["q"][:] = ...``), never a whole motor at once. `motor_modes` reads all 35 modes.

Field layout: ``unitree_hg/msg`` of unitreerobotics/unitree_ros2. Units as there: rad, rad/s, Nm, degrees
Celsius, V; quaternions are (w, x, y, z); temperatures of a motor are (casing, winding).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bytes = bytes | bytearray | memoryview
Floats = NDArray[np.float64]

MOTOR_SLOTS = 35
"""Motors a message has room for; a G1 with 29 joints leaves the last six slots zero."""

MOTOR_ENABLED = 1
MOTOR_DISABLED = 0
MODE_PR_SERIES = 0
"""``mode_pr``: ankles and waist are commanded as pitch and roll joints, not as their two actuators."""

DAMPING_KD = 8.0
"""Nm s/rad: the damping every host falls back to (rules H3 and H8 of the architecture)."""

ENCAPSULATION = b"\x00\x01\x00\x00"
"""CDR header: plain XCDR1, little-endian, no options."""
_PLAIN_LITTLE_ENDIAN = (b"\x00\x01", b"\x00\x07")
# 0x0007 is plain XCDR2; it differs from XCDR1 only for 8-byte members, which these messages do not have.


class WireError(ValueError):
    """The bytes are not the message they claim to be (size or encapsulation)."""


def _packed(fields: list[tuple[Any, ...]], itemsize: int, offsets: dict[str, int]) -> np.dtype[np.void]:
    """A structured dtype with explicit offsets in bytes."""
    return np.dtype(
        {
            "names": [field[0] for field in fields],
            "formats": [field[1] if len(field) == 2 else (field[1], field[2]) for field in fields],
            "offsets": [offsets[field[0]] for field in fields],
            "itemsize": itemsize,
        }
    )


# --- C structs, padding as g++ lays them out on every platform the vendor ships -------------------------

MOTOR_CMD_C = np.dtype(
    [
        ("mode", "u1"),
        ("q", "<f4"),
        ("dq", "<f4"),
        ("tau", "<f4"),
        ("kp", "<f4"),
        ("kd", "<f4"),
        ("reserve", "<u4"),
    ],
    align=True,
)
LOW_CMD_C = np.dtype(
    [
        ("mode_pr", "u1"),
        ("mode_machine", "u1"),
        ("motor_cmd", MOTOR_CMD_C, (MOTOR_SLOTS,)),
        ("reserve", "<u4", (4,)),
        ("crc", "<u4"),
    ],
    align=True,
)
IMU_STATE_C = np.dtype(
    [
        ("quaternion", "<f4", (4,)),
        ("gyroscope", "<f4", (3,)),
        ("accelerometer", "<f4", (3,)),
        ("rpy", "<f4", (3,)),
        ("temperature", "<i2"),
    ],
    align=True,
)
MOTOR_STATE_C = np.dtype(
    [
        ("mode", "u1"),
        ("q", "<f4"),
        ("dq", "<f4"),
        ("ddq", "<f4"),
        ("tau_est", "<f4"),
        ("temperature", "<i2", (2,)),
        ("vol", "<f4"),
        ("sensor", "<u4", (2,)),
        ("motorstate", "<u4"),
        ("reserve", "<u4", (4,)),
    ],
    align=True,
)
LOW_STATE_C = np.dtype(
    [
        ("version", "<u4", (2,)),
        ("mode_pr", "u1"),
        ("mode_machine", "u1"),
        ("tick", "<u4"),
        ("imu_state", IMU_STATE_C),
        ("motor_state", MOTOR_STATE_C, (MOTOR_SLOTS,)),
        ("wireless_remote", "u1", (40,)),
        ("reserve", "<u4", (4,)),
        ("crc", "<u4"),
    ],
    align=True,
)

# --- CDR: offsets include the 4-byte encapsulation header -----------------------------------------------

_CMD_STRIDE = MOTOR_CMD_C.itemsize
_STATE_STRIDE = MOTOR_STATE_C.itemsize


def _without_mode(motor: np.dtype[np.void]) -> np.dtype[np.void]:
    """A motor as CDR lays it out from its first float on; same stride as in C."""
    assert motor.fields is not None and motor.names is not None
    start = motor.fields["q"][1]
    names = [name for name in motor.names if name != "mode"]
    return np.dtype(
        {
            "names": names,
            "formats": [motor.fields[name][0] for name in names],
            "offsets": [motor.fields[name][1] - start for name in names],
            "itemsize": motor.itemsize,
        }
    )


def _mode_only(stride: int) -> np.dtype[np.void]:
    return np.dtype({"names": ["mode"], "formats": ["u1"], "offsets": [0], "itemsize": stride})


LOW_CMD_CDR = _packed(
    [
        ("encapsulation", "u1", (4,)),
        ("mode_pr", "u1"),
        ("mode_machine", "u1"),
        ("first_motor_mode", "u1"),
        ("later_motor_mode", _mode_only(_CMD_STRIDE), (MOTOR_SLOTS - 1,)),
        ("motor_cmd", _without_mode(MOTOR_CMD_C), (MOTOR_SLOTS,)),
        ("reserve", "<u4", (4,)),
        ("crc", "<u4"),
    ],
    1004,
    {
        "encapsulation": 0,
        "mode_pr": 4,
        "mode_machine": 5,
        "first_motor_mode": 6,
        "motor_cmd": 8,
        "later_motor_mode": 32,
        "reserve": 984,
        "crc": 1000,
    },
)

IMU_STATE_CDR = _packed(
    [
        ("quaternion", "<f4", (4,)),
        ("gyroscope", "<f4", (3,)),
        ("accelerometer", "<f4", (3,)),
        ("rpy", "<f4", (3,)),
        ("temperature", "<i2"),
    ],
    54,
    {"quaternion": 0, "gyroscope": 16, "accelerometer": 28, "rpy": 40, "temperature": 52},
)
LOW_STATE_CDR = _packed(
    [
        ("encapsulation", "u1", (4,)),
        ("version", "<u4", (2,)),
        ("mode_pr", "u1"),
        ("mode_machine", "u1"),
        ("tick", "<u4"),
        ("imu_state", IMU_STATE_CDR),
        ("first_motor_mode", "u1"),
        ("later_motor_mode", _mode_only(_STATE_STRIDE), (MOTOR_SLOTS - 1,)),
        ("motor_state", _without_mode(MOTOR_STATE_C), (MOTOR_SLOTS,)),
        ("wireless_remote", "u1", (40,)),
        ("reserve", "<u4", (4,)),
        ("crc", "<u4"),
    ],
    2092,
    {
        "encapsulation": 0,
        "version": 4,
        "mode_pr": 12,
        "mode_machine": 13,
        "tick": 16,
        "imu_state": 20,
        "first_motor_mode": 74,
        "motor_state": 76,
        "later_motor_mode": 128,
        "wireless_remote": 2032,
        "reserve": 2072,
        "crc": 2088,
    },
)

LOW_CMD_SIZE = LOW_CMD_CDR.itemsize
LOW_STATE_SIZE = LOW_STATE_CDR.itemsize


def _data_mask(dtype: np.dtype[Any], size: int) -> NDArray[np.uint8]:
    """[size] uint8: 0xFF where ``dtype`` has data, 0 where it has padding."""
    mask = np.zeros(size, np.uint8)

    def mark(part: np.dtype[Any], offset: int) -> None:
        if part.subdtype is not None:
            base, shape = part.subdtype
            for index in range(int(np.prod(shape))):
                mark(base, offset + index * base.itemsize)
        elif part.fields is not None:
            for entry in part.fields.values():
                mark(entry[0], offset + entry[1])
        else:
            mask[offset : offset + part.itemsize] = 0xFF

    mark(dtype, 0)
    return mask


_CMD_C_MASK = _data_mask(LOW_CMD_C, LOW_CMD_C.itemsize)
_STATE_C_MASK = _data_mask(LOW_STATE_C, LOW_STATE_C.itemsize)

# --- CRC ------------------------------------------------------------------------------------------------

_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def crc32_words(data: Bytes | NDArray[Any]) -> int:
    """The vendor's CRC of 32-bit little-endian words, most significant bit of each word first.

    Polynomial 0x04C11DB7, initial value 0xFFFFFFFF, no final xor: CRC-32/MPEG-2 over the bytes of each word
    in reversed order. zlib computes the mirror image of that CRC (least significant bit first, inverted at
    the end), so the bits of every word are reversed, zlib does the work, and the result is reversed back.

    :param data: contiguous bytes, a whole number of words.
    :raises WireError: the length is not a multiple of 4.
    """
    view = (
        np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data.reshape(-1).view(np.uint8)
    )
    if view.size % 4:
        raise WireError(f"a CRC covers whole 32-bit words, {view.size} bytes are not")
    mirrored = view.view("<u4").byteswap().tobytes().translate(_REVERSED_BITS)
    value = zlib.crc32(mirrored) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


# --- between the layouts --------------------------------------------------------------------------------


def _checked(cdr: Bytes, size: int, message: str) -> NDArray[np.uint8]:
    view = np.frombuffer(cdr, np.uint8)
    if view.size != size:
        raise WireError(f"{message}: {view.size} bytes, expected {size}")
    if bytes(view[:2]) not in _PLAIN_LITTLE_ENDIAN:
        raise WireError(f"{message}: encapsulation {bytes(view[:4]).hex()} is not plain little-endian CDR")
    return view


def _cmd_c_bytes(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[1004] uint8: C layout of LowCmd with zeroed padding."""
    out = np.zeros(LOW_CMD_C.itemsize, np.uint8)
    out[0:2] = view[4:6]
    out[4] = view[6]
    out[8:] = view[8:]
    out &= _CMD_C_MASK
    return out


def _state_c_bytes(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[2092] uint8: C layout of LowState with zeroed padding."""
    out = np.zeros(LOW_STATE_C.itemsize, np.uint8)
    out[0:70] = view[4:74]
    out[72] = view[74]
    out[76:] = view[76:]
    out &= _STATE_C_MASK
    return out


def low_cmd_to_c(cdr: Bytes) -> NDArray[np.void]:
    """A copy in C layout, shape () with dtype `LOW_CMD_C`, padding zero.

    :raises WireError: not a LowCmd.
    """
    return _cmd_c_bytes(_checked(cdr, LOW_CMD_SIZE, "LowCmd")).view(LOW_CMD_C)[0:1].reshape(())


def low_state_to_c(cdr: Bytes) -> NDArray[np.void]:
    """A copy in C layout, shape () with dtype `LOW_STATE_C`, padding zero.

    :raises WireError: not a LowState.
    """
    return _state_c_bytes(_checked(cdr, LOW_STATE_SIZE, "LowState")).view(LOW_STATE_C)[0:1].reshape(())


def low_cmd_to_cdr(record: NDArray[np.void] | np.void) -> bytes:
    """DDS bytes of one `LOW_CMD_C` record, CRC taken as it stands, padding zero."""
    c = np.frombuffer(np.asarray(record, LOW_CMD_C).tobytes(), np.uint8) & _CMD_C_MASK
    out = np.zeros(LOW_CMD_SIZE, np.uint8)
    out[0:4] = np.frombuffer(ENCAPSULATION, np.uint8)
    out[4:6] = c[0:2]
    out[6] = c[4]
    out[8:] = c[8:]
    return out.tobytes()


def low_state_to_cdr(record: NDArray[np.void] | np.void) -> bytes:
    """DDS bytes of one `LOW_STATE_C` record, CRC taken as it stands, padding zero."""
    c = np.frombuffer(np.asarray(record, LOW_STATE_C).tobytes(), np.uint8) & _STATE_C_MASK
    out = np.zeros(LOW_STATE_SIZE, np.uint8)
    out[0:4] = np.frombuffer(ENCAPSULATION, np.uint8)
    out[4:74] = c[0:70]
    out[74] = c[72]
    out[76:] = c[76:]
    return out.tobytes()


def low_cmd_crc(cdr: Bytes) -> int:
    """The CRC a LowCmd ought to carry. :raises WireError: not a LowCmd."""
    return crc32_words(_cmd_c_bytes(_checked(cdr, LOW_CMD_SIZE, "LowCmd"))[:-4])


def low_state_crc(cdr: Bytes) -> int:
    """The CRC a LowState ought to carry. :raises WireError: not a LowState."""
    return crc32_words(_state_c_bytes(_checked(cdr, LOW_STATE_SIZE, "LowState"))[:-4])


def low_cmd_crc_ok(cdr: Bytes) -> bool:
    """Whether the stored CRC is right; False too when the bytes are no LowCmd at all."""
    try:
        return low_cmd_crc(cdr) == int.from_bytes(cdr[-4:], "little")
    except WireError:
        return False


def low_state_crc_ok(cdr: Bytes) -> bool:
    """Whether the stored CRC is right; False too when the bytes are no LowState at all."""
    try:
        return low_state_crc(cdr) == int.from_bytes(cdr[-4:], "little")
    except WireError:
        return False


def seal_low_cmd(cdr: bytearray) -> None:
    """Computes the CRC of a LowCmd and stores it in place."""
    cdr[-4:] = low_cmd_crc(cdr).to_bytes(4, "little")


def seal_low_state(cdr: bytearray) -> None:
    """Computes the CRC of a LowState and stores it in place."""
    cdr[-4:] = low_state_crc(cdr).to_bytes(4, "little")


def low_cmd_record(cdr: Bytes) -> NDArray[np.void]:
    """The message as a record of dtype `LOW_CMD_CDR`, shape (), sharing memory with ``cdr``.

    Writable when ``cdr`` is a bytearray. :raises WireError: not a LowCmd.
    """
    _checked(cdr, LOW_CMD_SIZE, "LowCmd")
    return np.frombuffer(cdr, LOW_CMD_CDR).reshape(())


def low_state_record(cdr: Bytes) -> NDArray[np.void]:
    """The message as a record of dtype `LOW_STATE_CDR`, shape (), sharing memory with ``cdr``.

    Writable when ``cdr`` is a bytearray. :raises WireError: not a LowState.
    """
    _checked(cdr, LOW_STATE_SIZE, "LowState")
    return np.frombuffer(cdr, LOW_STATE_CDR).reshape(())


def motor_modes(record: NDArray[np.void]) -> NDArray[np.uint8]:
    """[35] uint8: ``mode`` of every motor of a CDR record."""
    return np.concatenate([record["first_motor_mode"][None], record["later_motor_mode"]["mode"]])


# --- reading and writing at 500 Hz ----------------------------------------------------------------------


@dataclass(slots=True)
class LowStateArrays:
    """One LowState as float64 arrays in motor order; ``n`` is the robot's number of joints."""

    mode_pr: int
    mode_machine: int
    tick: int
    """ms since power-on, wraps at 2**32."""
    joint_pos: Floats
    """[n] rad."""
    joint_vel: Floats
    """[n] rad/s."""
    joint_effort: Floats
    """[n] Nm, the motor's own estimate."""
    imu_quat: Floats
    """[4] w, x, y, z: world from IMU."""
    imu_gyro: Floats
    """[3] rad/s, IMU frame."""
    imu_accel: Floats
    """[3] m/s^2, IMU frame, gravity included (+9.81 on z when upright and at rest)."""
    casing_temperature: Floats
    """[n] degrees Celsius."""
    winding_temperature: Floats
    """[n] degrees Celsius."""
    voltage: Floats
    """[n] V."""

    def finite(self) -> bool:
        """Whether all that a controller feeds on (joints and IMU) is finite."""
        total = (
            self.joint_pos.sum()
            + self.joint_vel.sum()
            + self.joint_effort.sum()
            + self.imu_quat.sum()
            + self.imu_gyro.sum()
            + self.imu_accel.sum()
        )
        # A float64 sum of float32 values cannot overflow, so it is finite exactly when every term is.
        return bool(np.isfinite(total))


def read_low_state(cdr: Bytes, motor_count: int) -> LowStateArrays:
    """Copies the first ``motor_count`` motors and the IMU out of a LowState. The CRC is not looked at.

    :raises WireError: not a LowState.
    """
    record = low_state_record(cdr)
    motors = record["motor_state"][:motor_count]
    imu = record["imu_state"]
    temperature = motors["temperature"].astype(np.float64)
    return LowStateArrays(
        mode_pr=int(record["mode_pr"]),
        mode_machine=int(record["mode_machine"]),
        tick=int(record["tick"]),
        joint_pos=motors["q"].astype(np.float64),
        joint_vel=motors["dq"].astype(np.float64),
        joint_effort=motors["tau_est"].astype(np.float64),
        imu_quat=imu["quaternion"].astype(np.float64),
        imu_gyro=imu["gyroscope"].astype(np.float64),
        imu_accel=imu["accelerometer"].astype(np.float64),
        casing_temperature=temperature[:, 0],
        winding_temperature=temperature[:, 1],
        voltage=motors["vol"].astype(np.float64),
    )


class LowCmdWriter:
    """Builds sealed LowCmd messages for a robot of ``motor_count`` joints in one reused buffer.

    Unused motor slots, reserve words and padding stay zero. The returned bytes are a copy.
    """

    def __init__(self, motor_count: int) -> None:
        if not 0 < motor_count <= MOTOR_SLOTS:
            raise WireError(f"a LowCmd has room for 1 to {MOTOR_SLOTS} motors, not {motor_count}")
        self.motor_count = motor_count
        self._buffer = bytearray(LOW_CMD_SIZE)
        self._buffer[0:4] = ENCAPSULATION
        self._record = low_cmd_record(self._buffer)
        motors = self._record["motor_cmd"][:motor_count]
        self._q, self._dq, self._tau = motors["q"], motors["dq"], motors["tau"]
        self._kp, self._kd = motors["kp"], motors["kd"]
        self._later_modes = self._record["later_motor_mode"]["mode"][: motor_count - 1]

    def command(
        self,
        mode_machine: int,
        q: ArrayLike,
        dq: ArrayLike,
        tau: ArrayLike,
        kp: ArrayLike,
        kd: ArrayLike,
        *,
        mode: int = MOTOR_ENABLED,
        mode_pr: int = MODE_PR_SERIES,
    ) -> bytes:
        """DDS bytes of one command, CRC included.

        :param mode_machine: as read from the robot's LowState; it ignores a command with another.
        :param q, dq, tau, kp, kd: [n] or scalar; rad, rad/s, Nm, Nm/rad, Nm s/rad, motor order.
        :param mode: of every motor, `MOTOR_ENABLED` or `MOTOR_DISABLED`.
        """
        record = self._record
        record["mode_pr"] = mode_pr
        record["mode_machine"] = mode_machine
        record["first_motor_mode"] = mode
        self._later_modes[:] = mode
        self._q[:] = q
        self._dq[:] = dq
        self._tau[:] = tau
        self._kp[:] = kp
        self._kd[:] = kd
        seal_low_cmd(self._buffer)
        return bytes(self._buffer)

    def damping(self, mode_machine: int, kd: float = DAMPING_KD) -> bytes:
        """DDS bytes of the command that only brakes: kp 0, target velocity 0, no feed-forward."""
        return self.command(mode_machine, 0.0, 0.0, 0.0, 0.0, kd)
