"""One batched control step of a task: decode, physics, rewards, terminations, resets, observation.

Every tensor stays on the simulator's device and nothing here reads one on the host, so the cost of a step beside
the physics is a few dozen batched kernels whatever the number of environments.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from humanoid_rl_core.contract import HEIGHT_SCAN
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.height_scan import HeightScan
from humanoid_rl_core.policy_graph import ObservationTerm, PolicyGraph, projected_gravity
from humanoid_rl_core.robot import Gains, RobotModel

from humanoid_rl_sim.simulators.camera import Images
from humanoid_rl_sim.simulators.contract import InitialState, ModelProperties, Simulator
from humanoid_rl_sim.tasks import rewards, terminations
from humanoid_rl_sim.tasks.cells import Cells
from humanoid_rl_sim.tasks.configuration import COMMAND_NAMES, Range, TaskConfig
from humanoid_rl_sim.tasks.terms import bind_term
from humanoid_rl_sim.tasks.terrain import Terrain
from humanoid_rl_sim.tasks.view import StepView


def make_policy_graph(task: TaskConfig, robot: RobotModel) -> PolicyGraph:
    """The task's policy graph, still without a network.

    Raises:
        UserError: unknown gain set, joint group or observation term, or a height scan without a terrain that has one.
    """
    gains = gain_set(task, robot)
    ranges = (task.command.vx, task.command.vy, task.command.yaw_rate)
    return PolicyGraph(
        joint_names=robot.joint_names,
        default_position=robot.default_position,
        action_scale=_action_scale(task, robot, gains),
        position_lower=robot.position_lower,
        position_upper=robot.position_upper,
        command_names=COMMAND_NAMES,
        command_lower=[r.lower for r in ranges],
        command_upper=[r.upper for r in ranges],
        observation=[ObservationTerm(term.name, term.scale) for term in task.observation.terms],
        history=task.observation.history,
        action_clip=task.action_clip,
        height_scan=_height_scan(task, robot),
    )


def _height_scan(task: TaskConfig, robot: RobotModel) -> HeightScan | None:
    """What the actor's observation term of that name sees; nothing without the term."""
    if all(term.name != HEIGHT_SCAN for term in task.observation.terms):
        return None
    scan = task.terrain.height_scan if task.terrain is not None else None
    if scan is None:
        raise UserError(
            f"task {task.name}: observation term '{HEIGHT_SCAN}' needs a terrain with a height_scan"
        )
    return HeightScan(
        length=scan.length,
        width=scan.width,
        spacing=scan.spacing,
        origin=robot.base_link,
        standing_height=robot.default_base_height,
        clip=SCAN_CLIP,
    )


def _action_scale(task: TaskConfig, robot: RobotModel, gains: Gains) -> np.ndarray:
    """[n] rad per unit of action."""
    scale = task.action_scale * robot.effort_limit / gains.stiffness
    groups = joint_groups(robot, torch.device("cpu"))
    for group, factor in task.action_scale_factors.items():
        if group not in groups:
            raise UserError(f"task {task.name}: unknown joint group '{group}'{nearest(group, groups)}")
        scale[groups[group].numpy()] *= factor
    return scale


def gain_set(task: TaskConfig, robot: RobotModel) -> Gains:
    """The joint gains the task is trained with.

    Raises:
        UserError: the robot has no gain set of that name.
    """
    if task.gains not in robot.gains:
        raise UserError(
            f"task {task.name}: robot {robot.name} has no gain set '{task.gains}'{nearest(task.gains, robot.gains)}"
        )
    return robot.gains[task.gains]


def joint_groups(robot: RobotModel, device: torch.device) -> dict[str, torch.Tensor]:
    """Joint indices by body part: legs, hips, knees, ankles, waist, arms, all."""
    parts = {
        "legs": ("hip", "knee", "ankle"),
        "hips": ("hip_roll", "hip_yaw"),
        "knees": ("knee",),
        "ankles": ("ankle",),
        "waist": ("waist",),
        "arms": ("shoulder", "elbow", "wrist"),
        "all": ("",),
    }
    return {
        group: torch.tensor(
            [i for i, name in enumerate(robot.joint_names) if any(word in name for word in words)],
            device=device,
        )
        for group, words in parts.items()
    }


