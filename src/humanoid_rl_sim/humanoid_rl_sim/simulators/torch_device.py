"""Which of this machine's devices a person means."""

from __future__ import annotations

import torch
from humanoid_rl_core.errors import UserError


def choose_device(device: str) -> str:
    """The device meant by "cuda", "cuda:1", "cpu", or "", which is the current GPU where there is one.

    Raises:
        UserError: it is neither a CPU nor a CUDA GPU, or this machine has no such GPU.
    """
    try:
        meant = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        meant = None
    if meant is None or meant.type not in ("cpu", "cuda"):
        raise UserError(f"device {device}: is neither cpu nor cuda, cuda:0, cuda:1, ...")
    if meant.type == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        raise UserError(f"device {device}: torch finds no CUDA GPU; use device cpu")
    if meant.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    if meant.index >= torch.cuda.device_count():
        raise UserError(f"device {device}: the last GPU here is cuda:{torch.cuda.device_count() - 1}")
    return str(meant)
