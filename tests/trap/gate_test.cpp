// System calls at the gate, on made-up frames: what of each is the gate's, what the program is told, and what becomes
// of bad pointers. The kernel is asked the same where it can be. rt_sigaction's answers:
// tests/signals/sigaction_test.cpp.
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/trap/clone.h"
#include "tests/trap/fabricated.h"

extern "C" std::uint64_t ubp_trap_gate(ubp::trap::Context* uc, const ubp::xol::Displaced& point);

using namespace ubp;
using namespace ubp::trap;

namespace {

constexpr std::uint64_t kBad = 0x10;  // no address
constexpr std::uint64_t kBehind = kSystem + 2;

std::uint64_t pointer(const void* to) { return reinterpret_cast<std::uint64_t>(to); }

// A system call that is about to be made.
struct Call : Frame {
  explicit Call(long number, std::uint64_t rdi = 0, std::uint64_t rsi = 0, std::uint64_t rdx = 0,
                std::uint64_t r10 = 0) {
    uc.rax = static_cast<std::uint64_t>(number);
    uc.rdi = rdi, uc.rsi = rsi, uc.rdx = rdx, uc.r10 = r10;
    uc.rip = kSystem + 1;
    uc.rsp = 0x7ffe1000;
    uc.eflags = 0x246;
    uc.mask = kHitMask;
    uc.rcx = uc.r11 = 0xee;
  }
  // As a hit at kSystem's gate: where the thread goes on.
  std::uint64_t displace() {
    Continuation& next = continuation(&uc);
    next.kind = TrapKind::kHit;
    next.index = 1;
    next.origin = kSystem;
    next.consumed = kConsumed;
    next.is_mask_current = true;
    reinterpret_cast<void (*)(Context*)> (&ubp_trap_displace)(&uc);
    return next.rip;
  }
  long result() const { return static_cast<long>(uc.rax); }
};

struct GateWorld : World {
  KeptMask kept;
  GateWorld() { own_task(); }
};

bool is_behind_syscall(const Call& call) {
  return call.uc.rcx == kBehind && call.uc.r11 == call.uc.eflags;  // as SYSCALL leaves them
}

}  // namespace

TEST_CASE("gate: which system calls it has a part in") {
  const struct {
    long number;
    Gated part;
  } kCases[] = {
      {SYS_rt_sigprocmask, Gated::kMask}, {SYS_rt_sigaction, Gated::kDisposition},
      {SYS_execve, Gated::kExec},         {SYS_execveat, Gated::kExec},
      {SYS_clone, Gated::kClone},         {SYS_clone3, Gated::kClone3},
      {SYS_exit_group, Gated::kExit},     {SYS_vfork, Gated::kNothing},
      {SYS_fork, Gated::kNothing},        {SYS_exit, Gated::kThreadExit},
      {SYS_rt_sigreturn, Gated::kReturn}, {SYS_rt_sigsuspend, Gated::kNothing},
      {SYS_read, Gated::kNothing},        {-1, Gated::kNothing},
  };
  for (const auto& made : kCases) {
    CAPTURE(made.number);
    CHECK(gated_part(Call(made.number).uc) == made.part);
  }
  CHECK(gated_part(Call(SYS_arch_prctl, static_cast<std::uint64_t>(kSetFs)).uc) == Gated::kStorage);
  CHECK(gated_part(Call(SYS_arch_prctl, static_cast<std::uint64_t>(kGetFs)).uc) == Gated::kNothing);
  Call marked(SYS_rt_sigaction);  // another copy of UBP asks
  marked.uc.r8 = UBP_ENTRY_MARK;
  CHECK(gated_part(marked.uc) == Gated::kNothing);
}

