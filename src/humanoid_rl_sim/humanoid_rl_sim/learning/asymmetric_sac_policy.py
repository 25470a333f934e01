"""The stable-baselines3 SAC policy that is trained: the actor sees what the robot has, the critics what the simulator
knows.

Observations are those of `asymmetric_policy`, and one `ObservationNormaliser` serves the actor, the critics and their
targets. The critics have layer normalisation, which keeps values bounded where the replay has no data (Ball et al.
2023, "Efficient Online Reinforcement Learning with Offline Data"); FastSAC (Seo et al. 2025) trains humanoids so.
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor, SACPolicy
from torch import nn

from humanoid_rl_sim.learning.asymmetric_policy import ObservationNormaliser


class ActionBound(nn.Module):
    """The end of the actor's network: [B, n] of any size -> actions [B, n] within +-bound, in the graph's units."""

    bound: torch.Tensor

    def __init__(self, bound: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("bound", bound.clone())

    def forward(self, unbounded: torch.Tensor) -> torch.Tensor:
        return self.bound * torch.tanh(unbounded)


class _Actor(Actor):
    """stable-baselines3's, on the actor's half of the features; untrained it asks for action 0, with noise."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        assert isinstance(self.log_std, nn.Linear)
        for layer, value in ((self.mu, 0.0), (self.log_std, self.log_std_init)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, value)

    def get_action_dist_params(  # type: ignore[override]
        self, obs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        features = self.extract_features(obs, self.features_extractor)[:, : self.features_dim]
        latent = self.latent_pi(features)
        assert isinstance(self.log_std, nn.Linear)
        return self.mu(latent), self.log_std(latent).clamp(LOG_STD_MIN, LOG_STD_MAX), {}


class _Critics(ContinuousCritic):
    """stable-baselines3's, with layer normalisation after every hidden layer."""

    def __init__(self, *, n_critics: int, **kwargs: Any) -> None:
        super().__init__(**kwargs, n_critics=0)
        self.n_critics = n_critics
        inputs = kwargs["features_dim"] + get_action_dim(self.action_space)
        for index in range(n_critics):
            layers = create_mlp(
                inputs, 1, kwargs["net_arch"], kwargs["activation_fn"], post_linear_modules=[nn.LayerNorm]
            )
            self.add_module(f"qf{index}", nn.Sequential(*layers))
            self.q_networks.append(self.get_submodule(f"qf{index}"))


class AsymmetricSACPolicy(SACPolicy):
    """SAC policy whose `policy_kwargs` are stable-baselines3's, with `features_extractor_kwargs["graph"]`.

    `log_std_init` is the logarithm of the untrained policy's standard deviation before the tanh.
    """

    features_extractor: ObservationNormaliser

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("features_extractor_class", ObservationNormaliser)
        super().__init__(*args, **{**kwargs, "share_features_extractor": True})

    def _build(self, lr_schedule: Any) -> None:
        normaliser = self.make_features_extractor()
        assert isinstance(normaliser, ObservationNormaliser)
        self.features_extractor = normaliser
        super()._build(lr_schedule)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        kwargs = self._update_features_extractor(self.actor_kwargs, self.features_extractor)
        return _Actor(**{**kwargs, "features_dim": self.features_extractor.actor_size}).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        kwargs = self._update_features_extractor(self.critic_kwargs, self.features_extractor)
        return _Critics(**kwargs).to(self.device)

    def actor_network(self) -> nn.Sequential:
        """Normalised actor's observation [B, observation_size] -> deterministic action [B, n], bounded."""
        bound = torch.as_tensor(self.action_space.high, device=self.device)  # type: ignore[attr-defined]
        return nn.Sequential(*self.actor.latent_pi, self.actor.mu, ActionBound(bound))
