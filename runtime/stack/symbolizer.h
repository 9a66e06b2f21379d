// Stacks and addresses as text, as bpftrace prints them.
//
// Context: readers. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/stack/module_log.h"
#include "runtime/stack/source_frame.h"
#include "runtime/stack/stack_table.h"
#include "runtime/symbols/symbols.h"

namespace ubp::stack {

enum class Mode : std::uint8_t { kBpftrace, kPerf, kRaw, kBuildId };
// "bpftrace", "perf", "raw", "build_id".
std::optional<Mode> mode_named(std::string_view name);

// Of an ELF virtual address of a module: the innermost first, the last one the function that was compiled. Empty: not
// known.
using SourceOf = std::function<std::vector<SourceFrame>(const ModuleRecord& module, std::uint64_t address)>;

class Symbolizer {
 public:
  // log: outlives this. demangles: names of C++ are shown as they were written. source: empty: none is shown.
  Symbolizer(const ModuleLog& log, bool demangles, SourceOf source)
      : log_(log), demangles_(demangles), source_(std::move(source)) {}

  // A newline, and each frame with one.
  std::string stack_text(const Stack& stack, Mode mode);
  // A function's name, or the address.
  std::string name_text(std::uint32_t image, std::uint64_t address);

 private:
  struct Place {
    const ModuleRecord* module = nullptr;  // null: in none that is known
    std::string function;                  // empty: not known
    std::uint64_t offset = 0;              // in the function
  };
  // look_up: in the instruction that the address stands behind, or the address.
  Place place_of(std::uint32_t image, std::uint64_t address, std::uint64_t look_up);
  const symbols::FunctionTable* functions_of(const ModuleRecord& module);
  std::string build_id_text(const Place& place, std::uint64_t address);
  const std::vector<SourceFrame>& source_of(const Place& place, std::uint64_t look_up);

  const ModuleLog& log_;
  bool demangles_;
  SourceOf source_;
  std::map<std::pair<const ModuleRecord*, std::uint64_t>, std::vector<SourceFrame>> sources_;
  std::map<const ModuleRecord*, std::unique_ptr<symbols::FunctionTable>> tables_;  // null: it cannot be read
};

}  // namespace ubp::stack
