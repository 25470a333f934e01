"""A device by the name that people give it, or one line why not."""

from __future__ import annotations

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.simulators.torch_device import choose_device


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch):
    """As on a machine with so many GPUs, of which the second is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    return request.param


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:first", "cuda:-1", "0"])
def test_what_is_neither_a_cpu_nor_a_gpu_is_refused(gpus, device):
    with pytest.raises(UserError, match=f"device {device}: is neither cpu nor cuda"):
        choose_device(device)


def test_a_gpu_is_chosen_where_it_is(gpus):
    assert choose_device("cpu") == "cpu"
    if gpus:
        assert [choose_device(name) for name in ("", "cuda", "cuda:0")] == ["cuda:1", "cuda:1", "cuda:0"]
    else:
        assert choose_device("") == "cpu"


def test_a_gpu_that_is_not_there_is_refused(gpus):
    said = "the last GPU here is cuda:1" if gpus else "torch finds no CUDA GPU; use device cpu"
    for device in ("cuda:2", "cuda:9"):
        with pytest.raises(UserError, match=f"device {device}: {said}"):
            choose_device(device)
