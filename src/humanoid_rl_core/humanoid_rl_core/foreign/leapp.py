"""Policies that LEAPP exported (Isaac Lab 3 and others): an ONNX graph and a YAML.

Facts, from the package leapp 0.7 (`inference_manager.py`, `utils/tensor_description.py`) and Isaac Lab 3.0
(`isaaclab/utils/leapp/`, `isaaclab/envs/leapp_deployment_env.py`):

- `models` has name, dtype, shape, kind, element_names and isaaclab_connection of every tensor of each graph, and the
  graph's path, sha256sum and backend; `pipeline` has the external inputs and outputs, data_flow between graphs,
  feedback_flow (output of one step -> input of the next), initial_values (a safetensors file, zeros without it) and
  configs.frequency (Hz);
- observation terms, their history, statistics and the action's scale and offset are inside the graph: its inputs are
  `state:ENTITY:PROPERTY` of Isaac Lab's articulation data and `command:TERM`, its outputs `write:ENTITY:METHOD` with
  kind target/joint/position, and constant kp and kd;
- quaternions are x, y, z, w (element_names say so), projected_gravity_b is R(q)^T (0, 0, -1).

LEAPP tells neither default pose, command ranges nor limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from ..errors import UserError, nearest
from .answers import Answers, as_it_is, as_mapping, as_names, as_positive
from .description import VELOCITY_COMMANDS, Feedback, ForeignPolicy, SensorInput, SensorNetwork
from .network_shape import graph_inputs, running
from .ranges import command_range
from .safetensors import read_safetensors
from .source import ForeignFiles

#: Property of Isaac Lab's articulation data -> the graph's quantity.
_PROPERTIES = {
    "joint_pos": "joint_pos",
    "joint_vel": "joint_vel",
    "root_ang_vel_b": "base_ang_vel",
    "root_link_ang_vel_b": "base_ang_vel",
    "root_com_ang_vel_b": "base_ang_vel",
    "projected_gravity_b": "projected_gravity",
    "root_quat_w": "imu_quat",
    "root_link_quat_w": "imu_quat",
}
#: Names of the elements of quantities that are no joints, in this project's order.
_ELEMENTS = {
    "base_ang_vel": ("x", "y", "z"),
    "projected_gravity": ("x", "y", "z"),
    "imu_quat": ("qw", "qx", "qy", "qz"),
    "command": ("lin_vel_x", "lin_vel_y", "ang_vel_z"),
}
_GAINS = {"kp": "stiffness", "kd": "damping"}
_TARGET = "target/joint/position"


def read(files: ForeignFiles, answers: Answers) -> ForeignPolicy:
    """The policy that an ONNX file and LEAPP's YAML describe.

    Raises:
        UserError: something is open, unknown, or contradicts the graph.
    """
    if files.config_path is None:
        raise UserError(f"{files.path}: a policy of LEAPP needs its YAML; name it with --config")
    where = str(files.config_path)
    node, model, pipeline = _only_model(files, where)
    tensors = {
        kind: {
            str(as_mapping(f"{where}: models.{node}.{kind}", entry).get("name")): entry
            for entry in model[kind]
        }
        for kind in ("inputs", "outputs")
    }
    _check_graph(files, tensors, where)
    joints, target, gains = _outputs(pipeline, node, tensors["outputs"], where)
    feedback = _feedback(files, pipeline, node, tensors, where)
    inputs = _inputs(pipeline, node, tensors["inputs"], joints, where)
    fed = {entry.name for entry in inputs} | {entry.input for entry in feedback}
    for name in tensors["inputs"]:
        if name not in fed:
            raise UserError(f"{where}: nothing feeds the input '{name}'")
    network = SensorNetwork(inputs, feedback, target)
    answers.known("joint_names", "LEAPP, element_names")

    # With a scale of 1 rad the action is the target's distance from the default pose, whatever the graph calls so.
    values = {"action_scale": np.ones(len(joints)), **_constant_gains(files, network, gains, where)}
    answers.known("action_scale", "the action is taken as target - default_position")
    for field in ("stiffness", "damping"):
        if field in values:
            answers.known(field, "constant output of the graph")
        else:
            answers.get(field, as_it_is)
    answers.get("default_position", as_it_is)
    period = _period(pipeline, answers, where)
    commanded = any(entry.quantity == "command" for entry in inputs)
    ranges = answers.get("command_range", command_range) if commanded else np.zeros((0, 2))
    answers.refuse_gaps(where)
    assert period is not None and ranges is not None
    return ForeignPolicy(
        network=network,
        joints=joints,
        command_names=VELOCITY_COMMANDS if commanded else (),
        command_range=ranges,
        control_period=period,
        values=values,
    )


def _only_model(files: ForeignFiles, where: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Name and description of the one graph, and the pipeline."""
    models, pipeline = files.config.get("models"), files.config.get("pipeline")
    if not isinstance(models, dict) or not isinstance(pipeline, dict):
        raise UserError(f"{where}: lacks 'models' or 'pipeline'; name the YAML that LEAPP wrote")
    if len(models) != 1:
        raise UserError(
            f"{where}: has the models {', '.join(map(str, models)) or 'none'}; a pipeline of one is needed"
        )
    ((node, model),) = models.items()
    for key in ("inputs", "outputs"):
        if not isinstance(model, dict) or not isinstance(model.get(key), list):
            raise UserError(f"{where}: models.{node}: missing key '{key}'")
        if not isinstance(pipeline.get(key), dict):
            raise UserError(f"{where}: pipeline: missing key '{key}'")
    parameters = model.get("parameters")
    if not isinstance(parameters, dict):
        raise UserError(f"{where}: models.{node}: missing key 'parameters'")
    if parameters.get("backend") != "onnx":
        raise UserError(f"{where}: the backend is '{parameters.get('backend')}'; export with an ONNX backend")
    if parameters.get("sha256sum") != files.graph_sha256:
        raise UserError(
            f"{files.path}: is not the file that {where} describes (sha256sum differs); name the one it was "
            "exported with"
        )
    return str(node), model, pipeline


