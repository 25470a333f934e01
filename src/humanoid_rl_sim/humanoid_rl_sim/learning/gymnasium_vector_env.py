"""A task as a `gymnasium.vector.VectorEnv`, for learners that are not stable-baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from humanoid_rl_sim.learning.sb3_vec_env import make_spaces
from humanoid_rl_sim.simulators.camera import Images
from humanoid_rl_sim.tasks.environment import Environment

Observation = np.ndarray | dict[str, np.ndarray]


def _observation_space(policy: gymnasium.spaces.Box, environment: Environment) -> gymnasium.Space[Any]:
    camera = environment.simulator.camera
    if camera is None:
        return policy
    size, spaces = (camera.height, camera.width), gymnasium.spaces
    far = camera.mount(environment.robot).far
    images: dict[str, gymnasium.Space[Any]] = {
        "color": spaces.Box(0, 255, (*size, 3), np.uint8),
        "depth": spaces.Box(0.0, far, size, np.float32),
    }
    return spaces.Dict({"policy": policy, **{name: images[name] for name in camera.channels}})


class GymnasiumVectorEnv(gymnasium.vector.VectorEnv):
    """NumPy in and out; environments reset within the step that ends them (`AutoresetMode.SAME_STEP`).

    Where an episode ended, `info["final_obs"]` holds its last observation and `info["_final_obs"]` the mask.

    Where the robots carry a camera, an observation is a dict: `policy` is what it is otherwise, and `color`
    [height, width, 3] uint8 and `depth` [height, width] float32 m the camera's last images (`camera.Images`).
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.num_envs = environment.num_envs
        policy_space, self.single_action_space = make_spaces(environment)
        self.single_observation_space = _observation_space(policy_space, environment)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        if seed is not None:
            self.environment.generator.manual_seed(seed if isinstance(seed, int) else seed[0])
        with torch.no_grad():
            observation = self.environment.reset()[0]
        return self._observation(observation, self.environment.images), {}

    def _observation(self, policy: torch.Tensor, images: Images | None) -> Observation:
        if images is None:
            return policy.cpu().numpy()
        seen = {"policy": policy, "color": images.color, "depth": images.depth}
        return {name: values.cpu().numpy() for name, values in seen.items() if values is not None}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        action = torch.from_numpy(np.ascontiguousarray(actions, np.float32)).to(self.environment.device)
        before = self.environment.images
        with torch.no_grad():
            result = self.environment.step(action)
        terminated, truncated = result.terminated.cpu().numpy(), result.truncated.cpu().numpy()
        info: dict[str, Any] = {}
        ended = terminated | truncated
        if ended.any():
            # An ended episode has no image of its last step: the camera looks when the step is over.
            info = {"final_obs": self._observation(result.final_observation, before), "_final_obs": ended}
        observation = self._observation(result.observation, self.environment.images)
        return observation, result.reward.cpu().numpy(), terminated, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        self.environment.close()
