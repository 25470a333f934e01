#ifndef HUMANOID_RL_HARDWARE__LOW_CMD_SENDER_HPP_
#define HUMANOID_RL_HARDWARE__LOW_CMD_SENDER_HPP_

/// The thread that sends LowCmd, so that the control loop never waits for the network.

#include <semaphore.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "humanoid_rl_hardware/host_rules.hpp"
#include "humanoid_rl_hardware/joint_targets.hpp"
#include "humanoid_rl_hardware/period_statistics.hpp"
#include "humanoid_rl_hardware/triple_buffer.hpp"
#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

namespace humanoid_rl_hardware {

/// What the control loop wants sent this cycle.
struct WireOrder {
  Output output = Output::silent;
  std::uint8_t mode_machine = 0;
  JointTargets targets{};
};

/// Seals and publishes the orders of a control loop in a thread of its own.
///
/// `post` is for the real-time loop: it copies the order into a triple buffer and posts a semaphore; it
/// neither allocates nor waits. A loop that stops posting while the wire is open is a crash (rule H8): after
/// `stall_timeout` the thread sends damping by itself, every period, until the next order.
class LowCmdSender {
 public:
  using Publish = std::function<void(const LowCmd&)>;

  /// How long the control loop may be late before the thread takes over.
  static constexpr std::chrono::milliseconds kStallTimeout{50};

  /// @param motors number of the robot's motors; the other slots stay zero.
  /// @param period nominal time between two orders.
  /// @param publish called in the sender's thread alone.
  LowCmdSender(std::size_t motors, std::chrono::nanoseconds period, Publish publish,
               std::chrono::nanoseconds stall_timeout = kStallTimeout);
  ~LowCmdSender();
  LowCmdSender(const LowCmdSender&) = delete;
  LowCmdSender& operator=(const LowCmdSender&) = delete;

  /// Hands an order over. Real-time safe; one thread at a time.
  void post(const WireOrder& order) noexcept;

  /// Damps for `kShutdownTime` when the wire is open, then is silent; orders that come meanwhile are dropped.
  /// Returns when the last command is out. Not for the control loop.
  void close();

  /// Takes orders from now on; a new sender and one that was closed do not.
  void open() noexcept { closing_.store(false); }

  /// Runs the thread under SCHED_FIFO with this priority (1 to 99). False where the system does not permit
  /// it.
  bool set_priority(int priority) noexcept;

  /// LowCmd sent since construction.
  std::uint64_t sent() const noexcept { return sent_.load(std::memory_order_relaxed); }
  /// Times that the control loop left an open wire without an order for the stall timeout.
  std::uint64_t stalls() const noexcept { return stalls_.load(std::memory_order_relaxed); }
  /// |actual - nominal| period of the commands sent, s, over the last ten seconds.
  const PeriodStatistics& period() const noexcept { return period_statistics_; }

 private:
  void run();
  /// Damps for `kShutdownTime` when `order`, the last one sent, was not silent; it is afterwards.
  void fall_silent(WireOrder& order);
  void send(const WireOrder& order);

  const std::size_t motors_;
  const std::chrono::nanoseconds period_;
  const std::chrono::nanoseconds stall_timeout_;
  const Publish publish_;

  TripleBuffer<WireOrder> orders_;
  sem_t posted_;
  std::atomic<bool> closing_{true};
  std::atomic<bool> stop_{false};
  std::mutex closed_mutex_;
  std::condition_variable closed_changed_;
  bool closed_ = false;
  std::atomic<std::uint64_t> sent_{0};
  std::atomic<std::uint64_t> stalls_{0};
  PeriodStatistics period_statistics_;
  LowCmd command_{};
  std::thread thread_;
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__LOW_CMD_SENDER_HPP_
