"""A foreign network inside a graph with this project's inputs, outputs and state.

The foreign nodes stay as they are; what is put before and behind them does the arithmetic of `PolicyGraph`, with the
foreign stack's order of joints, scales, clips and history where the network expects them.

State: [last action (n)][history - 1 older frames][memory]. The frames hold the terms as sensed, in motor order; scale
and clip are applied when they are read. The memory holds a step counter where there is a history or a clock, or the
feedback of a LEAPP graph less its initial value: so that all zeros are the start, as for every policy here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..contract import observation_term_sizes
from .description import ForeignPolicy, ObservationNetwork, SensorNetwork
from .graph_builder import GraphBuilder, batch_of_one
from .network_shape import graph_inputs
from .observing import StoredObservation

#: Smallest squared quaternion norm divided by, as in PolicyGraph.
_MIN_SQUARED_NORM = 1e-12


@dataclass(frozen=True, eq=False)
class Numbers:
    """What the composed graph computes with; [n] in motor order, as the contract's fields of the same names.

    motors: [n] motor of the network's joint i.
    """

    motors: tuple[int, ...]
    default_position: np.ndarray
    action_scale: np.ndarray
    position_lower: np.ndarray
    position_upper: np.ndarray


@dataclass(frozen=True, eq=False)
class ComposedGraph:
    """The graph without its contract, and the contract's fields that it decides.

    terms: of one frame, none of them scaled.
    """

    model: onnx.ModelProto
    terms: tuple[str, ...]
    history: int
    memory_size: int
    state_size: int


@dataclass(frozen=True)
class _Parts:
    """action: [1, n] in motor order; frames, memory: tensors of the next state."""

    action: str
    terms: tuple[str, ...]
    history: int = 1
    frames: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    memory_size: int = 0


def compose(foreign: onnx.ModelProto, policy: ForeignPolicy, numbers: Numbers) -> ComposedGraph:
    """The foreign network from raw sensors to joint targets."""
    builder = GraphBuilder()
    inner = onnx.compose.add_prefix(foreign, "foreign/")
    sensors = _sensors(builder, policy, numbers)
    if isinstance(policy.network, ObservationNetwork):
        parts = _around_observation(builder, inner, policy.network, policy.control_period, numbers, sensors)
    else:
        parts = _around_sensors(builder, inner, policy.network, numbers, sensors)
    scaled = builder.add("Mul", parts.action, builder.constant([numbers.action_scale]))
    target = builder.add("Add", scaled, builder.constant([numbers.default_position]))
    builder.clamp(target, numbers.position_lower, numbers.position_upper, output="joint_target")
    builder.add("Identity", parts.action, output="action")
    builder.row(parts.action, *parts.frames, *parts.memory, output="state_next")

    joints, commands = len(numbers.motors), len(policy.command_names)
    sizes = observation_term_sizes(joints, commands)
    frame = sum(sizes[term] for term in parts.terms)
    state_size = joints + (parts.history - 1) * frame + parts.memory_size
    inputs = {
        "joint_pos": joints,
        "joint_vel": joints,
        "imu_gyro": 3,
        "imu_quat": 4,
        "command": commands,
        "state": state_size,
    }
    outputs = {"joint_target": joints, "state_next": state_size, "action": joints}
    graph = onnx.helper.make_graph(
        builder.nodes, "imported_policy", _values(inputs), _values(outputs), builder.constants
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=list(inner.opset_import),
        functions=list(inner.functions),
        producer_name="humanoid_rl",
        ir_version=inner.ir_version,
    )
    return ComposedGraph(model, parts.terms, parts.history, parts.memory_size, state_size)


def _values(sizes: dict[str, int]) -> list[onnx.ValueInfoProto]:
    return [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size])
        for name, size in sizes.items()
    ]


def _sensors(builder: GraphBuilder, policy: ForeignPolicy, numbers: Numbers) -> dict[str, str]:
    """Tensors [1, m] of what the robot's sensors give, by quantity; joints in motor order."""
    # Products of the quaternion's parts and their sums: R(q)^T (0, 0, -1) times |q|^2, and |q|^2, as in PolicyGraph.
    factors = builder.add(
        "Mul",
        builder.pick("imu_quat", [2, 1, 1, 2, 0, 1, 2, 3]),
        builder.pick("imu_quat", [0, 3, 0, 3, 0, 1, 2, 3]),
    )
    # Rows: wy, xz, wx, yz, ww, xx, yy, zz.
    sums = [[2, 0, 0], [-2, 0, 0], [0, -2, 0], [0, -2, 0], [0, 0, -1], [0, 0, 1], [0, 0, 1], [0, 0, -1]]
    norm = [[0]] * 4 + [[1]] * 4
    squared = builder.add("MatMul", factors, builder.constant(norm))
    squared = builder.add("Max", squared, builder.constant([[_MIN_SQUARED_NORM]]))
    gravity = builder.add("Div", builder.add("MatMul", factors, builder.constant(sums)), squared)
    default = builder.constant([numbers.default_position])
    sensors = {
        "joint_pos": "joint_pos",
        "joint_pos_rel": builder.add("Sub", "joint_pos", default),
        "joint_vel": "joint_vel",
        "base_ang_vel": "imu_gyro",
        "imu_quat": "imu_quat",
        "projected_gravity": gravity,
        "last_action": builder.pick("state", range(len(numbers.motors))),
    }
    if policy.command_names:
        lower, upper = policy.command_range.T
        sensors["command"] = builder.clamp("command", lower, upper)
    return sensors


