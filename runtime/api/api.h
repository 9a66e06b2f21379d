// What the preload entry needs beside ubp.h, through which it does everything else.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/api/api_lock.h"
#include "runtime/arm/probepoints.h"
#include "runtime/include/ubp.h"
#include "runtime/report/summary.h"

namespace ubp::runtime {

// ubp_init(); is_embedding: by the application itself.
ubp_status initialise(const ProbepointsConfig& config, bool is_embedding);

// Undoes initialise(): the preload entry has nothing to probe.
void give_up();

// What became of UBP_PROBES.
struct Registered {
  ubp_status status = UBP_OK;
  std::vector<ubp_probe*> probes{};  // of the bare targets, and of each block
  bool counts = false;               // some target is bare
  bool says_missing = false;         // a program wants to be told of what is not found
  std::vector<Problem> problems{};   // why nothing is probed
  std::vector<Problem> warnings{};
};

// Registers the text of UBP_PROBES, which may hold programs: its probes live until the process ends, and the blocks of
// begin have run. All of it or nothing. Shows progress on a terminal.
Registered register_environment(std::string_view spec, std::uint32_t flags);

// Joins the run of `ubp run` that the value of UBP_SESSION names. None: there is none, or another process has its
// probes.
struct SessionTexts {
  std::string name, text;  // of the program
  bool follows = false;    // what this process executes is to be probed, too
  bool checks = false;     // nothing is to run
};
std::optional<SessionTexts> join_session(const char* path);

// Whether this process is the one that runs the program of the session.
bool has_session();

// Whether this process is a shell or the like: it may lead to the one that is meant.
bool executes_others();

// Tells the reader of that run that this process has told what it counted.
void note_report();
// Tells it why this process does not run its program.
void note_not_run(const Problem& problem);

// What the programs of UBP_PROBES have printed, and their maps; empty: there are none, or a session's reader prints
// them. is_end: no block runs any more but those of end, which this runs first. Context: normal, in a SignalsHeld.
std::string program_output(bool is_end);
// What went wrong in them at run time.
std::vector<Problem> program_errors();

// The summary as things are now. Without counts, and with the reason, where they cannot be had, as when this very
// thread was interrupted in a call of the interface. lists_all: with the probes that a report leaves out. Context:
// normal, in a SignalsHeld.
report::Summary summary(const std::string& program, bool lists_all);

// The last one. First puts the text back (is_restored: it could), so that what the report takes after this runs through
// code that nobody probes, and then lets the signals in that `quiet` holds back: whatever would end the program ends
// it. quiet is null where a signal does: none is let in, and no other thread waited for but briefly. Context: the end
// of the process, also in a signal handler.
report::Summary end(const std::string& program, bool lists_all, const SignalsHeld* quiet, bool& is_restored);

// The entry's part of ubp_flush(): writes the files, returns false after saying why one cannot be written.
void set_flush(bool (*flush)());

// Behind end(), where the process may go on for a while: waits for consumers that run, and no more will.
void leave_consumers();

// What registrations did not get.
struct Shortfall {
  std::vector<Problem> mistakes;        // of the specification, forgiven
  std::vector<Problem> waiting;         // for modules, though there are such as its name fits
  std::size_t refused = 0, probes = 0;  // addresses
  Problem first;                        // of the refused ones
  bool is_exact = false;                // some item meant such an address
};
Shortfall shortfall(const std::vector<ubp_probe*>& probes);

// What one registration cost, for UBP_LOG=info.
std::string costs(ubp_probe* probe);

}  // namespace ubp::runtime
