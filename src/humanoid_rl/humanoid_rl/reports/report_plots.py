"""Figures of a run's report, drawn with matplotlib without a display; each returns an SVG or PNG image."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float64]

POLICY, BASELINE, TARGET, INK = "#2563eb", "#d97706", "#94a3b8", "#334155"
EVENT_COLOUR = {"push": "#dc2626", "start": "#16a34a", "stand": "#7c3aed", "hoist_released": "#0891b2"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": "#cbd5e1",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8edf3",
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
    "legend.frameon": False,
    "svg.hashsalt": "report",  # the same data give the same file
}
PERCENT = matplotlib.ticker.PercentFormatter(xmax=1.0, decimals=0)


@dataclass(frozen=True)
class Image:
    """An encoded picture: kind is 'svg+xml' or 'png'."""

    kind: str
    data: bytes


def wilson_interval(successes: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), 95 % by default; (0, 1) without trials.

    Unlike the normal approximation it stays inside 0..1 and is right at 0 and at all successes.
    """
    if trials <= 0:
        return 0.0, 1.0
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def encode(figure: Figure, kind: str) -> Image:
    """A figure as svg or png; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    if kind == "png":
        figure.savefig(buffer, format="png", dpi=130)
        return Image("png", buffer.getvalue())
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Image("svg+xml", buffer.getvalue())


def _smooth(values: Array, share: float = 0.03) -> Array:
    """Centred moving mean over a share of the points, NaN left out."""
    width = max(1, int(len(values) * share)) | 1
    known = np.isfinite(values)
    weights = np.convolve(known.astype(float), np.ones(width), mode="same")
    sums = np.convolve(np.where(known, values, 0.0), np.ones(width), mode="same")
    return np.where(weights > 0, sums / np.maximum(weights, 1.0), np.nan)


def learning_curves(
    progress: Mapping[str, Array], evaluations: Mapping[str, Array], *, kind: str = "svg"
) -> Image:
    """Reward, episode length and periodic evaluation over environment steps; only columns that are there.

    progress: columns of progress.csv [R]; evaluations: columns of evaluations.csv [E].
    """
    panels = [
        (progress, "reward", "reward per episode", POLICY),
        (progress, "episode_length_s", "episode length, s", "#0891b2"),
        (evaluations, "score", "evaluation score (best model is kept)", "#16a34a"),
    ]
    panels = [panel for panel in panels if panel[1] in panel[0] and len(panel[0]["steps"])]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.5 * max(len(panels), 1), 2.7), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, max(len(panels), 1)))
        for axis, (table, column, title, colour) in zip(axes, panels, strict=False):
            steps, values = table["steps"] / 1e6, table[column]
            if table is evaluations:
                axis.plot(steps, values, color=colour, marker="o", markersize=3.5, linewidth=1.4)
                axis.set_ylim(-0.03, 1.03)
                axis.yaxis.set_major_formatter(PERCENT)
            else:
                axis.plot(steps, values, color=colour, alpha=0.28, linewidth=0.9)
                axis.plot(steps, _smooth(values), color=colour, linewidth=1.8)
            axis.set_title(title)
            axis.set_xlabel("million steps")
        return encode(figure, kind)


def push_survival(sweep: Sequence[Mapping[str, float]], trial: Mapping[str, float] | None) -> Image:
    """Survival over push size with and without policy, with 95 % Wilson intervals.

    sweep: rows with push_mps, policy, baseline (shares) and episodes. trial: push_mps, policy, baseline,
    episodes of the long comparison, or None.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.3), layout="constrained")
        axis = figure.subplots()
        speeds = [row["push_mps"] for row in sweep]
        for name, label, colour in (
            ("policy", "with policy", POLICY),
            ("baseline", "without (gains alone hold the pose)", BASELINE),
        ):
            shares = [row[name] for row in sweep]
            bounds = [wilson_interval(row[name] * row["episodes"], int(row["episodes"])) for row in sweep]
            axis.plot(speeds, shares, color=colour, marker="o", markersize=4, label=label)
            axis.fill_between(
                speeds,
                [low for low, _ in bounds],
                [high for _, high in bounds],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            if trial is not None:
                low, high = wilson_interval(trial[name] * trial["episodes"], int(trial["episodes"]))
                axis.errorbar(
                    [trial["push_mps"]],
                    [trial[name]],
                    yerr=[[max(trial[name] - low, 0.0)], [max(high - trial[name], 0.0)]],
                    color=colour,
                    marker="D",
                    markersize=6,
                    capsize=4,
                    zorder=5,
                )
        if trial is not None:
            axis.axvline(trial["push_mps"], color=TARGET, linewidth=1, linestyle=":")
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PERCENT)
        axis.set_xlabel("push: velocity added to the base, m/s, random direction")
        axis.set_title("episodes survived")
        axis.legend(loc="best")
        return encode(figure, "svg")


