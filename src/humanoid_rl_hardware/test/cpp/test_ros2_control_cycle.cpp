/// The control loop of ros2_control on UnitreeHgSystem and JointCommandController, with a robot on the other
/// side of DDS: what a cycle does, and that it neither allocates nor waits for a lock.

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "hardware_interface/component_parser.hpp"
#include "hardware_interface/loaned_command_interface.hpp"
#include "hardware_interface/loaned_state_interface.hpp"
#include "hardware_interface/types/hardware_component_params.hpp"
#include "humanoid_rl_hardware/joint_command_controller.hpp"
#include "humanoid_rl_hardware/unitree_hg_system.hpp"
#include "lifecycle_msgs/msg/state.hpp"

namespace {

/// Counts what a real-time loop must not do, while `watching` in this thread.
thread_local bool watching = false;
std::atomic<int> allocations{0};
std::atomic<int> waits{0};

void allocated() {
  if (watching) ++allocations;
}
void waited() {
  if (watching) ++waits;
}

template <class Function>
Function original(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void __libc_free(void* memory);

void* malloc(std::size_t size) {
  allocated();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  allocated();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) {
  allocated();
  return __libc_realloc(memory, size);
}
void free(void* memory) {
  if (memory != nullptr) allocated();
  __libc_free(memory);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto next = original<int (*)(pthread_mutex_t*)>("pthread_mutex_lock");
  waited();
  return next(mutex);
}
int pthread_rwlock_rdlock(pthread_rwlock_t* lock) {
  static const auto next = original<int (*)(pthread_rwlock_t*)>("pthread_rwlock_rdlock");
  waited();
  return next(lock);
}
int pthread_rwlock_wrlock(pthread_rwlock_t* lock) {
  static const auto next = original<int (*)(pthread_rwlock_t*)>("pthread_rwlock_wrlock");
  waited();
  return next(lock);
}
}

namespace humanoid_rl_hardware {
namespace {

using namespace std::chrono_literals;
using hardware_interface::CallbackReturn;

const rclcpp_lifecycle::State kAnyState;

std::string urdf() {
  std::stringstream text;
  text << std::ifstream(TEST_URDF).rdbuf();
  return text.str();
}

/// A robot on DDS: LowState at 500 Hz, the LowCmd it was sent.
class Robot {
 public:
  explicit Robot(std::uint8_t mode_machine) : node_(std::make_shared<rclcpp::Node>("robot")) {
    publisher_ = node_->create_publisher<unitree_hg::msg::LowState>("/lowstate", rclcpp::QoS(1));
    subscription_ = node_->create_subscription<unitree_hg::msg::LowCmd>(
        "/lowcmd", rclcpp::QoS(100), [this](const unitree_hg::msg::LowCmd& command) {
          const std::lock_guard<std::mutex> lock(mutex_);
          commands_.push_back(command);
        });
    state_.mode_machine = mode_machine;
    state_.imu_state.quaternion = {1.0F, 0.0F, 0.0F, 0.0F};
    executor_.add_node(node_);
    thread_ = std::thread([this] {
      while (!stop_) {
        if (!silent_) publish();
        executor_.spin_some();
        std::this_thread::sleep_for(2ms);
      }
    });
  }
  ~Robot() {
    stop_ = true;
    thread_.join();
  }

  void silence(bool silent) { silent_ = silent; }

  std::vector<unitree_hg::msg::LowCmd> commands() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return commands_;
  }
  void forget() {
    const std::lock_guard<std::mutex> lock(mutex_);
    commands_.clear();
  }

 private:
  void publish() {
    state_.tick += 2;
    seal(state_);
    unitree_hg::msg::LowState message;
    message.mode_machine = state_.mode_machine;
    message.tick = state_.tick;
    message.imu_state.quaternion = state_.imu_state.quaternion;
    message.crc = state_.crc;
    publisher_->publish(message);
  }

