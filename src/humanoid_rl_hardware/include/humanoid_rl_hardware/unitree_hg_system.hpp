#ifndef HUMANOID_RL_HARDWARE__UNITREE_HG_SYSTEM_HPP_
#define HUMANOID_RL_HARDWARE__UNITREE_HG_SYSTEM_HPP_

/// ros2_control hardware component: a humanoid that speaks unitree_hg (LowState, LowCmd) over DDS.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hardware_interface/handle.hpp"
#include "hardware_interface/system_interface.hpp"
#include "hardware_interface/types/hardware_component_interface_params.hpp"
#include "hardware_interface/types/hardware_interface_return_values.hpp"
#include "humanoid_rl_hardware/joint_targets.hpp"
#include "humanoid_rl_hardware/low_cmd_sender.hpp"
#include "humanoid_rl_hardware/low_state_check.hpp"
#include "humanoid_rl_hardware/torque_limiter.hpp"
#include "humanoid_rl_hardware/triple_buffer.hpp"
#include "humanoid_rl_hardware/unitree_hg_wire.hpp"
#include "rclcpp/executors/single_threaded_executor.hpp"
#include "rclcpp/rclcpp.hpp"
#include "rclcpp_lifecycle/state.hpp"
#include "unitree_hg/msg/low_cmd.hpp"
#include "unitree_hg/msg/low_state.hpp"

namespace humanoid_rl_hardware {

/// See docs/ros2_control.md. Joints stand in the URDF's ros2_control tag in motor order.
///
/// Interfaces:
///   joint    state    position rad, velocity rad/s, effort Nm, winding_temperature and casing_temperature
///   degrees
///                     Celsius, voltage V
///            command  position rad, velocity rad/s, effort Nm (feed-forward), kp Nm/rad, kd Nm s/rad
///   sensor   orientation.{x,y,z,w}, angular_velocity.{x,y,z} rad/s, linear_acceleration.{x,y,z} m/s^2
///   gpio     robot_link: what the wire does and how it is. Command `mode`: 0 silent, 1 damping, 2 follow the
///   joints'
///            commands; NaN: nobody commands. States: see `LinkState`.
///
/// Rules, whatever controller runs: nothing is sent before a valid LowState (H1); a LowState older than
/// `state_timeout` means damping (H4); targets pass the torque limiter (H6); a command that is not finite, a
/// controller that goes away, deactivation, an error, shutdown and a stalled control loop mean damping (H8).
/// What latches, and when it is released, is the controller's part.
///
/// `read` and `write` neither allocate nor wait: LowState comes from a thread of its own through a triple
/// buffer, LowCmd leaves through `LowCmdSender`.
class UnitreeHgSystem final : public hardware_interface::SystemInterface {
 public:
  ~UnitreeHgSystem() override;

  hardware_interface::CallbackReturn on_init(
      const hardware_interface::HardwareComponentInterfaceParams& params) override;
  hardware_interface::CallbackReturn on_configure(const rclcpp_lifecycle::State& previous) override;
  hardware_interface::CallbackReturn on_activate(const rclcpp_lifecycle::State& previous) override;
  hardware_interface::CallbackReturn on_deactivate(const rclcpp_lifecycle::State& previous) override;
  hardware_interface::CallbackReturn on_cleanup(const rclcpp_lifecycle::State& previous) override;
  hardware_interface::CallbackReturn on_shutdown(const rclcpp_lifecycle::State& previous) override;
  hardware_interface::CallbackReturn on_error(const rclcpp_lifecycle::State& previous) override;

  hardware_interface::return_type perform_command_mode_switch(
      const std::vector<std::string>& start_interfaces,
      const std::vector<std::string>& stop_interfaces) override;
  hardware_interface::return_type read(const rclcpp::Time& time, const rclcpp::Duration& period) override;
  hardware_interface::return_type write(const rclcpp::Time& time, const rclcpp::Duration& period) override;

 private:
  using State = hardware_interface::StateInterface::SharedPtr;
  using Command = hardware_interface::CommandInterface::SharedPtr;

  static constexpr double kNever = -std::numeric_limits<double>::infinity();

  /// A valid LowState, as the control loop needs it.
  struct Sample {
    double received = kNever;  ///< s of the steady clock
    std::uint8_t mode_machine = 0;
    std::array<MotorState, kMotorSlots> motors{};
    ImuState imu{};
  };
  struct JointHandles {
    State position, velocity, effort, winding_temperature, casing_temperature, voltage;
    Command target_position, target_velocity, target_effort, kp, kd;
  };
  struct ImuHandles {
    std::array<State, 4> orientation;  ///< x, y, z, w
    std::array<State, 3> angular_velocity, linear_acceleration;
  };
  /// State interfaces of the gpio `robot_link`.
  struct LinkHandles {
    Command mode;
    State state_age;         ///< s since the last valid LowState arrived; inf before the first
    State mode_machine;      ///< as read from the robot; 0 before the first valid LowState
    State rejected_states;   ///< LowState refused
    State refusal;           ///< why the last one was: LowStateCheck's number
    State sent;              ///< LowCmd sent
    State stalls;            ///< times that the sender took over from a stalled control loop
    State period_error_p50;  ///< s, of the commands sent
    State period_error_p99;  ///< s
    State period_error_max;  ///< s
  };

  void find_handles();
  void connect();
  /// Closes the wire first. Also where nothing is connected.
  void disconnect();
  void receive(const unitree_hg::msg::LowState& message);
  void publish(const LowCmd& command);
  /// Ends in silence. The sender stays and can be opened again.
  void damp_and_close();
  /// Joint commands through the torque limiter into `order_`; false when one is not finite.
  bool read_targets() noexcept;

  std::size_t joints_ = 0;
  std::string imu_name_;
  std::string state_topic_, command_topic_;
  double state_timeout_ = 0.05;
  int sender_priority_ = 0;
  std::vector<JointHandles> joint_handles_;
  ImuHandles imu_handles_;
  LinkHandles link_handles_;

  std::unique_ptr<LowStateCheck> check_;
  std::unique_ptr<TorqueLimiter> limiter_;
  std::unique_ptr<LowCmdSender> sender_;

  rclcpp::CallbackGroup::SharedPtr group_;
  std::unique_ptr<rclcpp::executors::SingleThreadedExecutor> executor_;
  std::thread receiver_;
  rclcpp::Subscription<unitree_hg::msg::LowState>::SharedPtr subscription_;
  rclcpp::Publisher<unitree_hg::msg::LowCmd>::SharedPtr publisher_;
  rclcpp::TimerBase::SharedPtr statistics_timer_;
  unitree_hg::msg::LowCmd message_;
  LowState received_{};

  TripleBuffer<Sample> samples_;
  std::atomic<std::uint64_t> rejected_states_{0};
  std::atomic<int> refusal_{0};
  std::array<std::atomic<double>, 3> period_errors_{};  ///< p50, p99, max in s

  // The control loop's own.
  Sample sample_;
  JointTargets commanded_;  ///< as the command interfaces hold it
  WireOrder order_;
  bool wire_open_ = false;
  double state_age_ = 0.0;
};

}  // namespace humanoid_rl_hardware

#endif  // HUMANOID_RL_HARDWARE__UNITREE_HG_SYSTEM_HPP_
