// Where debug information says that a probe's arguments and variables are, and the calls that are watched for those
// that are kept from their function's entry on.
//
// Context: under the ApiLock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/analysis/argument_places.h"
#include "runtime/program/program.h"
#include "runtime/registry/registry.h"

namespace ubp::runtime {

// A module's as the lines before a text have it (language::PlaceRow): "-" where it has none.
std::string row_build_id(const std::string& build_id);

// Functions: the module's build-id as rows have it, and the entry's ELF address.
using Entries = std::set<std::pair<std::string, std::uint64_t>>;

class ArgumentRows {
 public:
  // probe: of the program's. are_calls: it sees calls as they return, with the arguments that are kept of them.
  ArgumentRows(const program::Program& program, std::uint32_t probe, bool are_calls);

  // Whether the probe asks for any.
  bool is_wanted() const { return wanted_ != 0; }
  // Whether some of that is in vector registers.
  bool has_vectors() const;
  // Why what it asks for cannot be read at a place, by its module and its ELF address; nothing: it can.
  std::optional<std::string> problem(const symbols::Module& module, std::uint64_t address) const;
  // Where they are at a point: the arguments, their pieces behind them, and the steps of both.
  void put(const NamedPoint& point, program::Program::NewName& name) const;
  // The functions from whose entries on something is to be kept: of all places; of one.
  Entries entries() const;
  Entries entries_at(const std::string& build_id, std::uint64_t address) const;

 private:
  using Row = std::vector<program::ArgumentPlace>;
  using Rows = std::map<std::pair<std::string, std::uint64_t>, Row>;

  Rows::const_iterator find(const std::string& build_id, std::uint64_t address) const;
  Entries entries_of(const std::string& build_id, const Row& row) const;

  std::uint64_t wanted_, in_place_ = 0;  // bit 0 for the first; that are read where they are
  const bool are_calls_;
  Rows rows_;
};

// A registration of the calls in which a block's hits are: what it keeps of them is read at those hits. Nothing of it
// is reported; where it cannot watch a function, places in that are refused.
struct KeptCalls {
  std::optional<std::uint64_t> id;  // none: nothing is to be kept, or can be
  std::string problem;              // why it cannot

  // Why it does not have the calls of all of these functions, of the module with this build-id; nothing: it has.
  std::optional<std::string> problem_of(const std::string& build_id, const Entries& entries) const;
};
// Of these functions, in the modules that the block's items mean. Nothing is armed. module: see plan::Plan.
KeptCalls prepare_kept_calls(const Entries& entries, const std::vector<language::Item>& block,
                             std::optional<std::uint32_t> module, bool is_environment);

}  // namespace ubp::runtime
