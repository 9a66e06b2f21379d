// See exit_report.h.
#include "runtime/preload/exit_report.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <atomic>
#include <ctime>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/api/api.h"
#include "runtime/base/cancellation.h"
#include "runtime/preload/family.h"
#include "runtime/preload/loaded.h"
#include "runtime/preload/register_probes.h"
#include "runtime/report/descriptor.h"
#include "runtime/report/report.h"
#include "runtime/signals/sandbox.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

using report::Level;
using report::say;

// The process that a report is being made for, and by which thread; that one was made for; that a signal is ending, and
// by which thread. (Process ids, so that a forked child takes none of it for its own.)
std::atomic<std::uint32_t> g_reporting_pid{0}, g_reporting_thread{0}, g_reported_pid{0}, g_dying_pid{0},
    g_dying_thread{0};

// Writes the report, behind what programs have printed, and the summary. Returns false after saying what cannot be
// written.
bool write_files(report::Summary summary, std::string text, bool to_stream, int pid) {
  Loaded& process = *g_loaded;
  report::PathFields fields = process.fields;
  fields.pid = pid;
  summary.pid = pid;
  if (process.error) summary.error = process.error;
  if (is_first_of_family()) summary.unfollowed = unfollowed();
  const int owner = static_cast<int>(files_owner(is_first_of_family()));
  process.output.set_owner(owner);
  process.summary.set_owner(owner);
  if (process.output.is_set()) summary.output_path = process.output.path(fields);
  bool good = true;
  const auto check = [&](const std::optional<std::string>& error) {
    if (!error) return;
    const std::string_view without_advice =
        std::string_view(*error).substr(0, error->rfind(" ("));  // it would come too late for the child
    const std::string noted = fmt::format("{} (pid {}): {}", process.fields.program, pid, without_advice);
    if (good && !note_in_family(Note::kUnwritten, noted)) say(Level::kError, *error);
    good = false;
  };
  const bool is_probed = summary.totals.probepoints_armed > 0 && (process.has_report || process.output.is_set());
  const bool has_printed = !text.empty();
  if (is_probed || (summary.error && owner == pid && process.output.is_set())) text += report::format_text(summary);
  if (process.output.is_set()) {  // an older report does not stay where this one says why there is none
    if (!text.empty()) check(process.output.write(text, fields));
  } else if ((is_probed || has_printed) && to_stream) {  // else a message has said why
    report::error_stream().write(text);
  }
  if (process.summary.is_set()) check(process.summary.write(report::format_json(summary), fields));
  return good;
}

std::uint32_t reporting_pid() {
  return sys::is_process(trap::g_process.tasks.pid) ? trap::g_process.tasks.pid : sys::getpid();
}

// Waits until `done`, but not for ever: the process is to end.
template <typename Done>
void wait_until(const Done& done) {
  constexpr int kPatience = 10'000;  // milliseconds; a reader of the report has five seconds
  for (int turn = 0; turn < kPatience && !done(); ++turn) {
    const timespec moment{0, 1'000'000};
    sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
  }
}

// Another thread makes the report already: the process must not end before it is made, but it does end. This thread,
// interrupted in making it, does not wait.
void wait_for_report(std::uint32_t pid) {
  constexpr long kNoSuchProcess = -3;  // -ESRCH
  wait_until([pid] {
    if (g_reported_pid.load(std::memory_order_acquire) == pid) return true;           // pairs with make_report()
    const std::uint32_t thread = g_reporting_thread.load(std::memory_order_relaxed);  // 0: not yet known
    return thread == sys::gettid() || (thread != 0 && sys::call4(SYS_tgkill, pid, thread, 0) == kNoSuchProcess);
  });
}

// A signal that another thread has got ends the process: without UBP, this thread would not come to end it with a
// status. Not where that has come to nothing: the fault did not happen again.
void wait_for_death() {
  const bool is_own = g_dying_thread.load(std::memory_order_relaxed) == sys::gettid();
  if (g_dying_pid.load(std::memory_order_relaxed) == reporting_pid() && !is_own) wait_until([] { return false; });
}