PRIVILEGED_SIZE = 3 + 3 + 3 + 1 + 2 + 2 + 2 + 3
"""Without a height scan."""
NOMINAL_WEIGHT = 9.81 * 33.34
"""N; only the scale on which the critic sees forces."""
SENSELESS = 1.0e3
"""rad/s, m/s or m: an order of magnitude beyond what a falling robot reaches."""
SCAN_CLIP = 1.0
"""m."""
START_SCATTER = 0.3
"""m, half-width along x and y of where robots start around the middle of a cell of terrain."""
START_LIFT = 0.02
"""m above standing at which robots start on terrain: bent ankles must not begin inside the ground."""
PUSH_FORESIGHT = 0.5
"""s, time constant with which a coming push enters the critic's view."""


class Sensors(NamedTuple):
    """The raw sensors of all robots, by the names of the policy graph's inputs."""

    joint_pos: torch.Tensor
    """[N, n] rad."""
    joint_vel: torch.Tensor
    """[N, n] rad/s."""
    imu_gyro: torch.Tensor
    """[N, 3] rad/s."""
    imu_quat: torch.Tensor
    """[N, 4]."""
    height_scan: torch.Tensor
    """[N, P] m below a standing base, not clipped; P is 0 where the actor does not see the ground."""


@dataclass
class StepResult:
    """Outcome of a control step; the tensors are fresh."""

    observation: torch.Tensor
    """[N, observation_size] before normalisation; of the new episode where one ended."""
    reward: torch.Tensor
    """[N]."""
    terminated: torch.Tensor
    """[N] bool: failed."""
    truncated: torch.Tensor
    """[N] bool: ran out of time, or across its cell of the terrain, without having failed."""
    final_observation: torch.Tensor
    """[N, observation_size] the last observation of the episode, before any reset."""
    privileged: torch.Tensor
    """[N, privileged_size] what the critic may know beside the observation (`Environment._privileged`)."""
    final_privileged: torch.Tensor
    """[N, privileged_size] the same, before any reset."""


