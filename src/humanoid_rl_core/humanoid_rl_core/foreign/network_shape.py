"""What a foreign network takes and gives: its inputs, their sizes, and a session that says nothing to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxruntime as ort

from ..errors import UserError


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are no weights; files of old IR versions list those too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def width(value: onnx.ValueInfoProto) -> int:
    """Number of values for a batch of one; a symbolic or missing first dimension counts as the batch.

    Raises:
        UserError: not float32, or a dimension other than the first is open.
    """
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        raise UserError(f"the tensor '{value.name}' is not float32; export the network in float32")
    dimensions = list(tensor.shape.dim)
    size = 1
    for index, dimension in enumerate(dimensions):
        if dimension.HasField("dim_value"):
            size *= dimension.dim_value
        elif index:
            raise UserError(f"the tensor '{value.name}' has an open dimension {index}; export fixed sizes")
    return size


def check_sizes(model: onnx.ModelProto, observation: int, joints: int) -> None:
    """Refuse a network whose sizes contradict its metadata.

    Raises:
        UserError: several inputs or outputs, or another size than the metadata make.
    """
    inputs, outputs = graph_inputs(model), list(model.graph.output)
    for kind, values in (("input", inputs), ("output", outputs)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise UserError(
                f"the network has {len(values)} {kind}s ({names}), but one is needed: recurrent networks and motion "
                "trackers are taken in LEAPP's format alone"
            )
    if width(inputs[0]) != observation:
        raise UserError(
            f"the network takes {width(inputs[0])} values, but the observation terms make {observation}"
        )
    if width(outputs[0]) != joints:
        raise UserError(f"the network gives {width(outputs[0])} actions, but there are {joints} joints")


@contextmanager
def running(model: onnx.ModelProto) -> Iterator[ort.InferenceSession]:
    """A session of a network that nobody has run yet.

    Raises:
        UserError: onnxruntime does not load it, or a run within the block fails.
    """
    options = ort.SessionOptions()
    # Weights that a composed graph has no use for are no one's concern.
    options.log_severity_level = 4
    try:
        onnx.checker.check_model(model, full_check=True)
        yield ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx's and onnxruntime's exceptions have no common base of their own
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"onnxruntime does not run the network ({reason}); export it with standard operators"
        ) from None
