// SIGTRAPs that are no probepoint's: what each is taken for, and what becomes of it, on made-up frames.
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/trap/foreign.h"
#include "tests/trap/fabricated.h"

using namespace ubp;
using namespace ubp::trap;

namespace {

// Code of the program's, as far as anybody looks at it.
alignas(64) const std::uint8_t kCode[64] = {0x90, 0xcc, 0x90, 0xcd, 0x03, 0x90, 0x0f, 0x05};
std::uint64_t behind(int offset) { return reinterpret_cast<std::uint64_t>(kCode + offset); }
const std::uint64_t kBehindInt3 = behind(2), kBehindInt3OfTwoBytes = behind(5), kBehindSystemCall = behind(8);

constexpr std::uint64_t kIgnore = 1;

// A SIGTRAP of the program's, and where it stood.
struct ForeignFrame : Frame {
  ForeignFrame(int code, std::uint64_t rip, std::uint64_t trapno) {
    info.si_signo = SIGTRAP;
    info.si_code = code;
    uc.rip = rip;
    uc.rsp = 0x7ffe1000;
    uc.trapno = trapno;
    uc.mask = kHitMask;
  }
  ForeignTrap kind(bool is_consuming = false) const { return foreign_trap_of(g_process, info, uc, is_consuming); }
  Answer pass() { return ubp_trap_foreign(&info, &uc); }
};

ForeignFrame own_int3() { return {SI_KERNEL, kBehindInt3, kBreakpointException}; }
ForeignFrame killed() { return {SI_USER, behind(1), kBreakpointException}; }  // the thread's last trap was a hit

}  // namespace

TEST_CASE(
    "what a SIGTRAP is: the instruction before it and the processor's exception say it, its code alone does not") {
  World world;
  const struct {
    const char* what;
    int code;
    std::uint64_t rip, trapno;
    ForeignTrap kind;
  } kCases[] = {
      {"int3", SI_KERNEL, kBehindInt3, 3, ForeignTrap::kCaused},
      {"int $3", SI_KERNEL, kBehindInt3OfTwoBytes, 3, ForeignTrap::kCaused},
      {"an int3 that cannot be read", SI_KERNEL, 0x1001, 3, ForeignTrap::kCaused},
      {"a single step", TRAP_TRACE, behind(1), 1, ForeignTrap::kCaused},
      {"a watchpoint", TRAP_HWBKPT, behind(1), 1, ForeignTrap::kCaused},
      {"int1", TRAP_BRKPT, behind(1), 1, ForeignTrap::kCaused},
      {"a performance event", 6, behind(1), 14, ForeignTrap::kCaused},
      {"kill", SI_USER, kBehindInt3, 3, ForeignTrap::kSent},
      {"tgkill", SI_TKILL, kBehindSystemCall, 3, ForeignTrap::kSent},
      {"sigqueue", SI_QUEUE, kBehindSystemCall, 3, ForeignTrap::kSent},
      {"a timer", SI_TIMER, behind(1), 1, ForeignTrap::kSent},
      {"forged: an int3's code, behind a system call", SI_KERNEL, kBehindSystemCall, 3, ForeignTrap::kSent},
      {"forged: an int3's code, and the last exception was a page fault", SI_KERNEL, kBehindInt3, 14,
       ForeignTrap::kSent},
      {"forged: a step's code", TRAP_TRACE, kBehindSystemCall, 3, ForeignTrap::kSent},
      {"forged: a watchpoint's code", TRAP_HWBKPT, kBehindSystemCall, 14, ForeignTrap::kSent},
  };
  for (const auto& made : kCases) {
    CAPTURE(made.what);
    CHECK(ForeignFrame(made.code, made.rip, made.trapno).kind() == made.kind);
  }
}

TEST_CASE("what a SIGTRAP is: those that are the runtime's own") {
  World world;
  ForeignFrame queued(SI_QUEUE, behind(1), 3);
  CHECK(queued.kind() == ForeignTrap::kSent);
  queued.info.si_value.sival_ptr = reinterpret_cast<void*>(UBP_ENTRY_MARK);
  CHECK(queued.kind() == ForeignTrap::kOwn);
  queued.info.si_code = SI_USER;  // control: nobody's but sigqueue's
  CHECK(queued.kind() == ForeignTrap::kSent);

  ForeignFrame put_off(SI_KERNEL, code_of(&ubp_trap_deliver) + 1, 3);
  CHECK(put_off.kind() == ForeignTrap::kPutOff);
  put_off.info.si_code = SI_USER;  // control: a kill that comes there
  CHECK(put_off.kind() == ForeignTrap::kSent);

  ForeignFrame step(TRAP_TRACE, behind(1), 1);
  CHECK(step.kind(true) == ForeignTrap::kHiddenStep);
  CHECK(own_int3().kind(true) == ForeignTrap::kCaused);  // a consumer's own int3 is none of that
}