  rclcpp::Node::SharedPtr node_;
  rclcpp::Publisher<unitree_hg::msg::LowState>::SharedPtr publisher_;
  rclcpp::Subscription<unitree_hg::msg::LowCmd>::SharedPtr subscription_;
  rclcpp::executors::SingleThreadedExecutor executor_;
  LowState state_;
  std::mutex mutex_;
  std::vector<unitree_hg::msg::LowCmd> commands_;
  std::atomic<bool> stop_{false}, silent_{false};
  std::thread thread_;
};

bool damping(const unitree_hg::msg::LowCmd& command) {
  return command.motor_cmd[0].kp == 0.0F && command.motor_cmd[0].kd == kDampingKd &&
         command.motor_cmd[0].mode == 1;
}

class Cycle : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // Never with another robot or test.
    setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", 1);
    setenv("ROS_DOMAIN_ID", std::to_string(60 + getpid() % 40).c_str(), 0);
    rclcpp::init(0, nullptr);
  }
  static void TearDownTestSuite() { rclcpp::shutdown(); }

  void SetUp() override {
    executor_ = std::make_shared<rclcpp::executors::SingleThreadedExecutor>();
    hardware_interface::HardwareComponentParams params;
    params.hardware_info = hardware_interface::parse_control_resources_from_urdf(urdf()).at(0);
    params.hardware_info.rw_rate = 500;
    params.clock = std::make_shared<rclcpp::Clock>(RCL_STEADY_TIME);
    params.executor = executor_;
    system_ = std::make_unique<UnitreeHgSystem>();
    ASSERT_EQ(system_->init(params), CallbackReturn::SUCCESS);
    states_ = system_->on_export_state_interfaces();
    commands_ = system_->on_export_command_interfaces();
    ASSERT_EQ(system_->on_configure(kAnyState), CallbackReturn::SUCCESS);
    ASSERT_EQ(system_->on_activate(kAnyState), CallbackReturn::SUCCESS);
    for (const auto& joint : params.hardware_info.joints) joints_.push_back(joint.name);
  }

  void TearDown() override {
    controller_.reset();
    system_.reset();
  }

  hardware_interface::CommandInterface& command(const std::string& name) {
    for (const auto& interface : commands_) {
      if (interface->get_name() == name) return *interface;
    }
    throw std::out_of_range(name);
  }
  double state(const std::string& name) const {
    for (const auto& interface : states_) {
      if (interface->get_name() == name) return interface->get_optional<double>().value();
    }
    throw std::out_of_range(name);
  }

  void set_mode(double mode) { ASSERT_TRUE(command("robot_link/mode").set_value(mode, true)); }
  void set_targets(double position) {
    for (const auto& joint : joints_) {
      for (const auto& [name, value] :
           {std::pair{"position", position}, {"velocity", 0.0}, {"effort", 0.0}, {"kp", 20.0}, {"kd", 1.0}}) {
        ASSERT_TRUE(command(joint + "/" + name).set_value(value, true));
      }
    }
  }

  void cycle() {
    system_->read(time_, period_);
    if (controller_) controller_->update(time_, period_);
    system_->write(time_, period_);
    std::this_thread::sleep_for(2ms);
  }
  void run(std::chrono::milliseconds duration) {
    for (auto end = std::chrono::steady_clock::now() + duration; std::chrono::steady_clock::now() < end;)
      cycle();
  }
  void run_until(const std::function<bool()>& done) {
    for (int i = 0; i < 2500; ++i) {
      cycle();
      if (done()) return;
    }
    FAIL() << "not within 5 s";
  }

  /// Damping is all that is sent from now on.
  void expect_damping(Robot& robot) {
    robot.forget();
    run_until([&] { return robot.commands().size() > 20; });
    for (const auto& sent : robot.commands()) {
      EXPECT_TRUE(damping(sent));
    }
  }

