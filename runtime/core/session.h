// One process under UBP: what was planned, armed and counted. Made by the entry at load, read by the report at exit.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/core/options.h"
#include "runtime/probes/plan.h"
#include "runtime/probes/table.h"
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

  // Takes every int3 out again: the text is byte for byte what it was. Hits under way end normally, and the counters
  // stay. Idempotent. Returns why not, or nothing.
  std::optional<std::string> disarm();

  // Puts every int3 in again after disarm(). Idempotent. Returns why not, or nothing.
  std::optional<std::string> rearm();

  // The dynamic linker has mapped or unmapped modules: arms the pending probes in new ones, forgets those of modules
  // that are gone. Context: normal, in the thread that is in dlopen or dlclose, between the linker's own steps.
  void modules_changed();

  // A forked child: whoever held the lock is not there.
  void set_up_child() { new (&mutex_) std::mutex; }

  // Everything known now. Counters are read while threads may still run: each is exact at its own instant.
  report::Summary summary() const;

 private:
  struct Times {           // nanoseconds of each part of start()
    std::int64_t parse = 0, resolve = 0, prepare = 0, table = 0, arm = 0;
  };

  bool say_mistakes(const std::vector<probes::Mistake>& mistakes) const;
  bool prepare();          // memory of the trap path; false after saying why not
  void place(std::vector<xol::Displaced>& own);  // gives the plan's points and these their areas and permanent slots
  void arm_module(const symbols::Module& module);
  bool arm();              // signals, then int3; false after saying why not
  void say_refusals() const;
  void say_costs() const;
  std::optional<std::string> write_points(std::uint32_t begin, std::uint32_t end, bool arm) const;

  Options options_;
  std::string program_;
  std::unique_ptr<probes::Plan> plan_;
  probes::Table* table_ = nullptr;  // owned for ever: the trap path may read it until the process is gone
  std::uint32_t points_ = 0;              // planned ones; own_points_ and the calibration point follow in the table
  std::vector<xol::Displaced> own_points_;  // the gate's sites that no probe is at
  struct LateModule {
    std::uint32_t module;                 // in the plan
    std::uint32_t first;                  // its probepoints in the table
    std::vector<std::uint64_t> addresses; // theirs
    bool is_present;
  };
  std::vector<LateModule> late_;
  std::uint32_t loaded_modules_ = 0;      // in the plan from the start
  mutable std::mutex mutex_;              // of plan_, table_ and late_ once the program runs
  bool armed_ = false;
  Times times_;
};

}  // namespace ubp::core
