"""Reading of safetensors files, the format of LEAPP's initial values; without its package, which nothing else needs.

Layout, from the format's description: length of the header (8 bytes, little-endian), the header in JSON (tensor ->
dtype, shape, data_offsets), the data.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import UserError

_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name.

    Raises:
        UserError: the file is missing or not as it must be.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs to the YAML") from None
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        data = content[8 + size :]
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            array = np.frombuffer(data[start:stop], dtype=_TYPES[entry["dtype"]])
            tensors[name] = array.reshape(entry["shape"])
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no whole safetensors file; copy it again") from None
