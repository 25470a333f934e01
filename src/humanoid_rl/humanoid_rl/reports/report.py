"""report.html of a run: what was trained, what it survives, how it ran when deployed. One file, no network.

Reads from the run directory, each when it is there: config.yaml, progress.csv, evaluations.csv,
evaluation.json, deployment.json, policy.onnx. What is missing is said to be missing.
"""

from __future__ import annotations

import csv
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from humanoid_rl_core.contract import METADATA_KEY, PolicyContract
from humanoid_rl_core.errors import UserError
from numpy.typing import NDArray

from humanoid_rl.reports import report_plots
from humanoid_rl.reports.report_page import (
    as_text,
    caption,
    img,
    percent,
    section,
    table,
    tile,
    whole_page,
    write_page,
)
from humanoid_rl.reports.report_plots import wilson_interval

Array = NDArray[np.float64]
Document = dict[str, Any]
_LEG_AND_WAIST = ("hip", "knee", "ankle", "waist")
_DEFAULT_PERIOD = 0.02  # s, the contract's control period where there is no contract to ask


@dataclass(frozen=True)
class _Run:
    """The files of a run as read; None or empty where there is none."""

    directory: Path
    config: str | None
    progress: dict[str, Array]
    evaluations: dict[str, Array]
    evaluation: Document | None
    deployment: Document | None
    contract: PolicyContract | None
    policy_sha256: str


