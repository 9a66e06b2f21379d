// Signals that come while a hit's consumers run: which wait, in what order they come then, and what their handlers
// find. On made-up frames; the signals that are sent again go through the kernel's own queue.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "runtime/trap/consume.h"
#include "tests/trap/fabricated.h"

using namespace ubp;
using namespace ubp::trap;

namespace {

constexpr int kFirstRealTime = 34;  // the first that libc leaves to programs
constexpr std::uint64_t kOther = 0x408000;

// A signal's frame, and what it carries.
struct SignalFrame : Frame {
  SignalFrame(int signal, std::uint64_t rsp, int value = 0) {
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_value.sival_int = value;
    uc.rip = 0x403333;
    uc.rsp = rsp;
    uc.mask = kHitMask;
  }
  Answer arrive() { return ubp_signal_prepare(&info, &uc); }
};

// This thread runs the consumers of a hit at kOrigin. Stacks are addresses alone.
class Consuming {
 public:
  KeptMask kept;
  World world;
  Frame hit;
  TaskState* task;

  Consuming() {
    g_process.tasks.stacks = 0x500000000000;
    g_process.tasks.own_stack_bytes = 65536;
    task = world.own_task();
    task->consumer = 1;
    task->consumer_frame = g_process.tasks.stack_of(1) + 32768;
    task->consumer_stack = reinterpret_cast<std::uint64_t>(save_.data());
    sys::set_signal_mask(kHoldable);  // no signal of a test takes effect by itself
    for (std::uint64_t signal = 1; signal <= 64; ++signal) g_handlers.handler[signal] = kHandlerAt;
  }
  ~Consuming() {
    for (const int signal : kChanged) sys::call4(SYS_rt_sigaction, signal, reinterpret_cast<long>(&kDefault), 0, 8);
  }
  // A stack pointer in the consumers' code.
  std::uint64_t inside() const { return task->consumer_frame - 512; }
  const runtime::DetourSave& save() const { return *reinterpret_cast<const runtime::DetourSave*>(save_.data()); }
  // What the kernel has of a signal of the application's.
  void set_action(int signal, std::uint64_t flags, std::uint64_t mask) {
    const KernelSigaction act{code_of(&ubp_signal_entry), flags | SA_SIGINFO | kRestorer, code_of(&ubp_trap_restorer),
                              mask};
    REQUIRE(sys::call4(SYS_rt_sigaction, signal, reinterpret_cast<long>(&act), 0, 8) == 0);
  }
  // The consumers have run: the trap by which the signal is delivered that waited.
  Answer deliver(Frame& trap) {
    interrupt(trap, hit, code_of(&ubp_trap_deliver) + 1);
    continuation(&hit.uc).consumed = kConsumed;
    trap.info.si_signo = SIGTRAP;
    trap.info.si_code = SI_KERNEL;
    trap.uc.rsi = reinterpret_cast<std::uint64_t>(task);
    task->consumer = 0;
    return ubp_trap_foreign(&trap.info, &trap.uc);
  }

  static constexpr int kChanged[] = {SIGUSR1, SIGUSR2, kFirstRealTime};

 private:
  static constexpr KernelSigaction kDefault{};
  alignas(64) std::array<std::uint8_t, runtime::kDetourSaveBytes> save_{};
};

}  // namespace

TEST_CASE("deferred: what an instruction raises, death, abort and libc's own do not wait; everything else does") {
  for (int signal = 1; signal <= 64; ++signal) {
    CAPTURE(signal);
    const bool is_instructions = signal == SIGTRAP || signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
                                 signal == SIGILL || signal == SIGSYS;
    const bool waits = !is_instructions && signal != SIGABRT && signal != 33;
    const bool is_survived = signal == SIGCHLD || signal == SIGCONT || signal == SIGURG || signal == SIGWINCH ||
                             signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU ||
                             signal == SIGKILL || signal == 32;  // no handler is ever asked for the last two
    const auto number = static_cast<std::uint64_t>(signal);
    CHECK(can_wait(number, kHandlerAt) == waits);
    CHECK(can_wait(number, 1) == waits);
    CHECK(can_wait(number, 0) == (waits && is_survived));
  }
}

