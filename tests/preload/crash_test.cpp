// core_shows_true_rip: a probed program that dies of a signal dies where it would have died, over its own bytes.
//
// A tracer stops the dying task where the kernel is about to write the core (PTRACE_EVENT_EXIT follows the dump) and
// reads RIP and the bytes around it: what gdb would show of the core, without depending on where cores go.
#include <doctest/doctest.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "harness.h"

namespace ubp::test::crash_test {

namespace {

struct Death {
  int signal = 0;
  std::string place;          // "fx_crash+0x11a9": file and offset in it
  bool is_unpatched = false;  // the bytes at RIP are those of the file
  int patched = 0;            // int3 bytes in the executable's text
};

// Fills place and is_unpatched for a task that stands at `address`.
void look(pid_t pid, std::uint64_t address, Death& death) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  death.place = "nowhere";
  for (std::string line; std::getline(maps, line);) {
    unsigned long low = 0, high = 0, offset = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %*s %lx", &low, &high, &offset) != 3 || address < low || address >= high)
      continue;
    if (line.find('/') == std::string::npos) return;
    const std::string path = line.substr(line.find('/'));
    char text[32];
    std::snprintf(text, sizeof text, "+0x%lx", static_cast<unsigned long>(address - low + offset));
    death.place = path.substr(path.rfind('/') + 1) + text;
    std::array<char, 16> here{}, there{};
    iovec local{here.data(), here.size()}, remote{reinterpret_cast<void*>(address), here.size()};
    if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != 16) throw std::runtime_error("process_vm_readv");
    std::ifstream file(path, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(address - low + offset));
    file.read(there.data(), there.size());
    death.is_unpatched = here == there;
    return;
  }
}

int count_int3(pid_t pid) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) {
    unsigned long low = 0, high = 0;
    if (line.find("fx_crash") == std::string::npos || line.find("r-xp") == std::string::npos) continue;
    if (std::sscanf(line.c_str(), "%lx-%lx", &low, &high) != 2) continue;
    std::string text(high - low, '\0');
    iovec local{text.data(), text.size()}, remote{reinterpret_cast<void*>(low), text.size()};
    if (process_vm_readv(pid, &local, 1, &remote, 1, 0) <= 0) throw std::runtime_error("process_vm_readv");
    for (char c : text) count += c == '\xcc';
  }
  return count;
}

// Runs fx_crash under a tracer that lets every signal through and looks at the task that took the last one, when it
// ends.
Death watch(const std::string& mode, const std::string& preload, const std::string& probes) {
  const pid_t pid = fork();
  if (pid == 0) {
    const std::string program = fixture("fx_crash");
    if (!preload.empty()) {
      setenv("LD_PRELOAD", preload.c_str(), 1);
      setenv("UBP_PROBES", probes.c_str(), 1);
      setenv("UBP_OUTPUT", "/dev/null", 1);
      if (const char* optimize = getenv("UBP_TEST_OPTIMIZE")) setenv("UBP_OPTIMIZE", optimize, 1);
    }
    unset_test_variables();
    std::signal(SIGQUIT, SIG_DFL);             // a shell ignores it in what it starts in the background
    const rlimit small{512 << 10, 512 << 10};  // an overflow is then reached soon
    setrlimit(RLIMIT_STACK, &small);
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execl(program.c_str(), program.c_str(), mode.c_str(), nullptr);
    _exit(99);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  ptrace(PTRACE_SETOPTIONS, pid, nullptr,
         reinterpret_cast<void*>(PTRACE_O_TRACEEXIT | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
  ptrace(PTRACE_CONT, pid, nullptr, nullptr);
  Death death;
  pid_t last = 0;  // to be given a signal
  for (pid_t task; (task = waitpid(-1, &status, __WALL)) > 0;) {
    if (WIFSIGNALED(status) && task == pid) death.signal = WTERMSIG(status);
    if (!WIFSTOPPED(status)) continue;
    const int signal = WSTOPSIG(status), event = status >> 16;
    if (event == PTRACE_EVENT_EXIT && task == last) {
      user_regs_struct registers{};
      ptrace(PTRACE_GETREGS, task, nullptr, &registers);
      look(task, registers.rip, death);
      death.patched = count_int3(task);
    }
    const bool is_event = event != 0 || signal == SIGSTOP;
    if (!is_event) last = task;
    ptrace(PTRACE_CONT, task, nullptr, reinterpret_cast<void*>(static_cast<long>(is_event ? 0 : signal)));
  }
  return death;
}

constexpr const char* kProbes = "libc:*; store; insn:store; insn:recurse; breakpoint; insn:main";

}  // namespace

TEST_CASE("core_shows_true_rip: signal, RIP and bytes are those of the unprobed death") {
  for (std::string mode : {"segv", "overflow", "abort", "int3", "kill", "sent", "thread"}) {
    CAPTURE(mode);
    const Death plain = watch(mode, "", "");
    const Death probed = watch(mode, library(), kProbes);
    CHECK(plain.signal != 0);
    CHECK(probed.signal == plain.signal);
    // Where exactly a stack ends differs from run to run.
    if (mode != "overflow") CHECK(probed.place == plain.place);
    CHECK(plain.is_unpatched);
    CHECK(probed.is_unpatched);
    CHECK(probed.patched == plain.patched);
  }
}

TEST_CASE("a signal whose default is no core dump ends the program all the same") {
  const Death probed = watch("term", library(), kProbes);
  CHECK(probed.signal == SIGTERM);
}

TEST_CASE("the wait status says what it says without probes") {
  for (std::string mode : {"segv", "overflow", "abort", "int3", "kill", "term", "thread"}) {
    CAPTURE(mode);
    const std::string plain = run_plain({fixture("fx_crash"), mode}).end();
    CHECK(run_probed({fixture("fx_crash"), mode}, kProbes).end() == plain);
  }
}

}  // namespace ubp::test::crash_test
