"""The arguments of the launch files: declared, checked, and refused before anything starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from humanoid_rl.cli import parse
from humanoid_rl.launching.launch_files import declared_arguments, describe_arguments, launch_file
from humanoid_rl_core.resources import share_dir
from humanoid_rl_sim.learning.configuration import load_training_config, to_yaml
from launch import LaunchContext

DECLARED = {
    "train": {
        "task", "sim", "engine", "num_envs", "steps", "seed", "camera", "visualizer", "name", "resume",
        "viewer", "port", "domain",
    },
    "deploy": {
        "robot", "model", "variant", "policy", "host", "viewer", "port", "domain", "interface", "confirm", "start",
        "auto_start", "provider", "rt", "host_cpu", "policy_cpu", "security", "keystore", "sim", "engine",
    },
    "view": {"viewer", "model", "variant", "port", "domain"},
    "host": {"host", "model", "variant", "policy_period", "domain"},
}  # fmt: skip

# launch file, arguments, what the one line has to say; these get past the choices.
REFUSED_BY_THE_FILE = [
    (
        "deploy",
        ["robot:=real"],
        "needs interface:=, the network interface the robot is connected to (there are: lo",
    ),
    (
        "deploy",
        ["robot:=real", "interface:=eth77"],
        "interface:=eth77: this machine has no such network interface",
    ),
    (
        "deploy",
        ["robot:=real", "interface:=lo", "confirm:=yes"],
        "confirm:=yes is not the word: confirm:=hanging",
    ),
    ("deploy", ["robot:=real", "interface:=lo", "auto_start:=true"], "auto_start:=true is not possible"),
    (
        "deploy",
        ["robot:=real", "interface:=lo", "start:=hoisted"],
        "start:=hoisted places the simulated robot",
    ),
    (
        "deploy",
        ["robot:=real", "interface:=lo", "model:=h1"],
        "robot:=real is not possible with model:=h1",
    ),
    ("deploy", ["robot:=real", "interface:=lo", "domain:=233"], "no DDS domain"),
    ("deploy", ["robot:=real", "interface:=lo", "policy:=nowhere"], "no policy 'nowhere'"),
    ("deploy", ["interface:=eth0"], "goes with robot:=real"),
    ("deploy", ["confirm:=hanging"], "goes with robot:=real"),
    ("deploy", ["robot:=real", "interface:=lo", "sim:=isaac"], "choose the physics of robot:=sim"),
    ("deploy", ["engine:=newton"], "engine:=newton goes with sim:=isaac"),
    ("deploy", ["security:=true", "robot:=real", "interface:=lo", "confirm:=hanging"], "keep others off"),
    ("deploy", ["security:=true", "host:=ros2_control"], "has no enclave for host:=ros2_control"),
    ("deploy", ["host_cpu:=4096"], "expected 0 to "),
    ("deploy", ["host_cpu:=--1"], "host_cpu:=--1 is no number of a processor"),
    ("deploy", ["policy_cpu:=x"], "policy_cpu:=x is no number of a processor"),
    ("host", ["policy_period:=soon"], "policy_period:=soon is no number of seconds"),
    ("deploy", ["policy:=nowhere"], "no policy 'nowhere'"),
    ("deploy", ["policy:=/nowhere/policy.onnx"], "/nowhere/policy.onnx does not exist"),
    ("deploy", ["policy:={text}"], "text.onnx"),
    ("deploy", ["policy:={policy}", "variant:=rev_9"], "rev_9"),
    ("deploy", ["policy:={policy}", "model:=h1"], "h1"),
    ("deploy", ["domain:=233"], "no DDS domain"),
    ("deploy", ["port:=http"], "no TCP port"),
    ("deploy", ["port:=0"], "port:=0 is no TCP port (1 to 65535)"),
    ("train", ["steps:=many"], "steps:=many"),
    ("train", ["num_envs:=0"], "num_envs:=0"),
    ("train", ["resume:=true"], "needs name:="),
    ("train", ["resume:=true", "name:=mine", "camera:=head"], "camera:= goes with a new run"),
    ("train", ["resume:=true", "name:=mine", "visualizer:=viser"], "visualizer:= goes with a new run"),
    (
        "train",
        ["visualizer:=viser"],
        "simulator mujoco has no visualizer; humanoid-rl view shows every training",
    ),
    ("train", ["sim:=isaac", "visualizer:=kit"], "visualizer kit does not go with isaac:ovphysx"),
    ("train", ["resume:=true", "name:=nowhere"], "no run 'nowhere'"),
    ("train", ["domain:=-1"], "no DDS domain"),
    ("train", ["sim:=isaac"], "run make isaac"),
    (
        "train",
        ["sim:=mujoco", "camera:=head"],
        "simulator mujoco has no camera; simulators that have one: isaac:",
    ),
    ("train", ["engine:=newton"], "engine:=newton goes with sim:=isaac"),
    ("train", ["sim:=mujoco", "engine:=newton"], "engine:=newton goes with sim:=isaac"),
    ("train", ["viewer:=web", "port:=abc"], "port:=abc is no TCP port"),
    ("train", ["port:=65536"], "port:=65536 is no TCP port"),
    ("view", ["port:=http"], "no TCP port"),
    ("view", ["port:=70000"], "port:=70000 is no TCP port (1 to 65535)"),
]

# As `ros2 launch` runs a file: it hands on whatever it is given and checks nothing.
ROS2_LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *arguments = sys.argv[1:]
sys.argv = ["ros2", "launch", "humanoid_rl", path.rpartition("/")[2], *arguments]
service = LaunchService(argv=arguments, noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(path), launch_arguments=[a.split(":=", 1) for a in arguments])]))
sys.exit(service.run())
"""


