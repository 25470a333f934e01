"""Rule H9's figures."""

import math

import pytest
from humanoid_rl_hardware.period_statistics import PeriodStatistics


def test_errors_are_those_of_the_periods_seen() -> None:
    statistics = PeriodStatistics(0.002)
    now = 5.0
    for count in range(1001):
        statistics.tick(now)
        now += 0.002 + (0.0001 if count % 2 else -0.0003)
    errors = statistics.errors()
    assert errors.p50 == pytest.approx(0.0002, abs=1e-4)
    assert errors.p99 == pytest.approx(0.0003, abs=1e-9)
    assert errors.max == pytest.approx(0.0003, abs=1e-9)


def test_only_the_window_counts() -> None:
    statistics = PeriodStatistics(0.002, window=0.1)
    statistics.tick(0.0)
    statistics.tick(1.0)
    assert statistics.errors().max == pytest.approx(0.998)
    for count in range(60):
        statistics.tick(1.0 + 0.002 * (count + 1))
    assert statistics.errors().max < 1e-9


def test_silence_on_purpose_is_no_period() -> None:
    statistics = PeriodStatistics(0.002)
    assert math.isnan(statistics.errors().p99)
    statistics.tick(0.0)
    statistics.pause()
    statistics.tick(10.0)
    statistics.tick(10.002)
    assert statistics.errors().max < 1e-9
