"""A policy's ONNX file as bytes: read whole or refused, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .errors import UserError


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        UserError: it is missing, unreadable, empty, cut short or no ONNX file.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a directory; name the policy's .onnx file")
    try:
        model = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such policy file; train one or name another") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    if not model:
        raise UserError(f"{path}: is empty; copy or export the policy again")
    complete = _is_whole_protobuf(model)
    if complete is None:
        raise UserError(f"{path}: is not an ONNX file; name a policy exported by this project")
    if not complete:
        raise UserError(f"{path}: the ONNX file is truncated; copy or export the policy again")
    return model


def write_checked(path: Path, model: bytes, check: Callable[[Path], object]) -> None:
    """Write the file beside its place, let `check` load it, and only then give it its name.

    A failure or an interruption leaves what was there before.

    Raises:
        UserError: the path cannot be written; whatever `check` raises, with the file's final name in it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(model)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    except UserError as error:
        raise UserError(str(error).replace(str(temporary), str(path))) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _sync_directory(folder: Path) -> None:
    """Make the rename itself last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole_protobuf(model: bytes) -> bool | None:
    """True: the top level of an ONNX file is complete; False: it breaks off; None: it never was one.

    An ONNX file is a protobuf ModelProto, whose writers begin with field 1, ir_version, a varint (tag 0x08).
    onnxruntime's own message does not tell a broken copy from a foreign file.
    """
    if model[0] != 0x08:
        return None
    position = 0
    while position < len(model):
        tag, position = _varint(model, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(model, position)
        elif kind == 2:
            length, position = _varint(model, position)
            position += length
        else:
            # A ModelProto has no other kinds at its top level.
            return None
    return position == len(model)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Protobuf varint at position -> (value, position after it); the latter is past the end when cut off."""
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            return value, position
    return 0, len(data) + 1
