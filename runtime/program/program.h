// A program that is ready to run: checked, compiled, with its maps.
//
// Its blocks are actions of probes (ubp_consumer's signature), called in the trap path and in detours alike. They touch
// general registers only.
//
// Context: load time and the end of the process. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/include/ubp.h"
#include "runtime/language/tree.h"
#include "runtime/session/place.h"
#include "runtime/session/session.h"
#include "runtime/symbols/symbols.h"
#include "runtime/table/shortcut.h"

namespace ubp::program {

class Program {
 public:
  // Null: the program has mistakes. diagnostics: them, or warnings. session: where its memory is; null: this process
  // has it alone. Throws std::bad_alloc, and where the system denies executable memory std::system_error.
  // inputs: those of the session.
  static std::unique_ptr<Program> compile(language::Program tree, std::vector<Diagnostic>& diagnostics,
                                          const Session* session = nullptr, const Inputs& inputs = {});
  // The same of what was checked (checked.h) and found good.
  static std::unique_ptr<Program> compile(language::Program tree, Analysis analysis,
                                          std::vector<Diagnostic>& diagnostics, const Session* session);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const language::Program& tree() const { return tree_; }
  const Analysis& analysis() const { return analysis_; }
  const Place& place() const { return *place_; }
  // What a probe does at a hit. It takes the program as its data, or anything.
  ubp_consumer function(std::size_t probe) const { return functions_[probe]; }
  // What it does where a call is entered, and with which data; null: nothing.
  ubp_consumer entered(std::size_t probe) const;
  void* entered_data() { return &place_->machine(); }
  // The machine code of all of them.
  std::span<const std::uint8_t> code() const { return {static_cast<const std::uint8_t*>(code_), code_bytes_}; }
  bool reads_registers(std::size_t probe) const { return analysis_.reads_registers[probe]; }
  bool overrides(std::size_t probe) const { return analysis_.overrides[probe].begin.line != 0; }
  // What of that its detour can do by itself; null: nothing. The program's.
  const runtime::Shortcut* shortcut(std::size_t probe) const {
    return shortcuts_[probe] ? &*shortcuts_[probe] : nullptr;
  }

  // Runs the blocks of begin, or of end, in this thread, in the order of the text; those of end once, in whatever
  // process.
  void run(language::Probe::Event event);
  // Where a session's reader looks after the intervals: runs those whose time has come. Returns the ns until the next
  // one's; none: there is no interval.
  std::optional<std::uint64_t> run_intervals();
  // exit() was called, or close(): from now on hits run no block, and count as filtered.
  bool is_closed() const;
  void close();

  // Names of probepoints, for `probe` and `func`, and where arguments are: added to those that are known.
  struct NewName {
    PointName name;
    std::vector<symbols::ValuePlace> arguments;  // with their pieces behind them
    std::vector<symbols::PlaceStep> steps{};
    std::uint32_t count = 0;  // of the arguments
  };
  void add_names(std::vector<NewName> names);
  // Whether what is done at this probe's hits looks at them.
  bool needs_names(std::size_t probe) const {
    return analysis_.uses_names || analysis_.mark_arguments[probe] != 0 || analysis_.named_arguments[probe] != 0 ||
           !analysis_.symbol_files[probe].empty();
  }

  // Whether it takes stacks, or names addresses: then it is to know the modules.
  bool follows_modules() const { return analysis_.stack_text != nullptr; }
  // What is loaded now. tables: of these modules; they stay valid for ever.
  void set_modules(const stack::FrameTables* tables, const std::vector<const symbols::Module*>& modules);

  // What it has printed; its maps.
  std::string printed() const;
  std::string maps() const;

 private:
  Program(language::Program tree, Analysis analysis) : tree_(std::move(tree)), analysis_(std::move(analysis)) {}
  bool assemble(std::vector<Diagnostic>& diagnostics);
  void publish(const std::vector<std::uint8_t>& code, const std::vector<std::size_t>& offsets);

  language::Program tree_;
  Analysis analysis_;
  std::unique_ptr<Place> place_;
  std::deque<std::vector<std::uint64_t>> texts_;
  std::vector<ubp_consumer> functions_;
  std::vector<Interval> intervals_;
  std::vector<std::optional<runtime::Shortcut>> shortcuts_;
  const Session* session_ = nullptr;
  bool has_ended_ = false, has_image_ = false;
  void* code_ = nullptr;
  std::size_t code_bytes_ = 0;
  // Every list of names that was ever published: a hit may be reading it.
  struct Names {
    std::vector<PointName> names;
    PointNames published;
  };
  std::deque<Names> names_;
  std::deque<std::vector<symbols::ValuePlace>> arguments_;  // that they refer to, as to these
  std::deque<std::vector<symbols::PlaceStep>> steps_;
};

}  // namespace ubp::program
