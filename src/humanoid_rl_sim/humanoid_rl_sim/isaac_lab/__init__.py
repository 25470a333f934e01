"""Policies from here in Isaac Lab's own environments, without the simulator contract, the tasks or the learner.

Importing this package registers the environment with Gymnasium. Isaac Lab's own commands import it by themselves,
through the entry point `isaaclab.tasks` of this distribution.
"""

import gymnasium

ENVIRONMENT = "HumanoidRl-Velocity-G1"
"""The registered environment; without a configuration given it is that of `policies/g1_walk.onnx`."""

gymnasium.register(
    id=ENVIRONMENT,
    entry_point="isaaclab.envs:ManagerBasedRLEnv",
    disable_env_checker=True,
    kwargs={"env_cfg_entry_point": f"{__name__}.configuration:walking_policy_cfg"},
)
