// What a handler is shown when it interrupted UBP: every range and every slot position, on fabricated frames and
// without a single signal. Detours: detour_test.cpp.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/trap/fabricated.h"

using namespace ubp;
using namespace ubp::trap;

TEST_CASE("application code is left alone") {
  World world;
  Frame frame;
  frame.uc.rip = 0x403333;
  translate(&frame.uc, &frame.info);
  CHECK(frame.uc.rip == 0x403333);
  CHECK(frame.return_address == 0xdead);
}

TEST_CASE("in a slot, not executed: the probepoint's address, and the hit goes on when the handler returns") {
  World world;
  Frame frame;
  frame.uc.rip = world.slot();
  translate(&frame.uc, &frame.info);
  CHECK(frame.uc.rip == kOrigin);
  CHECK(frame.uc.reserved[0] == kOrigin);
  CHECK(frame.uc.reserved[1] == kConsumed);  // or it would not be in a slot
  CHECK(frame.return_address == kResume);
}

TEST_CASE("where the gate's clone3 is made: the pointer and the mask are the application's again") {
  World world;
  Cloning cloning{};
  cloning.rdi = 0x7000;
  cloning.mask = 0x42;
  for (const bool is_executed : {false, true}) {
    CAPTURE(is_executed);
    Frame frame;
    frame.uc.rdi = reinterpret_cast<std::uint64_t>(cloning.args);
    frame.uc.mask = ~std::uint64_t{0};
    frame.uc.rax = is_executed ? 0 : SYS_clone3;  // in the child, whose parent comes back for it
    cloning.rest = 1;
    frame.uc.rip = world.permanent() + xol::kCloneOffset + (is_executed ? 2 : 0);
    translate(&frame.uc, &frame.info);
    CHECK(frame.uc.rdi == 0x7000);
    CHECK(frame.uc.mask == 0x42);
    CHECK(frame.uc.rip == (is_executed ? kSystem + 2 : kSystem));
    CHECK(frame.return_address == (is_executed ? 0xdead : kResume));
    CHECK(cloning.rest == (is_executed ? 1 : 0));
    if (is_executed) CHECK(frame.uc.rcx == kSystem + 2);
  }
}

TEST_CASE("in a slot's tail: executed, the next original address, nothing to go on with") {
  World world;
  Frame frame;
  frame.uc.rip = world.slot() + 3;
  translate(&frame.uc, &frame.info);
  CHECK(frame.uc.rip == kOrigin + 3);
  CHECK(frame.return_address == 0xdead);
}

TEST_CASE("a slot that holds nothing is not translated") {
  World world;
  Frame frame;
  frame.uc.rip = 0x10000000;  // block 0 holds nothing
  translate(&frame.uc, &frame.info);
  CHECK(frame.uc.rip == 0x10000000);
}

TEST_CASE("fault addresses that name a slot name the probepoint instead") {
  World world;
  for (const int signal : {SIGILL, SIGFPE}) {
    Frame frame;
    frame.uc.rip = world.slot();
    frame.info.si_signo = signal;
    frame.info.si_code = 1;
    frame.info.si_addr = reinterpret_cast<void*>(world.slot());
    translate(&frame.uc, &frame.info);
    CHECK(frame.info.si_addr == reinterpret_cast<void*>(kOrigin));
  }
  Frame data;  // a data address stays
  data.uc.rip = world.slot();
  data.info.si_signo = SIGSEGV;
  data.info.si_code = 1;
  data.info.si_addr = reinterpret_cast<void*>(0x1234);
  translate(&data.uc, &data.info);
  CHECK(data.info.si_addr == reinterpret_cast<void*>(0x1234));
}

TEST_CASE("a system call's slot: before, after, and after the fix-up of rcx") {
  World world;
  Frame before, after, fixed;
  before.uc.rip = world.permanent();
  translate(&before.uc, &before.info);
  CHECK(before.uc.rip == kSystem);
  CHECK(before.return_address == kResume);
  after.uc.rip = world.permanent() + 2;
  after.uc.rcx = world.permanent() + 2;
  translate(&after.uc, &after.info);
  CHECK(after.uc.rip == kSystem + 2);
  CHECK(after.uc.rcx == kSystem + 2);
  fixed.uc.rip = world.permanent() + 12;
  fixed.uc.rcx = 99;
  translate(&fixed.uc, &fixed.info);
  CHECK(fixed.uc.rip == kSystem + 2);
  CHECK(fixed.uc.rcx == 99);
}