  void make_controller(const std::vector<rclcpp::Parameter>& parameters) {
    controller_ = std::make_unique<JointCommandController>();
    controller_interface::ControllerInterfaceParams params;
    params.controller_name = "joint_command_controller";
    params.robot_description = urdf();
    params.controller_manager_update_rate = 500;
    params.update_rate = 500;
    params.node_options = controller_->define_custom_node_options();
    params.node_options.parameter_overrides(parameters);
    ASSERT_EQ(controller_->init(params), controller_interface::return_type::OK);
  }

  void start_controller() {
    make_controller({{"joints", joints_}, {"auto_activate", true}});
    ASSERT_EQ(controller_->configure().id(), lifecycle_msgs::msg::State::PRIMARY_STATE_INACTIVE);
    std::vector<hardware_interface::LoanedCommandInterface> commands;
    for (const auto& name : controller_->command_interface_configuration().names) {
      for (const auto& interface : commands_) {
        if (interface->get_name() == name) commands.emplace_back(interface, [] {});
      }
    }
    std::vector<hardware_interface::LoanedStateInterface> states;
    for (const auto& name : controller_->state_interface_configuration().names) {
      for (const auto& interface : states_) {
        if (interface->get_name() == name) states.emplace_back(interface, [] {});
      }
    }
    ASSERT_EQ(commands.size(), 5 * joints_.size() + 1);
    ASSERT_EQ(states.size(), 3 * joints_.size() + 9);
    controller_->assign_interfaces(std::move(commands), std::move(states));
    ASSERT_EQ(controller_->on_activate(kAnyState), CallbackReturn::SUCCESS);
  }

  std::shared_ptr<rclcpp::Executor> executor_;
  std::unique_ptr<UnitreeHgSystem> system_;
  std::unique_ptr<JointCommandController> controller_;
  std::vector<hardware_interface::StateInterface::ConstSharedPtr> states_;
  std::vector<hardware_interface::CommandInterface::SharedPtr> commands_;
  std::vector<std::string> joints_;
  const rclcpp::Time time_{0, 0, RCL_STEADY_TIME};
  const rclcpp::Duration period_{0, 2000000};
};

TEST_F(Cycle, NothingIsSentBeforeAValidState) {
  set_mode(2.0);
  set_targets(0.1);
  Robot other_machine(99);
  run(500ms);
  EXPECT_TRUE(other_machine.commands().empty());
  EXPECT_GT(state("robot_link/rejected_states"), 10.0);
  EXPECT_TRUE(std::isinf(state("robot_link/state_age")));
}

TEST_F(Cycle, TargetsAreFollowedAndOneThatIsNotFiniteMeansDamping) {
  Robot robot(5);
  set_mode(2.0);
  set_targets(0.1);
  run_until([&] { return robot.commands().size() > 20; });
  EXPECT_EQ(robot.commands().back().motor_cmd[0].kp, 20.0F);
  ASSERT_TRUE(command(joints_[7] + "/velocity").set_value(std::nan(""), true));
  run(100ms);
  expect_damping(robot);
}

TEST_F(Cycle, AStateThatStopsMeansDamping) {
  Robot robot(5);
  set_mode(2.0);
  set_targets(0.1);
  run_until([&] { return robot.commands().size() > 20; });
  robot.silence(true);
  run(150ms);
  expect_damping(robot);
}

TEST_F(Cycle, AControllerThatGoesAwayLeavesDamping) {
  Robot robot(5);
  set_mode(2.0);
  set_targets(0.1);
  run_until([&] { return robot.commands().size() > 20; });
  system_->perform_command_mode_switch({}, {"robot_link/mode"});
  run(100ms);
  expect_damping(robot);
}

TEST_F(Cycle, AControlLoopThatStopsMeansDamping) {
  Robot robot(5);
  set_mode(2.0);
  set_targets(0.1);
  run_until([&] { return robot.commands().size() > 20; });
  std::this_thread::sleep_for(300ms);
  const auto commands = robot.commands();
  EXPECT_TRUE(damping(commands.back()));
  run(20ms);
  EXPECT_EQ(state("robot_link/stalls"), 1.0);
}