def _check_graph(files: ForeignFiles, tensors: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for kind, values in (("inputs", graph_inputs(files.model)), ("outputs", list(files.model.graph.output))):
        found = {value.name: value for value in values}
        for name, entry in tensors[kind].items():
            if name not in found:
                raise UserError(f"{where}: the graph has no '{name}' among its {kind}")
            tensor = found[name].type.tensor_type
            shape = [dimension.dim_value for dimension in tensor.shape.dim]
            if shape != entry.get("shape"):
                raise UserError(
                    f"{where}: '{name}' has the shape {entry.get('shape')}, but {shape} in the graph"
                )
        for name in found:
            if name not in tensors[kind]:
                raise UserError(f"{where}: does not tell what the graph's '{name}' is")


def _elements(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = entry.get("element_names")
    if not (isinstance(names, list) and len(names) == 1 and isinstance(names[0], list)):
        raise UserError(
            f"{where}: '{entry['name']}' has no element_names in one list, so its order is not known"
        )
    if int(np.prod(entry["shape"])) != len(names[0]):
        raise UserError(
            f"{where}: '{entry['name']}' has {len(names[0])} element_names and the shape {entry['shape']}"
        )
    return tuple(map(str, names[0]))


def _outputs(
    pipeline: Mapping[str, Any], node: str, outputs: Mapping[str, Any], where: str
) -> tuple[tuple[str, ...], str, dict[str, str]]:
    """Joints of the targets, name of the targets, and gain -> name of the output with it."""
    targets = []
    gains: dict[str, str] = {}
    for name in as_names(f"{where}: pipeline.outputs.{node}", pipeline["outputs"].get(node, [])):
        entry = outputs.get(name, {})
        kind = entry.get("kind")
        if kind == _TARGET:
            targets.append(name)
        elif kind in _GAINS and _GAINS[kind] not in gains:
            gains[_GAINS[kind]] = name
        else:
            raise UserError(
                f"{where}: the output '{name}' is {kind or 'of no kind'}; only one {_TARGET} with kp and kd can be run"
            )
    if len(targets) != 1:
        raise UserError(f"{where}: there are {len(targets)} outputs of the kind {_TARGET} instead of one")
    joints = _elements(outputs[targets[0]], where)
    for name in gains.values():
        if _elements(outputs[name], where) != joints:
            raise UserError(f"{where}: '{name}' has other element_names than '{targets[0]}'")
    return joints, targets[0], gains


def _inputs(
    pipeline: Mapping[str, Any], node: str, inputs: Mapping[str, Any], joints: tuple[str, ...], where: str
) -> tuple[SensorInput, ...]:
    result = []
    for name in as_names(f"{where}: pipeline.inputs.{node}", pipeline["inputs"].get(node, [])):
        if name not in inputs:
            raise UserError(f"{where}: pipeline.inputs names '{name}', which models does not describe")
        entry = inputs[name]
        quantity = _quantity(name, entry, where)
        order = _ELEMENTS.get(quantity, joints)
        names = _elements(entry, where)
        if sorted(names) != sorted(order):
            raise UserError(
                f"{where}: '{name}' has the elements {', '.join(names)}, but {', '.join(order)} are needed"
            )
        result.append(SensorInput(name, quantity, tuple(order.index(element) for element in names)))
    return tuple(result)


def _quantity(name: str, entry: Mapping[str, Any], where: str) -> str:
    connection = entry.get("isaaclab_connection")
    if connection is None:
        raise UserError(
            f"{where}: the input '{name}' has no isaaclab_connection, so what it reads is not known"
        )
    parts = str(connection).split(":")
    if parts[0] == "command" and entry.get("kind") == "command/body/velocity":
        return "command"
    if parts[0] == "state" and len(parts) == 3 and parts[2] in _PROPERTIES:
        return _PROPERTIES[parts[2]]
    raise UserError(
        f"{where}: the input '{name}' reads {connection}, which no sensor of the robot gives"
        f"{nearest(parts[-1], _PROPERTIES)} (known: {', '.join(_PROPERTIES)}, and a velocity command)"
    )


def _feedback(
    files: ForeignFiles,
    pipeline: Mapping[str, Any],
    node: str,
    tensors: Mapping[str, Mapping[str, Any]],
    where: str,
) -> tuple[Feedback, ...]:
    if pipeline.get("data_flow"):
        raise UserError(f"{where}: pipeline.data_flow connects several graphs; a pipeline of one is needed")
    initial: Mapping[str, np.ndarray] = {}
    if pipeline.get("initial_values"):
        assert files.config_path is not None
        initial = read_safetensors(files.config_path.parent / str(pipeline["initial_values"]))
    result = []
    flow = f"{where}: pipeline.feedback_flow"
    for source, targets in as_mapping(flow, pipeline.get("feedback_flow") or {}).items():
        output = str(source).removeprefix(f"{node}/")
        for target in as_names(f"{flow}.{source}", targets):
            name = target.removeprefix(f"{node}/")
            if output not in tensors["outputs"] or name not in tensors["inputs"]:
                raise UserError(f"{flow}: {source} -> {target}: no such tensors")
            shape = tensors["inputs"][name]["shape"]
            if tensors["outputs"][output]["shape"] != shape:
                raise UserError(f"{flow}: {source} -> {target}: the shapes differ")
            value = initial.get(f"{node}/{name}", np.zeros(shape))
            if list(value.shape) != shape or not np.isfinite(value.astype(np.float64)).all():
                raise UserError(f"{where}: the initial value of '{name}' is not finite or of another shape")
            result.append(Feedback(output, name, value))
    return tuple(result)


def _constant_gains(
    files: ForeignFiles, network: SensorNetwork, gains: Mapping[str, str], where: str
) -> dict[str, np.ndarray]:
    """[n] of every gain; found by running the graph, because the YAML does not repeat the numbers."""
    if not gains:
        return {}
    rng = np.random.default_rng(0)
    runs = []
    with running(files.model) as session:
        for _ in range(3):
            feed = {}
            for value in graph_inputs(files.model):
                tensor = value.type.tensor_type
                dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                shape = [dimension.dim_value for dimension in tensor.shape.dim]
                feed[value.name] = rng.normal(0.0, 2.0, shape).astype(dtype)
            runs.append(session.run(list(gains.values()), feed))
    for field, *outputs in zip(gains, *runs, strict=True):
        if any((output != outputs[0]).any() for output in outputs):
            raise UserError(
                f"{where}: the {field} '{gains[field]}' changes from step to step, which no host does"
            )
    return {field: np.ravel(output).astype(np.float64) for field, output in zip(gains, runs[0], strict=True)}


def _period(pipeline: Mapping[str, Any], answers: Answers, where: str) -> float | None:
    frequency = as_mapping(f"{where}: pipeline.configs", pipeline.get("configs") or {}).get("frequency")
    if frequency is None:
        return answers.get("control_period", as_positive)
    answers.known("control_period", "LEAPP, configs.frequency")
    return 1.0 / as_positive(f"{where}: pipeline.configs.frequency", frequency)