def latency_and_jitter(latency: Array, period: Array, nominal: float) -> Image:
    """Histograms of tick latency [N] s and of the tick period's error [M] s against `nominal` s."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _histogram(left, latency * 1e3, "tick latency, ms (sensor sample to command)", POLICY, one_sided=True)
        _histogram(
            right, (period - nominal) * 1e3, f"tick period minus {nominal * 1e3:.0f} ms, ms", "#0891b2"
        )
        return encode(figure, "svg")


def _histogram(axis: Axes, values: Array, title: str, colour: str, *, one_sided: bool = False) -> None:
    axis.set_title(title)
    if not len(values):
        axis.text(0.5, 0.5, "no samples", ha="center", transform=axis.transAxes, color="#64748b")
        return
    # The range of all but one in 200; the rest is counted in the outermost bins, so nothing is hidden.
    low, high = np.quantile(values, [0.005, 0.995])
    low = 0.0 if one_sided else low
    high = high if high > low else low + 1e-3
    axis.hist(np.clip(values, low, high), bins=60, range=(low, high), color=colour, alpha=0.75)
    axis.set_yscale("log")
    axis.set_ylabel("ticks")
    if one_sided:
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            at = float(np.quantile(values, share))
            axis.axvline(at, color=INK, linewidth=1, linestyle="--")
            axis.text(
                at, 0.97, f" {label} {at:.2f}", transform=axis.get_xaxis_transform(), fontsize=8, va="top"
            )


def _mark_events(axis: Axes, events: Sequence[tuple[float, str]], *, labels: bool = False) -> None:
    for number, (when, name) in enumerate(events):
        colour = EVENT_COLOUR.get(name, "#64748b")
        axis.axvline(when, color=colour, linewidth=1, linestyle="--", alpha=0.8)
        if labels:
            axis.text(
                when,
                1.0 + 0.12 * (number % 2),  # names of close events do not overlap
                f" {name.replace('_', ' ')}",
                transform=axis.get_xaxis_transform(),
                color=colour,
                fontsize=8,
                va="bottom",
            )


def base_motion(time: Array, height: Array, tilt: Array, events: Sequence[tuple[float, str]]) -> Image:
    """Height [T] m and tilt [T] rad of the base over time [T] s with event lines."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(time, height, color=POLICY)
        upper.set_ylabel("height, m")
        upper.set_ylim(0.0, max(1.0, 1.08 * float(np.nanmax(height, initial=0.0))))
        lower.plot(time, np.degrees(tilt), color=BASELINE)
        lower.set_ylabel("tilt, degrees")
        lower.set_ylim(bottom=0.0)
        lower.set_xlabel("time, s")
        _mark_events(upper, events, labels=True)
        _mark_events(lower, events)
        return encode(figure, "svg")


def joint_traces(
    time: Array,
    names: Sequence[str],
    position: Array,
    target: Array,
    events: Sequence[tuple[float, str]],
    columns: int = 3,  # a leg has six joints, the waist three
) -> Image:
    """One small panel for each joint: measured [T, n] and target [T, n] position, rad, over time [T] s."""
    rows = math.ceil(len(names) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 1.42 * rows + 0.3), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True)).ravel()
        for index, axis in enumerate(axes):
            if index >= len(names):
                axis.set_visible(False)
                continue
            axis.plot(time, target[:, index], color=TARGET, linewidth=1.1)
            axis.plot(time, position[:, index], color=POLICY, linewidth=1.0)
            axis.set_title(names[index].removesuffix("_joint").replace("_", " "), fontsize=8, pad=2)
            axis.tick_params(labelsize=7)
            _mark_events(axis, events)
        for axis in axes[max(len(names) - columns, 0) : len(names)]:
            axis.set_xlabel("s", fontsize=8)
            axis.tick_params(labelbottom=True)
        return encode(figure, "png")
