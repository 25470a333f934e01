#ifndef FORMAT_TEXT_HPP_
#define FORMAT_TEXT_HPP_

#include <string>

namespace humanoid_rl_hardware {

/// As Python's f"{value:g}".
std::string format_general(double value);

/// To one decimal, as Python's f"{value:.1f}".
std::string format_tenths(double value);

/// s as whole ms, as Python's f"{1e3 * seconds:.0f}".
std::string format_milliseconds(double seconds);

}  // namespace humanoid_rl_hardware

#endif  // FORMAT_TEXT_HPP_
