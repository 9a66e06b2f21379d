// The loop over cases: choose, place, run both ways, compare, repeat what differs.
#include "tests/insn_diff/driver.h"

#include <signal.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace ubp::insn_diff {
namespace {

constexpr int kStates = 16;  // per case: writing code costs more than a run
constexpr std::size_t kMaxSampleBytes = 15;

using Long = unsigned long long;

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

std::string hex(const Code& code, std::size_t length) {
  std::string text;
  char byte[4];
  for (std::size_t i = 0; i < length; ++i) {
    std::snprintf(byte, sizeof byte, "%02x", code[i]);
    text += byte;
  }
  return text;
}

std::string disassemble(const Case& c) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char text[128];
  ZydisFormatterFormatInstruction(&formatter, &c.decoded.raw, c.decoded.operands, c.decoded.raw.operand_count_visible,
                                  text, sizeof text, c.address, nullptr);
  return text;
}

}  // namespace

Driver::Driver(Machine& machine, Catalogue& catalogue, const Options& options)
    : machine_(machine), catalogue_(catalogue), options_(options), maker_(machine) {
  const auto& encodings = catalogue.encodings();
  for (std::size_t i = 0; i < encodings.size(); ++i) {
    if (encodings[i].route != decoder::Route::kRefused && encodings[i].skip == nullptr) runnable_.push_back(i);
  }
}

bool Driver::run(Control control) {
  control_ = control;
  Runner runner(machine_, control, options_.detours);
  const double start = now();
  const std::uint64_t failures = failures_;
  for (std::uint64_t index = 0;; ++index) {
    // A whole round over the encodings, each time from another place, so that a short run is a fair sample.
    const std::size_t n = runnable_.size();
    const std::uint64_t round = index / n;
    Encoding& encoding = catalogue_.encodings()[runnable_[(index + mix(options_.seed) % n) % n]];
    if (!encoding.is_dead() || (round & 15) == 0) run_case(runner, encoding, options_.seed, index, false);
    if (control != Control::kNone && failures_ != failures) break;
    if (options_.soak && failures_ != failures) break;
    if (options_.max != 0 && executions_ >= options_.max) break;
    if ((index & 15) == 0) {
      elapsed_ = now() - start;
      if (options_.seconds > 0 && elapsed_ >= options_.seconds) break;
    }
    if (options_.soak && index % (1u << 20) == (1u << 20) - 1) {
      std::printf("%llu executions, %.0f s\n", static_cast<Long>(executions_), elapsed_);
      std::fflush(stdout);
    }
  }
  elapsed_ = now() - start;
  fip_in_slot_ += runner.fip_in_slot;
  rf_missing_ += runner.rf_missing;
  written_by_fault_ += runner.written_by_fault;
  late_steps_ += runner.late_steps;
  return failures_ == failures;
}

bool Driver::run_case(Runner& runner, Encoding& encoding, std::uint64_t seed, std::uint64_t index, bool print_all) {
  static Outcome native, other;
  Random random(mix(seed) ^ mix(index + 0x5eed));
  Case c;
  if (!make_case(machine_, encoding, random, c) || c.kind.route == decoder::Route::kRefused) {
    ++unplaced_;
    return true;
  }
  bool passed = true;
  if (!runner.prepare(c)) {
    runner.finish(c);
    ++unplaced_;
    return true;
  }
  ++cases_;
  const int states = c.is_slow || encoding.is_dead() ? 1 : kStates;
  for (int number = 0; number < states; ++number) {
    Random state_random(mix(seed + 77) ^ mix(index * 64 + static_cast<unsigned>(number)));
    maker_.make(c, state_random, state_);
    runner.native(c, state_, native);
    runner.displaced(c, state_, other);
    ++executions_;
    ++encoding.runs;
    if (native.where == Where::kSignal) {
      ++signals_;
      encoding.illegal += native.signal == SIGILL;
      encoding.protection += native.signal == SIGSEGV && native.code == SI_KERNEL;
      encoding.completed += native.signal != SIGILL && !(native.signal == SIGSEGV && native.code == SI_KERNEL);
    } else {
      ++encoding.completed;
    }
    std::string difference = runner.compare(c, native, other);
    if (print_all) {
      std::printf("state %d: native %s; displaced %s\n%s", number, describe(native).c_str(), describe(other).c_str(),
                  difference.c_str());
    }
    if (difference.empty()) continue;
    switch (repeat(runner, c, native, other, difference)) {
      case Verdict::kNativeVaries: ++varying_[encoding.mnemonic]; continue;
      case Verdict::kPassed: ++passing_[encoding.mnemonic]; continue;
      case Verdict::kReal: break;
    }
    passed = false;
    if (control_ != Control::kNone) {  // what the unspoiled runner finds too is no proof of the control
      Runner plain(machine_, Control::kNone, options_.detours);
      plain.prepare(c);
      plain.native(c, state_, native);
      plain.displaced(c, state_, other);
      if (!plain.compare(c, native, other).empty()) break;
      ++failures_;
      break;
    }
    report(c, encoding, seed, index, number, native, other, difference);
    break;
  }
  runner.finish(c);
  return passed;
}

Driver::Verdict Driver::repeat(Runner& runner, const Case& c, Outcome& native, Outcome& other,
                               std::string& difference) {
  static Outcome again;
  for (int i = 0; i < 4; ++i) {
    runner.native(c, state_, again);
    if (!runner.compare(c, native, again).empty()) return Verdict::kNativeVaries;
  }
  for (int i = 0; i < 3; ++i) {
    runner.displaced(c, state_, other);
    difference = runner.compare(c, native, other);
    if (difference.empty()) return Verdict::kPassed;
  }
  return Verdict::kReal;
}