TEST_CASE("the trap path before it counted: back to the int3") {
  World world;
  for (const std::uint64_t rip : {address_of(&ubp_trap_entry_r15), code_of(&ubp_trap_decide)}) {
    Frame hit, handler;
    interrupt(handler, hit, rip);
    translate(&handler.uc, &handler.info);
    CHECK(handler.uc.rip == kOrigin);
    CHECK(handler.return_address == 0xdead);  // it traps again and counts then
    check_copied(handler);
  }
  Frame hit, handler;  // at the very first instruction the frame is in rdx
  interrupt(handler, hit, address_of(&ubp_trap_entry));
  handler.uc.rdx = handler.uc.r15;
  handler.uc.r15 = 0;
  translate(&handler.uc, &handler.info);
  CHECK(handler.uc.rip == kOrigin);
}

TEST_CASE("another's SIGTRAP is never abandoned") {
  World world;
  Frame hit, handler;
  interrupt(handler, hit, address_of(&ubp_trap_entry_r15));
  hit.info.si_code = SI_USER;
  translate(&handler.uc, &handler.info);
  CHECK(handler.uc.rip == address_of(&ubp_trap_entry_r15));
  Frame foreign, second;  // an int3 of the application's own
  interrupt(second, foreign, code_of(&ubp_trap_decide));
  foreign.uc.rip = 0x409001;
  translate(&second.uc, &second.info);
  CHECK(second.uc.rip == code_of(&ubp_trap_decide));
}

TEST_CASE("the trap path after it counted: the hit goes on without a second count") {
  World world;
  for (const std::uint64_t rip : {address_of(&ubp_trap_counted), code_of(&ubp_trap_displace)}) {
    Frame hit, handler;
    interrupt(handler, hit, rip);
    translate(&handler.uc, &handler.info);
    CHECK(handler.uc.rip == kOrigin);
    CHECK(handler.uc.rsp == 0x7ffe1000);
    CHECK(handler.return_address == kResume);
    check_copied(handler);
  }
}

TEST_CASE("an emulated instruction that has stored is shown as executed; a slot's is not") {
  World world;
  for (const bool emulated : {false, true}) {
    for (const bool last : {false, true}) {
      Frame hit, handler;
      interrupt(handler, hit, last ? address_of(&ubp_trap_iret) : address_of(&ubp_trap_stored));
      continuation(&hit.uc).is_emulated = emulated;
      if (last) {  // at IRETQ all registers are the application's; the frame is found through rsp
        handler.uc.rsp = handler.uc.r15 + static_cast<std::uint64_t>(std::int64_t{UBP_IRET_OFFSET});
        handler.uc.r15 = 0xf15;
      }
      translate(&handler.uc, &handler.info);
      CHECK(handler.uc.rip == (emulated ? 0x405000 : kOrigin));
      CHECK(handler.uc.rsp == (emulated ? 0x7ffe0ff8 : 0x7ffe1000));
      CHECK(handler.uc.rcx == (emulated ? 4 : 5));
      CHECK(handler.return_address == (emulated ? 0xdead : kResume));
      check_copied(handler);
    }
  }
}

TEST_CASE("a handler that is returning to a hit can itself be interrupted") {
  World world;
  Frame hit, handler;
  interrupt(handler, hit, address_of(&ubp_resume_restorer_r15));
  hit.uc.rip = hit.uc.reserved[0] = kOrigin;
  hit.uc.reserved[1] = kConsumed;
  translate(&handler.uc, &handler.info);
  CHECK(handler.uc.rip == kOrigin);
  CHECK(handler.uc.reserved[0] == kOrigin);
  CHECK(handler.uc.reserved[1] == kConsumed);
  CHECK(handler.return_address == kResume);

  Frame moved, second;  // the handler has moved the thread: what becomes of the hit is still to be seen
  interrupt(second, moved, code_of(&ubp_trap_resume));
  moved.uc.rip = 0x401003;
  moved.uc.reserved[0] = kOrigin;
  moved.info.si_signo = SIGUSR1;
  translate(&second.uc, &second.info);
  CHECK(second.uc.rip == 0x401003);
  CHECK(second.uc.reserved[0] == kOrigin);
  CHECK(second.return_address == kResume);

  Frame faulted, third;  // it has skipped the instruction that faulted: no hit to go on with
  interrupt(third, faulted, code_of(&ubp_trap_resume));
  faulted.uc.rip = 0x401003;
  faulted.uc.reserved[0] = kOrigin;
  faulted.info.si_signo = SIGSEGV;
  faulted.info.si_code = SEGV_MAPERR;
  translate(&third.uc, &third.info);
  CHECK(third.uc.rip == 0x401003);
  CHECK(third.return_address == 0xdead);
}

