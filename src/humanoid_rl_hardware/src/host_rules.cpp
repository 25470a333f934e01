#include "humanoid_rl_hardware/host_rules.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "format_text.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr double kLongestPeriod = 1.0;
constexpr double kShortestCycle = 1e-4;  // a tenth of the fastest controller_manager in use

void check_period(const char* name, double value, double least) {
  if (!(value >= least && value <= kLongestPeriod)) {
    throw std::invalid_argument(std::string(name) + " is " + format_general(value) + " s, expected " +
                                format_general(least) + " to " + format_general(kLongestPeriod) + " s");
  }
}

std::string stale_text(const char* what, const Cause& cause) {
  return std::string("no valid ") + what + " for " + format_milliseconds(cause.age) + " ms (limit " +
         format_milliseconds(cause.limit) + " ms)";
}

}  // namespace

std::string Cause::text() const {
  switch (kind) {
    case Kind::none:
      return {};
    case Kind::stale_state:
      return stale_text("LowState", *this);
    case Kind::stale_command:
      return stale_text("joint command", *this);
    case Kind::emergency_stop:
      return "emergency stop";
    case Kind::control_loop_stall:
      return "the control loop stood still";
    case Kind::deactivating:
      return "deactivating";
  }
  return {};
}

std::string Reply::message() const {
  switch (kind) {
    case Kind::latched:
      return "latched: " + cause.text() + "; call /host/reset first";
    case Kind::already_activated:
      return "already activated";
    case Kind::activated:
      return "activated";
    case Kind::not_activated:
      return "not activated";
    case Kind::deactivated:
      return "deactivated, damping for " + format_milliseconds(kShutdownTime) + " ms";
    case Kind::stopped:
      return "damping: " + cause.text();
    case Kind::stopped_silent:
      return "latched, nothing is being sent";
    case Kind::nothing_latched:
      return "nothing is latched";
    case Kind::no_state:
      return "no valid LowState within " + format_milliseconds(limit) + " ms; " + cause.text();
    case Kind::cleared:
      return "cleared: " + cause.text();
  }
  return {};
}

HostRules::HostRules(double policy_period, double state_timeout, double cycle_period)
    : command_timeout_(kStaleCommandPeriods * policy_period), state_timeout_(state_timeout) {
  check_period("cycle_period", cycle_period, kShortestCycle);
  check_period("policy_period", policy_period, cycle_period);
  check_period("state_timeout", state_timeout, cycle_period);
  shutdown_cycles_ = std::max(1L, std::lround(kShutdownTime / cycle_period));
}

Reply HostRules::activate() noexcept {
  if (fault_) return reply(false, Reply::Kind::latched);
  if (activated_) return reply(true, Reply::Kind::already_activated);
  activated_ = true;
  closing_cycles_ = 0;
  return reply(true, Reply::Kind::activated);
}

Reply HostRules::deactivate() noexcept {
  if (!activated_) return reply(true, Reply::Kind::not_activated);
  activated_ = false;
  has_targets_ = false;
  if (wire_open_) {
    closing_cycles_ = shutdown_cycles_;
    wire_open_ = false;
  }
  return reply(true, Reply::Kind::deactivated);
}

Reply HostRules::estop() noexcept {
  latch({Cause::Kind::emergency_stop, 0.0, 0.0});
  return reply(true, activated_ ? Reply::Kind::stopped : Reply::Kind::stopped_silent);
}

Reply HostRules::reset(double state_age) noexcept {
  if (!fault_) return reply(true, Reply::Kind::nothing_latched);
  if (activated_ && !fresh(state_age)) return reply(false, Reply::Kind::no_state);
  const Reply cleared = reply(true, Reply::Kind::cleared);
  fault_ = Cause{};
  return cleared;
}

void HostRules::report_stall() noexcept {
  if (wire_open_) latch({Cause::Kind::control_loop_stall, 0.0, 0.0});
}

bool HostRules::receive_targets(double now) noexcept {
  if (!wire_open_ || cause()) return false;
  has_targets_ = true;
  targets_time_ = now;
  return true;
}

Output HostRules::step(double now, double state_age) noexcept {
  if (activated_ && !wire_open_) {
    // H1: the wire opens with the first valid LowState; only then is mode_machine known.
    wire_open_ = fresh(state_age);
  }
  if (!wire_open_) {
    if (closing_cycles_ == 0) return Output::silent;
    --closing_cycles_;
    return Output::damping;
  }
  if (!fault_) check_ages(now, state_age);
  return fault_ || !has_targets_ ? Output::damping : Output::follow;
}

HostState HostRules::state() const noexcept {
  if (cause()) return HostState::damping;
  if (!activated_) return HostState::inactive;
  if (!wire_open_) return HostState::waiting_state;
  return has_targets_ ? HostState::active : HostState::ready;
}

Cause HostRules::cause() const noexcept {
  if (fault_) return fault_;
  return closing_cycles_ > 0 ? Cause{Cause::Kind::deactivating, 0.0, 0.0} : Cause{};
}

void HostRules::check_ages(double now, double state_age) noexcept {
  const double command_age = now - targets_time_;
  if (!fresh(state_age)) {
    latch({Cause::Kind::stale_state, state_age, state_timeout_});
  } else if (has_targets_ && !(command_age <= command_timeout_)) {
    latch({Cause::Kind::stale_command, command_age, command_timeout_});
  }
}

void HostRules::latch(const Cause& cause) noexcept {
  // The first cause is the one that explains what happened.
  if (!fault_) fault_ = cause;
  has_targets_ = false;
}

// A NaN is never fresh.
bool HostRules::fresh(double state_age) const noexcept { return state_age <= state_timeout_; }

Reply HostRules::reply(bool success, Reply::Kind kind) const noexcept {
  return {success, kind, fault_, state_timeout_};
}

}  // namespace humanoid_rl_hardware
