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
  bool says_reads = false;     // also those that found nothing
  bool is_unsafe = false;      // system() may run commands
  bool says_counts = false;    // at the end, of every probe
  std::string tree;            // bare targets of call: as a tree, of so many calls within each other; empty: none
  std::uint64_t least_ns = 0;  // of what the tree shows
  bool is_net = false;         // calls' times are without what their probes take
  std::string functions;       // their functions at the end, in this order; empty: none
};

// Returns the exit status.
int run(const RunOptions& options);

}  // namespace ubp::command
