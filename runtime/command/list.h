// `ubp list`: what can be probed, one attach point a line.
#pragma once

#include <string>
#include <vector>

namespace ubp::command {

struct ListOptions {
  std::vector<std::string> programs;           // of -e: what their attach points stand for
  std::string name;                            // of the program, in messages
  std::vector<std::string> parameters;         // of the program: $1
  std::vector<std::string> debug_directories;  // where debug files are looked for first
  bool is_verbose = false;                     // with arguments and their types
  std::vector<std::string> patterns;           // "uprobe:./app:f*"; several in one, with commas
};

// Returns the exit status: of a pattern that nothing fits, 0.
int list(const ListOptions& options);

// Whether a file is an ELF file: its functions are listed, where another's text is a program.
bool is_elf(const std::string& path);

}  // namespace ubp::command
