"""Rule H9: cycles that did not happen are counted. In a module of its own: one host, alone in its DDS domain."""

from .bench import CYCLE, Bench, wait_for

STOPPED = 0.2
"""s for which the host's process is stopped."""


def test_cycles_that_did_not_happen_are_counted(own_bench: Bench) -> None:
    own_bench.follow()
    before = own_bench.status().deadline_misses
    own_bench.host.suspend(STOPPED)
    wait_for(
        lambda: own_bench.status().deadline_misses - before > 0.9 * STOPPED / CYCLE,
        f"{STOPPED / CYCLE:g} cycles missed",
    )