TEST_CASE("gate: calls that it has no part in are made from their slot, as they are") {
  GateWorld world;
  for (const long number : {long{SYS_vfork}, long{SYS_rt_sigsuspend}, long{SYS_exit}, long{SYS_read}, long{SYS_fork}}) {
    CAPTURE(number);
    sys::set_signal_mask(bit_of(SIGHUP));
    Call call(number, kBad, kBad, kBad, kBad);
    const Context before = call.uc;
    CHECK(call.displace() == world.permanent());
    CHECK_FALSE(continuation(&call.uc).is_emulated);
    CHECK(continuation(&call.uc).is_mask_current);
    CHECK(std::memcmp(&before, &call.uc, sizeof before) == 0);
    CHECK(KeptMask::present() == bit_of(SIGHUP));
  }
  // Control: one that it has a part in is not.
  Call call(SYS_rt_sigprocmask, SIG_BLOCK, 0, 0, 8);
  CHECK(call.displace() == kBehind);
  CHECK(continuation(&call.uc).is_emulated);
  CHECK_FALSE(continuation(&call.uc).is_mask_current);
  CHECK(continuation(&call.uc).returns_in_user_mode == 0);  // rt_sigreturn sets the mask
}

TEST_CASE("gate, rt_sigreturn: the trap's frame becomes the program's, less SIGTRAP and the alternate stack") {
  GateWorld world;
  Thread& thread = this_thread();
  const bool was_blocked = thread.app_trap.is_blocked;
  Frame made;
  for (unsigned number = 0; number < 16; ++number) made.uc.general(number) = 0x1000 + number;
  made.uc.rip = 0x405000;
  made.uc.eflags = 0x202;
  made.uc.mask = bit_of(SIGTRAP) | bit_of(SIGUSR2);
  const Context before = made.uc;
  Call call(SYS_rt_sigreturn);
  call.uc.rsp = pointer(&made.uc);
  CHECK(call.displace() == 0x405000);
  CHECK(std::memcmp(&before, &made.uc, sizeof before) == 0);
  CHECK(call.uc.mask == bit_of(SIGUSR2));
  CHECK(thread.app_trap.is_blocked);
  CHECK(continuation(&call.uc).returns_in_user_mode == 0);
  CHECK(continuation(&call.uc).rsp == 0x1004);
  CHECK(continuation(&call.uc).rcx == 0x1001);
  CHECK((call.uc.r15 == 0x100f && call.uc.rax == 0x1000 && call.uc.fpstate == made.uc.fpstate));
  thread.app_trap.is_blocked = was_blocked;
  // No frame there: the kernel says so.
  Call bad(SYS_rt_sigreturn);
  bad.uc.rsp = kBad;
  CHECK(bad.displace() == world.permanent());
}

TEST_CASE(
    "gate, rt_sigprocmask: the program's mask changes as the kernel would change it, SIGTRAP for the program alone") {
  GateWorld world;
  const std::uint64_t all = ~std::uint64_t{0}, other = bit_of(SIGUSR1) | bit_of(SIGINT), none = 0;
  const std::uint64_t unblockable = bit_of(SIGKILL) | bit_of(SIGSTOP);
  for (const int how : {SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK}) {
    for (const std::uint64_t set : {all, other, none, kTrapBit, kTrapBit | other}) {
      for (const bool was_blocked : {false, true}) {
        CAPTURE(how);
        CAPTURE(set);
        CAPTURE(was_blocked);
        const std::uint64_t before = kHitMask | (was_blocked ? kTrapBit : 0);
        std::uint64_t expected_old = 0;
        sys::set_signal_mask(before);
        sys::call4(SYS_rt_sigprocmask, how, static_cast<long>(pointer(&set)), static_cast<long>(pointer(&expected_old)),
                   8);
        const std::uint64_t expected = KeptMask::present();

        t_thread.app_trap.is_blocked = was_blocked;
        std::uint64_t old = 0;
        Call call(SYS_rt_sigprocmask, static_cast<std::uint64_t>(how), pointer(&set), pointer(&old), 8);
        CHECK(ubp_trap_gate(&call.uc, world.system_call()) == kBehind);
        CHECK(call.result() == 0);
        CHECK(is_behind_syscall(call));
        CHECK(old == expected_old);
        CHECK(call.uc.mask == (expected & ~kTrapBit));
        CHECK((call.uc.mask & (kTrapBit | unblockable)) == 0);
        CHECK(t_thread.app_trap.is_blocked == ((expected & kTrapBit) != 0));
        CHECK(KeptMask::present() == (kAllSignals & ~unblockable));  // nobody sees it half made
      }
    }
  }
}

