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

import foreign_files
import numpy as np
import pytest
from humanoid_rl_core.errors import UserError
from humanoid_rl_core.foreign.importing import import_policy
from humanoid_rl_core.onnx_policy import OnnxPolicy
from humanoid_rl_core.resources import share_dir
from humanoid_rl_core.robot import Gains, load_robot
from humanoid_rl_sim.learning import velocity_suite
from humanoid_rl_sim.learning.actor import baseline
from humanoid_rl_sim.learning.evaluation import judged_policy
from humanoid_rl_sim.simulators.isaac_runner import ISAAC_VARIABLE
from humanoid_rl_sim.simulators.registry import make_simulator
from humanoid_rl_sim.tasks.configuration import load_task
from humanoid_rl_sim.transfer import measuring, open_loop
from humanoid_rl_sim.transfer.comparison import Measured, compare, divergence, joint_gap, table, violations
from humanoid_rl_sim.transfer.job import Job, read_arrays, write_arrays
from humanoid_rl_sim.transfer.measuring import measure
from humanoid_rl_sim.transfer.open_loop import OpenLoop
from humanoid_rl_sim.transfer.processes import run_worker
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
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("walked")


@pytest.fixture(scope="module")
def walked(folder):
    """Half a second of g1_walk's commands, and what two simulators made of it."""
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


def test_weaker_motors_are_seen_at_their_joint(walked, folder):
    """The fall again in a simulator that is told half the stiffness of one joint, and nothing else."""
    fall = OpenLoop.from_arrays(read_arrays(folder / "commands.npz"), "air")
    stiffness = fall.gains.stiffness.copy()
    stiffness[ELBOW] /= 2.0
    weak = dataclasses.replace(fall, gains=Gains(stiffness, fall.gains.damping))
    timestep = load_task("walk").physics_timestep
    simulator = make_simulator("mujoco", ROBOT, fall.robots, timestep=timestep, collision="full")
    try:
        seen = open_loop.replay(simulator, weak)
    finally:
        simulator.close()
    other = dataclasses.replace(walked[0], arrays={f"air.{name}": values for name, values in seen.items()})
    found = divergence(walked[0], other, "air")
    assert found.by_joint.argmax() == ELBOW
    assert found.by_joint[ELBOW] > 2.0 * np.delete(found.by_joint, ELBOW).max()