TEST_CASE("deferred: the first signal is kept whole, and the thread goes on with what may wait blocked") {
  Consuming consuming;
  SignalFrame frame(SIGUSR1, consuming.inside(), 7);
  sys::set_signal_mask(0);
  const Answer answer = frame.arrive();
  CHECK(answer.handler == 0);
  CHECK(answer.frame == &frame.uc);
  CHECK(consuming.task->has_deferred == 1);
  CHECK(consuming.task->deferred.si_signo == SIGUSR1);
  CHECK(consuming.task->deferred.si_value.sival_int == 7);
  CHECK(consuming.save().mask == kHitMask);
  CHECK(frame.uc.mask == (kHitMask | kHoldable));
  CHECK((frame.uc.mask & kSynchronousSignals) == 0);  // a consumer's faults are its own
  CHECK(KeptMask::present() == (kHoldable & ~(bit_of(SIGKILL) | bit_of(SIGSTOP))));
  CHECK(frame.uc.rip == 0x403333);
  CHECK(frame.return_address == 0xdead);
}

TEST_CASE("deferred: none waits but what interrupts a consumer") {
  for (const int where : {0, 1, 2}) {
    CAPTURE(where);
    Consuming consuming;
    SignalFrame frame(SIGUSR1, consuming.inside());
    if (where == 0) consuming.task->consumer = 0;                                // between consumers and delivery
    if (where == 1) frame.uc.rsp = consuming.task->consumer_frame + 64;          // above: in the hit's own frame
    if (where == 2) t_thread.state = g_nobody.state, frame.uc.rsp = 0x7ffe1000;  // a thread that has no state
    CHECK(frame.arrive().handler == kHandlerAt);
    CHECK(consuming.task->has_deferred == 0);
    CHECK(frame.uc.mask == kHitMask);
  }
}

TEST_CASE("deferred: on a detour's stack, consumers are told by the task's own stack") {
  Consuming consuming;
  consuming.task->consumer = runtime::kDetourMark;
  consuming.task->consumer_frame = 0;
  SignalFrame inside(SIGUSR1, consuming.task->consumer_stack - 256), outside(SIGUSR1, 0x7ffe1000);
  CHECK(outside.arrive().handler == kHandlerAt);
  CHECK(inside.arrive().handler == 0);
  CHECK(consuming.task->has_deferred == 1);
}

TEST_CASE("deferred: a fault's handler runs at once, and finds the consumer's context") {
  Consuming consuming;
  SignalFrame fault(SIGSEGV, consuming.inside()), sent(SIGSEGV, consuming.inside()), end(SIGABRT, consuming.inside());
  fault.info.si_code = SEGV_MAPERR;
  for (SignalFrame* frame : {&fault, &sent, &end}) {
    CHECK(frame->arrive().handler == kHandlerAt);
    CHECK(frame->uc.rip == 0x403333);
  }
  CHECK(consuming.task->has_deferred == 0);
}

TEST_CASE("deferred: libc's SIGSETXID runs at once, on the frame as it is") {
  Consuming consuming;
  SignalFrame frame(33, consuming.inside());
  const Context before = frame.uc;
  CHECK(frame.arrive().handler == kHandlerAt);
  CHECK(std::memcmp(&before, &frame.uc, sizeof before) == 0);
  CHECK(frame.return_address == 0xdead);
  SignalFrame elsewhere(33, 0x7ffe1000);  // control: where no consumer runs, it is a handler like any other
  CHECK(elsewhere.arrive().handler == kHandlerAt);
  CHECK(elsewhere.return_address == kResume);
}

