"""A trained policy graph into one ONNX file that carries its contract and its own proof."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from .contract import (
    METADATA_KEY,
    MIN_GOLDEN_STEPS,
    SCHEMA_VERSION,
    TOLERANCE,
    Golden,
    ObservationSlice,
    PolicyContract,
    TrainingRecord,
    golden_error,
)
from .errors import UserError
from .golden_inputs import random_inputs
from .onnx_policy import EXPORT_AGAIN, OnnxPolicy
from .policy_file import write_checked
from .policy_graph import PolicyGraph
from .robot import Gains, RobotModel
from .typed_yaml import load_dataclass

#: Opset of the exported file: standard operators alone, in every onnxruntime since 1.12 (2022).
OPSET = 17

#: Length of the random episode on which file and torch graph are compared before the file gets its name.
_PARITY_STEPS = 200


def export_policy(
    path: str | Path,
    graph: PolicyGraph,
    robot: RobotModel,
    gains: Gains,
    *,
    name: str,
    control_period: float,
    training: Mapping[str, Any],
) -> Path:
    """Write a policy, load it as a robot would, compare it with torch, and only then give it its name.

    The file appears whole or not at all: a failure or an interruption leaves what was there before. The
    graph itself, its device and its mode stay as they are.

    path: the .onnx file; its folder is made.
    graph: with its network; joints in the robot's motor order.
    robot: the one it was trained on, with the limits it was trained with.
    gains: of the joint PD loop, Nm/rad and Nm s/rad.
    name: the policy's name. control_period: seconds per policy step.
    training: task, simulator, seed, steps, git_revision, metrics (see TrainingRecord).
    Returns the path.

    Raises:
        UserError: non-finite weights, a training record or graph that does not fit the contract or the
            robot, a file that differs from torch by more than 1e-5, or a path that cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name the .onnx file to write")
    frozen = _frozen_copy(graph)
    record = load_dataclass(TrainingRecord, training, "training record")
    rng = np.random.default_rng(0)
    # Twice the history: the older half of the frames then comes from recorded steps throughout.
    golden = _record_golden(frozen, robot, rng, max(MIN_GOLDEN_STEPS + 2, 2 * graph.history))
    contract = PolicyContract(
        schema_version=SCHEMA_VERSION,
        name=name,
        robot=robot.name,
        variant=robot.variant,
        description_hash=robot.description_hash,
        mode_machine=tuple(robot.mode_machine),
        joint_names=frozen.joint_names,
        default_position=_shortest(frozen.default_position),
        stiffness=gains.stiffness,
        damping=gains.damping,
        effort_limit=robot.effort_limit,
        velocity_limit=robot.velocity_limit,
        position_lower=_shortest(frozen.position_lower),
        position_upper=_shortest(frozen.position_upper),
        action_scale=_shortest(frozen.action_scale),
        control_period=float(control_period),
        command_names=frozen.command_names,
        command_lower=_shortest(frozen.command_lower),
        command_upper=_shortest(frozen.command_upper),
        observation=tuple(ObservationSlice(*term) for term in frozen.observation_layout),
        history=frozen.history,
        state_size=frozen.state_size,
        training=record,
        golden=golden,
        height_scan=frozen.height_scan,
    )
    write_checked(path, _to_onnx(frozen, contract), lambda file: _prove(file, frozen, robot))
    return path


def _frozen_copy(graph: PolicyGraph) -> PolicyGraph:
    """A copy on the CPU in evaluation mode, without a compiled network's wrapper."""
    if graph.network is None:
        raise UserError("the policy graph has no network to export; set its attribute 'network' first")
    for tensor_name, tensor in graph.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"'{tensor_name}' has values that are not finite: the training diverged; "
                "export an earlier checkpoint"
            )
    frozen = copy.deepcopy(graph).cpu().float().eval()
    frozen.network = getattr(frozen.network, "_orig_mod", frozen.network)
    return frozen.requires_grad_(False)


