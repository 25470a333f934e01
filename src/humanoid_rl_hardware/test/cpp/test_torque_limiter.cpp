#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "humanoid_rl_hardware/torque_limiter.hpp"
#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr double kLimit = 50.0 * (1.0 - kRoundingMargin);

JointLimits one_joint() { return {{-1.0}, {1.0}, {20.0}, {50.0}}; }

JointTargets targets_of(double position, double velocity, double effort, double stiffness, double damping) {
  JointTargets targets;
  targets.position[0] = position;
  targets.velocity[0] = velocity;
  targets.effort[0] = effort;
  targets.stiffness[0] = stiffness;
  targets.damping[0] = damping;
  return targets;
}

double torque(const JointTargets& t, double q, double dq) {
  return t.stiffness[0] * (t.position[0] - q) + t.damping[0] * (t.velocity[0] - dq) + t.effort[0];
}

JointTargets clamped(JointTargets targets, double q, double dq) {
  TorqueLimiter(one_joint()).clamp(targets, &q, &dq);
  return targets;
}

TEST(TorqueLimiter, LeavesACommandInsideAllLimitsAlone) {
  const JointTargets sent = clamped(targets_of(0.5, 1.0, 2.0, 40.0, 3.0), 0.4, -0.2);
  EXPECT_EQ(sent.position[0], 0.5);
  EXPECT_EQ(sent.velocity[0], 1.0);
  EXPECT_EQ(sent.effort[0], 2.0);
  EXPECT_EQ(sent.stiffness[0], 40.0);
  EXPECT_EQ(sent.damping[0], 3.0);
}

TEST(TorqueLimiter, ClampsEachQuantityToItsOwnLimit) {
  const JointTargets high = clamped(targets_of(9.0, 99.0, 999.0, 0.0, 0.0), 0.0, 0.0);
  EXPECT_EQ(high.position[0], 1.0);
  EXPECT_EQ(high.velocity[0], 20.0);
  EXPECT_EQ(high.effort[0], kLimit);
  const JointTargets low = clamped(targets_of(-9.0, -99.0, -999.0, 0.0, 0.0), 0.0, 0.0);
  EXPECT_EQ(low.position[0], -1.0);
  EXPECT_EQ(low.velocity[0], -20.0);
  EXPECT_EQ(low.effort[0], -kLimit);
}

TEST(TorqueLimiter, MovesAFarTargetTowardsTheJointUntilTheTorqueIsTheLimit) {
  const JointTargets sent = clamped(targets_of(1.0, 0.0, 0.0, 1000.0, 1.0), 0.0, 0.0);
  EXPECT_NEAR(torque(sent, 0.0, 0.0), kLimit, 1e-9);
  EXPECT_EQ(sent.stiffness[0], 1000.0);
  EXPECT_EQ(sent.damping[0], 1.0);
}

TEST(TorqueLimiter, WeakensDampingBeyondTheLimitAndLeavesNoPush) {
  const JointTargets sent = clamped(targets_of(0.3, 0.0, 0.0, 0.0, 50.0), 0.3, 20.0);
  EXPECT_NEAR(torque(sent, 0.3, 20.0), -kLimit, 1e-9);
  EXPECT_NEAR(torque(sent, 0.3, 0.0), 0.0, 1e-12);
}

TEST(TorqueLimiter, PullsAJointPastItsLimitBackWithinTheEffortLimit) {
  const JointTargets sent = clamped(targets_of(0.0, 0.0, 0.0, 1000.0, 0.0), 1.2, 0.0);
  EXPECT_NEAR(torque(sent, 1.2, 0.0), -kLimit, 1e-9);
  EXPECT_LE(sent.position[0], 1.0);
}

TEST(TorqueLimiter, TargetAtItsLimitStaysInsideAfterRoundingToFloat32) {
  // 0.1 and -0.3 lie between two float32; the nearest of each is outside the range.
  const TorqueLimiter limiter({{-0.3}, {0.1}, {20.0}, {50.0}});
  ASSERT_LT(static_cast<double>(-0.3F), -0.3);
  ASSERT_GT(static_cast<double>(0.1F), 0.1);
  const double zero = 0.0;
  for (const double side : {-1e300, 1e300}) {
    JointTargets targets = targets_of(side, 0.0, 0.0, 0.0, 0.0);
    limiter.clamp(targets, &zero, &zero);
    LowCmd command;
    fill_command(command, 5, 1, targets);
    EXPECT_GE(static_cast<double>(command.motor_cmd[0].q), -0.3);
    EXPECT_LE(static_cast<double>(command.motor_cmd[0].q), 0.1);
  }
}

TEST(TorqueLimiter, HoldsEveryLimitInRandomStatesAndAppliedTwiceChangesNothing) {
  const TorqueLimiter limiter(one_joint());
  std::mt19937 random(3);
  const auto uniform = [&random](double most) {
    return std::uniform_real_distribution<>(-most, most)(random);
  };
  for (int i = 0; i < 20000; ++i) {
    JointTargets once = targets_of(uniform(3.0), uniform(40.0), uniform(100.0), std::abs(uniform(1000.0)),
                                   std::abs(uniform(100.0)));
    if (i % 3 == 0) once.stiffness[0] = 0.0;
    const double q = uniform(1.3);
    const double dq = uniform(30.0);
    limiter.clamp(once, &q, &dq);
    EXPECT_LE(std::abs(once.position[0]), 1.0);
    EXPECT_LE(std::abs(once.velocity[0]), 20.0);
    EXPECT_LE(std::abs(torque(once, q, dq)), kLimit * (1.0 + 1e-9));
    JointTargets twice = once;
    limiter.clamp(twice, &q, &dq);
    EXPECT_NEAR(twice.position[0], once.position[0], 1e-9);
    EXPECT_NEAR(twice.effort[0], once.effort[0], 1e-9);
    EXPECT_NEAR(twice.stiffness[0], once.stiffness[0], 1e-9);
    EXPECT_NEAR(twice.damping[0], once.damping[0], 1e-9);
  }
}

TEST(TorqueLimiter, RefusesLimitsThatMakeNoRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(TorqueLimiter({{}, {}, {}, {}}), std::invalid_argument);
  EXPECT_THROW(TorqueLimiter({{-1.0}, {1.0, 2.0}, {20.0}, {50.0}}), std::invalid_argument);
  EXPECT_THROW(TorqueLimiter({{1.0}, {-1.0}, {20.0}, {50.0}}), std::invalid_argument);
  EXPECT_THROW(TorqueLimiter({{-1.0}, {1.0}, {0.0}, {50.0}}), std::invalid_argument);
  EXPECT_THROW(TorqueLimiter({{-1.0}, {1.0}, {20.0}, {nan}}), std::invalid_argument);
}

}  // namespace
}  // namespace humanoid_rl_hardware
