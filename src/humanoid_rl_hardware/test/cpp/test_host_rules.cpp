#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "humanoid_rl_hardware/host_rules.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int kShutdownCycles = 50;

/// A host on a clock that moves only when told.
class HostRulesTest : public testing::Test {
 protected:
  /// One cycle of 2 ms, with or without a fresh LowState and a joint command.
  Output cycle(bool state, bool command) {
    now_ += kCyclePeriod;
    if (state) state_time_ = now_;
    if (command) rules_.receive_targets(now_);
    return rules_.step(now_, now_ - state_time_);
  }

  void make_active() {
    ASSERT_TRUE(rules_.activate().success);
    cycle(true, false);
    ASSERT_EQ(cycle(true, true), Output::follow);
    ASSERT_EQ(rules_.state(), HostState::active);
  }

  int cycles_until_damping(bool state, bool command) {
    for (int count = 1; count < 1000; ++count) {
      if (cycle(state, command) == Output::damping) return count;
    }
    return -1;
  }

  HostRules rules_;
  double now_ = 100.0;
  double state_time_ = -kInf;
};

TEST_F(HostRulesTest, NothingIsSentBeforeActivation) {
  for (int i = 0; i < 50; ++i) EXPECT_EQ(cycle(true, true), Output::silent);
  EXPECT_EQ(rules_.state(), HostState::inactive);
}

TEST_F(HostRulesTest, NothingIsSentAfterActivationUntilAFreshStateArrives) {
  rules_.activate();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(cycle(false, true), Output::silent);
  EXPECT_EQ(rules_.state(), HostState::waiting_state);
  EXPECT_EQ(rules_.step(now_, 0.06), Output::silent);
  EXPECT_EQ(rules_.step(now_, kNan), Output::silent);
  EXPECT_EQ(cycle(true, false), Output::damping);
  EXPECT_EQ(rules_.state(), HostState::ready);
}

TEST_F(HostRulesTest, FirstCommandIsFollowedAndAnOlderOneIsNot) {
  cycle(true, true);
  rules_.activate();
  EXPECT_FALSE(rules_.receive_targets(now_));
  EXPECT_EQ(cycle(true, false), Output::damping);
  EXPECT_TRUE(rules_.receive_targets(now_));
  EXPECT_EQ(cycle(true, false), Output::follow);
}

TEST_F(HostRulesTest, HostThatNeverGotACommandDampsAndDoesNotLatch) {
  rules_.activate();
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(cycle(true, false), Output::damping);
  EXPECT_EQ(rules_.state(), HostState::ready);
}

TEST_F(HostRulesTest, CommandOlderThanThreePolicyPeriodsLatches) {
  make_active();
  EXPECT_EQ(cycles_until_damping(true, false), 31);
  EXPECT_EQ(rules_.cause().text(), "no valid joint command for 62 ms (limit 60 ms)");
}

TEST_F(HostRulesTest, RefusedCommandIsCountedAndDoesNotFeedTheClock) {
  make_active();
  for (int i = 0; i < 31; ++i) {
    rules_.refuse_targets();
    cycle(true, false);
  }
  EXPECT_EQ(rules_.state(), HostState::damping);
  EXPECT_EQ(rules_.rejected_commands(), 31U);
}

TEST_F(HostRulesTest, StateOlderThanFiftyMillisecondsLatches) {
  make_active();
  EXPECT_EQ(cycles_until_damping(false, true), 26);
  EXPECT_EQ(rules_.cause().text(), "no valid LowState for 52 ms (limit 50 ms)");
}

TEST_F(HostRulesTest, AgeThatIsNoNumberLatches) {
  make_active();
  EXPECT_EQ(rules_.step(now_, kNan), Output::damping);
  EXPECT_EQ(rules_.cause().kind, Cause::Kind::stale_state);
  EXPECT_FALSE(rules_.reset(kNan).success);
}

TEST_F(HostRulesTest, EstopDampsInTheSameCycle) {
  make_active();
  EXPECT_EQ(rules_.estop().message(), "damping: emergency stop");
  EXPECT_EQ(cycle(true, true), Output::damping);
  EXPECT_EQ(rules_.cause().text(), "emergency stop");
}