TEST_CASE("handlers that interrupt each other before either began start one after the other, innermost first") {
  World world;
  g_handlers.handler[SIGUSR1] = 0x404000;
  g_handlers.handler[SIGUSR2] = 0x406000;
  Frame slot, first, second;
  slot.info.si_signo = SIGUSR1;
  slot.uc.rip = world.slot();  // interrupted by a handler whose entry (first) was interrupted (second)
  first.info.si_signo = SIGUSR2;
  first.uc.rip = address_of(&ubp_signal_entry);
  first.uc.rdx = reinterpret_cast<std::uint64_t>(&slot.uc);
  second.uc.rip = code_of(&ubp_signal_prepare);
  second.uc.r15 = reinterpret_cast<std::uint64_t>(&first.uc);
  CHECK(settle(&second.uc) == &second.uc);
  CHECK(slot.uc.rip == kOrigin);
  CHECK(slot.return_address == kResume);
  CHECK(first.uc.rip == 0x404000);
  CHECK(first.uc.rdi == SIGUSR1);
  CHECK(first.uc.rdx == reinterpret_cast<std::uint64_t>(&slot.uc));
  CHECK(second.uc.rip == 0x406000);
  CHECK(second.uc.rdi == SIGUSR2);
  CHECK(second.uc.rsi == reinterpret_cast<std::uint64_t>(&first.info));
  CHECK(second.uc.rsp == reinterpret_cast<std::uint64_t>(&first.return_address));
  g_handlers.handler[SIGUSR1] = g_handlers.handler[SIGUSR2] = 0;
}

// A handler of SIGUSR1 whose frame the kernel has put on UBP's stack.
struct OnOwnStack {
  World world;
  Frame frame;
  alignas(64) std::array<std::uint8_t, 8192> application{};
  alignas(64) std::array<std::uint8_t, 4096> alternate{};

  OnOwnStack() {
    // Ends where the frame does: what stands behind is the application's.
    g_process.tasks.own_stack_bytes = 65536;
    g_process.tasks.stacks =
        reinterpret_cast<std::uint64_t>(&frame + 1) - g_process.tasks.blocks * g_process.tasks.own_stack_bytes;
    g_handlers.handler[SIGUSR1] = 0x404000;
    frame.info.si_signo = SIGUSR1;
    frame.fp[100] = 0x77;
    frame.uc.rip = 0x1234;
    frame.uc.rsp = top();
  }
  ~OnOwnStack() {
    g_handlers.handler[SIGUSR1] = 0;
    g_handlers.on_stack = 0;
    t_thread.app_stack = {0, 0};
  }
  std::uint64_t top() const { return reinterpret_cast<std::uint64_t>(application.data() + application.size()) - 4096; }

  void check_moved_below(std::uint64_t limit) {
    Context* moved = settle(&frame.uc);
    CHECK(reinterpret_cast<std::uint64_t>(moved->fpstate) + 512 <= limit);
    CHECK(reinterpret_cast<std::uint64_t>(moved->fpstate) + 512 > limit - 64);
    CHECK(reinterpret_cast<std::uint64_t>(moved->fpstate) % 64 == 0);
    CHECK(reinterpret_cast<std::uint64_t>(moved) % 16 == 0);
    CHECK(moved->return_address() == 0xdead);
    CHECK(moved->rip == 0x1234);
    CHECK(moved->info()->si_signo == SIGUSR1);
    CHECK(moved->fpstate[100] == 0x77);
    CHECK(frame.uc.fpstate == frame.fp.data());  // the original stays: whoever interrupts begins again
  }
};

TEST_CASE("a handler without SA_ONSTACK leaves UBP's stack for the interrupted one, below the red zone") {
  OnOwnStack on;
  on.check_moved_below(on.top() - 128);
}

TEST_CASE("a handler with SA_ONSTACK leaves UBP's stack for the application's alternate one") {
  OnOwnStack on;
  set_bit(g_handlers.on_stack, SIGUSR1, true);
  t_thread.app_stack = {reinterpret_cast<std::uint64_t>(on.alternate.data()), on.alternate.size()};
  on.check_moved_below(t_thread.app_stack.base + t_thread.app_stack.size);
  on.frame.uc.rsp = t_thread.app_stack.base + 4000;  // already on it
  on.check_moved_below(on.frame.uc.rsp - 128);
}

TEST_CASE("a handler with SA_ONSTACK in a thread without alternate stack leaves for the interrupted one") {
  OnOwnStack on;
  set_bit(g_handlers.on_stack, SIGUSR1, true);
  on.check_moved_below(on.top() - 128);
}

TEST_CASE("translating twice is translating once") {
  World world;
  Frame frame;
  frame.uc.rip = world.slot();
  translate(&frame.uc, &frame.info);
  translate(&frame.uc, &frame.info);
  CHECK(frame.uc.rip == kOrigin);
  CHECK(frame.return_address == kResume);
}

TEST_CASE("a state whose block is no area's ends the process: nothing is written outside the slots") {
  World world;
  for (const bool in_trap_path : {false, true}) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      signal(SIGABRT, SIG_DFL);  // doctest has a handler of its own
      close(STDERR_FILENO);
      if (in_trap_path) ubp_trap_broken("", 0);
      TaskState* const task = g_process.tasks.state(1);
      task->block = g_process.tasks.blocks;
      own_slot(task, 0, g_process.table.points[0]);
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGABRT);
  }
}