// Whether it is for this thread to make the report; another that is at it is waited for.
bool begin_report() {
  if (g_loaded == nullptr || !is_reporting_process()) return false;
  const std::uint32_t pid = reporting_pid();
  if (g_reporting_pid.exchange(pid, std::memory_order_relaxed) == pid) {  // whoever is first
    wait_for_report(pid);
    return false;
  }
  g_reporting_thread.store(sys::gettid(), std::memory_order_relaxed);
  return true;
}

// Behind begin_report(). is_death: a signal ends the process. Returns whether the text is as it was.
bool make_report(bool is_death) {
  const std::uint32_t pid = g_reporting_pid.load(std::memory_order_relaxed);  // this thread's
  bool is_restored = false;
  try {
    const SignalsHeld quiet;
    std::optional<Uncancelled> uncancelled;
    if (!is_death) uncancelled.emplace();
    report::Summary summary =
        end(g_loaded->program, g_loaded->summary.is_set(), is_death ? nullptr : &quiet, is_restored);
    write_files(std::move(summary), program_output(true), true, static_cast<int>(pid));
    note_report();
    say_program_errors();
    if (const std::string mail = mail_of_family(); !mail.empty()) report::error_stream().write(mail);
    for (const std::string& told : told_by_family()) say(Level::kWarning, told);
  } catch (const std::bad_alloc&) {
    report::error_stream().write("ubp: error: out of memory at the end; no report\n");
  }
  g_reported_pid.store(pid, std::memory_order_release);  // pairs with wait_for_report()
  return is_restored;
}

}  // namespace

bool is_reporting_process() {
  if (trap::g_process.tasks.fork_state == nullptr) return true;  // nothing armed: nothing that could be shared
  const bool forked =
      trap::g_process.tasks.fork_state->load(std::memory_order_acquire) != trap::kReady;  // wiped: a child
  return forked || sys::is_process(trap::g_process.tasks.pid);
}

bool flush_files() {
  return write_files(summary(g_loaded->program, g_loaded->summary.is_set()), program_output(false), false,
                     static_cast<int>(sys::getpid()));
}

void write_report() {
  if (signals::forbids_report()) return;
  if (begin_report()) make_report(false);
  wait_for_death();
}

namespace {

// ---- The report of a process that a signal is ending (trap/death.h)
//
// Made in a handler that has interrupted anything: libubp has its own memory and takes no lock of libc's or the dynamic
// linker's, and the interface's only for so long. The interrupted stack may be small, or used up: there is one for this
// alone.
constexpr std::uint64_t kDeathStackBytes = std::uint64_t{256} << 10;
std::uint64_t g_death_stack = 0;
bool g_death_restored = false;

// Behind begin_report(), on that stack. It is the thread's alternate signal stack too, from here to the return from the
// handler: what a trap would find instead, the handler's frame may lie on.
void report_on_own_stack() {
  const std::uint64_t stack[3] = {g_death_stack, 0, kDeathStackBytes};
  sys::call4(SYS_sigaltstack, reinterpret_cast<long>(stack), 0);
  report::bound_writes();
  g_death_restored = make_report(true);
}

bool report_death() {
  // What a filter of the program's own making forbids may change what it dies of.
  if (sys::is_set(trap::g_process.is_sandboxed)) return false;
  g_dying_thread.store(sys::gettid(), std::memory_order_relaxed);
  g_dying_pid.store(reporting_pid(), std::memory_order_relaxed);
  if (!begin_report()) return false;
  const std::uint64_t top = g_death_stack + kDeathStackBytes;
  register void (*function)() asm("r12") = &report_on_own_stack;
  register std::uint64_t stack asm("r13") = top;
  asm volatile(
      "xchg %%rsp, %0\n\t"
      "call *%1\n\t"
      "mov %0, %%rsp"
      : "+r"(stack)
      : "r"(function)
      : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
        "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
  return g_death_restored;
}

}  // namespace

void prepare_death() {
  void* const stack = mmap(nullptr, kDeathStackBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return;
  g_death_stack = reinterpret_cast<std::uint64_t>(stack);
  trap::g_process.upcalls.report_death = &report_death;
}

}  // namespace ubp::runtime
