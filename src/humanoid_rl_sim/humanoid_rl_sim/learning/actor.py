"""What acts in an environment: a trained policy, the baseline, an exported file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from humanoid_rl_core.contract import HEIGHT_SCAN
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.policy_graph import PolicyGraph
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from humanoid_rl_sim.learning.asymmetric_policy import AsymmetricPolicy, ObservationNormaliser
from humanoid_rl_sim.learning.asymmetric_sac_policy import AsymmetricSACPolicy
from humanoid_rl_sim.learning.onnx_batch import OnnxBatch
from humanoid_rl_sim.tasks.environment import Environment, StepResult


def actor_graph(policy: BasePolicy) -> PolicyGraph:
    """A copy of the policy's graph with its normalisation and its actor as the network (deterministic action)."""
    assert isinstance(policy, AsymmetricPolicy | AsymmetricSACPolicy)
    assert isinstance(policy.features_extractor, ObservationNormaliser)
    graph = copy.deepcopy(policy.features_extractor.graph)
    graph.network = copy.deepcopy(policy.actor_network())
    return graph.eval().requires_grad_(False)


class ZeroAction(nn.Module):
    """The baseline's network: action 0, that is, PD holding the default pose."""

    def __init__(self, action_size: int) -> None:
        super().__init__()
        self.action_size = action_size

    def forward(self, observation):
        return observation.new_zeros(observation.shape[0], self.action_size)


def baseline_graph(graph: PolicyGraph) -> PolicyGraph:
    """A copy of `graph` that holds the default pose."""
    baseline = copy.deepcopy(graph)
    baseline.network = ZeroAction(graph.action_size)
    return baseline.eval()


class Decision(NamedTuple):
    """What an actor wants of its robots."""

    action: torch.Tensor
    """[N, n]."""
    joint_target: torch.Tensor | None = None
    """[N, n] rad; None where the task's graph decodes the action."""


class Actor(Protocol):
    """Anything that turns the environment's present state into actions."""

    def act(self, environment: Environment, observation: torch.Tensor, started: torch.Tensor) -> Decision:
        """`started` [N] marks the environments whose episode has just begun."""
        ...


MakeActor = Callable[[Environment], Actor]
"""Who acts in an environment."""


class GraphActor:
    """A policy graph in torch, batched."""

    def __init__(self, graph: PolicyGraph) -> None:
        if graph.network is None:
            raise ValueError("the graph has no network")
        self.graph = graph

    def act(self, environment: Environment, observation: torch.Tensor, started: torch.Tensor) -> Decision:
        assert self.graph.network is not None
        return Decision(self.graph.network(self.graph.normalise(observation)))


def baseline(environment: Environment) -> Actor:
    """The task's gains alone, holding the default pose."""
    return GraphActor(baseline_graph(environment.graph))


class OnnxActor:
    """An exported policy as the policy node runs it: raw sensors in, joint targets out, one environment at a time.

    A policy that sees the ground is given it. Where the task's actor sees it at the same points, that is what its
    sensors read, noise included; elsewhere it is looked up exactly, which on level ground gives at every point how
    much higher than standing the base is.
    """

    def __init__(self, policy: OnnxPolicy, num_envs: int) -> None:
        self.policy = policy
        self._batch = OnnxBatch(policy, num_envs)
        scan = policy.contract.height_scan
        self._points = None if scan is None else torch.as_tensor(scan.points, dtype=torch.float32)

    def act(self, environment: Environment, observation: torch.Tensor, started: torch.Tensor) -> Decision:
        seen = {**environment.sensors._asdict(), "command": environment.view.command}
        if self._points is None:
            del seen[HEIGHT_SCAN]
        elif environment.graph.height_scan != self.policy.contract.height_scan:
            seen[HEIGHT_SCAN] = environment.depth(self._points.to(environment.device))
        sensors = {name: tensor.cpu().numpy() for name, tensor in seen.items()}
        output = self._batch.step(sensors, started.cpu().numpy())
        both = output.action, output.joint_target
        return Decision(*(torch.from_numpy(values).to(environment.device) for values in both))


def run_episodes(
    environment: Environment, actor: Actor, steps: int, on_step: Callable[[int, StepResult], None]
) -> None:
    """Run `steps` control steps; calls `on_step(step, result)` after each."""
    with torch.no_grad():
        observation, _ = environment.reset()
        started = torch.ones(environment.num_envs, dtype=torch.bool)
        for step in range(steps):
            result = environment.step(*actor.act(environment, observation, started))
            observation, started = result.observation, result.terminated | result.truncated
            on_step(step, result)
