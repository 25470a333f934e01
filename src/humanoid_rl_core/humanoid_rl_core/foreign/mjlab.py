"""Policies of mjlab and unitree_rl_mjlab: an ONNX file with metadata.

Facts, from mjlab's `rl/exporter_utils.py` and `managers/observation_manager.py` (mujocolab/mjlab) and the same files
of unitreerobotics/unitree_rl_mjlab:

- metadata keys run_path, joint_names, joint_stiffness, joint_damping, default_joint_pos, command_names,
  observation_names, action_scale; lists are comma-separated, numbers rounded to three decimals;
- every per-joint list is in the order of joint_names; action 0 asks for default_joint_pos (use_default_offset);
- observation_names are the names of terms in the task's configuration, in the order of concatenation. Those of the
  velocity task are base_ang_vel, projected_gravity, joint_pos (relative to the default), joint_vel (likewise; the
  default velocity is zero), actions (the last one, not scaled) and command; older releases have base_lin_vel too;
- an observation is clipped, then scaled, and then the frames of each term stand together, oldest first; a history is
  filled with the first observation of an episode;
- observation statistics are inside the network.

The metadata tell neither scale, clip and history of the observation nor period, command ranges and limits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import UserError, nearest
from .answers import Answers, as_count, as_it_is, as_names, as_number, as_positive, as_range
from .description import PER_JOINT, VELOCITY_COMMANDS, ForeignPolicy, ObservationNetwork, Term, quantity_of
from .network_shape import check_sizes, graph_inputs, width
from .ranges import command_range
from .source import ForeignFiles

_TERMS = {
    "base_ang_vel": "base_ang_vel",
    "projected_gravity": "projected_gravity",
    "command": "command",
    "joint_pos": "joint_pos_rel",
    "joint_vel": "joint_vel",
    "actions": "last_action",
}
#: Names of the velocity command's term in mjlab's tasks.
_VELOCITY = ("twist", "base_velocity")
#: Contract field -> metadata key.
_VALUES = {
    "stiffness": "joint_stiffness",
    "damping": "joint_damping",
    "default_position": "default_joint_pos",
    "action_scale": "action_scale",
}


def read(files: ForeignFiles, answers: Answers) -> ForeignPolicy:
    """The policy that an ONNX file with mjlab's metadata describes.

    Raises:
        UserError: something is open, unknown, or contradicts the network.
    """
    joints = _names(files, answers, "joint_names")
    terms = _names(files, answers, "observation_names")
    commands = _names(files, answers, "command_names")
    for term in terms or ():
        quantity_of(term, _TERMS, str(files.path))
    values = {}
    for key, metadata_key in _VALUES.items():
        if metadata_key in files.metadata:
            answers.known(key, "metadata")
            values[key] = _numbers(files, metadata_key, joints)
        else:
            answers.get(key, as_it_is)
    period = answers.get("control_period", as_positive)
    ranges = answers.get("command_range", command_range) if commands != () else np.zeros((0, 2))
    scale = answers.get("observation_scale", as_it_is)
    clip = answers.get("observation_clip", as_it_is)
    action_clip = answers.get("action_clip", _bound)
    history = _history(files, answers, joints, terms)
    answers.refuse_gaps(f"{files.path}: mjlab's metadata")
    assert joints is not None and terms is not None and commands is not None and ranges is not None
    assert period is not None and history is not None

    if "command" in terms and (len(commands) != 1 or commands[0] not in _VELOCITY):
        raise UserError(
            f"{files.path}: the command is {', '.join(commands) or 'nothing'}"
            f"{nearest(commands[0], _VELOCITY) if commands else ''}, but only a velocity command (twist) can be given"
        )
    scales = _per_term("--set observation_scale", scale, terms, as_number, 1.0)
    clips = _per_term("--set observation_clip", None if clip == "none" else clip, terms, as_range, None)
    network = ObservationNetwork(
        terms=tuple(
            Term(
                name,
                _TERMS[name],
                (scales[name],) * (len(joints) if _TERMS[name] in PER_JOINT else 3),
                clips[name],
                history,
            )
            for name in terms
        ),
        action_clip=action_clip,
    )
    observation = sum(len(term.scale) * term.history for term in network.terms)
    check_sizes(files.model, observation, len(joints))
    commanded = "command" in terms
    return ForeignPolicy(
        network=network,
        joints=joints,
        command_names=VELOCITY_COMMANDS if commanded else (),
        command_range=ranges if commanded else np.zeros((0, 2)),
        control_period=period,
        values=values,
    )


def _names(files: ForeignFiles, answers: Answers, key: str) -> tuple[str, ...] | None:
    text = files.metadata.get(key)
    if text is None:
        where, names = f"--set {key}:", answers.get(key, as_names)
    else:
        answers.known(key, "metadata")
        where = f"{files.path}: metadata '{key}'"
        names = tuple(name.strip() for name in text.split(",") if name.strip())
    # A policy without commands is one; without joints or observations it is none.
    if names == () and key != "command_names":
        raise UserError(f"{where} names nothing")
    return names


def _numbers(files: ForeignFiles, key: str, joints: tuple[str, ...] | None) -> np.ndarray:
    """A metadata list as [n]; one number stands for all joints."""
    words = files.metadata[key].split(",")
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise UserError(f"{files.path}: metadata '{key}' is no list of numbers") from None
    if joints is None:
        return numbers
    if len(numbers) == 1 and key == "action_scale":
        numbers = np.repeat(numbers, len(joints))
    if len(numbers) != len(joints):
        raise UserError(f"{files.path}: metadata '{key}' has {len(numbers)} numbers for {len(joints)} joints")
    for name, number in zip(joints, numbers, strict=True):
        if not math.isfinite(number):
            raise UserError(f"{files.path}: metadata '{key}' of '{name}' is {number}, not a finite number")
    return numbers


def _history(
    files: ForeignFiles, answers: Answers, joints: tuple[str, ...] | None, terms: tuple[str, ...] | None
) -> int | None:
    """Frames of every term; the network's input proves that it is one, and nothing else proves another number."""
    inputs = graph_inputs(files.model)
    if joints and terms and len(inputs) == 1:
        frame = sum(len(joints) if _TERMS[term] in PER_JOINT else 3 for term in terms)
        if width(inputs[0]) == frame:
            answers.known("observation_history", "size of the network's input")
            return 1
    return answers.get("observation_history", as_count)


def _bound(where: str, value: Any) -> float | None:
    return None if value == "none" else as_positive(where, value)


def _per_term(where: str, value: Any, terms: tuple[str, ...], parse: Any, default: Any) -> dict[str, Any]:
    """Term -> parsed value; one value that is no mapping is every term's."""
    if value is None:
        return dict.fromkeys(terms, default)
    if not isinstance(value, dict):
        return dict.fromkeys(terms, parse(where, value))
    for name in value:
        if name not in terms:
            raise UserError(
                f"{where}: the policy has no observation term '{name}'{nearest(str(name), terms)}"
            )
    return {name: parse(where, value[name]) if name in value else default for name in terms}
