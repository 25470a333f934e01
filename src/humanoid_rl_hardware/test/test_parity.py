"""The rules in C++ (the core of the ros2_control host) against the rules in Python, case by case.

Both hosts promise the same behaviour. Here the same inputs, random and at the edges, go through both
implementations; test/cpp/c_interface.cpp makes the C++ one callable.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from humanoid_rl_core.robot import RobotModel
from humanoid_rl_hardware.host_rules import CYCLE_PERIOD, Damping, HostRules, Reply
from humanoid_rl_hardware.joint_targets import (
    FIELDS,
    MAX_DAMPING,
    MAX_STIFFNESS,
    JointMap,
    JointTargets,
    RefusedCommandError,
)
from humanoid_rl_hardware.period_statistics import PeriodStatistics
from humanoid_rl_hardware.torque_limits import TorqueLimiter

from humanoid_rl_core import unitree_hg_wire as wire

Floats = np.ndarray

SILENT, DAMPING, FOLLOW = range(3)
"""Values of enum class Output."""


class Answer(ctypes.Structure):
    _fields_ = (("success", ctypes.c_int), ("message", ctypes.c_char_p))

    def reply(self) -> Reply:
        return Reply(bool(self.success), self.message.decode())


class Errors(ctypes.Structure):
    _fields_ = (("p50", ctypes.c_double), ("p99", ctypes.c_double), ("max", ctypes.c_double))


POINTER, SIZE, REAL, TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double, ctypes.c_char_p
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "wire_crc32_words": (ctypes.c_uint32, [POINTER, SIZE]),
    "wire_low_cmd_crc": (ctypes.c_uint32, [POINTER]),
    "wire_low_state_crc": (ctypes.c_uint32, [POINTER]),
    "wire_damping": (None, [ctypes.c_uint8, SIZE, POINTER]),
    "wire_command": (None, [ctypes.c_uint8, SIZE, POINTER, POINTER]),
    "check_create": (POINTER, [POINTER, SIZE, SIZE]),
    "check_destroy": (None, [POINTER]),
    "check_check": (TEXT, [POINTER, POINTER]),
    "check_mode_machine": (ctypes.c_uint8, [POINTER]),
    "check_rejected": (ctypes.c_uint64, [POINTER]),
    "limiter_create": (POINTER, [SIZE, POINTER, POINTER, POINTER, POINTER]),
    "limiter_destroy": (None, [POINTER]),
    "limiter_clamp": (None, [POINTER, POINTER, POINTER, POINTER]),
    "map_create": (POINTER, [POINTER, SIZE]),
    "map_destroy": (None, [POINTER]),
    "map_targets": (TEXT, [POINTER, POINTER, SIZE, POINTER, POINTER, POINTER]),
    "rules_create": (POINTER, [REAL, REAL]),
    "rules_destroy": (None, [POINTER]),
    "rules_activate": (Answer, [POINTER]),
    "rules_deactivate": (Answer, [POINTER]),
    "rules_estop": (Answer, [POINTER]),
    "rules_reset": (Answer, [POINTER, REAL]),
    "rules_receive_targets": (ctypes.c_int, [POINTER, REAL]),
    "rules_refuse_targets": (None, [POINTER]),
    "rules_step": (ctypes.c_int, [POINTER, REAL, REAL]),
    "rules_state": (ctypes.c_int, [POINTER]),
    "rules_cause": (TEXT, [POINTER]),
    "rules_fault": (TEXT, [POINTER]),
    "rules_activated": (ctypes.c_int, [POINTER]),
    "rules_rejected_commands": (ctypes.c_uint64, [POINTER]),
    "statistics_create": (POINTER, [REAL, REAL]),
    "statistics_destroy": (None, [POINTER]),
    "statistics_tick": (None, [POINTER, REAL]),
    "statistics_pause": (None, [POINTER]),
    "statistics_errors": (Errors, [POINTER]),
}


@pytest.fixture(scope="module")
def cpp(cpp_build: Path) -> ctypes.CDLL:
    path = cpp_build / "libhumanoid_rl_hardware_parity.so"
    if not path.exists():
        pytest.fail(f"{path} is missing: run `make build`", pytrace=False)
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def address(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


def packed(targets: JointTargets) -> Floats:
    """[5, 35] as C++ holds targets; what no joint uses is NaN, and nobody may look at it."""
    values = np.full((len(FIELDS), wire.MOTOR_SLOTS), np.nan)
    for row, field in zip(values, astuple(targets), strict=True):
        row[: field.size] = field
    return values


def words(text: str) -> str:
    """The text without its numbers: what kind of message it is."""
    return " ".join(word for word in text.split() if word.isalpha())


def unpacked(values: Floats, n: int) -> JointTargets:
    return JointTargets(*values[:, :n])


def random_targets(robot: RobotModel, rng: np.random.Generator, size: float) -> JointTargets:
    """Targets ``size`` times as large as the robot's limits, some without stiffness or damping."""
    n = len(robot.joint_names)
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    span = robot.position_upper - robot.position_lower
    return JointTargets(
        position=middle + size * span * rng.uniform(-1, 1, n),
        velocity=size * robot.velocity_limit * rng.uniform(-1, 1, n),
        effort=size * robot.effort_limit * rng.uniform(-1, 1, n),
        stiffness=MAX_STIFFNESS * rng.uniform(0, 1, n) ** 3 * rng.integers(0, 2, n),
        damping=MAX_DAMPING * rng.uniform(0, 1, n) ** 3 * rng.integers(0, 2, n),
    )


