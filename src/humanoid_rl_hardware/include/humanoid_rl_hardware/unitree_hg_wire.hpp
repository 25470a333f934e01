#ifndef HUMANOID_RL_HARDWARE__UNITREE_HG_WIRE_HPP_
#define HUMANOID_RL_HARDWARE__UNITREE_HG_WIRE_HPP_

/// LowCmd and LowState of the Unitree G1 as the vendor's C structs, which their CRC is computed over.
///
/// Field layout: unitree_hg/msg of unitreerobotics/unitree_ros2. Units as there: rad, rad/s, Nm, degrees
/// Celsius, V; quaternions are (w, x, y, z); temperatures of a motor are (casing, winding).
///
/// The compiler's padding is covered by the CRC and has to be zero, so it is spelled out as members: they are
/// zero from construction on and, unlike padding proper, survive every copy.

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "humanoid_rl_hardware/joint_targets.hpp"

namespace humanoid_rl_hardware {

inline constexpr std::uint8_t kMotorEnabled = 1;
/// `mode_pr`: ankles and waist are commanded as pitch and roll joints, not as their two actuators.
inline constexpr std::uint8_t kModePrSeries = 0;
/// Nm s/rad: the damping every host falls back to (rules H3 and H8).
inline constexpr float kDampingKd = 8.0F;

struct MotorCmd {
  std::uint8_t mode{0};
  std::array<std::uint8_t, 3> padding{};
  float q{0.0F};    ///< rad
  float dq{0.0F};   ///< rad/s
  float tau{0.0F};  ///< Nm, feed-forward
  float kp{0.0F};   ///< Nm/rad
  float kd{0.0F};   ///< Nm s/rad
  std::uint32_t reserve{0};
};

struct LowCmd {
  std::uint8_t mode_pr{0};
  std::uint8_t mode_machine{0};
  std::array<std::uint8_t, 2> padding{};
  std::array<MotorCmd, kMotorSlots> motor_cmd{};
  std::array<std::uint32_t, 4> reserve{};
  std::uint32_t crc{0};
};

struct ImuState {
  std::array<float, 4> quaternion{};     ///< w, x, y, z: world from IMU
  std::array<float, 3> gyroscope{};      ///< rad/s, IMU frame
  std::array<float, 3> accelerometer{};  ///< m/s^2, IMU frame, gravity included
  std::array<float, 3> rpy{};            ///< rad
  std::int16_t temperature{0};           ///< degrees Celsius
  std::array<std::uint8_t, 2> padding{};
};

struct MotorState {
  std::uint8_t mode{0};
  std::array<std::uint8_t, 3> padding{};
  float q{0.0F};                              ///< rad
  float dq{0.0F};                             ///< rad/s
  float ddq{0.0F};                            ///< rad/s^2
  float tau_est{0.0F};                        ///< Nm
  std::array<std::int16_t, 2> temperature{};  ///< degrees Celsius: casing, winding
  float vol{0.0F};                            ///< V
  std::array<std::uint32_t, 2> sensor{};
  std::uint32_t motorstate{0};
  std::array<std::uint32_t, 4> reserve{};
};

struct LowState {
  std::array<std::uint32_t, 2> version{};
  std::uint8_t mode_pr{0};
  std::uint8_t mode_machine{0};
  std::array<std::uint8_t, 2> padding{};
  std::uint32_t tick{0};  ///< ms since power-on, wraps at 2**32
  ImuState imu_state{};
  std::array<MotorState, kMotorSlots> motor_state{};
  std::array<std::uint8_t, 40> wireless_remote{};
  std::array<std::uint32_t, 4> reserve{};
  std::uint32_t crc{0};
};

static_assert(std::is_trivially_copyable_v<LowCmd> && std::is_standard_layout_v<LowCmd>);
static_assert(std::is_trivially_copyable_v<LowState> && std::is_standard_layout_v<LowState>);
static_assert(sizeof(MotorCmd) == 28 && offsetof(MotorCmd, q) == 4 && offsetof(MotorCmd, reserve) == 24);
static_assert(sizeof(LowCmd) == 1004 && offsetof(LowCmd, motor_cmd) == 4);
static_assert(offsetof(LowCmd, reserve) == 984 && offsetof(LowCmd, crc) == 1000);
static_assert(sizeof(ImuState) == 56 && offsetof(ImuState, temperature) == 52);
static_assert(sizeof(MotorState) == 56 && offsetof(MotorState, q) == 4);
static_assert(offsetof(MotorState, temperature) == 20 && offsetof(MotorState, reserve) == 40);
static_assert(sizeof(LowState) == 2092 && offsetof(LowState, tick) == 12 &&
              offsetof(LowState, imu_state) == 16);
static_assert(offsetof(LowState, motor_state) == 72 && offsetof(LowState, wireless_remote) == 2032);
static_assert(offsetof(LowState, reserve) == 2072 && offsetof(LowState, crc) == 2088);

/// The vendor's CRC of 32-bit little-endian words, most significant bit of each word first: polynomial
/// 0x04C11DB7, initial value 0xFFFFFFFF, no final xor.
///
/// \param data [4 * words] bytes.
[[nodiscard]] std::uint32_t crc32_words(const std::uint8_t* data, std::size_t words) noexcept;

/// The CRC the message ought to carry: over all its words but the last.
[[nodiscard]] std::uint32_t crc(const LowCmd& command) noexcept;
[[nodiscard]] std::uint32_t crc(const LowState& state) noexcept;

/// Computes the CRC and stores it in the message.
void seal(LowCmd& command) noexcept;
void seal(LowState& state) noexcept;

/// Whether the stored CRC is right.
[[nodiscard]] bool crc_ok(const LowCmd& command) noexcept;
[[nodiscard]] bool crc_ok(const LowState& state) noexcept;

/// The sealed command that only brakes: kp 0, kd `kDampingKd`, target velocity 0, no feed-forward.
///
/// \param command overwritten whole; what is not a motor's is zero.
/// \param mode_machine as read from the robot's LowState; it ignores a command with another.
/// \param motors joints of the robot, at most `kMotorSlots`; the slots behind them are zero.
void fill_damping(LowCmd& command, std::uint8_t mode_machine, std::size_t motors) noexcept;

/// The sealed command that follows joint targets, rounded to float32. See `fill_damping`.
///
/// \param targets in motor order, after `TorqueLimiter::clamp`.
void fill_command(LowCmd& command, std::uint8_t mode_machine, std::size_t motors,
                  const JointTargets& targets) noexcept;

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__UNITREE_HG_WIRE_HPP_
