"""What the user tells about a foreign policy with --set: only what its own files leave open, and never a default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import UserError, nearest
from ..typed_yaml import parse_yaml

T = TypeVar("T")

#: What an import has to know -> what to give.
QUESTIONS: Mapping[str, str] = {
    "robot": "name in config/robot",
    "variant": "variant of that robot whose description the training's model equals",
    "mode_machine": "'robot' or a list: the LowState.mode_machine it may drive",
    "joint_names": "list in the network's order",
    "default_position": "'robot', a number or {joint: number}, rad",
    "stiffness": "a number or {joint: number}, Nm/rad",
    "damping": "a number or {joint: number}, Nm s/rad",
    "effort_limit": "'robot', a number or {joint: number}, Nm, as in training",
    "velocity_limit": "'robot', a number or {joint: number}, rad/s, as in training",
    "position_limit": "'robot' or {joint: [lower, upper]}, rad",
    "action_scale": "a number or {joint: number}, rad",
    "control_period": "seconds per policy step",
    "command_names": "list of the commands' terms",
    "command_range": "{vx: [lower, upper], vy: [...], yaw_rate: [...]}, m/s and rad/s",
    "observation_names": "list of the terms in their order",
    "observation_scale": "a number for all terms, or {term: number}, 1 for those not named",
    "observation_clip": "'none' or {term: [lower, upper]}, before scaling",
    "observation_history": "frames of every term",
    "action_clip": "'none' or the training's bound of |action|",
}

#: What the training record takes in addition; "unknown" where it is left out.
RECORD: Mapping[str, str] = {
    "name": "the policy's name (default: the output's)",
    "task": "name of the task it was trained on",
    "simulator": "simulator it was trained in",
    "seed": "seed of the training",
    "steps": "environment steps of the training",
    "git_revision": "revision of the code that trained it",
}


class Answers:
    """The user's answers, and the list of what is still open.

    Readers ask with `get`; a question without an answer is noted and None is returned, so that one message can
    name all of them at the end (`refuse_gaps`).
    """

    def __init__(self, settings: Sequence[str]) -> None:
        """settings: KEY=VALUE each, the value in YAML.

        Raises:
            UserError: a word that is no KEY=VALUE, an unknown key, or one that is given twice.
        """
        self._values: dict[str, Any] = {}
        self._open: list[str] = []
        self._unused: set[str] = set()
        #: Key -> where its value came from; goes into the training record.
        self.sources: dict[str, str] = {}
        known = [*QUESTIONS, *RECORD]
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals or not text.strip():
                raise UserError(f"--set {setting}: expected KEY=VALUE")
            if key not in known:
                hint = nearest(key, known) or f" (known: {', '.join(known)})"
                raise UserError(f"--set {key}: unknown key{hint}")
            if key in self._values:
                raise UserError(f"--set {key}: given twice")
            self._values[key] = parse_yaml(f"value: {text}", f"--set {key}").get("value")
            self._unused.add(key)

    def get(self, key: str, parse: Callable[[str, Any], T]) -> T | None:
        """The answer to a question, parsed, or None after it was noted as open.

        parse: (what messages call it, value as YAML gave it) -> value, or a UserError.
        """
        if key not in self._values:
            self._open.append(key)
            return None
        return self.optional(key, parse)

    def optional(self, key: str, parse: Callable[[str, Any], T]) -> T | None:
        """As `get`, for what may stay unknown."""
        if key not in self._values:
            return None
        self._unused.discard(key)
        self.sources[key] = "--set"
        return parse(f"--set {key}", self._values[key])

    def known(self, key: str, source: str) -> None:
        """Note that the policy's own files told it."""
        self.sources[key] = source

    def refuse_gaps(self, what: str) -> None:
        """Raise UserError for all questions that are open, or for answers to questions nobody asked."""
        if self._open:
            gaps = "; ".join(f"{key} ({QUESTIONS[key]})" for key in dict.fromkeys(self._open))
            raise UserError(
                f"{what} leave open what the contract needs; give it with --set KEY=VALUE: {gaps}"
            )
        for key in sorted(self._unused):
            told = self.sources.get(key)
            reason = f"{told} tells it" if told else f"{what} have no use for it"
            raise UserError(f"--set {key}: {reason}; leave it out")


def as_it_is(where: str, value: Any) -> Any:
    """The value as YAML gave it, for questions whose answer is parsed once everything is known."""
    return value


def as_number(where: str, value: Any) -> float:
    """A finite number.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, found {value!r}")
    return float(value)


def as_positive(where: str, value: Any) -> float:
    """A finite number above 0. Raises UserError."""
    number = as_number(where, value)
    if number <= 0.0:
        raise UserError(f"{where}: must be above 0, not {number:g}")
    return number


def as_bound(where: str, value: Any) -> float:
    """A number, which may be infinite: no bound. Raises UserError."""
    return value if isinstance(value, float) and math.isinf(value) else as_number(where, value)


def as_integer(where: str, value: Any) -> int:
    """A whole number; 1e6 is one. Raises UserError."""
    number = as_number(where, value)
    if not number.is_integer():
        raise UserError(f"{where}: expected a whole number, found {value!r}")
    return int(number)


def as_count(where: str, value: Any) -> int:
    """A whole number above 0. Raises UserError."""
    as_positive(where, value)
    return as_integer(where, value)


def as_text(where: str, value: Any) -> str:
    """Text that is not empty; a number is taken as it is written. Raises UserError."""
    if isinstance(value, bool | list | dict) or value is None or not str(value).strip():
        raise UserError(f"{where}: expected text, found {value!r}")
    return str(value)


def as_names(where: str, value: Any) -> tuple[str, ...]:
    """A list of names. Raises UserError."""
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list of names, found {value!r}")
    return tuple(as_text(where, item) for item in value)


def as_mapping(where: str, value: Any) -> Mapping[Any, Any]:
    """Keys and their values. Raises UserError."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected 'key: value' lines, found {value!r}")
    return value


def as_range(where: str, value: Any, bound: Callable[[str, Any], float] = as_number) -> tuple[float, float]:
    """[lower, upper]; bound: what either may be. Raises UserError."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"{where}: expected [lower, upper], found {value!r}")
    lower, upper = bound(where, value[0]), bound(where, value[1])
    if lower > upper:
        raise UserError(f"{where}: the lower bound {lower:g} is above the upper one {upper:g}")
    return lower, upper
