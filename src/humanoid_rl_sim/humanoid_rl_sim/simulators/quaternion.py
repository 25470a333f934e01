"""Unit quaternions in torch, (w, x, y, z), batched and without a word to the host."""

from __future__ import annotations

import torch


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Hamilton product of [..., 4] and [..., 4]: rotation b first, then a."""
    w, v = a[..., :1], a[..., 1:]
    u, x = b[..., :1], b[..., 1:]
    scalar = w * u - (v * x).sum(-1, keepdim=True)
    v, x = torch.broadcast_tensors(v, x)
    return torch.cat((scalar, w * x + u * v + torch.linalg.cross(v, x)), -1)


def rotate(quat: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Vectors [..., 3] of the frame that `quat` [..., 4] describes, in the outer frame."""
    return _turned(quat[..., :1], quat[..., 1:], vector)


def rotate_inverse(quat: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Vectors [..., 3] of the outer frame in the frame that `quat` [..., 4] turns into it."""
    return _turned(quat[..., :1], -quat[..., 1:], vector)


def _turned(w: torch.Tensor, axis: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    axis, vector = torch.broadcast_tensors(axis, vector)
    t = 2.0 * torch.linalg.cross(axis, vector)
    return vector + w * t + torch.linalg.cross(axis, t)
