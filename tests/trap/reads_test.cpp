// Reads of memory that may not be there: which signals end a read and how, what is known of a thread's faults and what
// takes that away, and the loads themselves at the edges of pages, with real faults.
#include <sys/mman.h>

#include <string>
#include <vector>

#include "runtime/trap/disposition.h"
#include "runtime/trap/gate.h"
#include "tests/trap/fabricated.h"

using namespace ubp;
using namespace ubp::trap;

namespace {

const std::uint64_t kLoad = reinterpret_cast<std::uint64_t>(ubp_read_begin) + 4;
const std::uint64_t kBehindRead = reinterpret_cast<std::uint64_t>(ubp_read_fault);

struct FaultFrame : Frame {
  explicit FaultFrame(int signal = SIGSEGV, int code = SEGV_MAPERR) {
    info.si_signo = signal;
    info.si_code = code;
    uc.rip = kLoad;
    uc.rsp = 0x7ffe1000;
    uc.mask = kHitMask;
  }
};

// The kernel's own disposition of a signal, for as long as this lives.
class KeptAction {
 public:
  explicit KeptAction(int signal) : signal_(signal) {
    sys::call4(SYS_rt_sigaction, signal_, 0, reinterpret_cast<long>(&before_), 8);
  }
  ~KeptAction() { set(before_); }
  KeptAction(const KeptAction&) = delete;
  KeptAction& operator=(const KeptAction&) = delete;
  void set(const KernelSigaction& act) const {
    sys::call4(SYS_rt_sigaction, signal_, reinterpret_cast<long>(&act), 0, 8);
  }

 private:
  int signal_;
  KernelSigaction before_{};
};

bool are_faults_ours() { return (g_handlers.faults.load() & 1) != 0; }

}  // namespace

TEST_CASE("a fault of a load ends the read, whatever handler the application has") {
  for (const std::uint64_t handler : {std::uint64_t{0}, kHandlerAt}) {
    for (const auto& [signal, code] : std::vector<std::pair<int, int>>{{SIGSEGV, SEGV_MAPERR},
                                                                       {SIGSEGV, SEGV_ACCERR},
                                                                       {SIGSEGV, SI_KERNEL},
                                                                       {SIGSEGV, 4},  // SEGV_PKUERR
                                                                       {SIGBUS, BUS_ADRERR},
                                                                       {SIGBUS, BUS_ADRALN}}) {
      CAPTURE(signal);
      CAPTURE(code);
      World world;
      g_handlers.handler[signal] = handler;
      FaultFrame frame(signal, code);
      const Answer answer = ubp_signal_prepare(&frame.info, &frame.uc);
      CHECK(answer.handler == 0);
      CHECK(answer.frame == &frame.uc);
      CHECK(frame.uc.rip == kBehindRead);
      CHECK(frame.uc.mask == kHitMask);
      CHECK(frame.return_address == address_of(&ubp_trap_restorer));
    }
  }
}

TEST_CASE("what is no load's fault is the application's") {
  struct Case {
    int signal, code;
    std::uint64_t rip;
  };
  const std::uint64_t begin = reinterpret_cast<std::uint64_t>(ubp_read_begin);
  for (const Case& one : {Case{SIGSEGV, SI_USER, kLoad}, Case{SIGSEGV, SI_QUEUE, kLoad}, Case{SIGSEGV, SI_TKILL, kLoad},
                          Case{SIGBUS, 5, kLoad},  // BUS_MCEERR_AO
                          Case{SIGFPE, 1, kLoad}, Case{SIGSEGV, SEGV_MAPERR, 0x403333},
                          Case{SIGSEGV, SEGV_MAPERR, begin - 1}, Case{SIGSEGV, SEGV_MAPERR, kBehindRead}}) {
    CAPTURE(one.signal);
    CAPTURE(one.code);
    CAPTURE(one.rip - begin);
    World world;
    g_handlers.handler[one.signal] = kHandlerAt;
    FaultFrame frame(one.signal, one.code);
    frame.uc.rip = one.rip;
    CHECK(ubp_signal_prepare(&frame.info, &frame.uc).handler == kHandlerAt);
    CHECK(frame.uc.rip == one.rip);
  }
}

TEST_CASE("a signal that arrives before a load's fault is looked at finds the read ended, and no other handler") {
  KeptMask kept;
  World world;
  g_handlers.handler[SIGSEGV] = kHandlerAt;
  g_handlers.handler[SIGUSR1] = kHandlerAt + 16;
  for (const bool is_first_instruction : {true, false}) {
    CAPTURE(is_first_instruction);
    FaultFrame fault;
    fault.uc.rbx = 0xb0b;
    Frame later;
    later.info.si_signo = SIGUSR1;
    later.info.si_code = SI_QUEUE;
    later.uc.rip = is_first_instruction ? address_of(&ubp_signal_entry) : address_of(&ubp_signal_entry_r15);
    later.uc.rdx = is_first_instruction ? address_of(&fault.uc) : 0;
    later.uc.r15 = is_first_instruction ? 0 : address_of(&fault.uc);
    const Answer answer = ubp_signal_prepare(&later.info, &later.uc);
    CHECK(answer.handler == kHandlerAt + 16);
    CHECK(answer.frame->rip == kBehindRead);
    CHECK(answer.frame->rbx == 0xb0b);
    CHECK(answer.frame->mask == kHitMask);
  }
}

