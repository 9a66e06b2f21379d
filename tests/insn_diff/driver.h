// The loop over cases, its failures and its coverage table.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "tests/insn_diff/run.h"

namespace ubp::insn_diff {

struct Options {
  std::uint64_t seed = 1;
  double seconds = 0;     // 0: no limit
  std::uint64_t max = 0;  // executions, 0: no limit
  std::string replay;     // seed:index[:hex bytes]
  bool soak = false;      // no limit at all; stops at the first failure
  bool control = false;
  bool detours = false;              // instead of slots and emulation
  std::uint64_t show = 20;           // differences to print, one for each encoding
  std::uint64_t generated = 300000;  // attempts at random encodings
};

class Driver {
 public:
  Driver(Machine& machine, Catalogue& catalogue, const Options& options);
  bool run(Control control);  // until a limit; false: there was a difference
  bool replay(std::uint64_t seed, std::uint64_t index, const std::string& hex);
  void print_table() const;
  std::uint64_t failures() const { return failures_; }

 private:
  bool run_case(Runner& runner, Encoding& encoding, std::uint64_t seed, std::uint64_t index, bool print_all);
  // What a difference is once both sides have been repeated.
  enum class Verdict : std::uint8_t { kReal, kNativeVaries, kPassed };
  Verdict repeat(Runner& runner, const Case& c, Outcome& native, Outcome& other, std::string& difference);
  void report(const Case& c, const Encoding& encoding, std::uint64_t seed, std::uint64_t index, int state,
              const Outcome& native, const Outcome& other, const std::string& difference);

  Machine& machine_;
  Catalogue& catalogue_;
  const Options& options_;
  StateMaker maker_;
  State state_;
  Control control_ = Control::kNone;
  std::vector<std::size_t> runnable_;
  std::uint64_t executions_ = 0, cases_ = 0, failures_ = 0, signals_ = 0, unplaced_ = 0;
  std::uint64_t fip_in_slot_ = 0, rf_missing_ = 0, late_steps_ = 0, written_by_fault_ = 0;
  double elapsed_ = 0;
  std::map<std::string, std::uint64_t> varying_, passing_;  // by mnemonic
  std::set<std::uint64_t> failed_;                          // keys
};

}  // namespace ubp::insn_diff
