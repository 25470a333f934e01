"""Random sensor readings that reach every part of a policy's graph, for golden episodes and comparisons."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .contract import HEIGHT_SCAN
from .height_scan import HeightScan
from .robot import RobotModel


def random_inputs(
    robot: RobotModel,
    command_lower: ArrayLike,
    command_upper: ArrayLike,
    rng: np.random.Generator,
    steps: int,
    height_scan: HeightScan | None = None,
) -> dict[str, np.ndarray]:
    """Sensor readings [steps, ...] float32 by the name of the graph's input.

    Joints over their whole range, speeds to a third of their limits, any orientation with a quaternion that
    is off unit length by a per cent, commands beyond their range, ground beyond the clip of a height scan.
    """
    lower, upper = np.asarray(command_lower), np.asarray(command_upper)
    joints = robot.joint_count
    reach = 0.1 + 0.2 * (upper - lower)
    command = rng.uniform(lower - reach, upper + reach, (steps, len(lower)))
    # The last two are beyond the range on either side: their frames are the newest of the final state, where
    # the contract's check can see that the graph clamps at the range the contract names.
    command[-2:] = lower - reach, upper + reach
    inputs = {
        "joint_pos": rng.uniform(robot.position_lower, robot.position_upper, (steps, joints)),
        "joint_vel": rng.normal(0.0, robot.velocity_limit / 3.0, (steps, joints)),
        "imu_gyro": rng.normal(0.0, 2.0, (steps, 3)),
        "imu_quat": _random_quaternions(rng, steps),
        "command": command,
    }
    if height_scan is not None:
        inputs[HEIGHT_SCAN] = rng.normal(0.0, height_scan.clip, (steps, height_scan.size))
    return {name: values.astype(np.float32) for name, values in inputs.items()}


def _random_quaternions(rng: np.random.Generator, steps: int) -> np.ndarray:
    quaternion = rng.normal(size=(steps, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return quaternion * rng.uniform(0.99, 1.01, (steps, 1))
