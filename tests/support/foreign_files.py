"""Policies in the formats of other stacks, made here, and those stacks' observation code again in plain NumPy.

Nothing in here uses what is under test: the references loop over terms, frames and joints, with deques for histories.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from torch import nn

PERIOD = 0.02
RANGES = {"lin_vel_x": [-0.5, 1.0], "lin_vel_y": [-0.3, 0.3], "ang_vel_z": [-0.2, 0.4]}
#: What no format tells.
SETTINGS = (
    "robot=g1",
    "variant=rev_1_0",
    "mode_machine=robot",
    "effort_limit=robot",
    "velocity_limit=robot",
    "position_limit=robot",
)
#: What mjlab's metadata leave open besides.
MJLAB_SETTINGS = (
    *SETTINGS,
    "control_period=0.02",
    "command_range={vx: [-0.5, 1.0], vy: [-0.3, 0.3], yaw_rate: [-0.2, 0.4]}",
    "observation_scale=1",
    "observation_clip=none",
    "action_clip=none",
)
#: What LEAPP leaves open besides.
LEAPP_SETTINGS = (*SETTINGS, "default_position=robot", MJLAB_SETTINGS[7])
NAMES = {
    "mjlab": ("base_ang_vel", "projected_gravity", "command", "joint_pos", "joint_vel", "actions"),
    "lab": (
        "base_ang_vel",
        "projected_gravity",
        "velocity_commands",
        "joint_pos_rel",
        "joint_vel_rel",
        "last_action",
    ),
}


def mjlab_terms() -> dict[str, dict[str, Any]]:
    """The terms of mjlab's velocity task, as they are there: neither scaled nor clipped, one frame."""
    return {name: {} for name in NAMES["mjlab"]}


def lab_terms(**changes: Any) -> dict[str, dict[str, Any]]:
    """The terms of unitree_rl_lab's velocity task, scaled as they are there; changes: further keys of every term."""
    scales = {"base_ang_vel": 0.2, "joint_vel_rel": 0.05}
    return {name: {"scale": scales.get(name, 1.0), **changes} for name in NAMES["lab"]}


def network(inputs: int, outputs: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, outputs)).eval().requires_grad_(False)


def export(
    module: nn.Module, path: Path, inputs: Mapping[str, Any], outputs: Sequence[str], opset: int = 18
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=opset,
            dynamo=False,
        )


def gravity(quaternion: np.ndarray) -> np.ndarray:
    """conj(q) rotates (0, 0, -1), by the matrix of the unit quaternion."""
    w, x, y, z = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return matrix.T @ np.array([0.0, 0.0, -1.0])


