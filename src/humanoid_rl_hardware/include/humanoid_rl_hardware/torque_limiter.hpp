#ifndef HUMANOID_RL_HARDWARE__TORQUE_LIMITER_HPP_
#define HUMANOID_RL_HARDWARE__TORQUE_LIMITER_HPP_

/// Rule H6: joint targets clamped so that the motors' PD torque stays inside the effort limits.
///
/// The rule, its derivation and why the damping command is exempt: torque_limits.py, which this is the
/// equal of.

#include <cstddef>
#include <vector>

#include "humanoid_rl_hardware/joint_targets.hpp"

namespace humanoid_rl_hardware {

/// Part of the effort limit kept back for float32 on the wire; see torque_limits.py.
inline constexpr double kRoundingMargin = 1e-4;

/// Limits of a robot, one value per joint in motor order.
struct JointLimits {
  std::vector<double> lower;     ///< rad
  std::vector<double> upper;     ///< rad
  std::vector<double> velocity;  ///< rad/s
  std::vector<double> effort;    ///< Nm
};

/// Applies rule H6 for one robot.
class TorqueLimiter {
 public:
  /// \throws std::invalid_argument limits of different lengths, none or more than `kMotorSlots`, a limit that
  /// is
  ///   not finite, lower above upper, or a velocity or effort limit that is not positive.
  explicit TorqueLimiter(const JointLimits& limits);

  /// Number of joints.
  [[nodiscard]] std::size_t size() const noexcept { return joints_.size(); }

  /// Changes the targets of every joint to those to send. Applied again with the same state it changes
  /// nothing beyond rounding.
  ///
  /// \param targets as commanded, finite.
  /// \param q [size()] rad, measured, finite.
  /// \param dq [size()] rad/s, measured, finite.
  void clamp(JointTargets& targets, const double* q, const double* dq) const noexcept;

 private:
  struct Joint {
    double lower;
    double upper;
    double velocity;
    double effort;
  };
  std::vector<Joint> joints_;
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__TORQUE_LIMITER_HPP_
