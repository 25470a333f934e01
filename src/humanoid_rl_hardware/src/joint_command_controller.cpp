#include "humanoid_rl_hardware/joint_command_controller.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <utility>

#include "diagnostic_msgs/msg/diagnostic_status.hpp"
#include "diagnostic_msgs/msg/key_value.hpp"
#include "format_text.hpp"
#include "hardware_interface/types/hardware_interface_type_values.hpp"
#include "pluginlib/class_list_macros.hpp"
#include "rcl_interfaces/msg/parameter_descriptor.hpp"
#include "steady_clock.hpp"

namespace humanoid_rl_hardware {

namespace {

using controller_interface::CallbackReturn;
using controller_interface::interface_configuration_type;
using controller_interface::InterfaceConfiguration;
using controller_interface::return_type;
using diagnostic_msgs::msg::DiagnosticStatus;
using humanoid_rl_interfaces::msg::HostStatus;
using humanoid_rl_interfaces::msg::JointCommand;

/// A command interface of a joint and the targets that go there.
struct CommandField {
  const char* name;
  std::array<double, kMotorSlots> JointTargets::* targets;
};
constexpr std::array<CommandField, 5> kCommandFields{
    {{hardware_interface::HW_IF_POSITION, &JointTargets::position},
     {hardware_interface::HW_IF_VELOCITY, &JointTargets::velocity},
     {hardware_interface::HW_IF_EFFORT, &JointTargets::effort},
     {"kp", &JointTargets::stiffness},
     {"kd", &JointTargets::damping}}};
constexpr std::chrono::milliseconds kStatusPeriod{100};
constexpr double kDiagnosticsPeriod = 1.0;  // s
/// s after activation within which the first LowState is expected; a robot that is on sends 500 a second.
constexpr double kStateDeadline = 5.0;
/// A queue of one would let a refused command push out the valid one that came just before it.
constexpr std::size_t kCommandQueue = 8;

}  // namespace

CallbackReturn JointCommandController::on_init() {
  try {
    rcl_interfaces::msg::ParameterDescriptor read_only;
    read_only.read_only = true;
    const auto declare = [this, &read_only](const std::string& name, const auto& otherwise) {
      // Parameters given at start may be declared already, depending on the version of ros2_control.
      if (!get_node()->has_parameter(name)) {
        get_node()->declare_parameter(name, rclcpp::ParameterValue(otherwise), read_only);
      }
    };
    declare("joints", std::vector<std::string>{});
    declare("policy_period", 0.02);
    declare("state_timeout", 0.05);
    declare("auto_activate", false);
    declare("robot", std::string{});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "joint_command_controller: %s\n", error.what());
    return CallbackReturn::ERROR;
  }
  return CallbackReturn::SUCCESS;
}

InterfaceConfiguration JointCommandController::command_interface_configuration() const {
  InterfaceConfiguration configuration{interface_configuration_type::INDIVIDUAL, {}};
  for (const auto& joint : joints_) {
    for (const CommandField& field : kCommandFields) {
      configuration.names.push_back(joint + "/" + field.name);
    }
  }
  configuration.names.emplace_back("robot_link/mode");
  return configuration;
}

InterfaceConfiguration JointCommandController::state_interface_configuration() const {
  InterfaceConfiguration configuration{interface_configuration_type::INDIVIDUAL, {}};
  for (const auto& field : kLinkFields) {
    configuration.names.push_back(std::string("robot_link/") + field.name);
  }
  for (const auto& joint : joints_) {
    for (const auto& field : kMotorFields) {
      configuration.names.push_back(joint + "/" + field.name);
    }
  }
  return configuration;
}