# --- wire -----------------------------------------------------------------------------------------------


def low_cmd_bytes(record: np.ndarray) -> np.ndarray:
    """[1004] uint8."""
    return np.frombuffer(record.tobytes(), np.uint8).copy()


@pytest.mark.parametrize("words", [0, 1, 2, 250, 522])
def test_crc_of_words_is_the_same(cpp: ctypes.CDLL, words: int) -> None:
    rng = np.random.default_rng(words)
    for _ in range(200):
        data = rng.integers(0, 256, 4 * words, dtype=np.uint8)
        assert cpp.wire_crc32_words(address(data), words) == wire.crc32_words(data)


def test_crc_of_messages_is_the_same(cpp: ctypes.CDLL) -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        command = rng.integers(0, 256, wire.LOW_CMD_SIZE, dtype=np.uint8)
        command[:4] = list(wire.ENCAPSULATION)
        record = low_cmd_bytes(wire.low_cmd_to_c(command.tobytes()))
        assert cpp.wire_low_cmd_crc(address(record)) == wire.low_cmd_crc(command.tobytes())
        state = rng.integers(0, 256, wire.LOW_STATE_SIZE, dtype=np.uint8)
        state[:4] = list(wire.ENCAPSULATION)
        record = low_cmd_bytes(wire.low_state_to_c(state.tobytes()))
        assert cpp.wire_low_state_crc(address(record)) == wire.low_state_crc(state.tobytes())


@pytest.mark.parametrize("motors", [1, 28, 29, 35])
def test_damping_command_is_the_same_to_the_byte(cpp: ctypes.CDLL, motors: int) -> None:
    writer = wire.LowCmdWriter(motors)
    for mode_machine in range(256):
        out = np.full(wire.LOW_CMD_C.itemsize, 0xA5, np.uint8)  # what was there before
        cpp.wire_damping(mode_machine, motors, address(out))
        assert out.tobytes() == wire.low_cmd_to_c(writer.damping(mode_machine)).tobytes()


@pytest.mark.parametrize("motors", [1, 28, 29, 35])
def test_joint_command_is_the_same_to_the_byte(cpp: ctypes.CDLL, motors: int) -> None:
    rng = np.random.default_rng(motors)
    writer = wire.LowCmdWriter(motors)
    for _ in range(500):
        exponents = rng.uniform(-46, 38, (len(FIELDS), motors))  # denormal and zero float32 among them
        targets = JointTargets(*(rng.uniform(-1, 1, exponents.shape) * 10.0**exponents))
        mode_machine = int(rng.integers(256))
        out = np.full(wire.LOW_CMD_C.itemsize, 0xA5, np.uint8)
        values = packed(targets)
        cpp.wire_command(mode_machine, motors, address(values), address(out))
        expected = writer.command(mode_machine, *astuple(targets))
        assert out.tobytes() == wire.low_cmd_to_c(expected).tobytes()


# --- LowState -------------------------------------------------------------------------------------------