TEST_F(HostRulesTest, LatchHoldsAgainstEverythingButReset) {
  make_active();
  rules_.estop();
  for (int i = 0; i < 500; ++i) EXPECT_EQ(cycle(true, true), Output::damping);
  rules_.deactivate();
  for (int i = 0; i < kShutdownCycles; ++i) EXPECT_EQ(cycle(true, true), Output::damping);
  EXPECT_EQ(cycle(true, true), Output::silent);
  EXPECT_EQ(rules_.activate().message(), "latched: emergency stop; call /host/reset first");
  const Reply cleared = rules_.reset(0.0);
  EXPECT_TRUE(cleared.success);
  EXPECT_EQ(cleared.message(), "cleared: emergency stop");
  EXPECT_EQ(rules_.state(), HostState::inactive);
}

TEST_F(HostRulesTest, ResetLeadsToReadyAndTheOldCommandIsForgotten) {
  make_active();
  rules_.estop();
  cycle(true, true);
  EXPECT_TRUE(rules_.reset(now_ - state_time_).success);
  EXPECT_EQ(cycle(true, false), Output::damping);
  EXPECT_EQ(rules_.state(), HostState::ready);
  EXPECT_EQ(cycle(true, true), Output::follow);
}

TEST_F(HostRulesTest, ResetIsRefusedWhileTheStateIsStale) {
  make_active();
  cycles_until_damping(false, true);
  const Reply refusal = rules_.reset(now_ - state_time_);
  EXPECT_FALSE(refusal.success);
  EXPECT_EQ(refusal.message(), "no valid LowState within 50 ms; no valid LowState for 52 ms (limit 50 ms)");
  EXPECT_EQ(rules_.state(), HostState::damping);
}

TEST_F(HostRulesTest, FirstOfTwoCausesIsKept) {
  make_active();
  cycles_until_damping(true, false);
  rules_.estop();
  EXPECT_EQ(rules_.cause().kind, Cause::Kind::stale_command);
}

TEST_F(HostRulesTest, EstopBeforeActivationSendsNothingButForbidsActivation) {
  EXPECT_EQ(rules_.estop().message(), "latched, nothing is being sent");
  EXPECT_EQ(cycle(true, false), Output::silent);
  EXPECT_EQ(rules_.state(), HostState::damping);
  EXPECT_FALSE(rules_.activate().success);
  EXPECT_TRUE(rules_.reset(kInf).success);
  EXPECT_TRUE(rules_.activate().success);
}

TEST_F(HostRulesTest, DeactivationDampsForAWhileAndThenFallsSilent) {
  make_active();
  EXPECT_EQ(rules_.deactivate().message(), "deactivated, damping for 100 ms");
  EXPECT_EQ(rules_.cause().text(), "deactivating");
  for (int i = 0; i < kShutdownCycles; ++i) EXPECT_EQ(cycle(false, true), Output::damping);
  EXPECT_EQ(cycle(true, true), Output::silent);
  EXPECT_EQ(rules_.state(), HostState::inactive);
  EXPECT_EQ(rules_.deactivate().message(), "not activated");
}

TEST_F(HostRulesTest, ActivationDuringTheLastDampingCyclesStartsOver) {
  make_active();
  rules_.deactivate();
  cycle(true, false);
  EXPECT_EQ(rules_.activate().message(), "activated");
  EXPECT_EQ(rules_.activate().message(), "already activated");
  EXPECT_EQ(cycle(true, false), Output::damping);
  EXPECT_EQ(rules_.state(), HostState::ready);
}

TEST(HostRulesPeriods, ShutdownLastsAsLongAtAnyCyclePeriod) {
  HostRules rules(0.02, 0.05, 0.001);
  rules.activate();
  rules.step(1.0, 0.0);
  rules.deactivate();
  int cycles = 0;
  while (rules.step(1.0, 0.0) == Output::damping) ++cycles;
  EXPECT_EQ(cycles, 100);
}

TEST(HostRulesPeriods, ThatMakeNoSenseAreRefused) {
  EXPECT_THROW(HostRules(0.001), std::invalid_argument);
  EXPECT_THROW(HostRules(0.02, 1.1), std::invalid_argument);
  EXPECT_THROW(HostRules(0.02, kNan), std::invalid_argument);
  EXPECT_THROW(HostRules(0.02, 0.05, 0.0), std::invalid_argument);
  try {
    HostRules rules(0.0);
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(), "policy_period is 0 s, expected 0.002 to 1 s");
  }
}

}  // namespace
}  // namespace humanoid_rl_hardware
