// Where functions are left, with all the places to which they may have jumped before: what probes at returns watch
// beside the entries.
//
// A function's exits are its returns and its jumps to other functions (decoder/exits.h). Who has jumped elsewhere
// returns there: the returns of a target that is known are exits too, and of what that jumps to. A target is known
// where a direct jump names it, by itself or through the linkage table. All others are found out at the hit.
//
// Context: normal, under the registry's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "decoder/exits.h"
#include "runtime/plan/modules.h"
#include "runtime/stack/call_frames.h"
#include "xol/displaced.h"

namespace ubp::plan {

struct Exit {
  xol::Displaced point;
  decoder::Exit exit;        // target: a run-time address
  bool is_followed = true;   // kJump: all exits of the target are known
  std::uint64_t low, high;   // run-time: the function in which it is; of a return that is in several, all of them
  bool is_in_part = false;   // that function is a part of others, who go on there
  std::uint32_t number = 0;  // of its point in the plan
  // Where a jump has room that the exit has not: a probepoint that nobody asks for, and is nothing without its jump.
  std::optional<xol::Displaced> approach{};
  std::uint32_t approach_number = 0;
};

class Exits {
 public:
  explicit Exits(const Modules& modules)
      : modules_(modules), rule_room_(stack::kMostRules), rules_(rule_room_.data()) {}

  // The returns of this function are wanted. Returns why they cannot all be seen, or nothing.
  std::optional<std::string> want(std::uint32_t module, const symbols::Function& function);
  // Once all are wanted: their exits, by address, and those of where they jump to.
  // approaches: they are wanted.
  std::vector<Exit> find(bool approaches);
  // After find(): the code whose exits are among them: run-time ranges, ascending.
  const std::vector<CodeRange>& followed() const { return followed_; }

 private:
  using Key = std::pair<std::uint32_t, std::uint64_t>;  // module, ELF address of the entry
  struct Body {
    std::vector<decoder::Exit> exits;  // targets: ELF addresses
    std::uint64_t end = 0;             // ELF address
    std::string problem;               // why they are not known; empty: they are
    bool is_wanted = false, is_queued = false;
    bool is_gone_on_in = false;  // who jumps here has a frame of its own
  };

  Body& body_at(std::uint32_t module, const symbols::Function& function);
  bool is_part(std::uint32_t module, std::uint64_t address) const;
  // Whether the stack pointer may be there what it was at the function's entry, as call frame information has it.
  bool may_be_at_entry(std::uint32_t module, std::uint64_t address);
  // The functions whose code a jump leads into, through the linkage table too. Empty: not known.
  std::vector<Key> targets_of(std::uint32_t module, std::uint64_t target);
  std::optional<std::uint64_t> word_of_stub(std::uint32_t module, std::uint64_t address);
  void find_approaches(std::uint32_t module, std::uint64_t entry, std::span<Exit> exits);
  // Whether everything is known of the exits of what the jump leads to.
  bool follow(std::uint32_t module, std::uint64_t target);

  const Modules& modules_;
  std::vector<stack::Rule> rule_room_;
  stack::RuleSet rules_;
  std::map<std::uint32_t, stack::ModuleRules> frames_;
  std::map<std::uint32_t, std::map<std::uint64_t, std::string>> imports_;
  std::map<Key, Body> bodies_;
  std::vector<Key> queue_;
  std::vector<CodeRange> followed_;
  symbols::Readable readable_;
};

}  // namespace ubp::plan
