"""What the embedded host does when its own code fails: damping first, then a message, then the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from humanoid_rl_core.robot import RobotModel
from rclpy.context import Context

from .bench import Bench, wait_for
from .hosts import EmbeddedHost

BREAK_THE_CYCLE = """
import sys
from humanoid_rl_hardware import embedded_host

class Failing(embedded_host.HostRules):
    followed = 0

    def step(self, now):
        output = super().step(now)
        self.followed += not isinstance(output, (embedded_host.Damping, type(None)))
        if self.followed > 5:
            raise ZeroDivisionError("provoked")
        return output

embedded_host.HostRules = Failing
sys.exit(embedded_host.main())
"""

BREAK_THE_SLOW_THREAD = """
import sys
from humanoid_rl_hardware import embedded_host

class Failing(embedded_host.EmbeddedHost):
    def _publish_diagnostics(self, *arguments):
        if self.rules.state >= embedded_host.HostState.ACTIVE:
            raise ZeroDivisionError("provoked")
        super()._publish_diagnostics(*arguments)

embedded_host.EmbeddedHost = Failing
sys.exit(embedded_host.main())
"""


@pytest.mark.parametrize("script", [BREAK_THE_CYCLE, BREAK_THE_SLOW_THREAD], ids=["cycle", "slow thread"])
def test_a_host_whose_code_fails_damps_before_it_ends(
    context: Context, robot: RobotModel, domain: int, tmp_path: Path, script: str
) -> None:
    class Failing(EmbeddedHost):
        def command(self) -> list[str]:
            return [sys.executable, "-c", script]

    bench = Bench(context, robot, lambda: Failing(tmp_path / "host.log", domain))
    try:
        bench.follow()
        wait_for(lambda: not bench.host.running, "the end of the host")
        assert bench.host.stop() == 1
        bench.pause(0.1)
        commands = bench.wire.commands()
        assert any(not command.damping for command in commands)
        assert all(command.damping for command in commands[-10:])
        assert "stopped after damping" in bench.host.output
    finally:
        bench.close()
