#include "humanoid_rl_hardware/unitree_hg_system.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <unordered_map>

#include "hardware_interface/types/hardware_interface_type_values.hpp"
#include "pluginlib/class_list_macros.hpp"
#include "steady_clock.hpp"

namespace humanoid_rl_hardware {

namespace {

using hardware_interface::CallbackReturn;
using hardware_interface::return_type;

constexpr std::chrono::milliseconds kStatisticsPeriod{100};
/// The publisher outlives its last command: its goodbye travels on a socket of its own, and a receiver that
/// reads it first throws away the commands it has not read yet.
constexpr std::chrono::milliseconds kLinger{100};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// A hardware parameter of the URDF, or `otherwise` when it is not there. Throws when it is no number.
double number(const std::unordered_map<std::string, std::string>& parameters, const std::string& name,
              double otherwise) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) {
    return otherwise;
  }
  std::size_t used = 0;
  double value = kNone;
  try {
    value = std::stod(found->second, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != found->second.size() || !std::isfinite(value)) {
    throw std::invalid_argument("parameter " + name + " is '" + found->second + "', expected a number");
  }
  return value;
}

std::string text(const std::unordered_map<std::string, std::string>& parameters, const std::string& name,
                 const std::string& otherwise) {
  const auto found = parameters.find(name);
  return found == parameters.end() ? otherwise : found->second;
}

/// "5, 11" as {5, 11}. Throws when it is no list of numbers from 0 to 255.
std::vector<std::uint8_t> mode_machines(const std::string& list) {
  std::vector<std::uint8_t> modes;
  std::size_t begin = 0;
  while (begin <= list.size()) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::unordered_map<std::string, std::string> entry{
        {"mode_machine", list.substr(begin, end - begin)}};
    const double value = number(entry, "mode_machine", kNone);
    if (value < 0.0 || value > 255.0 || value != std::floor(value)) {
      throw std::invalid_argument("parameter mode_machine is '" + list + "', expected numbers from 0 to 255");
    }
    modes.push_back(static_cast<std::uint8_t>(value));
    begin = end + 1;
  }
  return modes;
}

/// ROS message to the C struct that the CRC is defined on.
void copy(const unitree_hg::msg::LowState& from, LowState& to) {
  to.version = from.version;
  to.mode_pr = from.mode_pr;
  to.mode_machine = from.mode_machine;
  to.tick = from.tick;
  to.imu_state.quaternion = from.imu_state.quaternion;
  to.imu_state.gyroscope = from.imu_state.gyroscope;
  to.imu_state.accelerometer = from.imu_state.accelerometer;
  to.imu_state.rpy = from.imu_state.rpy;
  to.imu_state.temperature = from.imu_state.temperature;
  for (std::size_t i = 0; i < kMotorSlots; ++i) {
    const auto& source = from.motor_state[i];
    MotorState& motor = to.motor_state[i];
    motor.mode = source.mode;
    motor.q = source.q;
    motor.dq = source.dq;
    motor.ddq = source.ddq;
    motor.tau_est = source.tau_est;
    motor.temperature = source.temperature;
    motor.vol = source.vol;
    motor.sensor = source.sensor;
    motor.motorstate = source.motorstate;
    motor.reserve = source.reserve;
  }
  to.wireless_remote = from.wireless_remote;
  to.reserve = from.reserve;
  to.crc = from.crc;
}

/// The C struct to its ROS message.
void copy(const LowCmd& from, unitree_hg::msg::LowCmd& to) {
  to.mode_pr = from.mode_pr;
  to.mode_machine = from.mode_machine;
  for (std::size_t i = 0; i < kMotorSlots; ++i) {
    const MotorCmd& source = from.motor_cmd[i];
    auto& motor = to.motor_cmd[i];
    motor.mode = source.mode;
    motor.q = source.q;
    motor.dq = source.dq;
    motor.tau = source.tau;
    motor.kp = source.kp;
    motor.kd = source.kd;
    motor.reserve = source.reserve;
  }
  to.reserve = from.reserve;
  to.crc = from.crc;
}

}  // namespace

UnitreeHgSystem::~UnitreeHgSystem() { disconnect(); }

