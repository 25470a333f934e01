"""Observation statistics of a policy in training; they live inside the policy, so checkpoints carry them."""

from __future__ import annotations

import gymnasium
import torch
from humanoid_rl_core.policy_graph import PolicyGraph
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor


class GraphNormaliser(BaseFeaturesExtractor):
    """Feature extractor that is the policy graph's own normalisation.

    The rollouts hold raw observations; actor and critic see them through this module, and the exported graph is the
    same module. `update` must only be called between two rollouts, so that a rollout and the update that learns
    from it agree on the statistics.
    """

    count: torch.Tensor

    def __init__(self, observation_space: gymnasium.spaces.Box, graph: PolicyGraph) -> None:
        super().__init__(observation_space, graph.observation_size)
        self.graph = graph
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.graph.normalise(observations)

    @torch.no_grad()
    def update(self, observations: torch.Tensor) -> None:
        """Merge `observations` [B, observation_size] into mean and variance (Chan et al. 1983)."""
        batch = observations.double()
        size = float(batch.shape[0])
        mean, var = batch.mean(0), batch.var(0, unbiased=False)
        if self.count == 0:
            self.graph.set_normalisation(mean, var)
        else:
            old_mean, old_var, count = self.graph.obs_mean.double(), self.graph.obs_var.double(), float(self.count)
            total = count + size
            delta = mean - old_mean
            new_mean = old_mean + delta * (size / total)
            new_var = (old_var * count + var * size + delta.square() * count * size / total) / total
            self.graph.set_normalisation(new_mean, new_var)
        self.count += size