def random_state(robot: RobotModel, rng: np.random.Generator, tick: int) -> tuple[bytes, bytes]:
    """A LowState, valid or with up to three faults at once, as DDS bytes and as C struct."""
    n = len(robot.joint_names)
    record = np.zeros((), wire.LOW_STATE_C)
    record["mode_machine"] = robot.mode_machine[0]
    record["tick"] = tick
    motors, imu = record["motor_state"], record["imu_state"]
    for field in ("q", "dq", "ddq", "tau_est", "vol"):
        motors[field] = rng.normal(scale=10.0, size=wire.MOTOR_SLOTS)
    quaternion = rng.normal(size=4)
    imu["quaternion"] = quaternion / np.linalg.norm(quaternion)
    for field in ("gyroscope", "accelerometer", "rpy"):
        imu[field] = rng.normal(size=3)
    bad = rng.choice([np.nan, np.inf, -np.inf, 3e38])
    faults: list[Any] = [
        lambda: record.__setitem__("mode_machine", rng.integers(256)),
        lambda: motors["q"].__setitem__(rng.integers(wire.MOTOR_SLOTS), bad),
        lambda: motors["dq"].__setitem__(rng.integers(wire.MOTOR_SLOTS), bad),
        lambda: motors["tau_est"].__setitem__(rng.integers(wire.MOTOR_SLOTS), bad),
        lambda: motors["ddq"].__setitem__(rng.integers(n), bad),
        lambda: motors["vol"].__setitem__(rng.integers(n), bad),
        lambda: imu["gyroscope"].__setitem__(rng.integers(3), bad),
        lambda: imu["accelerometer"].__setitem__(rng.integers(3), bad),
        lambda: imu["rpy"].__setitem__(rng.integers(3), bad),
        lambda: imu["quaternion"].__setitem__(rng.integers(4), bad),
        lambda: imu["quaternion"].__imul__(rng.uniform(0.85, 1.15)),
        lambda: imu["quaternion"].fill(0.0),
    ]
    for fault in rng.choice(len(faults), rng.integers(0, 4), replace=False):
        faults[fault]()
    cdr = bytearray(wire.low_state_to_cdr(record))
    wire.seal_low_state(cdr)
    if rng.random() < 0.1:
        cdr[-1] ^= 1
    return bytes(cdr), wire.low_state_to_c(cdr).tobytes()


@pytest.mark.parametrize(
    ("mode_machines", "first_tick"), [((5,), 0), ((6, 5, 20), 2**32 - 1000), ((255, 0), 1)]
)
def test_every_low_state_is_judged_the_same(
    cpp: ctypes.CDLL, robot: RobotModel, mode_machines: tuple[int, ...], first_tick: int
) -> None:
    rng = np.random.default_rng(2)
    n = len(robot.joint_names)
    model = replace(robot, mode_machine=mode_machines)
    rules = HostRules(model)
    allowed = np.array(mode_machines, np.uint8)
    check = cpp.check_create(address(allowed), allowed.size, n)
    verdicts: dict[str, int] = {}
    tick = first_tick
    for _ in range(4000):
        cdr, record = random_state(model, rng, tick)
        python = rules.receive_state(1.0, wire.read_low_state(cdr, n), wire.low_state_crc_ok(cdr))
        assert cpp.check_check(check, record).decode() == python
        assert cpp.check_mode_machine(check) == rules.mode_machine
        assert cpp.check_rejected(check) == rules.rejected_states
        verdicts[words(python)] = verdicts.get(words(python), 0) + 1
        tick = (tick + int(rng.integers(0, 2))) % 2**32
    cpp.check_destroy(check)
    assert len(verdicts) == 6, verdicts
    assert min(verdicts.values()) > 20, verdicts


# --- limits ---------------------------------------------------------------------------------------------


@pytest.fixture
def limiter(cpp: ctypes.CDLL, robot: RobotModel) -> Iterator[int]:
    limits = [
        np.ascontiguousarray(limit, np.float64)
        for limit in (
            robot.position_lower,
            robot.position_upper,
            robot.velocity_limit,
            robot.effort_limit,
        )
    ]
    handle = cpp.limiter_create(limits[0].size, *map(address, limits))
    yield handle
    cpp.limiter_destroy(handle)


