// What the preload entry keeps from load to the end of the process.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "runtime/preload/options.h"
#include "runtime/report/output_file.h"
#include "runtime/report/report.h"

namespace ubp::runtime {

// Made once at load, never destroyed: threads and exit handlers may outlive any destructor.
struct Loaded {
  Options options;
  std::string program;                   // the path of the program's file
  report::OutputFile output;             // UBP_OUTPUT
  report::OutputFile summary;            // UBP_SUMMARY
  report::PathFields fields;             // what their names are made of
  std::optional<report::Failure> error;  // why nothing is probed
  bool passes_on = false;                // nothing is, but what this program executes may have it
  std::string source = "UBP_PROBES";     // what the specification is called in messages
  bool has_reader = false;               // `ubp run` prints what programs print
  bool has_report = true;                // some hits are counted that nothing else tells of
};
// Null: libubp is inert in this process.
extern Loaded* g_loaded;

// Nothing is probed: the summary says why, beside the message on standard error.
void keep_error(std::string_view what, std::string_view where, std::string_view why, std::string_view hint);

}  // namespace ubp::runtime
