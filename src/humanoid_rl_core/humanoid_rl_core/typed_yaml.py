"""YAML into frozen dataclasses, strictly: configuration is checked where it enters the program."""

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from .errors import UserError, nearest

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads 1e-3 and -.5 as numbers (to YAML 1.1 they are text)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key '{key.value}'", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        UserError: the file is missing, unreadable, no valid YAML, has a duplicate key or no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """`load_yaml` for text; where is the file the messages name."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}{line}: not valid YAML: {problem}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected 'key: value' lines, found a {type(data).__name__}")
    return data


class PositiveNumbers:
    """Base of a dataclass whose numbers, those in its mappings too, are finite and above zero; a bool is no number.

    Raises:
        ValueError: one is not; `load_dataclass` makes it a UserError.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            named = value.items() if isinstance(value, Mapping) else [("", value)]
            for name, number in named:
                is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
                if is_number and not (math.isfinite(number) and number > 0):
                    key = f"{field.name}.{name}" if name else field.name
                    raise ValueError(f"{key} must be a positive number, found {number}")


def load_dataclass(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Build a (nested) dataclass from plain YAML data, checking every key and every type.

    Understands dataclasses, bool, int, float (an int is taken), str, Path, Literal, enums (by value),
    X | None, unions, list, tuple, Sequence, dict and Mapping of these, and Any. Fields without a default
    are required. A ValueError raised by a dataclass's own __post_init__ becomes a UserError.

    Args:
        cls: the dataclass to build.
        mapping: what YAML gave.
        where: the file (or other source) named by the messages.

    Raises:
        UserError: an unknown key (the message has the nearest valid one), a missing key or a wrong type.
    """
    return _dataclass(cls, mapping, where, "")


def _fail(where: str, key: str, problem: str) -> UserError:
    return UserError(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")


def _dataclass(cls: Any, value: Any, where: str, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise _fail(where, key, f"expected keys of {cls.__name__}, found {_show(value)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            raise _fail(where, "", f"unknown key '{prefix}{name}'{_nearest_or_list(name, fields)}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _value(hints[name], value[name], where, prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _fail(where, "", f"missing key '{prefix}{name}'")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise _fail(where, key, str(error)) from None


def _nearest_or_list(name: Any, known: Iterable[str]) -> str:
    return nearest(str(name), known) or f" (known: {', '.join(known)})"


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        known = [str(choice) for choice in args]
        raise _fail(where, key, f"'{value}' is not one of {', '.join(known)}{nearest(str(value), known)}")
    if origin in (Union, types.UnionType):
        return _union(args, value, where, key)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, key)
    if origin in (list, tuple, Sequence):
        return _sequence(origin, args, value, where, key)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _fail(where, key, f"expected 'key: value' lines, found {_show(value)}")
        return {
            _value(args[0], k, where, f"{key}.{k}"): _value(args[1], v, where, f"{key}.{k}")
            for k, v in value.items()
        }
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        for member in hint:
            if member.value == value:
                return member
        known = [str(member.value) for member in hint]
        raise _fail(where, key, f"'{value}' is not one of {', '.join(known)}{nearest(str(value), known)}")
    return _scalar(hint, value, where, key)


def _union(args: tuple[Any, ...], value: Any, where: str, key: str) -> Any:
    if value is None and type(None) in args:
        return None
    # An exact scalar match first, so that int | float keeps an int.
    if type(value) in args:
        return value
    errors = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _value(arg, value, where, key)
        except UserError as error:
            errors.append(error)
    # With one alternative its own message is the best one, e.g. that of a nested key.
    if len(errors) == 1:
        raise errors[0]
    names = " or ".join(getattr(arg, "__name__", str(arg)) for arg in args)
    raise _fail(where, key, f"expected {names}, found {_show(value)}")


def _sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str, key: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _fail(where, key, f"expected a list, found {_show(value)}")
    if origin is tuple and Ellipsis not in args:
        if len(value) != len(args):
            raise _fail(where, key, f"expected {len(args)} values, found {len(value)}")
        return tuple(
            _value(a, v, where, f"{key}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    items = [_value(args[0], v, where, f"{key}[{i}]") for i, v in enumerate(value)]
    return items if origin is list else tuple(items)


def _scalar(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isnan(value):
                raise _fail(where, key, "expected a number, found nan")
            return float(value)
        raise _fail(where, key, f"expected a number, found {_show(value)}")
    if hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        # 1e6 is the natural way to write a number of steps.
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise _fail(where, key, f"expected an integer, found {_show(value)}")
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise _fail(where, key, f"expected true or false, found {_show(value)}")
    if hint is str:
        if isinstance(value, str):
            return value
        raise _fail(where, key, f"expected text, found {_show(value)}")
    if hint is Path:
        if isinstance(value, str):
            return Path(value)
        raise _fail(where, key, f"expected a path, found {_show(value)}")
    raise TypeError(f"{where}: {key}: a field of type {hint} cannot be loaded from YAML")