def assert_clamped_the_same(
    cpp: ctypes.CDLL, limiter: int, robot: RobotModel, targets: JointTargets, q: Floats, dq: Floats
) -> None:
    n = len(robot.joint_names)
    values = packed(targets)
    cpp.limiter_clamp(limiter, address(values), address(q), address(dq))
    with np.errstate(over="ignore"):  # a quotient that is then not used
        expected = TorqueLimiter(robot).clamp(targets, q, dq)
    sent = unpacked(values, n)
    for field in FIELDS:
        np.testing.assert_allclose(
            getattr(sent, field), getattr(expected, field), rtol=1e-12, atol=1e-12, err_msg=field
        )
    assert np.isnan(values[:, n:]).all()


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0, 1e6])
def test_targets_are_clamped_the_same(cpp: ctypes.CDLL, limiter: int, robot: RobotModel, size: float) -> None:
    rng = np.random.default_rng(3)
    n = len(robot.joint_names)
    middle = 0.5 * (robot.position_lower + robot.position_upper)
    span = robot.position_upper - robot.position_lower
    for _ in range(2000):
        # The joints are where the limits may be broken too: a robot can be pushed past its soft limits.
        joint_pos = middle + 0.6 * span * rng.uniform(-1, 1, n)
        joint_vel = 1.5 * robot.velocity_limit * rng.uniform(-1, 1, n)
        targets = random_targets(robot, rng, size)
        assert_clamped_the_same(cpp, limiter, robot, targets, joint_pos, joint_vel)


def test_targets_on_the_edges_are_clamped_the_same(cpp: ctypes.CDLL, limiter: int, robot: RobotModel) -> None:
    n = len(robot.joint_names)
    rng = np.random.default_rng(4)
    tiny = np.nextafter(0.0, 1.0)
    positions = [robot.position_lower, robot.position_upper, np.zeros(n), np.full(n, 1e300), np.full(n, -0.0)]
    velocities = [robot.velocity_limit, -robot.velocity_limit, np.zeros(n), np.full(n, 1e300)]
    efforts = [robot.effort_limit, -robot.effort_limit, np.zeros(n), np.full(n, -1e300)]
    stiffnesses = [np.zeros(n), np.full(n, tiny), np.full(n, MAX_STIFFNESS)]
    dampings = [np.zeros(n), np.full(n, tiny), np.full(n, MAX_DAMPING)]
    every = (positions, velocities, efforts, stiffnesses, dampings, positions[:3], velocities[:3])
    for _ in range(3000):
        *fields, q, dq = (choices[rng.integers(len(choices))] for choices in every)
        assert_clamped_the_same(cpp, limiter, robot, JointTargets(*fields), q.copy(), dq.copy())


# --- joint commands -------------------------------------------------------------------------------------


class CppJointMap:
    def __init__(self, cpp: ctypes.CDLL, joint_names: Sequence[str]) -> None:
        self._cpp = cpp
        self._handle = cpp.map_create(self._texts(joint_names), len(joint_names))

    @staticmethod
    def _texts(texts: Sequence[str]) -> Any:
        return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))

    def targets(self, names: Sequence[str], fields: Sequence[Floats], values: Floats) -> str:
        addresses = (ctypes.c_void_p * len(FIELDS))(*map(address, fields))
        sizes = (ctypes.c_size_t * len(FIELDS))(*(field.size for field in fields))
        refusal = self._cpp.map_targets(
            self._handle, self._texts(names), len(names), addresses, sizes, address(values)
        )
        return str(refusal.decode())

    def close(self) -> None:
        self._cpp.map_destroy(self._handle)


def random_command(
    robot: RobotModel, rng: np.random.Generator, names: list[str]
) -> tuple[list[str], list[Floats]]:
    """A joint command, good or with up to two faults."""
    n = len(robot.joint_names)
    fields = [
        np.ascontiguousarray(values) for values in astuple(random_targets(robot, rng, rng.choice([0.1, 10])))
    ]
    names = list(names)
    odd_values = [np.nan, -np.nan, np.inf, -np.inf, -0.0, -1e-9, 1e-7, 1000.0, 1000.0001, 123456789.0, -1e300]

    def odd_value() -> None:
        field = fields[rng.integers(len(FIELDS))]
        if field.size:
            field[rng.integers(field.size)] = rng.choice(odd_values)

    def odd_name() -> None:
        if names:
            names[rng.integers(len(names))] = str(rng.choice(["", "left_kne_joint", "x" * 300, "gelenk_ä"]))

    def twice() -> None:
        if names:
            names[rng.integers(len(names))] = names[0]

    def shorter() -> None:
        row = rng.integers(len(FIELDS))
        fields[row] = fields[row][: rng.integers(n)].copy()

    def longer() -> None:
        row = rng.integers(len(FIELDS))
        fields[row] = np.concatenate((fields[row], [0.0]))

    def fewer_joints() -> None:
        count = int(rng.integers(n))
        del names[count:]
        fields[:] = [field[:count].copy() for field in fields]

    def fewer_names() -> None:
        del names[rng.integers(n) :]

    def more_joints() -> None:
        names.append(robot.joint_names[rng.integers(n)])

    def swapped() -> None:
        rng.shuffle(names)

    changes = [odd_value, odd_name, twice, shorter, longer, fewer_joints, fewer_names, more_joints, swapped]
    for change in rng.choice(len(changes), rng.integers(0, 3), replace=False):
        changes[change]()
    return names, fields


