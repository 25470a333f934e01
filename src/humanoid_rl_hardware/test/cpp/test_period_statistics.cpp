#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "humanoid_rl_hardware/period_statistics.hpp"

namespace humanoid_rl_hardware {
namespace {

TEST(PeriodStatistics, ErrorsAreThoseOfThePeriodsSeen) {
  PeriodStatistics statistics(0.002);
  double now = 5.0;
  for (int i = 0; i < 100; ++i) {
    statistics.tick(now);
    now += 0.002 + (i < 98 ? 0.0001 : -0.0003);
  }
  const PeriodErrors errors = statistics.errors();  // 98 of 0.1 ms, one of 0.3 ms
  EXPECT_NEAR(errors.p50, 0.0001, 1e-9);
  EXPECT_NEAR(errors.p99, 0.0001 + 0.02 * 0.0002, 1e-9);
  EXPECT_NEAR(errors.max, 0.0003, 1e-9);
}

TEST(PeriodStatistics, OnlyTheWindowCounts) {
  PeriodStatistics statistics(0.002, 0.1);
  statistics.tick(0.0);
  statistics.tick(1.0);
  EXPECT_NEAR(statistics.errors().max, 0.998, 1e-12);
  for (int i = 1; i <= 60; ++i) statistics.tick(1.0 + 0.002 * i);
  EXPECT_LT(statistics.errors().max, 1e-9);
}

TEST(PeriodStatistics, SilenceOnPurposeIsNoPeriod) {
  PeriodStatistics statistics(0.002);
  EXPECT_TRUE(std::isnan(statistics.errors().p99));
  statistics.tick(0.0);
  statistics.pause();
  statistics.tick(10.0);
  statistics.tick(10.002);
  EXPECT_LT(statistics.errors().max, 1e-9);
}

TEST(PeriodStatistics, RefusesPeriodsThatAreNone) {
  EXPECT_THROW(PeriodStatistics(0.0), std::invalid_argument);
  EXPECT_THROW(PeriodStatistics(0.002, -1.0), std::invalid_argument);
}

}  // namespace
}  // namespace humanoid_rl_hardware