def write_report(run_dir: Path | str) -> Path:
    """Writes RUN_DIR/report.html, whole or not at all, and returns its path.

    Raises:
        UserError: there is no such directory, a file in it is not what it should be, or it cannot be written.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run directory")
    return write_page(run_dir / "report.html", _page(_read_run(run_dir)))


# -- reading ----------------------------------------------------------------------------------------------


def _read_run(run_dir: Path) -> _Run:
    policy = run_dir / "policy.onnx"
    return _Run(
        run_dir,
        _read_text(run_dir / "config.yaml"),
        _read_table(run_dir / "progress.csv"),
        _read_table(run_dir / "evaluations.csv"),
        _read_json(run_dir / "evaluation.json"),
        _read_json(run_dir / "deployment.json"),
        _read_contract(policy),
        hashlib.sha256(policy.read_bytes()).hexdigest() if policy.is_file() else "",
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _read_table(path: Path) -> dict[str, Array]:
    """Numeric columns of a CSV with a header, [rows] each; {} when there is no file or no row."""
    text = _read_text(path)
    if text is None:
        return {}
    rows = list(csv.reader(text.splitlines()))
    if len(rows) < 2:
        return {}
    header = rows[0]
    if "steps" not in header:
        raise UserError(f"{path}: no column 'steps' (columns: {', '.join(header)})")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UserError(f"{path}: line {number} has {len(row)} fields, the header {len(header)}")
    try:
        table = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows[1:]])
    except ValueError as error:
        raise UserError(f"{path}: not a table of numbers ({error})") from None
    return {name: table[:, i] for i, name in enumerate(header)}


def _read_json(path: Path) -> Document | None:
    text = _read_text(path)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not valid JSON (line {error.lineno}: {error.msg}); write it again"
        ) from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _read_contract(path: Path) -> PolicyContract | None:
    if not path.is_file():
        return None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise UserError(f"{path}: not an ONNX file ({error})") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise UserError(f"{path}: no policy contract in its metadata; export it with humanoid-rl export")
    try:
        return PolicyContract.from_json(metadata[METADATA_KEY])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _field(document: Mapping[str, Any], key: str, where: Path) -> Any:
    """A value of a document by 'outer.inner' key."""
    value: Any = document
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"{where}: '{key}' is missing")
        value = value[part]
    return value


def _number(document: Mapping[str, Any], key: str, where: Path) -> float:
    value = _field(document, key, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: '{key}' is {value!r}, expected a number")
    return float(value)


def _share(document: Mapping[str, Any], key: str, where: Path) -> float:
    value = _number(document, key, where)
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{where}: '{key}' is {value}, expected 0..1")
    return value


def _array(document: Mapping[str, Any], key: str, where: Path, shape: Sequence[int | None]) -> Array:
    """Numbers of that shape (None: any length); null becomes NaN."""
    try:
        array = np.array(_field(document, key, where), dtype=float)
    except (TypeError, ValueError):
        raise UserError(f"{where}: '{key}' is not an array of numbers") from None
    if array.size == 0:
        array = array.reshape([0 if n is None else n for n in shape])
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = "x".join("n" if n is None else str(n) for n in shape)
        raise UserError(
            f"{where}: '{key}' has the shape {'x'.join(map(str, array.shape))}, expected {wanted}"
        )
    return array


# -- the page ---------------------------------------------------------------------------------------------


def _missing(title: str, file: str, remedy: str) -> str:
    return section(title, f'<p class="missing">{html.escape(file)} is missing: {html.escape(remedy)}</p>')


def _thousands(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _interval(share: float, trials: int) -> str:
    low, high = wilson_interval(share * trials, trials)
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _page(run: _Run) -> str:
    name = run.directory.resolve().name
    sections = [
        _training(run),
        _evaluation(run),
        *_deployment(run),
        _provenance(run),
    ]
    task = run.contract.training.task if run.contract else (run.evaluation or {}).get("task", "")
    subtitle = f"{run.contract.robot} {run.contract.variant}, task {task}" if run.contract else str(task)
    return whole_page(f"{name}: report", subtitle, _tiles(run), sections, heading=name)


def _tiles(run: _Run) -> list[str]:
    tiles = []
    file = run.directory / "evaluation.json"
    if run.evaluation is not None and _kind(run) == "push":
        policy = _share(run.evaluation, "policy.survival", file)
        baseline = _share(run.evaluation, "baseline.survival", file)
        episodes = int(_number(run.evaluation, "episodes", file))
        push = _number(run.evaluation, "push_half_mps", file)
        gain = 100 * (policy - baseline)
        tiles.append(
            tile(
                f"pushes of {push:.2f} m/s survived",
                percent(policy),
                f"{_interval(policy, episodes)} (95 %), {episodes} episodes",
            )
        )
        tiles.append(tile("without policy", percent(baseline), f"{_interval(baseline, episodes)} (95 %)"))
        tiles.append(tile("gained by the policy", f"{gain:+.0f} points", "", "good" if gain > 0 else "bad"))
    elif run.evaluation is not None:
        tiles.append(tile("commands followed", percent(_share(run.evaluation, "success", file))))
    if run.deployment is not None:
        file = run.directory / "deployment.json"
        survived = bool(_field(run.deployment, "survived", file))
        failure = str(run.deployment.get("failure") or "")
        pushed = _push_speed(run.deployment, file)
        tiles.append(
            tile(
                "deployed over ROS 2" + (f", pushed {pushed:.2f} m/s" if pushed else ""),
                "stayed up" if survived else "fell",
                failure,
                "good" if survived else "bad",
            )
        )
        latency = _array(run.deployment, "tick_latency_s", file, [None])
        if len(latency):
            tiles.append(
                tile(
                    "policy tick p99",
                    f"{1e3 * np.quantile(latency, 0.99):.2f} ms",
                    f"p50 {1e3 * np.median(latency):.2f}, max {1e3 * latency.max():.2f} ms; "
                    f"{_thousands(len(latency))} ticks",
                )
            )
    if run.progress:
        steps = run.progress["steps"][-1]
        seconds = run.progress.get("time_s")
        note = ""
        if seconds is not None and seconds[-1] > 0:
            note = f"{_duration(float(seconds[-1]))}, {_thousands(steps / seconds[-1])} steps/s"
        tiles.append(tile("trained", f"{steps / 1e6:.2f} M steps", note))
    return tiles


def _kind(run: _Run) -> str:
    return str((run.evaluation or {}).get("kind", "push"))


def _push_speed(deployment: Document, file: Path) -> float:
    """Size of the push in m/s: push_velocity is the vector, or already its length."""
    push = np.atleast_1d(np.array(_field(deployment, "push_velocity", file), dtype=float))
    return float(np.linalg.norm(push))


def _training(run: _Run) -> str:
    title = "Learning curve"
    if not run.progress and not run.evaluations:
        return _missing(title, "progress.csv", "this run was not trained here, or has not finished an update")
    image = report_plots.learning_curves(run.progress, run.evaluations)
    note = "Faint: each update; bold: moving mean." if run.progress else ""
    if not run.progress:
        note = "progress.csv is missing: only the periodic evaluations are shown."
    elif not run.evaluations:
        note += " evaluations.csv is missing: no periodic evaluation is shown."
    return section(title, img(image, title), caption(note))


def _evaluation(run: _Run) -> str:
    if run.evaluation is None:
        return _missing("Evaluation", "evaluation.json", "make it with humanoid-rl evaluate")
    file = run.directory / "evaluation.json"
    if _kind(run) != "push":
        numbers = [
            [key.replace("_", " "), as_text(value)]
            for key, value in run.evaluation.items()
            if value is None or isinstance(value, str | int | float)
        ]
        return section("Evaluation", table(numbers))
    sweep = _field(run.evaluation, "sweep", file)
    if not isinstance(sweep, list) or not all(isinstance(row, dict) for row in sweep):
        raise UserError(f"{file}: 'sweep' is not a list of objects")
    rows = [
        {
            "push_mps": _number(row, "push_mps", file),
            "episodes": _number(row, "episodes", file),
            "policy": _share(row, "policy", file),
            "baseline": _share(row, "baseline", file),
        }
        for row in sweep
    ]
    episodes = int(_number(run.evaluation, "episodes", file))
    trial = {
        "push_mps": _number(run.evaluation, "push_half_mps", file),
        "episodes": float(episodes),
        "policy": _share(run.evaluation, "policy.survival", file),
        "baseline": _share(run.evaluation, "baseline.survival", file),
    }
    swept = f"{int(rows[0]['episodes'])} episodes a point, " if rows else ""
    return section(
        "Push survival with and without policy",
        img(report_plots.push_survival(rows, trial), "push survival"),
        caption(
            f"{swept}bands and bars: 95 % Wilson intervals. Diamonds: {episodes} episodes with the same "
            f"pushes for both, of the size at which the baseline falls about half the time. Seed "
            f"{run.evaluation.get('seed', '?')}, in {run.evaluation.get('simulator', 'mujoco')}."
        ),
    )


def _deployment(run: _Run) -> list[str]:
    if run.deployment is None:
        return [_missing("Deployment over ROS 2", "deployment.json", "make it with humanoid-rl deploy")]
    file = run.directory / "deployment.json"
    document = run.deployment
    names = [str(name) for name in _field(document, "joint_names", file)]
    time = _array(document, "time_s", file, [None])
    shape = [len(time), len(names)]
    position = _array(document, "joint_pos", file, shape)
    target = _array(document, "joint_target", file, shape)
    height = _array(document, "base_height_m", file, [len(time)])
    tilt = _array(document, "base_tilt_rad", file, [len(time)])
    events = _events(document, file)
    marks = [(when, name) for when, name, _ in events if name in report_plots.EVENT_COLOUR]
    parts = [_timing(run, document, file)]
    if len(time):
        image = report_plots.base_motion(time, height, tilt, marks)
        parts.append(
            section(
                "Base height and tilt in the deployment",
                img(image, "base height and tilt"),
                _event_table(events),
            )
        )
        parts.append(_joints(time, names, position, target, marks))
    else:
        parts.append(section("Deployment traces", '<p class="missing">deployment.json holds no samples</p>'))
    return parts


def _events(document: Document, file: Path) -> list[tuple[float, str, str]]:
    """Time in s, name, details of each event."""
    listed = _field(document, "events", file)
    if not isinstance(listed, list) or not all(isinstance(event, dict) for event in listed):
        raise UserError(f"{file}: 'events' is not a list of objects")
    return [
        (
            _number(event, "time", file),
            str(_field(event, "name", file)),
            ", ".join(
                f"{key} {value}"
                for key, value in event.items()
                if key not in ("time", "name") and value != ""
            ),
        )
        for event in listed
    ]


def _event_table(events: Sequence[tuple[float, str, str]]) -> str:
    rows = [[f"{when:.2f}", name.replace("_", " "), details] for when, name, details in events]
    return f"<details><summary>events</summary>{table(rows, ['s', 'event', ''])}</details>" if rows else ""


def _timing(run: _Run, document: Document, file: Path) -> str:
    latency = _array(document, "tick_latency_s", file, [None])
    period = _array(document, "tick_period_s", file, [None])
    nominal = run.contract.control_period if run.contract else _DEFAULT_PERIOD
    rows = []
    for name, values in (
        ("policy tick latency", latency),
        ("policy tick period error", np.abs(period - nominal)),
    ):
        if len(values):
            quantiles = [*np.quantile(values, [0.5, 0.99]), values.max()]
            rows.append([name, *(f"{1e3 * q:.2f} ms" for q in quantiles)])
    host = _field(document, "host_period_error_s", file)
    if isinstance(host, Mapping) and host:
        rows.append(
            [
                "host period error",
                *(
                    f"{1e3 * _number(document, f'host_period_error_s.{k}', file):.2f} ms"
                    for k in ("p50", "p99", "max")
                ),
            ]
        )
    elif isinstance(host, list) and host:
        errors = np.abs(_array(document, "host_period_error_s", file, [None]))
        rows.append(
            [
                "host period error",
                *(f"{1e3 * q:.2f} ms" for q in [*np.quantile(errors, [0.5, 0.99]), errors.max()]),
            ]
        )
    misses = document.get("deadline_misses")
    note = "The outermost bars hold everything beyond them; counts are on a log scale."
    if misses is not None:
        note += f" Deadline misses: {misses}."
    return section(
        "Timing in the deployment",
        img(report_plots.latency_and_jitter(latency, period, nominal), "tick latency and period error"),
        table(rows, ["", "p50", "p99", "max"]) if rows else "",
        caption(note),
    )


def _joints(
    time: Array, names: Sequence[str], position: Array, target: Array, marks: Sequence[tuple[float, str]]
) -> str:
    legs = [i for i, name in enumerate(names) if any(part in name for part in _LEG_AND_WAIST)]
    arms = [i for i in range(len(names)) if i not in legs]
    parts = []
    for indices, label in ((legs, "legs and waist"), (arms, "the other joints")):
        if indices:
            image = report_plots.joint_traces(
                time, [names[i] for i in indices], position[:, indices], target[:, indices], marks
            )
            parts.append((label, img(image, f"joint traces: {label}")))
    body = parts[0][1] if parts else ""
    for label, image_html in parts[1:]:
        body += f"<details><summary>{label}</summary>{image_html}</details>"
    return section(
        "Joint positions in the deployment",
        body,
        caption("Blue: measured, rad; grey: target; dashed: events."),
    )


def _provenance(run: _Run) -> str:
    parts = []
    if run.contract is not None:
        training = run.contract.training
        metrics = ", ".join(f"{k} {v:g}" for k, v in training.metrics.items() if math.isfinite(v))
        parts.append(
            table(
                [
                    ["policy", f"{run.contract.name} (contract schema {run.contract.schema_version})"],
                    ["robot", f"{run.contract.robot} {run.contract.variant}"],
                    ["mode_machine", ", ".join(map(str, run.contract.mode_machine))],
                    ["description", run.contract.description_hash],
                    ["control period", f"{run.contract.control_period * 1e3:g} ms"],
                    ["trained on", f"{training.task}, {training.simulator}, seed {training.seed}"],
                    ["steps", "-" if training.steps is None else _thousands(training.steps)],
                    ["metrics", metrics or "-"],
                    ["git revision", training.git_revision],
                    ["sha256 of policy.onnx", run.policy_sha256],
                ]
            )
        )
    else:
        parts.append('<p class="missing">policy.onnx is missing: export it with humanoid-rl export</p>')
    if run.config is not None:
        parts.append(
            f"<details open><summary>config.yaml</summary><pre>{html.escape(run.config)}</pre></details>"
        )
    else:
        parts.append('<p class="missing">config.yaml is missing</p>')
    return section("Where it comes from", *parts)
