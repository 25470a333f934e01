"""A task as a `gymnasium.vector.VectorEnv`, for learners that are not stable-baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from humanoid_rl_sim.learning.sb3_vec_env import make_spaces
from humanoid_rl_sim.tasks.environment import Environment


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv):
    """NumPy in and out; environments reset within the step that ends them (`AutoresetMode.SAME_STEP`).

    Where an episode ended, `info["final_obs"]` holds its last observation and `info["_final_obs"]` the mask.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.num_envs = environment.num_envs
        self.single_observation_space, self.single_action_space = make_spaces(environment)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self.environment.generator.manual_seed(seed if isinstance(seed, int) else seed[0])
        with torch.no_grad():
            return self.environment.reset()[0].cpu().numpy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        action = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(self.environment.device)
        with torch.no_grad():
            result = self.environment.step(action)
        terminated, truncated = result.terminated.cpu().numpy(), result.truncated.cpu().numpy()
        info: dict[str, Any] = {}
        ended = terminated | truncated
        if ended.any():
            info = {"final_obs": result.final_observation.cpu().numpy(), "_final_obs": ended}
        return result.observation.cpu().numpy(), result.reward.cpu().numpy(), terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        self.environment.close()
