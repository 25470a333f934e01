"""transfer.html: success and error in each simulator, and how far apart they are. One file, no network."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from humanoid_rl_sim.transfer.comparison import Measured, divergence, joint_gap, worst
from humanoid_rl_sim.transfer.windows import Windows

from humanoid_rl.reports import transfer_plots
from humanoid_rl.reports.report_page import (
    caption,
    img,
    percent,
    section,
    table,
    tile,
    whole_page,
    write_page,
)

Document = dict[str, Any]


def write_transfer_report(
    path: Path,
    result: Document,
    measured: Sequence[Measured],
    *,
    joints: Sequence[str],
    period: float,
    windows: Windows | None = None,
) -> Path:
    """Writes the page, whole or not at all, and returns its path.

    Args:
        path: of the HTML file.
        result: what `comparison.compare` made of it, with the thresholds and what they were violated by.
        measured: what every simulator measured.
        joints: their names.
        period: s between two samples of the open-loop commands.
        windows: of the recorded robot.

    Raises:
        UserError: it cannot be written.
    """
    parts = []
    if any("success" in row for row in result["simulators"]):
        parts += [
            _suite(result, measured),
            _pairs(result),
            _divergence(measured, period),
            _air(measured, joints),
        ]
    if windows is not None:
        parts.append(_recorded(result, measured, windows, joints))
    subject = result["policy"] or result["recording"]
    told = f"{subject} in {', '.join(one.sim for one in measured)}"
    if result["policy"]:  # a recording is replayed without a random number
        told += f"; seed {result['seed']}"
    return write_page(path, whole_page(f"{subject}: transfer", told, _tiles(result), parts))


def _tiles(result: Document) -> list[str]:
    tiles = [
        tile(
            row["simulator"],
            percent(row["success"]),
            "success",
            "good" if row["success"] >= result["threshold"] else "bad",
        )
        for row in result["simulators"]
        if "success" in row
    ]
    if result["pairs"]:
        largest = max(result["pairs"], key=lambda row: row["success_gap"])
        value = largest["success_gap"]
        tiles.append(
            tile(
                "largest gap of success",
                f"{100 * value:.1f} points",
                " and ".join(largest["simulators"]),
                "good" if value <= result["gap"] else "bad",
            )
        )
    for row in result.get("log", {}).get("simulators", ()):
        joint, value = worst(row["by_joint_rad"])
        note = f"RMS of the joints; most at {joint.replace('_', ' ')}, {value:.3f} rad"
        tiles.append(tile(f"{row['simulator']} and the recording", f"{row['joint_rms_rad']:.4f} rad", note))
    bounds = _bounds(result)
    if bounds:
        count = len(result["violations"])
        told = f"{count} violated" if count else "kept"
        tiles.append(tile("thresholds", told, ", ".join(bounds), "bad" if count else "good"))
    return tiles


def _bounds(result: Document) -> list[str]:
    """What was asked of this comparison; nothing of a recording alone without a largest difference."""
    bounds = []
    if any("success" in row for row in result["simulators"]):
        bounds.append(f"success at least {100 * result['threshold']:g} %")
    if result["pairs"]:
        bounds.append(f"gap at most {100 * result['gap']:g} points")
    if "log" in result and result["joint_gap"] is not None:
        bounds.append(f"joints within {result['joint_gap']:g} rad")
    return bounds


def _suite(result: Document, measured: Sequence[Measured]) -> str:
    rows = [row for row in result["simulators"] if "success" in row]
    if measured[0].document["kind"] == "velocity":
        columns = {
            "success": "success",
            "survival": "stays up",
            "velocity_error_mps": "error, m/s",
            "yaw_rate_error_radps": "error, rad/s",
            "power_w": "power, W",
            "foot_slip_mps": "slip, m/s",
            "episodes": "episodes",
        }
        picture = transfer_plots.success_by_command({m.sim: m.document["conditions"] for m in measured})
        note = (
            f"The suite {measured[0].document['suite']}: the same commands, pushes, loads and delays in each."
        )
    else:
        columns = {
            "success": "success",
            "standing": "stands undisturbed",
            "policy": "survives the push",
            "baseline": "gains alone",
            "episodes": "episodes",
        }
        picture = transfer_plots.push_survival({m.sim: m.document for m in measured})
        note = (
            f"Pushes of {rows[0]['push_mps']:.2f} m/s, at which the gains alone fall half the time in MuJoCo. Success "
            "is the smaller of standing undisturbed and of the pushes survived relative to MuJoCo."
        )
    lines = [[row["simulator"], *(_told(key, row[key]) for key in columns)] for row in rows]
    body = table(lines, ["simulator", *columns.values()])
    failed = "".join(f'<p class="missing">{line}</p>' for line in map(html.escape, result["violations"]))
    return section(
        "In each simulator", failed, body, img(picture, "success in each simulator"), caption(note)
    )


def _told(key: str, value: float) -> str:
    """A figure of a simulator with as many digits as say something."""
    if key in {"success", "survival", "standing", "policy", "baseline"}:
        return percent(value)
    return str(value) if key == "episodes" else f"{value:.0f}" if key == "power_w" else f"{value:.3f}"


def _pairs(result: Document) -> str:
    if not result["pairs"]:
        return ""
    names = {
        "velocity_error_mps": "error, m/s",
        "yaw_rate_error_radps": "error, rad/s",
        "standing": "alone",
        "policy": "pushed",
        "baseline": "gains",
    }
    keys = [key for key in names if key in result["pairs"][0]["gaps"]]
    rows = []
    for row in result["pairs"]:
        policy, air = row.get("policy"), row["air"]
        joint, value = worst(air["by_joint_rad"])
        rows.append(
            [
                " - ".join(row["simulators"]),
                f"{100 * row['success_gap']:.1f}",
                *(f"{row['gaps'][key]:.3f}" for key in keys),
                _mrad(policy["joint_rms_rad"]) if policy else "-",
                _together(policy["together_s"], policy["seconds"]) if policy else "-",
                _mrad(air["joint_rms_rad"]),
                f"{joint.replace('_', ' ')} {_mrad(value)}",
            ]
        )
    header = [
        "pair", "success, %", *(names[key] for key in keys), "joints, mrad", "together",
        "in the air, mrad", "worst, mrad",
    ]  # fmt: skip
    return section(
        "Between each two",
        table(rows, header),
        caption(
            "Absolute differences. Joints: RMS over joints and time under the policy's targets in open loop. Together: "
            "until the bases are 5 cm apart, median of the robots. In the air: the same while the robot falls."
        ),
    )


def _mrad(value: float) -> str:
    return f"{1e3 * value:.1f}" if value >= 1e-4 else f"{1e3 * value:.0e}"


def _together(seconds: float, all_of: float) -> str:
    return f"all {all_of:g} s" if math.isinf(seconds) else f"{seconds:.2f} s"


def _divergence(measured: Sequence[Measured], period: float) -> str:
    found = {
        f"{a.sim} - {b.sim}": apart
        for a, b in itertools.combinations(measured, 2)
        if (apart := divergence(a, b, "policy")) is not None
    }
    title = "The same joint targets from the same state"
    if not found:
        return (
            section(title, '<p class="missing">the policy fell in MuJoCo while its targets were recorded</p>')
            if len(measured) > 1
            else ""
        )
    steps = len(next(iter(found.values())).joint_rms)
    series = {name: (d.base_distance, d.base_angle, d.joint_rms) for name, d in found.items()}
    picture = transfer_plots.divergence(period * np.arange(float(steps)), series)
    return section(
        title,
        img(picture, "divergence over time"),
        caption(
            "What the policy commanded in MuJoCo, without noise, replayed without feedback. A robot that is not "
            "balanced falls: small differences grow by themselves, and how soon they do is what counts. Lines begin at "
            f"{transfer_plots.LEAST:g}; two simulators that are alike are equally far from a third."
        ),
    )


def _air(measured: Sequence[Measured], joints: Sequence[str]) -> str:
    first = measured[0]
    found = {one.sim: apart for one in measured[1:] if (apart := divergence(first, one, "air")) is not None}
    if not found:
        return ""
    values = {f"{name} - {first.sim}": d.by_joint for name, d in found.items()}
    picture = transfer_plots.by_joint(joints, values, f"RMS difference from {first.sim}, mrad", decades=True)
    return section(
        "The same joint targets in the air",
        img(picture, "difference by joint in the air"),
        caption(
            "A fall of half a second with smooth random targets: no contact, so that only motors, inertias and "
            "integration differ."
        ),
    )


def _recorded(result: Document, measured: Sequence[Measured], windows: Windows, joints: Sequence[str]) -> str:
    gaps = {one.sim: joint_gap(one, windows) for one in measured}
    time = windows.commands.period * np.arange(float(len(windows.joint_pos)))
    bars = transfer_plots.by_joint(
        joints,
        {name: gap.by_joint for name, gap in gaps.items()},
        "RMS difference from the recorded robot, mrad",
    )
    lines = transfer_plots.over_time(
        time, {name: gap.over_time for name, gap in gaps.items()}, "all joints, RMS, mrad"
    )
    told: Mapping[str, Mapping[str, float]] = {
        row["simulator"]: row["by_joint_rad"] for row in result["log"]["simulators"]
    }
    rows = [[joint, *(f"{told[sim][joint]:.4f}" for sim in told)] for joint in joints]
    return section(
        "Beside the recorded robot",
        img(bars, "difference from the recorded robot by joint"),
        img(lines, "difference from the recorded robot over time"),
        caption(
            f"{result['log']['windows']} windows of {result['log']['seconds']:g} s of {result['recording']}; in each "
            "the simulated robot starts from the recorded joints and IMU, with its soles on level ground, and is told "
            "what the recorded one was told. They begin at "
            f"{', '.join(f'{begin:.2f}' for begin in result['log']['begin_s'])} s of the recording, of which "
            f"{result['log']['dropped']} messages were left out: a wrong CRC, or what is no number."
        ),
        f"<details><summary>all joints, rad</summary>{table(rows, ['joint', *told])}</details>",
    )
