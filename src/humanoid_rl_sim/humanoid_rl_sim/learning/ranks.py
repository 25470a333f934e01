"""Training on several GPUs of a host: one process per GPU, started by torchrun, that share their gradients.

    torchrun --nproc-per-node 4 -m humanoid_rl train walk --name fast

Every rank steps `num_envs` robots of its own and learns the same parameters, because gradients, observation
statistics and divergences are averaged. Rank 0 alone evaluates and writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from humanoid_rl_core.errors import UserError
from torch import distributed

SEED_STRIDE = 1009
"""Between the seeds of two ranks."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this rank writes."""
        return self.rank == 0

    def mean_(self, *tensors: torch.Tensor) -> None:
        """Replace tensors by their means over the ranks, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        for tensor, value in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(value.view_as(tensor))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether any rank says yes."""
        if self.size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        distributed.all_reduce(votes)
        return bool(votes.item() > 0.0)

    def share(self, module: torch.nn.Module) -> None:
        """Everybody takes rank 0's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """End of the training."""
        if self.size > 1:
            distributed.destroy_process_group()


ALONE = Ranks()


def started_by_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several."""
    return (
        int(environment.get("WORLD_SIZE") or 1) > 1 and "RANK" in environment and "LOCAL_RANK" in environment
    )


def is_main(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process writes, known before it joins the others."""
    return not started_by_torchrun(environment) or environment.get("RANK") == "0"


def join(environment: Mapping[str, str] = os.environ, *, on_gpu: bool) -> Ranks:
    """Meet the other ranks: over NCCL, each on its GPU, or over gloo where the robots are on the CPU.

    Raises:
        UserError: the host has fewer GPUs than ranks.
    """
    if not started_by_torchrun(environment):
        return ALONE
    local = int(environment["LOCAL_RANK"])
    if on_gpu and local >= torch.cuda.device_count():
        raise UserError(
            f"torchrun: {local + 1} processes and {torch.cuda.device_count()} GPUs; one each is needed"
        )
    if on_gpu:
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    return Ranks(distributed.get_rank(), distributed.get_world_size())
