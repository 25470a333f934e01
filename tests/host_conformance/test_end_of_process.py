"""Rule H8 for the host's own end: damping is the last thing on the wire, and the exit is clean."""

from __future__ import annotations

import signal

import pytest

from .bench import Bench, final_damping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_h8_a_host_asked_to_end_damps_and_exits_cleanly(own_bench: Bench, number: signal.Signals) -> None:
    own_bench.follow()
    own_bench.pause(0.1)
    assert own_bench.host.stop(number) == own_bench.host.clean_exit(number)
    own_bench.pause(0.2)
    commands = own_bench.wire.commands()
    assert not all(command.damping for command in commands)
    assert final_damping(commands) > 0.08
    assert "Traceback" not in own_bench.host.output


def test_h8_a_host_asked_to_end_before_activation_sends_nothing(own_bench: Bench) -> None:
    own_bench.pause(0.1)
    assert own_bench.host.stop(signal.SIGTERM) == own_bench.host.clean_exit(signal.SIGTERM)
    assert own_bench.wire.commands() == []
    assert "Traceback" not in own_bench.host.output