TEST_CASE("what becomes of a SIGTRAP") {
  for (const bool is_caused : {false, true}) {
    CAPTURE(is_caused);
    CHECK(fate_of(is_caused, false, kHandlerAt) == TrapFate::kHandler);
    CHECK(fate_of(is_caused, false, 0) == TrapFate::kDeath);
    CHECK(fate_of(is_caused, false, kIgnore) == (is_caused ? TrapFate::kDeath : TrapFate::kIgnored));
    for (const std::uint64_t handler : {std::uint64_t{0}, kIgnore, kHandlerAt}) {
      CAPTURE(handler);
      CHECK(fate_of(is_caused, true, handler) == (is_caused ? TrapFate::kDeath : TrapFate::kPending));
    }
  }
}

TEST_CASE("the application's handler of SIGTRAP: its frame, its mask, for once if it asked so") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kHandlerAt;
  g_handlers.trap_mask = bit_of(SIGUSR2) | kTrapBit;
  for (const bool is_int3 : {true, false}) {
    for (const std::uint64_t flags : {std::uint64_t{SA_RESETHAND}, std::uint64_t{0}}) {
      g_handlers.trap_flags = flags;
      g_handlers.handler[SIGTRAP] = kHandlerAt;
      sys::set_signal_mask(bit_of(SIGHUP));
      ForeignFrame frame = is_int3 ? own_int3() : killed();
      frame.uc.fpstate = frame.fp.data();
      const std::uint64_t rip = frame.uc.rip;
      const Answer answer = frame.pass();
      CHECK(answer.handler == kHandlerAt);
      CHECK(answer.frame == &frame.uc);
      CHECK(frame.uc.rip == rip);
      CHECK(frame.uc.mask == kHitMask);
      CHECK(frame.return_address == kResume);  // what it leaves of SIGTRAP in the mask is looked at
      CHECK(frame.uc.reserved[0] == 0);
      CHECK(KeptMask::present() == (bit_of(SIGHUP) | bit_of(SIGUSR2)));
      CHECK(g_handlers.handler[SIGTRAP] == (flags != 0 ? 0 : kHandlerAt));
    }
  }
}

TEST_CASE("a handler of SIGTRAP finds its own mask in the frame: SIGTRAP is in it where a wait has lent it") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kHandlerAt;
  ForeignFrame frame = own_int3();
  frame.uc.fpstate = frame.fp.data();
  frame.uc.mask = kHitMask | kTrapBit;
  CHECK(frame.pass().handler == kHandlerAt);
  CHECK(frame.uc.mask == (kHitMask | kTrapBit));
}

TEST_CASE("blocked, a SIGTRAP that was sent waits with all that it carries, and comes again when it is unblocked") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kHandlerAt;
  for (const bool in_runtime : {false, true}) {  // else by the application's mask
    CAPTURE(in_runtime);
    sys::set_signal_mask(bit_of(SIGHUP));
    ForeignFrame frame(SI_QUEUE, behind(1), 3);
    frame.info.si_value.sival_int = 99;
    t_thread.app_trap = {};
    t_thread.app_trap.is_blocked = !in_runtime;
    t_thread.in_runtime = in_runtime;
    const Answer answer = frame.pass();
    CHECK(answer.handler == 0);
    CHECK(answer.frame == &frame.uc);
    CHECK(t_thread.app_trap.is_pending);
    CHECK(frame.return_address == 0xdead);
    CHECK(KeptMask::present() == bit_of(SIGHUP));

    sys::set_signal_mask(~std::uint64_t{0});
    siginfo_t sent{};
    send_pending_trap();
    if (!in_runtime) CHECK(KeptMask::take(sent) == 0);  // still blocked
    t_thread.app_trap.is_blocked = false;
    send_pending_trap();
    send_pending_trap();  // once
    CHECK(KeptMask::take(sent) == SIGTRAP);
    CHECK(sent.si_value.sival_int == 99);
    CHECK(KeptMask::take(sent) == 0);
  }
}

TEST_CASE("a SIGTRAP that was sent waits for a consumer as other signals do; one more waits for that one") {
  KeptMask kept;
  World world;
  alignas(64) static std::array<std::uint8_t, runtime::kDetourSaveBytes> save;
  g_handlers.handler[SIGTRAP] = kHandlerAt;
  g_process.tasks.own_stack_bytes = 65536;
  TaskState* const task = world.own_task();
  ForeignFrame first(SI_QUEUE, behind(1), 3), second(SI_QUEUE, behind(1), 3);
  first.info.si_value.sival_int = 1;
  second.info.si_value.sival_int = 2;
  task->consumer = 1;
  task->consumer_frame = first.uc.rsp + 4096;
  task->consumer_stack = reinterpret_cast<std::uint64_t>(save.data());
  CHECK(first.pass().handler == 0);
  CHECK(task->has_deferred == 1);
  CHECK(task->deferred.si_value.sival_int == 1);
  CHECK(first.uc.mask == (kHitMask | kHoldable));
  CHECK_FALSE(t_thread.app_trap.is_pending);
  CHECK(second.pass().handler == 0);
  CHECK(t_thread.app_trap.is_pending);
  CHECK(t_thread.app_trap.info.si_value.sival_int == 2);

  task->consumer = 0;  // they have run: it comes as it would have
  sys::set_signal_mask(kTrapBit);
  ForeignFrame end(SI_KERNEL, code_of(&ubp_trap_deliver) + 1, 3);
  end.uc.rsi = reinterpret_cast<std::uint64_t>(task);
  CHECK(end.pass().handler == 0);
  CHECK(task->has_deferred == 0);
  siginfo_t sent{};
  CHECK(KeptMask::take(sent) == SIGTRAP);
  CHECK(sent.si_value.sival_int == 1);
}

