#ifndef HUMANOID_RL_HARDWARE__PERIOD_STATISTICS_HPP_
#define HUMANOID_RL_HARDWARE__PERIOD_STATISTICS_HPP_

/// How evenly the host's cycle runs: what rule H9 asks to be measured and published.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace humanoid_rl_hardware {

/// |actual - nominal| period in s; NaN before the first period.
struct PeriodErrors {
  double p50{std::numeric_limits<double>::quiet_NaN()};
  double p99{std::numeric_limits<double>::quiet_NaN()};
  double max{std::numeric_limits<double>::quiet_NaN()};
};

/// Errors of the last `window` seconds of a periodic act.
///
/// One thread may `tick` and `pause`, both wait-free, while another reads `errors`: a slot of the ring that
/// changes meanwhile only swaps one sample for another.
class PeriodStatistics {
 public:
  /// \param period s, nominal.
  /// \param window s over which errors are kept.
  /// \throws std::invalid_argument a period or window that is not positive.
  explicit PeriodStatistics(double period, double window = 10.0);

  /// The act happened at `now`, s of a monotonic clock.
  void tick(double now) noexcept;

  /// The act stopped on purpose; the gap until the next `tick` is not a period.
  void pause() noexcept { last_ = std::numeric_limits<double>::quiet_NaN(); }

  /// Median, 99th percentile (linear between samples) and maximum over the window. Allocates.
  [[nodiscard]] PeriodErrors errors() const;

  /// s, nominal.
  [[nodiscard]] double period() const noexcept { return period_; }

 private:
  static_assert(std::atomic<double>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

  double period_;
  std::vector<std::atomic<double>> ring_;
  std::atomic<std::uint64_t> count_{0};
  double last_{std::numeric_limits<double>::quiet_NaN()};
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__PERIOD_STATISTICS_HPP_
