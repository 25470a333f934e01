"""A recorded robot cut into windows, each of which a simulator replays from the recorded state.

A floating base leaves its recorded path within a second or two, whatever the simulator, so every `WINDOW` it is put
back. What LowState does not tell is assumed: the lowest point of the feet is on level ground, and the foot that it
belongs to stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import Gains, RobotModel
from humanoid_rl_core.rotation import normalise
from numpy.typing import NDArray

from humanoid_rl_sim.simulators.mujoco_model import (
    build_mujoco_spec,
    joint_qpos_address,
    joint_qvel_address,
    nearest_sole,
)
from humanoid_rl_sim.transfer.open_loop import OpenLoop
from humanoid_rl_sim.transfer.recording import Floats, Recording

PERIOD = 0.002
"""s, the robot's cycle: a command is held for one, and physics makes one step."""
WINDOW = 0.5
"""s."""
MOST = 40
"""Windows; of a longer recording as many, evenly spread."""
STATE_GAP = 0.01
"""s between two LowStates beyond which what lies between is not interpolated."""
COMMAND_AGE = 0.1
"""s after which a robot brakes rather than obeys its last command."""
SAME_GAIN = 1e-3
"""Relative; gains travel as float32."""


@dataclass(frozen=True)
class Windows:
    """W windows of one recording, all under the same gains."""

    commands: OpenLoop
    joint_pos: Floats
    """[T + 1, W, n] rad as recorded, beginning with the start."""
    time: Floats
    """[W] s after the beginning of the recording."""
    dropped: int
    """Messages of the recording that were left out, `Recording.dropped`."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For an NPZ file; `from_arrays` reads them."""
        rest = {"joint_pos": self.joint_pos, "time": self.time, "dropped": np.array(self.dropped)}
        return {**self.commands.arrays("log"), **rest}

    @classmethod
    def from_arrays(cls, arrays: Any) -> Windows:
        commands = OpenLoop.from_arrays(arrays, "log")
        assert commands is not None
        return cls(commands, arrays["joint_pos"], arrays["time"], int(arrays["dropped"]))


def cut(recording: Recording) -> Windows:
    """The windows in which every motor was commanded with stiffness, under the gains that were in force longest.

    Raises:
        UserError: there is no such window.
    """
    robot = recording.robot
    stiff = recording.enabled & (recording.command["kp"] > 0.0).all(1)
    if not stiff.any():
        raise UserError("the recording has no command with stiffness in every motor: nothing moved the robot")
    gains = np.concatenate((recording.command["kp"], recording.command["kd"]), 1)
    kinds, count = np.unique(gains[stiff].astype(np.float32), axis=0, return_counts=True)
    common = kinds[int(count.argmax())].astype(float)
    usable = stiff & (np.abs(gains - common) <= SAME_GAIN * np.abs(common)).all(1)
    kp, kd = common[: robot.joint_count], common[robot.joint_count :]
    # torque = kp (q* - q) + kd (dq* - dq) + tau is a spring to this target with the same damping.
    target = recording.command["q"] + (kd * recording.command["dq"] + recording.command["tau"]) / kp

    steps = round(WINDOW / PERIOD)
    offsets = PERIOD * np.arange(steps + 1)
    time = recording.state_time
    found: list[tuple[int, NDArray[np.intp]]] = []
    free_from = float(recording.command_time[stiff][0])
    while True:
        first = int(np.searchsorted(time, free_from))
        if first >= len(time) or time[first] + WINDOW > time[-1]:
            break
        begin = time[first]
        last = int(np.searchsorted(time, begin + WINDOW))
        latest = np.searchsorted(recording.command_time, begin + offsets[:-1] + 1e-9, side="right") - 1
        age = begin + offsets[:-1] - recording.command_time[latest]
        gaps = np.diff(time[first : last + 1])
        if (
            (latest >= 0).all()
            and usable[latest].all()
            and age.max() < COMMAND_AGE
            and gaps.max() < STATE_GAP
        ):
            found.append((first, latest))
            free_from = begin + WINDOW
        else:
            free_from = begin + 10 * PERIOD
    if not found:
        raise UserError(
            f"the recording has no {WINDOW:g} s without a gap in which every motor is commanded with stiffness and "
            "the same gains"
        )
    if len(found) > MOST:
        found = [found[i] for i in np.linspace(0, len(found) - 1, MOST).round().astype(int)]
    starts = [first for first, _ in found]
    recorded = np.stack(
        [
            np.stack([np.interp(time[i] + offsets, time, column) for column in recording.joint_pos.T], 1)
            for i in starts
        ],
        1,
    )
    poses = _Floor(robot)
    start = [
        poses.state(
            recording.joint_pos[i], recording.joint_vel[i], recording.imu_quat[i], recording.imu_gyro[i]
        )
        for i in starts
    ]
    return Windows(
        OpenLoop(
            {name: np.stack([one[name] for one in start]).astype(np.float32) for name in start[0]},
            np.stack([target[latest] for _, latest in found], 1).astype(np.float32),
            PERIOD,
            Gains(kp, kd),
        ),
        recorded,
        time[starts] - time[0],
        recording.dropped,
    )


class _Floor:
    """Puts a robot of which only joints and IMU are known on level ground."""

    def __init__(self, robot: RobotModel) -> None:
        self._robot = robot
        self._model = model = build_mujoco_spec(robot, timestep=PERIOD, collision="full").compile()
        self._data = mujoco.MjData(model)
        self._qpos, self._qvel = joint_qpos_address(model, robot), joint_qvel_address(model, robot)

    def state(
        self, joint_pos: Floats, joint_vel: Floats, imu_quat: Floats, gyro: Floats
    ) -> dict[str, Floats]:
        """The fields of `InitialState` for one robot. The IMU is fixed to the base without rotation."""
        model, data, high = self._model, self._data, 2.0
        quat = normalise(imu_quat)
        data.qpos[0:3], data.qpos[3:7], data.qpos[self._qpos] = (0.0, 0.0, high), quat, joint_pos
        data.qvel[0:3], data.qvel[3:6], data.qvel[self._qvel] = 0.0, gyro, joint_vel
        mujoco.mj_forward(model, data)
        gap, point, body = nearest_sole(model, data, self._robot)
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jac(model, data, jacobian, None, point, body)
        return {
            "joint_pos": joint_pos,
            "joint_vel": joint_vel,
            "base_pos": np.array([0.0, 0.0, high - gap]),
            "base_quat": quat,
            "base_lin_vel": -jacobian @ data.qvel,
            "base_ang_vel": gyro,
        }