void Driver::report(const Case& c, const Encoding& encoding, std::uint64_t seed, std::uint64_t index, int state,
                    const Outcome& native, const Outcome& other, const std::string& difference) {
  ++failures_;
  if (!failed_.insert(encoding.key).second || failed_.size() > options_.show) return;
  Random random(mix(seed) ^ mix(index + 0x5eed));  // make_case() begins with this choice
  const std::string base = hex(encoding.samples[random.below(encoding.samples.size())], kMaxSampleBytes);
  std::printf("DIFFERENCE  %s  [%s]  at %llx, slot %llx, state %d\n  replay: --replay %llu:%llu:%s\n",
              disassemble(c).c_str(), hex(c.code, c.length()).c_str(), static_cast<Long>(c.address),
              static_cast<Long>(c.slot), state, static_cast<Long>(seed), static_cast<Long>(index), base.c_str());
  std::printf("  native: %s; displaced: %s\n%s", describe(native).c_str(), describe(other).c_str(), difference.c_str());
  std::printf("  before: flags %llx", static_cast<Long>(state_.flags));
  for (int i = 0; i < 16; ++i) std::printf("%s%llx", i % 8 == 0 ? "\n    " : " ", static_cast<Long>(state_.gpr[i]));
  std::printf("\n");
  std::fflush(stdout);
}

bool Driver::replay(std::uint64_t seed, std::uint64_t index, const std::string& text) {
  Code code{};
  for (std::size_t i = 0; i * 2 + 1 < text.size() && i < code.size(); ++i) {
    code[i] = static_cast<std::uint8_t>(std::strtoul(text.substr(i * 2, 2).c_str(), nullptr, 16));
  }
  Encoding alone{};
  Encoding* encoding = &alone;
  if (text.empty()) {
    const std::size_t n = runnable_.size();
    encoding = &catalogue_.encodings()[runnable_[(index + mix(seed) % n) % n]];
  } else {
    alone.samples = {code};
    alone.mnemonic = "replayed";
  }
  Runner runner(machine_, Control::kNone, options_.detours);
  const bool passed = run_case(runner, *encoding, seed, index, true);
  std::printf("%s\n", passed ? "no difference" : "different");
  return passed;
}

void Driver::print_table() const {
  constexpr int kOrigins = 3;
  std::uint64_t met[kOrigins] = {}, executed[kOrigins] = {}, illegal[kOrigins] = {}, refused[kOrigins] = {};
  std::uint64_t skipped = 0, unvisited = 0, total[2] = {};
  std::map<std::string, std::uint64_t> reasons;
  for (const Encoding& e : catalogue_.encodings()) {
    const auto origin = static_cast<int>(e.origin);
    ++met[origin];
    if (e.route == decoder::Route::kRefused) {
      ++refused[origin];
      ++reasons[std::string(decoder::refusal_code(e.refusal))];
    } else if (e.skip != nullptr) {
      ++skipped;
    } else if (e.runs == 0) {
      ++unvisited;
    } else if (e.completed == 0) {
      ++illegal[origin];
    } else {
      ++executed[origin];
      ++total[0];
    }
  }
  std::printf("\n%-12s %10s %10s %10s %24s\n", "encodings", "met", "executed", "refused",
              "not for user mode (#UD #GP)");
  static constexpr const char* kNames[kOrigins] = {"libraries", "by hand", "generated"};
  for (int i = 0; i < kOrigins; ++i) {
    std::printf("%-12s %10llu %10llu %10llu %24llu\n", kNames[i], static_cast<Long>(met[i]),
                static_cast<Long>(executed[i]), static_cast<Long>(refused[i]), static_cast<Long>(illegal[i]));
  }
  std::printf("not run: %llu wait for an event, %llu not reached\nrefused:", static_cast<Long>(skipped),
              static_cast<Long>(unvisited));
  for (const auto& [reason, count] : reasons) std::printf(" %s %llu", reason.c_str(), static_cast<Long>(count));
  std::printf("\n%llu executions of %llu encodings in %.1f s, %llu cases, %llu signals, %llu differences\n",
              static_cast<Long>(executions_), static_cast<Long>(total[0]), elapsed_, static_cast<Long>(cases_),
              static_cast<Long>(signals_), static_cast<Long>(failures_));
  std::printf(
      "known: x87 instruction pointer names the slot %llu; RF clear in the frame of an emulated fault %llu; "
      "single steps not compared %llu; return addresses written by faulting calls %llu\n",
      static_cast<Long>(fip_in_slot_), static_cast<Long>(rf_missing_), static_cast<Long>(late_steps_),
      static_cast<Long>(written_by_fault_));
  if (unplaced_ != 0) std::printf("cases without a place: %llu\n", static_cast<Long>(unplaced_));
  const auto list = [](const char* title, const std::map<std::string, std::uint64_t>& counts) {
    if (counts.empty()) return;
    std::printf("%s:", title);
    for (const auto& [name, count] : counts) std::printf(" %s %llu", name.c_str(), static_cast<Long>(count));
    std::printf("\n");
  };
  list("native itself varies", varying_);
  list("did not differ when repeated", passing_);
}

}  // namespace ubp::insn_diff
