"""A training in Isaac Lab can be watched by Isaac Lab's own visualizers."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from humanoid_rl_core.robot import load_robot
from humanoid_rl_sim.simulators.registry import make_simulator

PAGE = "http://localhost:8080"
"""Where viser serves it."""


@pytest.mark.parametrize("engine", ["ovphysx", "newton"])
def test_viser_shows_the_robots_while_they_are_stepped(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = make_simulator(f"isaac:{engine}", load_robot(), 2, timestep=0.005, visualizer="viser")
    try:
        (shown,) = simulator._context.visualizers
        steps: list[float] = []
        step = shown.step
        monkeypatch.setattr(shown, "step", lambda dt: (steps.append(dt), step(dt))[1])
        for observed in (True, False, True):
            simulator.advance(4, observed=observed)
        assert len(steps) == 2
        with urlopen(PAGE, timeout=10) as page:
            assert page.status == 200 and b"viser" in page.read().lower()
    finally:
        simulator.close()