TEST_CASE("deferred: frames that the kernel had laid one on the other go back to its queue, which orders them") {
  Consuming consuming;
  const struct {
    int signal, value;
  } kArrive[] = {{SIGUSR2, 0},             // is kept: its handler would have begun first
                 {kFirstRealTime + 2, 1},  // these are sent again
                 {kFirstRealTime + 2, 2},
                 {kFirstRealTime, 3},
                 {kFirstRealTime + 2, 4},
                 {SIGUSR1, 5}};
  for (const auto& arriving : kArrive) {
    SignalFrame frame(arriving.signal, consuming.inside(), arriving.value);
    CHECK(frame.arrive().handler == 0);
    CHECK(frame.uc.mask == (kHitMask | kHoldable));
    CHECK(consuming.task->deferred.si_signo == SIGUSR2);
  }
  CHECK(consuming.save().mask == kHitMask);  // of the first
  std::vector<int> order;
  siginfo_t info{};
  while (KeptMask::take(info) != 0) order.push_back(info.si_value.sival_int);
  CHECK(order == std::vector<int>{5, 3, 1, 2, 4});  // the lowest number first, real-time ones as they were sent
}

TEST_CASE("deferred: where the kernel's queue is full a real-time signal comes all the same, without its value") {
  for (const bool is_full : {false, true}) {
    CAPTURE(is_full);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      Consuming consuming;
      SignalFrame first(SIGUSR2, consuming.inside()), second(kFirstRealTime, consuming.inside(), 42);
      first.arrive();
      const rlimit none{0, 0};
      if (is_full) setrlimit(RLIMIT_SIGPENDING, &none);
      second.arrive();
      siginfo_t info{};
      const bool has_come = KeptMask::take(info) == kFirstRealTime;
      _exit((has_come ? 1 : 0) | (info.si_value.sival_int == 42 ? 2 : 0));
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WEXITSTATUS(status) == (is_full ? 1 : 3));
  }
}

TEST_CASE("deferred: the handler is begun in the hit's own context, with the mask that the kernel would have set") {
  for (const std::uint64_t flags : {std::uint64_t{0}, std::uint64_t{SA_NODEFER}}) {
    CAPTURE(flags);
    Consuming consuming;
    consuming.set_action(SIGUSR1, flags, bit_of(SIGUSR2) | kTrapBit);
    SignalFrame waiting(SIGUSR1, consuming.inside(), 7);
    CHECK(waiting.arrive().handler == 0);
    Frame trap;
    const Answer answer = consuming.deliver(trap);
    CHECK(answer.handler == kHandlerAt);
    CHECK(answer.frame == &trap.uc);
    CHECK(trap.info.si_signo == SIGUSR1);
    CHECK(trap.info.si_value.sival_int == 7);
    CHECK(consuming.task->has_deferred == 0);
    CHECK(trap.uc.rip == kOrigin);
    CHECK(trap.uc.rsp == 0x7ffe1000);
    CHECK(trap.uc.reserved[0] == kOrigin);
    CHECK(trap.uc.reserved[1] == kConsumed);  // they have run, and do not again
    CHECK(trap.return_address == kResume);
    check_copied(trap);
    const std::uint64_t own = flags == 0 ? bit_of(SIGUSR1) : 0;
    CHECK(KeptMask::present() == (kHitMask | bit_of(SIGUSR2) | own));
  }
}

TEST_CASE("deferred: those that are pending come behind it: at its first instruction, or when its mask lets them") {
  for (const bool is_masked : {false, true}) {
    CAPTURE(is_masked);
    Consuming consuming;
    consuming.set_action(SIGUSR1, 0, is_masked ? bit_of(kFirstRealTime) : 0);
    SignalFrame waiting(SIGUSR1, consuming.inside()), later(kFirstRealTime, consuming.inside(), 3);
    waiting.arrive();
    later.arrive();
    g_handlers.handler[kFirstRealTime] = kOther;
    // Seen by who is called then: the kernel's part is done by a handler of the test's own.
    static int come;
    come = 0;
    struct sigaction act {};
    act.sa_handler = [](int) { ++come; };
    REQUIRE(sigaction(kFirstRealTime, &act, nullptr) == 0);
    Frame trap;
    CHECK(consuming.deliver(trap).handler == kHandlerAt);
    CHECK(come == (is_masked ? 0 : 1));
    sys::set_signal_mask(0);  // the handler has returned
    CHECK(come == 1);
  }
}

