#include "format_text.hpp"

#include <array>
#include <cstdio>

namespace humanoid_rl_hardware {
namespace {

std::string formatted(const char* format, double value) {
  std::array<char, 400> text{};  // %.1f of the largest double takes 312
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

}  // namespace

std::string format_general(double value) { return formatted("%g", value); }

std::string format_tenths(double value) { return formatted("%.1f", value); }

std::string format_milliseconds(double seconds) { return formatted("%.0f", 1e3 * seconds); }

}  // namespace humanoid_rl_hardware
