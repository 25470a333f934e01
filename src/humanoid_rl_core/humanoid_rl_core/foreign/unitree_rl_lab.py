"""Policies of unitree_rl_lab: an ONNX file and deploy.yaml; unitree_rl_mjlab's robots are deployed with the same.

Facts, from `utils/export_deploy_cfg.py` and `deploy/include/isaaclab/` (observation_manager.h, manager_term_cfg.h,
observations.h, joint_actions.h, unitree_articulation.h, State_RLBase.cpp) of unitreerobotics/unitree_rl_lab, and the
later ones of unitreerobotics/unitree_rl_mjlab:

- joint_ids_map[i] is the motor of the network's joint i; default_joint_pos, action scale, offset and clip are in the
  network's order, stiffness and damping in that of the motors; numbers are rounded to three digits;
- base_ang_vel is the IMU's rate, projected_gravity conj(q) (0, 0, -1) with the IMU's q as w, x, y, z;
  velocity_commands are clamped to commands.base_velocity.ranges; joint_pos_rel is relative to default_joint_pos;
  last_action is the network's output, not scaled;
- each value is clipped and then scaled, or the other way round with scale_first; the frames of each term stand
  together, oldest first, or whole frames with use_gym_history; a history is filled with the first observation;
- target = scale * action + offset, then clipped, where the action has a clip;
- gait_phase is sin and cos of 2 pi t / period with t the time since the episode's start, as in training
  (`mdp/observations.py`; the C++ deployment starts its clock one or two steps later).

deploy.yaml names neither the robot nor limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UserError
from ..typed_yaml import load_dataclass
from .answers import Answers, as_bound, as_it_is, as_mapping, as_number, as_positive, as_range
from .description import (
    GAIT_PHASE,
    PER_JOINT,
    VELOCITY_COMMANDS,
    ForeignPolicy,
    ObservationNetwork,
    Term,
    quantity_of,
)
from .network_shape import check_sizes
from .ranges import command_range
from .source import ForeignFiles

_TERMS = {
    "base_ang_vel": "base_ang_vel",
    "projected_gravity": "projected_gravity",
    "velocity_commands": "command",
    "joint_pos_rel": "joint_pos_rel",
    "joint_vel_rel": "joint_vel",
    "last_action": "last_action",
    "gait_phase": GAIT_PHASE,
}
_SIZES = {GAIT_PHASE: 2}

_RANGES = dict(zip(("lin_vel_x", "lin_vel_y", "ang_vel_z"), VELOCITY_COMMANDS, strict=True))


@dataclass(frozen=True)
class _Observation:
    history_length: int = 1
    scale: tuple[float, ...] | None = None
    clip: tuple[float, float] | None = None
    params: Mapping[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class _Action:
    scale: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    clip: tuple[tuple[float, float], ...] | None = None
    joint_names: Any = None
    joint_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Ranges:
    lin_vel_x: tuple[float, float]
    lin_vel_y: tuple[float, float]
    ang_vel_z: tuple[float, float]
    heading: Any = None


@dataclass(frozen=True)
class _Command:
    ranges: _Ranges


@dataclass(frozen=True)
class _Deploy:
    joint_ids_map: tuple[int, ...]
    default_joint_pos: tuple[float, ...]
    actions: Mapping[str, _Action]
    observations: Mapping[str, Any]
    step_dt: float | None = None
    stiffness: tuple[float, ...] | None = None
    damping: tuple[float, ...] | None = None
    commands: Mapping[str, _Command] = field(default_factory=dict)


def read(files: ForeignFiles, answers: Answers) -> ForeignPolicy:
    """The policy that an ONNX file and a deploy.yaml describe.

    Raises:
        UserError: something is open, unknown, or contradicts the network.
    """
    if files.config_path is None:
        raise UserError(
            f"{files.path}: a policy of unitree_rl_lab needs its deploy.yaml; name it with --config"
        )
    where = str(files.config_path)
    deploy = load_dataclass(_Deploy, files.config, where)
    motors = deploy.joint_ids_map
    if len(set(motors)) != len(motors) or min(motors, default=-1) < 0:
        raise UserError(f"{where}: joint_ids_map has a motor twice, a negative one, or none")
    joints = len(motors)
    values = _values(deploy, answers, where)
    limit = _action(deploy, values, where)
    answers.known("action_scale", "deploy.yaml")
    network = _network(deploy, joints, where)
    answers.known("joint_names", "deploy.yaml, joint_ids_map")

    period = deploy.step_dt
    if period is None:
        period = answers.get("control_period", as_positive)
    else:
        answers.known("control_period", "deploy.yaml")
    commanded = any(term.quantity == "command" for term in network.terms)
    ranges: np.ndarray | None = np.zeros((0, 2))
    if commanded:
        ranges = _ranges(deploy, answers)
    answers.refuse_gaps(where)
    assert period is not None and ranges is not None
    check_sizes(files.model, sum(len(term.scale) * term.history for term in network.terms), joints)
    return ForeignPolicy(
        network=network,
        joints=motors,
        command_names=VELOCITY_COMMANDS if commanded else (),
        command_range=ranges,
        control_period=period,
        values=values,
        target_limit=limit,
    )


def _values(deploy: _Deploy, answers: Answers, where: str) -> dict[str, np.ndarray]:
    """Default pose and gains, [n] in the network's order, of those that the file has."""
    motors = np.array(deploy.joint_ids_map)
    default = _finite(deploy.default_joint_pos, f"{where}: default_joint_pos")
    _check_count(default, len(motors), f"{where}: default_joint_pos")
    answers.known("default_position", "deploy.yaml")
    values = {"default_position": default}
    for key, numbers in (("stiffness", deploy.stiffness), ("damping", deploy.damping)):
        if numbers is None:
            answers.get(key, as_it_is)
            continue
        answers.known(key, "deploy.yaml")
        by_motor = _finite(numbers, f"{where}: {key}")
        if len(by_motor) <= motors.max():
            raise UserError(
                f"{where}: {key} has {len(by_motor)} entries, but joint_ids_map names motor {motors.max()}"
            )
        values[key] = by_motor[motors]
    return values


