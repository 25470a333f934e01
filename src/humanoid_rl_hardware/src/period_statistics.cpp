#include "humanoid_rl_hardware/period_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "format_text.hpp"

namespace humanoid_rl_hardware {
namespace {

std::size_t ring_size(double period, double window) {
  if (!(period > 0.0 && window > 0.0 && std::isfinite(window))) {
    throw std::invalid_argument("period " + format_general(period) + " s and window " +
                                format_general(window) + " s have to be positive");
  }
  return static_cast<std::size_t>(std::max(1.0, std::nearbyint(window / period)));
}

/// Linear between the two samples next to it.
double percentile(const std::vector<double>& sorted, double percent) {
  const double place = percent / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

PeriodStatistics::PeriodStatistics(double period, double window)
    : period_(period), ring_(ring_size(period, window)) {}

void PeriodStatistics::tick(double now) noexcept {
  if (!std::isnan(last_)) {
    const std::uint64_t count = count_.load(std::memory_order_relaxed);
    ring_[count % ring_.size()].store(std::abs(now - last_ - period_), std::memory_order_relaxed);
    // Release: who sees the count sees the sample.
    count_.store(count + 1, std::memory_order_release);
  }
  last_ = now;
}

PeriodErrors PeriodStatistics::errors() const {
  const std::uint64_t count = count_.load(std::memory_order_acquire);
  const std::size_t filled = count < ring_.size() ? static_cast<std::size_t>(count) : ring_.size();
  if (filled == 0) return {};
  std::vector<double> samples(filled);
  for (std::size_t i = 0; i < filled; ++i) samples[i] = ring_[i].load(std::memory_order_relaxed);
  std::sort(samples.begin(), samples.end());
  return {percentile(samples, 50.0), percentile(samples, 99.0), samples.back()};
}

}  // namespace humanoid_rl_hardware
