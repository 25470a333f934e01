"""What becomes of the processes of a launch: ends, reasons, exit codes, and nobody left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from humanoid_rl.deployment import LaunchProcess

LAUNCH_FILE = """
from humanoid_rl.launching.supervised_node import supervised_node
from launch import LaunchDescription
from launch.actions import ExecuteProcess

def generate_launch_description():
    return LaunchDescription([{nodes}])
"""
NODES = {
    "steady": "#!/bin/sh\necho steady; exec sleep 60\n",
    "stubborn": "#!/bin/sh\ntrap '' INT TERM\necho stubborn\nwhile :; do sleep 0.1; done\n",
    "failing": "#!/bin/sh\nsleep 0.5; exit 3\n",
    "finishing": "#!/bin/sh\nsleep 0.5; exit 0\n",
}
END = 20.0


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ROS package `small` with the NODES, and a place for launch files."""
    share = tmp_path / "share"
    for folder in ("config", "urdf", "launch"):
        (share / folder).mkdir(parents=True)
    prefix = tmp_path / "prefix"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "small").touch()
    executables = prefix / "lib" / "small"
    executables.mkdir(parents=True)
    for name, text in NODES.items():
        (executables / name).write_text(text)
        (executables / name).chmod(0o755)
    monkeypatch.setenv("HUMANOID_RL_SHARE", str(share))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}")
    return tmp_path


def launched(workspace: Path, *nodes: str) -> LaunchProcess:
    """A launch of nodes given as `name` or `name, keyword=value`."""
    actions = []
    for node in nodes:
        name, _, keywords = node.partition(", ")
        actions.append(f'supervised_node("small", "{name}", {keywords})')
    path = workspace / "share" / "launch" / "some.launch.py"
    path.write_text(LAUNCH_FILE.format(nodes=", ".join(actions)))
    return LaunchProcess("some", {}, workspace / "launch.log")


def wait_for_line(launch: LaunchProcess, text: str) -> None:
    deadline = time.monotonic() + END
    while text not in launch.log.read_text():
        launch.check_alive()
        assert time.monotonic() < deadline, launch.log.read_text()
        time.sleep(0.05)


def ended(launch: LaunchProcess) -> int:
    assert launch.process is not None
    return launch.process.wait(END)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signalled_launch_ends_its_children(number: signal.Signals, code: int, workspace: Path) -> None:
    with launched(workspace, "steady") as launch:
        wait_for_line(launch, "] steady")
        os.kill(launch.pid, number)
        assert ended(launch) == code
        assert launch.members() == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_plain_process_of_somebody_else_s_launch_file_ends_too(
    number: signal.Signals, code: int, workspace: Path
) -> None:
    launched(workspace)
    path = workspace / "share" / "launch" / "some.launch.py"
    plain = 'ExecuteProcess(cmd=["sh", "-c", "echo steady; exec sleep 60"], output="screen")'
    path.write_text(LAUNCH_FILE.format(nodes=plain))
    with LaunchProcess("some", {}, workspace / "launch.log") as launch:
        wait_for_line(launch, "] steady")
        os.kill(launch.pid, number)
        assert ended(launch) == code
        assert launch.members() == {}


def test_child_that_ignores_signals_is_killed(workspace: Path) -> None:
    with launched(workspace, "stubborn, patience=0.5") as launch:
        wait_for_line(launch, "] stubborn")
        os.kill(launch.pid, signal.SIGINT)
        assert ended(launch) == 130
        time.sleep(0.3)  # the sleep that the killed shell was waiting for
        assert launch.members() == {}


def test_children_of_a_killed_launch_end_too(workspace: Path) -> None:
    with launched(workspace, "steady") as launch:
        wait_for_line(launch, "] steady")
        os.kill(launch.pid, signal.SIGKILL)
        deadline = time.monotonic() + END
        while launch.members() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert launch.members() == {}


def test_essential_node_that_dies_ends_the_launch_with_its_reason(workspace: Path) -> None:
    with launched(workspace, "steady", "failing") as launch:
        assert ended(launch) == 1
        assert launch.members() == {}
        log = launch.log.read_text()
        assert "failing ended with exit code 3: ending the launch" in log
        assert "Traceback" not in log


