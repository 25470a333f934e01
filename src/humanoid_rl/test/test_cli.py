"""The command line's own part: quick to start, and words taken as they are meant."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import foreign_files
import pytest
from humanoid_rl.cli import build_parser, parse
from humanoid_rl.launching.preflight import find_policy
from humanoid_rl.learning_commands import find_run, new_run_dir, split_items, train
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning.configuration import load_training_config, to_yaml

COMMANDS = ("train", "export", "import", "evaluate", "transfer", "deploy", "view", "doctor", "launch", "demo")
HEAVY = {"torch", "numpy", "rclpy", "launch", "mujoco", "onnxruntime"}


def test_help_needs_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from humanoid_rl.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(command in done.stdout for command in COMMANDS)


def test_a_workspace_older_than_its_code_is_to_be_built_again() -> None:
    program = (
        "import sys\n"
        "from humanoid_rl.cli import main\n"
        "sys.modules['humanoid_rl.doctor'] = None\n"
        "sys.exit(main(['doctor']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "humanoid-rl: humanoid_rl.doctor is not installed, the workspace is older than its code: run make build"
    ]


def test_help_is_there_in_half_a_second() -> None:
    # The fastest of three: another program may have had the processor.
    durations = []
    for _ in range(3):
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "humanoid_rl", "--help"], capture_output=True, check=True)
        durations.append(time.monotonic() - begin)
    assert min(durations) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: humanoid-rl {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "steps"), [("200000", 200_000), ("200_000", 200_000), ("2e5", 200_000), ("1", 1)]
)
def test_counts_are_read_as_people_write_them(text: str, steps: int) -> None:
    assert parse(["train", "--steps", text]).steps == steps


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "inf", "1e400", ""])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--steps"):
        parse(["train", f"--steps={text}"])


def test_words_may_stand_before_and_after_options() -> None:
    options = parse(["train", "walk", "--seed", "3", "ppo.gamma=0.9", "--resume", "num_envs=8"])
    assert options.items == ["walk", "ppo.gamma=0.9", "num_envs=8"]
    assert options.seed == 3 and options.resume


@pytest.mark.parametrize(
    ("items", "task", "expected"),
    [
        ([], None, (None, {})),
        (["walk"], None, ("walk", {})),
        (["task=walk"], "walk", ("walk", {})),
        (["ppo.gamma=0.9", "note=a=b"], "walk", ("walk", {"ppo.gamma": "0.9", "note": "a=b"})),
    ],
)
def test_task_and_overrides_are_told_apart(
    items: list[str], task: str | None, expected: tuple[str | None, dict[str, str]]
) -> None:
    assert split_items(items, task) == expected


@pytest.mark.parametrize(("items", "match"), [(["walk", "stand"], "one task"), (["a=1", "a=2"], "twice")])
def test_contradicting_words_are_refused(items: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        split_items(items, None)


def _import(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "humanoid_rl", "import", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_import_tells_the_gaps_in_one_line_and_then_where_every_value_came_from(tmp_path: Path) -> None:
    robot = load_robot()
    _, content = foreign_files.deploy_yaml(
        robot, tmp_path / "policy.onnx", {name: {} for name in foreign_files.NAMES["lab"]}
    )
    config = foreign_files.write_yaml(tmp_path / "deploy.yaml", content)
    words = [str(tmp_path / "policy.onnx"), "--config", str(config), "--output", str(tmp_path / "own.onnx")]
    refused = _import(*words)
    assert refused.returncode == 2 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert all(f" {setting.partition('=')[0]} (" in refused.stderr for setting in foreign_files.SETTINGS)
    done = _import(*words, *(word for setting in foreign_files.SETTINGS for word in ("--set", setting)))
    assert (done.returncode, done.stderr) == (0, "")
    first, *sources, last = done.stdout.splitlines()
    assert first.startswith("unitree_rl_lab: 29 joints, 1 frames of base_ang_vel, projected_gravity, command")
    assert any(line.startswith("  --set: effort_limit, mode_machine") for line in sources)
    assert last == str(tmp_path / "own.onnx") and (tmp_path / "own.onnx").is_file()


@pytest.fixture
def share_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    share, runs = tmp_path / "share", tmp_path / "runs"
    for folder in ("config", "urdf", "policies"):
        (share / folder).mkdir(parents=True)
    runs.mkdir()
    monkeypatch.setenv("HUMANOID_RL_SHARE", str(share))
    monkeypatch.setenv("HUMANOID_RL_RUNS", str(runs))
    return share, runs


def test_policy_is_found_by_path_by_name_and_by_run(share_and_runs: tuple[Path, Path]) -> None:
    share, runs = share_and_runs
    shipped, trained = share / "policies" / "g1_stand.onnx", runs / "mine" / "policy.onnx"
    trained.parent.mkdir()
    shipped.touch()
    trained.touch()
    assert find_policy() == find_policy("g1_stand") == find_policy(str(shipped)) == shipped
    assert find_policy("mine") == find_policy(str(trained)) == find_policy(str(trained.parent)) == trained
    with pytest.raises(UserError, match=r"no policy 'g1_stnad', did you mean 'g1_stand'\?"):
        find_policy("g1_stnad")
    with pytest.raises(UserError, match=r"does not exist"):
        find_policy(str(runs / "other.onnx"))
    shipped.unlink()
    with pytest.raises(UserError, match=r"no policy was named.*mine"):
        find_policy()


def test_run_is_found_by_name_and_by_path(share_and_runs: tuple[Path, Path]) -> None:
    _, runs = share_and_runs
    (runs / "mine").mkdir()
    (runs / "mine" / "config.yaml").touch()
    assert find_run("mine") == find_run(str(runs / "mine")) == runs / "mine"
    with pytest.raises(UserError, match=r"no run 'mien'.*did you mean 'mine'\?"):
        find_run("mien")


def test_new_run_takes_no_directory_that_holds_something(share_and_runs: tuple[Path, Path]) -> None:
    _, runs = share_and_runs
    assert new_run_dir("mine", resume=False) == runs / "mine"
    (runs / "mine").mkdir()
    assert new_run_dir("mine", resume=False) == runs / "mine"
    (runs / "mine" / "config.yaml").touch()
    with pytest.raises(UserError, match="exists already"):
        new_run_dir("mine", resume=False)
    assert new_run_dir("mine", resume=True) == runs / "mine"


def test_a_run_is_not_resumed_with_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUMANOID_RL_RUNS", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text(to_yaml(load_training_config("stand")))
    with pytest.raises(UserError, match="only, not with another task"):
        train(items=["walk"], task=None, overrides={}, name="mine", resume=True)
