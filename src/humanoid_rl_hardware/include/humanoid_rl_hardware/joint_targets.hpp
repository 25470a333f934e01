#ifndef HUMANOID_RL_HARDWARE__JOINT_TARGETS_HPP_
#define HUMANOID_RL_HARDWARE__JOINT_TARGETS_HPP_

/// Joint targets of a JointCommand, mapped by name into motor order, or refused whole (rule H7).

#include <array>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

namespace humanoid_rl_hardware {

/// Motors a LowCmd has room for; a G1 with 29 joints leaves the last six slots zero.
inline constexpr std::size_t kMotorSlots = 35;

/// Nm/rad and Nm s/rad, the largest gains taken. They catch a unit mistake (per degree instead of per radian
/// is a factor of 57); they are no claim of stability. Reasons: joint_targets.py.
inline constexpr double kMaxStiffness = 1000.0;
inline constexpr double kMaxDamping = 100.0;

/// Targets of every joint in motor order; the slots behind a robot's last joint are unused.
///
/// Torque of a motor = stiffness (position - q) + damping (velocity - dq) + effort.
struct JointTargets {
  std::array<double, kMotorSlots> position{};   ///< rad
  std::array<double, kMotorSlots> velocity{};   ///< rad/s
  std::array<double, kMotorSlots> effort{};     ///< Nm, feed-forward
  std::array<double, kMotorSlots> stiffness{};  ///< Nm/rad
  std::array<double, kMotorSlots> damping{};    ///< Nm s/rad
};

/// Brings named joint values into the robot's motor order. Names alone decide, never their order.
///
/// Not for two threads at once: the order of the last names seen is kept, since a publisher sends the same
/// every time. Taking a command with those names allocates nothing; other names and refusals do.
class JointMap {
 public:
  /// \param joint_names of the robot, in motor order, 1 to `kMotorSlots`.
  /// \throws std::invalid_argument too few or too many names, or one of them twice.
  explicit JointMap(std::vector<std::string> joint_names);

  [[nodiscard]] const std::vector<std::string>& joint_names() const noexcept { return joint_names_; }

  /// Takes the fields of a JointCommand.
  ///
  /// \param names joint of each value, every joint of the robot exactly once.
  /// \param position, velocity, effort, stiffness, damping as long as `names`; units of `JointTargets`.
  /// \param out written only when the command is taken.
  /// \returns why it was refused, one line that names joint and field; empty when it was taken.
  [[nodiscard]] std::string targets(const std::vector<std::string>& names,
                                    const std::vector<double>& position, const std::vector<double>& velocity,
                                    const std::vector<double>& effort, const std::vector<double>& stiffness,
                                    const std::vector<double>& damping, JointTargets& out);

 private:
  using Order = std::array<std::size_t, kMotorSlots>;

  std::string learn_order(const std::vector<std::string>& names);

  std::vector<std::string> joint_names_;
  std::unordered_map<std::string, std::size_t> index_;
  std::vector<std::string> known_names_;
  Order known_order_{};
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__JOINT_TARGETS_HPP_
