"""What a training run has to know about its algorithm: how its model is made, what it reports, what it adapts."""

from __future__ import annotations

import abc
import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from stable_baselines3 import PPO
from stable_baselines3.common.utils import FloatSchedule
from torch import nn

from humanoid_rl_sim.learning.asymmetric_policy import AsymmetricPolicy
from humanoid_rl_sim.learning.asymmetric_sac_policy import AsymmetricSACPolicy
from humanoid_rl_sim.learning.configuration import TrainingConfig
from humanoid_rl_sim.learning.device_ppo import DevicePPO
from humanoid_rl_sim.learning.device_sac import DeviceSAC
from humanoid_rl_sim.learning.ranks import Ranks
from humanoid_rl_sim.learning.sb3_vec_env import Sb3VecEnv
from humanoid_rl_sim.tasks.configuration import TaskConfig
from humanoid_rl_sim.tasks.environment import make_policy_graph
from humanoid_rl_sim.tasks.symmetry import make_mirror


class TrainedPPO(PPO):
    """PPO that carries the state of its run into the checkpoint; the zip loads in plain stable-baselines3."""

    run_state: dict[str, Any] | None = None


class TrainedDevicePPO(DevicePPO):
    """The same, with rollouts and minibatches on the environment's device."""

    run_state: dict[str, Any] | None = None


class TrainedDeviceSAC(DeviceSAC):
    """SAC that carries the state of its run into the checkpoint; the zip loads in plain stable-baselines3."""

    run_state: dict[str, Any] | None = None


TrainedModel = TrainedPPO | TrainedDevicePPO | TrainedDeviceSAC


class Learner(abc.ABC):
    """One algorithm as a run drives it; `learner_for` picks it. A window is what one row of progress.csv covers.

    The hooks without a body are for the algorithms that need them.
    """

    figures: ClassVar[dict[str, str]]
    """Column of progress.csv -> name in the model's logger."""
    action_bound: float | None = None
    """Bound of the action space, in units of action; None: the task's clip."""
    exploration: tuple[int, float]
    """Control steps and standard deviation of the motion from which the first observation statistics come."""
    window_steps: int
    """Control steps in a window."""
    on_cpu: str
    """The value of `learner` for the CPU."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    @property
    @abc.abstractmethod
    def model_class(self) -> type[TrainedModel]:
        """The model that a configuration asks for."""

    @abc.abstractmethod
    def make_model(self, env: Sb3VecEnv) -> TrainedModel:
        """An untrained model; its policy normalises with the environment's own graph."""

    @abc.abstractmethod
    def observations(self, model: Any) -> torch.Tensor:
        """[B, D] of the last window, for the statistics."""

    @abc.abstractmethod
    def refuse_torchrun(self) -> None:
        """Raises UserError where this cannot learn in several processes."""

    def load(self, checkpoint: Path, env: Sb3VecEnv | None, device: torch.device | str) -> TrainedModel:
        """A model of a run. Anything may be raised for what is no such file."""
        return self.model_class.load(checkpoint, env=env, device=device)

    def check(self, task: TaskConfig) -> None:  # noqa: B027
        """Raises UserError where configuration and task contradict each other."""

    def join(self, model: Any, ranks: Ranks) -> None:  # noqa: B027
        """Learn together with the other processes."""

    def begin_window(self, model: Any, progress: float) -> None:  # noqa: B027
        """Adapt what lasts for a window; `progress` is the fraction of the training that is done."""

    def end_window(self, model: Any) -> None:  # noqa: B027
        """Bring the figures of a window that a stop cut short into the logger."""

    def _features_extractor(self, env: Sb3VecEnv, adapt_actor: bool) -> dict[str, Any]:
        return {"graph": copy.deepcopy(env.environment.graph).cpu(), "adapt_actor": adapt_actor}


