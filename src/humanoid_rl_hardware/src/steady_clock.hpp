#ifndef STEADY_CLOCK_HPP_
#define STEADY_CLOCK_HPP_

#include <chrono>

namespace humanoid_rl_hardware {

/// s of the steady clock, now: the time that every age and period is measured in.
inline double now_s() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace humanoid_rl_hardware

#endif  // STEADY_CLOCK_HPP_
