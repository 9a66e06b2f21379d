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

// The settings of this process's environment: BPFTRACE_NAME=value.
std::vector<std::pair<std::string, std::string>> settings_of_environment();

}  // namespace ubp::program