class PpoLearner(Learner):
    """PPO: a window is a rollout and the update from it."""

    figures: ClassVar[dict[str, str]] = {
        "approx_kl": "train/approx_kl",
        "explained_variance": "train/explained_variance",
        "value_loss": "train/value_loss",
        "learning_rate": "train/learning_rate",
        "action_std": "train/std",
    }

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        self.window_steps = config.ppo.rollout_steps
        self.exploration = config.ppo.rollout_steps, config.ppo.initial_std
        self.on_cpu = "device" if config.ppo.symmetry_coefficient > 0.0 else "sb3"

    @property
    def model_class(self) -> type[TrainedPPO] | type[TrainedDevicePPO]:
        return TrainedDevicePPO if self.config.learner == "device" else TrainedPPO

    def make_model(self, env: Sb3VecEnv) -> TrainedPPO | TrainedDevicePPO:
        ppo = self.config.ppo
        batch = self.config.num_envs * ppo.rollout_steps
        model = self.model_class(
            AsymmetricPolicy,
            env,
            learning_rate=ppo.learning_rate,
            n_steps=ppo.rollout_steps,
            batch_size=batch // ppo.minibatches,
            n_epochs=ppo.epochs,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
            clip_range=ppo.clip_range,
            use_sde=ppo.state_dependent_exploration,
            sde_sample_freq=-1,
            ent_coef=ppo.entropy_coefficient,
            vf_coef=ppo.value_coefficient,
            max_grad_norm=ppo.max_gradient_norm,
            seed=self.config.seed,
            device=env.environment.device,
            policy_kwargs={
                "net_arch": {"pi": list(ppo.hidden_sizes), "vf": list(ppo.critic_hidden_sizes)},
                "activation_fn": nn.ELU,
                "log_std_init": float(np.log(ppo.initial_std)),
                "features_extractor_kwargs": self._features_extractor(env, ppo.normalise_observations),
            },
        )
        if isinstance(model, DevicePPO):
            model.symmetry_coefficient = ppo.symmetry_coefficient
        return model

    def observations(self, model: TrainedPPO | TrainedDevicePPO) -> torch.Tensor:
        if isinstance(model, TrainedDevicePPO):
            return model.rollout.observations.flatten(0, 1)
        observations = torch.from_numpy(model.rollout_buffer.observations)
        return observations.reshape(-1, observations.shape[-1])

    def refuse_torchrun(self) -> None:
        if self.config.learner != "device":
            raise UserError("torchrun: several processes need learner=device; the plain one learns in one")

    def check(self, task: TaskConfig) -> None:
        if self.config.ppo.symmetry_coefficient > 0.0:
            robot = load_robot(task.robot, task.variant)
            make_mirror(robot, make_policy_graph(task, robot))

    def join(self, model: TrainedPPO | TrainedDevicePPO, ranks: Ranks) -> None:
        if isinstance(model, TrainedDevicePPO):
            model.ranks = ranks
            ranks.share(model.policy)

    def begin_window(self, model: TrainedPPO | TrainedDevicePPO, progress: float) -> None:
        """Keep the divergence of an update near the desired one (Schulman et al. 2017, adaptive penalty rule)."""
        ppo, kl = self.config.ppo, model.logger.name_to_value.get("train/approx_kl")
        if kl is None:
            return
        rate = model.lr_schedule(1.0)
        if kl > 2.0 * ppo.desired_kl:
            rate /= 1.5
        elif kl < 0.5 * ppo.desired_kl:
            rate *= 1.5
        ceiling = ppo.maximum_learning_rate * (1.0 - progress) + ppo.minimum_learning_rate * progress
        rate = max(min(rate, ceiling), ppo.minimum_learning_rate)
        model.learning_rate = rate
        model.lr_schedule = FloatSchedule(rate)


class SacLearner(Learner):
    """SAC: a window is `sac.log_steps` control steps, each with its gradient steps."""

    on_cpu = "device"
    figures: ClassVar[dict[str, str]] = {
        "actor_loss": "train/actor_loss",
        "critic_loss": "train/critic_loss",
        "entropy_coefficient": "train/ent_coef",
        "entropy": "train/entropy",
        "q_value": "train/q_value",
        "learning_rate": "train/learning_rate",
    }

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        sac = config.sac
        self.action_bound, self.window_steps = sac.action_bound, sac.log_steps
        self.exploration = sac.log_steps, sac.action_bound * sac.initial_std

    @property
    def model_class(self) -> type[TrainedDeviceSAC]:
        return TrainedDeviceSAC

    def make_model(self, env: Sb3VecEnv) -> TrainedDeviceSAC:
        sac, num_envs = self.config.sac, self.config.num_envs
        model = TrainedDeviceSAC(
            AsymmetricSACPolicy,
            env,
            learning_rate=sac.learning_rate,
            buffer_size=sac.replay_capacity,
            learning_starts=sac.warm_up_steps * num_envs,
            batch_size=sac.batch_size,
            tau=sac.tau,
            gamma=sac.gamma,
            train_freq=1,
            gradient_steps=sac.gradient_steps,
            ent_coef=f"auto_{sac.initial_entropy_coefficient}",
            target_entropy=sac.target_entropy * env.environment.graph.action_size,
            seed=self.config.seed,
            device=env.environment.device,
            policy_kwargs={
                "net_arch": {"pi": list(sac.hidden_sizes), "qf": list(sac.critic_hidden_sizes)},
                "activation_fn": nn.SiLU,
                "log_std_init": float(np.log(sac.initial_std)),
                "features_extractor_kwargs": self._features_extractor(env, sac.normalise_observations),
            },
        )
        model.log_steps = sac.log_steps
        return model

    def observations(self, model: TrainedDeviceSAC) -> torch.Tensor:
        return model.replay_buffer.latest(self.window_steps)

    def refuse_torchrun(self) -> None:
        raise UserError(
            "torchrun: sac learns in one process; start it without torchrun, or use algorithm=ppo"
        )

    def check(self, task: TaskConfig) -> None:
        if self.config.sac.action_bound > task.action_clip:
            raise UserError(
                f"sac.action_bound = {self.config.sac.action_bound} is beyond action_clip = {task.action_clip} of "
                f"task {task.name}"
            )

    def end_window(self, model: TrainedDeviceSAC) -> None:
        model.log_window()


def learner_for(config: TrainingConfig) -> Learner:
    """The learner that a configuration asks for."""
    return SacLearner(config) if config.algorithm == "sac" else PpoLearner(config)
