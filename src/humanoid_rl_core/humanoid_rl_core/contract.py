"""The policy contract: what an exported policy says about itself, so that a host can refuse the wrong one.

It travels as JSON in the ONNX file's metadata. Everything here is NumPy; the robot side has no torch.
Every refusal is a UserError of one line that starts with the name of the contract's field.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError, nearest
from .height_scan import HeightScan
from .rotation import normalise, projected_gravity
from .typed_yaml import load_dataclass

if TYPE_CHECKING:
    from .robot import RobotModel

#: Version of this schema. Raise it with every change of a field's name, meaning or shape.
SCHEMA_VERSION = 1

#: Key of the contract in the ONNX file's metadata.
METADATA_KEY = "humanoid_rl"

#: Least number of golden steps a contract may hold.
MIN_GOLDEN_STEPS = 8

#: Largest error of a replayed output, times max(1, |value|): float32 sums taken in another order on another
#: processor differ by a few times 1e-7 of the value.
TOLERANCE = 1e-5

#: Room for float32 rounding when limits are compared.
_LIMIT_SLACK = 1e-6

_JOINT_VECTORS = (
    "default_position",
    "stiffness",
    "damping",
    "effort_limit",
    "velocity_limit",
    "position_lower",
    "position_upper",
    "action_scale",
)
_COMMAND_VECTORS = ("command_lower", "command_upper")
#: The observation term, the graph's input and the contract's field that only policies which see the ground have.
HEIGHT_SCAN = "height_scan"
#: What the training record of an imported policy says where nobody knows.
UNKNOWN = "unknown"
#: The contract's field that only policies with a memory of their own have.
MEMORY_SIZE = "memory_size"

_POSITIVE = ("stiffness", "damping", "effort_limit", "velocity_limit")


def observation_term_sizes(joints: int, commands: int, scan_points: int = 0) -> dict[str, int]:
    """Size of every observation term a policy may use, for n joints, k commands and P points of a height scan."""
    return {
        "base_ang_vel": 3,
        "projected_gravity": 3,
        "command": commands,
        "joint_pos_rel": joints,
        "joint_vel": joints,
        "last_action": joints,
        HEIGHT_SCAN: scan_points,
    }


def refusal(field: str, problem: str) -> UserError:
    """The error for a contract whose field does not hold."""
    return UserError(f"contract field '{field}' {problem}")


@dataclass(frozen=True)
class ObservationSlice:
    """Where a term lies in one observation frame: [start, stop), after multiplication by scale."""

    name: str
    start: int
    stop: int
    scale: float


@dataclass(frozen=True)
class ImportRecord:
    """How a policy that another stack exported came here.

    format: which stack's. sha256: of the ONNX file followed by the files that its weights lie in, by their names;
        config_sha256: of the YAML beside it ("" without one).
    sources: contract field or setting -> where its value came from.
    """

    format: str
    sha256: str
    config_sha256: str
    sources: Mapping[str, str]


@dataclass(frozen=True)
class TrainingRecord:
    """Where a policy comes from. metrics: name -> finite number, e.g. evaluation results.

    seed and steps are None where an imported policy's files do not tell them; imported: None for our own.
    """

    task: str
    simulator: str
    seed: int | None
    steps: int | None
    git_revision: str
    metrics: Mapping[str, float]
    imported: ImportRecord | None = None


@dataclass(frozen=True, eq=False)
class Golden:
    """A recurrent episode from the zero state, recorded from the graph that was trained.

    inputs: joint_pos [T, n], joint_vel [T, n], imu_gyro [T, 3], imu_quat [T, 4] (w, x, y, z),
        command [T, k], and height_scan [T, P] where the policy has that input; outputs: joint_target [T, n],
        action [T, n]; all float32, units as the graph's.
    final_state: [s] float32, the state after the last step.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    final_state: np.ndarray

    @property
    def steps(self) -> int:
        """T, the number of recorded steps."""
        return len(self.outputs["action"])


