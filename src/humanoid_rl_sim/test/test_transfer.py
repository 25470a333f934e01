"""The same commands in two simulators, what a recorded robot did beside them, and when that is too far apart."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.learning import velocity_suite
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.environment import gain_set
from humanoid_rl_sim.transfer import measuring, open_loop
from humanoid_rl_sim.transfer.comparison import Measured, compare, divergence, joint_gap, table, violations
from humanoid_rl_sim.transfer.job import Job, write_arrays
from humanoid_rl_sim.transfer.measuring import measure
from humanoid_rl_sim.transfer.processes import ISAAC_VARIABLE, run_worker
from humanoid_rl_sim.transfer.recording import read_messages, read_recording
from humanoid_rl_sim.transfer.windows import PERIOD, WINDOW, cut

from humanoid_rl_core import unitree_hg_wire as wire

sys.path.insert(0, str(Path(__file__).parent))
from recorded_robot import BRAKED, record, tampered, write_bag

ROBOT = load_robot()
ELBOW = ROBOT.joint_names.index("left_elbow_joint")


def job(folder: Path, sim: str = "mujoco", **changes) -> Job:
    given = {"kind": "measure", "sim": sim, "result": str(folder / sim), "robot": "g1", "variant": "rev_1_0"}
    return Job(**(given | changes))


def policy(name: str) -> str:
    return str(share_dir() / "policies" / f"{name}.onnx")


# --- the same commands ---


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Half a second of g1_walk's commands, and what two simulators made of it."""
    folder = tmp_path_factory.mktemp("walked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_loop, "RECORDED", 0.5)
        patch.setattr(open_loop, "WARM_UP", 1.0)
        patch.setattr(velocity_suite, "EPISODE", 2.0)
        patch.setattr(velocity_suite, "COMMANDS", ((0.5, 0.0, 0.0),))
        reference = job(folder, kind="reference", policy=policy("g1_walk"))
        _, commands = measure(reference)
        write_arrays(folder / "commands.npz", commands)
        told = dataclasses.replace(
            reference, kind="measure", commands=str(folder / "commands.npz"), episodes=2
        )
        return [
            Measured(sim, *measure(dataclasses.replace(told, sim=sim)), 1.0)
            for sim in ("mujoco", "mujoco_warp")
        ]


def test_two_simulators_of_one_physics_stay_together(walked):
    for part, steps in (("policy", 25), ("air", 25)):
        found = divergence(*walked, part)
        assert found.joint_rms.shape == (steps + 1,) and found.joint_rms[0] == 0.0
        assert (
            found.joint_rms.max() < 2e-4
            and found.base_distance.max() < 1e-3
            and found.base_angle.max() < 1e-3
        )
        assert found.steps_together == np.inf


def test_they_have_walked_and_fallen(walked):
    for one in walked:
        base = one.arrays["policy.base_pos"]
        assert 0.1 < np.linalg.norm(base[-1, 0, :2] - base[0, 0, :2]) < 0.4  # told 0.5 m/s for 0.5 s
        assert np.ptp(one.arrays["policy.joint_pos"], axis=0).max() > 0.3
        fall = one.arrays["air.base_pos"][0, :, 2] - one.arrays["air.base_pos"][-1, :, 2]
        np.testing.assert_allclose(fall, 0.5 * 9.81 * open_loop.FALL**2, atol=0.05)


def test_the_suite_ran_in_both(walked):
    for one in walked:
        assert one.document["simulator"] == one.sim and one.document["episodes"] == 2
        assert one.document["survival"] == 1.0 and 0.0 < one.document["velocity_error_mps"] < 0.4


def test_weaker_motors_are_seen_at_their_joint(walked):
    """A simulator that is told another stiffness of one joint, and nothing else."""
    weak = dict(walked[1].arrays)
    changed = weak["air.joint_pos"].copy()
    changed[1:, :, ELBOW] += 0.03
    weak["air.joint_pos"] = changed
    found = divergence(walked[0], dataclasses.replace(walked[1], arrays=weak), "air")
    assert found.by_joint.argmax() == ELBOW
    assert found.by_joint[ELBOW] == pytest.approx(0.03 * np.sqrt(25 / 26), rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_no_robot_touches_itself_in_the_air(seed):
    task, _ = measuring.policy_of(job(Path(), policy=policy("g1_stand")))
    fall = open_loop.in_the_air(task, 4, seed=seed)
    simulator = make_simulator("mujoco", ROBOT, 4, timestep=task.physics_timestep, collision="full")
    simulator.set_gains(gain_set(task, ROBOT))
    seen = open_loop.replay(simulator, fall)
    assert not seen["self_contact"].any()
    moved = np.ptp(seen["joint_pos"], axis=0).max(0)
    assert (moved > 0.03).all() and moved.max() < 0.6  # every joint, and none wildly
    simulator.close()


def test_a_policy_that_falls_leaves_nothing_to_replay(monkeypatch):
    monkeypatch.setattr(open_loop, "WARM_UP", 2.5)
    task, _ = measuring.policy_of(job(Path(), policy=policy("g1_walk")))
    assert open_loop.record_policy(task, measuring.baseline, moves=True, seed=0) is None


def test_a_standing_policy_is_pushed_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "SWEEP_EPISODES", 4)
    told = job(tmp_path, kind="reference", policy=policy("g1_stand"), episodes=4)
    document, commands = measure(told)
    assert document["kind"] == "push" and 0.1 <= document["push_mps"] <= 1.6
    assert (
        np.abs(commands["policy.start.base_lin_vel"][:, :2]).max() > 0.1
    )  # pushed, or there would be nothing to see
    write_arrays(tmp_path / "commands.npz", commands)
    told = dataclasses.replace(told, kind="measure", push=5.0, commands=str(tmp_path / "commands.npz"))
    document, arrays = measure(told)
    assert document["standing"] == 1.0 and document["policy"] == document["baseline"] == 0.0
    assert arrays["policy.joint_pos"].shape == (101, commands["policy.targets"].shape[1], 29)


# --- what is too far apart ---


def simulator(sim: str, **document) -> Measured:
    return Measured(sim, {"simulator": sim, "kind": "velocity", **document}, {}, 1.0)


def pushed(sim: str, standing: float, policy: float) -> Measured:
    return simulator(
        sim, kind="push", standing=standing, policy=policy, baseline=0.4, push_mps=0.3, episodes=100
    )


def test_success_below_the_threshold_and_gaps_are_named():
    measured = [simulator("mujoco", success=1.0), simulator("isaac:newton", success=0.85)]
    result = compare(measured, reference=None, period=0.02, joints=ROBOT.joint_names)
    assert violations(result, threshold=0.9, gap=0.1) == [
        "isaac:newton: success 85.0% is below 90.0%",
        "mujoco and isaac:newton: success differs by 15.0%, more than 10.0%",
    ]
    assert violations(result, threshold=0.85, gap=0.15) == []


def test_pushes_are_judged_by_what_is_survived_in_mujoco():
    measured = [
        pushed("mujoco", 1.0, 0.8),
        pushed("mujoco_warp", 0.95, 0.88),
        pushed("isaac:newton", 1.0, 0.6),
    ]
    result = compare(measured, reference=0.8, period=0.02, joints=ROBOT.joint_names)
    assert [row["success"] for row in result["simulators"]] == pytest.approx([1.0, 0.95, 0.75])
    assert violations(result, threshold=0.9, gap=1.0) == ["isaac:newton: success 75.0% is below 90.0%"]


def test_a_robot_that_falls_by_itself_has_no_success():
    result = compare([pushed("mujoco", 0.3, 0.8)], reference=0.8, period=0.02, joints=ROBOT.joint_names)
    assert result["simulators"][0]["success"] == 0.3


# --- a recorded robot ---


@pytest.fixture(scope="module")
def messages():
    return record(ROBOT)


def replayed(path: Path, folder: Path):
    windows = cut(read_recording(path, ROBOT), ROBOT)
    write_arrays(folder / "recording.npz", windows.arrays())
    told = job(folder, recording=str(folder / "recording.npz"))
    return windows, Measured("mujoco", *measure(told), 1.0)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_was_recorded_is_read(storage, messages, tmp_path):
    bag = write_bag(tmp_path / "bag", messages, storage=storage)
    file = next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
    for path in (bag, file):
        found = read_messages(path)
        assert [len(found[topic]) for topic in ("/lowcmd", "/lowstate")] == [len(messages) // 2] * 2
        assert found["/lowstate"][7] == [entry[1:] for entry in messages if entry[0] == "/lowstate"][7]


def test_the_simulator_that_it_came_from_repeats_it(messages, tmp_path):
    windows, measured = replayed(write_bag(tmp_path / "bag", messages), tmp_path)
    assert windows.commands.robots == 5 and windows.commands.targets.shape[0] == round(WINDOW / PERIOD)
    assert BRAKED - 0.002 <= windows.time[0] < BRAKED + 0.01
    gap = joint_gap(measured, windows)
    assert gap.by_joint.max() < 0.01 and gap.over_time[0] < 1e-6
    result = compare([measured], reference=None, period=0.002, joints=ROBOT.joint_names, windows=windows)
    assert violations(result, threshold=0.9, gap=0.1, joint_gap=0.02) == []
    assert table(result)[0].startswith("recorded robot, 5 windows of 0.5 s")


def test_a_joint_that_was_read_wrong_is_found(messages, tmp_path):
    _, measured = replayed(write_bag(tmp_path / "bag", tampered(messages, ELBOW, 0.2)), tmp_path)
    windows = cut(read_recording(tmp_path / "bag", ROBOT), ROBOT)
    gap = joint_gap(measured, windows).by_joint
    assert gap.argmax() == ELBOW and gap[ELBOW] > 0.1
    assert np.delete(gap, ELBOW).max() < 0.02
    result = compare([measured], reference=None, period=0.002, joints=ROBOT.joint_names, windows=windows)
    (line,) = violations(result, threshold=0.9, gap=0.1, joint_gap=0.02)
    assert line.startswith("mujoco: left_elbow_joint differs from the recorded robot by 0.")


def test_a_message_that_is_not_whole_is_left_out(messages, tmp_path):
    damaged = [
        (topic, when, data[:-1] + bytes([data[-1] ^ 1])) if 400 <= index < 420 else (topic, when, data)
        for index, (topic, when, data) in enumerate(messages)
    ]
    recording = read_recording(write_bag(tmp_path / "bag", damaged), ROBOT)
    assert recording.dropped == 20 and len(recording.state_time) == len(messages) // 2 - 10
    # Ten states are missing, which nothing fills in: no window lies over them.
    begin, end = recording.state_time[np.diff(recording.state_time).argmax() + np.array([0, 1])]
    starts = cut(recording, ROBOT).time + recording.state_time[0]
    assert ((starts + WINDOW <= begin + 1e-6) | (starts >= end - 1e-6)).all()


@pytest.mark.parametrize("factor", [0.0, 0.9])
def test_windows_keep_to_the_gains_that_were_longest_in_force(factor, messages, tmp_path):
    changed = []
    for topic, when, data in messages:
        record = bytearray(data)
        if topic == "/lowcmd" and 1_200_000_000 <= when < 1_300_000_000:
            wire.low_cmd_record(record)["motor_cmd"]["kp"][ELBOW] *= factor
            wire.seal_low_cmd(record)
        changed.append((topic, when, bytes(record)))
    recording = read_recording(write_bag(tmp_path / "bag", changed), ROBOT)
    windows = cut(recording, ROBOT)
    starts = windows.time + recording.state_time[0]
    assert len(starts) == 5 and ((starts + WINDOW <= 1.2 + 1e-6) | (starts >= 1.3 - 1e-6)).all()
    np.testing.assert_allclose(windows.stiffness, ROBOT.gains["stiff"].stiffness, rtol=1e-6)


def without_stiffness(messages):
    damping = wire.LowCmdWriter(ROBOT.joint_count).damping(5)
    return [(topic, when, damping if topic == "/lowcmd" else data) for topic, when, data in messages]


def test_recordings_that_cannot_be_replayed_say_why(messages, tmp_path):
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as refused:
            cut(read_recording(path, ROBOT), ROBOT)
        return str(refused.value)

    assert "does not exist" in refusal(tmp_path / "nowhere.mcap")
    (tmp_path / "text.mcap").write_text("no recording\n")
    assert "text.mcap cannot be read as MCAP or rosbag2" in refusal(tmp_path / "text.mcap")
    (tmp_path / "empty").mkdir()
    assert "empty cannot be read" in refusal(tmp_path / "empty")
    states = [message for message in messages if message[0] == "/lowstate"]
    told = refusal(write_bag(tmp_path / "states", states))
    assert "has no /lowcmd of type unitree_hg/msg/LowCmd (topics: /lowstate)" in told
    assert "ros2 bag record /lowcmd /lowstate" in told
    whole = write_bag(tmp_path / "whole", messages)
    cropped = next(whole.glob("*.mcap")).read_bytes()[:100_000]
    (tmp_path / "cropped.mcap").write_bytes(cropped)
    assert "cropped.mcap cannot be read" in refusal(tmp_path / "cropped.mcap")
    assert "no command with stiffness" in refusal(write_bag(tmp_path / "damped", without_stiffness(messages)))
    assert "no 0.5 s without a gap" in refusal(write_bag(tmp_path / "short", messages[:200]))
    other = load_robot("g1", "rev_1_0")
    with pytest.raises(UserError, match=r"is of a robot with mode_machine 5 \(rev_1_0\), not of g1"):
        read_recording(whole, dataclasses.replace(other, mode_machine=(250,)))


# --- workers ---


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_isaac_lab_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(ISAAC_VARIABLE, raising=False)
    with pytest.raises(UserError, match="simulator isaac:newton needs Isaac Lab: run make isaac"):
        run_worker(job(tmp_path, "isaac:newton"))


@pytest.mark.parametrize(
    ("text", "how"),
    [("echo why; exit 3", "ended with code 3"), ("kill -9 $$", "SIGKILL"), ("exit 0", "without a result")],
)
def test_a_worker_that_dies_is_told_with_its_log(text, how, tmp_path, monkeypatch):
    monkeypatch.setenv(ISAAC_VARIABLE, str(script(tmp_path / "isaac", text)))
    with pytest.raises(UserError) as died:
        run_worker(job(tmp_path, "isaac:ovphysx", result=str(tmp_path / "isaac_ovphysx")))
    message = str(died.value)
    assert "isaac:ovphysx" in message and how in message and str(tmp_path / "isaac_ovphysx.log") in message
    assert "\n" not in message
    if "echo" in text:
        assert (tmp_path / "isaac_ovphysx.log").read_text() == "why\n"


def test_a_mistake_that_the_worker_finds_is_one_line(tmp_path):
    (tmp_path / "broken.onnx").write_text("no policy")
    with pytest.raises(UserError, match=r"simulator mujoco: .*broken.onnx") as refused:
        run_worker(job(tmp_path, policy=str(tmp_path / "broken.onnx")))
    assert "\n" not in str(refused.value)


def test_an_interrupt_ends_the_worker_and_what_it_started(tmp_path):
    runner = script(tmp_path / "isaac", f"sleep 600 & echo $! $$ > {tmp_path}/pids; trap '' TERM; wait")
    told = job(tmp_path, "isaac:newton", result=str(tmp_path / "isaac_newton"))
    told.write(tmp_path / "told.json")
    program = (
        "import signal; from pathlib import Path; from humanoid_rl_sim.transfer import job, processes\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); processes.GRACE = 0.5\n"
        f"processes.run_worker(job.Job.read(Path({str(tmp_path / 'told.json')!r})))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, ISAAC_VARIABLE: str(runner)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120.0
    while not (tmp_path / "pids").is_file() or len((tmp_path / "pids").read_text().split()) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]


def test_a_worker_leaves_what_it_measured(messages, tmp_path):
    write_arrays(
        tmp_path / "recording.npz",
        cut(read_recording(write_bag(tmp_path / "bag", messages), ROBOT), ROBOT).arrays(),
    )
    measured = run_worker(job(tmp_path, recording=str(tmp_path / "recording.npz")))
    assert measured.arrays["log.joint_pos"].shape == (251, 5, 29) and measured.seconds > 0.0
    assert json.loads((tmp_path / "mujoco.json").read_text()) == {"simulator": "mujoco"}
