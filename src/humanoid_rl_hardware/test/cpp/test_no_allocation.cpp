/// What a real-time cycle calls must not allocate. malloc and its kin are replaced by ones that count;
/// operator new ends in malloc.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "humanoid_rl_hardware/host_rules.hpp"
#include "humanoid_rl_hardware/joint_targets.hpp"
#include "humanoid_rl_hardware/low_state_check.hpp"
#include "humanoid_rl_hardware/period_statistics.hpp"
#include "humanoid_rl_hardware/torque_limiter.hpp"
#include "humanoid_rl_hardware/triple_buffer.hpp"
#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

namespace {
std::atomic<std::size_t> allocations{0};
}

// glibc's own names of what is replaced.
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) noexcept {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) noexcept {
  ++allocations;
  return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  ++allocations;
  return __libc_memalign(alignment, size);
}
}

namespace humanoid_rl_hardware {
namespace {

template <class Act>
std::size_t allocations_of(Act act) {
  const std::size_t before = allocations;
  act();
  return allocations - before;
}

/// The compiler may leave out an allocation nobody sees.
template <class T>
T* seen(T* memory) {
  T* volatile visible = memory;
  return visible;
}

struct alignas(128) Overaligned {
  int value;
};

TEST(AllocationCounter, SeesEveryWayToAllocate) {
  EXPECT_EQ(allocations_of([] {}), 0U);
  EXPECT_EQ(allocations_of([] { delete seen(new int); }), 1U);
  EXPECT_EQ(allocations_of([] { delete seen(new Overaligned); }), 1U);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::malloc(1))); }), 1U);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::calloc(1, 1))); }), 1U);
  EXPECT_EQ(allocations_of([] { std::free(seen(std::realloc(nullptr, 1))); }), 1U);
  EXPECT_EQ(allocations_of([] { seen(std::string(100, 'x').data()); }), 1U);
}

TEST(NoAllocation, InAnyCycleOfAHost) {
  constexpr std::size_t joints = 29;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < joints; ++i) names.push_back("a_joint_with_a_long_name_" + std::to_string(i));
  const std::vector<double> ones(joints, 1.0);
  const TorqueLimiter limiter({std::vector<double>(joints, -0.5), ones, ones, ones});
  const auto low_states = std::make_unique<TripleBuffer<LowState>>();
  HostRules rules;
  LowStateCheck check({5}, joints);
  PeriodStatistics statistics(kCyclePeriod, 0.1);
  JointMap map(names);
  JointTargets targets;
  ASSERT_EQ(map.targets(names, ones, ones, ones, ones, ones, targets), "");  // learns the order

  LowState sent;
  sent.mode_machine = 5;
  sent.imu_state.quaternion[0] = 1.0F;
  LowCmd command;
  int silent = 0;
  int damping = 0;
  int follow = 0;
  bool refused = false;
  const auto cycle = [&](int number) {
    const double now = kCyclePeriod * number;
    ++sent.tick;
    // Every kind of refusal comes by.
    sent.mode_machine = number % 7 == 0 ? 9 : 5;
    sent.motor_state[0].q = number % 11 == 0 ? std::numeric_limits<float>::quiet_NaN() : 0.3F;
    seal(sent);
    if (number % 13 == 0) ++sent.crc;
    low_states->write(sent);

    static double state_time = 0.0;
    if (low_states->update() && !check.check(low_states->front())) state_time = now;
    std::array<double, kMotorSlots> q{};
    std::array<double, kMotorSlots> dq{};
    const LowState& state = low_states->front();
    for (std::size_t i = 0; i < joints; ++i) {
      q[i] = static_cast<double>(state.motor_state[i].q);
      dq[i] = static_cast<double>(state.motor_state[i].dq);
    }
    if (number % 10 == 0 && number % 1000 < 800) {
      refused = refused || !map.targets(names, ones, ones, ones, ones, ones, targets).empty();
      rules.receive_targets(now);
    }
    rules.refuse_targets();
    if (number == 20) rules.activate();
    if (number == 400) rules.estop();
    if (number == 500) rules.reset(now - state_time);
    if (number == 950) rules.reset(now - state_time);
    if (number == 1900) rules.deactivate();
    switch (rules.step(now, now - state_time)) {
      case Output::silent:
        ++silent;
        statistics.pause();
        break;
      case Output::damping:
        ++damping;
        fill_damping(command, check.mode_machine(), joints);
        statistics.tick(now);
        break;
      case Output::follow: {
        ++follow;
        JointTargets clamped = targets;
        limiter.clamp(clamped, q.data(), dq.data());
        fill_command(command, check.mode_machine(), joints, clamped);
        statistics.tick(now);
        break;
      }
    }
    // What another thread composes into text later is copied as numbers.
    TripleBuffer<Cause> causes;
    causes.write(rules.cause());
    static_cast<void>(rules.state());
  };
  EXPECT_EQ(allocations_of([&] {
              for (int number = 1; number < 2100; ++number) cycle(number);
            }),
            0U);
  EXPECT_FALSE(refused);
  EXPECT_GT(silent, 100);
  EXPECT_GT(damping, 100);
  EXPECT_GT(follow, 100);
  EXPECT_GT(check.rejected(), 100U);
}

}  // namespace
}  // namespace humanoid_rl_hardware
