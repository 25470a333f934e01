#include "humanoid_rl_hardware/low_cmd_sender.hpp"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "steady_clock.hpp"

namespace humanoid_rl_hardware {

namespace {

using Clock = std::chrono::steady_clock;

timespec as_timespec(Clock::time_point time) {
  const auto since_boot = time.time_since_epoch();
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(since_boot);
  timespec result{};
  result.tv_sec = static_cast<time_t>(whole.count());
  result.tv_nsec = static_cast<long>(std::chrono::nanoseconds(since_boot - whole).count());
  return result;
}

}  // namespace

LowCmdSender::LowCmdSender(std::size_t motors, std::chrono::nanoseconds period, Publish publish,
                           std::chrono::nanoseconds stall_timeout)
    : motors_(motors),
      period_(period),
      stall_timeout_(stall_timeout),
      publish_(std::move(publish)),
      period_statistics_(std::chrono::duration<double>(period).count()) {
  if (sem_init(&posted_, 0, 0) != 0) {
    throw std::system_error(errno, std::generic_category(), "LowCmdSender: sem_init");
  }
  thread_ = std::thread(&LowCmdSender::run, this);
}

LowCmdSender::~LowCmdSender() {
  close();
  stop_.store(true);
  sem_post(&posted_);
  thread_.join();
  sem_destroy(&posted_);
}

void LowCmdSender::post(const WireOrder& order) noexcept {
  orders_.write(order);
  sem_post(&posted_);
}

void LowCmdSender::close() {
  std::unique_lock<std::mutex> lock(closed_mutex_);
  closed_ = false;
  closing_.store(true);
  sem_post(&posted_);
  closed_changed_.wait(lock, [this] { return closed_; });
}

bool LowCmdSender::set_priority(int priority) noexcept {
  sched_param parameters{};
  parameters.sched_priority = priority;
  return pthread_setschedparam(thread_.native_handle(), SCHED_FIFO, &parameters) == 0;
}

void LowCmdSender::run() {
  WireOrder order;
  bool stalled = false;
  auto last_order = Clock::now();
  while (!stop_.load()) {
    const timespec deadline = as_timespec(Clock::now() + period_);
    sem_clockwait(&posted_, CLOCK_MONOTONIC, &deadline);
    while (sem_trywait(&posted_) == 0) {
    }

    if (closing_.load()) {
      fall_silent(order);
      continue;
    }

    const auto now = Clock::now();
    if (orders_.read(order)) {
      last_order = now;
      stalled = false;
      if (order.output == Output::silent) {
        period_statistics_.pause();
      } else {
        send(order);
      }
    } else if (order.output != Output::silent && now - last_order > stall_timeout_) {
      if (!stalled) {
        stalled = true;
        stalls_.fetch_add(1, std::memory_order_relaxed);
        order.output = Output::damping;
      }
      send(order);
    }
  }
}

void LowCmdSender::fall_silent(WireOrder& order) {
  if (order.output != Output::silent) {
    order.output = Output::damping;
    const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(kShutdownTime));
    for (auto due = Clock::now(); due < end; due += period_) {
      std::this_thread::sleep_until(due);
      send(order);
    }
  }
  // What was ordered meanwhile must not be the first thing sent when this opens again.
  orders_.update();
  order.output = Output::silent;
  period_statistics_.pause();
  const std::lock_guard<std::mutex> lock(closed_mutex_);
  closed_ = true;
  closed_changed_.notify_all();
}

void LowCmdSender::send(const WireOrder& order) {
  if (order.output == Output::follow) {
    fill_command(command_, order.mode_machine, motors_, order.targets);
  } else {
    fill_damping(command_, order.mode_machine, motors_);
  }
  publish_(command_);
  sent_.fetch_add(1, std::memory_order_relaxed);
  period_statistics_.tick(now_s());
}

}  // namespace humanoid_rl_hardware