TEST_F(Cycle, DeactivationAndShutdownEndInDampingThenSilence) {
  Robot robot(5);
  set_mode(2.0);
  set_targets(0.1);
  run_until([&] { return robot.commands().size() > 20; });
  ASSERT_EQ(system_->on_deactivate(kAnyState), CallbackReturn::SUCCESS);
  std::this_thread::sleep_for(100ms);
  const auto commands = robot.commands();
  ASSERT_GT(commands.size(), 40u);
  for (std::size_t i = commands.size() - 20; i < commands.size(); ++i) {
    EXPECT_TRUE(damping(commands[i]));
  }
  std::this_thread::sleep_for(100ms);
  EXPECT_EQ(robot.commands().size(), commands.size());
  ASSERT_EQ(system_->on_shutdown(kAnyState), CallbackReturn::SUCCESS);
}

TEST_F(Cycle, AControllerIsNotConfiguredWithJointsOrPeriodsThatCannotBe) {
  const std::vector<std::string> twice{"a_joint", "a_joint"};
  for (const rclcpp::Parameter& wrong :
       {rclcpp::Parameter("joints", std::vector<std::string>{}), rclcpp::Parameter("joints", twice),
        rclcpp::Parameter("joints", std::vector<std::string>(kMotorSlots + 1, "a_joint")),
        rclcpp::Parameter("policy_period", 0.001), rclcpp::Parameter("state_timeout", 1.5)}) {
    make_controller({{"joints", joints_}, wrong});
    EXPECT_EQ(controller_->on_configure(kAnyState), CallbackReturn::ERROR) << wrong;
  }
  make_controller({{"joints", joints_}});
  EXPECT_EQ(controller_->on_configure(kAnyState), CallbackReturn::SUCCESS);
}

TEST_F(Cycle, ACycleNeitherAllocatesNorWaits) {
  Robot robot(5);
  start_controller();
  auto operator_node = std::make_shared<rclcpp::Node>("policy");
  const auto publisher = operator_node->create_publisher<humanoid_rl_interfaces::msg::JointCommand>(
      "/joint_command", rclcpp::QoS(1));
  humanoid_rl_interfaces::msg::JointCommand message;
  message.joint_names = joints_;
  message.position.assign(joints_.size(), 0.1);
  message.velocity.assign(joints_.size(), 0.0);
  message.effort.assign(joints_.size(), 0.0);
  message.stiffness.assign(joints_.size(), 20.0);
  message.damping.assign(joints_.size(), 1.0);
  std::atomic<bool> stop{false};
  rclcpp::executors::SingleThreadedExecutor executor;
  executor.add_node(controller_->get_node()->get_node_base_interface());
  std::thread spinning([&] {
    while (!stop) {
      publisher->publish(message);
      executor.spin_some();
      std::this_thread::sleep_for(10ms);
    }
  });
  const auto following = [&] {
    const auto commands = robot.commands();
    return !commands.empty() && commands.back().motor_cmd[0].kp == 20.0F;
  };
  run_until(following);

  allocations = 0;
  waits = 0;
  watching = true;
  for (int i = 0; i < 1000; ++i) {
    system_->read(time_, period_);
    controller_->update(time_, period_);
    system_->write(time_, period_);
    watching = false;
    std::this_thread::sleep_for(1ms);
    watching = true;
  }
  watching = false;
  EXPECT_EQ(allocations.load(), 0);
  EXPECT_EQ(waits.load(), 0);
  EXPECT_TRUE(following());

  // The counters do count.
  watching = true;
  {
    const std::vector<int> memory(100, 1);
  }
  watching = false;
  EXPECT_EQ(allocations.load(), 2);

  stop = true;
  spinning.join();
}

}  // namespace
}  // namespace humanoid_rl_hardware