class Environment:
    """A task on a simulator.

    Args:
        task: the task.
        simulator: freshly made; its timestep must be the task's.
        seed: seeds every random draw; equal seeds give equal runs on the CPU.
        training: False turns observation noise, pushes, latency, randomisation and curricula off.
        terrain: the task's terrain, on which the simulator was made.
        level: on level ground in place of the task's terrain; what is seen of the ground stays part of the observation.
    """

    def __init__(
        self,
        task: TaskConfig,
        simulator: Simulator,
        *,
        seed: int = 0,
        training: bool = True,
        terrain: Terrain | None = None,
        level: bool = False,
    ) -> None:
        self.task, self.simulator, self.robot = task, simulator, simulator.robot
        self.num_envs, self.device = simulator.num_envs, simulator.device
        if not math.isclose(simulator.timestep, task.physics_timestep):
            raise ValueError(
                f"simulator timestep {simulator.timestep} is not the task's {task.physics_timestep}"
            )
        if (task.terrain is None or level) != (terrain is None) or simulator.height_field is not (
            terrain.field if terrain else None
        ):
            raise ValueError("the simulator's ground is not the task's terrain")
        self.training = training
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.graph = make_policy_graph(task, self.robot).to(self.device)
        self.decimation = task.decimation
        self.max_episode_steps = round(task.episode_length / task.control_period)
        simulator.set_gains(gain_set(task, self.robot))

        n, joints = self.num_envs, len(self.robot.joint_names)
        self.cells: Cells | None = None
        self._curriculum = training and task.terrain is not None and task.terrain.curriculum
        if task.terrain is not None and terrain is not None:
            self.cells = Cells(task.terrain, terrain, n, self.device, curriculum=self._curriculum)
        self.privileged_size = PRIVILEGED_SIZE + (self.cells.scan_size if self.cells else 0)
        """Size of what the critic sees beside the observation."""

        def vector(values) -> torch.Tensor:
            # A copy: the description's arrays are read-only, which no tensor can be.
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros((n, *shape), device=self.device)

        self._default_pos = vector(self.robot.default_position)
        self._reset_pos_limits = vector(self.robot.position_lower), vector(self.robot.position_upper)
        self._command_ranges = vector(
            [[r.lower, r.upper] for r in (task.command.vx, task.command.vy, task.command.yaw_rate)]
        )
        self._noise = self._noise_scales()
        scan = self.graph.height_scan
        self._scan_points = torch.zeros(0, 2, device=self.device) if scan is None else vector(scan.points)
        self._recurrent = self.graph.initial_state(n, self.device)
        self._frames = self._recurrent[:, joints:]
        self._last_sensors = Sensors(
            zeros(joints), zeros(joints), zeros(3), zeros(4), zeros(len(self._scan_points))
        )
        self._target = self._default_pos.repeat(n, 1)
        self._action_delay = torch.zeros(n, dtype=torch.long, device=self.device)
        self._sensor_delay = torch.zeros(n, dtype=torch.bool, device=self.device)
        self._command_left = zeros()
        self._command_is_fixed = False
        self._push_left, self._push_delta = zeros(), zeros(3)
        self.broken_episodes = torch.zeros((), dtype=torch.long, device=self.device)
        """Episodes that ended because physics broke, since the start."""
        self.training_progress = torch.zeros((), device=self.device)
        """Fraction of the training that is done; the learner fills it in, in place."""
        self.episode_steps = torch.zeros(n, dtype=torch.long, device=self.device)
        self.images: Images | None = None
        """What the robots' cameras saw last: at the last reset of all, or a multiple of the camera's period after it.
        None without a camera. Black, and without depth, for a robot whose new episode began after that."""
        camera = simulator.camera
        self._image_steps = 0 if camera is None else camera.control_steps(task.control_period)
        self._image_count = self._steps_to_image = 0

        self.view = StepView(
            robot=self.robot,
            period=task.control_period,
            state=simulator.state,
            default_pos=self._default_pos,
            position_lower=self._reset_pos_limits[0],
            position_upper=self._reset_pos_limits[1],
            effort_limit=vector(self.robot.effort_limit),
            command=zeros(3),
            action=zeros(joints),
            last_action=zeros(joints),
            last_joint_vel=zeros(joints),
            projected_gravity=zeros(3),
            base_lin_vel_yaw=zeros(3),
            base_height=zeros(),
            foot_height=zeros(2),
            air_time=zeros(2),
            contact_time=zeros(2),
            joint_groups=joint_groups(self.robot, self.device),
        )
        self.reward_terms = []
        for name, config in task.rewards.items():
            parameters = dict(config)
            if "weight" not in parameters:
                raise UserError(f"task {task.name}: reward '{name}' needs the parameter 'weight'")
            weight, term = float(parameters.pop("weight")), str(parameters.pop("term", name))
            self.reward_terms.append(
                (name, weight, bind_term(rewards, "reward", term, parameters, task.name))
            )
        self.termination_terms = [
            (name, bind_term(terminations, "termination", name, config, task.name))
            for name, config in task.terminations.items()
        ]
        self._term_sums = torch.zeros(len(self.reward_terms), device=self.device)
        self._steps_summed = torch.zeros((), device=self.device)
        if training:
            self.simulator.set_properties(self._draw_properties())

    # -- random draws ------------------------------------------------------------------------------------------

    def _uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand((self.num_envs, *shape), generator=self.generator, device=self.device)

    def _draw(self, interval: Range, *shape: int) -> torch.Tensor:
        return interval.lower + (interval.upper - interval.lower) * self._uniform(*shape)

    def _symmetric(self, half_width: float, *shape: int) -> torch.Tensor:
        return half_width * (2.0 * self._uniform(*shape) - 1.0)

    def _draw_properties(self) -> ModelProperties:
        config, joints = self.task.randomisation, len(self.robot.joint_names)
        return ModelProperties(
            friction=self._draw(config.friction),
            base_mass_offset=self._draw(config.payload),
            base_com_offset=self._draw(config.com_offset, 3),
            stiffness_scale=self._draw(config.stiffness_scale, joints),
            damping_scale=self._draw(config.damping_scale, joints),
            effort_limit_scale=self._draw(config.motor_strength, joints),
            armature_scale=self._draw(config.armature_scale, joints),
        )

    def _noise_scales(self) -> dict[str, float]:
        noise = {term.name: term.noise for term in self.task.observation.terms}
        return {
            "joint_pos": noise.get("joint_pos_rel", 0.0),
            "joint_vel": noise.get("joint_vel", 0.0),
            "imu_gyro": noise.get("base_ang_vel", 0.0),
            "imu_quat": noise.get("projected_gravity", 0.0),
            "height_scan": noise.get("height_scan", 0.0),
        }

    # -- the step ----------------------------------------------------------------------------------------------

    def reset(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Start new episodes. Returns observation [N, observation_size] and privileged [N, privileged_size]."""
        self._reset(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        self._update_view()
        self._steps_to_image = 0
        self._take_images()
        return self._next_observation(), self._privileged()

    @property
    def joint_target(self) -> torch.Tensor:
        """[N, n] rad, what the motors were told last."""
        return self._target

    def step(self, action: torch.Tensor, joint_target: torch.Tensor | None = None) -> StepResult:
        """Apply a policy's output for one control period.

        Args:
            action: [N, n].
            joint_target: [N, n] rad, of a policy that decodes its actions itself; without, as the task's graph does.
        """
        view = self.view
        view.last_action = view.action
        view.action = self.graph.clip_action(action)
        view.last_joint_vel = view.state.joint_vel.clone()
        if self.training and self.task.push is not None:
            self._push()
        self._physics(self.graph.decode(action) if joint_target is None else joint_target)
        broken = self._repair()
        self._recurrent = self.graph.next_state(action, self._frames)

        self.episode_steps += 1
        self._update_view()
        reward = torch.where(broken, 0.0, self._reward())
        terminated = broken
        for _, term in self.termination_terms:
            terminated = terminated | term(view)
        truncated = self.episode_steps >= self.max_episode_steps
        if self.cells is not None:
            truncated = truncated | self.cells.crossed(view.state.base_pos)
        truncated = truncated & ~terminated
        final_observation, _, _ = self._observe()
        final_privileged = self._privileged()

        if self.cells is not None and self._curriculum:
            self.cells.regrade(truncated, terminated, self._uniform())
        self._reset(terminated | truncated)
        self._command_left -= self.task.control_period
        self._resample_command(self._command_left <= 0.0)
        self._update_frame()
        self._take_images()
        return StepResult(
            observation=self._next_observation(),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            final_observation=final_observation,
            privileged=self._privileged(),
            final_privileged=final_privileged,
        )

    def _repair(self) -> torch.Tensor:
        """[N] bool: physics came to values that are no numbers, or beyond all sense. They become zeros, the episode
        ends as failed and is reset, and `broken_episodes` counts it."""
        state = self.simulator.state
        worst = torch.stack(
            [
                values.flatten(1).abs().amax(1)
                for values in (
                    state.joint_vel,
                    state.base_lin_vel,
                    state.base_ang_vel,
                    state.base_pos,
                    state.joint_pos,
                )
            ]
        ).amax(0)
        broken = ~(worst < SENSELESS)  # also where it is not a number
        for values in vars(state).values():
            if values.is_floating_point():
                rows = broken.view(-1, *([1] * (values.dim() - 1)))
                values.masked_fill_(rows, 0.0)
        self.broken_episodes += broken.sum()
        return broken

    def _physics(self, target: torch.Tensor) -> None:
        delayed = min(self._max_action_delay, self.decimation) if self.training else 0
        for substep in range(delayed):
            still_old = (substep < self._action_delay)[:, None]
            self.simulator.set_joint_target(torch.where(still_old, self._target, target))
            self.simulator.advance(1, observed=substep + 1 == self.decimation)
        if delayed < self.decimation:
            self.simulator.set_joint_target(target)
            self.simulator.advance(self.decimation - delayed)
        self._target = target
        self.simulator.refresh()

    @property
    def _max_action_delay(self) -> int:
        return math.ceil(self.task.latency.action.upper / self.task.physics_timestep - 1e-9)

    def _reward(self) -> torch.Tensor:
        terms = torch.stack([weight * term(self.view).float() for _, weight, term in self.reward_terms])
        self._term_sums += terms.mean(1)
        self._steps_summed += 1
        return terms.sum(0) * self.task.control_period

    def pop_reward_terms(self) -> dict[str, float]:
        """Mean weighted value of every reward term since the last call (reads the device)."""
        means = (self._term_sums / self._steps_summed.clamp(min=1.0)).tolist()
        self._term_sums.zero_()
        self._steps_summed.zero_()
        return {name: mean for (name, _, _), mean in zip(self.reward_terms, means, strict=True)}

    def _update_frame(self) -> None:
        """What follows from where the base and the feet are."""
        view, quat = self.view, self.view.state.base_quat
        view.projected_gravity = projected_gravity(quat)
        w, x, y, z = quat.unbind(1)
        yaw = torch.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        self._yaw = torch.cos(yaw), torch.sin(yaw)
        view.base_lin_vel_yaw = self._to_yaw_frame(view.state.base_lin_vel)
        base, feet = view.state.base_pos, view.state.foot_pos
        if self.cells is None:
            view.base_height, view.foot_height = base[:, 2], feet[:, :, 2]
        else:
            ground = self.cells.ground.height(torch.cat((base[:, None, :2], feet[:, :, :2]), 1))
            view.base_height = base[:, 2] - ground[:, 0]
            view.foot_height = feet[:, :, 2] - ground[:, 1:]

    def _to_yaw_frame(self, vector: torch.Tensor) -> torch.Tensor:
        """World vectors [N, 3] in the level frame that shares the base's yaw."""
        (cos, sin), (x, y, z) = self._yaw, vector.unbind(1)
        return torch.stack((cos * x + sin * y, cos * y - sin * x, z), 1)

    def _update_view(self) -> None:
        view, period = self.view, self.task.control_period
        self._update_frame()
        contact = view.state.foot_contact
        view.air_time = torch.where(contact, 0.0, view.air_time + period)
        view.contact_time = torch.where(contact, view.contact_time + period, 0.0)

    # -- observation -------------------------------------------------------------------------------------------

    def _sense(self) -> Sensors:
        state = self.simulator.state
        return Sensors(
            self._noisy(state.joint_pos, "joint_pos"),
            self._noisy(state.joint_vel, "joint_vel"),
            self._noisy(state.imu_gyro, "imu_gyro"),
            self._noisy(state.imu_quat, "imu_quat"),
            self._noisy(self.depth(self._scan_points), "height_scan"),
        )

    @property
    def sensors(self) -> Sensors:
        """What the sensors read now, noise included: the input of an exported policy.

        The present observation was made of it, except where a training's sensors are late.
        """
        return self._last_sensors

    def depth(self, points: torch.Tensor) -> torch.Tensor:
        """[N, P] m: how much farther below the base the ground is at `points` than a standing base is high.

        Args:
            points: [P, 2] m, x and y in the base's yaw frame.
        """
        base_pos = self.view.state.base_pos
        if self.cells is None:
            below = base_pos[:, 2:3].expand(-1, len(points))
        else:
            below = self.cells.scan(base_pos, *self._yaw, points)
        return below - self.robot.default_base_height

    def _noisy(self, value: torch.Tensor, sensor: str) -> torch.Tensor:
        width = self._noise[sensor] if self.training else 0.0
        return value + self._symmetric(width, value.shape[1]) if width > 0.0 else value.clone()

    def _observe(self) -> tuple[torch.Tensor, torch.Tensor, Sensors]:
        """The observation of this instant, the frames to remember, and the sensors as read now."""
        sensors = seen = self._sense()
        if self.training and self.task.latency.sensor_step_probability > 0.0:
            late = (self._sensor_delay & (self.episode_steps > 0))[:, None]
            seen = Sensors(
                *(torch.where(late, old, now) for old, now in zip(self._last_sensors, sensors, strict=True))
            )
        observation, frames = self.graph.observe(
            **seen._asdict(), command=self.view.command, state=self._recurrent
        )
        return observation, frames, sensors

    def _next_observation(self) -> torch.Tensor:
        observation, self._frames, self._last_sensors = self._observe()
        return observation

    def _privileged(self) -> torch.Tensor:
        """What only a simulator knows, for the critic: [N, privileged_size].

        Base velocity in the yaw frame (3, m/s), base angular velocity (3, rad/s) and gravity direction (3) without
        noise, base height relative to standing (1, m), foot contacts (2), vertical foot forces (2, body weights),
        heights of the feet (2, m), and the next push: how near it is (1, exp(-time left / PUSH_FORESIGHT)) and its
        velocity in the yaw frame times that (2, m/s). A push is nothing the actor could have caused; a critic that
        sees it coming does not blame it on the actor (input-dependent baseline, Mao et al. 2019). Heights are above
        the ground; on a terrain the height scan follows: the ground's depth below a standing base (P, m).
        """
        view, state = self.view, self.view.state
        if self.training and self.task.push is not None:
            nearness = torch.exp(-self._push_left.clamp(min=0.0) / PUSH_FORESIGHT)[:, None]
            push = torch.cat((nearness, nearness * self._to_yaw_frame(self._push_delta)[:, :2]), 1)
        else:
            push = torch.zeros(self.num_envs, 3, device=self.device)
        parts = [
            view.base_lin_vel_yaw,
            state.base_ang_vel,
            view.projected_gravity,
            view.base_height[:, None] - self.robot.default_base_height,
            state.foot_contact.float(),
            state.foot_force[:, :, 2] / NOMINAL_WEIGHT,
            view.foot_height,
            push,
        ]
        if self.cells is not None:
            parts.append(self.depth(self.cells.scan_points).clamp(-SCAN_CLIP, SCAN_CLIP))
        return torch.cat(parts, 1)

    def _take_images(self) -> None:
        """At every period of the camera; between two, robots that were reset have none."""
        if self._image_steps == 0:
            return
        if self._steps_to_image == 0:
            self._image_count += 1
            self.images = dataclasses.replace(self.simulator.images(), number=self._image_count)
            self._steps_to_image = self._image_steps
        elif self.images is not None and (begun := self.episode_steps == 0).any():
            self.images = self.images.without(begun)
        self._steps_to_image -= 1

    # -- events ------------------------------------------------------------------------------------------------

    def _reset(self, mask: torch.Tensor) -> None:
        config, joints, n = self.task.reset, len(self.robot.joint_names), self.num_envs
        joint_pos = self._default_pos + self._symmetric(config.joint_noise, joints)
        lower, upper = self._reset_pos_limits
        roll, pitch = self._symmetric(config.tilt_noise), self._symmetric(config.tilt_noise)
        yaw = self._symmetric(math.pi)
        if self.cells is None:
            base_pos = torch.zeros(n, 3, device=self.device)
        else:
            base_pos = self.cells.origin()
            base_pos[:, :2] += self._symmetric(START_SCATTER, 2)
            base_pos[:, 2] += START_LIFT
        base_pos[:, 2] += self.robot.default_base_height
        base_lin_vel = torch.zeros(n, 3, device=self.device)
        base_lin_vel[:, :2] = self._symmetric(config.base_velocity_noise, 2)
        self.simulator.reset(
            mask,
            InitialState(
                joint_pos=torch.maximum(torch.minimum(joint_pos, upper), lower),
                joint_vel=self._symmetric(config.joint_vel_noise, joints),
                base_pos=base_pos,
                base_quat=_quaternion_from_rpy(roll, pitch, yaw),
                base_lin_vel=base_lin_vel,
                base_ang_vel=torch.zeros(n, 3, device=self.device),
            ),
        )
        keep = ~mask
        rows = mask[:, None]
        self.episode_steps *= keep
        self._recurrent = torch.where(rows, 0.0, self._recurrent)
        self._target = torch.where(rows, joint_pos, self._target)
        view = self.view
        view.action = torch.where(rows, 0.0, view.action)
        view.last_action = torch.where(rows, 0.0, view.last_action)
        view.air_time = torch.where(rows, 0.0, view.air_time)
        view.contact_time = torch.where(rows, 0.0, view.contact_time)
        self._resample_command(mask)
        if self.training:
            self._draw_episode(mask)

    def _draw_episode(self, mask: torch.Tensor) -> None:
        """Latency and the time to the first push are constant within an episode, or start with it."""
        latency = self.task.latency
        if latency.action.upper > 0.0:
            delay = (self._draw(latency.action) / self.task.physics_timestep).round().long()
            self._action_delay = torch.where(mask, delay, self._action_delay)
        if latency.sensor_step_probability > 0.0:
            late = self._uniform() < latency.sensor_step_probability
            self._sensor_delay = torch.where(mask, late, self._sensor_delay)
        if self.task.push is not None:
            self._draw_push(mask)

    def _resample_command(self, mask: torch.Tensor) -> None:
        if self._command_is_fixed:
            return
        config = self.task.command
        lower, upper = self._command_ranges.unbind(1)
        command = lower + (upper - lower) * self._uniform(3)
        if self.training and config.full_range_at > 0.0:
            grown = (self.training_progress / config.full_range_at).clamp(max=1.0)
            share = config.initial_fraction + (1.0 - config.initial_fraction) * grown
            easiest = torch.zeros_like(lower).clamp(lower, upper)
            command = easiest + share * (command - easiest)
        command *= (self._uniform() >= config.standing_fraction)[:, None]
        self.view.command = torch.where(mask[:, None], command, self.view.command)
        self._command_left = torch.where(mask, self._draw(config.resampling_time), self._command_left)

    def set_command(self, command: torch.Tensor) -> None:
        """Give every environment its command [N, 3] for good: no more draws."""
        self.view.command = command.to(self.device)
        self._command_is_fixed = True

    def _push(self) -> None:
        self._push_left -= self.task.control_period
        due = self._push_left <= 0.0
        self.simulator.add_base_velocity(due, self._push_delta)
        self._draw_push(due)

    def _draw_push(self, mask: torch.Tensor) -> None:
        """When and how the environments in `mask` are pushed next."""
        assert self.task.push is not None
        speed, direction = self._draw(self.task.push.speed), self._symmetric(math.pi)
        if self.task.push.full_strength_at > 0.0:
            speed = speed * (self.training_progress / self.task.push.full_strength_at).clamp(max=1.0)
        delta = torch.stack(
            (speed * torch.cos(direction), speed * torch.sin(direction), torch.zeros_like(speed)), 1
        )
        self._push_delta = torch.where(mask[:, None], delta, self._push_delta)
        self._push_left = torch.where(mask, self._draw(self.task.push.interval), self._push_left)

    def close(self) -> None:
        """Release the simulator."""
        self.simulator.close()


def _quaternion_from_rpy(roll: torch.Tensor, pitch: torch.Tensor, yaw: torch.Tensor) -> torch.Tensor:
    """[N, 4] w, x, y, z of the rotation Rz(yaw) Ry(pitch) Rx(roll); angles [N] in rad."""
    cr, sr = torch.cos(roll / 2), torch.sin(roll / 2)
    cp, sp = torch.cos(pitch / 2), torch.sin(pitch / 2)
    cy, sy = torch.cos(yaw / 2), torch.sin(yaw / 2)
    return torch.stack(
        (
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ),
        1,
    )
