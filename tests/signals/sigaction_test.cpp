// sigaction, through both of its doors: the interposed functions and the system call at a gate. The application is told
// what the kernel alone would have told it, and the kernel knows only ubp_signal_entry. On fabricated state: nothing is
// probed, no signal is sent, and the handlers are addresses that nobody calls.
#include <doctest/doctest.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <ostream>
#include <vector>

#include "runtime/signals/real.h"
#include "runtime/trap/gate.h"

using namespace ubp;
using namespace ubp::trap;

namespace {

using Flags = std::uint64_t;
constexpr std::uint64_t kFirst = 0x404000, kSecond = 0x405000, kIgnore = 1, kDefault = 0;
constexpr std::uint64_t kUser2 = std::uint64_t{1} << (SIGUSR2 - 1);

long raw_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  return sys::call4(SYS_rt_sigaction, signal, reinterpret_cast<long>(act), reinterpret_cast<long>(old), 8);
}

// What an application is told: the result as the kernel returns it, and what is at old, less libc's restorer.
struct Answer {
  long result;
  std::uint64_t handler, flags, mask;
  bool operator==(const Answer&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Answer& answer) {
  return out << "result " << answer.result << std::hex << " handler " << answer.handler << " flags " << answer.flags
             << " mask " << answer.mask << std::dec;
}
Answer answer_of(long result, const KernelSigaction& old) {
  return {result, old.handler, old.flags & ~kRestorer, old.mask};
}

using Door = Answer (*)(int signal, const KernelSigaction* act);

Answer ask_kernel(int signal, const KernelSigaction* act) {
  KernelSigaction old{};
  const long result = raw_sigaction(signal, act, &old);
  return answer_of(result, old);
}

Answer ask_libc(int signal, const KernelSigaction* act) {
  struct sigaction wanted {
  }, old{};
  if (act != nullptr) {
    wanted.sa_handler = reinterpret_cast<void (*)(int)>(act->handler);
    wanted.sa_flags = static_cast<int>(act->flags);
    std::memcpy(&wanted.sa_mask, &act->mask, sizeof act->mask);
  }
  const int result = sigaction(signal, act != nullptr ? &wanted : nullptr, &old);
  KernelSigaction seen{reinterpret_cast<std::uint64_t>(old.sa_handler), static_cast<unsigned>(old.sa_flags), 0, 0};
  std::memcpy(&seen.mask, &old.sa_mask, sizeof seen.mask);
  return answer_of(result == 0 ? 0 : -errno, seen);
}

// The system call as it stands at a gate.
long ask_gate(std::uint64_t signal, const void* act, void* old, std::uint64_t size = 8) {
  Context uc{};
  uc.rax = SYS_rt_sigaction;
  uc.rdi = signal;
  uc.rsi = reinterpret_cast<std::uint64_t>(act);
  uc.rdx = reinterpret_cast<std::uint64_t>(old);
  uc.r10 = size;
  return static_cast<long>(gated_sigaction(&uc));
}
Answer ask_gate(int signal, const KernelSigaction* act) {
  KernelSigaction old{};
  const long result = ask_gate(static_cast<std::uint64_t>(std::int64_t{signal}), act, &old);
  return answer_of(result, old);
}

constexpr int kUsed[] = {SIGUSR1, SIGCHLD, SIGSEGV};

// A process that the runtime has taken over, as far as dispositions go.
class World {
 public:
  World() {
    for (int signal : kUsed) raw_sigaction(signal, nullptr, &kept_[signal]);
    clear();
    g_process.tasks.pid = static_cast<std::uint32_t>(getpid());
    g_process.tasks.fork_state = &fork_state_;
    signals::g_active = true;
  }
  ~World() {
    signals::g_active = false;
    clear();
    for (int signal : kUsed) raw_sigaction(signal, &kept_[signal], nullptr);
    std::construct_at(&g_process);
  }
  // Every disposition is the default again, in the kernel and in the table.
  void clear() {
    const KernelSigaction none{};
    for (int signal : kUsed) raw_sigaction(signal, &none, nullptr);
    for (auto& handler : g_handlers.handler) handler = 0;
    for (auto* bits : {&g_handlers.masks_trap, &g_handlers.on_stack, &g_handlers.takes_info}) *bits = 0;
    g_handlers.trap_flags = g_handlers.trap_mask = 0;
  }

