"""From a stable-baselines3 policy to a policy graph that can act and be exported."""

from __future__ import annotations

import copy

from humanoid_rl_core.policy_graph import PolicyGraph
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from humanoid_rl_sim.learning.asymmetric_policy import ObservationNormaliser


def actor_graph(policy: ActorCriticPolicy) -> PolicyGraph:
    """A copy of the policy's graph with its normalisation and its actor as the network (deterministic mean)."""
    assert isinstance(policy.features_extractor, ObservationNormaliser)
    graph = copy.deepcopy(policy.features_extractor.graph)
    graph.network = copy.deepcopy(nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net))
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