def _shortest(tensor: torch.Tensor) -> np.ndarray:
    """float32 values as the shortest decimals that round to them: 0.1 stays 0.1 in the file."""
    return np.array([float(str(value)) for value in tensor.numpy()])


def _random_inputs(
    graph: PolicyGraph, robot: RobotModel, rng: np.random.Generator, steps: int
) -> dict[str, np.ndarray]:
    lower, upper = graph.command_lower.numpy(), graph.command_upper.numpy()
    return random_inputs(robot, lower, upper, rng, steps, graph.height_scan)


def _batch_of_one(inputs: Mapping[str, np.ndarray], step: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values[step : step + 1]) for name, values in inputs.items()}


def _episode(
    graph: PolicyGraph, inputs: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Torch's own outputs over an episode: joint_target [T, n], action [T, n], final state [s]."""
    state = graph.initial_state(1)
    targets, actions = [], []
    with torch.no_grad():
        for step in range(len(inputs["command"])):
            target, state, action = graph(**_batch_of_one(inputs, step), state=state)
            targets.append(target[0].numpy())
            actions.append(action[0].numpy())
    return np.stack(targets), np.stack(actions), state[0].numpy()


def _record_golden(graph: PolicyGraph, robot: RobotModel, rng: np.random.Generator, steps: int) -> Golden:
    if graph.action_size != len(robot.joint_names):
        raise UserError(
            f"the policy has {graph.action_size} joints, but {robot.name} {robot.variant} has "
            f"{len(robot.joint_names)}; export it for the robot it was trained on"
        )
    inputs = _random_inputs(graph, robot, rng, steps)
    targets, actions, final_state = _episode(graph, inputs)
    return Golden(inputs, {"joint_target": targets, "action": actions}, final_state)


def _to_onnx(graph: PolicyGraph, contract: PolicyContract) -> bytes:
    shapes = contract.input_shapes()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "graph.onnx"
        # The TorchScript exporter is deprecated, yet gives this graph as plain standard operators without
        # one more dependency. Tracing is safe: the graph never branches on data.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            tuple(torch.zeros(shape) for shape in shapes.values()),
            file,
            input_names=list(shapes),
            output_names=list(contract.output_shapes()),
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(file)
    # The exporter drops inputs that the observation does not use; hosts feed all of them.
    inputs = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.producer_name = "humanoid_rl"
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _prove(path: Path, graph: PolicyGraph, robot: RobotModel) -> None:
    try:
        _compare_with_torch(path, graph, robot)
    except UserError as error:
        raise UserError(f"not exported: {str(error).removesuffix(f'; {EXPORT_AGAIN}')}") from None


def _compare_with_torch(path: Path, graph: PolicyGraph, robot: RobotModel) -> None:
    """Run the file through a random episode; torch repeats every step from the state the file was in.

    From the file's state and not its own, because a network may amplify rounding from step to step until two
    right episodes differ; the state itself is compared as well.
    """
    policy = OnnxPolicy(path, robot)
    inputs = _random_inputs(graph, robot, np.random.default_rng(1), _PARITY_STEPS)
    for step in range(_PARITY_STEPS):
        state = torch.from_numpy(policy.state).unsqueeze(0)
        output = policy.step(**{name: values[step] for name, values in inputs.items()})
        with torch.no_grad():
            target, state_next, action = graph(**_batch_of_one(inputs, step), state=state)
        for name, actual, expected in (
            ("joint_target", output.joint_target, target),
            ("state_next", policy.state, state_next),
            ("action", output.action, action),
        ):
            error = golden_error(actual, expected[0].numpy()).max()
            if error > TOLERANCE:
                raise UserError(
                    f"{path}: '{name}' of the file differs from torch by {error:.2g} (allowed {TOLERANCE:g}) "
                    f"at step {step}; report it with the network's layers, they do not export faithfully"
                )