def test_joint_commands_are_mapped_or_refused_the_same(cpp: ctypes.CDLL, robot: RobotModel) -> None:
    rng = np.random.default_rng(5)
    n = len(robot.joint_names)
    taken = 0
    refusals: set[str] = set()
    for _ in range(100):
        # New ones every now and then: each keeps the order it saw last.
        python_map, cpp_map = JointMap(robot.joint_names), CppJointMap(cpp, robot.joint_names)
        usual = [robot.joint_names[i] for i in rng.permutation(n)]
        for _ in range(50):
            names, fields = random_command(robot, rng, usual)
            before = packed(random_targets(robot, rng, 1.0))
            values = before.copy()
            answer = cpp_map.targets(names, fields, values)
            try:
                targets = python_map.targets(names, dict(zip(FIELDS, fields, strict=True)))
            except RefusedCommandError as error:
                # The hint at the nearest name is Python's alone.
                assert answer == str(error).partition(", did you mean")[0]
                np.testing.assert_array_equal(values, before)
                refusals.add(" ".join(answer.split()[2:4]))
            else:
                assert answer == ""
                np.testing.assert_array_equal(values[:, :n], astuple(targets))
                taken += 1
        cpp_map.close()
    assert taken > 500
    assert len(refusals) > 20, refusals


def test_command_without_names_is_refused_the_same_by_who_never_saw_one(
    cpp: ctypes.CDLL, robot: RobotModel
) -> None:
    n = len(robot.joint_names)
    for count in (0, n):
        fields = [np.zeros(count) for _ in FIELDS]
        with pytest.raises(RefusedCommandError) as refusal:
            JointMap(robot.joint_names).targets([], dict(zip(FIELDS, fields, strict=True)))
        cpp_map = CppJointMap(cpp, robot.joint_names)
        values = np.zeros((len(FIELDS), wire.MOTOR_SLOTS))
        assert cpp_map.targets([], fields, values) == str(refusal.value)
        cpp_map.close()


# --- the state machine ----------------------------------------------------------------------------------


class BothRules:
    """The two state machines side by side on one clock; every call is compared."""

    def __init__(
        self, cpp: ctypes.CDLL, robot: RobotModel, policy_period: float, state_timeout: float
    ) -> None:
        self.now = 100.0
        self._cpp = cpp
        self._handle = cpp.rules_create(policy_period, state_timeout)
        self._python = HostRules(robot, policy_period=policy_period, state_timeout=state_timeout)
        self._n = len(robot.joint_names)
        self._robot = robot
        self._state_time = -math.inf
        self._tick = 0
        gains = robot.gains["compliant"]
        zeros = np.zeros(self._n)
        self._targets = JointTargets(robot.default_position, zeros, zeros, gains.stiffness, gains.damping)
        self.seen: set[tuple[int, int, str]] = set()

    def close(self) -> None:
        self._cpp.rules_destroy(self._handle)

    def low_state(self) -> None:
        record = np.zeros((), wire.LOW_STATE_C)
        self._tick += 1
        record["tick"] = self._tick
        record["mode_machine"] = self._robot.mode_machine[0]
        record["imu_state"]["quaternion"] = (1.0, 0.0, 0.0, 0.0)
        state = wire.read_low_state(wire.low_state_to_cdr(record), self._n)
        assert self._python.receive_state(self.now, state, True) == ""
        self._state_time = self.now

    def joint_command(self) -> None:
        self._python.receive_targets(self.now, self._targets)
        taken = self._cpp.rules_receive_targets(self._handle, self.now)
        assert bool(taken) == (self._python.state.name in ("READY", "ACTIVE"))

    def refused_command(self) -> None:
        self._python.refuse_targets()
        self._cpp.rules_refuse_targets(self._handle)

    def request(self, name: str) -> None:
        if name == "reset":
            python = self._python.reset(self.now)
            answer = self._cpp.rules_reset(self._handle, self.now - self._state_time)
        else:
            python = getattr(self._python, name)()
            answer = getattr(self._cpp, f"rules_{name}")(self._handle)
        assert answer.reply() == python
        self.compare()

    def step(self) -> int:
        python = self._python.step(self.now)
        expected = SILENT if python is None else DAMPING if isinstance(python, Damping) else FOLLOW
        output = self._cpp.rules_step(self._handle, self.now, self.now - self._state_time)
        assert output == expected
        self.compare()
        self.seen.add((output, int(self._python.state), words(self._python.cause)))
        return int(output)

    def compare(self) -> None:
        assert self._cpp.rules_state(self._handle) == int(self._python.state)
        assert self._cpp.rules_cause(self._handle).decode() == self._python.cause
        assert self._cpp.rules_fault(self._handle).decode() == self._python.fault
        assert bool(self._cpp.rules_activated(self._handle)) == self._python.activated
        assert self._cpp.rules_rejected_commands(self._handle) == self._python.rejected_commands


