// signal_at_every_instruction_of_trap_path: a tracer records which instructions the trap path executes for every kind
// of displaced instruction, and then lets a signal arrive at each of them in turn, stopping there by an int3 of its
// own. The handler hits more probepoints than there are slots. Counts stay exact, results right, and no handler sees a
// RIP outside the program. signal_at_every_instruction_of_detour: the same for the code of detours.
#include <doctest/doctest.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include "harness.h"

namespace ubp::test::trap_path_test {

namespace {

constexpr int kProbedInstructions = 10;  // of one call of `probed`, its leaf included

struct Files {
  ScratchFolder folder;
  std::string summary = folder.path() + "/summary.json", out = folder.path() + "/out",
              report = folder.path() + "/report";
};

class Tracee {
 public:
  Tracee(long calls, const std::string& lib, const Files& files, const char* optimize = "never",
         const char* consumer = nullptr, const char* spec = nullptr, const std::string& block = "") {
    std::fflush(nullptr);
    pid_ = fork();
    if (pid_ != 0) {
      int status = 0;
      waitpid(pid_, &status, 0);
      ptrace(PTRACE_SETOPTIONS, pid_, nullptr, reinterpret_cast<void*>(PTRACE_O_EXITKILL));
      return;
    }
    const std::string program = fixture("fx_inject");
    std::string cycle;
    for (int i = 0; i < 6; ++i) cycle += "; cycle_" + std::to_string(i);
    if (const char* policy = getenv("UBP_TEST_XOL")) setenv("UBP_XOL", policy, 1);
    unset_test_variables();
    setenv("LD_PRELOAD", lib.c_str(), 1);
    const std::string counted = !block.empty()        ? block + "; probed_leaf"
                                : consumer == nullptr ? "insn:probed; insn:probed_leaf"
                                                      : "probed_leaf";
    setenv("UBP_PROBES", (counted + cycle).c_str(), 1);
    setenv("UBP_SLOTS", "4", 1);
    setenv("UBP_OPTIMIZE", optimize, 1);
    setenv("UBP_OUTPUT", files.report.c_str(), 1);
    setenv("UBP_SUMMARY", files.summary.c_str(), 1);
    if (std::freopen(files.out.c_str(), "w", stdout) == nullptr) _exit(98);
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execl(program.c_str(), program.c_str(), std::to_string(calls).c_str(), consumer, spec, nullptr);
    _exit(99);
  }

