// The environment variables UBP reads: one table makes the parser and the help (UBP_OPTIONS=help=1).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/jump/detours.h"
#include "runtime/report/report.h"
#include "xol/shared_slots.h"

namespace ubp::runtime {

// kNothing: arm nothing, run unprobed. kPending: as if every item said [missing=pending].
enum class Missing : std::uint8_t { kNothing, kError, kWarn, kIgnore, kPending };

struct Options {
  std::string probes;        // UBP_PROBES (then UBP_PROBES_FILE's content after it, separated by a newline)
  bool has_probes = false;   // one of the two was set; false: the library is inert
  std::string output;        // UBP_OUTPUT; empty: standard error
  std::string summary;       // UBP_SUMMARY; empty: none
  std::uint32_t slots = 64;  // UBP_SLOTS: 1..4096
  xol::Policy policy = xol::Policy::kThread;  // UBP_XOL
  std::uint32_t max_probepoints = 0;          // UBP_MAX_PROBEPOINTS: 1..16777216; 0: 65,536 more than there are at load
  Optimize optimize = Optimize::kAuto;        // UBP_OPTIMIZE=auto|always|never
  Missing missing = Missing::kNothing;        // UBP_MISSING=error|warn|ignore|pending
  report::Level log = report::Level::kWarning;  // UBP_LOG
  bool follow_exec = false;  // UBP_FOLLOW=fork,exec: "exec" keeps UBP's variables and LD_PRELOAD for children
  bool help = false;         // UBP_OPTIONS=help=1
};

// What UBP tells itself across exec (family.h); not the user's to set.
inline constexpr std::string_view kFirstVariable = "UBP_FIRST";
// What `ubp run` tells it: where its session is (program/session.h).
inline constexpr std::string_view kSessionVariable = "UBP_SESSION";

struct OptionError {
  std::string message;  // one line: "UBP_SLOTS: '0' is not a number from 1 to 4096"
};

// Reads the environment. environment: a NULL-terminated array of "NAME=value" (environ).
// Unknown UBP_ variables are errors with the nearest known name. Errors are collected, in table order.
Options read_options(char** environment, std::vector<OptionError>& errors);

// The table as text for UBP_OPTIONS=help=1: name, values, default, meaning; lines start with "ubp: ".
std::string options_help();

// The names of all variables in the table (used to hide them from exec'ed children).
const std::vector<std::string>& option_names();

}  // namespace ubp::runtime
