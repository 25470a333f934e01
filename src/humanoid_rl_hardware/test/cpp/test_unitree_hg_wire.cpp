#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

namespace humanoid_rl_hardware {
namespace {

std::vector<std::uint8_t> bytes_of_words(const std::vector<std::uint32_t>& words) {
  std::vector<std::uint8_t> bytes(4 * words.size());
  if (!words.empty()) std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

std::uint32_t crc_of(const std::vector<std::uint32_t>& words) {
  return crc32_words(bytes_of_words(words).data(), words.size());
}

/// The CRC written out bit by bit, sharing nothing with the implementation under test.
std::uint32_t bitwise_crc(const std::vector<std::uint32_t>& words) {
  std::uint32_t value = 0xFFFFFFFF;
  for (const std::uint32_t word : words) {
    for (int bit = 31; bit >= 0; --bit) {
      const std::uint32_t feedback = (value >> 31) ^ ((word >> bit) & 1);
      value = (value << 1) ^ (feedback != 0 ? 0x04C11DB7 : 0);
    }
  }
  return value;
}

template <class Message>
std::vector<std::uint32_t> words_of(const Message& message) {
  std::vector<std::uint32_t> words(sizeof(Message) / 4);
  std::memcpy(words.data(), &message, sizeof(Message));
  return words;
}

template <class Message>
std::vector<std::uint32_t> words_but_the_last(const Message& message) {
  auto words = words_of(message);
  words.pop_back();
  return words;
}

// Published outputs of the CRC unit of STM32 microcontrollers, which implements this very CRC on words.
TEST(Crc, OfOneWordIsThePublishedValue) {
  EXPECT_EQ(crc_of({0x00000000}), 0xC704DD7BU);
  EXPECT_EQ(crc_of({0xFFFFFFFF}), 0x00000000U);
  EXPECT_EQ(crc_of({0x12345678}), 0xDF8A8A2BU);
}

TEST(Crc, EqualsTheBitwiseDefinition) {
  std::mt19937 random(1);
  for (const std::size_t size : {0U, 1U, 2U, 250U, 522U}) {
    std::vector<std::uint32_t> words(size);
    for (auto& word : words) word = static_cast<std::uint32_t>(random());
    EXPECT_EQ(crc_of(words), bitwise_crc(words)) << size << " words";
  }
}

TEST(Crc, OfAMessageCoversAllItsWordsButTheLast) {
  LowState state;
  state.tick = 12345;
  state.motor_state[34].reserve[3] = 0xDEADBEEF;
  state.reserve[3] = 7;
  state.crc = 99;
  EXPECT_EQ(crc(state), bitwise_crc(words_but_the_last(state)));
  EXPECT_FALSE(crc_ok(state));
  seal(state);
  EXPECT_TRUE(crc_ok(state));
  LowCmd command;
  command.reserve[3] = 7;
  EXPECT_EQ(crc(command), bitwise_crc(words_but_the_last(command)));
  seal(command);
  EXPECT_TRUE(crc_ok(command));
}

TEST(Messages, AreZeroFromConstructionOnPaddingIncluded) {
  // On memory that held something else.
  std::vector<std::uint8_t> memory(sizeof(LowState) + alignof(LowState), 0xA5);
  void* place = memory.data();
  std::size_t space = memory.size();
  ASSERT_NE(std::align(alignof(LowState), sizeof(LowState), place, space), nullptr);
  for (const std::uint32_t word : words_of(*new (place) LowState)) EXPECT_EQ(word, 0U);
  std::memset(place, 0xA5, sizeof(LowState));
  for (const std::uint32_t word : words_of(*new (place) LowCmd)) EXPECT_EQ(word, 0U);
}

TEST(Damping, BrakesAndHoldsNothing) {
  LowCmd command;
  command.motor_cmd[3].q = 1.0F;  // what an earlier command left must not shine through
  command.motor_cmd[33].kp = 1.0F;
  command.reserve[0] = 5;
  fill_damping(command, 6, 29);
  EXPECT_TRUE(crc_ok(command));
  EXPECT_EQ(command.mode_pr, 0);
  EXPECT_EQ(command.mode_machine, 6);
  for (std::size_t i = 0; i < kMotorSlots; ++i) {
    const MotorCmd& motor = command.motor_cmd[i];
    EXPECT_EQ(motor.mode, i < 29 ? 1 : 0);
    EXPECT_EQ(motor.kd, i < 29 ? 8.0F : 0.0F);
    EXPECT_EQ(motor.q, 0.0F);
    EXPECT_EQ(motor.dq, 0.0F);
    EXPECT_EQ(motor.tau, 0.0F);
    EXPECT_EQ(motor.kp, 0.0F);
    EXPECT_EQ(motor.reserve, 0U);
  }
  EXPECT_EQ(command.reserve, (std::array<std::uint32_t, 4>{}));
}

TEST(Command, CarriesTheTargetsOfTheRobotsMotorsOnly) {
  JointTargets targets;
  for (std::size_t i = 0; i < kMotorSlots; ++i) {
    const auto joint = static_cast<double>(i + 1);
    targets.position[i] = 0.1 * joint;
    targets.velocity[i] = 0.2 * joint;
    targets.effort[i] = 0.3 * joint;
    targets.stiffness[i] = 0.4 * joint;
    targets.damping[i] = 0.5 * joint;
  }
  LowCmd command;
  fill_command(command, 5, 29, targets);
  EXPECT_TRUE(crc_ok(command));
  EXPECT_EQ(command.mode_machine, 5);
  EXPECT_EQ(command.motor_cmd[28].mode, 1);
  EXPECT_EQ(command.motor_cmd[28].q, static_cast<float>(targets.position[28]));
  EXPECT_EQ(command.motor_cmd[28].dq, static_cast<float>(targets.velocity[28]));
  EXPECT_EQ(command.motor_cmd[28].tau, static_cast<float>(targets.effort[28]));
  EXPECT_EQ(command.motor_cmd[28].kp, static_cast<float>(targets.stiffness[28]));
  EXPECT_EQ(command.motor_cmd[28].kd, static_cast<float>(targets.damping[28]));
  const std::vector<std::uint32_t> words = words_of(command);
  for (std::size_t word = (4 + 29 * sizeof(MotorCmd)) / 4; word + 1 < words.size(); ++word) {
    EXPECT_EQ(words[word], 0U) << "word " << word;
  }
}

}  // namespace
}  // namespace humanoid_rl_hardware
