"""The policy graph: raw sensors to joint targets, the same torch module in training and in the ONNX file.

Nothing in here reads data on the host or branches on it, so one environment step may be captured in a
CUDA graph, and the exported file holds exactly the arithmetic the policy was trained with.

Shapes: B environments, n joints (order of ``joint_names``), k commands, s recurrent state, P points of a height
scan. All float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .contract import HEIGHT_SCAN, observation_term_sizes
from .errors import UserError, nearest
from .height_scan import HeightScan

#: Clip of the normalised observation and epsilon under the root: the defaults of stable-baselines3's
#: VecNormalize (``clip_obs``, ``epsilon``), so that its statistics can be taken over unchanged.
OBSERVATION_CLIP = 10.0
VARIANCE_EPSILON = 1e-8

#: Smallest squared quaternion norm divided by; below it (an IMU that has not answered yet) the projected
#: gravity goes to zero instead of to infinity.
_MIN_SQUARED_NORM = 1e-12

Vector = Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True)
class ObservationTerm:
    """One part of an observation frame.

    name: ``base_ang_vel`` (3, rad/s, IMU frame), ``projected_gravity`` (3, unit vector, IMU frame),
        ``command`` (k, clamped to its range), ``joint_pos_rel`` (n, rad from the default position),
        ``joint_vel`` (n, rad/s), ``last_action`` (n, clipped, dimensionless) or ``height_scan`` (P, m below a
        standing base, clipped; see ``HeightScan``).
    scale: factor applied to the term before it enters the frame.
    """

    name: str
    scale: float = 1.0


def _float32(values: Vector) -> Tensor:
    """A float32 copy; of arrays too, which may be read-only."""
    if isinstance(values, Tensor):
        return values.detach().to(torch.float32, copy=True)
    return torch.from_numpy(np.array(values, dtype=np.float32))


def projected_gravity(quaternion: Tensor) -> Tensor:
    """Direction of gravity seen from the body, ``R(q)^T (0, 0, -1)``: (0, 0, -1) when upright.

    quaternion: [B, 4] as w, x, y, z, body to world; need not be of unit length (a zero one gives zeros).
    Returns [B, 3].
    """
    w, x, y, z = quaternion.unbind(dim=1)
    ww_zz = w * w + z * z
    xx_yy = x * x + y * y
    # The third row of R, in the form that is homogeneous in q: dividing by |q|^2 normalises it.
    unscaled = torch.stack((2.0 * (w * y - x * z), -2.0 * (w * x + y * z), xx_yy - ww_zz), dim=1)
    return unscaled / (ww_zz + xx_yy).clamp(min=_MIN_SQUARED_NORM).unsqueeze(1)


class PolicyGraph(nn.Module):
    """Raw sensors and a recurrent state in, joint targets and the next state out.

    joint_names: n names; every [n] vector here is in this order.
    default_position: [n] rad, the pose that action 0 asks for.
    action_scale: [n] rad per unit of action.
    position_lower, position_upper: [n] rad, joint targets are clipped to them.
    command_names: k names; command_lower, command_upper: [k], commands are clamped to them.
    observation: the terms of one frame, in order, each at most once.
    history: frames in an observation, stacked oldest to newest; 1 means the present frame alone.
    network: normalised observation [B, observation_size] -> action mean [B, n]; may be set later as the
        attribute ``network``, only ``forward`` needs it.
    action_clip: actions are clipped to +-action_clip before they are decoded or remembered.
    height_scan: geometry of the observation term of that name; given exactly where the term is.

    The state is ``[last_action (n)][the history - 1 older frames, oldest first]``, zeros at the start.
    The normalisation starts as the identity; ``set_normalisation`` changes it.
    Raises UserError for an unknown or repeated observation term, or a height scan without its geometry or term, and
    ValueError for sizes that do not fit.
    """

    default_position: Tensor
    action_scale: Tensor
    position_lower: Tensor
    position_upper: Tensor
    command_lower: Tensor
    command_upper: Tensor
    obs_mean: Tensor
    obs_var: Tensor
    #: Of the class too: models saved by earlier releases hold graphs without it.
    height_scan: HeightScan | None = None

    def __init__(
        self,
        *,
        joint_names: Sequence[str],
        default_position: Vector,
        action_scale: Vector,
        position_lower: Vector,
        position_upper: Vector,
        command_names: Sequence[str],
        command_lower: Vector,
        command_upper: Vector,
        observation: Sequence[ObservationTerm],
        history: int = 1,
        network: nn.Module | None = None,
        action_clip: float = 10.0,
        height_scan: HeightScan | None = None,
    ) -> None:
        super().__init__()
        if history < 1:
            raise UserError(f"history must be at least 1 frame, not {history}")
        if not action_clip > 0.0:
            raise UserError(f"action_clip must be positive, not {action_clip}")
        self.joint_names = tuple(joint_names)
        self.command_names = tuple(command_names)
        self.history = int(history)
        self.action_clip = float(action_clip)
        self.network = network
        self.height_scan = height_scan

        joints, commands = len(self.joint_names), len(self.command_names)
        self._register("default_position", default_position, joints)
        self._register("action_scale", action_scale, joints)
        self._register("position_lower", position_lower, joints)
        self._register("position_upper", position_upper, joints)
        self._register("command_lower", command_lower, commands)
        self._register("command_upper", command_upper, commands)

        if (height_scan is None) == any(term.name == HEIGHT_SCAN for term in observation):
            raise UserError(
                "the observation term 'height_scan' and its geometry go together; give both or neither"
            )
        sizes = observation_term_sizes(joints, commands, height_scan.size if height_scan else 0)
        self._layout = self._lay_out(sizes, observation)
        self.register_buffer("obs_mean", torch.zeros(self.observation_size))
        self.register_buffer("obs_var", torch.ones(self.observation_size))

    def _register(self, name: str, values: Vector, size: int) -> None:
        tensor = _float32(values)
        if tensor.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), not {tuple(tensor.shape)}")
        self.register_buffer(name, tensor)

    @staticmethod
    def _lay_out(
        sizes: dict[str, int], terms: Sequence[ObservationTerm]
    ) -> tuple[tuple[str, int, int, float], ...]:
        layout: list[tuple[str, int, int, float]] = []
        start = 0
        for term in terms:
            if term.name not in sizes:
                raise UserError(f"unknown observation term '{term.name}'{nearest(term.name, sizes)}")
            if any(term.name == name for name, *_ in layout):
                raise UserError(f"observation term '{term.name}' is listed twice; keep one")
            stop = start + sizes[term.name]
            layout.append((term.name, start, stop, float(term.scale)))
            start = stop
        if start == 0:
            raise UserError("the observation has no terms; list at least one")
        return tuple(layout)

    @property
    def action_size(self) -> int:
        """n, the number of joints."""
        return len(self.joint_names)

    @property
    def command_size(self) -> int:
        """k, the number of commands."""
        return len(self.command_names)

    @property
    def observation_layout(self) -> tuple[tuple[str, int, int, float], ...]:
        """(name, start, stop, scale) of every term within one frame."""
        return self._layout

    @property
    def frame_size(self) -> int:
        """Size of one observation frame."""
        return self._layout[-1][2]

    @property
    def observation_size(self) -> int:
        """Size of the observation: history frames."""
        return self.frame_size * self.history

    @property
    def state_size(self) -> int:
        """s: the last action and the older frames."""
        return self.action_size + self.frame_size * (self.history - 1)

    def initial_state(self, batch: int, device: torch.device | str | None = None) -> Tensor:
        """The state every episode starts with: zeros [batch, s], by default on the graph's device."""
        return torch.zeros(batch, self.state_size, device=device or self.obs_mean.device)

    def set_normalisation(self, mean: Vector, var: Vector) -> None:
        """Take over observation statistics (both [observation_size], history included), in place.

        In place, because a captured CUDA graph holds the buffers' addresses.
        Raises ValueError for a wrong size, a non-finite value or a negative variance.
        """
        checked = []
        for name, values in (("mean", mean), ("var", var)):
            tensor = _float32(values)
            if tensor.shape != self.obs_mean.shape:
                raise ValueError(
                    f"normalisation {name}: shape {tuple(tensor.shape)} instead of ({self.observation_size},)"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"normalisation {name} has a non-finite value")
            checked.append(tensor)
        if bool((checked[1] < 0).any()):
            raise ValueError("normalisation var has a negative value")
        self.obs_mean.copy_(checked[0])
        self.obs_var.copy_(checked[1])

    def observe(
        self,
        joint_pos: Tensor,
        joint_vel: Tensor,
        imu_gyro: Tensor,
        imu_quat: Tensor,
        command: Tensor,
        state: Tensor,
        height_scan: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The observation before normalisation, and the frames the next state has to remember.

        joint_pos [B, n] rad, joint_vel [B, n] rad/s, imu_gyro [B, 3] rad/s in the IMU frame, imu_quat [B, 4]
        w, x, y, z of the IMU frame in the world, command [B, k], state [B, s], height_scan [B, P] m at the points of
        the graph's ``height_scan`` (not read without that term).
        Returns observation [B, observation_size], its frames oldest to newest, and frames
        [B, (history - 1) * frame_size], a view of it.
        Raises ValueError where a height scan is needed and not given.
        """
        parts = [state[:, self.action_size :]] if self.history > 1 else []
        for name, _, _, scale in self._layout:
            if name == "base_ang_vel":
                value = imu_gyro
            elif name == "projected_gravity":
                value = projected_gravity(imu_quat)
            elif name == "command":
                value = torch.clamp(command, self.command_lower, self.command_upper)
            elif name == "joint_pos_rel":
                value = joint_pos - self.default_position
            elif name == "joint_vel":
                value = joint_vel
            elif name == HEIGHT_SCAN:
                value = self._clip_scan(height_scan)
            else:
                value = state[:, : self.action_size]
            parts.append(value if scale == 1.0 else value * scale)
        observation = torch.cat(parts, dim=1)
        return observation, observation[:, self.frame_size :]

    def _clip_scan(self, height_scan: Tensor | None) -> Tensor:
        if height_scan is None or self.height_scan is None:
            raise ValueError("this policy graph sees the ground; give it the height_scan [B, P]")
        return torch.clamp(height_scan, -self.height_scan.clip, self.height_scan.clip)

    def normalise(self, observation: Tensor) -> Tensor:
        """clip((x - mean) / sqrt(var + 1e-8), +-10), stable-baselines3's formula. Any leading shape."""
        deviation = torch.sqrt(self.obs_var + VARIANCE_EPSILON)
        # One new tensor and no more: with a history it is the largest of the step.
        return (observation - self.obs_mean).div_(deviation).clamp_(-OBSERVATION_CLIP, OBSERVATION_CLIP)

    def clip_action(self, action: Tensor) -> Tensor:
        """The action as it is decoded and remembered: clipped to +-action_clip. [B, n]."""
        return action.clamp(-self.action_clip, self.action_clip)

    def decode(self, action: Tensor) -> Tensor:
        """Joint targets [B, n] rad: clip(default_position + action_scale * action, position limits).

        The action is clipped first.
        """
        target = self.default_position + self.action_scale * self.clip_action(action)
        return torch.clamp(target, self.position_lower, self.position_upper)

    def next_state(self, action: Tensor, frames: Tensor) -> Tensor:
        """The state [B, s] after this step: the clipped action and the frames that ``observe`` returned."""
        last_action = self.clip_action(action)
        return last_action if self.history == 1 else torch.cat((last_action, frames), dim=1)

    def forward(
        self,
        joint_pos: Tensor,
        joint_vel: Tensor,
        imu_gyro: Tensor,
        imu_quat: Tensor,
        command: Tensor,
        state: Tensor,
        height_scan: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One policy step (deterministic: the action mean). Arguments as ``observe``.

        Returns joint_target [B, n] rad, state_next [B, s] and the clipped action [B, n].
        """
        if self.network is None:
            raise ValueError("the policy graph has no network; set its attribute 'network' first")
        observation, frames = self.observe(
            joint_pos, joint_vel, imu_gyro, imu_quat, command, state, height_scan
        )
        # Three clips of one value: the exporter and the runtime keep a single one.
        action = self.network(self.normalise(observation))
        return self.decode(action), self.next_state(action, frames), self.clip_action(action)