CallbackReturn JointCommandController::on_configure(const rclcpp_lifecycle::State&) {
  const auto node = get_node();
  joints_ = node->get_parameter("joints").as_string_array();
  robot_ = node->get_parameter("robot").as_string();
  auto_activate_ = node->get_parameter("auto_activate").as_bool();
  const double policy_period = node->get_parameter("policy_period").as_double();
  const double state_timeout = node->get_parameter("state_timeout").as_double();
  period_ = 1.0 / std::max(1u, get_update_rate());
  try {
    joint_map_ = std::make_unique<JointMap>(joints_);
    rules_ = std::make_unique<HostRules>(policy_period, state_timeout, period_);
  } catch (const std::invalid_argument& error) {
    RCLCPP_ERROR(node->get_logger(), "parameters (joints, policy_period, state_timeout): %s", error.what());
    return CallbackReturn::ERROR;
  }

  // One group, in which an executor takes messages before requests: a command that came before a reset is not
  // followed after it.
  group_ = node->create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive);
  rclcpp::SubscriptionOptions options;
  options.callback_group = group_;
  subscription_ = node->create_subscription<JointCommand>(
      "/joint_command", rclcpp::QoS(kCommandQueue).best_effort(),
      [this](const JointCommand& message) { receive(message); }, options);
  host_status_ = node->create_publisher<HostStatus>("/host/status", 1);
  motor_status_ = node->create_publisher<humanoid_rl_interfaces::msg::MotorStatus>("/motor_status", 1);
  diagnostics_ = node->create_publisher<diagnostic_msgs::msg::DiagnosticArray>("/diagnostics", 10);
  serve("estop", [this] { return rules_->estop(); });
  serve("reset", [this] {
    commands_after_ = now_s();
    return rules_->reset(state_age_.load());
  });
  serve("deactivate", [this] { return rules_->deactivate(); });
  serve("activate", [this] {
    if (!rules_->activated()) {
      activated_at_ = now_s();
    }
    return rules_->activate();
  });
  timer_ = node->create_wall_timer(kStatusPeriod, [this] { publish_slow_topics(); });
  return CallbackReturn::SUCCESS;
}

void JointCommandController::serve(const std::string& name, std::function<Reply()> request) {
  services_.push_back(get_node()->create_service<Trigger>(
      "/host/" + name,
      [this, request = std::move(request)](const std::shared_ptr<Trigger::Request>&,
                                           const std::shared_ptr<Trigger::Response>& response) {
        {
          const std::lock_guard<std::mutex> lock(rules_mutex_);
          const Reply reply = request();
          response->success = reply.success;
          response->message = reply.message();
        }
        // Answered after the command went out: who reads "damping" can rely on it. The cycle that runs now
        // may have missed the request; the one after it has not.
        wait_for_cycles(2);
      },
      rclcpp::ServicesQoS(), group_));
}

