"""Late ticks, latencies and period errors are counted right."""

import math

import pytest
from humanoid_rl_inference.tick_statistics import TickStatistics

PERIOD = 0.02


def test_tick_is_late_beyond_half_a_period() -> None:
    statistics = TickStatistics(PERIOD, 50)
    statistics.begin(1.0, 1.0099)
    assert (statistics.deadline_misses, statistics.late_ticks) == (0, 0)
    statistics.begin(1.02, 1.0301)
    assert (statistics.deadline_misses, statistics.late_ticks) == (1, 1)


def test_left_out_ticks_count_as_late() -> None:
    statistics = TickStatistics(PERIOD, 50)
    statistics.begin(1.0, 1.0, left_out=3)
    assert (statistics.ticks, statistics.deadline_misses, statistics.late_ticks) == (1, 3, 3)


def test_late_ticks_leave_the_window_but_stay_in_the_count() -> None:
    statistics = TickStatistics(PERIOD, 5)
    statistics.begin(0.0, 0.015)
    for i in range(1, 5):
        statistics.begin(i * PERIOD, i * PERIOD)
        assert statistics.late_ticks == 1
    statistics.begin(0.1, 0.1)
    assert (statistics.late_ticks, statistics.deadline_misses) == (0, 1)


def test_reset_forgives_late_ticks() -> None:
    statistics = TickStatistics(PERIOD, 5)
    statistics.begin(0.0, 0.0, left_out=5)
    statistics.forgive()
    statistics.begin(0.02, 0.02)
    assert statistics.late_ticks == 0


def test_figures_are_of_the_last_thousand_ticks() -> None:
    statistics = TickStatistics(PERIOD, 50)
    assert math.isnan(statistics.refresh().latency_p50)
    begin = 0.0
    for i in range(1500):
        begin += PERIOD + (0.001 if i == 1400 else 0.0)
        statistics.begin(begin, begin)
        statistics.published(9.0 if i < 500 else 0.001 + 1e-6 * (i - 500), 0.0005)
    figures = statistics.refresh()
    assert figures.latency_max == pytest.approx(0.001999)
    assert figures.latency_p50 == pytest.approx(0.0014995)
    assert figures.latency_p99 == pytest.approx(0.00198901)
    assert figures.computation_p99 == pytest.approx(0.0005)
    assert figures.period_error_p99 < 0.0005


def test_latency_without_a_sample_is_left_out() -> None:
    statistics = TickStatistics(PERIOD, 50)
    statistics.published(math.nan, 0.0005)
    statistics.published(0.001, 0.0005)
    assert statistics.refresh().latency_max == 0.001
