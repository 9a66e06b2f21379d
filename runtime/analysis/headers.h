// C's headers, as far as programs need them: their types, enums, and names for numbers and texts.
//
// A preprocessor, and then only what a program's own C part could say: functions, variables, and types that it has no
// words for are left out. Context: load time. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/language/tree.h"

namespace ubp::program {

// A file's text, up to 16 MiB. False: it cannot be read.
bool read_file(const std::string& path, std::string& text);

class Headers {
 public:
  // directories: searched before those of the system.
  explicit Headers(std::vector<std::string> directories);

  // Reads <name>; with the directory of the file that includes it, "name". False: there is no such file.
  bool include(const std::string& name, const std::string& from = {});
  // What they define, as a program's C part, a line each.
  std::string definitions();

 private:
  struct Macro {
    bool is_function = false, is_own = false;  // is_own: known from the beginning
    std::vector<std::string> parameters{};
    std::string body{};
  };
  struct Condition {
    bool is_on, was_on;
  };

  std::string find(const std::string& name, const std::string& from) const;
  void read(const std::string& path);
  void directive(std::string_view line, const std::string& directory, std::vector<Condition>& conditions);
  void define(std::string_view line);
  bool holds(std::string_view expression);
  std::string expand(std::string_view text, std::set<std::string, std::less<>>& hidden, int depth);
  std::string expand(std::string_view text);
  std::string with_arguments(const Macro& macro, const std::vector<std::string>& arguments);
  std::string constants();
  std::string types();
  bool is_known(std::string_view declaration);

  std::vector<std::string> directories_;
  std::map<std::string, Macro, std::less<>> macros_;
  std::set<std::string> read_once_;
  std::string text_;  // what is left of all files
  language::Definitions definitions_;
  int depth_ = 0;
};

}  // namespace ubp::program