def test_other_nodes_go_on_for_the_grace_of_the_one_that_died(workspace: Path) -> None:
    with launched(workspace, "steady", "failing, grace=2.0") as launch:
        wait_for_line(launch, "the launch ends in 2 s")
        begin = time.monotonic()
        assert any("sleep 60" in line for line in launch.members().values())
        assert ended(launch) == 1
        assert time.monotonic() - begin > 1.5


def test_node_that_may_finish_ends_the_launch_well(workspace: Path) -> None:
    with launched(workspace, "steady", "finishing, may_finish=True") as launch:
        assert ended(launch) == 0
        assert launch.members() == {}


def test_inessential_node_that_dies_ends_nothing_but_is_told(workspace: Path) -> None:
    with launched(workspace, "steady", "failing, essential=False") as launch:
        wait_for_line(launch, "exit code 3")
        time.sleep(0.5)
        launch.check_alive()
        os.kill(launch.pid, signal.SIGINT)
        assert ended(launch) == 130


def test_launch_whose_only_node_failed_fails(workspace: Path) -> None:
    with launched(workspace, "failing, essential=False") as launch:
        assert ended(launch) == 1
        assert "failing-1 ended with exit code 3" in launch.log.read_text()


def test_launch_of_a_killed_program_ends(workspace: Path, python_m_humanoid_rl: list[str]) -> None:
    """A program that started a deployment and is killed outright leaves none behind."""
    launched(workspace, "steady")
    program = (
        "import time, pathlib; from humanoid_rl.deployment import LaunchProcess\n"
        f"with LaunchProcess('some', {{}}, pathlib.Path({str(workspace / 'launch.log')!r})) as launch:\n"
        "    print(launch.pid, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([python_m_humanoid_rl[0], "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    session = int(process.stdout.readline())
    orphan = LaunchProcess("some", {}, workspace / "launch.log")
    deadline = time.monotonic() + END
    while "] steady" not in orphan.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while Path(f"/proc/{session}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{session}").exists()
    assert "] steady" in orphan.log.read_text()


def test_view_serves_the_browser_until_ctrl_c(tmp_path: Path, domain: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = {"viewer": "web", "port": str(port)}
    with LaunchProcess("view", arguments, tmp_path / "launch.log", domain) as launch:
        deadline = time.monotonic() + 60.0
        while True:
            launch.check_alive()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5.0) as page:
                    assert page.status == 200
                    break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        os.kill(launch.pid, signal.SIGINT)
        assert ended(launch) == 130
        assert launch.members() == {}


def test_training_launch_ends_well_with_a_model_and_is_stopped_with_a_checkpoint(
    tmp_path: Path, domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMANOID_RL_RUNS", str(tmp_path / "runs"))
    arguments = {"task": "stand", "num_envs": "16", "steps": "1", "name": "mine"}
    with LaunchProcess("train", arguments, tmp_path / "first.log", domain) as launch:
        assert launch.process is not None
        assert launch.process.wait(120.0) == 0, launch.log.read_text()
        assert launch.members() == {}
    run = tmp_path / "runs" / "mine"
    assert (run / "best" / "model.zip").is_file() and list((run / "checkpoints").glob("*.zip"))

    # Going on needs nothing but the name, and Ctrl-C costs nothing that was learnt.
    before = set((run / "checkpoints").glob("*.zip"))
    arguments = {"name": "mine", "resume": "true", "steps": "1000000"}
    with LaunchProcess("train", arguments, tmp_path / "second.log", domain) as launch:
        rows = len((run / "progress.csv").read_text().splitlines())
        deadline = time.monotonic() + 120.0
        while len((run / "progress.csv").read_text().splitlines()) < rows + 2:
            launch.check_alive()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(launch.pid, signal.SIGINT)
        assert launch.process is not None and launch.process.wait(60.0) == 130
        assert launch.members() == {}
    assert set((run / "checkpoints").glob("*.zip")) - before