def _action(deploy: _Deploy, values: dict[str, np.ndarray], where: str) -> np.ndarray | None:
    """Puts the action's scale among the values; returns the bounds of the targets, [n, 2] rad, or None."""
    joints = len(deploy.joint_ids_map)
    if list(deploy.actions) != ["JointPositionAction"]:
        raise UserError(
            f"{where}: the actions are {', '.join(deploy.actions) or 'none'}; only one JointPositionAction can be run"
        )
    action = deploy.actions["JointPositionAction"]
    where = f"{where}: actions.JointPositionAction"
    if action.joint_ids not in (None, tuple(range(joints))):
        raise UserError(
            f"{where}.joint_ids: the action does not move all joints in order, which is not imported"
        )
    scale = _finite(action.scale if action.scale is not None else (1.0,) * joints, f"{where}.scale")
    offset = _finite(action.offset if action.offset is not None else (0.0,) * joints, f"{where}.offset")
    _check_count(scale, joints, f"{where}.scale")
    _check_count(offset, joints, f"{where}.offset")
    values["action_scale"] = scale
    if not np.allclose(offset, values["default_position"], rtol=0.0, atol=1e-6):
        raise UserError(
            f"{where}.offset: differs from default_joint_pos; only actions around the default pose are imported"
        )
    if action.clip is None:
        return None
    limit = _finite(action.clip, f"{where}.clip")
    _check_count(limit, joints, f"{where}.clip")
    return limit


def _network(deploy: _Deploy, joints: int, where: str) -> ObservationNetwork:
    flags = {"scale_first": False, "use_gym_history": False}
    terms = []
    for name, content in deploy.observations.items():
        if name in flags:
            if not isinstance(content, bool):
                raise UserError(f"{where}: observations.{name}: expected true or false, found {content!r}")
            flags[name] = content
        else:
            terms.append(_term(name, content, joints, where))
    if not terms:
        raise UserError(f"{where}: observations: there are no terms")
    if flags["use_gym_history"] and len({term.history for term in terms}) > 1:
        raise UserError(f"{where}: observations: use_gym_history needs one history_length for all terms")
    return ObservationNetwork(tuple(terms), flags["use_gym_history"], flags["scale_first"])


def _term(name: str, content: Any, joints: int, where: str) -> Term:
    quantity = quantity_of(name, _TERMS, where)
    where = f"{where}: observations.{name}"
    spec = load_dataclass(_Observation, content, where)
    if spec.history_length < 1:
        raise UserError(f"{where}.history_length: must be at least 1, not {spec.history_length}")
    size = joints if quantity in PER_JOINT else _SIZES.get(quantity, 3)
    scale = _finite(spec.scale if spec.scale is not None else (1.0,) * size, f"{where}.scale")
    _check_count(scale, size, f"{where}.scale")
    params = dict(spec.params or {})
    params.pop("command_name", None)
    asset = params.pop("asset_cfg", None) or {}
    selected = as_mapping(f"{where}.params.asset_cfg", asset).get("joint_ids")
    if selected not in (None, [], list(range(joints))):
        raise UserError(f"{where}.params: selects some joints, which is not imported")
    period = 0.0
    if quantity == GAIT_PHASE:
        if "period" not in params:
            raise UserError(f"{where}.params: missing key 'period'")
        period = as_number(f"{where}.params.period", params.pop("period"))
        if period <= 0.0:
            raise UserError(f"{where}.params.period: must be positive, not {period:g}")
    for key in params:
        raise UserError(f"{where}.params: unknown key '{key}'")
    clip = None if spec.clip is None else as_range(f"{where}.clip", spec.clip, as_bound)
    return Term(name, quantity, tuple(scale.tolist()), clip, spec.history_length, period)


def _ranges(deploy: _Deploy, answers: Answers) -> np.ndarray | None:
    command = deploy.commands.get("base_velocity")
    if command is None:
        return answers.get("command_range", command_range)
    answers.known("command_range", "deploy.yaml")
    told = {ours: list(getattr(command.ranges, theirs)) for theirs, ours in _RANGES.items()}
    return command_range("deploy.yaml: commands.base_velocity.ranges", told)


def _finite(numbers: Any, where: str) -> np.ndarray:
    array = np.array(numbers, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{where}: has a number that is not finite")
    return array


def _check_count(array: np.ndarray, count: int, where: str) -> None:
    if len(array) != count:
        raise UserError(f"{where}: has {len(array)} entries instead of {count}")