  // Lets the task go on; returns the signal that stops it next, 0 when it is gone.
  int go(int signal) {
    if (watched_ == 0) return resume(PTRACE_CONT, signal);
    if (registers().rip == watched_) {  // past it first
      const int stop = step(signal);
      if (stop != SIGTRAP || is_breakpoint()) return stop;
      signal = 0;
    }
    const long first = put_watched(kInt3);
    const int stop = resume(PTRACE_CONT, signal);
    if (stop == 0) return stop;
    put_watched(first);
    user_regs_struct all = registers();
    if (stop != SIGTRAP || !is_breakpoint() || all.rip - 1 != watched_) return stop;
    all.rip = watched_;
    ptrace(PTRACE_SETREGS, pid_, nullptr, &all);
    is_at_watch_ = true;
    return stop;
  }
  // A step shows in one place: pushf stores TF as the tracer set it (SDM volume 2, PUSHF), and the popf behind it would
  // set it for good. It is taken out there, as gdb does.
  int step(int signal = 0) {
    constexpr std::uint8_t kPushf = 0x9c;
    const std::uint64_t before = registers().rip;
    const bool is_pushf = static_cast<std::uint8_t>(ptrace(PTRACE_PEEKTEXT, pid_, before, nullptr)) == kPushf;
    const int stop = resume(PTRACE_SINGLESTEP, signal);
    const user_regs_struct after = registers();
    if (!is_pushf || stop == 0 || after.rip != before + 1) return stop;
    const auto flags = static_cast<std::uint64_t>(ptrace(PTRACE_PEEKDATA, pid_, after.rsp, nullptr));
    ptrace(PTRACE_POKEDATA, pid_, after.rsp, flags & ~kTrapFlag);
    return stop;
  }
  user_regs_struct registers() const {
    user_regs_struct all{};
    ptrace(PTRACE_GETREGS, pid_, nullptr, &all);
    return all;
  }
  // Where a step met an iretq that set TF, Linux takes the flag for the task's own and leaves it.
  void stop_stepping() {
    user_regs_struct all = registers();
    all.eflags &= ~kTrapFlag;
    ptrace(PTRACE_SETREGS, pid_, nullptr, &all);
  }
  // Stops the task, while it goes on, when it is about to execute `address`; 0: no more. An int3 of the tracer's, which
  // stands there no longer than the task runs; a debug register cannot be had everywhere.
  void watch(std::uint64_t address) { watched_ = address; }
  void kill() {
    ::kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  pid_t pid() const { return pid_; }
  // Where the program's file is mapped first.
  std::uint64_t base() const {
    for (const std::string& line : lines(read_file("/proc/" + std::to_string(pid_) + "/maps"))) {
      if (line.find("/fx_inject") != std::string::npos) return std::strtoull(line.c_str(), nullptr, 16);
    }
    return 0;
  }
  bool has_exited_well() const { return WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }
  int status() const { return status_; }
  // Whether the stop is an int3 of the task's that was just executed (the kernel's SI_KERNEL), not a single step.
  bool is_breakpoint() const {
    if (is_at_watch_) return false;
    siginfo_t info{};
    ptrace(PTRACE_GETSIGINFO, pid_, nullptr, &info);
    return info.si_signo == SIGTRAP && info.si_code == SI_KERNEL;
  }

 private:
  // Writes the byte at the watched address, and returns what stood there.
  long put_watched(long byte) {
    const long text = ptrace(PTRACE_PEEKTEXT, pid_, watched_, nullptr);
    ptrace(PTRACE_POKETEXT, pid_, watched_, (text & ~0xffL) | byte);
    return text & 0xff;
  }
  int resume(int request, int signal) {
    is_at_watch_ = false;
    ptrace(static_cast<__ptrace_request>(request), pid_, nullptr, reinterpret_cast<void*>(static_cast<long>(signal)));
    waitpid(pid_, &status_, 0);
    return WIFSTOPPED(status_) ? WSTOPSIG(status_) : 0;
  }

  static constexpr std::uint64_t kTrapFlag = 0x100;
  static constexpr long kInt3 = 0xcc;

  pid_t pid_ = 0;
  int status_ = 0;
  std::uint64_t watched_ = 0;
  bool is_at_watch_ = false;
};

// Steps through the hits of some calls and then lets signals arrive at the instructions seen.
class Injector {
 public:
  explicit Injector(Tracee& tracee)
      : tracee_(tracee),
        probed_(tracee.base() + static_cast<std::uint64_t>(numbers(run_plain({fixture("fx_inject")}).out)["offset"])) {}

  long sent() const { return sent_; }
  bool is_gone() const { return signal_ == 0; }
  // The kind of the next hit in `probed`: its instruction's offset.
  std::uint64_t next_hit() {
    while (signal_ != 0 &&
           (signal_ != SIGTRAP || !tracee_.is_breakpoint() || tracee_.registers().rip - 1 - probed_ >= 64)) {
      const bool is_tracers = signal_ == SIGTRAP && !tracee_.is_breakpoint();  // of a step or a watch
      signal_ = tracee_.go(is_tracers ? 0 : signal_);
    }
    return signal_ == 0 ? 0 : tracee_.registers().rip - 1 - probed_;
  }
  // Steps from the int3 at hand to the next one, or from a signal's delivery: the addresses passed.
  std::set<std::uint64_t> record(int signal) {
    std::set<std::uint64_t> path;
    signal_ = tracee_.step(signal);
    while (signal_ == SIGTRAP && !tracee_.is_breakpoint() && path.size() < 2000) {
      path.insert(tracee_.registers().rip);
      signal_ = tracee_.step();
    }
    return path;
  }
  // Goes on with `signal` until the task is about to execute `address`; false when it meets an int3 first.
  bool run_to(std::uint64_t address, int signal) {
    tracee_.watch(address);
    signal_ = tracee_.go(signal);
    const bool there = signal_ == SIGTRAP && !tracee_.is_breakpoint() && tracee_.registers().rip == address;
    tracee_.watch(0);
    return there;
  }
  // The task stands at a watched instruction, in place of whose SIGTRAP it is given `signal`.
  void inject(int signal) {
    ++sent_;
    signal_ = tracee_.go(signal);
  }
  void count_injection() { ++sent_; }
  void go_on() { signal_ = tracee_.go(0); }

