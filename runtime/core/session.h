// One process under UBP: what was planned, armed and counted. Made by the entry at load, read by the report at exit.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/core/options.h"
#include "runtime/probes/plan.h"
#include "runtime/report/summary.h"

namespace ubp::core {

inline constexpr const char* kVersion = "0.1.0";

class Session {
 public:
  Session(Options options, std::string program);

  // Resolves, prepares and arms everything the options ask for. Nothing is armed when the specification has a mistake
  // that options.missing does not forgive. Mistakes and refusals are said here, one line each.
  // Returns false when the specification is bad (exit status 125 under UBP_MISSING=error).
  bool start();

  // Everything known now. Counters are read while threads may still run: each is exact at its own instant.
  report::Summary summary() const;

 private:
  bool say_mistakes(const std::vector<probes::Mistake>& mistakes) const;
  bool prepare();          // memory of the trap path; false after saying why not
  bool arm();              // signals, then int3; false after saying why not
  void say_refusals() const;

  Options options_;
  std::string program_;
  std::unique_ptr<probes::Plan> plan_;
  bool armed_ = false;
};

}  // namespace ubp::core
