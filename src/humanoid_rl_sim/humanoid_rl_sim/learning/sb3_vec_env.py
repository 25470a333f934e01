"""A task as a stable-baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from humanoid_rl_core.errors import UserError
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from humanoid_rl_sim.tasks.environment import Environment


def make_spaces(
    environment: Environment, *, privileged: bool = False, action_bound: float | None = None
) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Observation and action space of one environment.

    Args:
        privileged: append what only the critic knows.
        action_bound: actions are within +-action_bound, in units of action; by default within the task's clip.

    Raises:
        UserError: the bound is not above zero, or beyond the task's clip.
    """
    graph = environment.graph
    size = graph.observation_size + (environment.privileged_size if privileged else 0)
    observation = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    bound = graph.action_clip if action_bound is None else action_bound
    if not 0.0 < bound <= graph.action_clip:
        raise UserError(
            f"action_bound must be above 0 and at most the task's action_clip = {graph.action_clip}, got {bound}"
        )
    action = gymnasium.spaces.Box(-bound, bound, (graph.action_size,), np.float32)
    return observation, action


class Sb3VecEnv(VecEnv):
    """NumPy in and out, as stable-baselines3 expects; observations are not normalised (the policy does that).

    An observation is the actor's, followed by the critic's privileged one; `AsymmetricPolicy` knows where to cut.

    `infos` carry `episode` (return `r`, length `l` in steps) and, where an episode ended, `terminal_observation`
    and `TimeLimit.truncated`, which is what stable-baselines3 bootstraps time limits from.

    Args:
        environment: the task; shared, not copied.
        action_bound: bound of the action space, see `make_spaces`.
    """

    def __init__(self, environment: Environment, *, action_bound: float | None = None) -> None:
        self.environment = environment
        observation_space, action_space = make_spaces(environment, privileged=True, action_bound=action_bound)
        self.render_mode = None
        super().__init__(environment.num_envs, observation_space, action_space)
        self._returns = np.zeros(self.num_envs, np.float32)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._action = torch.zeros(self.num_envs, environment.graph.action_size, device=environment.device)

    def reset(self) -> np.ndarray:
        self._returns[:] = 0.0
        self._lengths[:] = 0
        with torch.no_grad():
            return torch.cat(self.environment.reset(), 1).cpu().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._action = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(self.environment.device)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        with torch.no_grad():
            result = self.environment.step(self._action)
        reward = result.reward.cpu().numpy()
        truncated = result.truncated.cpu().numpy()
        done = result.terminated.cpu().numpy() | truncated
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = done.nonzero()[0]
        if ended.size:
            final = torch.cat((result.final_observation, result.final_privileged), 1).cpu().numpy()
            for i in ended:
                infos[i] = {
                    "terminal_observation": final[i],
                    "TimeLimit.truncated": bool(truncated[i]),
                    "episode": {"r": float(self._returns[i]), "l": int(self._lengths[i])},
                }
            self._returns[ended] = 0.0
            self._lengths[ended] = 0
        observation = torch.cat((result.observation, result.privileged), 1)
        return observation.cpu().numpy(), reward, done, infos

    def close(self) -> None:
        self.environment.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(
            "the environments of a batch share their attributes; set them on `environment`"
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(
            "the environments of a batch have no methods of their own; call `environment`"
        )

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        if seed is not None:
            self.environment.generator.manual_seed(seed)
        return [seed] * self.num_envs