def ros2_launch(name: str, arguments: list[str], runs: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ROS2_LAUNCH, str(launch_file(name)), *arguments],
        env={**os.environ, "HUMANOID_RL_RUNS": str(runs), "HUMANOID_RL_ISAAC": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
    )  # fmt: skip


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    assert "process started" not in done.stdout and "Traceback" not in done.stdout
    errors = [line for line in done.stdout.splitlines() if "Caught exception in launch" in line]
    assert len(errors) == 1, done.stdout
    return errors[0]


@pytest.mark.parametrize("name", DECLARED)
def test_launch_file_declares_its_arguments_each_with_default_and_description(name: str) -> None:
    declared = declared_arguments(launch_file(name))
    assert set(declared) == DECLARED[name]
    for argument in declared.values():
        assert argument.default_value is not None and argument.description != "no description given"
    assert all(f"{key}:=" in describe_arguments(name) for key in declared)


@pytest.mark.parametrize("name", DECLARED)
def test_readme_lists_what_a_launch_file_declares(name: str) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (listed,) = re.findall(rf"^- \*\*{name}\*\*: ((?:.|\n  )+)$", readme, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(DECLARED[name])


@pytest.mark.parametrize("name", ["deploy", "view"])
def test_command_leaves_a_launch_file_its_defaults(name: str) -> None:
    command = vars(parse([name]))
    declared = declared_arguments(launch_file(name))
    shared = command.keys() & declared.keys()
    assert shared >= {"viewer"}
    for key in shared:
        (default,) = declared[key].default_value
        assert command[key] == default.perform(LaunchContext()), key


def test_every_launch_file_is_covered_here() -> None:
    files = {path.name.removesuffix(".launch.py") for path in (share_dir() / "launch").glob("*.launch.py")}
    assert files == set(DECLARED)


def test_launch_files_are_installed_where_ros2_launch_looks() -> None:
    from ament_index_python.packages import get_package_share_directory

    installed = Path(get_package_share_directory("humanoid_rl"))
    for name in DECLARED:
        assert (installed / "launch" / f"{name}.launch.py").resolve() == launch_file(name).resolve()
    for folder in ("config", "urdf"):
        assert any((installed / folder).rglob("*.*"))


@pytest.mark.parametrize(("name", "arguments", "expected"), REFUSED_BY_THE_FILE)
def test_launch_file_refuses_before_anything_starts(
    name: str, arguments: list[str], expected: str, baseline_policy: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model\n")
    words = [word.format(text=text, policy=baseline_policy) for word in arguments]
    assert expected in the_error(ros2_launch(name, words, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [(["sim:=mujoco_warp"], "sim"), (["sim:=isaac", "engine:=newton"], "sim"), (["task:=walk"], "task")],
)
def test_a_run_is_not_resumed_as_another(words: list[str], what: str, tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(load_training_config("stand", {"sim": "mujoco"})))
    error = the_error(ros2_launch("train", ["resume:=true", "name:=mine", *words], tmp_path))
    assert f"a run is resumed with more steps only, not with another {what}" in error


def test_a_run_in_isaac_is_resumed_on_its_own_engine(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(load_training_config("stand", {"sim": "isaac:newton"})))
    error = the_error(ros2_launch("train", ["resume:=true", "name:=mine", "sim:=isaac"], tmp_path))
    assert "run make isaac" in error  # it got past what would be another run


def test_isaac_without_its_environment_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HUMANOID_RL_ISAAC", raising=False)
    error = the_error(ros2_launch("deploy", ["sim:=isaac", "engine:=newton"], tmp_path / "runs"))
    assert "sim:=isaac needs the environment of Isaac Lab: run make isaac" in error


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("train", "tsk:=stand", "did you mean 'task'"),
        ("train", "task:=stnad", "stnad"),
        ("train", "engine:=physx", "physx"),
        ("deploy", "polcy:=x", "did you mean 'policy'"),
        ("deploy", "viewer:=rvizz", "rvizz"),
        ("deploy", "engine:=bullet", "bullet"),
        ("view", "prot:=1", "did you mean 'port'"),
        ("host", "polcy_period:=0.02", "did you mean 'policy_period'"),
        ("deploy", "provider:=rocm", "rocm"),
    ],
)
def test_unknown_argument_or_choice_is_refused_under_ros2_launch_too(
    name: str, argument: str, expected: str, tmp_path: Path
) -> None:
    assert expected in the_error(ros2_launch(name, [argument], tmp_path))


def test_arguments_of_an_including_launch_file_are_its_own_affair(tmp_path: Path) -> None:
    outer = tmp_path / "outer.launch.py"
    outer.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import IncludeLaunchDescription\n"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource\n"
        "def generate_launch_description():\n"
        f"    source = PythonLaunchDescriptionSource({str(launch_file('deploy'))!r})\n"
        "    return LaunchDescription([IncludeLaunchDescription(source,\n"
        "        launch_arguments={'interface': 'eth0'}.items())])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ROS2_LAUNCH, str(outer), "colour:=red"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    # It got as far as the interface, past the argument that deploy.launch.py does not know.
    assert "goes with robot:=real" in the_error(done)
