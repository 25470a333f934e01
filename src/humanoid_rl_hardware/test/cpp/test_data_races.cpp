/// What two threads share, under ThreadSanitizer: a race fails the program even where the values come out
/// right.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <thread>

#include "humanoid_rl_hardware/period_statistics.hpp"
#include "humanoid_rl_hardware/triple_buffer.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr std::uint64_t kWrites = 200000;

/// Larger than what a processor writes at once, so that a torn value shows.
using Block = std::array<std::uint64_t, 64>;

TEST(DataRaces, TripleBufferNeverGivesATornOrOlderValueAndTheLastOneArrives) {
  TripleBuffer<Block> buffer;
  std::atomic<bool> done{false};
  std::thread producer([&] {
    for (std::uint64_t i = 1; i <= kWrites; ++i) {
      buffer.back().fill(i);
      buffer.publish();
    }
    done = true;
  });
  std::uint64_t last = 0;
  std::uint64_t torn = 0;
  std::uint64_t older = 0;
  const auto look = [&] {
    if (!buffer.update()) return;
    const Block& block = buffer.front();
    for (const std::uint64_t word : block) torn += word != block[0];
    older += block[0] <= last;
    last = block[0];
  };
  while (!done) look();
  look();
  producer.join();
  EXPECT_EQ(torn, 0U);
  EXPECT_EQ(older, 0U);
  EXPECT_EQ(last, kWrites);
}

TEST(DataRaces, PeriodErrorsAreReadWhileTheCycleTicks) {
  PeriodStatistics statistics(0.002, 0.02);  // a ring of ten, so that the reader meets the writer
  std::atomic<bool> done{false};
  std::thread cycle([&] {
    for (std::uint64_t i = 0; i <= kWrites; ++i) statistics.tick(0.003 * static_cast<double>(i));
    done = true;
  });
  while (!done) {
    const PeriodErrors errors = statistics.errors();
    if (std::isnan(errors.max)) continue;
    EXPECT_NEAR(errors.p50, 0.001, 1e-9);
    EXPECT_NEAR(errors.max, 0.001, 1e-9);
  }
  cycle.join();
}

}  // namespace
}  // namespace humanoid_rl_hardware
