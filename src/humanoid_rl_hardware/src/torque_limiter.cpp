#include "humanoid_rl_hardware/torque_limiter.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "format_text.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The smallest float32 that is not below the value, so that rounding on the wire cannot leave the range.
double float32_not_below(double value) {
  auto rounded = static_cast<float>(value);
  if (static_cast<double>(rounded) < value) rounded = std::nextafter(rounded, kInfinity);
  return static_cast<double>(rounded);
}

/// The largest float32 that is not above the value.
double float32_not_above(double value) { return -float32_not_below(-value); }

}  // namespace

TorqueLimiter::TorqueLimiter(const JointLimits& limits) {
  const std::size_t joints = limits.lower.size();
  if (joints == 0 || joints > kMotorSlots || limits.upper.size() != joints ||
      limits.velocity.size() != joints || limits.effort.size() != joints) {
    throw std::invalid_argument("joint limits: " + std::to_string(joints) + " lower, " +
                                std::to_string(limits.upper.size()) + " upper, " +
                                std::to_string(limits.velocity.size()) + " velocity, " +
                                std::to_string(limits.effort.size()) + " effort, expected 1 to " +
                                std::to_string(kMotorSlots) + " of each");
  }
  joints_.reserve(joints);
  for (std::size_t i = 0; i < joints; ++i) {
    const double lower = limits.lower[i];
    const double upper = limits.upper[i];
    const double velocity = limits.velocity[i];
    const double effort = limits.effort[i];
    const bool finite =
        std::isfinite(lower) && std::isfinite(upper) && std::isfinite(velocity) && std::isfinite(effort);
    if (!finite || lower > upper || velocity <= 0.0 || effort <= 0.0) {
      throw std::invalid_argument("limits of motor " + std::to_string(i) + " make no range: position " +
                                  format_general(lower) + " to " + format_general(upper) + " rad, velocity " +
                                  format_general(velocity) + " rad/s, effort " + format_general(effort) +
                                  " Nm");
    }
    joints_.push_back(
        {float32_not_below(lower), float32_not_above(upper), velocity, effort * (1.0 - kRoundingMargin)});
  }
}

void TorqueLimiter::clamp(JointTargets& targets, const double* q, const double* dq) const noexcept {
  for (std::size_t i = 0; i < joints_.size(); ++i) {
    const Joint& joint = joints_[i];
    const double limit = joint.effort;
    double& position = targets.position[i];
    double& velocity = targets.velocity[i];
    double& effort = targets.effort[i];
    double& stiffness = targets.stiffness[i];
    double& damping = targets.damping[i];
    // Not std::clamp: a range narrower than the gap between two float32 has lower above upper.
    position = std::min(std::max(position, joint.lower), joint.upper);
    velocity = std::min(std::max(velocity, -joint.velocity), joint.velocity);
    effort = std::min(std::max(effort, -limit), limit);

    const double rest = damping * (velocity - dq[i]) + effort;
    const double torque = stiffness * (position - q[i]) + rest;
    if (!(std::abs(torque) > limit)) continue;

    // |rest| <= limit < |torque| leaves stiffness > 0.
    if (std::abs(rest) <= limit) {
      const double moved = q[i] + (std::copysign(limit, torque) - rest) / stiffness;
      if (moved >= joint.lower && moved <= joint.upper) {
        position = moved;
        continue;
      }
    }
    const double scale = limit / std::abs(torque);
    effort *= scale;
    stiffness *= scale;
    damping *= scale;
  }
}

}  // namespace humanoid_rl_hardware