CallbackReturn UnitreeHgSystem::on_init(const hardware_interface::HardwareComponentInterfaceParams& params) {
  if (hardware_interface::SystemInterface::on_init(params) != CallbackReturn::SUCCESS) {
    return CallbackReturn::ERROR;
  }
  try {
    const auto& parameters = info_.hardware_parameters;
    joints_ = info_.joints.size();
    if (info_.sensors.size() != 1) {
      throw std::invalid_argument("the ros2_control tag has " + std::to_string(info_.sensors.size()) +
                                  " sensors, expected the IMU alone");
    }
    imu_name_ = info_.sensors.front().name;
    state_topic_ = text(parameters, "state_topic", "/lowstate");
    command_topic_ = text(parameters, "command_topic", "/lowcmd");
    state_timeout_ = number(parameters, "state_timeout", 0.05);
    if (!(state_timeout_ >= 0.002 && state_timeout_ <= 1.0)) {
      throw std::invalid_argument("parameter state_timeout is " + std::to_string(state_timeout_) +
                                  " s, expected 0.002 to 1 s");
    }
    sender_priority_ = static_cast<int>(number(parameters, "sender_priority", 0.0));
    const std::string modes = text(parameters, "mode_machine", "");
    if (modes.empty()) {
      throw std::invalid_argument(
          "parameter mode_machine is missing: the machines this description is right for");
    }
    check_ = std::make_unique<LowStateCheck>(mode_machines(modes), joints_);

    JointLimits limits;
    for (const auto& joint : info_.joints) {
      const auto found = info_.limits.find(joint.name);
      if (found == info_.limits.end() || !found->second.has_position_limits ||
          !found->second.has_velocity_limits || !found->second.has_effort_limits) {
        throw std::invalid_argument("joint '" + joint.name +
                                    "' has no position, velocity and effort limits in the URDF");
      }
      limits.lower.push_back(found->second.min_position);
      limits.upper.push_back(found->second.max_position);
      limits.velocity.push_back(found->second.max_velocity);
      limits.effort.push_back(found->second.max_effort);
    }
    limiter_ = std::make_unique<TorqueLimiter>(limits);
  } catch (const std::exception& error) {
    RCLCPP_ERROR(get_logger(), "%s", error.what());
    return CallbackReturn::ERROR;
  }
  return CallbackReturn::SUCCESS;
}

void UnitreeHgSystem::find_handles() {
  const auto state = [this](const std::string& name) { return get_state_interface_handle(name); };
  const auto command = [this](const std::string& name) { return get_command_interface_handle(name); };
  joint_handles_.clear();
  for (const auto& joint : info_.joints) {
    const std::string prefix = joint.name + "/";
    JointHandles handles;
    handles.position = state(prefix + hardware_interface::HW_IF_POSITION);
    handles.velocity = state(prefix + hardware_interface::HW_IF_VELOCITY);
    handles.effort = state(prefix + hardware_interface::HW_IF_EFFORT);
    handles.winding_temperature = state(prefix + "winding_temperature");
    handles.casing_temperature = state(prefix + "casing_temperature");
    handles.voltage = state(prefix + "voltage");
    handles.target_position = command(prefix + hardware_interface::HW_IF_POSITION);
    handles.target_velocity = command(prefix + hardware_interface::HW_IF_VELOCITY);
    handles.target_effort = command(prefix + hardware_interface::HW_IF_EFFORT);
    handles.kp = command(prefix + "kp");
    handles.kd = command(prefix + "kd");
    joint_handles_.push_back(std::move(handles));
  }
  const std::array<const char*, 4> quaternion{"x", "y", "z", "w"};
  for (std::size_t i = 0; i < 4; ++i) {
    imu_handles_.orientation[i] = state(imu_name_ + "/orientation." + quaternion[i]);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    imu_handles_.angular_velocity[i] = state(imu_name_ + "/angular_velocity." + quaternion[i]);
    imu_handles_.linear_acceleration[i] = state(imu_name_ + "/linear_acceleration." + quaternion[i]);
  }
  const std::string link = "robot_link/";
  link_handles_.mode = command(link + "mode");
  link_handles_.state_age = state(link + "state_age");
  link_handles_.mode_machine = state(link + "mode_machine");
  link_handles_.rejected_states = state(link + "rejected_states");
  link_handles_.refusal = state(link + "refusal");
  link_handles_.sent = state(link + "sent");
  link_handles_.stalls = state(link + "stalls");
  link_handles_.period_error_p50 = state(link + "period_error_p50");
  link_handles_.period_error_p99 = state(link + "period_error_p99");
  link_handles_.period_error_max = state(link + "period_error_max");
}

CallbackReturn UnitreeHgSystem::on_configure(const rclcpp_lifecycle::State&) {
  try {
    find_handles();
    connect();
  } catch (const std::exception& error) {
    RCLCPP_ERROR(get_logger(), "%s", error.what());
    return CallbackReturn::ERROR;
  }
  return CallbackReturn::SUCCESS;
}

