#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

#include <algorithm>
#include <cstring>

namespace humanoid_rl_hardware {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the structs are laid out little-endian, as on the wire");

constexpr std::uint32_t kPolynomial = 0x04C11DB7;
constexpr std::uint32_t kTopBit = 0x80000000;

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte << 24;
    for (int bit = 0; bit < 8; ++bit) value = (value << 1) ^ ((value & kTopBit) != 0 ? kPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

constexpr std::array<std::uint32_t, 256> kCrcTable = crc_table();

template <class Message>
std::uint32_t message_crc(const Message& message) noexcept {
  // Through a copy: reading the struct as words in place would break the aliasing rules.
  std::array<std::uint8_t, sizeof(Message)> bytes;
  std::memcpy(bytes.data(), &message, sizeof(Message));
  return crc32_words(bytes.data(), sizeof(Message) / 4 - 1);
}

}  // namespace

std::uint32_t crc32_words(const std::uint8_t* data, std::size_t words) noexcept {
  std::uint32_t value = 0xFFFFFFFF;
  for (std::size_t word = 0; word < words; ++word) {
    for (std::size_t byte = 4; byte-- > 0;) {
      value = (value << 8) ^ kCrcTable[(value >> 24) ^ data[4 * word + byte]];
    }
  }
  return value;
}

std::uint32_t crc(const LowCmd& command) noexcept { return message_crc(command); }
std::uint32_t crc(const LowState& state) noexcept { return message_crc(state); }

void seal(LowCmd& command) noexcept { command.crc = crc(command); }
void seal(LowState& state) noexcept { state.crc = crc(state); }

bool crc_ok(const LowCmd& command) noexcept { return command.crc == crc(command); }
bool crc_ok(const LowState& state) noexcept { return state.crc == crc(state); }

void fill_damping(LowCmd& command, std::uint8_t mode_machine, std::size_t motors) noexcept {
  command = LowCmd{};
  command.mode_pr = kModePrSeries;
  command.mode_machine = mode_machine;
  for (std::size_t i = 0; i < std::min(motors, kMotorSlots); ++i) {
    command.motor_cmd[i].mode = kMotorEnabled;
    command.motor_cmd[i].kd = kDampingKd;
  }
  seal(command);
}

void fill_command(LowCmd& command, std::uint8_t mode_machine, std::size_t motors,
                  const JointTargets& targets) noexcept {
  command = LowCmd{};
  command.mode_pr = kModePrSeries;
  command.mode_machine = mode_machine;
  for (std::size_t i = 0; i < std::min(motors, kMotorSlots); ++i) {
    MotorCmd& motor = command.motor_cmd[i];
    motor.mode = kMotorEnabled;
    motor.q = static_cast<float>(targets.position[i]);
    motor.dq = static_cast<float>(targets.velocity[i]);
    motor.tau = static_cast<float>(targets.effort[i]);
    motor.kp = static_cast<float>(targets.stiffness[i]);
    motor.kd = static_cast<float>(targets.damping[i]);
  }
  seal(command);
}

}  // namespace humanoid_rl_hardware
