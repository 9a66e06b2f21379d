// The summary of one process: plain data that the core fills at exit and the report writes as text or JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ubp::report {

struct Totals {
  std::uint64_t probes_requested = 0;  // (item, address) pairs after exclusions, refused ones included
  std::uint64_t probepoints_armed = 0;
  std::uint64_t pending = 0;
  std::uint64_t refused = 0;
  std::uint64_t hits = 0;  // summed over probes: hits = recorded + filtered + missed + dropped
  std::uint64_t recorded = 0;
  std::uint64_t filtered = 0;
  std::uint64_t missed = 0;
  std::uint64_t dropped = 0;
};

struct XolStats {
  std::string policy;
  std::uint64_t slots_per_thread = 0;
  std::uint64_t hits = 0;        // displaced instructions found in the thread's cache
  std::uint64_t misses = 0;      // not found
  std::uint64_t refills = 0;     // slots written
  std::uint64_t evictions = 0;   // refills that replaced another probepoint
  std::uint64_t area_bytes = 0;  // slot memory in use: what threads own, and permanent slots
  std::uint64_t threads_seen = 0;
  std::uint64_t taken_out = 0;  // hits of tasks that could have no state; some cost a probepoint
  std::uint64_t uncounted_tasks =
      0;  // threads for which there were no counters: what they hit by jumps is in no figure
};

struct OptimisedStats {
  std::uint64_t probepoints = 0;
  std::uint64_t hits = 0;
  std::uint64_t detour_bytes = 0;
  std::vector<std::pair<std::string, std::uint64_t>> left;  // why the others are int3s, and how many
};

struct RefusalRow {
  std::string module, symbol;  // symbol with "+0x.." when inside a function
  std::uint64_t address = 0;   // ELF virtual address
  std::string reason;          // "code: sentence"
};

struct ProbeRow {
  std::string spec;
  std::string_view kind;  // refers to constants
  std::string module, symbol;
  std::uint64_t address = 0;  // ELF virtual address
  std::uint64_t hits = 0;
  std::string_view tier = {};             // "jump", or why it is an int3; refers to constants. Empty: the tier is off
  std::vector<std::string> aliases = {};  // what else the function is called: calls by these names hit it, too
  bool is_return = false;                 // then:
  std::uint64_t entries = 0;              // calls that began; of them hits have returned, but those that were missed,
  std::uint64_t left = 0;                 // these were left otherwise, and the others go on
};

// A module that a glob was set on, and whose known functions are only a part of its code.
struct Coverage {
  std::string module;
  std::string sources;  // where they are known from
  std::uint64_t functions = 0;
  std::uint64_t known_bytes = 0, code_bytes = 0;
};

// What entered the kernel: its number times its cost is what the probes cost, but for jumps, at a nanosecond each.
struct Traps {
  std::uint64_t hits = 0;     // of the application's hits
  std::uint64_t runtime = 0;  // of the runtime's own: its code at the application's probepoints, and the gate
  double cost_ns = 0;         // one counted hit, measured at exit; 0: not measured
};

// What, where, why, what to do.
struct Failure {
  std::string what, where, why, hint;
};

struct Summary {
  std::string version;
  int pid = 0;
  std::string program;  // path of the executable
  Totals totals;
  XolStats xol;
  OptimisedStats optimised;
  std::vector<RefusalRow> refusals;
  std::vector<ProbeRow> probes;
  std::uint64_t unlisted = 0;  // further probes, never hit, of a summary whose readers would leave them out
  std::vector<Coverage> coverage;
  std::uint32_t unfollowed = 0;  // programs that its children executed, and that were not probed
  Traps traps;
  std::optional<Failure> error;  // why nothing was armed, or counted
  std::string output_path;       // where the text goes; empty: standard error
};

}  // namespace ubp::report
