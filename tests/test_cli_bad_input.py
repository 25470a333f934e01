"""What a user can get wrong on the command line: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import foreign_files
import pytest
from humanoid_rl_core.robot import load_robot

# words of the command line -> what the one line has to say
REFUSALS: dict[str, tuple[str, ...]] = {
    "": ("COMMAND",),
    "trian": ("trian", "did you mean 'train'"),
    "train --stpes 3": ("--stpes", "did you mean '--steps'"),
    "train --steps many": ("--steps", "'many' is no number"),
    "train --num-envs 0": ("--num-envs", "above zero"),
    "train --seed -1": ("--seed",),
    "train --name ../elsewhere": ("--name", "not a path"),
    "train --task stnad": ("stnad", "did you mean 'stand'"),
    "train stnad": ("stnad", "did you mean 'stand'"),
    "train stand task=walk": ("one task", "stand", "walk"),
    "train --sim mujocoo": ("mujocoo", "did you mean 'mujoco'"),
    "train ppo.learning_rat=1e-4": ("learning_rat", "did you mean 'learning_rate'"),
    "train algorithm=sacc": ("sacc", "did you mean 'sac'"),
    "train algorithm=sac learner=sb3": ("algorithm sac", "learner device"),
    "train algorithm=sac sac.action_bound=0": ("sac.action_bound", "above zero"),
    "train algorithm=sac sac.action_bound=11": ("sac.action_bound", "action_clip = 10.0", "stand"),
    "train num_env=8": ("num_env", "did you mean 'num_envs'"),
    "train ppo.learning_rate=fast": ("learning_rate", "number"),
    "train --resume": ("--resume", "--name"),
    "train --resume --name nowhere": ("no run 'nowhere'",),
    "export --run nowhere": ("no run 'nowhere'",),
    "export": ("--run",),
    "evaluate": ("--policy", "--run"),
    "evaluate --policy nowhere": ("no policy 'nowhere'",),
    "evaluate --policy nowhere.onnx": ("nowhere.onnx does not exist",),
    "evaluate --policy {truncated}": ("truncated.onnx",),
    "evaluate --policy {text}": ("text.onnx",),
    "evaluate --run nowhere": ("no run 'nowhere'",),
    "transfer": ("policy", "--log"),
    "transfer nowhere": ("no policy 'nowhere'",),
    "transfer nowhere.onnx": ("nowhere.onnx does not exist",),
    "transfer {truncated}": ("truncated.onnx",),
    "transfer g1_walk --sims mujoco,mujocoo": ("unknown simulator 'mujocoo'", "did you mean 'mujoco'"),
    "transfer g1_walk --sims mujoco,": ("unknown simulator ''", "isaac:newton"),
    "transfer g1_walk --sims mujoco,mujoco": ("--sims names mujoco twice",),
    "transfer g1_walk --sims isaac:newton": ("isaac:newton needs the environment of Isaac Lab", "make isaac"),
    "transfer g1_walk --task wlak": ("wlak", "did you mean 'walk'"),
    "transfer g1_walk --threshold 90": ("--threshold", "no share"),
    "transfer g1_walk --gap many": ("--gap", "'many' is no number"),
    "transfer --log nowhere.mcap": ("nowhere.mcap does not exist",),
    "transfer --log {text}": ("text.onnx cannot be read as MCAP or rosbag2",),
    "transfer --log x.mcap --joint-gap 0": ("--joint-gap", "above zero"),
    "transfer g1_walk --joint-gap 0.1": ("--joint-gap", "name one with --log"),
    "transfer --log x.mcap --task walk": ("--task is about a policy",),
    "transfer --log x.mcap --episodes 36": ("--episodes is about a policy",),
    "transfer {foreign} --task walk --name x1": ("foreign.onnx: has no metadata",),
    "deploy --robt sim": ("--robt", "did you mean '--robot'"),
    "deploy --viewer rivz": ("viewer:=rivz", "did you mean 'rviz'"),
    "deploy polcy:=x": ("polcy", "did you mean 'policy'"),
    "deploy policy": ("'policy'", "key:=value"),
    "launch deplyo": ("deplyo", "did you mean 'deploy'"),
    "launch train tsk:=stand": ("tsk", "did you mean 'task'"),
    "launch train task:=stnad": ("task:=stnad", "did you mean 'stand'"),
    "launch train sim:=mujocoo": ("sim:=mujocoo", "did you mean 'mujoco'"),
    "launch deploy robot:=sim robot:=real": ("robot", "twice"),
    "launch view prot:=1": ("prot", "did you mean 'port'"),
    "demo --episodes none": ("--episodes",),
}


@pytest.fixture(scope="module")
def broken_policies(baseline_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("broken")
    content = baseline_policy.read_bytes()
    truncated, text = folder / "truncated.onnx", folder / "text.onnx"
    foreign_files.mjlab_file(load_robot(), folder / "foreign.onnx", foreign_files.mjlab_terms())
    truncated.write_bytes(content[: len(content) // 2])
    text.write_text("no model\n")
    return {"truncated": truncated, "text": text, "foreign": folder / "foreign.onnx"}


def command_line(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    executable = shutil.which("humanoid-rl")
    assert executable, "humanoid-rl is not on the PATH"
    return subprocess.run(
        [executable, *words], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("line", REFUSALS)
def test_mistake_is_told_in_one_line(line: str, broken_policies: dict[str, Path], tmp_path: Path) -> None:
    words = [word.format(**broken_policies) for word in line.split()]
    done = command_line(words, HUMANOID_RL_RUNS=str(tmp_path / "runs"), HUMANOID_RL_ISAAC="")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("humanoid-rl: "), done.stderr
    for expected in REFUSALS[line]:
        assert expected in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["train", "--steps", "64"], ["demo", "--quick"]])
def test_directory_without_write_permission_is_named(words: list[str], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    prefix = []
    if os.geteuid() == 0:
        # root may write anywhere, unless it gives that up.
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    done = subprocess.run(
        [*prefix, str(shutil.which("humanoid-rl")), *words],
        env={**os.environ, "HUMANOID_RL_RUNS": str(locked / "runs")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(locked) in done.stderr and "permission" in done.stderr
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["train", "--steps", "64"], "take another --name, or go on with --resume"),
        (["transfer", "g1_walk"], "take another --name"),
    ],
)
def test_run_of_that_name_is_not_overwritten(words: list[str], remedy: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep\n")
    done = command_line([*words, "--name", "mine"], HUMANOID_RL_RUNS=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"humanoid-rl: {mine} exists already: {remedy}\n"
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
