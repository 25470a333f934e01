#ifndef HUMANOID_RL_HARDWARE__JOINT_COMMAND_CONTROLLER_HPP_
#define HUMANOID_RL_HARDWARE__JOINT_COMMAND_CONTROLLER_HPP_

/// ros2_control controller: /joint_command to the command interfaces of UnitreeHgSystem, behind the rules of
/// a host.

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "controller_interface/controller_interface.hpp"
#include "diagnostic_msgs/msg/diagnostic_array.hpp"
#include "humanoid_rl_hardware/host_rules.hpp"
#include "humanoid_rl_hardware/joint_targets.hpp"
#include "humanoid_rl_hardware/low_state_check.hpp"
#include "humanoid_rl_hardware/triple_buffer.hpp"
#include "humanoid_rl_interfaces/msg/host_status.hpp"
#include "humanoid_rl_interfaces/msg/joint_command.hpp"
#include "humanoid_rl_interfaces/msg/motor_status.hpp"
#include "rclcpp/rclcpp.hpp"
#include "rclcpp_lifecycle/state.hpp"
#include "std_srvs/srv/trigger.hpp"

namespace humanoid_rl_hardware {

/// See docs/ros2_control.md; the topics, services and rules are those of the embedded host.
///
/// Reads  /joint_command; serves /host/{activate,deactivate,estop,reset}
/// Writes /host/status, /motor_status, /diagnostics
///
/// Requests are taken from the moment the controller is configured: an e-stop latches before it is active
/// too.
///
/// Parameters: joints (in motor order), policy_period s, state_timeout s, auto_activate, robot (a name for
/// diagnostics).
///
/// `update` neither allocates nor waits: commands arrive through a triple buffer, and where an operator's
/// request holds the rules at that moment, the last output stands for one cycle.
class JointCommandController final : public controller_interface::ControllerInterface {
 public:
  controller_interface::CallbackReturn on_init() override;
  controller_interface::InterfaceConfiguration command_interface_configuration() const override;
  controller_interface::InterfaceConfiguration state_interface_configuration() const override;
  controller_interface::CallbackReturn on_configure(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_activate(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_deactivate(const rclcpp_lifecycle::State& previous) override;
  controller_interface::CallbackReturn on_cleanup(const rclcpp_lifecycle::State& previous) override;
  controller_interface::return_type update(const rclcpp::Time& time, const rclcpp::Duration& period) override;

 private:
  using Trigger = std_srvs::srv::Trigger;

  struct Arrival {
    double time = 0.0;  ///< s of the steady clock
    JointTargets targets{};
  };
  /// A state interface and where `update` puts its value. They are claimed, and read, in their tables' order.
  template <class Values>
  struct StateField {
    const char* name;
    double Values::* value;
  };
  /// The state interfaces `robot_link/*`; units in unitree_hg_system.hpp.
  struct Link {
    double state_age = 0.0, mode_machine = 0.0, rejected_states = 0.0, refusal = 0.0, sent = 0.0,
           stalls = 0.0;
    double period_error_p50 = 0.0, period_error_p99 = 0.0, period_error_max = 0.0;
  };
  static constexpr std::array<StateField<Link>, 9> kLinkFields{
      {{"state_age", &Link::state_age},
       {"mode_machine", &Link::mode_machine},
       {"rejected_states", &Link::rejected_states},
       {"refusal", &Link::refusal},
       {"sent", &Link::sent},
       {"stalls", &Link::stalls},
       {"period_error_p50", &Link::period_error_p50},
       {"period_error_p99", &Link::period_error_p99},
       {"period_error_max", &Link::period_error_max}}};
  /// The state interfaces of a joint that are its motor's.
  struct Motor {
    double winding_temperature = 0.0, casing_temperature = 0.0, voltage = 0.0;
  };
  static constexpr std::array<StateField<Motor>, 3> kMotorFields{
      {{"winding_temperature", &Motor::winding_temperature},
       {"casing_temperature", &Motor::casing_temperature},
       {"voltage", &Motor::voltage}}};
  /// What the control loop tells the slow topics.
  struct Snapshot {
    Link link{};
    std::array<Motor, kMotorSlots> motors{};
  };

  void receive(const humanoid_rl_interfaces::msg::JointCommand& message);
  void serve(const std::string& name, std::function<Reply()> request);
  void publish_slow_topics();
  std::pair<std::uint8_t, std::string> judgement(double activated_for, HostState state,
                                                 const std::string& cause, const Link& link) const;
  void count_misses(double now) noexcept;
  void command(Output output) noexcept;
  void wait_for_cycles(std::uint64_t count) const;

  std::vector<std::string> joints_;
  std::string robot_;
  bool auto_activate_ = false;
  double period_ = 0.0;  ///< s, of the control loop

  std::unique_ptr<JointMap> joint_map_;
  std::unique_ptr<HostRules> rules_;
  mutable std::mutex rules_mutex_;  ///< the control loop only tries to lock it
  double commands_after_ = 0.0;  ///< s of the steady clock; what came before the last reset is not followed
  double activated_at_ = 0.0;    ///< s of the steady clock

  TripleBuffer<Arrival> arrivals_;
  TripleBuffer<Snapshot> snapshots_;
  std::atomic<std::uint64_t> cycles_{0};
  std::atomic<std::uint64_t> deadline_misses_{0};
  std::atomic<bool> active_{false};
  std::atomic<double> state_age_{std::numeric_limits<double>::infinity()};

  // The control loop's own.
  Arrival arrival_;
  JointTargets targets_;  ///< the last ones that were taken
  bool arrived_ = false;
  Output output_ = Output::silent;
  Snapshot snapshot_;
  double known_stalls_ = 0.0;
  double updated_at_ = 0.0;  ///< s of the steady clock; NaN before the first update

  // The slow topics' own.
  Snapshot shown_;
  std::pair<HostState, std::string> reported_{HostState::inactive, ""};
  double diagnostics_time_ = 0.0;

  rclcpp::CallbackGroup::SharedPtr group_;
  rclcpp::Subscription<humanoid_rl_interfaces::msg::JointCommand>::SharedPtr subscription_;
  std::vector<rclcpp::Service<Trigger>::SharedPtr> services_;
  rclcpp::Publisher<humanoid_rl_interfaces::msg::HostStatus>::SharedPtr host_status_;
  rclcpp::Publisher<humanoid_rl_interfaces::msg::MotorStatus>::SharedPtr motor_status_;
  rclcpp::Publisher<diagnostic_msgs::msg::DiagnosticArray>::SharedPtr diagnostics_;
  rclcpp::TimerBase::SharedPtr timer_;
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__JOINT_COMMAND_CONTROLLER_HPP_
