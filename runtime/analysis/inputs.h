// What a program is given beside its text: `ubp run`'s words and environment. Who reads it elsewhere needs the same.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace ubp::program {

struct Inputs {
  std::vector<std::string> parameters;  // $1, and what getopt() knows: --name, --name=value
  std::vector<std::pair<std::string, std::string>>
      settings;  // names of config with values: they come before the text's
};

// Settings that `ubp run` makes of its options: bare targets of call: have blocks that tell of their calls for a tree,
// of so many calls within each other at most; that sum them up by their functions.
inline constexpr char kTreeSetting[] = "ubp_tree", kFunctionsSetting[] = "ubp_functions";
// The maps of such a sum, by `func`: count(), sum(elapsed) of the outermost calls, max(elapsed), sum(self).
inline constexpr char kCallsMap[] = "@ubp_calls", kTotalMap[] = "@ubp_total", kLongestMap[] = "@ubp_longest",
                      kSelfMap[] = "@ubp_self";
inline constexpr const char* kFunctionMaps[] = {kCallsMap, kTotalMap, kLongestMap, kSelfMap};

// The settings of this process's environment: BPFTRACE_NAME=value.
std::vector<std::pair<std::string, std::string>> settings_of_environment();

}  // namespace ubp::program