void UnitreeHgSystem::connect() {
  const auto node = get_node();
  // Of its own, so that LowState never waits for the callbacks of controllers.
  group_ = node->create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive, false);
  rclcpp::SubscriptionOptions options;
  options.callback_group = group_;
  subscription_ = node->create_subscription<unitree_hg::msg::LowState>(
      state_topic_, rclcpp::QoS(1).best_effort(),
      [this](const unitree_hg::msg::LowState& message) { receive(message); }, options);
  publisher_ = node->create_publisher<unitree_hg::msg::LowCmd>(command_topic_, rclcpp::QoS(1).reliable());

  const auto period = std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 / std::max(1u, info_.rw_rate)));
  sender_ =
      std::make_unique<LowCmdSender>(joints_, period, [this](const LowCmd& command) { publish(command); });
  if (sender_priority_ > 0 && !sender_->set_priority(sender_priority_)) {
    RCLCPP_WARN(get_logger(), "sender_priority %d refused; raise the rtprio limit", sender_priority_);
  }
  statistics_timer_ = node->create_wall_timer(
      kStatisticsPeriod,
      [this] {
        const auto errors = sender_->period().errors();
        period_errors_[0].store(errors.p50);
        period_errors_[1].store(errors.p99);
        period_errors_[2].store(errors.max);
      },
      group_);

  rclcpp::ExecutorOptions executor_options;
  executor_options.context = node->get_node_base_interface()->get_context();
  executor_ = std::make_unique<rclcpp::executors::SingleThreadedExecutor>(executor_options);
  executor_->add_callback_group(group_, node->get_node_base_interface());
  receiver_ = std::thread([this] { executor_->spin(); });
}

void UnitreeHgSystem::disconnect() {
  damp_and_close();
  if (executor_) {
    executor_->cancel();
  }
  if (receiver_.joinable()) {
    receiver_.join();
  }
  sender_.reset();
  statistics_timer_.reset();
  subscription_.reset();
  publisher_.reset();
  executor_.reset();
  group_.reset();
}

void UnitreeHgSystem::receive(const unitree_hg::msg::LowState& message) {
  copy(message, received_);
  if (const StateRefusal refusal = check_->check(received_)) {
    refusal_.store(static_cast<int>(refusal.reason), std::memory_order_relaxed);
    rejected_states_.store(check_->rejected(), std::memory_order_relaxed);
    RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 1000, "LowState refused: %s",
                          check_->text(refusal).c_str());
    return;
  }
  Sample sample;
  sample.received = now_s();
  sample.mode_machine = received_.mode_machine;
  sample.motors = received_.motor_state;
  sample.imu = received_.imu_state;
  samples_.write(sample);
}

void UnitreeHgSystem::publish(const LowCmd& command) {
  copy(command, message_);
  try {
    publisher_->publish(message_);
  } catch (const std::exception& error) {
    // The context is gone, or the middleware refused: the next command is 2 ms away, or nothing can be sent
    // at all.
    RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 1000, "LowCmd not sent: %s", error.what());
  }
}

CallbackReturn UnitreeHgSystem::on_activate(const rclcpp_lifecycle::State&) {
  for (const auto& joint : joint_handles_) {
    for (const auto& handle :
         {joint.target_position, joint.target_velocity, joint.target_effort, joint.kp, joint.kd}) {
      set_command(handle, kNone, true);
    }
  }
  set_command(link_handles_.mode, kNone, true);
  for (auto* values : {&commanded_.position, &commanded_.velocity, &commanded_.effort, &commanded_.stiffness,
                       &commanded_.damping}) {
    values->fill(kNone);
  }
  order_ = WireOrder{};
  wire_open_ = false;
  sender_->open();
  return CallbackReturn::SUCCESS;
}

void UnitreeHgSystem::damp_and_close() {
  if (!sender_) {
    return;
  }
  const auto before = sender_->sent();
  sender_->close();
  if (sender_->sent() != before) {
    std::this_thread::sleep_for(kLinger);
  }
}

CallbackReturn UnitreeHgSystem::on_deactivate(const rclcpp_lifecycle::State&) {
  damp_and_close();
  return CallbackReturn::SUCCESS;
}

CallbackReturn UnitreeHgSystem::on_cleanup(const rclcpp_lifecycle::State&) {
  disconnect();
  return CallbackReturn::SUCCESS;
}

CallbackReturn UnitreeHgSystem::on_shutdown(const rclcpp_lifecycle::State&) {
  disconnect();
  return CallbackReturn::SUCCESS;
}

CallbackReturn UnitreeHgSystem::on_error(const rclcpp_lifecycle::State&) {
  disconnect();
  return CallbackReturn::SUCCESS;
}

return_type UnitreeHgSystem::perform_command_mode_switch(const std::vector<std::string>&,
                                                         const std::vector<std::string>& stop_interfaces) {
  const std::string& mode = link_handles_.mode->get_name();
  if (std::find(stop_interfaces.begin(), stop_interfaces.end(), mode) != stop_interfaces.end()) {
    // Nobody commands any more: damping from this cycle on.
    set_command(link_handles_.mode, kNone, false);
  }
  return return_type::OK;
}