 private:
  KernelSigaction kept_[65]{};
  std::atomic<std::uint32_t> fork_state_{kReady};
};

// Handlers of every kind, one after the other, each looked at before the next.
std::vector<KernelSigaction> some_actions() {
  std::vector<KernelSigaction> actions;
  for (const Flags flags : {Flags{0}, Flags{SA_SIGINFO}, Flags{SA_ONSTACK | SA_SIGINFO}, Flags{SA_RESTART},
                            Flags{SA_NODEFER}, Flags{SA_RESETHAND}, Flags{SA_RESETHAND | SA_NODEFER | SA_SIGINFO}}) {
    for (const std::uint64_t mask : {std::uint64_t{0}, kTrapBit, kTrapBit | kUser2, kUser2}) {
      actions.push_back({kFirst, flags, 0, mask});
      actions.push_back({kIgnore, flags, 0, mask});
      actions.push_back({kSecond, flags, 0, mask});
      actions.push_back({kDefault, 0, 0, 0});
    }
  }
  return actions;
}

std::vector<Answer> answers_of(Door door, int signal) {
  std::vector<Answer> answers;
  for (const KernelSigaction& act : some_actions()) {
    answers.push_back(door(signal, &act));
    answers.push_back(door(signal, nullptr));
  }
  return answers;
}

void check_noted(std::uint64_t signal, const Noted& wanted) {
  const Noted found = noted(signal);
  CHECK(found.handler == wanted.handler);
  CHECK(found.on_stack == wanted.on_stack);
  CHECK(found.takes_info == wanted.takes_info);
  CHECK(found.masks_trap == wanted.masks_trap);
}

}  // namespace

TEST_CASE("both doors tell the application what the kernel would have told it") {
  for (const int signal : {SIGUSR1, SIGCHLD}) {
    CAPTURE(signal);
    World world;
    const std::vector<Answer> native = answers_of(&ask_kernel, signal);
    for (const Door door : {Door{&ask_libc}, Door{&ask_gate}}) {
      CAPTURE(door == Door{&ask_gate});
      world.clear();
      const std::vector<Answer> told = answers_of(door, signal);
      REQUIRE(told.size() == native.size());
      for (std::size_t i = 0; i < told.size(); ++i) {
        CAPTURE(i);
        CHECK(told[i] == native[i]);
      }
    }
  }
}

TEST_CASE("SIGTRAP is set and read back as any other signal is, and the kernel hears nothing of it") {
  World world;
  KernelSigaction before{}, after{};
  raw_sigaction(SIGTRAP, nullptr, &before);
  const std::vector<Answer> native = answers_of(&ask_kernel, SIGUSR1);  // it behaves as any does
  for (const Door door : {Door{&ask_libc}, Door{&ask_gate}}) {
    world.clear();
    CHECK(answers_of(door, SIGTRAP) == native);
    const KernelSigaction act{kFirst, SA_RESETHAND | SA_ONSTACK, 0, kUser2 | kTrapBit};
    CHECK(door(SIGTRAP, &act).result == 0);
    CHECK(g_handlers.handler[SIGTRAP] == kFirst);
    CHECK(g_handlers.trap_flags == (SA_RESETHAND | SA_ONSTACK));
    CHECK(g_handlers.trap_mask == (kUser2 | kTrapBit));
    raw_sigaction(SIGTRAP, nullptr, &after);
    CHECK(after.handler == before.handler);
  }
}

TEST_CASE("the kernel is given ubp_signal_entry, with SA_SIGINFO and without SIGTRAP; the table says the rest") {
  World world;
  for (const Door door : {Door{&ask_libc}, Door{&ask_gate}}) {
    const KernelSigaction act{kFirst, SA_ONSTACK | SA_NODEFER, 0, kUser2 | kTrapBit};
    CHECK(door(SIGUSR1, &act).result == 0);
    KernelSigaction kernel{};
    raw_sigaction(SIGUSR1, nullptr, &kernel);
    CHECK(kernel.handler == entry_address());
    CHECK((kernel.flags & ~kRestorer) == (SA_ONSTACK | SA_NODEFER | SA_SIGINFO));
    CHECK(kernel.mask == kUser2);
    check_noted(SIGUSR1, {kFirst, true, false, true});

    const KernelSigaction ignored{kIgnore, 0, 0, kTrapBit};
    CHECK(door(SIGUSR1, &ignored).result == 0);
    raw_sigaction(SIGUSR1, nullptr, &kernel);
    CHECK(kernel.handler == kIgnore);
    CHECK(kernel.mask == 0);
    world.clear();
  }
}

