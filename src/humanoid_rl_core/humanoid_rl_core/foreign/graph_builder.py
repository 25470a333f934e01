"""Nodes and constants of an ONNX graph in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike


def batch_of_one(value: onnx.ValueInfoProto) -> list[int]:
    """A tensor's shape, with 1 for a first dimension that is open."""
    return [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]


class GraphBuilder:
    """Collects nodes; every method returns the name of the tensor it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: ArrayLike, dtype: Any = np.float32) -> str:
        """A constant of this shape and type."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node with one output, named or numbered."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def insert(self, model: onnx.ModelProto) -> None:
        """All nodes and weights of another graph, under their names."""
        self.nodes.extend(model.graph.node)
        self.constants.extend(model.graph.initializer)

    def pick(self, tensor: str, columns: Sequence[int], output: str = "") -> str:
        """Columns of a [1, m] tensor, in this order."""
        return self.add("Gather", tensor, self.constant(columns, np.int64), axis=1, output=output)

    def row(self, *tensors: str, output: str = "") -> str:
        """[1, m] tensors side by side."""
        return self.add("Concat", *tensors, axis=1, output=output)

    def clamp(self, tensor: str, lower: ArrayLike, upper: ArrayLike, output: str = "") -> str:
        """Columns between bounds of their own."""
        above = self.add("Max", tensor, self.constant(np.atleast_2d(lower)))
        return self.add("Min", above, self.constant(np.atleast_2d(upper)), output=output)

    def reshape(self, tensor: str, shape: Sequence[int], output: str = "") -> str:
        """The same values in another shape."""
        return self.add("Reshape", tensor, self.constant(shape, np.int64), output=output)
