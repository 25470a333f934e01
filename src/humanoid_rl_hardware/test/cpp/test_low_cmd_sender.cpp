#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "humanoid_rl_hardware/low_cmd_sender.hpp"

namespace humanoid_rl_hardware {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMotors = 29;
constexpr std::uint8_t kModeMachine = 5;

struct Sent {
  Clock::time_point time;
  LowCmd command;
  bool damping() const { return command.motor_cmd[0].kp == 0.0F && command.motor_cmd[0].kd == kDampingKd; }
};

/// A sender and what it published.
class LowCmdSenderTest : public testing::Test {
 protected:
  void publish(const LowCmd& command) {
    const std::lock_guard<std::mutex> lock(mutex_);
    sent_.push_back({Clock::now(), command});
  }
  std::vector<Sent> sent() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return sent_;
  }
  void post(Output output, double stiffness = 20.0) {
    WireOrder order;
    order.output = output;
    order.mode_machine = kModeMachine;
    order.targets.stiffness.fill(stiffness);
    sender_.post(order);
  }
  void post_for(std::chrono::milliseconds duration, Output output) {
    for (const auto end = Clock::now() + duration; Clock::now() < end; std::this_thread::sleep_for(2ms))
      post(output);
  }

  std::mutex mutex_;
  std::vector<Sent> sent_;
  LowCmdSender sender_{kMotors, 2ms, [this](const LowCmd& command) { publish(command); }};
};

TEST_F(LowCmdSenderTest, ClosedItSendsNothing) {
  post_for(30ms, Output::follow);
  EXPECT_TRUE(sent().empty());
}

TEST_F(LowCmdSenderTest, EveryOrderIsSentSealedWithTheMachinesMode) {
  sender_.open();
  for (int i = 0; i < 20; ++i) {
    post(Output::follow, 10.0 + i);
    std::this_thread::sleep_for(5ms);
  }
  const auto commands = sent();
  ASSERT_EQ(commands.size(), 20u);
  EXPECT_EQ(sender_.sent(), 20u);
  for (std::size_t i = 0; i < commands.size(); ++i) {
    EXPECT_TRUE(crc_ok(commands[i].command));
    EXPECT_EQ(commands[i].command.mode_machine, kModeMachine);
    EXPECT_EQ(commands[i].command.motor_cmd[0].kp, 10.0F + static_cast<float>(i));
    EXPECT_EQ(commands[i].command.motor_cmd[kMotors].mode, 0);
  }
}

TEST_F(LowCmdSenderTest, SilentOrdersSendNothing) {
  sender_.open();
  post_for(150ms, Output::silent);
  EXPECT_TRUE(sent().empty());
  EXPECT_EQ(sender_.stalls(), 0u);
}

TEST_F(LowCmdSenderTest, ALoopThatStopsPostingIsTakenOverWithDamping) {
  sender_.open();
  post_for(20ms, Output::follow);
  const auto stopped = Clock::now();
  std::this_thread::sleep_for(200ms);
  std::size_t taken_over = 0;
  for (const auto& command : sent()) {
    if (command.time < stopped + 10ms) continue;
    EXPECT_TRUE(command.damping());
    EXPECT_GT(command.time - stopped, 45ms);
    ++taken_over;
  }
  EXPECT_GT(taken_over, 30u);
  EXPECT_EQ(sender_.stalls(), 1u);
  // The loop is back.
  post_for(20ms, Output::follow);
  EXPECT_FALSE(sent().back().damping());
}

TEST_F(LowCmdSenderTest, ClosingAnOpenWireDampsForATenthOfASecondAndThenIsSilent) {
  sender_.open();
  post_for(20ms, Output::follow);
  const auto begin = Clock::now();
  sender_.close();
  const auto commands = sent();
  EXPECT_GT(commands.back().time - begin, 90ms);
  std::size_t damping = 0;
  for (const auto& command : commands) {
    if (command.time > begin + 2ms) {
      EXPECT_TRUE(command.damping());
    }
    damping += command.damping();
  }
  EXPECT_GE(damping, 45u);
  post_for(30ms, Output::follow);
  EXPECT_EQ(sent().size(), commands.size());
  // An order of before is not what a reopened wire begins with.
  sender_.open();
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(sent().size(), commands.size());
}

TEST_F(LowCmdSenderTest, ClosingASilentWireSendsNothing) {
  sender_.open();
  post_for(20ms, Output::silent);
  sender_.close();
  EXPECT_TRUE(sent().empty());
}

TEST(LowCmdSender, ADestroyedSenderLeavesDamping) {
  std::vector<LowCmd> sent;
  {
    LowCmdSender sender(kMotors, 2ms, [&sent](const LowCmd& command) { sent.push_back(command); });
    sender.open();
    WireOrder order;
    order.output = Output::follow;
    order.targets.stiffness.fill(20.0);
    for (int i = 0; i < 5; ++i) {
      sender.post(order);
      std::this_thread::sleep_for(2ms);
    }
  }
  ASSERT_GT(sent.size(), 45u);
  EXPECT_EQ(sent.front().motor_cmd[0].kp, 20.0F);
  for (std::size_t i = sent.size() - 40; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i].motor_cmd[0].kp, 0.0F);
  }
}

}  // namespace
}  // namespace humanoid_rl_hardware
