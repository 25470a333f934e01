"""`humanoid-rl`: one command line over the functions of the workspace.

A user's mistake is one line on stderr and exit code 2; a run that did not reach its goal ends with 1,
Ctrl-C with 130, SIGTERM with 143. Everything heavy (torch, MuJoCo, ROS) is imported by the command that
needs it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from humanoid_rl_core.errors import UserError, nearest

PROGRAM = "humanoid-rl"
USER_ERROR = 2
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line, and with the nearest word for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)", message)
        if choice:
            message += nearest(choice.group(1), [word.strip(" '") for word in choice.group(2).split(",")])
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            message += nearest(unknown.group(1), _option_strings(self))
        command = self.prog.removeprefix(PROGRAM).strip()
        raise UserError(f"{command}: {message}" if command else message)


def _option_strings(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options of a parser and of its commands: argparse reports a command's unknown option at the top."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _option_strings(command)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; importing nothing heavy."""
    parser = _Parser(
        prog=PROGRAM, description="Train, export, evaluate, deploy and view a humanoid's policies."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)

    train = command("train", "Train a policy; everything goes into runs/NAME.")
    train.add_argument(
        "items",
        nargs="*",
        metavar="TASK | KEY=VALUE",
        help="task (stand, walk), and configuration keys such as ppo.learning_rate=1e-4",
    )
    train.add_argument("--task", help="task of config/task (default: stand)")
    train.add_argument("--sim", help="simulator (default: the configuration's)")
    train.add_argument("--num-envs", type=_positive, metavar="N", help="environments stepped together")
    train.add_argument("--steps", type=_positive, metavar="N", help="environment steps, all together")
    train.add_argument("--seed", type=_seed, metavar="N")
    train.add_argument("--name", type=_run_name, help="run directory below runs/ (default: task and time)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --name")

    export = command("export", "Write a run's policy as ONNX with its contract.")
    export.add_argument("--run", required=True, metavar="NAME", help="run below runs/, or its path")
    export.add_argument("--checkpoint", type=Path, help="checkpoint .zip (default: the run's best)")
    export.add_argument("--output", type=Path, help="ONNX file (default: policy.onnx of the run)")

    imported = command(
        "import", "Make a policy that another stack exported into one of this project; nothing is guessed."
    )
    imported.add_argument("file", type=Path, metavar="FILE.onnx", help="the ONNX file of the other stack")
    imported.add_argument(
        "--format",
        default="auto",
        choices=("auto", "leapp", "mjlab", "unitree_rl_lab"),
        help="default: from what the files look like",
    )
    imported.add_argument(
        "--config", type=Path, metavar="FILE.yaml", help="LEAPP's YAML or unitree_rl_lab's deploy.yaml"
    )
    imported.add_argument("--output", type=Path, required=True, metavar="OUT.onnx", help="file to write")
    imported.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the files leave open; without it the refusal lists every key (docs/import_a_policy.md)",
    )

    evaluate = command("evaluate", "Measure a policy in MuJoCo against the same pushes without a policy.")
    which = evaluate.add_mutually_exclusive_group(required=True)
    which.add_argument("--policy", help="ONNX file or a name in policies/")
    which.add_argument("--run", metavar="NAME", help="run below runs/; writes its evaluation.json")
    evaluate.add_argument("--task", help="task (default: the one the policy was trained on)")
    evaluate.add_argument(
        "--episodes",
        type=_positive,
        metavar="N",
        help="default: 200 pushes, or the 324 of velocity-v1, in steps of 36",
    )
    evaluate.add_argument("--seed", type=_seed, default=0, metavar="N")

    transfer = command("transfer", "Compare a policy, or a recorded robot, across simulators.")
    transfer.add_argument("policy", nargs="?", help="ONNX file, name in policies/ or run")
    transfer.add_argument(
        "--sims",
        type=_names,
        default=("mujoco", "mujoco_warp"),
        metavar="A,B,...",
        help="simulators (default: mujoco,mujoco_warp)",
    )
    transfer.add_argument("--task", help="task (default: the one the policy was trained on)")
    transfer.add_argument(
        "--episodes",
        type=_positive,
        metavar="N",
        help="in each simulator (default: 108 of velocity-v1, in steps of 36, or 100 of each trial)",
    )
    transfer.add_argument("--seed", type=_seed, default=0, metavar="N")
    transfer.add_argument(
        "--threshold",
        type=_share,
        default=0.9,
        metavar="SHARE",
        help="least success in every simulator (0.9)",
    )
    transfer.add_argument(
        "--gap",
        type=_share,
        default=0.1,
        metavar="SHARE",
        help="largest difference of success of a pair (0.1)",
    )
    transfer.add_argument("--log", type=Path, metavar="FILE", help="MCAP or rosbag2 of a robot to replay")
    transfer.add_argument(
        "--joint-gap", type=_angle, metavar="RAD", help="largest RMS of a joint beside --log (default: any)"
    )
    transfer.add_argument("--name", type=_run_name, help="directory below runs/ (default: policy and time)")

    deploy = command("deploy", "Run a policy on a robot over ROS 2 (deploy.launch.py).")
    deploy.add_argument("--policy", default="", help="ONNX file, name in policies/ or run")
    deploy.add_argument("--host", default="auto", help="auto, embedded or ros2_control")
    deploy.add_argument("--viewer", default="auto", help="auto, rviz, web or none")
    deploy.add_argument("--robot", default="sim", help="sim, or real (docs/deploy_on_a_g1.md)")
    deploy.add_argument("arguments", nargs="*", metavar="KEY:=VALUE", help="further launch arguments")

    view = command("view", "Show the live robot in RViz or in the browser (view.launch.py).")
    view.add_argument("--viewer", default="auto", help="auto, rviz or web")
    view.add_argument("--port", default="8080", help="TCP port of the browser view")

    command("doctor", "What is installed, what is missing, and what to do about it.")

    launch = command("launch", "Run a launch file as `ros2 launch humanoid_rl FILE.launch.py` does.")
    launch.add_argument("file", metavar="FILE", help="train, deploy, view or host")
    launch.add_argument("arguments", nargs="*", metavar="KEY:=VALUE")
    launch.add_argument("-s", "--show-args", action="store_true", help="list the arguments and end")

    demo = command("demo", "Train, evaluate, export, deploy, push; writes runs/NAME/report.html.")
    demo.add_argument("--name", type=_run_name, default="demo")
    demo.add_argument("--steps", type=_positive, metavar="N", help="environment steps of the training")
    demo.add_argument("--seed", type=_seed, default=1, metavar="N")
    demo.add_argument("--episodes", type=_positive, default=200, metavar="N", help="of the evaluation")
    demo.add_argument(
        "--quick",
        action="store_true",
        help="a training of seconds, to see every step run; not held to a result",
    )
    return parser  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of one command line; words such as KEY=VALUE may stand before and after options.

    Raises:
        UserError: something is unknown, missing or has no valid value.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes the words of a `*` argument in one piece alone; those of later pieces are in the rest.
    words: list[str] | None = getattr(options, "items", getattr(options, "arguments", None))
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        words += rest
    return options


