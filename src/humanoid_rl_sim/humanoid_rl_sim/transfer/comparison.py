"""From what each simulator measured to the gaps between them, and to whether they are too large."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from humanoid_rl_core import rotation
from humanoid_rl_sim.transfer.windows import Windows

Floats = NDArray[np.float64]
Document = dict[str, Any]

APART = 0.05
"""m of base position at which two robots count as apart."""


@dataclass(frozen=True)
class Measured:
    """What one simulator's worker left."""

    sim: str
    document: Document
    arrays: Mapping[str, NDArray[Any]]
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class Divergence:
    """Two simulators under the same commands; T + 1 instants beginning with the common start."""

    joint_rms: Floats
    """[T + 1] rad, over robots and joints."""
    by_joint: Floats
    """[n] rad, RMS over robots and time."""
    base_distance: Floats
    """[T + 1] m, mean of the robots."""
    base_angle: Floats
    """[T + 1] rad, mean of the robots."""
    steps_together: float
    """Periods until the bases are `APART` or one is no number, median of the robots; infinity where most never are."""


def divergence(a: Measured, b: Measured, part: str) -> Divergence | None:
    """How two simulators come apart under the commands `part` (policy, air); None where one has not run them."""
    if f"{part}.joint_pos" not in a.arrays or f"{part}.joint_pos" not in b.arrays:
        return None
    joints, position, quat = (
        (a.arrays[f"{part}.{name}"].astype(float), b.arrays[f"{part}.{name}"].astype(float))
        for name in ("joint_pos", "base_pos", "base_quat")
    )
    square = (joints[0] - joints[1]) ** 2
    distance = np.linalg.norm(position[0] - position[1], axis=-1)
    turned = rotation.multiply(rotation.conjugate(quat[0]), quat[1])
    apart = ~(distance <= APART)  # also where one is no number
    together = np.where(apart.any(0), apart.argmax(0).astype(float), math.inf)
    return Divergence(
        np.sqrt(square.mean((1, 2))),
        np.sqrt(square.mean((0, 1))),
        distance.mean(1),
        2.0 * np.arctan2(np.linalg.norm(turned[..., 1:], axis=-1), np.abs(turned[..., 0])).mean(1),
        float(np.median(together)),
    )


@dataclass(frozen=True)
class JointGap:
    """A simulator beside a recorded robot."""

    by_joint: Floats
    """[n] rad, RMS over windows and time."""
    over_time: Floats
    """[T + 1] rad, RMS over windows and joints, beginning with the common start."""


def joint_gap(measured: Measured, windows: Windows) -> JointGap:
    """How far a simulator's joints are from the recorded ones."""
    square = (measured.arrays["log.joint_pos"].astype(float) - windows.joint_pos) ** 2
    return JointGap(np.sqrt(square.mean((0, 1))), np.sqrt(square.mean((1, 2))))


def broken(measured: Measured) -> list[str]:
    """The replays (policy, air, log) in which a simulator came to values that are no numbers."""
    return sorted(
        {name.partition(".")[0] for name, values in measured.arrays.items() if not np.isfinite(values).all()}
    )


def success(measured: Measured, reference: float) -> float:
    """The share of episodes that counts against a threshold.

    Of the velocity suite it is its success. A robot that only stands has to stand where nobody pushes it, and to
    survive the push as often as in the reference: the size of that push is one at which a policy falls now and then
    in the reference too, so that the share alone would say how hard the push is, not how well the policy transfers.

    Args:
        measured: one simulator's.
        reference: share of the pushes survived in the reference simulator.
    """
    document = measured.document
    if document["kind"] == "velocity":
        return float(document["success"])
    kept = min(1.0, document["policy"] / reference) if reference > 0.0 else 0.0
    return min(float(document["standing"]), kept)