TEST_CASE("gate, rt_sigprocmask: what the kernel refuses is refused, and what it changes first is changed") {
  GateWorld world;
  const std::uint64_t set = bit_of(SIGUSR1) | kTrapBit;
  const std::uint64_t good = pointer(&set);
  std::uint64_t place = 0;
  const std::uint64_t old = pointer(&place);
  const struct {
    const char* what;
    std::uint64_t how, set, old, size;
  } kCases[] = {
      {"a look", SIG_BLOCK, 0, old, 8},
      {"a look, how is nothing", 99, 0, old, 8},
      {"nothing at all", 99, 0, 0, 8},
      {"a bad size", SIG_BLOCK, good, old, 16},
      {"a bad size, and bad pointers", SIG_BLOCK, kBad, kBad, 4},
      {"how is nothing", 99, good, old, 8},
      {"how is nothing, in the upper half alone", std::uint64_t{1} << 32 | SIG_BLOCK, good, old, 8},
      {"a bad set", SIG_SETMASK, kBad, old, 8},
      {"a bad set, and how is nothing", 99, kBad, old, 8},
      {"a bad old", SIG_BLOCK, good, kBad, 8},
      {"a bad old, no set", SIG_BLOCK, 0, kBad, 8},
      {"an old that can only be read", SIG_BLOCK, good, code_of(&ubp_trap_entry), 8},
  };
  for (const auto& made : kCases) {
    CAPTURE(made.what);
    place = 0;
    sys::set_signal_mask(kHitMask);
    const long expected = sys::call4(SYS_rt_sigprocmask, static_cast<long>(made.how), static_cast<long>(made.set),
                                     static_cast<long>(made.old), static_cast<long>(made.size));
    const std::uint64_t expected_mask = KeptMask::present(), expected_old = place;

    place = 0;
    t_thread.app_trap.is_blocked = false;
    Call call(SYS_rt_sigprocmask, made.how, made.set, made.old, made.size);
    CHECK(ubp_trap_gate(&call.uc, world.system_call()) == kBehind);
    CHECK(call.result() == expected);
    CHECK(is_behind_syscall(call));
    CHECK((call.uc.mask | (t_thread.app_trap.is_blocked ? kTrapBit : 0)) == expected_mask);
    CHECK(place == expected_old);
  }
}

TEST_CASE("gate, rt_sigprocmask: a SIGTRAP that waited comes when the program unblocks it") {
  GateWorld world;
  t_thread.app_trap.is_blocked = t_thread.app_trap.is_pending = true;
  t_thread.app_trap.info = {};
  t_thread.app_trap.info.si_signo = SIGTRAP;
  t_thread.app_trap.info.si_code = SI_QUEUE;
  siginfo_t sent{};
  const std::uint64_t set = kTrapBit;
  Call more(SYS_rt_sigprocmask, SIG_BLOCK, pointer(&set), 0, 8);
  ubp_trap_gate(&more.uc, world.system_call());
  CHECK(KeptMask::take(sent) == 0);
  Call less(SYS_rt_sigprocmask, SIG_UNBLOCK, pointer(&set), 0, 8);
  ubp_trap_gate(&less.uc, world.system_call());
  CHECK(KeptMask::take(sent) == SIGTRAP);
  CHECK_FALSE(t_thread.app_trap.is_pending);
}