TEST_CASE("numbers that are no signal's, and signals that have no handler") {
  World world;
  const KernelSigaction act{kFirst, SA_ONSTACK, 0, kTrapBit};
  for (const int signal : {0, -1, 65, 1000, SIGKILL, SIGSTOP}) {
    CAPTURE(signal);
    for (const KernelSigaction* wanted : {&act, static_cast<const KernelSigaction*>(nullptr)}) {
      const Answer native = ask_kernel(signal, wanted);
      CHECK(ask_libc(signal, wanted) == native);
      CHECK(ask_gate(signal, wanted) == native);
      if (wanted != nullptr) CHECK(native.result == -EINVAL);
    }
    if (signal > 0 && signal <= 64) check_noted(static_cast<std::uint64_t>(signal), {});  // it was taken back
  }
  CHECK(ask_libc(33, &act).result == -EINVAL);  // libc keeps this one for itself
  check_noted(33, {});
}

TEST_CASE("what the kernel refuses leaves the table as it was") {
  World world;
  const KernelSigaction first{kFirst, SA_ONSTACK | SA_SIGINFO, 0, kTrapBit}, second{kSecond, 0, 0, 0};
  begin_change(SIGUSR1, &first, true);
  const DispositionChange change = begin_change(SIGUSR1, &second, true);
  check_noted(SIGUSR1, {kSecond, false, false, false});  // before the kernel knows: the signal may come at once
  take_back(change);
  check_noted(SIGUSR1, {kFirst, true, true, true});
}

TEST_CASE("at the gate, pointers are the application's: bad ones are told as the kernel tells them") {
  World world;
  const KernelSigaction act{kFirst, 0, 0, 0};
  void* const bad = reinterpret_cast<void*>(8);
  for (const int signal : {SIGUSR1, SIGTRAP}) {
    CAPTURE(signal);
    const auto number = static_cast<std::uint64_t>(signal);
    CHECK(ask_gate(number, bad, nullptr) == -EFAULT);
    CHECK(g_handlers.handler[number] == 0);
    CHECK(ask_gate(number, &act, nullptr, 16) == -EINVAL);  // the size of a set comes first
    CHECK(ask_gate(number, bad, nullptr, 16) == -EINVAL);
    CHECK(g_handlers.handler[number] == 0);
    CHECK(ask_gate(number, &act, bad) == -EFAULT);  // written last: the change is made
    CHECK(g_handlers.handler[number] == kFirst);
    CHECK(ask_gate(number, nullptr, bad) == -EFAULT);
    CHECK(ask_gate(number, nullptr, nullptr) == 0);
  }
  CHECK(ask_gate(65, bad, nullptr) == -EFAULT);  // the pointer before the number
  CHECK(ask_gate(65, nullptr, bad) == -EINVAL);  // and the number before what is written
}

TEST_CASE("at the gate, a signal's number is an int: the register's upper half says nothing") {
  World world;
  constexpr std::uint64_t kHigh = std::uint64_t{0xabcd} << 32;
  const KernelSigaction act{kFirst, 0, 0, 0};
  KernelSigaction before{}, after{};
  raw_sigaction(SIGTRAP, nullptr, &before);
  CHECK(ask_gate(kHigh | SIGTRAP, &act, nullptr) == 0);
  raw_sigaction(SIGTRAP, nullptr, &after);
  CHECK(after.handler == before.handler);
  CHECK(g_handlers.handler[SIGTRAP] == kFirst);
  CHECK(ask_gate(kHigh | SIGUSR1, &act, nullptr) == 0);
  raw_sigaction(SIGUSR1, nullptr, &after);
  CHECK(after.handler == entry_address());
}

