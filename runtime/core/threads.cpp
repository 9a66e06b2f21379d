// See threads.h. The handler uses raw system calls and a few atomics only.
#include "runtime/core/threads.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <ctime>
#include <string_view>

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::core {
namespace {

constexpr std::size_t kMostThreads = 16384;
constinit std::atomic<std::uint32_t> g_arrived[kMostThreads];  // tids
constinit std::atomic<std::uint32_t> g_arrivals{0};
constinit std::atomic<bool> g_held{false};

void wait_a_moment() {
  const timespec moment{0, 100'000};
  sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
}

// SIGTRAP, while threads are held; a straggler that gets its own later only returns.
void hold(int) {
  if (!g_held.load(std::memory_order_acquire)) return;                                       // pairs with park()
  const std::uint32_t slot = g_arrivals.fetch_add(1, std::memory_order_acq_rel);             // pairs with has_arrived
  if (slot < kMostThreads) g_arrived[slot].store(sys::gettid(), std::memory_order_release);  // likewise
  while (g_held.load(std::memory_order_acquire)) wait_a_moment();                            // pairs with the destructor
}

bool has_arrived(std::uint32_t tid) {
  const std::uint32_t count = std::min<std::uint32_t>(g_arrivals.load(std::memory_order_acquire), kMostThreads);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (g_arrived[i].load(std::memory_order_acquire) == tid) return true;  // pairs with hold()
  }
  return false;
}

// A held thread may own any lock of libc's, malloc's among them: nothing below calls what could wait for one.
std::vector<std::uint32_t> other_threads() {
  std::vector<std::uint32_t> tids;
  const int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return tids;
  alignas(dirent64) char entries[8192];
  long bytes;
  while ((bytes = sys::call4(SYS_getdents64, folder, reinterpret_cast<long>(entries), sizeof entries)) > 0) {
    for (long at = 0; at < bytes;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      std::uint32_t tid = 0;
      std::from_chars(entry->d_name, entry->d_name + std::strlen(entry->d_name), tid);
      if (tid != 0 && tid != sys::gettid()) tids.push_back(tid);
      at += entry->d_reclen;
    }
  }
  close(folder);
  return tids;
}

struct Status {
  char state = 'X';
  bool blocks_trap = false;
};

// Source: proc(5), /proc/pid/status.
Status status_of(std::uint32_t tid) {
  Status status;
  const int file = open(fmt::format("/proc/self/task/{}/status", tid).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return status;
  char text[4096];
  const ssize_t bytes = read(file, text, sizeof text);
  close(file);
  const std::string_view lines(text, bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
  const auto field = [&](std::string_view name) {
    const std::size_t at = lines.find(name);
    return at == lines.npos ? std::string_view() : lines.substr(at + name.size());
  };
  if (const auto state = field("\nState:\t"); !state.empty()) status.state = state.front();
  const auto blocked = field("\nSigBlk:\t");
  std::uint64_t mask = 0;
  std::from_chars(blocked.data(), blocked.data() + std::min<std::size_t>(blocked.size(), 16), mask, 16);
  status.blocks_trap = (mask >> (SIGTRAP - 1) & 1) != 0;
  return status;
}

// A SIGTRAP that the runtime knows for its own (trap_path.cpp), should it arrive late.
void ask(std::uint32_t tid) {
  siginfo_t info{};
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = reinterpret_cast<void*>(UBP_ENTRY_MARK);
  sys::call4(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGTRAP, reinterpret_cast<long>(&info));
}

}  // namespace

bool is_only_thread() {
  return other_threads().empty() && access("/proc/self/task", R_OK) == 0;
}

std::optional<std::string> ParkedThreads::park(bool leaves_blocked) {
  if (other_threads().empty()) return std::nullopt;
  trap::KernelSigaction act{}, old{};
  act.handler = reinterpret_cast<std::uint64_t>(&hold);
  act.flags = SA_ONSTACK | SA_RESTART | trap::kRestorer;
  act.restorer = reinterpret_cast<std::uint64_t>(&trap::ubp_trap_restorer);
  if (sys::failed(sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&act), reinterpret_cast<long>(&old), 8))) {
    return "the kernel refuses a SIGTRAP handler";
  }
  g_arrivals.store(0, std::memory_order_relaxed);  // nobody looks before the next line
  g_held.store(true, std::memory_order_release);   // pairs with hold()
  std::vector<std::uint32_t> asked;
  timespec start{};
  long waited_ms = 0;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (;;) {
    std::optional<std::uint32_t> missing;
    for (const std::uint32_t tid : other_threads()) {  // again and again: those that run may make more
      const Status status = status_of(tid);
      if (status.state == 'Z' || status.state == 'X' || has_arrived(tid)) continue;
      const bool is_asked = std::find(asked.begin(), asked.end(), tid) != asked.end();
      if (!is_asked && !status.blocks_trap) {
        asked.push_back(tid);
        ask(tid);
      }
      if (leaves_blocked && status.blocks_trap && status.state == 'S' && waited_ms > 250) continue;
      missing = tid;
    }
    if (!missing) break;
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    waited_ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1'000'000;
    if (waited_ms > 2000) {
      g_held.store(false, std::memory_order_release);  // pairs with hold()
      return fmt::format("thread {} blocks SIGTRAP or does not run; register the first probe before it does", *missing);
    }
    wait_a_moment();
  }
  // The disposition that was, for take_over() to find.
  sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&old), 0, 8);
  return std::nullopt;
}

ParkedThreads::~ParkedThreads() { g_held.store(false, std::memory_order_release); }  // pairs with hold()

}  // namespace ubp::core