 private:
  Tracee& tracee_;
  std::uint64_t probed_;
  int signal_ = tracee_.go(0);
  long sent_ = 0;
};

// What the program and the summary say after the last injection; "" when all is as it must be.
std::string verdict(const Tracee& tracee, const Files& files, long calls, long sent) {
  if (!tracee.has_exited_well()) return "ended with status " + std::to_string(tracee.status());
  std::string failure;
  auto said = numbers(read_file(files.out));
  const nlohmann::json summary = read_json(files.summary);
  if (!summary.is_object()) return "no summary";
  const auto expect = [&](const char* what, std::int64_t got, std::int64_t wanted) {
    if (got != wanted)
      failure += std::string(what) + ": " + std::to_string(got) + ", not " + std::to_string(wanted) + "\n";
  };
  expect("calls", said["calls"], calls);
  expect("wrong", said["wrong"], 0);
  expect("inside", said["inside"], 0);
  expect("handled", said["handled"], sent);
  if (said.count("consumed") != 0) {
    expect("consumed", said["consumed"], calls);
    expect("hits", said["hits"], calls);
  }
  const auto& totals = summary["totals"];
  if (totals["filtered"] != 0) expect("filtered", totals["filtered"], calls / 2);
  const std::string report = read_file(files.report);
  const std::size_t map = report.find("@: ");
  if (map != std::string::npos)
    expect("the map", std::stol(report.substr(map + 3)), said["calls"] - totals["filtered"].get<std::int64_t>());
  if (!adds_up(summary)) failure += "hits are more or less than what became of them\n";
  for (const auto& probe : summary["probes"]) {
    const auto symbol = probe["symbol"].get<std::string>();
    const bool in_handler = symbol.rfind("cycle_", 0) == 0;
    expect(symbol.c_str(), probe["hits"], in_handler ? said["handler_calls"] / 6 : said["calls"]);
  }
  return failure;
}

struct Result {
  std::size_t wanted = 0, reached = 0;  // (kind of hit, instruction) pairs
  std::string failure;
};

// One signal at every instruction that any kind of hit passes.
Result inject_everywhere(long calls, const std::string& lib, const char* consumer = nullptr,
                         const char* spec = nullptr) {
  const Files files;
  Tracee tracee(calls, lib, files, "never", consumer, spec);
  Injector injector(tracee);
  // Where probepoints earn slots for good, each passes that way once: not at all when the signals come.
  for (int hit = 0; std::getenv("UBP_TEST_XOL") != nullptr && hit < 16 * kProbedInstructions; ++hit) {
    injector.next_hit();
    injector.run_to(0, SIGTRAP);
  }
  std::map<std::uint64_t, std::set<std::uint64_t>> left;  // by kind
  for (int hit = 0; hit < 3 * kProbedInstructions; ++hit) {
    const std::uint64_t kind = injector.next_hit();
    left[kind].merge(injector.record(SIGTRAP));
  }
  std::map<std::uint64_t, std::uint64_t> last;
  Result result;
  for (const auto& [kind, path] : left) result.wanted += path.size();
  while (!injector.is_gone()) {
    const std::uint64_t kind = injector.next_hit();
    std::set<std::uint64_t>& path = left[kind];
    if (path.empty()) {
      if (!injector.is_gone()) injector.run_to(0, SIGTRAP);
      continue;
    }
    const std::uint64_t address = *path.upper_bound(last[kind] < *path.rbegin() ? last[kind] : 0);
    last[kind] = address;  // in turn: a rare instruction may need several tries
    if (!injector.run_to(address, SIGTRAP)) continue;
    path.erase(address);
    ++result.reached;
    injector.inject(SIGUSR1);
  }
  result.failure = verdict(tracee, files, calls, injector.sent());
  return result;
}

// A signal at `depth`-th of the instructions of a hit's path, and a second one at every instruction on which the first
// one's handler is prepared.
Result inject_two(long calls, std::size_t depth) {
  const Files files;
  Tracee tracee(calls, library(), files);
  Injector injector(tracee);
  for (int hit = 0; hit < 2 * kProbedInstructions; ++hit) {
    injector.next_hit();
    injector.record(SIGTRAP);
  }
  const std::uint64_t kind = injector.next_hit();
  std::set<std::uint64_t> path = injector.record(SIGTRAP);
  for (int again = 0; again < 2;) {  // what every hit of the kind passes
    const bool is_same = injector.next_hit() == kind;
    const std::set<std::uint64_t> other = injector.record(SIGTRAP);
    if (!is_same) continue;
    ++again;
    std::erase_if(path, [&](std::uint64_t address) { return !other.contains(address); });
  }
  auto first = std::next(path.begin(), static_cast<long>(depth % path.size()));
  int tries = 0;
  std::set<std::uint64_t> left;
  Result result;
  while (!injector.is_gone()) {
    if (injector.next_hit() != kind) {
      if (!injector.is_gone()) injector.run_to(0, SIGTRAP);
      continue;
    }
    if (!injector.run_to(*first, SIGTRAP)) {  // a processor may pass by one that it fuses with the one before
      if (result.wanted == 0 && ++tries % 4 == 0 && std::next(first) != path.end()) ++first;
      continue;
    }
    if (result.wanted == 0) {
      injector.count_injection();
      left = injector.record(SIGUSR1);  // until the handler's own first hit
      result.wanted = left.size();
    } else if (left.empty()) {
      injector.go_on();
    } else {
      injector.count_injection();
      const std::uint64_t address = *left.begin();
      left.erase(left.begin());
      if (!injector.run_to(address, SIGUSR1)) continue;
      ++result.reached;
      injector.inject(SIGUSR2);
    }
  }
  result.failure = verdict(tracee, files, calls, injector.sent());
  return result;
}

// A signal whenever the trap path begins for a hit in `probed`, as of a timer that leaves no time for more.
Result inject_at_entry(long calls) {
  const Files files;
  Tracee tracee(calls, library(), files);
  const std::uint64_t probed =
      tracee.base() + static_cast<std::uint64_t>(numbers(run_plain({fixture("fx_inject")}).out)["offset"]);
  const auto is_hit = [&] { return tracee.is_breakpoint() && tracee.registers().rip - 1 - probed < 64; };
  int signal = tracee.go(0);
  while (signal != 0 && !(signal == SIGTRAP && is_hit())) signal = tracee.go(signal);
  tracee.step(SIGTRAP);
  const std::uint64_t entry = tracee.registers().rip;
  tracee.watch(entry);
  Result result;
  result.wanted = static_cast<std::size_t>(calls) * kProbedInstructions;
  const std::size_t most = 2 * result.wanted;
  bool is_from_probed = true;
  signal = tracee.go(0);
  while (signal != 0 && result.reached < most) {
    const bool is_entry = signal == SIGTRAP && !tracee.is_breakpoint() && tracee.registers().rip == entry;
    if (signal == SIGTRAP && tracee.is_breakpoint()) is_from_probed = is_hit();
    const bool injects = is_entry && is_from_probed;
    result.reached += injects ? 1 : 0;
    signal = tracee.go(injects ? SIGUSR1 : is_entry ? 0 : signal);
  }
  if (signal != 0) {
    tracee.kill();
    result.failure = "the program makes no progress";
    return result;
  }
  result.failure = verdict(tracee, files, calls, static_cast<long>(result.reached));
  return result;
}

// Where the tracee has code of no file: slots and detours. Or of libubp.so, which detours call.
bool is_detours_code(const std::vector<std::string>& maps, std::uint64_t address) {
  for (const std::string& line : maps) {
    char* end = nullptr;
    const std::uint64_t low = std::strtoull(line.c_str(), &end, 16), high = std::strtoull(end + 1, &end, 16);
    if (address < low || address >= high) continue;
    return line.find(" r-xp 00000000 00:00") != line.npos || line.find("/libubp") != line.npos;
  }
  return false;
}

// One signal at every instruction of the detours that one call passes.
Result inject_into_detours(long calls, const std::string& lib, const char* consumer = nullptr,
                           const char* spec = nullptr, const std::string& block = "") {
  const Files files;
  Tracee tracee(calls, lib, files, "always", consumer, spec, block);
  const std::uint64_t probed =
      tracee.base() + static_cast<std::uint64_t>(numbers(run_plain({fixture("fx_inject")}).out)["offset"]);
  int signal = 0;
  while ((signal = tracee.go(signal)) != SIGWINCH) {  // before its first call: the jumps are there
    if (signal == 0) return {0, 0, "the program never began"};
  }
  // Until the task is about to execute an address; false when it has ended. Its own traps it gets.
  const auto run_to = [&](std::uint64_t address, int first) {
    tracee.watch(address);
    signal = tracee.go(first);
    while (signal != 0 && !(signal == SIGTRAP && !tracee.is_breakpoint() && tracee.registers().rip == address)) {
      signal = tracee.go(signal == SIGTRAP && !tracee.is_breakpoint() ? 0 : signal);
    }
    tracee.watch(0);
    return signal != 0;
  };
  Result result;
  std::set<std::uint64_t> path;
  for (int call = 0; call < 4; ++call) {  // the first ones trap
    if (!run_to(probed, 0)) return {0, 0, "the program ended early"};
    const auto maps = lines(read_file("/proc/" + std::to_string(tracee.pid()) + "/maps"));
    for (int step = 0; step < 600; ++step) {
      signal = tracee.step(signal == SIGTRAP && tracee.is_breakpoint() ? SIGTRAP : 0);
      const std::uint64_t rip = tracee.registers().rip;
      if (call == 3 && is_detours_code(maps, rip)) path.insert(rip);
      if (step > 8 && rip >= tracee.base() && rip < tracee.base() + 0x10000 && rip - probed > 64)
        break;  // back in main
    }
  }
  result.wanted = path.size();
  tracee.stop_stepping();
  long sent = 0;
  bool is_running = true;
  while (is_running && !path.empty()) {
    const std::uint64_t address = *path.begin();
    path.erase(path.begin());
    // In a later call: one that a consumer's hit puts off must have come.
    is_running = run_to(probed, sent == 0 ? 0 : SIGUSR1) && run_to(address, 0);
    if (!is_running) break;
    ++result.reached;
    ++sent;
  }
  if (is_running) {
    signal = tracee.go(SIGUSR1);
    while (signal != 0) signal = tracee.go(signal);
  }
  result.failure = verdict(tracee, files, calls, sent);
  return result;
}

}  // namespace

TEST_CASE("signal_at_every_instruction_of_trap_path") {
  const Result result = inject_everywhere(2000, library());
  CHECK_MESSAGE(result.failure == "", result.failure);
  MESSAGE(result.reached << " of " << result.wanted << " instructions");
  CHECK(result.wanted > 1500);
  CHECK(result.reached * 100 >=
        result.wanted * 90);  // some are passed only when a thread begins, or a slot is given for good
}

TEST_CASE("a signal at every beginning of the trap path starves nobody") {
  const Result result = inject_at_entry(200);
  CHECK_MESSAGE(result.failure == "", result.failure);
  CHECK(result.reached <= result.wanted);
}

TEST_CASE("signal_at_every_instruction_of_detour") {
  const Result result = inject_into_detours(2000, library());
  CHECK_MESSAGE(result.failure == "", result.failure);
  MESSAGE(result.reached << " of " << result.wanted << " instructions");
  CHECK(result.wanted > 60);
  CHECK(result.reached == result.wanted);
}

TEST_CASE("signal_at_every_instruction_of_detour: with a consumer, whatever it declares") {
  // Nothing, UBP_PROBE_NO_FP, SSE_ONLY, NO_FP | MODIFY, NO_FP | NO_REGISTERS; UBP_PROBE_RECORD, which has none.
  for (const char* spec : {"probed", "probed+5"}) {  // there, a red zone is in use
    for (const char* flags : {"0", "4", "32", "6", "68", "128"}) {
      CAPTURE(std::string(spec));
      CAPTURE(std::string(flags));
      const Result result = inject_into_detours(2000, library(), flags, spec);
      CHECK_MESSAGE(result.failure == "", result.failure);
      MESSAGE(result.reached << " of " << result.wanted << " instructions");
      CHECK(result.wanted > 40);
      CHECK(result.reached == result.wanted);
    }
  }
}

TEST_CASE("signal_at_every_instruction of a call that a consumer ends, in both tiers") {
  for (const char* flags : {"256", "260", "262"}) {  // UBP_PROBE_OVERRIDE, with NO_FP, and MODIFY
    CAPTURE(std::string(flags));
    const Result detours = inject_into_detours(2000, library(), flags, "probed_leaf");
    CHECK_MESSAGE(detours.failure == "", detours.failure);
    MESSAGE(detours.reached << " of " << detours.wanted << " instructions of detours");
    CHECK(detours.wanted > 40);
    CHECK(detours.reached == detours.wanted);
  }
  const Result traps = inject_everywhere(1500, library(), "260", "probed_leaf");
  CHECK_MESSAGE(traps.failure == "", traps.failure);
  MESSAGE(traps.reached << " of " << traps.wanted << " instructions of the trap path");
  CHECK(traps.wanted > 200);
  CHECK(traps.reached * 100 >= traps.wanted * 90);
}

TEST_CASE(
    "signal_at_every_instruction_of_detour: with a program, whose filter says no, and yes in turn, and that counts") {
  // The instructions are those of the fourth call.
  for (const std::string at : {"probed", "probed+5"}) {
    for (const std::string block :
         {"/(arg0 & 1) == 0/ { @ = count() }", "/arg0 & 1/ { @n++ }", "/(arg0 & 1) == 0/ { @n++ }",
          "/arg0 % 2 == 0 && arg1 == 6 || arg2 > 2 || arg3 == 0x123456789abc/ { @ = sum(1) }", "{ @ = count() }",
          "{ @ = sum(1) }", "{ @h = hist(arg0) }"}) {
      CAPTURE(at);
      CAPTURE(block);
      const Result result = inject_into_detours(2000, library(), nullptr, nullptr, at + " " + block);
      CHECK_MESSAGE(result.failure == "", result.failure);
      MESSAGE(result.reached << " of " << result.wanted << " instructions");
      CHECK(result.wanted > 15);
      CHECK(result.reached == result.wanted);
    }
  }
}

TEST_CASE("a second signal at every instruction on which the first one's handler is prepared") {
  for (const std::size_t depth : {60, 150}) {
    CAPTURE(depth);
    const Result result = inject_two(800, depth);
    CHECK_MESSAGE(result.failure == "", result.failure);
    MESSAGE(result.reached << " of " << result.wanted << " instructions");
    CHECK(result.wanted > 40);
    CHECK(result.reached * 100 >= result.wanted * 90);
  }
}

TEST_CASE("control: without the translation of interrupted contexts the same signals do harm") {
  CHECK(inject_everywhere(800, control("no_translation")).failure != "");
  CHECK(inject_everywhere(800, control("no_translation"), "260", "probed_leaf").failure != "");
  CHECK(inject_into_detours(800, control("no_translation")).failure != "");
  CHECK(inject_into_detours(800, control("no_translation"), "4", "probed").failure != "");
  CHECK(inject_into_detours(800, control("no_translation"), "260", "probed_leaf").failure != "");
}

}  // namespace ubp::test::trap_path_test