TEST_CASE("gate, rt_sigprocmask: a vfork child has a bit of its own, which begins as its maker's") {
  GateWorld world;
  g_process.tasks.pid += 1;  // this is another process than the one that the states belong to
  for (const bool was_blocked : {false, true}) {
    t_thread.app_trap = {};
    t_thread.app_trap.is_blocked = was_blocked;
    std::uint64_t old = 0;
    const std::uint64_t set = was_blocked ? 0 : kTrapBit;
    Call call(SYS_rt_sigprocmask, SIG_SETMASK, pointer(&set), pointer(&old), 8);
    CHECK(ubp_trap_gate(&call.uc, world.system_call()) == kBehind);
    CHECK((old & kTrapBit) == (was_blocked ? kTrapBit : 0));
    CHECK(t_thread.app_trap.is_blocked == was_blocked);
    CHECK(t_thread.app_trap.guest_is_blocked == !was_blocked);
  }
}

TEST_CASE("gate, execve: carried out where the program blocks SIGTRAP, so that what it executes inherits that") {
  GateWorld world;
  for (const long number : {long{SYS_execve}, long{SYS_execveat}}) {
    for (const bool is_blocked : {false, true}) {
      CAPTURE(is_blocked);
      t_thread.app_trap.is_blocked = is_blocked;
      Call call(number, kBad, kBad, kBad, kBad);
      if (number == SYS_execveat) call.uc.rdi = static_cast<std::uint64_t>(-1);
      const Context before = call.uc;
      const std::uint64_t rip = ubp_trap_gate(&call.uc, world.system_call());
      CHECK(rip == (is_blocked ? kBehind : 0));
      if (is_blocked) {
        CHECK(call.result() == -EFAULT);
        CHECK(is_behind_syscall(call));
        CHECK(call.uc.mask == kHitMask);
        CHECK(KeptMask::present() == (kHitMask | kTrapBit));  // until the return, which sets the mask
      } else {
        CHECK(std::memcmp(&before, &call.uc, sizeof before) == 0);
      }
    }
  }
}

namespace {

int g_status = -1;
void end_here(int status) { g_status = status; }

}  // namespace

TEST_CASE("gate, exit_group: the report is made first, on a stack of its own, where one is to be made") {
  GateWorld world;
  const auto leave = [&](Call& call) { return ubp_trap_gate(&call.uc, world.system_call()); };
  Call nobody(SYS_exit_group, 3);
  CHECK(leave(nobody) == 0);  // no report is to be made
  CHECK(nobody.uc.rsp == 0x7ffe1000);

  g_process.upcalls.on_exit = &end_here;
  Call call(SYS_exit_group, 3);
  call.uc.eflags |= runtime::kDirectionFlag;
  CHECK(leave(call) == code_of(&end_here));
  CHECK(call.uc.rdi == 3);
  CHECK(call.uc.rsp != 0x7ffe1000);
  CHECK(call.uc.rsp % 16 == 8);  // as at a function's entry
  CHECK((call.uc.eflags & runtime::kDirectionFlag) == 0);
  for (std::uint64_t at = call.uc.rsp - (128 << 10); at < call.uc.rsp; at += 4096) {
    *reinterpret_cast<volatile std::uint8_t*>(at) = 1;  // or it faults
  }

  g_process.is_sandboxed = true;  // nothing new is asked of the kernel
  Call sandboxed(SYS_exit_group, 3);
  CHECK(leave(sandboxed) == 0);
  g_process.is_sandboxed = false;
  g_process.tasks.pid += 1;  // a vfork child ends alone
  Call guest(SYS_exit_group, 3);
  CHECK(leave(guest) == 0);
  CHECK(guest.uc.rsp == 0x7ffe1000);
}