def _around_observation(
    builder: GraphBuilder,
    inner: onnx.ModelProto,
    network: ObservationNetwork,
    period: float,
    numbers: Numbers,
    sensors: dict[str, str],
) -> _Parts:
    stored = StoredObservation(network, numbers.motors, period)
    observation, frames, memory = stored.build(builder, sensors)
    (entry,) = graph_inputs(inner)
    builder.reshape(observation, batch_of_one(entry), output=entry.name)
    builder.insert(inner)
    action = builder.reshape(inner.graph.output[0].name, [1, len(numbers.motors)])
    if network.action_clip is not None:
        action = builder.clamp(action, -network.action_clip, network.action_clip)
    return _Parts(
        _in_motor_order(builder, action, numbers),
        stored.frame_terms,
        stored.history,
        frames,
        memory,
        len(memory),
    )


def _around_sensors(
    builder: GraphBuilder,
    inner: onnx.ModelProto,
    network: SensorNetwork,
    numbers: Numbers,
    sensors: dict[str, str],
) -> _Parts:
    shapes = {entry.name.removeprefix("foreign/"): batch_of_one(entry) for entry in graph_inputs(inner)}
    types = {
        entry.name.removeprefix("foreign/"): entry.type.tensor_type.elem_type for entry in graph_inputs(inner)
    }
    for entry in network.inputs:
        columns = entry.elements
        if entry.quantity in ("joint_pos", "joint_vel"):
            columns = tuple(numbers.motors[element] for element in columns)
        value = builder.pick(sensors[entry.quantity], columns)
        builder.reshape(value, shapes[entry.name], output=f"foreign/{entry.name}")
    start = len(numbers.motors)
    for feedback in network.feedback:
        size = feedback.initial.size
        value = builder.pick("state", range(start, start + size))
        value = builder.add("Add", value, builder.constant(feedback.initial.reshape(1, -1)))
        value = builder.reshape(value, shapes[feedback.input])
        builder.add("Cast", value, to=types[feedback.input], output=f"foreign/{feedback.input}")
        start += size
    builder.insert(inner)
    memory = []
    for feedback in network.feedback:
        value = builder.add("Cast", f"foreign/{feedback.output}", to=onnx.TensorProto.FLOAT)
        value = builder.reshape(value, [1, feedback.initial.size])
        memory.append(builder.add("Sub", value, builder.constant(feedback.initial.reshape(1, -1))))
    target = builder.reshape(f"foreign/{network.target}", [1, len(numbers.motors)])
    target = _in_motor_order(builder, target, numbers)
    action = builder.add("Sub", target, builder.constant([numbers.default_position]))
    action = builder.add("Div", action, builder.constant([numbers.action_scale]))
    return _Parts(
        action,
        _terms_read(network),
        memory=tuple(memory),
        memory_size=start - len(numbers.motors),
    )


def _terms_read(network: SensorNetwork) -> tuple[str, ...]:
    """The contract's terms whose sensors the graph reads; with one frame the contract says no more about them."""
    names = {"joint_pos": "joint_pos_rel", "imu_quat": "projected_gravity"}
    return tuple(dict.fromkeys(names.get(entry.quantity, entry.quantity) for entry in network.inputs))


def _in_motor_order(builder: GraphBuilder, tensor: str, numbers: Numbers) -> str:
    return builder.pick(tensor, [numbers.motors.index(motor) for motor in range(len(numbers.motors))])
