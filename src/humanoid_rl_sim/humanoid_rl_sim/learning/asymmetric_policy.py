"""The stable-baselines3 policy that is trained: the actor sees what the robot has, the critic what the simulator knows.

Observations arrive as [actor's observation | privileged], not normalised. Both halves are normalised inside the
policy, so that checkpoints carry the statistics, and the actor's half by the policy graph itself, so that the
exported graph is the module that was trained.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import torch
from humanoid_rl_core.policy_graph import OBSERVATION_CLIP, VARIANCE_EPSILON, PolicyGraph
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from humanoid_rl_sim.learning.ranks import ALONE, Ranks


class ObservationNormaliser(BaseFeaturesExtractor):
    """Normalises both halves of an observation.

    `update` must only be called between two rollouts, so that a rollout and the update that learns from it agree on
    the statistics. Without `adapt_actor` the actor's half keeps the scales of the task's observation terms: a term
    that hardly varies then stays small instead of being blown up to the size of the others.
    """

    count: torch.Tensor
    privileged_mean: torch.Tensor
    privileged_var: torch.Tensor

    def __init__(
        self, observation_space: gymnasium.spaces.Box, graph: PolicyGraph, adapt_actor: bool = True
    ) -> None:
        size = int(observation_space.shape[0])
        super().__init__(observation_space, size)
        # A copy: the argument is stored in checkpoints, and must not follow the policy onto a GPU.
        self.graph = copy.deepcopy(graph)
        self.adapt_actor = adapt_actor
        self.actor_size = graph.observation_size
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("privileged_mean", torch.zeros(size - self.actor_size))
        self.register_buffer("privileged_var", torch.ones(size - self.actor_size))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        privileged = observations[:, self.actor_size :] - self.privileged_mean
        privileged = privileged / torch.sqrt(self.privileged_var + VARIANCE_EPSILON)
        return torch.cat(
            (
                self.graph.normalise(observations[:, : self.actor_size]),
                privileged.clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP),
            ),
            1,
        )

    @torch.no_grad()
    def update(self, observations: torch.Tensor, ranks: Ranks = ALONE) -> None:
        """Merge `observations` [B, size] into means and variances (Chan et al. 1983), those of all ranks together."""
        batch = observations.to(self.privileged_mean.device).double()
        size, count = float(batch.shape[0]) * ranks.size, float(self.count)
        total = count + size
        old_mean = torch.cat((self.graph.obs_mean, self.privileged_mean)).double()
        old_var = torch.cat((self.graph.obs_var, self.privileged_var)).double()
        mean = batch.mean(0)
        ranks.mean_(mean)
        var = (batch - mean).square().mean(0)
        ranks.mean_(var)
        delta = mean - old_mean
        new_mean = old_mean + delta * (size / total)
        new_var = (old_var * count + var * size + delta.square() * count * size / total) / total
        if self.adapt_actor:
            self.graph.set_normalisation(new_mean[: self.actor_size], new_var[: self.actor_size])
        self.privileged_mean.copy_(new_mean[self.actor_size :])
        self.privileged_var.copy_(new_var[self.actor_size :])
        self.count += size


class _AsymmetricMlp(nn.Module):
    """Two multi-layer perceptrons: the actor's on its half of the features, the critic's on all of them."""

    def __init__(
        self, actor_size: int, size: int, hidden: dict[str, list[int]], activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.actor_size = actor_size
        self.policy_net, self.latent_dim_pi = _mlp(actor_size, hidden["pi"], activation)
        self.value_net, self.latent_dim_vf = _mlp(size, hidden["vf"], activation)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return self.policy_net(features[:, : self.actor_size])

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.value_net(features)


def _mlp(size: int, hidden: list[int], activation: type[nn.Module]) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(size, width), activation()]
        size = width
    return nn.Sequential(*layers), size


class AsymmetricPolicy(ActorCriticPolicy):
    """Actor-critic policy whose `policy_kwargs` are stable-baselines3's, with `features_extractor_kwargs["graph"]`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", ObservationNormaliser)
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        assert isinstance(self.features_extractor, ObservationNormaliser) and isinstance(self.net_arch, dict)
        self.mlp_extractor = _AsymmetricMlp(  # type: ignore[assignment]
            self.features_extractor.actor_size, self.features_dim, self.net_arch, self.activation_fn
        ).to(self.device)

    def actor_network(self) -> nn.Sequential:
        """Normalised actor's observation [B, observation_size] -> action mean [B, n]."""
        return nn.Sequential(*self.mlp_extractor.policy_net, self.action_net)
