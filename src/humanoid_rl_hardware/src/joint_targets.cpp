#include "humanoid_rl_hardware/joint_targets.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "format_text.hpp"

namespace humanoid_rl_hardware {
namespace {

constexpr std::size_t kAbsent = kMotorSlots;

struct Gain {
  const char* field;
  const std::array<double, kMotorSlots>& values;
  double most;
  const char* unit;
};

}  // namespace

JointMap::JointMap(std::vector<std::string> joint_names) : joint_names_(std::move(joint_names)) {
  if (joint_names_.empty() || joint_names_.size() > kMotorSlots) {
    throw std::invalid_argument("a LowCmd has room for 1 to " + std::to_string(kMotorSlots) +
                                " motors, not " + std::to_string(joint_names_.size()));
  }
  for (std::size_t i = 0; i < joint_names_.size(); ++i) {
    if (!index_.emplace(joint_names_[i], i).second) {
      throw std::invalid_argument("joint '" + joint_names_[i] + "' of the robot is named twice");
    }
  }
}

std::string JointMap::learn_order(const std::vector<std::string>& names) {
  Order order;
  order.fill(kAbsent);
  for (std::size_t position = 0; position < names.size(); ++position) {
    const auto found = index_.find(names[position]);
    if (found == index_.end()) return "unknown joint '" + names[position] + "'";
    if (order[found->second] != kAbsent) return "joint '" + names[position] + "' is named twice";
    order[found->second] = position;
  }
  if (names.size() < joint_names_.size()) {
    const auto first =
        static_cast<std::size_t>(std::find(order.begin(), order.end(), kAbsent) - order.begin());
    const std::size_t more = joint_names_.size() - names.size() - 1;
    return "joint '" + joint_names_[first] + "' is missing" +
           (more > 0 ? " and " + std::to_string(more) + " more" : "");
  }
  known_names_ = names;
  known_order_ = order;
  return {};
}

std::string JointMap::targets(const std::vector<std::string>& names, const std::vector<double>& position,
                              const std::vector<double>& velocity, const std::vector<double>& effort,
                              const std::vector<double>& stiffness, const std::vector<double>& damping,
                              JointTargets& out) {
  if (known_names_.empty() || names != known_names_) {
    std::string refusal = learn_order(names);
    if (!refusal.empty()) return refusal;
  }
  struct Field {
    const char* name;
    const std::vector<double>& values;
    std::array<double, kMotorSlots>& mapped;
  };
  const std::size_t joints = joint_names_.size();
  JointTargets mapped;
  const std::array<Field, 5> fields{{{"position", position, mapped.position},
                                     {"velocity", velocity, mapped.velocity},
                                     {"effort", effort, mapped.effort},
                                     {"stiffness", stiffness, mapped.stiffness},
                                     {"damping", damping, mapped.damping}}};
  for (const Field& field : fields) {
    if (field.values.size() != joints) {
      return std::string(field.name) + " has " + std::to_string(field.values.size()) + " values for " +
             std::to_string(joints) + " joints";
    }
    for (std::size_t i = 0; i < joints; ++i) {
      const double value = field.values[known_order_[i]];
      if (!std::isfinite(value)) {
        // Not printf's: it prints the sign of a NaN.
        const char* text = std::isnan(value) ? "nan" : value > 0.0 ? "inf" : "-inf";
        return std::string(field.name) + " of '" + joint_names_[i] + "' is " + text;
      }
      field.mapped[i] = value;
    }
  }
  const std::array<Gain, 2> gains{{{"stiffness", mapped.stiffness, kMaxStiffness, "Nm/rad"},
                                   {"damping", mapped.damping, kMaxDamping, "Nm s/rad"}}};
  for (const Gain& gain : gains) {
    for (std::size_t i = 0; i < joints; ++i) {
      if (gain.values[i] < 0.0 || gain.values[i] > gain.most) {
        return std::string(gain.field) + " of '" + joint_names_[i] + "' is " +
               format_general(gain.values[i]) + ", outside 0 to " + format_general(gain.most) + " " +
               gain.unit;
      }
    }
  }
  out = mapped;
  return {};
}

}  // namespace humanoid_rl_hardware
