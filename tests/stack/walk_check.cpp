// Preloaded into any program: at random instructions of it walks the stack as hits do, and by libunwind. What differs
// is written to descriptor 2 when the program ends: "walks N same N differ N, frames N", and the first ones that
// differ.
#define UNW_LOCAL_ONLY
#include <dlfcn.h>
#include <libunwind.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/stack/frame_tables.h"
#include "runtime/stack/walk.h"

namespace {

using namespace ubp::stack;

constexpr std::uint64_t kMost = 64;
constexpr std::uint64_t kSteps = 16;  // instructions that are looked at one after the other
constexpr std::uint64_t kLowest = 4096;
constexpr std::uint64_t kTrapFlag = 0x100;

std::atomic<const FrameTables*> g_tables;
std::atomic<std::uint64_t> g_walks, g_same, g_frames, g_told;
std::atomic<bool> g_is_over;
char g_difference[8][8192];
thread_local std::uint64_t t_left = 0;
timer_t g_timer;

// The next look, from now on: so that the program gets on between them.
void wait_for_next() {
  static const long period_ns = [] {
    const char* const typed = std::getenv("WALK_CHECK_NS");
    return typed != nullptr ? std::atol(typed) : 200'000;
  }();
  const itimerspec once{{0, 0}, {0, period_ns}};
  timer_settime(g_timer, 0, &once, nullptr);
}

FrameTableSet& tables() {
  static auto& all = *new FrameTableSet;
  return all;
}

void look_at_modules() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const std::vector<ubp::symbols::Module> modules = ubp::symbols::loaded_modules();
  std::vector<const ubp::symbols::Module*> pointers;
  for (const auto& module : modules) pointers.push_back(&module);
  g_tables = tables().update(pointers);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool read(std::uint64_t address, std::uint64_t* to, std::uint64_t words) {
  const iovec into{to, words * 8}, from{reinterpret_cast<void*>(address), words * 8};
  return syscall(SYS_process_vm_readv, getpid(), &into, 1, &from, 1, 0) == static_cast<long>(words * 8);
}

std::uint64_t ours(const ucontext_t& context, std::uint64_t* frames) {
  constexpr int kPlaces[kRegisters] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  Start start{};
  start.address = context.uc_mcontext.gregs[REG_RIP];
  for (std::size_t i = 0; i < kRegisters; ++i) start.registers[i] = context.uc_mcontext.gregs[kPlaces[i]];
  std::uint64_t count = Walk(*g_tables.load(), start, read).run(frames, kMost);
  while (count != 0 && frames[count - 1] == kNotFound) --count;
  for (std::uint64_t i = 0; i < count; ++i) frames[i] &= ~kInterrupted;
  return count;
}

std::uint64_t theirs(ucontext_t& context, std::uint64_t* frames) {
  unw_cursor_t cursor;
  std::uint64_t count = 0;
  if (unw_init_local2(&cursor, &context, UNW_INIT_SIGNAL_FRAME) != 0) return 0;
  do {
    unw_word_t address = 0;
    unw_get_reg(&cursor, UNW_REG_IP, &address);
    if (address < kLowest) break;  // no code: a frame that is being left, as libgcc does to land in a handler
    frames[count++] = address;
  } while (count < kMost && unw_step(&cursor) > 0);
  return count;
}

void compare(ucontext_t& context) {
  std::uint64_t own[kMost], other[kMost];
  const std::uint64_t own_count = ours(context, own), other_count = theirs(context, other);
  ++g_walks;
  g_frames += own_count;
  bool is_same = own_count == other_count;
  for (std::uint64_t i = 0; is_same && i < own_count; ++i) is_same = own[i] == other[i];
  if (is_same) {
    ++g_same;
    return;
  }
  const std::uint64_t told = g_told++;
  if (told >= std::size(g_difference)) return;
  char* to = g_difference[told];
  char* const end = to + sizeof g_difference[0];
  for (std::uint64_t i = 0; i < own_count || i < other_count; ++i) {
    const std::uint64_t a = i < own_count ? own[i] : 0, b = i < other_count ? other[i] : 0;
    to += std::snprintf(to, end - to, "  %s %lx %lx\n", a == b ? " " : "*", a, b);
  }
}

// A thread with the dynamic linker's lock may not be asked for modules, as libunwind does.
bool may_ask(const ucontext_t& context) {
  static const std::uint64_t linker = [] {
    for (const auto& module : ubp::symbols::loaded_modules()) {
      if (module.name.rfind("ld-linux", 0) == 0) return module.low();
    }
    return std::uint64_t{0};
  }();
  std::uint64_t frames[kMost];
  const std::uint64_t count = ours(context, frames);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (frames[i] - linker < 0x40000) return false;
  }
  return true;
}

void on_signal(int number, siginfo_t*, void* its) {
  auto& context = *static_cast<ucontext_t*>(its);
  if (g_is_over) {
    context.uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
    return;
  }
  if (may_ask(context)) compare(context);
  if (number != SIGTRAP) t_left = kSteps;
  if (t_left == 0 || t_left-- == 1) {
    context.uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
    wait_for_next();
  } else {
    context.uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
  }
}

[[gnu::constructor]] void begin() {
  look_at_modules();
  ucontext_t context{};
  getcontext(&context);
  may_ask(context);
  std::uint64_t frames[kMost];
  theirs(context, frames);  // what it opens, it opens now
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigfillset(&action.sa_mask);
  sigaction(SIGTRAP, &action, nullptr);
  sigaction(SIGURG, &action, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGURG;
  timer_create(CLOCK_MONOTONIC, &event, &g_timer);
  wait_for_next();
}

[[gnu::destructor]] void end() {
  g_is_over = true;
  char text[128];
  const int size = std::snprintf(text, sizeof text, "walks %lu same %lu differ %lu frames %lu\n", g_walks.load(),
                                 g_same.load(), g_walks - g_same, g_frames.load());
  if (write(2, text, size) != size) return;
  for (std::uint64_t i = 0; i < g_told && i < std::size(g_difference); ++i)
    dprintf(2, "difference:\n%s", g_difference[i]);
}

}  // namespace

extern "C" [[gnu::visibility("default")]] void* dlopen(const char* path, int flags) {
  static const auto real = reinterpret_cast<void* (*)(const char*, int)>(dlsym(RTLD_NEXT, "dlopen"));
  void* const handle = real(path, flags);
  look_at_modules();
  return handle;
}
