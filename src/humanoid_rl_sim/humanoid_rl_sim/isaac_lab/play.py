"""Play an exported policy in an environment of Isaac Lab's own, and print what Isaac Lab's managers say of it.

    tools/isaac python -m humanoid_rl_sim.isaac_lab.play policies/g1_walk.onnx --command 0.5 0 0

A user's mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.robot import load_robot

from humanoid_rl_sim.simulators.registry import check_simulator

if TYPE_CHECKING:
    from humanoid_rl_sim.isaac_lab.playing import Played


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="play", description="Play a policy in an environment of Isaac Lab's own.", allow_abbrev=False
    )
    parser.add_argument("policy", type=Path, metavar="POLICY.onnx", help="exported or imported here")
    parser.add_argument("--engine", default="ovphysx", help="ovphysx (default), newton or isaacsim")
    parser.add_argument("--envs", type=_count, default=4, metavar="N", help="robots (default 4)")
    parser.add_argument(
        "--seconds",
        type=_duration,
        default=10.0,
        metavar="S",
        help="length of an episode and of the run (10)",
    )
    parser.add_argument(
        "--command",
        type=_finite,
        nargs=3,
        metavar=("VX", "VY", "YAW_RATE"),
        help="m/s forward, m/s left, rad/s (default: drawn from the policy's ranges)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of starts and commands (default 0)")
    parser.add_argument(
        "--task", metavar="T", help="whose starts and terminations (default: that of the policy's training)"
    )
    parser.add_argument("--device", default="", help="cpu or cuda (default: the GPU where there is one)")
    parser.add_argument("--robot", default="g1", help="robot that the policy is for (default g1)")
    parser.add_argument("--variant", default="rev_1_0", help="its variant (default rev_1_0)")
    return parser


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number") from None
    if not np.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not finite")
    return value


def _duration(text: str) -> float:
    value = _finite(text)
    if value <= 0.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not above zero")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def describe(played: Played) -> list[str]:
    """What was played, in a few lines."""
    ends = ", ".join(f"{name} {count}" for name, count in played.ends.items())
    lines = [f"{played.episodes} episodes, survived {played.survival:.0%} (ended by {ends})"]
    if played.velocities:
        forward, left, turning = np.mean(played.velocities, axis=0)
        velocity_error, yaw_error = np.mean(played.errors, axis=0)
        lines.append(
            f"mean velocity {forward:.2f} m/s forward, {left:.2f} m/s left, {turning:.2f} rad/s; "
            f"off the command by {velocity_error:.2f} m/s and {yaw_error:.2f} rad/s"
        )
    lines += [f"{key}: {value:.3f}" for key, value in sorted(played.log.items())]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one policy. Returns the exit code."""
    try:
        options = build_parser().parse_args(arguments)
        # Isaac Lab is slow to come and has much to say: first whatever can be found wrong without it.
        check_simulator(f"isaac:{options.engine}")
        robot = load_robot(options.robot, options.variant)
        policy = OnnxPolicy(options.policy, robot)
        try:
            from humanoid_rl_sim.isaac_lab.playing import play
        except ModuleNotFoundError as error:
            raise UserError(
                f"needs the package {error.name}: run make isaac, and this with tools/isaac before it"
            ) from None
        played = play(
            policy,
            robot,
            engine=options.engine,
            num_envs=options.envs,
            seconds=options.seconds,
            command=options.command,
            seed=options.seed,
            device=options.device,
            task=options.task,
        )
    except UserError as error:
        print(f"play: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print("\n".join(describe(played)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
