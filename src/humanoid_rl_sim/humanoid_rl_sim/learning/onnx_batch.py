"""One exported policy for several robots: each has a recurrent state of its own, the session is shared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy, PolicyOutput

from humanoid_rl_sim.tasks.configuration import COMMAND_NAMES


class OnnxBatch:
    """A policy file, whose graph takes one robot at a time, stepped for `count` of them in turn.

    Raises:
        UserError: the policy takes a command that is not one of `COMMAND_NAMES`.
    """

    def __init__(self, policy: OnnxPolicy, count: int) -> None:
        for name in policy.contract.command_names:
            if name not in COMMAND_NAMES:
                raise UserError(
                    f"policy '{policy.contract.name}' takes the command '{name}'; simulations have "
                    f"{', '.join(COMMAND_NAMES)}"
                )
        self._commands = [COMMAND_NAMES.index(name) for name in policy.contract.command_names]
        self.policy, self.count = policy, count
        self._states = np.zeros((count, policy.contract.state_size), np.float32)

    def step(self, sensors: Mapping[str, np.ndarray], started: np.ndarray) -> PolicyOutput:
        """One policy step of every robot.

        sensors: the inputs of `OnnxPolicy.step` by name, [N, .] each; `command` has all of `COMMAND_NAMES`.
        started: [N] bool, whose episode has just begun. Returns `joint_target` and `action` as [N, n] float32, in the
        contract's joint order.

        Raises:
            UserError: as `OnnxPolicy.step`.
        """
        policy = self.policy
        self._states[started] = 0.0
        shape = self.count, len(policy.contract.joint_names)
        results = PolicyOutput(np.empty(shape, np.float32), np.empty(shape, np.float32))
        sensors = {**sensors, "command": sensors["command"][:, self._commands]}
        for i in range(self.count):
            policy.state = self._states[i]
            output = policy.step(**{name: values[i] for name, values in sensors.items()})
            for kept, values in zip(results, output, strict=True):
                kept[i] = values
            self._states[i] = policy.state
        return results
