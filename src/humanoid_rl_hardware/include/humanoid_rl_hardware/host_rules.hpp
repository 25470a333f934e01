#ifndef HUMANOID_RL_HARDWARE__HOST_RULES_HPP_
#define HUMANOID_RL_HARDWARE__HOST_RULES_HPP_

/// What a host may send to the robot, and when: rules H1 and H3 to H8 as a state machine without ROS.
///
/// The equal of host_rules.py, except that what is sent (targets, limits, LowState) stays with the caller.
/// Time is a parameter (seconds of a monotonic clock).
///
/// inactive       nothing is sent
/// waiting_state  activated, no valid LowState yet: nothing is sent (H1)
/// ready          damping every cycle, waiting for the first joint command
/// active         the last joint command, clamped (H6)
/// damping        a fault is latched (H3, H4, H5): damping every cycle until `HostRules::reset`; with the
/// cause
///                "deactivating" the damping after a deactivation, which ends in inactive
///
/// An emergency stop latches in every state. It cannot make an inactive host send anything (H1), but such a
/// host refuses activation until it is reset.

#include <cstdint>
#include <string>

namespace humanoid_rl_hardware {

/// s: the robot's own rate, 500 Hz, of LowState and LowCmd.
inline constexpr double kCyclePeriod = 0.002;

/// Policy periods after which a joint command is no longer followed (H3).
inline constexpr int kStaleCommandPeriods = 3;

/// s of damping a host sends before it falls silent; the reason is in host_rules.py.
inline constexpr double kShutdownTime = 0.1;

/// Values of HostStatus.state.
enum class HostState : std::uint8_t { inactive = 0, waiting_state = 1, ready = 2, active = 3, damping = 4 };

/// What to send in a cycle: nothing, the damping command, or the last joint targets, clamped.
/// The numbers are those of the ros2_control interface robot_link/mode.
enum class Output : std::uint8_t { silent = 0, damping = 1, follow = 2 };

/// Why a host damps, as numbers; trivially copyable, so that it can be composed into text by another thread.
struct Cause {
  enum class Kind : std::uint8_t {
    none,
    stale_state,
    stale_command,
    emergency_stop,
    control_loop_stall,
    deactivating
  };

  Kind kind{Kind::none};
  double age{0.0};    ///< s, of what was stale
  double limit{0.0};  ///< s, ditto

  explicit operator bool() const noexcept { return kind != Kind::none; }

  /// One line; empty for `Kind::none`. Allocates.
  [[nodiscard]] std::string text() const;
};

/// Answer to an operator's request, as numbers; trivially copyable.
struct Reply {
  enum class Kind : std::uint8_t {
    latched,
    already_activated,
    activated,
    not_activated,
    deactivated,
    stopped,
    stopped_silent,
    nothing_latched,
    no_state,
    cleared
  };

  bool success{false};
  Kind kind{Kind::latched};
  Cause cause{};      ///< what is, or was, latched
  double limit{0.0};  ///< s, age at which LowState counts as lost

  /// One line for std_srvs/Trigger. Allocates.
  [[nodiscard]] std::string message() const;
};

/// Decides each cycle between silence, damping and the clamped joint command.
///
/// Call, in this order, once a cycle: `receive_targets` when a valid joint command arrived, the operator's
/// requests, then `step`. For one thread; none of it allocates or throws but the constructor.
class HostRules {
 public:
  /// \param policy_period s, period of the joint commands.
  /// \param state_timeout s, age at which LowState counts as lost (H4).
  /// \param cycle_period s, time between two calls of `step`.
  /// \throws std::invalid_argument a period or the timeout is outside cycle_period to 1 s.
  explicit HostRules(double policy_period = 0.02, double state_timeout = 0.05,
                     double cycle_period = kCyclePeriod);

  /// Operator's request to start sending.
  Reply activate() noexcept;

  /// Operator's request to stop sending: `kShutdownTime` of damping, then silence. Clears no latch.
  Reply deactivate() noexcept;

  /// Operator's request to damp from this cycle on (H5).
  Reply estop() noexcept;

  /// Operator's request to clear the latch. Refused without a valid, fresh LowState while activated.
  ///
  /// \param state_age s since the last valid LowState arrived; inf when none did.
  Reply reset(double state_age) noexcept;

  /// The control loop stood still for so long that something else damped in its place (H8). Latches.
  ///
  /// The embedded host has nothing that could: it is one loop.
  void report_stall() noexcept;

  /// A valid joint command arrived.
  ///
  /// \returns whether it is taken: the host is ready or active. The caller keeps its targets only then.
  bool receive_targets(double now) noexcept;

  /// Counts a joint command that was refused (H7). It is no command: it does not feed H3's clock.
  void refuse_targets() noexcept { ++rejected_commands_; }

  /// What to send this cycle.
  ///
  /// \param state_age see `reset`.
  Output step(double now, double state_age) noexcept;

  /// As published in HostStatus.
  [[nodiscard]] HostState state() const noexcept;

  /// Why the host is damping; none unless `state` is damping.
  [[nodiscard]] Cause cause() const noexcept;

  /// Why the host latched; none when it did not.
  [[nodiscard]] const Cause& fault() const noexcept { return fault_; }

  [[nodiscard]] bool activated() const noexcept { return activated_; }
  [[nodiscard]] std::uint64_t rejected_commands() const noexcept { return rejected_commands_; }
  /// s, age at which a joint command is no longer followed (H3).
  [[nodiscard]] double command_timeout() const noexcept { return command_timeout_; }
  /// s, age at which LowState counts as lost (H4).
  [[nodiscard]] double state_timeout() const noexcept { return state_timeout_; }

 private:
  void check_ages(double now, double state_age) noexcept;
  void latch(const Cause& cause) noexcept;
  [[nodiscard]] bool fresh(double state_age) const noexcept;
  [[nodiscard]] Reply reply(bool success, Reply::Kind kind) const noexcept;

  double command_timeout_;
  double state_timeout_;
  long shutdown_cycles_;
  bool activated_{false};
  bool wire_open_{false};
  bool has_targets_{false};
  long closing_cycles_{0};
  double targets_time_{0.0};
  Cause fault_{};
  std::uint64_t rejected_commands_{0};
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__HOST_RULES_HPP_
