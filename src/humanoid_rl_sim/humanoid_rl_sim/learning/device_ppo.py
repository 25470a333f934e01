"""PPO whose rollouts, advantages and minibatches stay on the environment's device.

The class is stable-baselines3's PPO with its two loops replaced: the same policies, callbacks, logger and
checkpoints (which load in plain stable-baselines3), the same loss. Between the environment and the optimiser
nothing passes through NumPy. On a GPU one step of a rollout (act, step the environment, store), the judgement of a
rollout (values, advantages) and one gradient step on a minibatch are a CUDA graph each: their kernels are small, and
launching them one by one would take longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import nn
from torch.nn import functional

from humanoid_rl_sim.learning.asymmetric_policy import ObservationNormaliser
from humanoid_rl_sim.learning.episode_statistics import EpisodeStatistics
from humanoid_rl_sim.learning.ranks import ALONE, Ranks
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.tasks.environment import Environment, StepResult
from humanoid_rl_sim.tasks.graphed import StaticStep, captured
from humanoid_rl_sim.tasks.symmetry import Mirror, make_mirror

LOG_2PI = float(np.log(2.0 * np.pi))
VALUE_CHUNK = 1 << 17
"""Observations the critic judges at once."""


class DeviceRollout:
    """One rollout of `steps` steps of all environments, and the statistics of the episodes that ended in it."""

    def __init__(
        self, steps: int, num_envs: int, observation: int, action: int, device: torch.device
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, device=device)

        self.steps, self.num_envs = steps, num_envs
        self.observations = zeros(steps, num_envs, observation)
        self.final_observations = zeros(steps, num_envs, observation)
        self.actions = zeros(steps, num_envs, action)
        self.log_probs, self.rewards = zeros(steps, num_envs), zeros(steps, num_envs)
        self.done, self.truncated = zeros(steps, num_envs), zeros(steps, num_envs)
        self.values, self.advantages, self.returns = (zeros(steps, num_envs) for _ in range(3))
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.episodes = EpisodeStatistics(num_envs, device)

    def store(self, **values: torch.Tensor) -> None:
        """Write one step at `position`."""
        for name, value in values.items():
            getattr(self, name).index_copy_(0, self.position, value.unsqueeze(0))

    def estimate_advantages(
        self, last_value: torch.Tensor, final_values: torch.Tensor, gamma: float, gae_lambda: float
    ) -> None:
        """Generalised advantage estimation (Schulman et al. 2016); a time limit is no failure.

        Args:
            last_value: [N] value of the observation after the rollout.
            final_values: [steps, N] value of the last observation of an episode; read where it was cut off.
        """
        rewards = self.rewards + gamma * final_values * self.truncated
        advantage = torch.zeros_like(last_value)
        following = last_value
        for step in reversed(range(self.steps)):
            goes_on = 1.0 - self.done[step]
            delta = rewards[step] + gamma * following * goes_on - self.values[step]
            advantage = delta + gamma * gae_lambda * goes_on * advantage
            self.advantages[step] = advantage
            following = self.values[step]
        torch.add(self.advantages, self.values, out=self.returns)


class DevicePPO(PPO):
    """See the module. The environment must be a `Sb3VecEnv`; state-dependent exploration is not supported."""

    rollout: DeviceRollout
    ranks: Ranks = ALONE
    """The processes that learn the same parameters; environment steps of all of them count."""
    graph_updates: bool = True
    """Whether a GPU replays gradient steps as a graph; False launches the same kernels one by one."""
    symmetry_coefficient: float = 0.0
    """Weight of the mirror loss (`PpoConfig.symmetry_coefficient`); set before the first rollout."""

    def _setup_model(self) -> None:
        if self.use_sde:
            raise ValueError("state-dependent exploration needs the plain PPO of stable-baselines3")
        super()._setup_model()
        self._step: Callable[[], None] | None = None
        self._restore_optimizer()

    # -- what checkpoints hold ---------------------------------------------------------------------------------

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(), "rollout", "ranks", "graph_updates", "_step", "_static", "_observation",
            "_judge", "_mirror", "_gradient_step", "_clip_range", "_sums",
        ]  # fmt: skip

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """As plain stable-baselines3 has them: no trace of the graphs in the optimiser's state."""
        parameters = super().get_parameters()
        optimizer = dict(parameters["policy.optimizer"])
        optimizer["param_groups"] = [
            {**group, "lr": float(group["lr"]), "capturable": False} for group in optimizer["param_groups"]
        ]
        parameters["policy.optimizer"] = optimizer
        return parameters

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        super().set_parameters(*args, **kwargs)
        self._restore_optimizer()

    def _restore_optimizer(self) -> None:
        """Keep step counts and learning rate where the parameters are: a step does not ask the host, nor a graph."""
        optimizer = self.policy.optimizer
        on_gpu = self.device.type == "cuda"
        for group in optimizer.param_groups:
            group["capturable"] = on_gpu
            rate = float(group["lr"])
            group["lr"] = torch.tensor(rate, device=self.device) if on_gpu else rate
        for state in optimizer.state.values():
            state["step"] = state["step"].to(self.device if on_gpu else "cpu")
        self._gradient_step: Callable[[torch.Tensor], None] | None = (
            None  # a graph holds the old state's addresses
        )

    def _update_learning_rate(self, optimizers: Any) -> None:
        """As stable-baselines3 does it; a rate on the device is filled in, in place, for the graph to see."""
        groups = self.policy.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        super()._update_learning_rate(optimizers)
        for group, rate in zip(groups, rates, strict=True):
            if isinstance(rate, torch.Tensor):
                group["lr"] = rate.fill_(group["lr"])

    # -- rollout -----------------------------------------------------------------------------------------------

    @property
    def environment(self) -> Environment:
        """The environment behind `env`."""
        assert isinstance(self.env, Sb3VecEnv)
        return self.env.environment

    def _prepare(self) -> None:
        environment = self.environment
        space, action_space = self.observation_space.shape, self.action_space.shape
        assert space is not None and action_space is not None
        self.rollout = DeviceRollout(
            self.n_steps, environment.num_envs, space[0], action_space[0], environment.device
        )
        self._mirror = (
            make_mirror(environment.robot, environment.graph) if self.symmetry_coefficient > 0.0 else None
        )
        self._static = StaticStep(environment, graph=False)
        self._observation = torch.cat(self._static.reset(), 1).clone()
        self._step, self._judge = self._rollout_step, self._judge_rollout
        self._gradient_step = None
        if environment.device.type == "cuda":
            if environment.simulator.capturable:
                self._step = captured(self._rollout_step, environment.device, environment.generator).replay
            self._judge = captured(self._judge_rollout, environment.device).replay
            self._observation.copy_(torch.cat(self._static.reset(), 1))
            self.rollout.episodes.restart()

    def _rollout_step(self) -> None:
        """Act, step the environment and store, all at fixed addresses."""
        rollout, observation = self.rollout, self._observation
        mean, std = self._action_distribution(observation)
        action = mean + std * torch.randn_like(mean)
        rollout.store(observations=observation, actions=action, log_probs=_log_prob(action, mean, std))
        result: StepResult = self._static(action)
        done = (result.terminated | result.truncated).float()
        rollout.store(
            rewards=result.reward, done=done, truncated=result.truncated.float(),
            final_observations=torch.cat((result.final_observation, result.final_privileged), 1),
        )  # fmt: skip
        rollout.episodes.count(result.reward, done)
        observation.copy_(torch.cat((result.observation, result.privileged), 1))
        rollout.position.add_(1).remainder_(rollout.steps)

    def _action_distribution(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        policy = self.policy
        features = policy.extract_features(observation)
        assert isinstance(features, torch.Tensor) and isinstance(policy.log_std, torch.Tensor)
        mean = policy.action_net(policy.mlp_extractor.forward_actor(features))
        return mean, policy.log_std.exp().expand_as(mean)

    def _values(self, observations: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [...]."""
        flat = observations.reshape(-1, observations.shape[-1])
        values = [self.policy.predict_values(chunk).squeeze(-1) for chunk in flat.split(VALUE_CHUNK)]
        return torch.cat(values).reshape(observations.shape[:-1])

    def _judge_rollout(self) -> None:
        """Values, advantages and returns of the rollout, at fixed addresses."""
        rollout = self.rollout
        rollout.values.copy_(self._values(rollout.observations))
        rollout.estimate_advantages(
            self._values(self._observation),
            self._values(rollout.final_observations),
            self.gamma,
            self.gae_lambda,
        )

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """`n_rollout_steps` control steps of every environment; False when a callback says stop."""
        self.policy.set_training_mode(False)
        with torch.no_grad():
            if self._step is None:
                self._prepare()
            assert self._step is not None
            rollout = self.rollout
            rollout.position.zero_()
            rollout.episodes.forget_ended()
            callback.on_rollout_start()
            stop = False
            for _ in range(n_rollout_steps):
                self._step()
                self.num_timesteps += env.num_envs * self.ranks.size
                callback.update_locals(locals())
                stop = not callback.on_step() or stop
                if stop and self.ranks.size == 1:
                    return False
            if self.ranks.any(stop, self.device):
                return False
            self._judge()
        rollout.episodes.report(self.ep_info_buffer)
        callback.on_rollout_end()
        return True

    # -- update ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """One PPO update from the rollout on the device."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        rollout = self.rollout
        size = rollout.steps * rollout.num_envs
        if self._gradient_step is None:
            self._prepare_update(size)
        assert self._gradient_step is not None
        self._clip_range.fill_(clip_range)
        self._sums.zero_()
        batches = 0
        for _ in range(self.n_epochs):
            for index in torch.randperm(size, device=self._sums.device).split(self.batch_size):
                self._gradient_step(index)
                batches += 1
            self._n_updates += 1
        self.ranks.mean_(self._sums)
        policy_loss, value_loss, entropy, kl, clipped, asymmetry = (self._sums / batches).tolist()
        values, returns = rollout.values.flatten(), rollout.returns.flatten()
        explained = 1.0 - ((returns - values).var() / returns.var().clamp(min=1e-12)).item()
        record = self.logger.record
        record("train/policy_gradient_loss", policy_loss)
        record("train/value_loss", value_loss)
        record("train/entropy_loss", -entropy)
        record("train/approx_kl", kl)
        record("train/clip_fraction", clipped)
        if self._mirror is not None:
            record("train/symmetry_loss", asymmetry)
        record("train/explained_variance", explained)
        record("train/std", self.policy.log_std.exp().mean().item())
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", clip_range)

    def _prepare_update(self, size: int) -> None:
        """Choose how the gradient steps of the updates to come run, for `size` samples in a rollout."""
        device = self.rollout.rewards.device
        self._clip_range = torch.zeros((), device=device)
        self._sums = torch.zeros(6, device=device)
        self._gradient_step = self._minibatch
        whole = size % self.batch_size == 0
        if device.type == "cuda" and self.graph_updates and whole and self.ranks.size == 1:
            self._gradient_step = self._captured_minibatch()

    def _captured_minibatch(self) -> Callable[[torch.Tensor], None]:
        """`_minibatch` as a CUDA graph; leaves parameters and the optimiser's state as they are."""
        device, optimizer = self.rollout.rewards.device, self.policy.optimizer
        parameters = [
            (parameter.detach(), parameter.detach().clone()) for parameter in self.policy.parameters()
        ]
        moments = {
            parameter: {name: value.clone() for name, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        chosen = torch.arange(self.batch_size, device=device)
        graph = captured(lambda: self._minibatch(chosen), device)
        for values, before in parameters:  # in place, because the graph holds the addresses
            values.copy_(before)
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if parameter in moments:
                    value.copy_(moments[parameter][name])
                else:
                    value.zero_()  # the optimiser's very first step

        def replay(index: torch.Tensor) -> None:
            chosen.copy_(index)
            graph.replay()

        return replay

    def _minibatch(self, index: torch.Tensor) -> None:
        """One gradient step on the samples `index` [B] of the rollout.

        Adds policy loss, value loss, entropy, approximate KL, clipped fraction and mirror loss to `_sums` [6]. Reads
        nothing on the host, and all that lives on has a fixed address. Gradients start as None, so that within a graph
        they are written, not added up.
        """
        rollout, clip_range = self.rollout, self._clip_range
        batch = {
            name: getattr(rollout, name).flatten(0, 1)[index]
            for name in ("observations", "actions", "log_probs", "advantages", "returns")
        }
        policy = self.policy
        features = policy.extract_features(batch["observations"])
        assert isinstance(features, torch.Tensor) and isinstance(policy.log_std, torch.Tensor)
        mean = policy.action_net(policy.mlp_extractor.forward_actor(features))
        std = policy.log_std.exp().expand_as(mean)
        values = policy.value_net(policy.mlp_extractor.forward_critic(features)).squeeze(-1)
        log_prob = _log_prob(batch["actions"], mean, std)
        entropy = (0.5 + 0.5 * LOG_2PI + policy.log_std).sum()

        advantages = batch["advantages"]
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - batch["log_probs"]
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped).mean()
        value_loss = functional.mse_loss(batch["returns"], values)
        loss = policy_loss - self.ent_coef * entropy + self.vf_coef * value_loss
        asymmetry = torch.zeros_like(loss)
        if self._mirror is not None:
            asymmetry = self._asymmetry(self._mirror, batch["observations"], mean)
            loss = loss + self.symmetry_coefficient * asymmetry
        policy.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.mean_(*(value.grad for value in policy.parameters() if value.grad is not None))
        nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
        policy.optimizer.step()
        with torch.no_grad():
            kl = ((ratio - 1.0) - log_ratio).mean()
            outside = ((ratio - 1.0).abs() > clip_range).float().mean()
            self._sums += torch.stack((policy_loss, value_loss, entropy, kl, outside, asymmetry))

    def _asymmetry(self, mirror: Mirror, observations: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Mirror loss of the actor, whose mean actions for `observations` [B, D] are `mean` [B, n].

        The raw observation is mirrored and normalised afterwards: the statistics need not be symmetric.
        """
        policy = self.policy
        normaliser = policy.features_extractor
        assert isinstance(normaliser, ObservationNormaliser)
        mirrored = normaliser.graph.normalise(mirror.observation(observations[:, : normaliser.actor_size]))
        twin = policy.action_net(policy.mlp_extractor.forward_actor(mirrored))
        return functional.mse_loss(twin, mirror.action(mean))


def _log_prob(action: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Log density of a diagonal Gaussian, [N, n] -> [N]."""
    return (-0.5 * ((action - mean) / std).square() - std.log() - 0.5 * LOG_2PI).sum(1)
