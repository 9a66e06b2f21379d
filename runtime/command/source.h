// `ubp lines` and `ubp vars`: what debug information says of source lines and variables.
#pragma once

#include <string>
#include <vector>

namespace ubp::command {

struct SourceOptions {
  std::vector<std::string> targets;            // as attach points; "app@file.c" is the whole file
  std::vector<std::string> debug_directories;  // where debug files are looked for first
};

// Each returns the exit status.
int lines(const SourceOptions& options);
int vars(const SourceOptions& options);

}  // namespace ubp::command