def _positive(text: str) -> int:
    """`200000`, `200_000`, `2e5` as an integer above zero."""
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number") from None
    if not (value.is_integer() and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(value)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"'{text}' is no seed (0 to 4294967295)")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no number") from None


def _share(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is no share (0 to 1)")
    return value


def _angle(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no angle above zero")
    return value


def _run_name(text: str) -> str:
    if not RUN_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no run name: letters, digits, '.', '_' and '-', not a path"
        )
    return text


def _train(options: argparse.Namespace) -> int:
    from humanoid_rl.learning_commands import train

    overrides = {
        "sim": options.sim,
        "num_envs": options.num_envs,
        "steps": options.steps,
        "seed": options.seed,
    }
    return train(
        items=options.items,
        task=options.task,
        overrides={key: str(value) for key, value in overrides.items() if value is not None},
        name=options.name,
        resume=options.resume,
    )


def _export(options: argparse.Namespace) -> int:
    from humanoid_rl.learning_commands import export

    return export(options.run, checkpoint=options.checkpoint, output=options.output)


def _import(options: argparse.Namespace) -> int:
    from humanoid_rl.learning_commands import import_foreign

    return import_foreign(
        options.file,
        format=options.format,
        config=options.config,
        output=options.output,
        settings=options.settings,
    )


def _evaluate(options: argparse.Namespace) -> int:
    from humanoid_rl.learning_commands import evaluate

    return evaluate(
        policy=options.policy,
        run=options.run,
        task=options.task,
        episodes=options.episodes,
        seed=options.seed,
    )


def _transfer(options: argparse.Namespace) -> int:
    from humanoid_rl.transfer import transfer

    return transfer(
        policy=options.policy,
        sims=options.sims,
        task=options.task,
        episodes=options.episodes,
        seed=options.seed,
        threshold=options.threshold,
        gap=options.gap,
        log=options.log,
        joint_gap=options.joint_gap,
        name=options.name,
    )


def _deploy(options: argparse.Namespace) -> int:
    from humanoid_rl.launching.launch_files import run_launch

    named = {key: getattr(options, key) for key in ("policy", "host", "viewer", "robot")}
    return run_launch("deploy", [*(f"{key}:={value}" for key, value in named.items()), *options.arguments])


def _view(options: argparse.Namespace) -> int:
    from humanoid_rl.launching.launch_files import run_launch

    return run_launch("view", [f"viewer:={options.viewer}", f"port:={options.port}"])


def _launch(options: argparse.Namespace) -> int:
    from humanoid_rl.launching.launch_files import describe_arguments, run_launch

    if options.show_args:
        print(describe_arguments(options.file))
        return 0
    return run_launch(options.file, options.arguments)


def _doctor(options: argparse.Namespace) -> int:
    from humanoid_rl.doctor import run_doctor

    return run_doctor()


def _demo(options: argparse.Namespace) -> int:
    from humanoid_rl.demo import run_demo

    return run_demo(
        options.name,
        steps=options.steps,
        seed=options.seed,
        episodes=options.episodes,
        quick=options.quick,
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "export": _export,
    "import": _import,
    "evaluate": _evaluate,
    "transfer": _transfer,
    "deploy": _deploy,
    "view": _view,
    "doctor": _doctor,
    "launch": _launch,
    "demo": _demo,
}


class _Terminated(BaseException):
    """SIGTERM, as an exception: temporary files and children are cleaned up on the way out."""


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    # A shell starts background jobs with SIGINT ignored; a launch that is to be ended by it must hear it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        options = parse(arguments)
        return _COMMANDS[options.command](options)
    except UserError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("humanoid_rl"):
            return _fail(
                f"{error.name} is not installed, the workspace is older than its code: run make build"
            )
        return _fail(f"the Python package '{package}' is not installed: `{PROGRAM} doctor` says what to do")
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except PermissionError as error:
        return _fail(f"no permission to write or read {error.filename}")
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except _Terminated:
        return _fail("terminated", 128 + signal.SIGTERM)


def _fail(message: str, code: int = USER_ERROR) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return code
