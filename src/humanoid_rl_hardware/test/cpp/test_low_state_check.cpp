#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <stdexcept>

#include "humanoid_rl_hardware/low_state_check.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class LowStateCheckTest : public testing::Test {
 protected:
  LowStateCheckTest() {
    state_.mode_machine = 5;
    state_.tick = 2;
    state_.imu_state.quaternion = {1.0F, 0.0F, 0.0F, 0.0F};
  }

  std::string check() { return check_.text(check_.check(state_)); }

  std::string sealed_check() {
    seal(state_);
    return check();
  }

  LowStateCheck check_{{6, 5}, 29};
  LowState state_;
};

TEST_F(LowStateCheckTest, TakesAStateOneCanControlOn) {
  EXPECT_EQ(check_.mode_machine(), 0);
  EXPECT_EQ(sealed_check(), "");
  EXPECT_EQ(check_.mode_machine(), 5);
  EXPECT_EQ(check_.rejected(), 0U);
}

TEST_F(LowStateCheckTest, TakesAFirstStateWhateverItsTick) {
  state_.tick = 0;
  EXPECT_EQ(sealed_check(), "");
}

TEST_F(LowStateCheckTest, RefusesWithTheReason) {
  EXPECT_EQ(check(), "wrong CRC");
  state_.mode_machine = 9;
  EXPECT_EQ(sealed_check(), "mode_machine 9, this robot description is right for 5, 6");
  state_.mode_machine = 5;
  state_.imu_state.quaternion = {};
  EXPECT_EQ(sealed_check(), "the IMU quaternion is no rotation");
  EXPECT_EQ(check_.rejected(), 3U);
  EXPECT_EQ(check_.mode_machine(), 0);
}

TEST_F(LowStateCheckTest, RefusesWhatIsNotFinite) {
  const std::vector<std::function<float&(LowState&)>> places{
      [](LowState& s) -> float& { return s.motor_state[28].q; },
      [](LowState& s) -> float& { return s.motor_state[28].dq; },
      [](LowState& s) -> float& { return s.motor_state[28].tau_est; },
      [](LowState& s) -> float& { return s.imu_state.quaternion[3]; },
      [](LowState& s) -> float& { return s.imu_state.gyroscope[2]; },
      [](LowState& s) -> float& { return s.imu_state.accelerometer[2]; }};
  for (const auto& place : places) {
    for (const float value : {kNan, kInf, -kInf}) {
      const float before = place(state_);
      place(state_) = value;
      EXPECT_EQ(sealed_check(), "a joint or IMU value is not finite");
      place(state_) = before;
    }
  }
  state_.motor_state[29].q = kNan;  // no motor of this robot
  EXPECT_EQ(sealed_check(), "");
}

TEST_F(LowStateCheckTest, RefusesATickThatStandsStillAndTakesOneThatWraps) {
  state_.tick = 0xFFFFFFFF;
  EXPECT_EQ(sealed_check(), "");
  EXPECT_EQ(sealed_check(), "tick stands still at 4294967295");
  state_.tick = 0;
  EXPECT_EQ(sealed_check(), "");
}

TEST(LowStateCheckConstruction, RefusesWhatAllowsNothing) {
  EXPECT_THROW(LowStateCheck({}, 29), std::invalid_argument);
  EXPECT_THROW(LowStateCheck({5}, 0), std::invalid_argument);
  EXPECT_THROW(LowStateCheck({5}, kMotorSlots + 1), std::invalid_argument);
}

}  // namespace
}  // namespace humanoid_rl_hardware
