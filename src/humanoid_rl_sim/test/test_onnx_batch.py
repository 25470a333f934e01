"""One policy file for several robots, and the command that plays it where Isaac Lab is not."""

from __future__ import annotations

import numpy as np
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.isaac_lab.play import main
from humanoid_rl_sim.learning.onnx_batch import OnnxBatch

POLICY = share_dir() / "policies" / "g1_walk.onnx"
COUNT, STEPS, RESTART = 3, 6, 4


def test_each_robot_has_an_episode_of_its_own():
    """The second starts a new one on the way, and the others do not notice."""
    robot = load_robot()
    golden = OnnxPolicy(POLICY, robot).contract.golden.inputs
    batch, alone = (
        OnnxBatch(OnnxPolicy(POLICY, robot), COUNT),
        [OnnxPolicy(POLICY, robot) for _ in range(COUNT)],
    )
    for step in range(STEPS):
        sensors = {name: values[step : step + COUNT] for name, values in golden.items()}
        started = np.array([step == 0, step in (0, RESTART), step == 0])
        together = batch.step(sensors, started)
        for i, policy in enumerate(alone):
            if started[i]:
                policy.reset()
            output = policy.step(**{name: values[i] for name, values in sensors.items()})
            np.testing.assert_array_equal(together.joint_target[i], output.joint_target.astype(np.float32))
            np.testing.assert_array_equal(together.action[i], output.action.astype(np.float32))


def test_without_isaac_lab_the_way_to_it_is_told(capsys):
    assert main([str(POLICY)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("play: needs the package isaaclab") and "run make isaac" in line
