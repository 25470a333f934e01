"""`humanoid-rl import`: a policy that another stack exported, as a policy file of this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..contract import (
    METADATA_KEY,
    MIN_GOLDEN_STEPS,
    SCHEMA_VERSION,
    UNKNOWN,
    Golden,
    ImportRecord,
    ObservationSlice,
    PolicyContract,
    TrainingRecord,
    observation_term_sizes,
)
from ..errors import UserError, nearest
from ..golden_inputs import random_inputs
from ..onnx_policy import OnnxPolicy
from ..policy_file import write_checked
from ..robot import RobotModel, load_robot
from . import leapp, mjlab, unitree_rl_lab
from .answers import Answers, as_integer, as_it_is, as_number, as_range, as_text
from .composing import ComposedGraph, Numbers, compose
from .description import ForeignPolicy
from .network_shape import running
from .source import FORMATS, ForeignFiles, format_of, read_files

_READERS: Mapping[str, Callable[[ForeignFiles, Answers], ForeignPolicy]] = {
    "leapp": leapp.read,
    "mjlab": mjlab.read,
    "unitree_rl_lab": unitree_rl_lab.read,
}
#: Questions that no foreign format answers.
_ALWAYS_ASKED = ("robot", "variant", "mode_machine", "effort_limit", "velocity_limit", "position_limit")


def import_policy(
    path: str | Path,
    output: str | Path,
    *,
    format: str = "auto",
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> PolicyContract:
    """Read a foreign policy, compose it with this project's inputs and outputs, prove the file, and name it.

    path: the ONNX file. output: the .onnx to write, whole or not at all. format: auto or one of FORMATS.
    config: the YAML that came with it. settings: KEY=VALUE for what these files leave open.
    Returns the contract that was written.

    Raises:
        UserError: a file, its metadata or an answer does not hold; one line names it, or all that is open.
    """
    path, output = Path(path), Path(output)
    if output.is_dir():
        raise UserError(f"{output}: is a directory; name the .onnx file to write")
    if output.suffix != ".onnx":
        raise UserError(f"{output}: the policy is an ONNX file; name it {output.name}.onnx")
    if output.resolve() == path.resolve():
        raise UserError(f"{path}: is the policy to import; name another --output")
    answers = Answers(settings)
    if format not in ("auto", *FORMATS):
        raise UserError(
            f"unknown format '{format}'{nearest(format, FORMATS)} (known: auto, {', '.join(FORMATS)})"
        )
    files = read_files(path, Path(config) if config else None)
    if format == "auto":
        format = format_of(files)
    for key in _ALWAYS_ASKED:
        answers.get(key, as_it_is)
    record = _training_record(answers)
    name = answers.optional("name", as_text) or output.stem
    try:
        policy = _READERS[format](files, answers)
    except UserError as error:
        named = (str(files.path), str(files.config_path), "--set")
        raise error if str(error).startswith(named) else UserError(f"{path}: {error}") from None

    robot = load_robot(answers.get("robot", as_text) or "", answers.get("variant", as_text) or "")
    try:
        return _write(output, name, files, format, policy, robot, answers, record)
    except UserError as error:
        raise UserError(f"not imported: {error}") from None


def _training_record(answers: Answers) -> dict[str, Any]:
    """What the user knows of the training; the files of no format tell any of it."""
    return {
        "task": answers.optional("task", as_text) or UNKNOWN,
        "simulator": answers.optional("simulator", as_text) or UNKNOWN,
        "seed": answers.optional("seed", as_integer),
        "steps": answers.optional("steps", as_integer),
        "git_revision": answers.optional("git_revision", as_text) or UNKNOWN,
    }


def _write(
    output: Path,
    name: str,
    files: ForeignFiles,
    format: str,
    policy: ForeignPolicy,
    robot: RobotModel,
    answers: Answers,
    record: Mapping[str, Any],
) -> PolicyContract:
    motors = _motors(policy.joints, robot)
    vectors = {
        key: _vector(key, policy, motors, robot, answers)
        for key in (
            "default_position",
            "stiffness",
            "damping",
            "action_scale",
            "effort_limit",
            "velocity_limit",
        )
    }
    lower, upper = _position_limits(policy, motors, robot, answers)
    mode_machine = answers.get("mode_machine", lambda where, value: _mode_machine(where, value, robot)) or ()
    numbers = Numbers(motors, vectors["default_position"], vectors["action_scale"], lower, upper)
    composed = compose(files.model, policy, numbers)
    golden = _record_golden(composed, policy, robot)
    contract = PolicyContract(
        schema_version=SCHEMA_VERSION,
        name=name,
        robot=robot.name,
        variant=robot.variant,
        description_hash=robot.description_hash,
        mode_machine=mode_machine,
        joint_names=robot.joint_names,
        default_position=vectors["default_position"],
        stiffness=vectors["stiffness"],
        damping=vectors["damping"],
        action_scale=vectors["action_scale"],
        effort_limit=vectors["effort_limit"],
        velocity_limit=vectors["velocity_limit"],
        position_lower=lower,
        position_upper=upper,
        control_period=policy.control_period,
        command_names=policy.command_names,
        command_lower=policy.command_range[:, 0],
        command_upper=policy.command_range[:, 1],
        observation=_slices(composed, len(motors), len(policy.command_names)),
        history=composed.history,
        state_size=composed.state_size,
        training=TrainingRecord(
            **record,
            metrics={},
            imported=ImportRecord(
                format, files.sha256, files.config_sha256, dict(sorted(answers.sources.items()))
            ),
        ),
        golden=golden,
        memory_size=composed.memory_size,
    )
    onnx.helper.set_model_props(composed.model, {METADATA_KEY: contract.to_json()})
    write_checked(output, composed.model.SerializeToString(), lambda file: OnnxPolicy(file, robot))
    return contract


def _motors(joints: Sequence[str] | Sequence[int], robot: RobotModel) -> tuple[int, ...]:
    """[n] the robot's motor of every joint of the network.

    Raises:
        UserError: a joint that the robot has not, twice, or one of the robot's that the policy has not.
    """
    motors = []
    for joint in joints:
        if isinstance(joint, int):
            if joint >= robot.joint_count:
                raise UserError(
                    f"joint_ids_map names motor {joint}, but {robot.name} has {robot.joint_count}"
                )
            motors.append(joint)
        elif joint in robot.joint_names:
            motors.append(robot.joint_names.index(joint))
        else:
            raise UserError(
                f"the policy has the joint '{joint}', which {robot.name} {robot.variant} has not"
                f"{nearest(joint, robot.joint_names)}"
            )
    for index, joint_name in enumerate(robot.joint_names):
        if motors.count(index) != 1:
            problem = "lacks" if index not in motors else "has twice"
            raise UserError(f"the policy {problem} the joint '{joint_name}' of {robot.name} {robot.variant}")
    return tuple(motors)


def _in_motor_order(values: np.ndarray, motors: Sequence[int]) -> np.ndarray:
    ordered = np.empty_like(values)
    ordered[np.array(motors)] = values
    return ordered


def _vector(
    key: str, policy: ForeignPolicy, motors: Sequence[int], robot: RobotModel, answers: Answers
) -> np.ndarray:
    """[n] in motor order, from the files or from the user."""
    if key in policy.values:
        return _in_motor_order(policy.values[key], motors)
    answer = answers.get(key, as_it_is)
    if answer == "robot" and hasattr(robot, key):
        return np.array(getattr(robot, key))
    where = f"--set {key}"
    if isinstance(answer, dict):
        named = _by_joint(where, answer, robot)
        return np.array([as_number(f"{where}: {joint}", named[joint]) for joint in robot.joint_names])
    return np.full(robot.joint_count, as_number(where, answer))


def _position_limits(
    policy: ForeignPolicy, motors: Sequence[int], robot: RobotModel, answers: Answers
) -> tuple[np.ndarray, np.ndarray]:
    """[n] and [n] rad: the user's answer, and within it the bounds that the files put on targets."""
    answer = answers.get("position_limit", as_it_is)
    where = "--set position_limit"
    if answer == "robot":
        limits = np.stack((robot.position_lower, robot.position_upper), axis=1)
    elif isinstance(answer, dict):
        named = _by_joint(where, answer, robot)
        limits = np.array([as_range(f"{where}: {joint}", named[joint]) for joint in robot.joint_names])
    else:
        raise UserError(f"{where}: expected 'robot' or {{joint: [lower, upper]}}, found {answer!r}")
    lower, upper = limits.T
    if policy.target_limit is not None:
        bounds = _in_motor_order(policy.target_limit, motors)
        lower, upper = np.maximum(lower, bounds[:, 0]), np.minimum(upper, bounds[:, 1])
    return lower, upper