@dataclass
class Stack:
    """A foreign stack at run time: joints in an order of its own, one episode.

    order: [n] motor of joint i. default, scale: in the foreign order. terms: name -> dict with scale, clip,
    history_length, and period for the clock; the quantity is told from the name.
    """

    module: nn.Module
    order: np.ndarray
    default: np.ndarray
    scale: np.ndarray
    terms: Mapping[str, dict[str, Any]]
    ranges: Mapping[str, Sequence[float]] = field(default_factory=lambda: RANGES)
    frame_major: bool = False
    scale_first: bool = False
    target_clip: np.ndarray | None = None
    action_clip: float | None = None

    def __post_init__(self) -> None:
        self.last = np.zeros(len(self.order))
        self.steps = 0
        self.frames: dict[str, deque[np.ndarray]] = {}

    def value(self, name: str, sensors: Mapping[str, np.ndarray]) -> np.ndarray:
        if name == "base_ang_vel":
            return sensors["imu_gyro"]
        if name == "projected_gravity":
            return gravity(sensors["imu_quat"])
        if name in ("command", "velocity_commands"):
            return np.array(
                [np.clip(v, *r) for v, r in zip(sensors["command"], self.ranges.values(), strict=True)]
            )
        if name in ("joint_pos", "joint_pos_rel"):
            return np.array([sensors["joint_pos"][motor] for motor in self.order]) - self.default
        if name in ("joint_vel", "joint_vel_rel"):
            return np.array([sensors["joint_vel"][motor] for motor in self.order])
        if name in ("actions", "last_action"):
            return self.last
        phase = (self.steps * PERIOD) % self.terms[name]["period"] / self.terms[name]["period"]
        return np.array([np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)])

    def observation(self, sensors: Mapping[str, np.ndarray]) -> np.ndarray:
        for name, term in self.terms.items():
            value = np.array(self.value(name, sensors), float)
            operations = [lambda v, t=term: np.clip(v, *t["clip"]) if t.get("clip") else v]
            operations.append(lambda v, t=term: v * np.array(t.get("scale", 1.0)))
            for operation in reversed(operations) if self.scale_first else operations:
                value = operation(value)
            length = term.get("history_length", 1)
            frames = self.frames.setdefault(name, deque([value] * length, maxlen=length))
            if self.steps:
                frames.append(value)
        if self.frame_major:
            length = len(next(iter(self.frames.values())))
            return np.concatenate([self.frames[name][i] for i in range(length) for name in self.terms])
        return np.concatenate([frame for name in self.terms for frame in self.frames[name]])

    def step(self, sensors: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(joint targets rad, action), both in motor order."""
        observation = self.observation(sensors)
        with torch.no_grad():
            action = (
                self.module(torch.tensor(observation, dtype=torch.float32)[None])[0].numpy().astype(float)
            )
        if self.action_clip is not None:
            action = np.clip(action, -self.action_clip, self.action_clip)
        self.last = action
        self.steps += 1
        target = self.default + self.scale * action
        if self.target_clip is not None:
            target = np.clip(target, *self.target_clip.T)
        ordered = np.empty((2, len(self.order)))
        ordered[:, self.order] = target, action
        return ordered[0], ordered[1]


def shuffled(robot: Any, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Motor order of a foreign stack, and its default pose and action scale, to three decimals."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(robot.joint_names))
    default = np.round(robot.default_position[order] + rng.uniform(0.0, 0.02, len(order)), 3)
    default = np.clip(default, robot.position_lower[order], robot.position_upper[order])
    return order, np.round(default, 3), np.round(rng.uniform(0.1, 0.5, len(order)), 3)


def size(terms: Mapping[str, dict[str, Any]], joints: int) -> int:
    sizes = {"projected_gravity": 3, "base_ang_vel": 3, "command": 3, "velocity_commands": 3, "gait_phase": 2}
    return sum(sizes.get(name, joints) * term.get("history_length", 1) for name, term in terms.items())


def mjlab_file(robot: Any, path: Path, terms: Mapping[str, dict[str, Any]], **changes: str | None) -> Stack:
    """An ONNX file with mjlab's metadata; changes: metadata to replace, None to leave out."""
    order, default, scale = shuffled(robot)
    module = network(size(terms, len(order)), len(order))
    export(module, path, {"obs": torch.zeros(1, size(terms, len(order)))}, ["actions"])

    def csv(values: Any) -> str:
        return ",".join(f"{value:.3f}" for value in values)

    metadata: dict[str, str | None] = {
        "run_path": "someone/mjlab/abc123",
        "joint_names": ",".join(robot.joint_names[motor] for motor in order),
        "joint_stiffness": csv(np.arange(len(order)) + 10.0),
        "joint_damping": csv(np.arange(len(order)) / 10.0 + 1.0),
        "default_joint_pos": csv(default),
        "command_names": "twist",
        "observation_names": ",".join(terms),
        "action_scale": csv(scale),
    }
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {k: v for k, v in (metadata | changes).items() if v is not None})
    onnx.save(model, path)
    return Stack(module, order, default, scale, terms)


def deploy_yaml(
    robot: Any, path: Path, terms: Mapping[str, dict[str, Any]], **changes: Any
) -> tuple[Stack, dict[str, Any]]:
    """An ONNX file and the content of its deploy.yaml; changes: arguments of the Stack."""
    order, default, scale = shuffled(robot)
    joints = len(order)
    module = network(size(terms, joints), joints)
    export(module, path, {"obs": torch.zeros(1, size(terms, joints))}, ["actions"], opset=11)
    stack = Stack(module, order, default, scale, terms, **changes)
    observations: dict[str, Any] = {}
    if stack.frame_major:
        observations["use_gym_history"] = True
    if stack.scale_first:
        observations["scale_first"] = True
    for name, term in terms.items():
        values = size({name: {}}, joints)
        factors = np.broadcast_to(term.get("scale", 1.0), values).astype(float).tolist()
        params = {"period": term["period"]} if "period" in term else {}
        if name == "velocity_commands":
            params = {"command_name": "base_velocity"}
        observations[name] = {
            "params": params,
            "clip": term.get("clip"),
            "scale": factors,
            "history_length": term.get("history_length", 1),
        }
    clip = None if stack.target_clip is None else stack.target_clip.tolist()
    content = {
        "joint_ids_map": order.tolist(),
        "step_dt": PERIOD,
        "stiffness": (np.arange(joints) + 10.0).tolist(),
        "damping": (np.arange(joints) / 10.0 + 1.0).tolist(),
        "default_joint_pos": default.tolist(),
        "commands": {"base_velocity": {"ranges": {**RANGES, "heading": None}}},
        "actions": {
            "JointPositionAction": {
                "clip": clip,
                "joint_names": [".*"],
                "scale": scale.tolist(),
                "offset": default.tolist(),
                "joint_ids": None,
            }
        },
        "observations": observations,
    }
    return stack, content


class LeappGraph(nn.Module):
    """Raw sensors, last action, a history of the rate and its counter in; targets, feedback and gains out."""

    def __init__(self, module: nn.Module, default: np.ndarray, scale: np.ndarray, history: int) -> None:
        super().__init__()
        self.inner = module
        self.register_buffer("default", torch.tensor(default, dtype=torch.float32)[None])
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32)[None])
        self.register_buffer("gains", torch.arange(len(default), dtype=torch.float32)[None] + 10.0)
        self.history = history

    def forward(self, pos, vel, rate, down, command, last, frames, pushes):
        new = rate.unsqueeze(0) * 0.2
        frames = torch.cat((frames[1:], new), 0)
        frames = torch.where((pushes == 0).view(1, 1, 1), new.expand(self.history, 1, 3), frames)
        observation = torch.cat(
            (frames.transpose(0, 1).reshape(1, -1), down, command, pos - self.default, vel * 0.05, last), 1
        )
        action = self.inner(observation)
        target = action * self.scale + self.default
        return target, action, frames, pushes + 1, self.gains * 1.0, self.gains * 0.1


