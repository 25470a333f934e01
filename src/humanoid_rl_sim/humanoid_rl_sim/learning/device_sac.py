"""SAC whose replay and minibatches stay on the environment's device.

The class is stable-baselines3's SAC with its two loops replaced: the same policies, callbacks, logger and checkpoints
(which load in plain stable-baselines3), the same update. Between the environment and the optimisers nothing passes
through NumPy, and the host reads the device once in `log_steps` control steps.
"""

from __future__ import annotations

import math

import gymnasium
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import ReplayBufferSamples, RolloutReturn, TrainFreq
from stable_baselines3.common.utils import polyak_update, should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional

from humanoid_rl_sim.learning.episode_statistics import EpisodeStatistics
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.tasks.environment import Environment, StepResult
from humanoid_rl_sim.tasks.graphed import StaticStep

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
SQUASH_EPSILON = 1e-6
"""Under the logarithm of the tanh's slope, as in stable-baselines3's `SquashedDiagGaussianDistribution`."""


class DeviceReplay:
    """The last transitions of all environments, as a ring of tensors on their device.

    A row is one control step of every environment. Memory is taken at the first `add`, so that a model which only
    acts has none.

    Args:
        buffer_size: capacity in transitions; rounded down to whole rows, at least one.
        observation_space: of one environment, [D].
        action_space: of one environment, [n]; actions are stored scaled to [-1, 1].
        device: where the tensors are.
        n_envs: N.
        optimize_memory_usage: only False.
    """

    observations: torch.Tensor
    """[rows, N, D], not normalised."""
    next_observations: torch.Tensor
    """[rows, N, D]; where an episode ended its last observation, not the first of the next."""
    actions: torch.Tensor
    """[rows, N, n] in [-1, 1]."""
    rewards: torch.Tensor
    """[rows, N, 1]."""
    dones: torch.Tensor
    """[rows, N, 1]; 1 where the episode failed. One that ran out of time goes on in its value."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: gymnasium.spaces.Box,
        action_space: gymnasium.spaces.Box,
        device: torch.device,
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ) -> None:
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage loses the last observations of episodes; leave it off")
        self.rows, self.num_envs, self.device = max(buffer_size // n_envs, 1), n_envs, device
        self.filled = self.position = 0
        self._sizes = (observation_space.shape[0], action_space.shape[0])

    @property
    def size(self) -> int:
        """Transitions held."""
        return self.filled * self.num_envs

    def _allocate(self) -> None:
        def zeros(width: int) -> torch.Tensor:
            return torch.zeros(self.rows, self.num_envs, width, device=self.device)

        observation, action = self._sizes
        self.observations, self.next_observations = zeros(observation), zeros(observation)
        self.actions, self.rewards, self.dones = zeros(action), zeros(1), zeros(1)

    def add(self, observation: torch.Tensor, action: torch.Tensor, result: StepResult) -> None:
        """Store a row over the oldest.

        Args:
            observation: [N, D] that `action` answers.
            action: [N, n] scaled to [-1, 1].
            result: what came of it.
        """
        if not hasattr(self, "observations"):
            self._allocate()
        row = self.position
        self.observations[row] = observation
        self.actions[row] = action
        self.rewards[row, :, 0] = result.reward
        self.dones[row, :, 0] = result.terminated.float()
        ended = (result.terminated | result.truncated)[:, None]
        actor_size = result.observation.shape[1]
        following = self.next_observations[row]
        torch.where(ended, result.final_observation, result.observation, out=following[:, :actor_size])
        torch.where(ended, result.final_privileged, result.privileged, out=following[:, actor_size:])
        self.position = (row + 1) % self.rows
        self.filled = min(self.filled + 1, self.rows)

    def sample(self, batch_size: int) -> ReplayBufferSamples:
        """`batch_size` transitions, drawn evenly and with replacement."""
        index = torch.randint(self.size, (batch_size,), device=self.device)
        names = ("observations", "actions", "next_observations", "dones", "rewards")
        return ReplayBufferSamples(
            *(getattr(self, name).flatten(0, 1).index_select(0, index) for name in names)
        )

    def latest(self, rows: int) -> torch.Tensor:
        """Observations [rows x N, D] of the last `rows` control steps, or of as many as there are."""
        rows = min(rows, self.filled)
        index = torch.arange(self.position - rows, self.position, device=self.device) % self.rows
        return self.observations.index_select(0, index).flatten(0, 1)


class _Window:
    """Sums on the device since the last log."""

    LOSSES = ("actor_loss", "critic_loss", "ent_coef", "ent_coef_loss", "entropy", "q_value")

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.losses = torch.zeros(len(self.LOSSES), device=device)
        self.episodes = EpisodeStatistics(num_envs, device)
        self.control_steps = self.gradient_steps = 0

    def count(self, result: StepResult) -> None:
        """Add a control step to the running episodes, and book those that end."""
        self.episodes.count(result.reward, (result.terminated | result.truncated).float())
        self.control_steps += 1

    def clear(self) -> None:
        """Start the next window; running episodes go on."""
        self.losses.zero_()
        self.episodes.forget_ended()
        self.control_steps = self.gradient_steps = 0


class DeviceSAC(SAC):
    """See the module. The environment must be a `Sb3VecEnv` whose actions are bounded alike to both sides.

    It acts with the policy from the first step, and learns whenever the replay holds `learning_starts` transitions:
    after a resume, which begins with an empty replay, it refills that with the policy as it is. State-dependent
    exploration, action noise and multi-step returns are not supported.
    """

    replay_buffer: DeviceReplay  # type: ignore[assignment]
    log_steps: int = 50
    """Control steps between two entries of the log."""

    def _setup_model(self) -> None:
        if self.use_sde or self.action_noise is not None or self.n_steps != 1:
            raise ValueError(
                "state-dependent exploration, action noise and n_steps need the plain SAC of stable-baselines3"
            )
        self.replay_buffer_class = DeviceReplay  # type: ignore[assignment]
        super()._setup_model()
        self._static: StaticStep | None = None

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            *("replay_buffer_class", "_static", "_observation", "_bound", "_window"),
        ]

    # -- acting ------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> Environment:
        """The environment behind `env`."""
        assert isinstance(self.env, Sb3VecEnv)
        return self.env.environment

    def _prepare(self) -> StaticStep:
        environment = self.environment
        static = StaticStep(environment)
        self._observation = torch.cat(static.reset(), 1).clone()
        self._bound = torch.as_tensor(self.env.action_space.high, device=environment.device)  # type: ignore[union-attr]
        self._window = _Window(environment.num_envs, environment.device)
        return static

    def _control_step(self, static: StaticStep) -> None:
        """Act, step the environment and store."""
        mean, log_std, _ = self.actor.get_action_dist_params(self._observation)
        action = torch.tanh(mean + log_std.exp() * torch.randn_like(mean))
        result = static(self._bound * action)
        self.replay_buffer.add(self._observation, action, result)
        self._window.count(result)
        self._observation.copy_(torch.cat((result.observation, result.privileged), 1))

    def collect_rollouts(  # type: ignore[override]
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: DeviceReplay,
        action_noise: None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """`train_freq` control steps of every environment; stops where a callback says so.

        The log is written every `log_steps` control steps whatever `log_interval` is, after the callback's
        `on_rollout_start`, which finds the window's figures in the logger.
        """
        self.policy.set_training_mode(False)
        if self._static is None:
            with torch.no_grad():
                self._static = self._prepare()
        window_over = self._window.control_steps >= self.log_steps
        if window_over:
            self.log_window()
        callback.on_rollout_start()
        if window_over:
            self.dump_logs()
        steps = 0
        while should_collect_more_steps(train_freq, steps, 0):
            with torch.no_grad():
                self._control_step(self._static)
            steps += 1
            self.num_timesteps += env.num_envs
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            callback.update_locals(locals())
            if not callback.on_step():
                return RolloutReturn(steps * env.num_envs, 0, continue_training=False)
        callback.on_rollout_end()
        return RolloutReturn(steps * env.num_envs, 0, continue_training=True)

    def log_window(self) -> None:
        """Give the logger the means since the last call, and begin a new window. Reads the device."""
        window, record = self._window, self.logger.record
        self._episode_num += window.episodes.report(self.ep_info_buffer)
        if window.gradient_steps:
            for name, value in zip(window.LOSSES, window.losses.tolist(), strict=True):
                record(f"train/{name}", value / window.gradient_steps)
            record("train/n_updates", self._n_updates, exclude="tensorboard")
        window.clear()

    # -- update ------------------------------------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """`gradient_steps` SAC updates, each from a batch of its own; none while the replay fills."""
        if self.replay_buffer.size < min(
            self.learning_starts, self.replay_buffer.rows * self.replay_buffer.num_envs
        ):
            return
        self.policy.set_training_mode(True)
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers.append(self.ent_coef_optimizer)
        self._update_learning_rate(optimizers)
        for step in range(gradient_steps):
            self._window.losses += self._gradient_step(self.replay_buffer.sample(batch_size))
            if step % self.target_update_interval == 0:
                polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        self._window.gradient_steps += gradient_steps
        self._n_updates += gradient_steps

    def _gradient_step(self, batch: ReplayBufferSamples) -> torch.Tensor:
        """One step of entropy coefficient, critics and actor, in stable-baselines3's order; `_Window.LOSSES`."""
        action, log_prob = self._action_log_prob(batch.observations)
        alpha, alpha_loss = self._step_entropy_coefficient(log_prob)
        with torch.no_grad():
            next_action, next_log_prob = self._action_log_prob(batch.next_observations)
            next_values = torch.cat(self.critic_target(batch.next_observations, next_action), 1)
            next_value = next_values.amin(1, keepdim=True) - alpha * next_log_prob
            target = batch.rewards + (1.0 - batch.dones) * self.gamma * next_value
        values = self.critic(batch.observations, batch.actions)
        critic_loss = 0.5 * torch.stack([functional.mse_loss(value, target) for value in values]).sum()
        self.critic.optimizer.zero_grad()
        critic_loss.backward()
        self.critic.optimizer.step()

        self.critic.requires_grad_(False)  # only the action is judged: their gradients would be thrown away
        value = torch.cat(self.critic(batch.observations, action), 1).amin(1, keepdim=True)
        actor_loss = (alpha * log_prob - value).mean()
        self.actor.optimizer.zero_grad()
        actor_loss.backward()
        self.actor.optimizer.step()
        self.critic.requires_grad_(True)
        figures = (
            actor_loss,
            critic_loss,
            alpha.squeeze(),
            alpha_loss,
            -log_prob.mean(),
            torch.cat(values).mean(),
        )
        return torch.stack(figures).detach()

    def _step_entropy_coefficient(self, log_prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move it towards the target entropy if it is learned. Returns the one before the step, and the loss []."""
        if self.ent_coef_optimizer is None or self.log_ent_coef is None:
            return self.ent_coef_tensor, torch.zeros_like(self.ent_coef_tensor)
        alpha = self.log_ent_coef.detach().exp()
        loss = -(self.log_ent_coef * (log_prob.detach() + float(self.target_entropy))).mean()
        self.ent_coef_optimizer.zero_grad()
        loss.backward()
        self.ent_coef_optimizer.step()
        return alpha, loss

    def _action_log_prob(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sampled actions [B, n] in [-1, 1] and their log densities [B, 1].

        What stable-baselines3's distribution gives, without torch's check of the arguments, which reads them on the
        host.
        """
        mean, log_std, _ = self.actor.get_action_dist_params(observations)
        noise = torch.randn_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        log_prob = -0.5 * noise.square() - log_std - HALF_LOG_2PI
        log_prob = log_prob - torch.log(1.0 - action.square() + SQUASH_EPSILON)
        return action, log_prob.sum(1, keepdim=True)
