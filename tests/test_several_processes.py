"""Two processes over gloo learn one policy: torchrun as a user starts it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stable_baselines3 import PPO

PATIENCE = 180.0
SMALL = (
    "sim=mujoco", "learner=device", "num_envs=8", "steps=384", "evaluation_interval=256", "evaluation_episodes=2",
    "checkpoint_interval=128", "ppo.rollout_steps=8", "ppo.hidden_sizes=[16]", "ppo.critic_hidden_sizes=[16]",
)  # fmt: skip
CHECKED = """
import sys
import torch
from torch import distributed
from humanoid_rl_sim.learning.configuration import load_training_config
from humanoid_rl_sim.learning.device_ppo import DevicePPO
from humanoid_rl_sim.learning.training import train

plain = DevicePPO.train

def checked(self):
    plain(self)
    state = [*self.policy.state_dict().values(), torch.tensor([self.logger.name_to_value["train/approx_kl"]])]
    mine = torch.cat([value.detach().double().flatten() for value in state])
    drawn = torch.cat((self.environment.view.command, self.environment._push_delta)).double().flatten()
    for values, same in ((mine, True), (drawn, False), (self.rollout.actions.double().flatten(), False)):
        all_of = [torch.zeros_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(all_of, values)
        assert torch.equal(all_of[0], all_of[1]) == same, "parameters differ" if same else "robots are the same"

DevicePPO.train = checked
overrides = dict(item.split("=", 1) for item in sys.argv[2:])
train(load_training_config("walk", overrides), sys.argv[1])
"""


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words],
        cwd=cwd, env=dict(os.environ, OMP_NUM_THREADS="1", HUMANOID_RL_RUNS=str(cwd)), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_two_ranks_have_robots_of_their_own_and_one_policy(tmp_path: Path) -> None:
    script = tmp_path / "checked.py"
    script.write_text(CHECKED)
    ended = torchrun(str(script), str(tmp_path / "run"), *SMALL, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "run" / "progress.csv").open()))
    assert [int(row["steps"]) for row in rows] == [128, 256, 384]  # of both ranks together
    assert len(list(csv.DictReader((tmp_path / "run" / "evaluations.csv").open()))) == 2
    assert PPO.load(tmp_path / "run" / "best" / "model.zip").num_timesteps > 0


def test_torchrun_of_the_command_line_and_its_refusals(tmp_path: Path) -> None:
    command = ("-m", "humanoid_rl", "train", "walk")
    ended = torchrun(*command, "--name", "two", *SMALL, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("best model:") == 1
    resumed = torchrun(*command[:-1], "--name", "two", "--resume", "--steps", "512", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "two" / "progress.csv").open()))
    assert int(rows[-1]["steps"]) == 512
    for words, reason in (
        ((*command, *SMALL), "needs a --name that all its processes share"),
        (
            (*command, "--name", "plain", *SMALL[2:], "sim=mujoco", "learner=sb3"),
            "several processes need learner=device",
        ),
    ):
        refused = torchrun(*words, cwd=tmp_path)
        assert refused.returncode != 0 and reason in refused.stderr
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize(
    ("environment", "several", "main"),
    [
        ({}, False, True),
        ({"WORLD_SIZE": "1"}, False, True),
        ({"WORLD_SIZE": "8"}, False, True),  # a scheduler's, not torchrun's
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, True, False),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, True, True),
    ],
)
def test_rank_is_known_before_the_others_are_met(environment, several, main):
    from humanoid_rl_sim.learning.ranks import is_main, started_by_torchrun

    assert started_by_torchrun(environment) is several and is_main(environment) is main