void JointCommandController::wait_for_cycles(std::uint64_t count) const {
  const std::uint64_t begin = cycles_.load();
  const double deadline = now_s() + 0.1;
  while (cycles_.load() - begin < count && now_s() < deadline && active_.load()) {
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
}

CallbackReturn JointCommandController::on_activate(const rclcpp_lifecycle::State&) {
  const std::lock_guard<std::mutex> lock(rules_mutex_);
  output_ = Output::silent;
  known_stalls_ = updated_at_ = std::numeric_limits<double>::quiet_NaN();
  if (auto_activate_) {
    activated_at_ = now_s();
    const Reply reply = rules_->activate();
    if (!reply.success) {
      RCLCPP_ERROR(get_node()->get_logger(), "not activated: %s", reply.message().c_str());
    }
  }
  active_.store(true);
  return CallbackReturn::SUCCESS;
}

CallbackReturn JointCommandController::on_deactivate(const rclcpp_lifecycle::State&) {
  active_.store(false);
  const std::lock_guard<std::mutex> lock(rules_mutex_);
  // The hardware damps from here on: nobody commands any more.
  rules_->deactivate();
  return CallbackReturn::SUCCESS;
}

CallbackReturn JointCommandController::on_cleanup(const rclcpp_lifecycle::State&) {
  timer_.reset();
  services_.clear();
  subscription_.reset();
  host_status_.reset();
  motor_status_.reset();
  diagnostics_.reset();
  return CallbackReturn::SUCCESS;
}

void JointCommandController::receive(const JointCommand& message) {
  Arrival arrival;
  const std::string refusal =
      joint_map_->targets(message.joint_names, message.position, message.velocity, message.effort,
                          message.stiffness, message.damping, arrival.targets);
  if (!refusal.empty()) {
    {
      const std::lock_guard<std::mutex> lock(rules_mutex_);
      rules_->refuse_targets();
    }
    RCLCPP_ERROR_THROTTLE(get_node()->get_logger(), *get_node()->get_clock(), 1000,
                          "joint command refused: %s", refusal.c_str());
    return;
  }
  arrival.time = now_s();
  arrivals_.write(arrival);
}

return_type JointCommandController::update(const rclcpp::Time&, const rclcpp::Duration&) {
  const double now = now_s();
  count_misses(now);
  std::size_t next = 0;
  // A handle that another thread holds at this moment keeps its value for one cycle.
  const auto take = [this, &next](double& value) {
    if (const auto taken = state_interfaces_[next++].get_optional<double>(1); taken) {
      value = *taken;
    }
  };
  Link& link = snapshot_.link;
  for (const auto& field : kLinkFields) {
    take(link.*field.value);
  }
  for (std::size_t i = 0; i < joints_.size(); ++i) {
    for (const auto& field : kMotorFields) {
      take(snapshot_.motors[i].*field.value);
    }
  }
  state_age_.store(link.state_age);
  arrived_ = arrivals_.read(arrival_) || arrived_;

  if (const std::unique_lock<std::mutex> lock(rules_mutex_, std::try_to_lock); lock.owns_lock()) {
    if (link.stalls > known_stalls_) {
      rules_->report_stall();
    }
    known_stalls_ = link.stalls;
    if (arrived_) {
      if (arrival_.time > commands_after_ && rules_->receive_targets(arrival_.time)) {
        targets_ = arrival_.targets;
      }
      arrived_ = false;
    }
    output_ = rules_->step(now, link.state_age);
  }
  command(output_);
  snapshots_.write(snapshot_);
  cycles_.fetch_add(1);
  return return_type::OK;
}

void JointCommandController::count_misses(double now) noexcept {
  // As the embedded host counts: a cycle that begins more than half a period late, and every one that did not
  // happen.
  const double late = now - updated_at_ - period_;
  if (late > 0.5 * period_) {
    deadline_misses_.fetch_add(std::max<std::uint64_t>(1, static_cast<std::uint64_t>(late / period_)));
  }
  updated_at_ = now;
}

void JointCommandController::command(Output output) noexcept {
  const auto give = [this](std::size_t index, double value) {
    std::ignore = command_interfaces_[index].set_value(value, 1);
  };
  if (output == Output::follow) {
    std::size_t index = 0;
    for (std::size_t i = 0; i < joints_.size(); ++i) {
      for (const CommandField& field : kCommandFields) {
        give(index++, (targets_.*field.targets)[i]);
      }
    }
  }
  give(command_interfaces_.size() - 1, static_cast<double>(static_cast<int>(output)));
}

void JointCommandController::publish_slow_topics() {
  std::ignore = snapshots_.read(shown_);
  const Link& link = shown_.link;
  const double now = now_s();
  HostStatus status;
  std::string cause;
  HostState state{};
  double activated_for = 0.0;
  {
    const std::lock_guard<std::mutex> lock(rules_mutex_);
    state = rules_->state();
    cause = rules_->cause().text();
    status.rejected_commands = rules_->rejected_commands();
    activated_for = now - activated_at_;
  }
  status.header.stamp = get_node()->now();
  status.state = static_cast<std::uint8_t>(state);
  status.cause = cause;
  status.mode_machine = static_cast<std::uint8_t>(link.mode_machine);
  status.cycles = static_cast<std::uint64_t>(link.sent);
  status.rejected_states = static_cast<std::uint64_t>(link.rejected_states);
  status.period = period_;
  status.period_error_p50 = link.period_error_p50;
  status.period_error_p99 = link.period_error_p99;
  status.period_error_max = link.period_error_max;
  status.low_state_age = link.state_age;
  status.deadline_misses = deadline_misses_.load();
  host_status_->publish(status);

  if (link.mode_machine > 0.0) {
    humanoid_rl_interfaces::msg::MotorStatus motors;
    motors.header.stamp = status.header.stamp;
    motors.joint_names = joints_;
    for (std::size_t i = 0; i < joints_.size(); ++i) {
      motors.winding_temperature.push_back(static_cast<float>(shown_.motors[i].winding_temperature));
      motors.casing_temperature.push_back(static_cast<float>(shown_.motors[i].casing_temperature));
      motors.voltage.push_back(static_cast<float>(shown_.motors[i].voltage));
    }
    motor_status_->publish(motors);
  }

  const auto [level, message] = judgement(activated_for, state, cause, link);
  if (std::pair{state, message} != reported_) {
    if (level == DiagnosticStatus::ERROR) {
      RCLCPP_ERROR(get_node()->get_logger(), "%s", message.c_str());
    } else {
      RCLCPP_INFO(get_node()->get_logger(), "%s", message.c_str());
    }
  } else if (now - diagnostics_time_ < kDiagnosticsPeriod) {
    return;
  }
  reported_ = {state, message};
  diagnostics_time_ = now;

  diagnostic_msgs::msg::DiagnosticArray array;
  array.header.stamp = status.header.stamp;
  DiagnosticStatus& diagnostic = array.status.emplace_back();
  diagnostic.level = level;
  diagnostic.name = "ros2_control: robot link";
  diagnostic.hardware_id = robot_;
  diagnostic.message = message;
  const auto add = [&diagnostic](const std::string& key, const std::string& value) {
    auto& pair = diagnostic.values.emplace_back();
    pair.key = key;
    pair.value = value;
  };
  add("mode_machine", std::to_string(status.mode_machine));
  add("cycles", std::to_string(status.cycles));
  add("deadline misses", std::to_string(status.deadline_misses));
  add("stalls of the control loop", std::to_string(static_cast<std::uint64_t>(link.stalls)));
  add("rejected joint commands", std::to_string(status.rejected_commands));
  add("rejected LowStates", std::to_string(status.rejected_states));
  add("LowState age [ms]", format_tenths(1e3 * link.state_age));
  add("period error p50 [us]", format_tenths(1e6 * link.period_error_p50));
  add("period error p99 [us]", format_tenths(1e6 * link.period_error_p99));
  add("period error max [us]", format_tenths(1e6 * link.period_error_max));
  diagnostics_->publish(array);
}

std::pair<std::uint8_t, std::string> JointCommandController::judgement(double activated_for, HostState state,
                                                                       const std::string& cause,
                                                                       const Link& link) const {
  if (!active_.load()) {
    return {DiagnosticStatus::WARN, "the controller is not active"};
  }
  if (state == HostState::damping) {
    const auto level = cause == "deactivating" ? DiagnosticStatus::WARN : DiagnosticStatus::ERROR;
    return {level, "damping: " + cause};
  }
  if (state == HostState::waiting_state) {
    if (activated_for <= kStateDeadline) {
      return {DiagnosticStatus::WARN, "waiting for the first LowState"};
    }
    const std::string reason =
        link.rejected_states > 0.0
            ? "every one is refused; the log of the hardware says why"
            : "none arrives on /lowstate; is the robot on, the network interface right?";
    return {DiagnosticStatus::ERROR, "no valid LowState within 5 s of activation: " + reason};
  }
  const std::size_t commanders = get_node()->count_publishers("/lowcmd");
  if (commanders > 1) {
    return {DiagnosticStatus::WARN, std::to_string(commanders) + " nodes publish /lowcmd, one alone may"};
  }
  switch (state) {
    case HostState::ready:
      return {DiagnosticStatus::OK, "ready: damping until the first joint command"};
    case HostState::active:
      return {DiagnosticStatus::OK, "active: following joint commands"};
    default:
      return {DiagnosticStatus::OK, "inactive"};
  }
}

}  // namespace humanoid_rl_hardware

PLUGINLIB_EXPORT_CLASS(humanoid_rl_hardware::JointCommandController,
                       controller_interface::ControllerInterface)
