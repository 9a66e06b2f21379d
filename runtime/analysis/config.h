// What `config = { name = value; }` sets, and the environment (BPFTRACE_NAME=value).
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/diagnostic.h"
#include "runtime/analysis/inputs.h"
#include "runtime/language/tree.h"

namespace ubp::program {

struct Config {
  enum class Missing : std::uint8_t { kError, kWarn, kIgnore };

  std::uint64_t max_strlen = 1024;    // bytes of a string that says nothing else, and the most of any
  std::uint64_t max_map_keys = 4096;  // of a map that is not declared
  std::uint64_t max_cat_bytes = 10240;
  std::uint64_t max_probes = 1024;
  std::string str_trunc_trailer = "..";
  std::string stack_mode = "bpftrace";
  Missing missing_probes = Missing::kError;
  bool print_maps_on_exit = true;
  bool cpp_demangle = true;
  bool show_debug_info = true;
  bool count_probe_time = true;  // what the probes of calls take is in calls' times
};

// Bounds of what a program may ask for: its memory stays bounded.
inline constexpr std::uint64_t kMostStringBytes = 10240, kMostMapKeys = std::uint64_t{1} << 22;

// The environment wins. diagnostics: names that are none, and values that are of no use.
Config read_config(const language::Program& program, const Inputs& inputs, std::vector<Diagnostic>& diagnostics);

// config().name, as a literal. False: there is no such setting that a program can read.
bool setting_value(const Config& config, std::string_view name, language::Node& node);

}  // namespace ubp::program
