"""The files of a foreign policy, and which format they are in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ..contract import METADATA_KEY
from ..errors import UserError
from ..policy_file import read_onnx
from ..typed_yaml import parse_yaml

FORMATS = ("leapp", "mjlab", "unitree_rl_lab")

#: Operators older than this are written differently (opset 11 is the oldest that rsl_rl's exporter wrote).
_OLDEST_OPSET = 11

#: How Isaac Lab's "all joints" arrives in an older deploy.yaml: a Python object, which safe YAML refuses.
_ALL_JOINTS = "!!python/object/apply:builtins.slice [null, null, null]"


@dataclass(frozen=True, eq=False)
class ForeignFiles:
    """An ONNX file, read whole, and the YAML beside it, if one was named.

    metadata: the ONNX file's. graph_sha256: of that file alone; sha256: of it followed by the files that its weights
    lie in, by their names; config_sha256: of the YAML, "" without one. All in hexadecimal.
    """

    path: Path
    model: onnx.ModelProto
    metadata: Mapping[str, str]
    graph_sha256: str
    sha256: str
    config_path: Path | None
    config: Mapping[str, Any]
    config_sha256: str


def read_files(path: Path, config_path: Path | None) -> ForeignFiles:
    """Read the files of a foreign policy.

    Raises:
        UserError: a file is missing, broken, one of ours, or has operators that only another stack's runtime knows.
    """
    content = read_onnx(path)
    digest = hashlib.sha256(content)
    graph_sha256 = digest.hexdigest()
    try:
        model = onnx.load_model_from_string(content)
        for name in sorted({name for tensor in _tensors(model.graph) for name in _location(tensor)}):
            digest.update((path.parent / name).read_bytes())
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError:
        raise UserError(
            f"{path}: is not an ONNX file; name the .onnx that the other stack exported"
        ) from None
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: its weights lie in another file that cannot be read ({reason})") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY in metadata:
        raise UserError(f"{path}: is a policy of this project already; use it as it is")
    _check_operators(path, model)
    config: Mapping[str, Any] = {}
    config_sha256 = ""
    if config_path is not None:
        try:
            text = config_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{config_path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{config_path}: cannot be read: {error}") from None
        config_sha256 = hashlib.sha256(text.encode()).hexdigest()
        config = parse_yaml(text.replace(_ALL_JOINTS, "null"), str(config_path))
    return ForeignFiles(
        path, model, metadata, graph_sha256, digest.hexdigest(), config_path, config, config_sha256
    )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All that a graph and those within its nodes hold."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _location(tensor: onnx.TensorProto) -> list[str]:
    """The file that a tensor's values lie in, if they are not in the graph."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return []
    return [entry.value for entry in tensor.external_data if entry.key == "location"]


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if entry.version < _OLDEST_OPSET:
                raise UserError(
                    f"{path}: has ONNX opset {entry.version}; export it with {_OLDEST_OPSET} or newer"
                )
        elif any(node.domain == entry.domain for node in model.graph.node) and not any(
            function.domain == entry.domain for function in model.functions
        ):
            raise UserError(
                f"{path}: uses operators of '{entry.domain}', which only that stack's runtime has; "
                "export it with standard ONNX operators"
            )


def format_of(files: ForeignFiles) -> str:
    """One of FORMATS, from what the files look like.

    Raises:
        UserError: they look like none of them.
    """
    if "pipeline" in files.config and "models" in files.config:
        return "leapp"
    if "joint_ids_map" in files.config or "observations" in files.config:
        return "unitree_rl_lab"
    if files.config_path is None and {"observation_names", "joint_names"} & set(files.metadata):
        return "mjlab"
    if files.config_path is not None:
        raise UserError(
            f"{files.config_path}: is neither LEAPP's YAML (models, pipeline) nor a deploy.yaml (joint_ids_map, "
            "observations); name the right one, or say --format"
        )
    raise UserError(
        f"{files.path}: has no mjlab metadata (observation_names, joint_names); name the YAML that came with it with "
        "--config, or say --format"
    )
