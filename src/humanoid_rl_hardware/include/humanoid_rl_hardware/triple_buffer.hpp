#ifndef HUMANOID_RL_HARDWARE__TRIPLE_BUFFER_HPP_
#define HUMANOID_RL_HARDWARE__TRIPLE_BUFFER_HPP_

/// The newest value from one thread to another, wait-free on both sides.

#include <array>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace humanoid_rl_hardware {

/// Hands values from one producer thread to one consumer thread. Values the consumer did not look at in time
/// are overwritten; a value is never seen half-written.
///
/// Of three slots one is the producer's, one the consumer's, and the third holds what was published last.
/// Either side swaps its own for the third in one atomic exchange.
template <class T>
class TripleBuffer {
  static_assert(std::is_trivially_copyable_v<T>, "a slot is reused, never destroyed");
  static_assert(std::atomic<std::uint8_t>::is_always_lock_free);

 public:
  TripleBuffer() = default;
  TripleBuffer(const TripleBuffer&) = delete;
  TripleBuffer& operator=(const TripleBuffer&) = delete;

  /// Producer: the slot to fill before `publish`. It holds some older value: write all of it.
  [[nodiscard]] T& back() noexcept { return slots_[back_].value; }

  /// Producer: makes `back` the newest value; `back` is another slot afterwards.
  void publish() noexcept {
    back_ = middle_.exchange(static_cast<std::uint8_t>(back_ | kFresh), std::memory_order_acq_rel) & kIndex;
  }

  /// Producer: copies a value and publishes it.
  void write(const T& value) noexcept {
    back() = value;
    publish();
  }

  /// Consumer: makes `front` the newest value. Returns whether there was one since the last call.
  bool update() noexcept {
    if ((middle_.load(std::memory_order_relaxed) & kFresh) == 0) return false;
    front_ = middle_.exchange(front_, std::memory_order_acq_rel) & kIndex;
    return true;
  }

  /// Consumer: the value of the last `update` that returned true; value-initialised before that.
  [[nodiscard]] const T& front() const noexcept { return slots_[front_].value; }

  /// Consumer: copies the newest value. Returns false, and leaves `value` alone, when there was none since
  /// the last call.
  bool read(T& value) noexcept {
    if (!update()) return false;
    value = front();
    return true;
  }

 private:
  static constexpr std::uint8_t kIndex = 3;
  static constexpr std::uint8_t kFresh = 4;

  // Apart by a cache line, so that the two threads do not slow each other down.
  struct alignas(64) Slot {
    T value{};
  };
  std::array<Slot, 3> slots_{};
  alignas(64) std::uint8_t back_{0};
  alignas(64) std::atomic<std::uint8_t> middle_{1};
  alignas(64) std::uint8_t front_{2};
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__TRIPLE_BUFFER_HPP_
