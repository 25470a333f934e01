#include "humanoid_rl_hardware/low_state_check.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace humanoid_rl_hardware {
namespace {

template <std::size_t n>
bool finite(const std::array<float, n>& values) noexcept {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

/// Whether all that a controller feeds on is finite.
bool finite(const LowState& state, std::size_t motors) noexcept {
  for (std::size_t i = 0; i < motors; ++i) {
    const MotorState& motor = state.motor_state[i];
    if (!std::isfinite(motor.q) || !std::isfinite(motor.dq) || !std::isfinite(motor.tau_est)) return false;
  }
  const ImuState& imu = state.imu_state;
  return finite(imu.quaternion) && finite(imu.gyroscope) && finite(imu.accelerometer);
}

double norm(const std::array<float, 4>& quaternion) noexcept {
  double sum = 0.0;
  for (const float value : quaternion) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

}  // namespace

LowStateCheck::LowStateCheck(std::vector<std::uint8_t> mode_machines, std::size_t motors)
    : mode_machines_(std::move(mode_machines)), motors_(motors) {
  if (mode_machines_.empty())
    throw std::invalid_argument("no mode_machine is allowed, expected at least one");
  if (motors_ == 0 || motors_ > kMotorSlots) {
    throw std::invalid_argument("a LowState has room for 1 to " + std::to_string(kMotorSlots) +
                                " motors, not " + std::to_string(motors_));
  }
  std::sort(mode_machines_.begin(), mode_machines_.end());
  mode_machines_.erase(std::unique(mode_machines_.begin(), mode_machines_.end()), mode_machines_.end());
}

StateRefusal LowStateCheck::check(const LowState& state) noexcept {
  const StateRefusal refusal = judge(state);
  if (refusal) {
    ++rejected_;
    return refusal;
  }
  seen_ = true;
  tick_ = state.tick;
  mode_machine_ = state.mode_machine;
  return refusal;
}

StateRefusal LowStateCheck::judge(const LowState& state) const noexcept {
  using Reason = StateRefusal::Reason;
  if (!crc_ok(state)) return {Reason::wrong_crc, 0};
  if (!std::binary_search(mode_machines_.begin(), mode_machines_.end(), state.mode_machine)) {
    return {Reason::unknown_mode_machine, state.mode_machine};
  }
  if (!finite(state, motors_)) return {Reason::not_finite, 0};
  if (std::abs(norm(state.imu_state.quaternion) - 1.0) > kQuaternionTolerance)
    return {Reason::no_rotation, 0};
  if (seen_ && state.tick == tick_) return {Reason::tick_stands_still, state.tick};
  return {};
}

std::string LowStateCheck::text(const StateRefusal& refusal) const {
  using Reason = StateRefusal::Reason;
  switch (refusal.reason) {
    case Reason::none:
      return {};
    case Reason::wrong_crc:
      return "wrong CRC";
    case Reason::unknown_mode_machine: {
      std::string known;
      for (const std::uint8_t mode : mode_machines_)
        known += (known.empty() ? "" : ", ") + std::to_string(mode);
      return "mode_machine " + std::to_string(refusal.value) + ", this robot description is right for " +
             known;
    }
    case Reason::not_finite:
      return "a joint or IMU value is not finite";
    case Reason::no_rotation:
      return "the IMU quaternion is no rotation";
    case Reason::tick_stands_still:
      return "tick stands still at " + std::to_string(refusal.value);
  }
  return {};
}

}  // namespace humanoid_rl_hardware