TEST_CASE("gate, clone: which tasks share their maker's memory, beside it") {
  const std::uint64_t words[2] = {CLONE_VM | CLONE_THREAD, 0}, vfork[2] = {CLONE_VM | CLONE_VFORK, 0}, fork[2] = {};
  CHECK(makes_thread(Call(SYS_clone, CLONE_VM).uc));
  CHECK_FALSE(makes_thread(Call(SYS_clone, CLONE_VM | CLONE_VFORK).uc));  // its maker waits
  CHECK_FALSE(makes_thread(Call(SYS_clone, SIGCHLD).uc));
  CHECK(makes_thread(Call(SYS_clone3, pointer(words), 64).uc));
  CHECK_FALSE(makes_thread(Call(SYS_clone3, pointer(vfork), 64).uc));
  CHECK_FALSE(makes_thread(Call(SYS_clone3, pointer(fork), 64).uc));
  CHECK_FALSE(makes_thread(Call(SYS_clone3, kBad, 64).uc));
  CHECK_FALSE(makes_thread(Call(SYS_vfork, CLONE_VM).uc));  // it has no flags
}

TEST_CASE("gate, clone: whose TLS the new task runs on") {
  GateWorld world;
  const std::uint64_t libcs = pointer(&t_thread) - thread_offset();
  std::uint64_t words[8] = {CLONE_VM, 0, 0, 0, 0, 0, 0, libcs};
  Call by_registers(SYS_clone, CLONE_VM), by_words(SYS_clone3, pointer(words), sizeof words);
  by_registers.uc.r8 = libcs;  // without the flag, both say nothing
  CHECK(tls_of_new_task(by_registers.uc) == TaskTls::kMakers);
  CHECK(tls_of_new_task(by_words.uc) == TaskTls::kMakers);
  by_registers.uc.rdi = words[0] = CLONE_VM | CLONE_SETTLS;
  CHECK(tls_of_new_task(by_registers.uc) == TaskTls::kLibcs);
  CHECK(tls_of_new_task(by_words.uc) == TaskTls::kLibcs);
  alignas(64) std::array<std::uint8_t, 8192> own{};
  for (const std::uint64_t tls : {pointer(own.data()) + 4096 - thread_offset(), kBad, std::uint64_t{0}}) {
    by_registers.uc.r8 = words[7] = tls;
    CHECK(tls_of_new_task(by_registers.uc) == TaskTls::kOther);
    CHECK(tls_of_new_task(by_words.uc) == TaskTls::kOther);
  }
  // At the end of what can be read there is only the first word.
  auto* const pages =
      static_cast<std::uint8_t*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(pages != MAP_FAILED);
  REQUIRE(mprotect(pages + 4096, 4096, PROT_NONE) == 0);
  std::memcpy(pages + 4096 - 8, words, 8);
  CHECK(tls_of_new_task(Call(SYS_clone3, pointer(pages + 4096 - 8), 64).uc) == TaskTls::kOther);
  munmap(pages, 8192);
}

TEST_CASE("gate, clone: a task on its maker's TLS is noted before it is there, and others are not") {
  GateWorld world;
  Call fork(SYS_clone, SIGCHLD), vfork(SYS_clone, CLONE_VM | CLONE_VFORK), beside(SYS_clone, CLONE_VM);
  CHECK(ubp_trap_gate(&fork.uc, world.system_call()) == 0);
  CHECK(ubp_trap_gate(&vfork.uc, world.system_call()) == 0);
  CHECK_FALSE(g_process.tasks.shares_tls);
  CHECK(ubp_trap_gate(&beside.uc, world.system_call()) == 0);
  CHECK(g_process.tasks.shares_tls);
}

namespace {

struct Clone3 : Call {
  std::array<std::uint64_t, 512> args{};
  explicit Clone3(std::uint64_t flags, std::uint64_t size = CLONE_ARGS_SIZE_VER2) : Call(SYS_clone3, 0, size) {
    args[0] = flags;
    args[4] = SIGCHLD;
    uc.rdi = pointer(args.data());
  }
};

}  // namespace