def _by_joint(where: str, answer: Mapping[Any, Any], robot: RobotModel) -> Mapping[Any, Any]:
    for joint in answer:
        if joint not in robot.joint_names:
            raise UserError(
                f"{where}: {robot.name} has no joint '{joint}'{nearest(str(joint), robot.joint_names)}"
            )
    for joint in robot.joint_names:
        if joint not in answer:
            raise UserError(f"{where}: lacks '{joint}'")
    return answer


def _mode_machine(where: str, value: Any, robot: RobotModel) -> tuple[int, ...]:
    if value == "robot":
        return tuple(robot.mode_machine)
    if not isinstance(value, list):
        raise UserError(f"{where}: expected 'robot' or a list of numbers, found {value!r}")
    return tuple(as_integer(where, item) for item in value)


def _slices(composed: ComposedGraph, joints: int, commands: int) -> tuple[ObservationSlice, ...]:
    sizes = observation_term_sizes(joints, commands)
    slices = []
    start = 0
    for term in composed.terms:
        slices.append(ObservationSlice(term, start, start + sizes[term], 1.0))
        start += sizes[term]
    return tuple(slices)


def _record_golden(composed: ComposedGraph, policy: ForeignPolicy, robot: RobotModel) -> Golden:
    """An episode of the composed graph from the zero state."""
    steps = max(MIN_GOLDEN_STEPS + 2, 2 * composed.history)
    lower, upper = policy.command_range.T
    inputs = random_inputs(robot, lower, upper, np.random.default_rng(0), steps)
    with running(composed.model) as session:
        state = np.zeros((1, composed.state_size), np.float32)
        targets, actions = [], []
        for step in range(steps):
            feed = {name: values[step : step + 1] for name, values in inputs.items()}
            target, state, action = session.run(
                ["joint_target", "state_next", "action"], {**feed, "state": state}
            )
            targets.append(target[0])
            actions.append(action[0])
    return Golden(inputs, {"joint_target": np.stack(targets), "action": np.stack(actions)}, state[0])
