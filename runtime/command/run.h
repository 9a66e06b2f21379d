// `ubp run`: a command under a program, whose output is printed as it comes.
#pragma once

#include <string>
#include <vector>

#include "runtime/analysis/sources.h"
#include "runtime/output/text.h"

namespace ubp::command {

struct RunOptions {
  std::string name, text;               // of the program
  program::SourceOptions sources;       // what it may import
  std::vector<std::string> parameters;  // $1, and what getopt() knows
  std::vector<std::string> command;
  std::vector<std::string> debug_directories;  // where debug files are looked for first
  std::string output;                          // a file; empty: standard output
  program::Format format = program::Format::kText;
  bool is_quiet = false, is_dry = false, checks = false, says_warnings = true, follows = false;
  bool says_reads = false;   // also those that found nothing
  bool is_unsafe = false;    // system() may run commands
  bool says_counts = false;  // at the end, of every probe
};

// Returns the exit status.
int run(const RunOptions& options);

}  // namespace ubp::command