return_type UnitreeHgSystem::read(const rclcpp::Time&, const rclcpp::Duration&) {
  if (!sender_) {
    return return_type::OK;
  }
  const bool fresh = samples_.read(sample_);
  state_age_ = now_s() - sample_.received;
  // A handle that another thread reads at this moment keeps its value for one cycle.
  const auto set = [this](const State& handle, double value) {
    std::ignore = set_state(handle, value, false);
  };
  if (fresh) {
    for (std::size_t i = 0; i < joints_; ++i) {
      const MotorState& motor = sample_.motors[i];
      const JointHandles& joint = joint_handles_[i];
      set(joint.position, motor.q);
      set(joint.velocity, motor.dq);
      set(joint.effort, motor.tau_est);
      set(joint.casing_temperature, motor.temperature[0]);
      set(joint.winding_temperature, motor.temperature[1]);
      set(joint.voltage, motor.vol);
    }
    const ImuState& imu = sample_.imu;
    for (std::size_t i = 0; i < 3; ++i) {
      set(imu_handles_.orientation[i], imu.quaternion[i + 1]);
      set(imu_handles_.angular_velocity[i], imu.gyroscope[i]);
      set(imu_handles_.linear_acceleration[i], imu.accelerometer[i]);
    }
    set(imu_handles_.orientation[3], imu.quaternion[0]);
  }
  set(link_handles_.state_age, state_age_);
  set(link_handles_.mode_machine, sample_.mode_machine);
  set(link_handles_.rejected_states, static_cast<double>(rejected_states_.load(std::memory_order_relaxed)));
  set(link_handles_.refusal, refusal_.load(std::memory_order_relaxed));
  set(link_handles_.sent, static_cast<double>(sender_->sent()));
  set(link_handles_.stalls, static_cast<double>(sender_->stalls()));
  set(link_handles_.period_error_p50, period_errors_[0].load(std::memory_order_relaxed));
  set(link_handles_.period_error_p99, period_errors_[1].load(std::memory_order_relaxed));
  set(link_handles_.period_error_max, period_errors_[2].load(std::memory_order_relaxed));
  return return_type::OK;
}

return_type UnitreeHgSystem::write(const rclcpp::Time&, const rclcpp::Duration&) {
  if (!sender_) {
    return return_type::OK;
  }
  double mode = kNone;
  if (!get_command(link_handles_.mode, mode, false)) {
    mode = static_cast<double>(static_cast<int>(order_.output));  // as in the last cycle
  }
  Output wanted = Output::damping;
  if (std::isnan(mode)) {
    wanted = wire_open_ ? Output::damping : Output::silent;
  } else if (mode == 0.0) {
    wanted = Output::silent;
  } else if (mode == 2.0) {
    wanted = Output::follow;
  }
  if (sample_.received == kNever) {
    wanted = Output::silent;  // H1: mode_machine is not known
  }
  if (wanted == Output::follow && state_age_ > state_timeout_) {
    wanted = Output::damping;  // H4
  }
  if (wanted == Output::follow && !read_targets()) {
    wanted = Output::damping;
  }
  order_.output = wanted;
  order_.mode_machine = sample_.mode_machine;
  wire_open_ = wanted != Output::silent;
  sender_->post(order_);
  return return_type::OK;
}

bool UnitreeHgSystem::read_targets() noexcept {
  std::array<double, kMotorSlots> position{}, velocity{};
  bool finite = true;
  // A handle that another thread holds at this moment keeps its value for one cycle.
  const auto get = [this, &finite](const Command& handle, double& value) {
    std::ignore = get_command(handle, value, false);
    finite = finite && std::isfinite(value);
  };
  for (std::size_t i = 0; i < joints_; ++i) {
    const JointHandles& joint = joint_handles_[i];
    get(joint.target_position, commanded_.position[i]);
    get(joint.target_velocity, commanded_.velocity[i]);
    get(joint.target_effort, commanded_.effort[i]);
    get(joint.kp, commanded_.stiffness[i]);
    get(joint.kd, commanded_.damping[i]);
    position[i] = sample_.motors[i].q;
    velocity[i] = sample_.motors[i].dq;
  }
  if (finite) {
    order_.targets = commanded_;
    limiter_->clamp(order_.targets, position.data(), velocity.data());
  }
  return finite;
}

}  // namespace humanoid_rl_hardware

PLUGINLIB_EXPORT_CLASS(humanoid_rl_hardware::UnitreeHgSystem, hardware_interface::SystemInterface)