def test_gains_and_targets_of_the_replay_are_the_policys(walked, folder, imported_policy):
    walk = OnnxPolicy(policy("g1_walk"), ROBOT).contract
    for part in ("policy", "air"):
        commands = OpenLoop.from_arrays(read_arrays(folder / "commands.npz"), part)
        np.testing.assert_array_equal(commands.gains.stiffness, walk.stiffness)
        np.testing.assert_array_equal(commands.gains.damping, walk.damping)
    judged = judged_policy(imported_policy, "stand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_loop, "RECORDED", 0.04)
        patch.setattr(open_loop, "WARM_UP", 0.04)
        wanted, step = [], judged.policy.step
        judged.policy.step = lambda **sensors: wanted.append(step(**sensors)) or wanted[-1]
        recorded = open_loop.record_policy(judged.task, judged.actor, judged.gains, moves=False, seed=0)
    targets = np.array([output.joint_target for output in wanted[2 * recorded.robots :]])
    np.testing.assert_array_equal(recorded.targets.reshape(targets.shape), targets.astype(np.float32))
    np.testing.assert_array_equal(recorded.gains.stiffness, judged.policy.contract.stiffness)


@pytest.fixture
def imported_policy(tmp_path):
    """A policy of mjlab's, imported; gains of 10 to 38 Nm/rad in an order of its own."""
    foreign_files.mjlab_file(ROBOT, tmp_path / "foreign.onnx", foreign_files.mjlab_terms())
    import_policy(tmp_path / "foreign.onnx", tmp_path / "own.onnx", settings=foreign_files.MJLAB_SETTINGS)
    return tmp_path / "own.onnx"


@pytest.mark.parametrize("kind", ["reference", "measure"])
def test_an_imported_policy_is_refused_as_in_an_evaluation(imported_policy, tmp_path, kind):
    with pytest.raises(UserError, match="does not tell its task; name one with --task"):
        measure(job(tmp_path, kind=kind, policy=str(imported_policy)))
    settings = [s for s in foreign_files.MJLAB_SETTINGS if not s.startswith("control_period")]
    slow = tmp_path / "slow.onnx"
    import_policy(tmp_path / "foreign.onnx", slow, settings=[*settings, "control_period=0.04"])
    with pytest.raises(UserError, match=r"steps every 0\.04 s, but the task stand every 0\.02 s"):
        measure(job(tmp_path, kind=kind, policy=str(slow), task="stand"))


@pytest.mark.parametrize("seed", range(3))
def test_no_robot_touches_itself_in_the_air(seed):
    task, gains = load_task("stand"), ROBOT.gains["stiff"]
    fall = open_loop.in_the_air(task, gains, 4, seed=seed)
    simulator = make_simulator("mujoco", ROBOT, 4, timestep=task.physics_timestep, collision="full")
    seen = open_loop.replay(simulator, fall)
    assert not seen["self_contact"].any()
    moved = np.ptp(seen["joint_pos"], axis=0).max(0)
    assert (moved > 0.03).all() and moved.max() < 0.6  # every joint, and none wildly
    simulator.close()


def test_a_policy_that_falls_leaves_nothing_to_replay(monkeypatch):
    monkeypatch.setattr(open_loop, "WARM_UP", 2.5)
    task = load_task("walk")
    gains = ROBOT.gains[task.gains]
    assert open_loop.record_policy(task, baseline, gains, moves=True, seed=0) is None


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


def replay_of(sim: str, offset: float) -> Measured:
    """Four robots that stand for half a second, `offset` m aside from the fifth instant on."""
    position = np.zeros((26, 4, 3))
    position[5:] += offset
    arrays = {
        f"{part}.{name}": values
        for part in ("policy", "air")
        for name, values in (
            ("joint_pos", np.zeros((26, 4, 29))),
            ("base_pos", position),
            ("base_quat", np.tile([1.0, 0.0, 0.0, 0.0], (26, 4, 1))),
        )
    }
    return dataclasses.replace(simulator(sim, success=1.0), arrays=arrays)


def test_a_simulator_whose_replay_is_no_number_is_apart_and_named():
    whole, broken = replay_of("mujoco", 0.0), replay_of("isaac:newton", np.nan)
    assert divergence(whole, broken, "policy").steps_together == 5
    result = compare([whole, broken], reference=None, period=0.02, joints=ROBOT.joint_names)
    assert violations(result, threshold=0.9, gap=0.1) == [
        "isaac:newton: the replay of the fall came to values that are no numbers",
        "isaac:newton: the replay of the policy's targets came to values that are no numbers",
    ]
    whole = compare(
        [whole, replay_of("isaac:newton", 1.0)], reference=None, period=0.02, joints=ROBOT.joint_names
    )
    assert violations(whole, threshold=0.9, gap=0.1) == []


# --- a recorded robot ---


@pytest.fixture(scope="module")
def messages():
    return record(ROBOT)


def replayed(path: Path, folder: Path):
    windows = cut(read_recording(path, ROBOT))
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
    begin = ", ".join(f"{second:.2f}" for second in windows.time)
    assert table(result)[1] == f"windows begin at {begin} s; 0 messages left out"


def test_a_joint_that_was_read_wrong_is_found(messages, tmp_path):
    _, measured = replayed(write_bag(tmp_path / "bag", tampered(messages, ELBOW, 0.2)), tmp_path)
    windows = cut(read_recording(tmp_path / "bag", ROBOT))
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
    assert (
        recording.dropped == cut(recording).dropped == 20
        and len(recording.state_time) == len(messages) // 2 - 10
    )
    # Ten states are missing, which nothing fills in: no window lies over them.
    begin, end = recording.state_time[np.diff(recording.state_time).argmax() + np.array([0, 1])]
    starts = cut(recording).time + recording.state_time[0]
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
    windows = cut(recording)
    starts = windows.time + recording.state_time[0]
    assert len(starts) == 5 and ((starts + WINDOW <= 1.2 + 1e-6) | (starts >= 1.3 - 1e-6)).all()
    np.testing.assert_allclose(windows.commands.gains.stiffness, ROBOT.gains["stiff"].stiffness, rtol=1e-6)


def of_machine(messages, machine: int):
    """The same of a robot with another mode_machine."""
    changed = []
    for topic, when, data in messages:
        state = bytearray(data)
        if topic == "/lowstate":
            wire.low_state_record(state)["mode_machine"] = machine
            wire.seal_low_state(state)
        changed.append((topic, when, bytes(state)))
    return changed


def test_a_recording_tells_which_variant_it_is_of(messages, tmp_path):
    bag = write_bag(tmp_path / "bag", of_machine(messages, 15))
    assert read_recording(bag, "g1").robot.variant == "mode_15"
    assert read_recording(bag, load_robot("g1", "mode_15")).robot.variant == "mode_15"
    with pytest.raises(UserError, match=r"mode_machine 15 \(mode_15\), not of g1 rev_1_0"):
        read_recording(bag, ROBOT)
    with pytest.raises(
        UserError, match=r"mode_machine 77, which is that of no variant of g1: config/robot/g1.yaml"
    ):
        read_recording(write_bag(tmp_path / "unknown", of_machine(messages, 77)), "g1")


def without_stiffness(messages):
    damping = wire.LowCmdWriter(ROBOT.joint_count).damping(5)
    return [(topic, when, damping if topic == "/lowcmd" else data) for topic, when, data in messages]


def test_recordings_that_cannot_be_replayed_say_why(messages, tmp_path):
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as refused:
            cut(read_recording(path, ROBOT))
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
    with pytest.raises(
        UserError, match="simulator isaac:newton needs the environment of Isaac Lab: run make isaac"
    ):
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


def test_a_worker_that_fails_ends_whatever_its_engine_left_running(tmp_path):
    """A thread that never ends keeps the usual end of an interpreter waiting."""
    program = (
        "import sys, threading, time\n"
        "from humanoid_rl_sim.transfer import worker\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        f"sys.argv = ['worker', {str(tmp_path / 'nowhere.json')!r}]\n"
        "worker.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr and "nowhere.json" in done.stderr


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
        cut(read_recording(write_bag(tmp_path / "bag", messages), ROBOT)).arrays(),
    )
    measured = run_worker(job(tmp_path, recording=str(tmp_path / "recording.npz")))
    assert measured.arrays["log.joint_pos"].shape == (251, 5, 29) and measured.seconds > 0.0
    assert json.loads((tmp_path / "mujoco.json").read_text()) == {"simulator": "mujoco"}
