// The call frame information of this process's modules, compiled once for each, and published for walks.
//
// Context: normal, under the interface's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/stack/call_frames.h"
#include "runtime/stack/frame_rules.h"

namespace ubp::stack {

class FrameTableSet {
 public:
  // Throws std::bad_alloc.
  FrameTableSet();
  FrameTableSet(const FrameTableSet&) = delete;
  FrameTableSet& operator=(const FrameTableSet&) = delete;

  // Tables for the modules that are loaded now. What was returned before stays valid for ever, as a walk may be in it.
  const FrameTables* update(const std::vector<const symbols::Module*>& modules);

  std::size_t rows() const;  // of all modules that were ever seen

 private:
  using Key = std::tuple<std::uint64_t, std::uint64_t, std::string, std::string>;  // where and what a module is
  struct Published {
    std::vector<Region> regions;
    FrameTables tables{};
  };

  Rule* rule_room_;
  RuleSet rules_;
  std::map<Key, ModuleRules> compiled_;
  std::deque<Published> published_;
};

}  // namespace ubp::stack