@dataclass(frozen=True, eq=False)
class PolicyContract:
    """What both sides of an exported policy must agree on.

    Vectors are read-only float64 arrays; [n] in the order of joint_names, [k] in that of command_names.
    Constructing one checks it; a field that does not hold raises UserError.
    """

    schema_version: int
    name: str
    robot: str
    variant: str
    #: sha256 of the robot description the policy was trained on (RobotModel.description_hash).
    description_hash: str
    #: The robot's own hardware ids (LowState.mode_machine) that the policy may drive.
    mode_machine: tuple[int, ...]
    joint_names: tuple[str, ...]
    #: [n] rad, the pose of action 0.
    default_position: np.ndarray
    #: [n] Nm/rad and [n] Nm s/rad, gains of the joint PD loop.
    stiffness: np.ndarray
    damping: np.ndarray
    #: [n] Nm and [n] rad/s, limits in training.
    effort_limit: np.ndarray
    velocity_limit: np.ndarray
    #: [n] rad, joint targets are clipped to them.
    position_lower: np.ndarray
    position_upper: np.ndarray
    #: [n] rad per unit of action.
    action_scale: np.ndarray
    #: Seconds from one policy step to the next.
    control_period: float
    command_names: tuple[str, ...]
    #: [k], the graph clamps commands to them.
    command_lower: np.ndarray
    command_upper: np.ndarray
    #: Terms of one frame.
    observation: tuple[ObservationSlice, ...]
    #: Frames in an observation.
    history: int
    state_size: int
    training: TrainingRecord
    golden: Golden
    #: Geometry of the input height_scan; there exactly where the observation has that term.
    height_scan: HeightScan | None = None
    #: Values at the end of the state that the graph keeps for itself: a clock, another stack's buffers.
    memory_size: int = 0

    def __post_init__(self) -> None:
        for name in _JOINT_VECTORS + _COMMAND_VECTORS:
            vector = np.array(getattr(self, name), dtype=np.float64)
            vector.setflags(write=False)
            object.__setattr__(self, name, vector)
        self._check_identity()
        self._check_vectors()
        self._check_layout()
        _check_training(self.training)
        _check_golden_shapes(self)
        _check_golden_arithmetic(self)

    @property
    def frame_size(self) -> int:
        """Size of one observation frame."""
        return self.observation[-1].stop

    def input_shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of the ONNX graph's inputs, in their order."""
        joints, commands = len(self.joint_names), len(self.command_names)
        return {
            "joint_pos": (1, joints),
            "joint_vel": (1, joints),
            "imu_gyro": (1, 3),
            "imu_quat": (1, 4),
            "command": (1, commands),
            "state": (1, self.state_size),
            **({HEIGHT_SCAN: (1, self.height_scan.size)} if self.height_scan else {}),
        }

    def output_shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape of the ONNX graph's outputs, in their order."""
        joints = len(self.joint_names)
        return {"joint_target": (1, joints), "state_next": (1, self.state_size), "action": (1, joints)}

    def to_json(self) -> str:
        """The contract as compact JSON, the text that `from_json` reads."""
        document: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            document[field.name] = value
        if self.height_scan is None:
            # A policy that does not see the ground has the same contract as before there were any that do.
            del document[HEIGHT_SCAN]
        else:
            document[HEIGHT_SCAN] = dataclasses.asdict(self.height_scan)
        if not self.memory_size:
            del document[MEMORY_SIZE]
        document["observation"] = [dataclasses.asdict(term) for term in self.observation]
        training = {**vars(self.training), "metrics": dict(self.training.metrics)}
        record = training.pop("imported")
        document["training"] = training | ({"imported": vars(record)} if record else {})
        document["golden"] = {
            "steps": self.golden.steps,
            "inputs": {name: _to_base64(array) for name, array in self.golden.inputs.items()},
            "outputs": {name: _to_base64(array) for name, array in self.golden.outputs.items()},
            "final_state": _to_base64(self.golden.final_state),
        }
        return json.dumps(document, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> PolicyContract:
        """Parse and check a contract.

        Raises:
            UserError: no JSON, another schema version, an unknown, missing or repeated field, a wrong type
                or length, a value out of its range, or golden vectors that contradict the other fields.
        """
        try:
            document = json.loads(text, object_pairs_hook=_without_duplicates)
        except json.JSONDecodeError as error:
            raise UserError(
                f"the contract is not valid JSON ({error.msg} at character {error.pos})"
            ) from None
        except RecursionError:
            raise UserError("the contract is not valid JSON (nested too deeply)") from None
        if not isinstance(document, dict):
            raise UserError("the contract is not a JSON object")
        version = document.get("schema_version")
        if version is not None and (type(version) is not int or version != SCHEMA_VERSION):
            raise refusal("schema_version", f"is {_show(version)}, but this release reads {SCHEMA_VERSION}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in document:
            if name not in known:
                raise refusal(name, f"is unknown{nearest(name, known)}")
        for name in known:
            if name not in document and name not in (HEIGHT_SCAN, MEMORY_SIZE):
                raise refusal(name, "is missing")

        values: dict[str, Any] = {}
        for name in ("schema_version", "history", "state_size"):
            values[name] = _integer(name, document[name])
        values[MEMORY_SIZE] = _integer(MEMORY_SIZE, document.get(MEMORY_SIZE, 0))
        for name in ("name", "robot", "variant", "description_hash"):
            values[name] = _text(name, document[name])
        for name in ("joint_names", "command_names"):
            values[name] = tuple(_text(name, item) for item in _list(name, document[name]))
        values["mode_machine"] = tuple(
            _integer("mode_machine", item) for item in _list("mode_machine", document["mode_machine"])
        )
        for name in _JOINT_VECTORS + _COMMAND_VECTORS:
            values[name] = [_number(name, item) for item in _list(name, document[name])]
        values["control_period"] = _number("control_period", document["control_period"])
        values["observation"] = tuple(
            load_dataclass(ObservationSlice, item, f"contract field 'observation[{index}]'")
            for index, item in enumerate(_list("observation", document["observation"]))
        )
        if HEIGHT_SCAN in document:
            where = f"contract field '{HEIGHT_SCAN}'"
            values[HEIGHT_SCAN] = load_dataclass(HeightScan, document[HEIGHT_SCAN], where)
        scan = values.get(HEIGHT_SCAN)
        _check_scan_is_used(values["observation"], scan)
        values["training"] = load_dataclass(TrainingRecord, document["training"], "contract field 'training'")
        joints, commands = len(values["joint_names"]), len(values["command_names"])
        values["golden"] = _read_golden(document["golden"], joints, commands, scan)
        return cls(**values)

    def _check_identity(self) -> None:
        for name in ("name", "robot", "variant"):
            if not getattr(self, name).strip():
                raise refusal(name, "is empty")
        if not re.fullmatch(r"[0-9a-f]{64}", self.description_hash):
            raise refusal("description_hash", "is not a sha256 in hexadecimal")
        if not self.mode_machine:
            raise refusal("mode_machine", "is empty, so no robot may be driven")
        for value in self.mode_machine:
            if not 0 <= value <= 255:
                raise refusal("mode_machine", f"has {value}, which does not fit the wire's byte")
        for field in ("mode_machine", "joint_names", "command_names"):
            values = getattr(self, field)
            for value in values:
                if values.count(value) > 1:
                    raise refusal(field, f"has '{value}' twice")
                if value == "":
                    raise refusal(field, "has an empty name")
        if not self.joint_names:
            raise refusal("joint_names", "is empty")
        if not (math.isfinite(self.control_period) and self.control_period > 0):
            raise refusal("control_period", f"is {self.control_period}, but must be positive (seconds)")

    def _check_vectors(self) -> None:
        for names, per, fields in (
            (self.joint_names, "joint", _JOINT_VECTORS),
            (self.command_names, "command", _COMMAND_VECTORS),
        ):
            for field in fields:
                vector = getattr(self, field)
                if vector.shape != (len(names),):
                    found = vector.size if vector.ndim == 1 else f"an array of shape {vector.shape}"
                    raise refusal(field, f"needs {len(names)} values, one per {per}, but has {found}")
                _refuse_where(~np.isfinite(vector), field, names, vector, "which is not finite")
        for field in _POSITIVE:
            vector = getattr(self, field)
            _refuse_where(vector <= 0, field, self.joint_names, vector, "but must be positive")
        scale = self.action_scale
        _refuse_where(scale < 0, "action_scale", self.joint_names, scale, "but must not be negative")
        for lower, upper, names in (
            ("position_lower", "position_upper", self.joint_names),
            ("command_lower", "command_upper", self.command_names),
        ):
            low, high = getattr(self, lower), getattr(self, upper)
            _refuse_where(low > high, lower, names, low, f"which is above {upper}")
        outside = np.maximum(
            self.position_lower - self.default_position, self.default_position - self.position_upper
        )
        _refuse_where(
            outside > _LIMIT_SLACK,
            "default_position",
            self.joint_names,
            self.default_position,
            "which is outside the position limits",
        )

    def _check_layout(self) -> None:
        _check_scan_is_used(self.observation, self.height_scan)
        points = self.height_scan.size if self.height_scan else 0
        sizes = observation_term_sizes(len(self.joint_names), len(self.command_names), points)
        start = 0
        seen: set[str] = set()
        for term in self.observation:
            if term.name not in sizes:
                raise refusal("observation", f"has an unknown term '{term.name}'{nearest(term.name, sizes)}")
            if term.name in seen:
                raise refusal("observation", f"has the term '{term.name}' twice")
            seen.add(term.name)
            stop = start + sizes[term.name]
            if (term.start, term.stop) != (start, stop):
                raise refusal(
                    "observation",
                    f"puts '{term.name}' at {term.start}..{term.stop}, but it must be at {start}..{stop}",
                )
            if not math.isfinite(term.scale):
                raise refusal("observation", f"has a scale for '{term.name}' that is not finite")
            start = stop
        if start == 0:
            raise refusal("observation", "has no terms")
        if self.history < 1:
            raise refusal("history", f"is {self.history}, but must be at least 1")
        if self.memory_size < 0:
            raise refusal(MEMORY_SIZE, f"is {self.memory_size}, but must not be negative")
        expected = len(self.joint_names) + (self.history - 1) * start + self.memory_size
        if self.state_size != expected:
            raise refusal(
                "state_size",
                f"is {self.state_size}, but joints, observation, history and memory make it {expected}",
            )


def check_robot(contract: PolicyContract, robot: RobotModel) -> None:
    """Refuse a policy that was not made for this robot.

    The contract's joint order must be the robot's motor order, not just the same set: with one order there is
    no index map that could be forgotten or applied twice. Limits in training may be tighter than the robot's,
    never wider.

    Raises:
        UserError: naming the first field that does not fit, and the remedy.
    """
    if contract.robot != robot.name:
        raise refusal(
            "robot", f"is '{contract.robot}', but this robot is '{robot.name}'; choose another policy"
        )
    if contract.variant != robot.variant:
        raise refusal(
            "variant",
            f"is '{contract.variant}', but this robot is '{robot.variant}'; "
            f"choose variant '{contract.variant}' if that is what the robot is, or another policy",
        )
    foreign = sorted(set(contract.mode_machine) - set(robot.mode_machine))
    if foreign:
        raise refusal(
            "mode_machine",
            f"allows {_join(foreign)}, but the description of {robot.name} {robot.variant} is right for "
            f"{_join(robot.mode_machine)} alone; train with this description",
        )
    _check_joints(contract.joint_names, robot.joint_names)
    for field, wider, unit in (
        ("effort_limit", contract.effort_limit - robot.effort_limit, "Nm"),
        ("velocity_limit", contract.velocity_limit - robot.velocity_limit, "rad/s"),
        ("position_upper", contract.position_upper - robot.position_upper, "rad"),
        ("position_lower", robot.position_lower - contract.position_lower, "rad"),
    ):
        worst = int(np.argmax(wider))
        if wider[worst] > _LIMIT_SLACK:
            raise refusal(
                field,
                f"of '{contract.joint_names[worst]}' is {getattr(contract, field)[worst]:g} {unit}, wider "
                f"than the robot's {getattr(robot, field)[worst]:g}; train within the robot's limits",
            )
    scan = contract.height_scan
    if scan is not None and scan.origin != robot.base_link:
        raise refusal(
            HEIGHT_SCAN,
            f"has its origin at '{scan.origin}', but the robot's base link is '{robot.base_link}'; "
            "choose another policy",
        )
    if contract.description_hash != robot.description_hash:
        raise refusal(
            "description_hash",
            f"is {contract.description_hash[:12]}..., but this description of {robot.name} {robot.variant} "
            f"is {robot.description_hash[:12]}...; train with this description, or restore the one of the "
            "training",
        )


def check_sensors(contract: PolicyContract, robot: RobotModel) -> None:
    """Refuse a policy with an input that no sensor of the robot gives: in simulation it runs, on a robot it cannot.

    Raises:
        UserError: the policy sees the ground by a height scan.
    """
    if contract.height_scan is not None:
        raise refusal(
            HEIGHT_SCAN,
            f"asks for the ground at {contract.height_scan.size} points, but the description of {robot.name} "
            f"{robot.variant} has no sensor that gives it; deploy a policy without that observation term",
        )


def golden_error(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Error of a replayed value by the measure TOLERANCE is meant for, elementwise: |a - e| / max(1, |e|)."""
    error = np.abs(actual.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return np.where(np.isnan(error), np.inf, error)


def _check_joints(contract: Sequence[str], robot: Sequence[str]) -> None:
    unknown = [name for name in contract if name not in robot]
    if unknown:
        raise refusal(
            "joint_names",
            f"has '{unknown[0]}', which the robot has not{nearest(unknown[0], robot)}; choose another policy",
        )
    missing = [name for name in robot if name not in contract]
    if missing:
        raise refusal("joint_names", f"lacks the robot's '{missing[0]}'; choose another policy")
    for index, (ours, theirs) in enumerate(zip(contract, robot, strict=True)):
        if ours != theirs:
            raise refusal(
                "joint_names",
                f"has '{ours}' at position {index} where the robot's motor order has '{theirs}'; "
                "export the policy in motor order",
            )


def _refuse_where(
    bad: np.ndarray, field: str, names: Sequence[str], values: np.ndarray, problem: str
) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise refusal(field, f"of '{names[index]}' is {values[index]:g}, {problem}")


def _check_scan_is_used(observation: Sequence[ObservationSlice], scan: HeightScan | None) -> None:
    used = any(term.name == HEIGHT_SCAN for term in observation)
    if used and scan is None:
        raise refusal(HEIGHT_SCAN, "is missing, but the observation has the term")
    if scan is not None and not used:
        raise refusal(HEIGHT_SCAN, "is given, but the observation does not have the term")


def _check_training(training: TrainingRecord) -> None:
    for name, value in training.metrics.items():
        if not math.isfinite(value):
            raise refusal("training", f"has the metric '{name}', which is not finite")
    for name in ("seed", "steps"):
        if getattr(training, name) is None and training.imported is None:
            raise refusal("training", f"has no {name}, which the record of a policy trained here must have")


def _check_golden_shapes(contract: PolicyContract) -> None:
    golden = contract.golden
    steps = golden.steps
    if steps < MIN_GOLDEN_STEPS:
        raise refusal("golden", f"has {steps} steps, but at least {MIN_GOLDEN_STEPS} are needed")
    sizes = {name: shape[1] for name, shape in (contract.input_shapes() | contract.output_shapes()).items()}
    arrays = {**golden.inputs, **golden.outputs}
    for name, array in arrays.items():
        if array.shape != (steps, sizes[name]):
            raise refusal("golden", f"has {name} of shape {array.shape} instead of ({steps}, {sizes[name]})")
    if golden.final_state.shape != (contract.state_size,):
        raise refusal(
            "golden",
            f"has a final_state of {golden.final_state.size} values instead of {contract.state_size}",
        )
    for name, array in {**arrays, "final_state": golden.final_state}.items():
        if not np.isfinite(array).all():
            raise refusal("golden", f"has a value of {name} that is not finite")


def _check_golden_arithmetic(contract: PolicyContract) -> None:
    """Recompute from the golden inputs what the other fields promise.

    So a contract whose default pose, action scale, limits, command ranges or observation layout differ from
    the graph's is refused with the field's name, even though the graph alone would replay correctly.
    """
    golden = contract.golden
    joints = len(contract.joint_names)
    action = golden.outputs["action"].astype(np.float64)
    target = np.clip(
        contract.default_position + contract.action_scale * action,
        contract.position_lower,
        contract.position_upper,
    )
    error = golden_error(golden.outputs["joint_target"], target).max(axis=0)
    if error.max() > TOLERANCE:
        raise refusal(
            "golden",
            f"contradicts default_position, action_scale or position limits of "
            f"'{contract.joint_names[int(np.argmax(error))]}'",
        )
    if golden_error(golden.final_state[:joints], action[-1]).max() > TOLERANCE:
        raise refusal("golden", "has a final_state that does not start with the last action")

    values = {
        "base_ang_vel": golden.inputs["imu_gyro"],
        "projected_gravity": projected_gravity(normalise(golden.inputs["imu_quat"])),
        "command": np.clip(golden.inputs["command"], contract.command_lower, contract.command_upper),
        "joint_pos_rel": golden.inputs["joint_pos"] - contract.default_position,
        "joint_vel": golden.inputs["joint_vel"],
        "last_action": np.vstack((np.zeros(joints), action[:-1])),
    }
    if contract.height_scan is not None:
        clip = contract.height_scan.clip
        values[HEIGHT_SCAN] = np.clip(golden.inputs[HEIGHT_SCAN], -clip, clip)
    end = contract.state_size - contract.memory_size
    frames = golden.final_state[joints:end].reshape(contract.history - 1, contract.frame_size)
    kept = min(len(frames), golden.steps)
    for term in contract.observation:
        expected = term.scale * values[term.name][golden.steps - kept :]
        error = golden_error(frames[len(frames) - kept :, term.start : term.stop], expected)
        if error.max(initial=0.0) > TOLERANCE:
            raise refusal("golden", f"contradicts the observation term '{term.name}'")


def _read_golden(document: Any, joints: int, commands: int, scan: HeightScan | None) -> Golden:
    if not isinstance(document, dict) or set(document) != {"steps", "inputs", "outputs", "final_state"}:
        raise refusal("golden", "needs exactly the keys steps, inputs, outputs and final_state")
    steps = _integer("golden", document["steps"])
    sizes = {
        "inputs": {
            "joint_pos": joints,
            "joint_vel": joints,
            "imu_gyro": 3,
            "imu_quat": 4,
            "command": commands,
            **({HEIGHT_SCAN: scan.size} if scan else {}),
        },
        "outputs": {"joint_target": joints, "action": joints},
    }
    groups: dict[str, dict[str, np.ndarray]] = {}
    for group, expected in sizes.items():
        arrays = document[group]
        if not isinstance(arrays, dict) or set(arrays) != set(expected):
            raise refusal("golden", f"needs exactly the {group} {_join(expected)}")
        groups[group] = {}
        for name, size in expected.items():
            array = _from_base64(name, arrays[name])
            if array.size != steps * size:
                raise refusal("golden", f"has {array.size} values of {name} instead of {steps} x {size}")
            groups[group][name] = array.reshape(steps, size)
    final_state = _from_base64("final_state", document["final_state"])
    return Golden(groups["inputs"], groups["outputs"], final_state)


def _to_base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode("ascii")


def _from_base64(name: str, text: Any) -> np.ndarray:
    try:
        data = base64.b64decode(_text("golden", text), validate=True)
        return np.frombuffer(data, dtype="<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise refusal("golden", f"has a {name} that is not base64 of float32 values") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise refusal(name, "is given twice")
        result[name] = value
    return result


def _integer(field: str, value: Any) -> int:
    if type(value) is not int:
        raise refusal(field, f"needs an integer, but has {_show(value)}")
    return value


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(field, f"needs a number, but has {_show(value)}")
    try:
        return float(value)
    except OverflowError:
        raise refusal(field, "has a number that is not finite") from None


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise refusal(field, f"needs text, but has {_show(value)}")
    return value


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise refusal(field, f"needs a list, but has {_show(value)}")
    return value


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _join(values: Any) -> str:
    return ", ".join(str(value) for value in values)