def compare(
    measured: Sequence[Measured],
    *,
    reference: float | None,
    period: float,
    joints: Sequence[str],
    windows: Windows | None = None,
) -> Document:
    """The whole comparison as JSON.

    Args:
        measured: every simulator's.
        reference: share of pushes survived in the reference, for a task that commands no motion.
        period: s of a control step.
        joints: their names.
        windows: of the recorded robot.
    """  # fmt: skip
    judged = [one for one in measured if "kind" in one.document]
    result: Document = {
        "simulators": [
            {
                "simulator": one.sim,
                "seconds": round(one.seconds, 1),
                "broken": broken(one),
                **({"success": success(one, reference or 0.0)} if one in judged else {}),
                **{k: one.document[k] for k in _FIGURES if k in one.document and k != "success"},
            }
            for one in measured
        ],
        "pairs": [
            _pair(a, b, reference or 0.0, period, joints) for a, b in itertools.combinations(judged, 2)
        ],
    }
    if windows is not None:
        result["log"] = {
            "windows": windows.commands.robots,
            "begin_s": windows.time.round(3).tolist(),
            "dropped": windows.dropped,
            "seconds": round((windows.joint_pos.shape[0] - 1) * windows.commands.period, 3),
            "simulators": [_log(one, windows, joints) for one in measured],
        }
    return result


_FIGURES = (
    "success", "survival", "velocity_error_mps", "yaw_rate_error_radps", "power_w", "foot_slip_mps", "standing",
    "policy", "baseline", "push_mps", "episodes",
)  # fmt: skip
_ERRORS = ("survival", "velocity_error_mps", "yaw_rate_error_radps", "standing", "policy", "baseline")


def _pair(a: Measured, b: Measured, reference: float, period: float, joints: Sequence[str]) -> Document:
    row: Document = {
        "simulators": [a.sim, b.sim],
        "success_gap": abs(success(a, reference) - success(b, reference)),
        "gaps": {k: abs(a.document[k] - b.document[k]) for k in _ERRORS if k in a.document},
    }
    for part in ("policy", "air"):
        found = divergence(a, b, part)
        if found is not None:
            row[part] = {
                "joint_rms_rad": float(np.sqrt((found.by_joint**2).mean())),
                "by_joint_rad": dict(zip(joints, found.by_joint.tolist(), strict=True)),
                "base_distance_m": float(found.base_distance[-1]),
                "base_angle_rad": float(found.base_angle[-1]),
                "seconds": round((len(found.joint_rms) - 1) * period, 3),
                "together_s": found.steps_together * period,
            }
    return row


def _log(measured: Measured, windows: Windows, joints: Sequence[str]) -> Document:
    gap = joint_gap(measured, windows)
    return {
        "simulator": measured.sim,
        "joint_rms_rad": float(np.sqrt((gap.by_joint**2).mean())),
        "by_joint_rad": dict(zip(joints, gap.by_joint.tolist(), strict=True)),
    }


_REPLAYS = {"policy": "the policy's targets", "air": "the fall", "log": "the recorded robot"}


def violations(
    result: Document, *, threshold: float, gap: float, joint_gap: float | None = None
) -> list[str]:
    """A line for everything that is worse than it may be.

    Args:
        result: what `compare` returned.
        threshold: success that every simulator has to reach.
        gap: difference of success that no pair may exceed.
        joint_gap: rad that no joint's RMS difference from the recorded robot may exceed.
    """
    lines = [
        f"{row['simulator']}: success {row['success']:.1%} is below {threshold:.1%}"
        for row in result["simulators"]
        if "success" in row and row["success"] < threshold
    ]
    lines += [
        f"{' and '.join(row['simulators'])}: success differs by {row['success_gap']:.1%}, more than {gap:.1%}"
        for row in result["pairs"]
        if row["success_gap"] > gap + 1e-9
    ]
    lines += [
        f"{row['simulator']}: the replay of {_REPLAYS[part]} came to values that are no numbers"
        for row in result["simulators"]
        for part in row["broken"]
    ]
    if joint_gap is not None and "log" in result:
        lines += [
            f"{row['simulator']}: {joint} differs from the recorded robot by {value:.3f} rad, more than {joint_gap:g}"
            for row in result["log"]["simulators"]
            for joint, value in row["by_joint_rad"].items()
            if not value <= joint_gap
        ]
    return lines