TEST_CASE("ignored, a SIGTRAP that was sent leaves the thread as it was") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kIgnore;
  ForeignFrame frame = killed();
  frame.uc.fpstate = frame.fp.data();
  const Context before = frame.uc;
  CHECK(frame.pass().handler == 0);
  CHECK(std::memcmp(&before, &frame.uc, sizeof before) == 0);
  CHECK_FALSE(t_thread.app_trap.is_pending);
}

TEST_CASE("what an int3 has lost to a SIGTRAP that was pending is executed again") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kIgnore;
  const auto rip_after = [](int code, std::uint64_t rip, std::uint64_t trapno) {
    ForeignFrame frame(code, rip, trapno);
    frame.pass();
    return frame.uc.rip;
  };
  CHECK(rip_after(SI_USER, kOrigin + 1, 3) == kOrigin);
  CHECK(rip_after(SI_USER, kSystem + 1, 3) == kSystem);
  CHECK(rip_after(SI_USER, kOrigin + 1, 14) == kOrigin + 1);  // it has executed no int3
  CHECK(rip_after(SI_USER, kOrigin, 3) == kOrigin);           // nor does one stand there
  CHECK(rip_after(SI_USER, kOrigin + 2, 3) == kOrigin + 2);
}

TEST_CASE("a SIGTRAP in a slot finds the handler at the original address") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGTRAP] = kHandlerAt;
  ForeignFrame frame(SI_USER, world.slot(), 3);
  frame.uc.fpstate = frame.fp.data();
  CHECK(frame.pass().handler == kHandlerAt);
  CHECK(frame.uc.rip == kOrigin);
  CHECK(frame.uc.reserved[0] == kOrigin);
  CHECK(frame.return_address == kResume);
}

namespace {

// What is the case in a child when a SIGTRAP has passed whose disposition is the default.
struct Dying {
  bool has_returned = false;  // it has not died in there
  std::uint64_t back = 0;     // bytes that RIP has gone back
  bool is_pending = false;    // the SIGTRAP has been sent again
  int death = 0;              // and of what the child dies when the frame returns
};
Dying die_of(ForeignFrame frame, bool is_blocked = false) {
  constexpr int kShared = MAP_SHARED | MAP_ANONYMOUS;
  auto* const seen = static_cast<Dying*>(mmap(nullptr, sizeof(Dying), PROT_READ | PROT_WRITE, kShared, -1, 0));
  REQUIRE(seen != MAP_FAILED);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    frame.uc.fpstate = frame.fp.data();
    t_thread.app_trap.is_blocked = is_blocked;
    const std::uint64_t rip = frame.uc.rip;
    frame.pass();
    seen->has_returned = true;
    seen->back = rip - frame.uc.rip;
    std::uint64_t pending = 0;
    sys::call4(SYS_rt_sigpending, reinterpret_cast<long>(&pending), 8);
    seen->is_pending = (pending & kTrapBit) != 0;
    sys::set_signal_mask(0);  // as the return from the frame does
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  Dying dying = *seen;
  munmap(seen, sizeof(Dying));
  dying.death = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return dying;
}

}  // namespace

TEST_CASE("the default: an int3 is executed again, natively; what was sent is sent again, wherever the thread stands") {
  World world;
  const Dying of_int3 = die_of(own_int3());
  CHECK(of_int3.has_returned);
  CHECK(of_int3.back == 1);
  CHECK_FALSE(of_int3.is_pending);
  CHECK(of_int3.death == 0);  // until it is executed
  CHECK(die_of({SI_KERNEL, kBehindInt3OfTwoBytes, 3}).back == 2);
  CHECK(die_of(own_int3(), true).back == 1);  // blocking it does not help
  const Dying of_kill = die_of(killed());
  CHECK(of_kill.has_returned);
  CHECK(of_kill.back == 0);
  CHECK(of_kill.is_pending);
  CHECK(of_kill.death == SIGTRAP);
  const Dying of_step = die_of({TRAP_TRACE, behind(1), 1});
  CHECK(of_step.back == 0);
  CHECK(of_step.death == SIGTRAP);
}

TEST_CASE("the default: a SIGTRAP with an int3's code that the program has queued itself kills, and repeats no call") {
  World world;
  const Dying forged = die_of({SI_KERNEL, kBehindSystemCall, 3});
  CHECK(forged.back == 0);
  CHECK(forged.death == SIGTRAP);
  const Dying blocked = die_of({SI_KERNEL, kBehindSystemCall, 3}, true);  // it waits, as any that is sent
  CHECK(blocked.has_returned);
  CHECK(blocked.back == 0);
  CHECK(blocked.death == 0);
}