TEST_CASE("gate, clone3: what does not clear the handlers, or what the kernel refuses, is the kernel's to answer") {
  GateWorld world;
  const auto is_left_alone = [&](Clone3 call) {
    call.uc.rdi = call.uc.rdi == kBad ? kBad : pointer(call.args.data());
    const Context before = call.uc;
    return ubp_trap_gate(&call.uc, world.system_call()) == 0 && std::memcmp(&before, &call.uc, sizeof before) == 0;
  };
  CHECK(is_left_alone(Clone3(0)));
  CHECK(is_left_alone(Clone3(CLONE_VM | CLONE_VFORK)));
  CHECK(is_left_alone(Clone3(CLONE_CLEAR_SIGHAND | CLONE_SIGHAND)));
  CHECK(is_left_alone(Clone3(CLONE_CLEAR_SIGHAND, CLONE_ARGS_SIZE_VER0 - 8)));
  CHECK(is_left_alone(Clone3(CLONE_CLEAR_SIGHAND, CLONE_ARGS_SIZE_VER0 + 4)));
  CHECK(is_left_alone(Clone3(CLONE_CLEAR_SIGHAND, 4096 + 8)));
  Clone3 bad(CLONE_CLEAR_SIGHAND);
  bad.uc.rdi = kBad;
  CHECK(is_left_alone(bad));
  CHECK_FALSE(is_left_alone(Clone3(CLONE_CLEAR_SIGHAND)));  // control
}

TEST_CASE(
    "gate, clone3: the kernel is given the arguments without the flag that clears the handlers; then all is put back") {
  GateWorld world;
  Clone3 call(CLONE_CLEAR_SIGHAND | CLONE_VM | CLONE_VFORK);
  const std::uint64_t given = call.uc.rdi;
  CHECK(ubp_trap_gate(&call.uc, world.system_call()) == world.permanent() + xol::kCloneOffset);
  Cloning& cloning = t_thread.clonings[0];
  CHECK(call.uc.rdi == pointer(cloning.args));
  CHECK(cloning.args[0] == (CLONE_VM | CLONE_VFORK));
  CHECK(cloning.args[4] == SIGCHLD);
  CHECK(call.args[0] == (CLONE_CLEAR_SIGHAND | CLONE_VM | CLONE_VFORK));  // the program's stay
  CHECK(call.uc.mask == ~(kTrapBit | bit_of(SIGSYS)));
  CHECK(cloning.rest == kMostClonings);

  Clone3 inner(CLONE_CLEAR_SIGHAND);  // the vfork child starts another, and dies there
  CHECK(ubp_trap_gate(&inner.uc, world.system_call()) != 0);
  CHECK(inner.uc.rdi == pointer(t_thread.clonings[1].args));

  call.uc.rax = 4711;  // the parent is back
  call.uc.rip = kSystem + 1;
  finish_clone(&call.uc, world.system_call());
  CHECK(call.uc.rdi == given);
  CHECK(call.uc.mask == kHitMask);
  CHECK(is_behind_syscall(call));
  for (const Cloning& entry : t_thread.clonings) CHECK(entry.rest == 0);  // the dead child's too
}

TEST_CASE("gate, clone3: what cannot be put back is refused, and nothing is changed") {
  GateWorld world;
  const auto refusal = [&](Clone3& call) {
    CHECK(ubp_trap_gate(&call.uc, world.system_call()) == kBehind);
    CHECK(is_behind_syscall(call));
    CHECK(call.uc.rdi == pointer(call.args.data()));
    CHECK(call.uc.mask == kHitMask);
    return call.result();
  };
  Clone3 beside(CLONE_CLEAR_SIGHAND | CLONE_VM), large(CLONE_CLEAR_SIGHAND, sizeof(Cloning::args) + 8);
  CHECK(refusal(beside) == -ENOSYS);
  CHECK(refusal(large) == -E2BIG);
  for (const Cloning& entry : t_thread.clonings) CHECK(entry.rest == 0);
  for (Cloning& entry : t_thread.clonings) entry.rest = 1;
  Clone3 deep(CLONE_CLEAR_SIGHAND);
  CHECK(refusal(deep) == -ENOSYS);
}
