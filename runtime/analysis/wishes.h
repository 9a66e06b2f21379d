// What a program's text asks of debug information.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/language/spec.h"

namespace ubp::program {

struct Wishes {
  std::map<std::uint32_t, std::set<std::string>> probes;   // that use args, and what they name of them
  std::map<std::uint32_t, std::set<std::string>> symbols;  // that probes take the addresses of
  std::set<std::string> types;                             // that it names and does not define: "struct foo"
  bool has_places = false;                                 // attach points that only debug information can find

  bool is_nothing() const { return probes.empty() && symbols.empty() && types.empty() && !has_places; }
};

// The names of types that the text defines: "struct foo".
std::set<std::string> defined_types(const language::Program& tree);

Wishes find_wishes(const language::Program& tree, const std::vector<language::Item>& items);
// Of a text; nothing where it has mistakes.
Wishes find_wishes(std::string_view text, const std::vector<std::string>& parameters);

}  // namespace ubp::program
