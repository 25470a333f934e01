/// The core behind C functions, so that test_parity.py can feed it the same cases as the Python host.
///
/// Targets travel as [5][35] float64: position, velocity, effort, stiffness, damping. Returned texts live
/// until the next call.

#include <cstring>
#include <string>
#include <vector>

#include "humanoid_rl_hardware/host_rules.hpp"
#include "humanoid_rl_hardware/joint_targets.hpp"
#include "humanoid_rl_hardware/low_state_check.hpp"
#include "humanoid_rl_hardware/period_statistics.hpp"
#include "humanoid_rl_hardware/torque_limiter.hpp"
#include "humanoid_rl_hardware/unitree_hg_wire.hpp"

using namespace humanoid_rl_hardware;

namespace {

static_assert(sizeof(JointTargets) == 5 * kMotorSlots * sizeof(double));

std::string last_text;

const char* keep(std::string text) {
  last_text = std::move(text);
  return last_text.c_str();
}

template <class T>
T copied(const void* bytes) {
  T value;
  std::memcpy(static_cast<void*>(&value), bytes, sizeof value);
  return value;
}

std::vector<std::string> strings(const char* const* texts, std::size_t count) {
  return {texts, texts + count};
}

struct Answer {
  int success;
  const char* message;
};

Answer answer(const Reply& reply) { return {reply.success ? 1 : 0, keep(reply.message())}; }

}  // namespace

extern "C" {

std::uint32_t wire_crc32_words(const std::uint8_t* data, std::size_t words) {
  return crc32_words(data, words);
}

std::uint32_t wire_low_cmd_crc(const std::uint8_t* bytes) { return crc(copied<LowCmd>(bytes)); }

std::uint32_t wire_low_state_crc(const std::uint8_t* bytes) { return crc(copied<LowState>(bytes)); }

void wire_damping(std::uint8_t mode_machine, std::size_t motors, std::uint8_t* bytes) {
  auto command = copied<LowCmd>(bytes);
  fill_damping(command, mode_machine, motors);
  std::memcpy(bytes, &command, sizeof command);
}

void wire_command(std::uint8_t mode_machine, std::size_t motors, const double* values, std::uint8_t* bytes) {
  auto command = copied<LowCmd>(bytes);
  fill_command(command, mode_machine, motors, copied<JointTargets>(values));
  std::memcpy(bytes, &command, sizeof command);
}

LowStateCheck* check_create(const std::uint8_t* mode_machines, std::size_t count, std::size_t motors) {
  return new LowStateCheck({mode_machines, mode_machines + count}, motors);
}
void check_destroy(LowStateCheck* check) { delete check; }
const char* check_check(LowStateCheck* check, const std::uint8_t* bytes) {
  return keep(check->text(check->check(copied<LowState>(bytes))));
}
std::uint8_t check_mode_machine(const LowStateCheck* check) { return check->mode_machine(); }
std::uint64_t check_rejected(const LowStateCheck* check) { return check->rejected(); }

TorqueLimiter* limiter_create(std::size_t joints, const double* lower, const double* upper,
                              const double* velocity, const double* effort) {
  return new TorqueLimiter({{lower, lower + joints},
                            {upper, upper + joints},
                            {velocity, velocity + joints},
                            {effort, effort + joints}});
}
void limiter_destroy(TorqueLimiter* limiter) { delete limiter; }
void limiter_clamp(const TorqueLimiter* limiter, double* values, const double* q, const double* dq) {
  JointTargets targets = copied<JointTargets>(values);
  limiter->clamp(targets, q, dq);
  std::memcpy(values, &targets, sizeof targets);
}

JointMap* map_create(const char* const* names, std::size_t count) {
  return new JointMap(strings(names, count));
}
void map_destroy(JointMap* map) { delete map; }
const char* map_targets(JointMap* map, const char* const* names, std::size_t count,
                        const double* const* fields, const std::size_t* sizes, double* values) {
  std::vector<std::vector<double>> given;
  for (std::size_t i = 0; i < 5; ++i) given.emplace_back(fields[i], fields[i] + sizes[i]);
  JointTargets targets = copied<JointTargets>(values);
  std::string refusal =
      map->targets(strings(names, count), given[0], given[1], given[2], given[3], given[4], targets);
  std::memcpy(values, &targets, sizeof targets);
  return keep(std::move(refusal));
}

HostRules* rules_create(double policy_period, double state_timeout) {
  return new HostRules(policy_period, state_timeout);
}
void rules_destroy(HostRules* rules) { delete rules; }
Answer rules_activate(HostRules* rules) { return answer(rules->activate()); }
Answer rules_deactivate(HostRules* rules) { return answer(rules->deactivate()); }
Answer rules_estop(HostRules* rules) { return answer(rules->estop()); }
Answer rules_reset(HostRules* rules, double state_age) { return answer(rules->reset(state_age)); }
int rules_receive_targets(HostRules* rules, double now) { return rules->receive_targets(now) ? 1 : 0; }
void rules_refuse_targets(HostRules* rules) { rules->refuse_targets(); }
int rules_step(HostRules* rules, double now, double state_age) {
  return static_cast<int>(rules->step(now, state_age));
}
int rules_state(const HostRules* rules) { return static_cast<int>(rules->state()); }
const char* rules_cause(const HostRules* rules) { return keep(rules->cause().text()); }
const char* rules_fault(const HostRules* rules) { return keep(rules->fault().text()); }
int rules_activated(const HostRules* rules) { return rules->activated() ? 1 : 0; }
std::uint64_t rules_rejected_commands(const HostRules* rules) { return rules->rejected_commands(); }

PeriodStatistics* statistics_create(double period, double window) {
  return new PeriodStatistics(period, window);
}
void statistics_destroy(PeriodStatistics* statistics) { delete statistics; }
void statistics_tick(PeriodStatistics* statistics, double now) { statistics->tick(now); }
void statistics_pause(PeriodStatistics* statistics) { statistics->pause(); }
PeriodErrors statistics_errors(const PeriodStatistics* statistics) { return statistics->errors(); }

}  // extern "C"
