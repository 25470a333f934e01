"""Figures of the transfer report; each returns an SVG image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from humanoid_rl.reports.report_plots import INK, PERCENT, STYLE, Array, Image, encode, wilson_interval

COLOURS = (
    "#2563eb",
    "#d97706",
    "#16a34a",
    "#dc2626",
    "#7c3aed",
    "#0891b2",
    "#be185d",
    "#64748b",
    "#65a30d",
    "#92400e",
)
"""One for each simulator, and for each pair of up to five."""


def success_by_command(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Image:
    """A row of squares for each simulator, one for each command, and the two errors that success depends on below.

    results: of each simulator the suite's `conditions`.
    """
    names = list(results)
    first = results[names[0]]
    success = np.array([[row["success"] for row in results[name]] for name in names], dtype=float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 4.1 + 0.3 * len(names)), layout="constrained")
        upper, *lower = figure.subplots(3, 1, sharex=True, height_ratios=[0.45 * len(names), 2.0, 2.0])
        edges = (np.arange(count + 1) - 0.5 for count in (len(first), len(names)))
        upper.pcolormesh(*edges, success, vmin=0.0, vmax=1.0, cmap="RdYlGn", alpha=0.8, edgecolors="white")
        upper.set_yticks(range(len(names)), names)
        upper.invert_yaxis()
        upper.tick_params(length=0)
        upper.grid(False)
        upper.set_title("success by command (a number where it is not 100 %)")
        for row, column in zip(*np.nonzero(success < 1.0), strict=True):
            text = f"{100 * success[row, column]:.0f}"
            upper.text(column, row, text, ha="center", va="center", fontsize=6.5, color=INK)
        errors = (
            ("velocity_error_mps", "mean velocity error, m/s"),
            ("yaw_rate_error_radps", "mean yaw rate error, rad/s"),
        )
        for axis, (key, title) in zip(lower, errors, strict=True):
            for name, colour in zip(names, COLOURS, strict=False):
                error = [np.nan if row[key] is None else row[key] for row in results[name]]
                axis.plot(
                    range(len(first)), error, "o-", color=colour, label=name, markersize=3, linewidth=0.9
                )
            axis.set_title(title)
            axis.set_ylim(bottom=0.0)
        lower[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize=8, borderaxespad=0.2)
        labels = [f"{row['vx']:g} {row['vy']:g} {row['yaw_rate']:g}" for row in first]
        lower[1].set_xticks(range(len(first)), labels, rotation=90, fontsize=7)
        lower[1].set_xlabel("command: vx m/s, vy m/s, yaw rate rad/s")
        return encode(figure, "svg")


def push_survival(results: Mapping[str, Mapping[str, Any]]) -> Image:
    """Of each simulator: undisturbed, pushed with the policy, pushed with the gains alone; 95 % Wilson intervals."""
    names = list(results)
    kinds = (("standing", "undisturbed"), ("policy", "pushed"), ("baseline", "pushed, gains alone"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.9), layout="constrained")
        axis = figure.subplots()
        width = 0.8 / len(kinds)
        for index, (key, label) in enumerate(kinds):
            shares = np.array([float(results[name][key]) for name in names])
            trials = [int(results[name]["episodes"]) for name in names]
            bounds = np.array([wilson_interval(s * n, n) for s, n in zip(shares, trials, strict=True)])
            at = np.arange(len(names)) + (index - 1) * width
            error = np.abs(np.stack((shares - bounds[:, 0], bounds[:, 1] - shares)))
            colour = ("#16a34a", COLOURS[0], COLOURS[1])[index]
            axis.bar(at, shares, 0.92 * width, color=colour, alpha=0.8, label=label)
            axis.errorbar(at, shares, yerr=error, fmt="none", ecolor=INK, elinewidth=0.9, capsize=3)
        axis.set_xticks(range(len(names)), names)
        axis.set_ylim(0.0, 1.15)
        axis.yaxis.set_major_formatter(PERCENT)
        axis.grid(axis="x", visible=False)
        axis.set_title("episodes survived")
        axis.legend(loc="upper right", ncols=3)
        return encode(figure, "svg")


LEAST = 1e-4
"""cm and degrees: less is rounding, and zero has no place on a logarithmic axis."""


def divergence(time: Array, pairs: Mapping[str, tuple[Array, Array, Array]]) -> Image:
    """How the simulators come apart over time [T] s under the same joint targets.

    pairs: of each pair the base's distance [T] m and angle [T] rad and the joints' RMS difference [T] rad.
    """
    titles = ("base position, cm", "base orientation, degrees", "joints, RMS, degrees")
    factors = (100.0, np.degrees(1.0), np.degrees(1.0))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.3), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True)
        for index, (axis, title, factor) in enumerate(zip(axes, titles, factors, strict=True)):
            for number, ((name, series), colour) in enumerate(zip(pairs.items(), COLOURS, strict=False)):
                values = np.maximum(factor * series[index], LEAST)
                # The later the thinner: two simulators that are alike are equally far from a third.
                width = 4.0 * 0.75**number
                axis.plot(time, values, color=colour, label=name, linewidth=width)
            axis.set_title(title)
            axis.set_xlabel("time, s")
            axis.set_yscale("log")
            axis.set_ylim(bottom=LEAST)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)
        return encode(figure, "svg")


def by_joint(
    joints: Sequence[str], values: Mapping[str, Array], title: str, *, decades: bool = False
) -> Image:
    """RMS difference [n] rad of each joint: a bar for each name, or on an axis of decades a point."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.2), layout="constrained")
        axis = figure.subplots()
        width = 0.84 / max(len(values), 1)
        for index, (name, series) in enumerate(values.items()):
            colour = COLOURS[index % len(COLOURS)]
            if decades:
                axis.plot(range(len(joints)), 1e3 * series, "o", color=colour, label=name, markersize=4)
            else:
                at = np.arange(len(joints)) + (index - 0.5 * (len(values) - 1)) * width
                axis.bar(at, 1e3 * series, width, color=colour, alpha=0.85, label=name)
        labels = [joint.removesuffix("_joint").replace("_", " ") for joint in joints]
        axis.set_xticks(range(len(joints)), labels, rotation=90, fontsize=7)
        axis.set_xlim(-0.7, len(joints) - 0.3)
        if decades:
            axis.set_yscale("log")
        axis.grid(axis="x", visible=False)
        axis.set_title(title)
        axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize=8, borderaxespad=0.2)
        return encode(figure, "svg")


def over_time(time: Array, values: Mapping[str, Array], title: str) -> Image:
    """RMS difference [T] rad over time [T] s, a line for each name."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.4), layout="constrained")
        axis = figure.subplots()
        for (name, series), colour in zip(values.items(), COLOURS, strict=False):
            axis.plot(time, 1e3 * series, color=colour, label=name)
        axis.set_ylim(bottom=0.0)
        axis.set_xlabel("time since the window's start, s")
        axis.set_title(title)
        axis.legend(loc="best", fontsize=8)
        return encode(figure, "svg")