def leapp_files(
    robot: Any, folder: Path, history: int = 3, frequency: float | None = 50.0
) -> tuple[Stack, dict[str, Any]]:
    """LEAPP's ONNX file and initial values, and the content of its YAML; the last action starts at 0.5, not at zero."""
    order, default, scale = shuffled(robot)
    joints = len(order)
    module = network(3 * history + 6 + 3 * joints, joints)
    graph = LeappGraph(module, default, scale, history).eval()
    names = [robot.joint_names[motor] for motor in order]
    xyz = ["x", "y", "z"]
    inputs: dict[str, tuple[list[int], str, Any, str]] = {
        "robot_joint_pos": ([1, joints], "state/joint/position", names, "state:robot:joint_pos"),
        "robot_joint_vel": ([1, joints], "state/joint/velocity", names[::-1], "state:robot:joint_vel"),
        "robot_root_ang_vel_b": ([1, 3], "state/body/angular_velocity", xyz, "state:robot:root_ang_vel_b"),
        "robot_projected_gravity_b": ([1, 3], "state/vector3d", xyz, "state:robot:projected_gravity_b"),
        "base_velocity": ([1, 3], "command/body/velocity", list(RANGES), "command:base_velocity"),
    }
    outputs: dict[str, tuple[list[int], str, Any, str]] = {
        "joint_pos_target": (
            [1, joints],
            "target/joint/position",
            names,
            "write:robot:set_joint_position_target_index",
        ),
        "joint_pos_kp_gains": ([1, joints], "kp", names, "write:robot:write_joint_stiffness_to_sim_index"),
        "joint_pos_kd_gains": ([1, joints], "kd", names, "write:robot:write_joint_damping_to_sim_index"),
    }
    state = {"last_action": [1, joints], "h_policy_w": [history, 1, 3], "h_policy_w_num_pushes": [1]}

    class Reversed(nn.Module):
        """Joint speeds come in an order of their own, as element_names of every tensor may have one."""

        def forward(self, pos, vel, *rest):
            return graph(pos, vel.flip(1), *rest)

    tensors = {name: torch.zeros(shape) for name, (shape, *_) in inputs.items()}
    for name, shape in state.items():
        tensors[f"{name}_in"] = torch.zeros(shape, dtype=torch.long if "num" in name else torch.float32)
    path = folder / "Task.onnx"
    written = ["joint_pos_target", *(f"{name}_out" for name in state), *list(outputs)[1:]]
    export(Reversed().eval(), path, tensors, written, opset=20)

    def describe(tensors: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "dtype": "float32",
                "shape": shape,
                "type": "tensor",
                "kind": kind,
                "element_names": [elements],
                "isaaclab_connection": connection,
            }
            for name, (shape, kind, elements, connection) in tensors.items()
        ]

    def feedback(suffix: str) -> list[dict[str, Any]]:
        return [
            {
                "name": f"{name}_{suffix}",
                "dtype": "int64" if "num" in name else "float32",
                "shape": shape,
                "type": "tensor",
            }
            for name, shape in state.items()
        ]

    pipeline: dict[str, Any] = {
        "data_flow": {},
        "feedback_flow": {f"Task/{name}_out": [f"Task/{name}_in"] for name in state},
        "initial_values": "policy_initial_values.safetensors",
        "inputs": {"Task": list(inputs)},
        "outputs": {"Task": list(outputs)},
    }
    if frequency is not None:
        pipeline["configs"] = {"frequency": frequency}
    content = {
        "models": {
            "Task": {
                "inputs": describe(inputs) + feedback("in"),
                "outputs": describe(outputs) + feedback("out"),
                "parameters": {
                    "model_path": "Task.onnx",
                    "md5sum": "0",
                    "sha256sum": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "backend": "onnx",
                    "opset_version": 20,
                },
            }
        },
        "pipeline": pipeline,
        "system information": {"leapp version": "0.7.2"},
    }
    start = np.full((1, joints), 0.5, "<f4").tobytes()
    header = json.dumps(
        {"Task/last_action_in": {"dtype": "F32", "shape": [1, joints], "data_offsets": [0, len(start)]}}
    ).encode()
    (folder / "policy_initial_values.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + start
    )
    terms = {
        "base_ang_vel": {"scale": 0.2, "history_length": history},
        "projected_gravity": {},
        "velocity_commands": {},
        "joint_pos_rel": {},
        "joint_vel_rel": {"scale": 0.05},
        "last_action": {},
    }
    stack = Stack(module, order, default, scale, terms)
    stack.last = np.full(joints, 0.5)
    return stack, content


def write_yaml(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
