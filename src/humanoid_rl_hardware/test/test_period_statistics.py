"""Rule H9's figures."""

import math

import pytest
from humanoid_rl_hardware.period_statistics import PeriodStatistics, Schedule


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


def test_a_cycle_is_missed_when_it_begins_more_than_half_a_period_late() -> None:
    schedule = Schedule(0.002)
    schedule.start(1.0)
    assert schedule.next(1.0005) == pytest.approx(0.0015)
    schedule.begin(1.0029)
    assert schedule.misses == 0
    # Late by less than a period: the next one is where it was.
    assert schedule.next(1.0055) == 0.0
    schedule.begin(1.0055)
    assert schedule.misses == 1
    assert schedule.next(1.0056) == pytest.approx(0.0004)


def test_cycles_that_cannot_happen_any_more_are_missed_and_not_caught_up_with() -> None:
    schedule = Schedule(0.002)
    schedule.start(1.0)
    assert schedule.next(1.0121) == 0.0
    schedule.begin(1.0121)
    assert schedule.misses == 5
    assert schedule.next(1.0122) == pytest.approx(0.0019)