TEST_CASE("what takes away what was known of a thread's faults") {
  KeptMask kept;
  World world;
  world.own_task();
  const auto is_forgotten = [](auto&& what) {
    t_thread.faults = Faults::kCaught;
    what();
    return t_thread.faults == Faults::kUnknown;
  };
  g_handlers.handler[SIGUSR1] = kHandlerAt;
  CHECK(is_forgotten([] {  // a handler begins
    Frame frame;
    frame.info.si_signo = SIGUSR1;
    frame.uc.rip = 0x403333;
    ubp_signal_prepare(&frame.info, &frame.uc);
  }));
  CHECK(is_forgotten([] {  // ... and returns
    Frame frame;
    ubp_trap_resume(&frame.uc);
  }));
  CHECK(is_forgotten([&] { own_storage(world.task()); }));
  Frame fault;  // a read's own fault does not
  fault.info.si_signo = SIGSEGV;
  fault.info.si_code = SEGV_MAPERR;
  fault.uc.rip = kLoad;
  CHECK_FALSE(is_forgotten([&] { ubp_signal_prepare(&fault.info, &fault.uc); }));
}

TEST_CASE("loads may fault only where the kernel has ubp_signal_entry, to keep") {
  World world;
  const KeptAction segv(SIGSEGV), bus(SIGBUS);
  const KernelSigaction guard = guard_action(), none{};
  KernelSigaction once = guard, ignored{};
  once.flags |= SA_RESETHAND;
  ignored.handler = 1;
  const auto are_ours_with = [&](const KernelSigaction& first, const KernelSigaction& second) {
    begin_fault_change();
    CHECK_FALSE(are_faults_ours());
    segv.set(first);
    bus.set(second);
    end_fault_change();
    return are_faults_ours();
  };
  CHECK(are_ours_with(guard, guard));
  for (const KernelSigaction& other : {none, once, ignored}) {
    CHECK_FALSE(are_ours_with(guard, other));
    CHECK_FALSE(are_ours_with(other, guard));
  }
  CHECK(are_ours_with(guard, guard));
  // A look changes nothing; a change of another signal neither; one that fails ends as it began.
  const KernelSigaction asked{kHandlerAt, 0, 0, 0};
  complete_change(begin_change(SIGSEGV, nullptr, true), nullptr, nullptr);
  complete_change(begin_change(SIGUSR1, &asked, true), &asked, nullptr);
  CHECK(are_faults_ours());
  const DispositionChange change = begin_change(SIGSEGV, &asked, true);
  CHECK_FALSE(are_faults_ours());
  take_back(change);
  CHECK(are_faults_ours());
  // A vfork child's are its own.
  begin_change(SIGSEGV, &asked, false);
  CHECK(are_faults_ours());
  // Another change that is under way keeps it closed.
  begin_change(SIGBUS, &asked, true);
  complete_change(begin_change(SIGSEGV, &ignored, true), &ignored, nullptr);
  CHECK(are_faults_ours());  // the kernel was told of neither
  g_handlers.faults = 0;
}

TEST_CASE("what is asked of the kernel about a thread's faults, and what is kept of the answer") {
  KeptMask kept;
  World world;
  world.own_task();
  constexpr std::uint64_t kBytes = 65536;
  void* const stack = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(stack != MAP_FAILED);
  stack_t before{}, own{};
  own.ss_sp = stack;
  own.ss_size = kBytes;
  REQUIRE(sigaltstack(&own, &before) == 0);
  g_process.tasks.stacks = reinterpret_cast<std::uint64_t>(stack);
  g_process.tasks.own_stack_bytes = kBytes;
  g_process.has_gate = true;
  sys::set_signal_mask(0);
  const auto look = [] {
    t_thread.faults = Faults::kUnknown;
    const bool result = ubp_trap_look_at_faults();
    return std::pair<bool, int>(result, t_thread.faults);
  };
  CHECK(look() == std::pair<bool, int>(true, Faults::kCaught));
  for (const int signal : {SIGSEGV, SIGBUS}) {
    sys::set_signal_mask(bit_of(signal));
    CHECK(look() == std::pair<bool, int>(false, Faults::kNotCaught));
  }
  sys::set_signal_mask(bit_of(SIGUSR1));
  CHECK(look() == std::pair<bool, int>(true, Faults::kCaught));
  g_process.misses_gate = true;  // somebody may change it unseen
  CHECK(look() == std::pair<bool, int>(false, Faults::kUnknown));
  g_process.misses_gate = false;
  g_process.tasks.pid = 1;  // a guest's answer is not kept
  CHECK(look() == std::pair<bool, int>(false, Faults::kUnknown));
  g_process.tasks.pid = sys::getpid();
  g_process.tasks.stacks = 0x500000000000;  // the kernel's stack is not UBP's
  CHECK(look() == std::pair<bool, int>(false, Faults::kNotCaught));
  sigaltstack(&before, nullptr);
  munmap(stack, kBytes);
}