REQUESTS = ("activate", "deactivate", "estop", "reset")

EVERY_SITUATION = {
    (SILENT, 0, ""),
    (SILENT, 1, ""),
    (DAMPING, 2, ""),
    (FOLLOW, 3, ""),
    (DAMPING, 4, "deactivating"),
    (DAMPING, 0, ""),  # the last cycle of a deactivation
    (SILENT, 4, "emergency stop"),
    (DAMPING, 4, "emergency stop"),
    (SILENT, 4, "no valid LowState for ms"),
    (DAMPING, 4, "no valid LowState for ms"),
    (SILENT, 4, "no valid joint command for ms"),
    (DAMPING, 4, "no valid joint command for ms"),
}
"""Output, HostState and cause in words; the walks below have to come by all of them."""


def test_random_walks_lead_through_the_same_states(cpp: ctypes.CDLL, robot: RobotModel) -> None:
    rng = np.random.default_rng(6)
    seen: set[tuple[int, int, str]] = set()
    for _ in range(150):
        both = BothRules(
            cpp,
            robot,
            float(rng.choice([0.002, 0.005, 0.02, 1.0 / 30.0])),
            float(rng.choice([0.002, 0.02, 0.05, 0.2])),
        )
        # In one phase all is well, in another the robot or the policy has gone or stutters.
        state_rate = command_rate = 1.0
        for cycle in range(400):
            if cycle % 50 == 0:
                state_rate, command_rate = rng.choice([0.0, 0.05, 0.5, 1.0, 1.0, 1.0], 2)
            both.now += CYCLE_PERIOD * float(rng.choice([1.0, 1.0, 1.0, rng.uniform(0.0, 3.0)]))
            if rng.random() < state_rate:
                both.low_state()
            if rng.random() < command_rate * 0.3:
                both.joint_command()
            if rng.random() < 0.02:
                both.refused_command()
            # Activation and reset more often than what ends a run.
            if cycle == 1 or rng.random() < 0.02:
                both.request(str(rng.choice(REQUESTS, p=[0.4, 0.15, 0.15, 0.3])))
            both.step()
        seen |= both.seen
        both.close()
    assert seen == EVERY_SITUATION


def test_ages_at_their_limit_to_the_last_bit_are_judged_the_same(cpp: ctypes.CDLL, robot: RobotModel) -> None:
    outputs = set()
    for command_too in (False, True):
        for limit in (0.05, 0.06):
            for ulps in range(-3, 4):
                both = BothRules(cpp, robot, 0.02, 0.05 if limit == 0.05 else 1.0)
                both.now = 0.0
                both.request("activate")
                both.low_state()
                both.step()
                if command_too:
                    both.joint_command()
                both.now = limit + ulps * math.ulp(limit)
                outputs.add(both.step())
                both.close()
    assert outputs == {DAMPING, FOLLOW}


# --- period statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0.002, 0.1, 10.0])
def test_period_errors_are_the_same(cpp: ctypes.CDLL, window: float) -> None:
    rng = np.random.default_rng(7)
    python = PeriodStatistics(CYCLE_PERIOD, window)
    handle = cpp.statistics_create(CYCLE_PERIOD, window)
    now = 50.0
    for count in range(7000):
        now += CYCLE_PERIOD + abs(rng.normal(scale=1e-4))
        if rng.random() < 0.01:
            python.pause()
            cpp.statistics_pause(handle)
        python.tick(now)
        cpp.statistics_tick(handle, now)
        if count < 5 or count % 100 == 0:
            errors = cpp.statistics_errors(handle)
            np.testing.assert_allclose(
                (errors.p50, errors.p99, errors.max), python.errors(), rtol=1e-12, atol=1e-15
            )
    cpp.statistics_destroy(handle)
