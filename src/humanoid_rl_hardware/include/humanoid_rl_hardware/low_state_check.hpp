#ifndef HUMANOID_RL_HARDWARE__LOW_STATE_CHECK_HPP_
#define HUMANOID_RL_HARDWARE__LOW_STATE_CHECK_HPP_

/// Whether a LowState that arrived may be controlled on (rules H1 and H4).

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

namespace humanoid_rl_hardware {

/// How far the IMU quaternion's norm may be from 1; an IMU that has not started sends zeros.
inline constexpr double kQuaternionTolerance = 0.1;

/// Why a LowState was refused, as numbers; trivially copyable.
struct StateRefusal {
  enum class Reason : std::uint8_t {
    none,
    wrong_crc,
    unknown_mode_machine,
    not_finite,
    no_rotation,
    tick_stands_still
  };

  Reason reason{Reason::none};
  std::uint32_t value{0};  ///< the mode_machine or tick at fault

  explicit operator bool() const noexcept { return reason != Reason::none; }
};

/// Judges each LowState that arrives and remembers the last valid one's tick and mode_machine. For one
/// thread.
///
/// A refused state is no state: when no valid one follows, H4 trips. A state with the tick of the last valid
/// one counts as refused too, since a robot whose counter stands still has frozen.
class LowStateCheck {
 public:
  /// \param mode_machines values the robot description is right for.
  /// \param motors joints of the robot.
  /// \throws std::invalid_argument no mode_machine, or motors outside 1 to `kMotorSlots`.
  LowStateCheck(std::vector<std::uint8_t> mode_machines, std::size_t motors);

  /// Takes a LowState that just arrived; none when it is valid.
  [[nodiscard]] StateRefusal check(const LowState& state) noexcept;

  /// One line about a refusal; empty when there was none. Allocates.
  [[nodiscard]] std::string text(const StateRefusal& refusal) const;

  /// As read from the robot, 0 before the first valid LowState.
  [[nodiscard]] std::uint8_t mode_machine() const noexcept { return mode_machine_; }

  /// States refused since start.
  [[nodiscard]] std::uint64_t rejected() const noexcept { return rejected_; }

 private:
  [[nodiscard]] StateRefusal judge(const LowState& state) const noexcept;

  std::vector<std::uint8_t> mode_machines_;
  std::size_t motors_;
  bool seen_{false};
  std::uint32_t tick_{0};
  std::uint8_t mode_machine_{0};
  std::uint64_t rejected_{0};
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__LOW_STATE_CHECK_HPP_
