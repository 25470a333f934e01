"""The step at fixed addresses does what the plain step does, and what would stop its capture is named."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.tasks.environment import Environment
from humanoid_rl_sim.tasks.graphed import HostSyncError, NoHostSync, StaticStep, check_terms
from humanoid_rl_sim.tasks.making import make_environment

N = 16


def environment_of(task: str = "walk") -> Environment:
    return make_environment(load_task(task), "mujoco", N, seed=3)


@pytest.mark.parametrize("task", ["walk", "stand", "rough"])
def test_static_step_equals_the_plain_step(task):
    plain, static = environment_of(task), environment_of(task)
    step = StaticStep(static)
    plain.reset()
    plain.step(torch.zeros(N, 29))
    generator = torch.Generator().manual_seed(1)
    ended = 0
    for _ in range(120):
        action = 2.0 * torch.randn(N, 29, generator=generator)
        expected, result = plain.step(action), step(action)
        ended += int(expected.terminated.sum())
        for field in dataclasses.fields(expected):
            assert torch.equal(getattr(expected, field.name), getattr(result, field.name)), field.name
    assert ended > 0  # resets were part of it
    assert plain.pop_reward_terms() == static.pop_reward_terms()


def test_every_lasting_tensor_keeps_its_address():
    step = StaticStep(environment_of())
    state = step._state
    addresses = [tensor.data_ptr() for tensor in state.tensors()]
    first = step(torch.zeros(N, 29)).observation.clone()
    second = step(torch.ones(N, 29))
    owners = (step.environment, step.environment.view)
    now = [
        tensor.data_ptr() for tensor in type(state)(*owners).tensors()
    ]  # collected anew: what the attributes hold
    assert now == addresses
    assert not torch.equal(first, second.observation)


def test_a_term_that_needs_the_host_is_named():
    environment = environment_of()

    def hasty(view):
        return torch.ones(N) if view.command.abs().max() > 0.1 else torch.zeros(N)

    environment.reset()
    environment.reward_terms.append(("hasty", 1.0, hasty))
    with pytest.raises(UserError, match="task walk: reward 'hasty' cannot run on the device alone"):
        check_terms(environment)


@pytest.mark.parametrize(
    "reads",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool((x > 0).any()), lambda x: x.nonzero()],
)
def test_reading_a_tensor_on_the_host_is_noticed(reads):
    with pytest.raises(HostSyncError), NoHostSync():
        reads(torch.randn(5))
