"""Configuration files: every mistake is one line that names file, key and remedy."""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from humanoid_rl_core.errors import UserError, nearest
from humanoid_rl_core.typed_yaml import PositiveNumbers, load_dataclass, load_yaml, parse_yaml


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    gain: float
    steps: int = 3


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    items: tuple[Inner, ...] = ()
    table: Mapping[str, float] = field(default_factory=dict)
    nested: Mapping[str, Inner] = field(default_factory=dict)
    bounds: tuple[float, float] = (0.0, 1.0)
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    limit: float | None = None
    path: Path | None = None
    colour: Colour = Colour.RED
    numbers: Sequence[int] = ()
    listed: list[str] = field(default_factory=list)
    ratio: int | float = 1
    free: Any = None

    def __post_init__(self) -> None:
        if self.bounds[0] > self.bounds[1]:
            raise ValueError("bounds must ascend")


@dataclass(frozen=True)
class Limits(PositiveNumbers):
    rate: float = 1.0
    misses: int = 1
    by_name: Mapping[str, float] = field(default_factory=dict)
    required: bool = False
    ignored: tuple[str, ...] = ()


def load(text: str) -> Outer:
    return load_dataclass(Outer, parse_yaml(text, "file.yaml"), "file.yaml")


def test_nested_values_get_their_types():
    outer = load(
        """
name: a
inner: {gain: 2, steps: 1e6}
items: [{gain: 1e-3}, {gain: -.5, steps: 7}]
table: {x: 1, y: 2.5}
nested: {k: {gain: 4}}
bounds: [-1, 1]
mode: slow
flag: true
limit: null
path: some/file
colour: blue
numbers: [1, 2]
listed: [a, b]
ratio: 0.5
free: {anything: [1]}
"""
    )
    assert outer == Outer(
        name="a",
        inner=Inner(2.0, 1_000_000),
        items=(Inner(1e-3), Inner(-0.5, 7)),
        table={"x": 1.0, "y": 2.5},
        nested={"k": Inner(4.0)},
        bounds=(-1.0, 1.0),
        mode="slow",
        flag=True,
        path=Path("some/file"),
        colour=Colour.BLUE,
        numbers=(1, 2),
        listed=["a", "b"],
        ratio=0.5,
        free={"anything": [1]},
    )
    assert isinstance(outer.inner.gain, float)
    assert isinstance(outer.inner.steps, int)


MISTAKES = [
    ("nam: a\ninner: {gain: 1}", "unknown key 'nam', did you mean 'name'?"),
    ("name: a\ninner: {gain: 1, stpes: 2}", "unknown key 'inner.stpes', did you mean 'steps'?"),
    ("name: a\ninner: {gain: 1, zzz: 2}", "unknown key 'inner.zzz' (known: gain, steps)"),
    (
        "name: a\ninner: {gain: 1}\nitems: [{gain: 1}, {gan: 1}]",
        "unknown key 'items[1].gan', did you mean 'gain'",
    ),
    ("name: a\ninner: {}", "missing key 'inner.gain'"),
    ("name: a", "missing key 'inner'"),
    ("name: a\ninner: {gain: fast}", "inner.gain: expected a number, found 'fast' (str)"),
    ("name: a\ninner: {gain: true}", "inner.gain: expected a number, found True (bool)"),
    ("name: a\ninner: {gain: .nan}", "inner.gain: expected a number, found nan"),
    ("name: a\ninner: {gain: 1, steps: 1.5}", "inner.steps: expected an integer, found 1.5"),
    ("name: 3\ninner: {gain: 1}", "name: expected text, found 3 (int)"),
    ("name: a\ninner: 5", "inner: expected keys of Inner, found 5 (int)"),
    ("name: a\ninner: {gain: 1}\nflag: 1", "flag: expected true or false, found 1 (int)"),
    ("name: a\ninner: {gain: 1}\nmode: fats", "mode: 'fats' is not one of fast, slow, did you mean 'fast'?"),
    ("name: a\ninner: {gain: 1}\ncolour: green", "colour: 'green' is not one of red, blue"),
    ("name: a\ninner: {gain: 1}\nbounds: [1]", "bounds: expected 2 values, found 1"),
    ("name: a\ninner: {gain: 1}\nbounds: 1", "bounds: expected a list, found 1 (int)"),
    ("name: a\ninner: {gain: 1}\nbounds: [2, 1]", "bounds must ascend"),
    ("name: a\ninner: {gain: 1}\ntable: [1]", "table: expected 'key: value' lines, found [1] (list)"),
    ("name: a\ninner: {gain: 1}\ntable: {x: y}", "table.x: expected a number, found 'y' (str)"),
    ("name: a\ninner: {gain: 1}\nlimit: high", "limit: expected a number, found 'high' (str)"),
    ("name: a\ninner: {gain: 1}\nratio: x", "ratio: expected int or float, found 'x' (str)"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_name_file_key_and_remedy(text, message):
    with pytest.raises(UserError) as error:
        load(text)
    assert str(error.value).startswith("file.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_configuration_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(UserError, match="no such file"):
        load_yaml(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_yaml(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read|not valid YAML"):
        load_yaml(path)
    path.write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=r"c.yaml:2: not valid YAML"):
        load_yaml(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="found a list"):
        load_yaml(path)
    path.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(UserError, match=r"c.yaml:3: .*duplicate key 'a'"):
        load_yaml(path)
    path.write_text("")
    assert load_yaml(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 0", "rate must be a positive number, found 0.0"),
        ("rate: .inf", "rate must be a positive number, found inf"),
        ("misses: -1", "misses must be a positive number, found -1"),
        ("by_name: {vx: 1, vy: -2}", "by_name.vy must be a positive number, found -2.0"),
    ],
)
def test_a_number_that_must_be_positive_is_refused_by_name(text, message):
    with pytest.raises(UserError, match=rf"^f: {re.escape(message)}$"):
        load_dataclass(Limits, parse_yaml(text, "f"), "f")


def test_false_is_no_number_that_must_be_positive():
    limits = load_dataclass(
        Limits, parse_yaml("{rate: 2, by_name: {vx: 1}, required: false, ignored: [a]}", "f"), "f"
    )
    assert limits == Limits(rate=2.0, by_name={"vx": 1.0}, ignored=("a",))


def test_yaml_cannot_run_code():
    with pytest.raises(UserError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.system ['true']", "f")


def test_every_usual_way_to_write_a_number_is_one():
    assert parse_yaml("a: 1e-3\nb: -2E6\nc: 1.5e3\nd: 0x10\ne: e5\nf: -.5\ng: 12", "f") == {
        "a": 1e-3,
        "b": -2e6,
        "c": 1500.0,
        "d": 16,
        "e": "e5",
        "f": -0.5,
        "g": 12,
    }


def test_far_names_get_no_suggestion():
    assert nearest("xyz", ["stand", "walk"]) == ""
    assert nearest("stad", ["stand", "walk"]) == ", did you mean 'stand'?"