TEST_CASE("at the gate, the default is guarded where it ends the process, and reads back as the default") {
  World world;
  const KernelSigaction first{kFirst, SA_SIGINFO, 0, kTrapBit}, none{kDefault, 0, 0, 0};
  for (const int signal : {SIGSEGV, SIGUSR1, SIGCHLD}) {
    CAPTURE(signal);
    CHECK(ask_gate(signal, &first).result == 0);
    CHECK(ask_gate(signal, &none) == Answer{0, kFirst, SA_SIGINFO, kTrapBit});
    KernelSigaction kernel{};
    raw_sigaction(signal, nullptr, &kernel);
    CHECK(kernel.handler == (signal == SIGCHLD ? kDefault : entry_address()));
    if (signal != SIGCHLD) {
      CHECK(kernel.flags == guard_action().flags);
      check_noted(static_cast<std::uint64_t>(signal), {});
    }
    CHECK(ask_gate(signal, nullptr) == Answer{0, kDefault, 0, 0});
  }
}

TEST_CASE("a vfork child sets its own dispositions in the kernel, and leaves its parent's table") {
  World world;
  const KernelSigaction first{kFirst, SA_ONSTACK, 0, kTrapBit}, second{kSecond, SA_RESTART, 0, kUser2};
  for (const Door door : {Door{&ask_libc}, Door{&ask_gate}}) {
    world.clear();
    g_process.tasks.pid = static_cast<std::uint32_t>(getpid());
    CHECK(door(SIGUSR1, &first).result == 0);
    CHECK(door(SIGTRAP, &first).result == 0);
    g_process.tasks.pid += 1;  // from here on this process is not the one that the table belongs to
    CHECK(door(SIGUSR1, &second).result == 0);
    CHECK(door(SIGUSR1, nullptr) == Answer{0, kSecond, SA_RESTART, kUser2});
    check_noted(SIGUSR1, {kFirst, true, false, true});
    CHECK(door(SIGTRAP, &second) == Answer{0, kFirst, SA_ONSTACK, kTrapBit});
    CHECK(g_handlers.handler[SIGTRAP] == kFirst);
  }
}

TEST_CASE("ubp_signal_entry itself, put back by whoever read it from the kernel, stands for the handler that it did") {
  World world;
  const KernelSigaction first{kFirst, 0, 0, 0}, entry{entry_address(), SA_SIGINFO, 0, 0};
  for (const Door door : {Door{&ask_libc}, Door{&ask_gate}}) {
    CHECK(door(SIGUSR1, &first).result == 0);
    CHECK(door(SIGUSR1, &entry).result == 0);
    CHECK(g_handlers.handler[SIGUSR1] == kFirst);
    CHECK(door(SIGUSR1, nullptr).handler == kFirst);
    world.clear();
  }
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
TEST_CASE("signal() and its relatives answer as libc's do") {
  using Handler = void (*)(int);
  using Set = Handler (*)(int, Handler);
  using Answers = std::vector<std::uintptr_t>;
  World world;
  const auto first = reinterpret_cast<Handler>(kFirst), second = reinterpret_cast<Handler>(kSecond);
  const auto answers = [&](Set set, int signal) {
    Answers told;
    for (const Handler handler : {first, second, SIG_IGN, first, SIG_DFL, SIG_ERR, second, SIG_DFL}) {
      told.push_back(reinterpret_cast<std::uintptr_t>(set(signal, handler)));
    }
    return told;
  };
  for (const Set set : {Set{&::signal}, Set{&ssignal}, Set{&sysv_signal}, Set{&sigset}}) {
    for (const int signal : {SIGUSR1, SIGCHLD, SIGKILL, 0, 65}) {
      CAPTURE(signal);
      signals::g_active = false;
      const Answers native = answers(set, signal);
      signals::g_active = true;
      CHECK(answers(set, signal) == native);
      world.clear();
    }
    signals::g_active = false;
    const Answers native = answers(set, SIGUSR1);
    signals::g_active = true;
    CHECK(answers(set, SIGTRAP) == native);
    world.clear();
  }
  signal(SIGUSR1, first);
  KernelSigaction kernel{};
  raw_sigaction(SIGUSR1, nullptr, &kernel);
  CHECK(kernel.handler == entry_address());
  CHECK(sigignore(SIGUSR1) == 0);
  const bool was_ignored = signal(SIGUSR1, SIG_DFL) == SIG_IGN;
  CHECK(was_ignored);
}