def worst(by_joint: Mapping[str, float]) -> tuple[str, float]:
    """The joint that differs most, and by how much."""
    name = _from_worst(by_joint)[0]
    return name.removesuffix("_joint"), by_joint[name]


def _from_worst(by_joint: Mapping[str, float]) -> list[str]:
    """The joints from the one that differs most; what is no number differs more than any."""
    return sorted(by_joint, key=lambda joint: (not math.isnan(by_joint[joint]), -by_joint[joint]))


def table(result: Document) -> list[str]:
    """The comparison in lines."""
    return [*_simulator_lines(result), *_pair_lines(result), *_log_lines(result)]


def _simulator_lines(result: Document) -> list[str]:
    rows = [row for row in result["simulators"] if "success" in row]
    if not rows:
        return []
    if "velocity_error_mps" in rows[0]:
        return [
            "simulator       success stays up    m/s  rad/s  power W  slip m/s  episodes",
            *(
                f"{row['simulator']:16s}{row['success']:7.1%}{row['survival']:9.1%}{row['velocity_error_mps']:7.3f}"
                f"{row['yaw_rate_error_radps']:7.3f}{row['power_w']:9.0f}{row['foot_slip_mps']:10.3f}"
                f"{row['episodes']:10d}"
                for row in rows
            ),
        ]
    return [
        f"simulator       success   stands  pushed {rows[0]['push_mps']:.2f} m/s  gains alone  episodes",
        *(
            f"{row['simulator']:16s}{row['success']:7.1%}{row['standing']:9.1%}{row['policy']:17.1%}"
            f"{row['baseline']:13.1%}{row['episodes']:10d}"
            for row in rows
        ),
    ]


def _pair_lines(result: Document) -> list[str]:
    if not result["pairs"]:
        return []
    first = result["pairs"][0]
    walked, fell = first.get("policy", {"seconds": 0.0})["seconds"], first["air"]["seconds"]
    told = f"the policy's targets, {walked:g} s"
    lines = [
        f"{'':31s}success   {told:36s}in the air, {fell:g} s",
        f"{'pair':34s} gap   joints    base     turn    apart    joints, worst",
    ]
    for row in result["pairs"]:
        policy, air = row.get("policy"), row["air"]
        told = f"{'-':>36s}"
        if policy:
            apart = "never" if math.isinf(policy["together_s"]) else f"{policy['together_s']:.2f} s"
            told = (
                f"{_mrad(policy['joint_rms_rad'])}{100 * policy['base_distance_m']:6.1f} cm"
                f"{math.degrees(policy['base_angle_rad']):6.1f} deg{apart:>9s}"
            )
        joint, value = worst(air["by_joint_rad"])
        lines.append(
            f"{' - '.join(row['simulators']):30s}{row['success_gap']:8.1%}{told}{_mrad(air['joint_rms_rad'])}, {joint}"
            f" {_mrad(value).strip()}"
        )
    return lines


def _mrad(value: float) -> str:
    return f"{1e3 * value:7.1f} mrad" if value >= 1e-4 else f"{1e3 * value:7.0e} mrad"


def _log_lines(result: Document) -> list[str]:
    if "log" not in result:
        return []
    log = result["log"]
    begin = ", ".join(f"{second:.2f}" for second in log["begin_s"])
    lines = [
        f"recorded robot, {log['windows']} windows of {log['seconds']:g} s: RMS of all joints, the worst five in mrad",
        f"windows begin at {begin} s; {log['dropped']} messages left out",
    ]
    for row in log["simulators"]:
        by_joint = row["by_joint_rad"]
        told = ", ".join(
            f"{name.removesuffix('_joint')} {1e3 * by_joint[name]:.1f}" for name in _from_worst(by_joint)[:5]
        )
        lines.append(f"{row['simulator']:16s}{_mrad(row['joint_rms_rad'])}   {told}")
    return lines