TEST_CASE("the loads read to the byte, and not behind") {
  constexpr std::uint64_t kPage = 4096;
  auto* const pages =
      static_cast<char*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(pages != MAP_FAILED);
  for (std::uint64_t i = 0; i < 3 * kPage; ++i) pages[i] = static_cast<char>('a' + i % 26);
  REQUIRE(mprotect(pages + 2 * kPage, kPage, PROT_NONE) == 0);
  const KeptAction kept(SIGSEGV);
  kept.set({code_of(+[](int, siginfo_t* info, void* context) {
              auto* const uc = static_cast<Context*>(context);
              if (!is_read_fault(info, uc)) abort();
              uc->rip = kBehindRead;
            }),
            SA_SIGINFO | kRestorer, code_of(&ubp_trap_restorer), 0});
  char to[128];
  std::uint64_t wrong = 0, faults = 0;
  for (std::uint64_t before = 0; before < 40; ++before) {  // bytes before the end of what can be read
    for (std::uint64_t bytes = 0; bytes < 40; ++bytes) {   // asked for
      for (std::uint64_t page = 1; page <= 2; ++page) {    // the end of the first page is followed by another
        const char* const from = pages + page * kPage - before;
        const std::uint64_t there = page == 1 || bytes < before ? bytes : before;
        std::memset(to, '#', sizeof to);
        const Loaded loaded = ubp_read_bytes(to, reinterpret_cast<std::uint64_t>(from), bytes);
        wrong += loaded.bytes != there || loaded.has_faulted != (there < bytes ? 1U : 0U);
        wrong += std::memcmp(to, from, there) != 0 || to[bytes] != '#';
        faults += loaded.has_faulted;
        for (std::uint64_t length = 0; length < 12; ++length) {  // a NUL in it
          if (length >= before && page == 2) break;
          char* const nul = pages + page * kPage - before + length;
          const char kept_char = *nul;
          *nul = '\0';
          std::memset(to, '#', sizeof to);
          const Loaded text = ubp_read_text(to, reinterpret_cast<std::uint64_t>(from), bytes);
          const std::uint64_t expected = length < bytes ? length : bytes;
          wrong += text.bytes != expected || text.has_faulted != 0;
          wrong += std::memcmp(to, from, expected) != 0 || to[bytes] != '#';
          *nul = kept_char;
        }
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(faults > 0);
  const auto length_of = [&](std::uint64_t address) { return ubp_read_text(to, address, 100); };
  CHECK(length_of(reinterpret_cast<std::uint64_t>(pages + 2 * kPage - 3)).bytes == 3);  // no NUL before the end
  CHECK(length_of(reinterpret_cast<std::uint64_t>(pages + 2 * kPage - 3)).has_faulted == 1);
  CHECK(length_of(0x8000000000000000).has_faulted == 1);
  CHECK(length_of(8).bytes == 0);
  munmap(pages, 3 * kPage);
}

TEST_CASE("where loads may go") {
  World world;
  g_process.stack_gap.low = 0x7ff000000000;
  g_process.stack_gap.high = 0x7ff010000000;
  for (const std::uint64_t address : {std::uint64_t{0}, std::uint64_t{65535}, std::uint64_t{1} << 47, ~std::uint64_t{0},
                                      std::uint64_t{0xffffffffff600000}, std::uint64_t{0x7ff000000000},
                                      std::uint64_t{0x7ff00ffffff0}, std::uint64_t{0x7feffffffff9}})
    CHECK_FALSE(may_load(address, 8));
  for (const std::uint64_t address : {std::uint64_t{65536}, (std::uint64_t{1} << 47) - 8, std::uint64_t{0x7ff010000000},
                                      std::uint64_t{0x7feffffffff8}})
    CHECK(may_load(address, 8));
  CHECK_FALSE(may_load((std::uint64_t{1} << 47) - 7, 8));
  CHECK_FALSE(may_load(65536, ~std::uint64_t{0}));
  // What the stack has reached by now is its own.
  auto* const page = static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const auto at = reinterpret_cast<std::uint64_t>(page);
  g_process.stack_gap.low = at - (std::uint64_t{1} << 20);
  g_process.stack_gap.high = at + 8192;
  CHECK(may_load(at + 4100, 8));
  CHECK(g_process.stack_gap.high == at + 4096);
  munmap(page, 4096);
  CHECK_FALSE(may_load(at, 8));
  CHECK(may_load(at + 4100, 8));
  munmap(page + 4096, 4096);
}