TEST_CASE("deferred: a handler that is no more when its signal is delivered leaves it to the kernel") {
  for (const std::uint64_t handler : {std::uint64_t{0}, std::uint64_t{1}}) {
    Consuming consuming;
    SignalFrame waiting(SIGUSR1, consuming.inside(), 7);
    waiting.arrive();
    g_handlers.handler[SIGUSR1] = handler;
    Frame trap;
    const Answer answer = consuming.deliver(trap);
    CHECK(answer.handler == 0);
    CHECK(answer.frame == &trap.uc);
    CHECK(trap.uc.rip == code_of(&ubp_trap_deliver) + 1);  // and the hit goes on
    CHECK(consuming.task->has_deferred == 0);
    siginfo_t info{};
    CHECK(KeptMask::take(info) == SIGUSR1);
    CHECK(info.si_value.sival_int == 7);
  }
}

TEST_CASE("deferred: a signal whose delivery a fault's handler has taken the thread from is sent again, once") {
  Consuming consuming;
  SignalFrame waiting(SIGUSR1, consuming.inside(), 7);
  waiting.arrive();
  Frame frame;  // a handler returns to the hit
  frame.uc.rip = frame.uc.reserved[0] = kOrigin;
  frame.uc.reserved[1] = kConsumed;
  frame.uc.rsp = 0x7ffe1000;
  siginfo_t info{};
  CHECK(ubp_trap_resume(&frame.uc) == 1);  // consumers still run: it comes at their end
  CHECK(consuming.task->has_deferred == 1);
  CHECK(KeptMask::take(info) == 0);
  consuming.task->consumer = 0;
  CHECK(ubp_trap_resume(&frame.uc) == 1);
  CHECK(consuming.task->has_deferred == 0);
  CHECK(KeptMask::take(info) == SIGUSR1);
  CHECK(info.si_value.sival_int == 7);
  CHECK(ubp_trap_resume(&frame.uc) == 1);
  CHECK(KeptMask::take(info) == 0);
}

TEST_CASE("a SIGSYS that was sent while the gate blocks SIGTRAP comes when the gate sets the mask") {
  Consuming consuming;
  consuming.task->consumer = 0;
  sys::set_signal_mask(kAllSignals | bit_of(SIGSYS));
  SignalFrame in_gate(SIGSYS, 0x7ffe1000, 5), elsewhere(SIGSYS, 0x7ffe1000, 6);
  in_gate.uc.mask |= kTrapBit;
  CHECK(elsewhere.arrive().handler == kHandlerAt);
  CHECK(in_gate.arrive().handler == 0);
  CHECK((in_gate.uc.mask & bit_of(SIGSYS)) != 0);
  siginfo_t info{};
  CHECK(KeptMask::take(info) == SIGSYS);
  CHECK(info.si_value.sival_int == 5);
}

TEST_CASE("a SIGSYS that a filter raises for the runtime's own call is that call's failure, and no handler's") {
  Consuming consuming;
  consuming.task->consumer = 0;
  constexpr int kSeccomp = 1;  // SYS_SECCOMP
  for (const bool is_own : {true, false}) {
    SignalFrame frame(SIGSYS, 0x7ffe1000);
    frame.info.si_code = kSeccomp;
    frame.info.si_addr = reinterpret_cast<void*>(is_own ? code_of(&ubp_trap_decide) : 0x403333);
    frame.uc.rax = SYS_gettid;
    CHECK(frame.arrive().handler == (is_own ? 0 : kHandlerAt));
    CHECK(frame.uc.rax == (is_own ? static_cast<std::uint64_t>(-38) : SYS_gettid));
  }
}
