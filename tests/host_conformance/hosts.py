"""The hosts the suite can be run against: how each is started, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path


class HostProcess(ABC):
    """A host in a process of its own, not activated. It serves /host/{activate,deactivate,estop,reset}.

    :param log: file that takes what the host prints.
    :param domain: DDS domain to run in.
    """

    def __init__(self, log: Path, domain: int) -> None:
        self._log = log
        environment = os.environ | {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("w") as output:
            # A session of its own, so that a signal to the tests does not reach the host behind their back.
            self._process = subprocess.Popen(
                self.command(), env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @abstractmethod
    def command(self) -> list[str]:
        """What starts the host with policy period 20 ms and LowState timeout 50 ms."""

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return self._log.read_text(errors="replace")

    def clean_exit(self, number: signal.Signals) -> int:
        """Exit status of a host that was asked to end by this signal and did so in order."""
        return 0

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> int:
        """Asks the host to end and waits for it; its exit status."""
        if self.running:
            self._process.send_signal(number)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def suspend(self, duration: float) -> None:
        """Stops the host's processes, all threads of them, and lets them go on ``duration`` s later."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        time.sleep(duration)
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Ends the host, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class EmbeddedHost(HostProcess):
    """The Python host of humanoid_rl_hardware."""

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "humanoid_rl_hardware.embedded_host", "--ros-args"),
            *("-p", "policy_period:=0.02", "-p", "state_timeout:=0.05", "-p", "auto_activate:=false"),
        ]


class Ros2ControlHost(HostProcess):
    """controller_manager, UnitreeHgSystem and JointCommandController as the launch file starts them."""

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "humanoid_rl", "launch", "host"),
            *("host:=ros2_control", "policy_period:=0.02"),
        ]

    def clean_exit(self, number: signal.Signals) -> int:
        return 128 + number


HOSTS: dict[str, type[HostProcess]] = {"embedded": EmbeddedHost, "ros2_control": Ros2ControlHost}
