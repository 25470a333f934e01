#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "humanoid_rl_hardware/joint_targets.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Command {
  std::vector<std::string> names{"hip", "knee", "ankle"};
  std::vector<double> position{0.1, 0.2, 0.3};
  std::vector<double> velocity{1.1, 1.2, 1.3};
  std::vector<double> effort{2.1, 2.2, 2.3};
  std::vector<double> stiffness{3.1, 3.2, 3.3};
  std::vector<double> damping{4.1, 4.2, 4.3};
};

class JointMapTest : public testing::Test {
 protected:
  std::string take(const Command& command) {
    return map_.targets(command.names, command.position, command.velocity, command.effort, command.stiffness,
                        command.damping, targets_);
  }

  JointMap map_{{"hip", "knee", "ankle"}};
  JointTargets targets_;
  Command command_;
};

TEST_F(JointMapTest, MapsByNameInWhateverOrderTheyCome) {
  command_.names = {"ankle", "hip", "knee"};
  ASSERT_EQ(take(command_), "");
  EXPECT_EQ(targets_.position[0], 0.2);
  EXPECT_EQ(targets_.position[2], 0.1);
  EXPECT_EQ(targets_.velocity[1], 1.3);
  EXPECT_EQ(targets_.effort[1], 2.3);
  EXPECT_EQ(targets_.stiffness[0], 3.2);
  EXPECT_EQ(targets_.damping[2], 4.1);
}

TEST_F(JointMapTest, OrderLearnedFromOneCommandIsNotAppliedToAnother) {
  ASSERT_EQ(take(command_), "");
  std::swap(command_.names[0], command_.names[1]);
  ASSERT_EQ(take(command_), "");
  EXPECT_EQ(targets_.position[0], 0.2);
}

TEST_F(JointMapTest, CommandWithoutNamesIsRefusedEvenWhenNoneWasSeenBefore) {
  command_.names.clear();
  EXPECT_EQ(take(command_), "joint 'hip' is missing and 2 more");
  EXPECT_EQ(targets_.position[0], 0.0);
}

TEST_F(JointMapTest, WrongNamesAreRefused) {
  command_.names[1] = "kne";
  EXPECT_EQ(take(command_), "unknown joint 'kne'");
  command_.names[1] = "hip";
  EXPECT_EQ(take(command_), "joint 'hip' is named twice");
  command_.names = {"hip", "ankle"};
  EXPECT_EQ(take(command_), "joint 'knee' is missing");
}

TEST_F(JointMapTest, WrongValuesAreRefusedAndTheReasonNamesJointAndField) {
  const auto refusal = [this](auto change) {
    Command command;
    change(command);
    return take(command);
  };
  EXPECT_EQ(refusal([](Command& c) { c.effort.pop_back(); }), "effort has 2 values for 3 joints");
  EXPECT_EQ(refusal([](Command& c) { c.damping.push_back(0.0); }), "damping has 4 values for 3 joints");
  EXPECT_EQ(refusal([](Command& c) { c.position[1] = kNan; }), "position of 'knee' is nan");
  EXPECT_EQ(refusal([](Command& c) { c.position[1] = -kNan; }), "position of 'knee' is nan");
  EXPECT_EQ(refusal([](Command& c) { c.velocity[2] = -kInf; }), "velocity of 'ankle' is -inf");
  EXPECT_EQ(refusal([](Command& c) { c.stiffness[0] = kInf; }), "stiffness of 'hip' is inf");
  EXPECT_EQ(refusal([](Command& c) { c.stiffness[0] = 5e3; }),
            "stiffness of 'hip' is 5000, outside 0 to 1000 Nm/rad");
  EXPECT_EQ(refusal([](Command& c) { c.damping[2] = -0.1; }),
            "damping of 'ankle' is -0.1, outside 0 to 100 Nm s/rad");
}

TEST_F(JointMapTest, RefusedCommandLeavesTheTargetsAlone) {
  ASSERT_EQ(take(command_), "");
  command_.position = {9.0, 9.0, 9.0};
  command_.damping[2] = kNan;
  ASSERT_NE(take(command_), "");
  EXPECT_EQ(targets_.position[0], 0.1);
}

TEST(JointMapConstruction, RefusesNamesThatMakeNoRobot) {
  EXPECT_THROW(JointMap({}), std::invalid_argument);
  EXPECT_THROW(JointMap({"hip", "hip"}), std::invalid_argument);
  std::vector<std::string> many;
  for (std::size_t i = 0; i <= kMotorSlots; ++i) many.push_back(std::to_string(i));
  EXPECT_THROW(JointMap{many}, std::invalid_argument);
}

}  // namespace
}  // namespace humanoid_rl_hardware
