"""The robot that is none, and the launch that is to take it for one: processes, each with its own discovery."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from humanoid_rl.launching.launch_files import ahead_of_others

FAKE_G1 = Path(__file__).with_name("fake_g1.py")
INTERFACE = "lo"
STARTED = "process started with pid"
END = 20.0
# As a user's shell may have them: discovery that the launch must not follow.
OTHER_DISCOVERY = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF",
    "ROS_STATIC_PEERS": "192.0.2.7",
    "ROS_DOMAIN_ID": "99",
}
DISCOVERY = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "ROS_LOCALHOST_ONLY", "ROS_DOMAIN_ID")


@functools.lru_cache
def alone() -> list[str]:
    """Prefix of a command that sees no processes but its own: other people's twins may run on this machine.

    Empty where the system does not permit that.
    """
    prefix = ["unshare", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    prefix += ["--pid", "--fork", "--mount-proc", "--kill-child"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=10)
        return prefix
    return []


class FakeG1:
    """`fake_g1.py` as a process. A context manager.

    Args:
        domain: DDS domain.
        options: words of its command line.
    """

    def __init__(self, domain: int, *options: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in DISCOVERY}
        # The robot's own settings, the only thing that it shares with the launch is the network.
        environment |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        self._process = subprocess.Popen(
            [*ahead_of_others(25), sys.executable, str(FAKE_G1), *options],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.history: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._reports.put(json.loads(line))

    def __enter__(self) -> Self:
        self.report()  # it is up
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def report(self, after: float = 0.0) -> dict[str, Any]:
        """The newest report, one made after that monotonic time."""
        while True:
            report = self._reports.get(timeout=END)
            while not self._reports.empty():
                self.history.append(report)
                report = self._reports.get()
            self.history.append(report)
            if report["time"] > after:
                return report

    def now(self) -> dict[str, Any]:
        """A report made from now on."""
        return self.report(time.monotonic())

    def order(self, words: str) -> None:
        """`press B`, `press`, `push_stick 0.5`, `unplug`, `fault drop_state`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()


class RealLaunch:
    """`humanoid-rl launch deploy robot:=real ...` as a process, with a terminal or without. A context manager.

    Args:
        arguments: launch arguments beside the defaults given here.
        log: for what it prints.
        terminal: gives it one, which `type_line` types on.
        prefix: of the command line, `alone` by default.
    """

    last: ClassVar[RealLaunch | None] = None

    def __init__(
        self, arguments: dict[str, str], log: Path, *, terminal: bool = False, prefix: list[str] | None = None
    ) -> None:
        self.log = log
        RealLaunch.last = self
        chosen = {"robot": "real", "viewer": "none", "host": "embedded", **arguments}
        words = [f"{key}:={value}" for key, value in chosen.items()]
        environment = {key: value for key, value in os.environ.items() if key not in DISCOVERY}
        environment |= {**OTHER_DISCOVERY, "PYTHONUNBUFFERED": "1"}
        self._master = -1
        slave = -1
        if terminal:
            self._master, slave = pty.openpty()

        wrapper = alone() if prefix is None else prefix
        self._wrapped = bool(wrapper)
        command = [
            *wrapper,
            sys.executable,
            "-m",
            "humanoid_rl",
            "launch",
            "deploy",
        ]
        if terminal:
            # A session of its own either way; this way with a terminal that /dev/tty leads to.
            command = ["setsid", "--ctty", *command]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *words],
                env=environment, stdin=slave if terminal else subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=not terminal,
            )  # fmt: skip
        if slave >= 0:
            os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                self.interrupt()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(END)
        finally:
            for pid in self._members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            if self._master >= 0:
                os.close(self._master)

    def _members(self) -> list[int]:
        return [pid for pid, session in _sessions() if session == self.process.pid]

    def interrupt(self) -> None:
        """As Ctrl-C at the launch alone; unshare does not hand signals on."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        target = int(children[0]) if self._wrapped and children else self.process.pid
        os.kill(target, signal.SIGINT)

    def kill_node(self, executable: str) -> None:
        """SIGKILL for one of its nodes."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self._members()}
        found = [pid for pid, command in commands.items() if f"/{executable}\0".encode() in command]
        assert len(found) == 1, commands
        os.kill(found[0], signal.SIGKILL)

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Until it has printed that."""
        deadline = time.monotonic() + timeout
        while text not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def read_terminal(self, until: str, timeout: float = 60.0) -> str:
        """What stands on the terminal, once that is there."""
        shown = b""
        os.set_blocking(self._master, False)
        deadline = time.monotonic() + timeout
        while until.encode() not in shown:
            assert time.monotonic() < deadline and self.process.poll() is None, shown.decode() + self.text()
            with contextlib.suppress(BlockingIOError):
                shown += os.read(self._master, 4096)
            time.sleep(0.02)
        return shown.decode()

    def type_line(self, line: str) -> None:
        """The operator types."""
        os.write(self._master, f"{line}\n".encode())

    def refusal(self, timeout: float = 60.0) -> str:
        """The one line with which it ended, having started nothing but the preflight."""
        code = self.process.wait(timeout)
        text = self.text()
        assert code == 1, text
        started = [line for line in text.splitlines() if STARTED in line and "robot_preflight" not in line]
        assert not started and "Traceback" not in text, text
        errors = [line for line in text.splitlines() if "Caught exception in launch" in line]
        assert len(errors) == 1, text
        return errors[0].partition("traceback): ")[2]


def _sessions() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[3])


class RepeatedCall:
    """Calls something every so many seconds in a thread of its own. A context manager."""

    def __init__(self, period: float, call: Callable[[], None]) -> None:
        self._period, self._call = period, call
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._call()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
