// See threads.h. The handler uses raw system calls and a few atomics only.
#include "runtime/arm/threads.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <ctime>
#include <string_view>
#include <unordered_set>

#include "runtime/base/clock.h"
#include "runtime/trap/tls.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

// A bit for every number that a thread may have. Source: linux/threads.h, PID_MAX_LIMIT.
constexpr std::uint32_t kNumbers = 1U << 22, kBits = 64;
constexpr std::size_t kArrivedBytes = kNumbers / 8, kBasesBytes = std::size_t{1} << 19;
// Where the bits are, mapped once: a straggler may look at any time. A number: to load a pointer is a call in
// libstdc++, which a thread sanitizer would instrument.
constinit std::atomic<std::uint64_t> g_arrived{0};
constinit std::atomic<std::uint32_t> g_arrivals{0};
// Where %fs led those that arrived, in the order of their arrival; behind the bits.
constexpr std::uint32_t kMostBases = kBasesBytes / sizeof(std::uint64_t);
[[gnu::no_sanitize_thread]] std::atomic<std::uint64_t>* arrived() {
  return reinterpret_cast<std::atomic<std::uint64_t>*>(g_arrived.load(std::memory_order_acquire));  // pairs with park()
}
[[gnu::no_sanitize_thread]] std::atomic<std::uint64_t>* bases() { return arrived() + kNumbers / kBits; }
constinit std::atomic<std::uint32_t> g_held{0};  // a futex

void wait_a_moment() {
  const timespec moment{0, 200'000};
  sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
}

// SIGTRAP, while threads are held; a straggler that gets its own later only returns. A thread sanitizer, whose own code
// it interrupts, has no part in it.
[[gnu::no_sanitize_thread]] void hold(int) {
  if (g_held.load(std::memory_order_acquire) == 0) return;  // pairs with park()
  const std::uint32_t tid = sys::gettid() % kNumbers;
  const std::uint32_t arrival = g_arrivals.fetch_add(1, std::memory_order_release);  // pairs with park()
  if (arrival < kMostBases)
    bases()[arrival].store(trap::fs_base(), std::memory_order_relaxed);  // the bit below publishes it
  arrived()[tid / kBits].fetch_or(std::uint64_t{1} << tid % kBits,
                                  std::memory_order_release);  // pairs with has_arrived
  while (g_held.load(std::memory_order_acquire) != 0) {        // pairs with let_go()
    sys::call4(SYS_futex, reinterpret_cast<long>(&g_held), FUTEX_WAIT_PRIVATE, 1);
  }
}

bool has_arrived(std::uint32_t tid) {
  return (arrived()[tid % kNumbers / kBits].load(std::memory_order_acquire) >> tid % kBits & 1) !=
         0;  // pairs with hold()
}

void let_go() {
  constexpr long kAll = 0x7fffffff;
  if (g_held.exchange(0, std::memory_order_release) == 0) return;  // pairs with hold()
  sys::call4(SYS_futex, reinterpret_cast<long>(&g_held), FUTEX_WAKE_PRIVATE, kAll);
}

std::string_view read_file(const std::string& path, char* text, std::size_t size) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  const ssize_t bytes = read(file, text, size);
  close(file);
  return {text, bytes > 0 ? static_cast<std::size_t>(bytes) : 0};
}

// What stands behind a name of /proc/PID/status. Source: proc(5).
std::string_view field_of(std::string_view status, std::string_view name) {
  const std::size_t at = status.find(name);
  return at == status.npos ? std::string_view() : status.substr(at + name.size());
}

// This thread's number in the PID namespace that /proc is of, which is another where the process was given one without
// the other.
std::uint32_t own_number_in_proc() {
  char text[64];  // "PID/task/TID"
  const ssize_t size = readlink("/proc/thread-self", text, sizeof text);
  const std::string_view link(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  std::uint32_t tid = 0;
  std::from_chars(text + link.rfind('/') + 1, text + link.size(), tid);
  return tid != 0 ? tid : sys::gettid();
}

// The number here of a thread that /proc has under that one; 0: it has gone.
std::uint32_t number_here(std::uint32_t in_proc) {
  char text[4096];
  const std::string_view all =
      field_of(read_file(fmt::format("/proc/self/task/{}/status", in_proc), text, sizeof text), "\nNSpid:\t");
  const std::string_view numbers = all.substr(0, all.find('\n'));
  std::uint32_t tid = 0;
  const std::size_t last = numbers.find_last_of('\t') + 1;  // from the outermost namespace to the thread's own
  std::from_chars(numbers.data() + last, numbers.data() + numbers.size(), tid);
  return tid;
}

// A held thread may own any lock of libc's, malloc's among them: nothing below calls what could wait for one.
struct Other {
  std::uint32_t tid, in_proc;  // its number here, and in /proc
};
std::vector<Other> other_threads() {
  std::vector<Other> tids;
  const int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return tids;
  const std::uint32_t own = own_number_in_proc();
  alignas(dirent64) char entries[8192];
  long bytes;
  while ((bytes = sys::call4(SYS_getdents64, folder, reinterpret_cast<long>(entries), sizeof entries)) > 0) {
    for (long at = 0; at < bytes;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      std::uint32_t tid = 0;
      std::from_chars(entry->d_name, entry->d_name + std::strlen(entry->d_name), tid);
      if (tid != 0 && tid != own) tids.push_back({own == sys::gettid() ? tid : number_here(tid), tid});
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

Status status_of(std::uint32_t in_proc) {
  Status status;
  char text[4096];
  const std::string_view lines = read_file(fmt::format("/proc/self/task/{}/status", in_proc), text, sizeof text);
  if (const auto state = field_of(lines, "\nState:\t"); !state.empty()) status.state = state.front();
  const auto blocked = field_of(lines, "\nSigBlk:\t");
  std::uint64_t mask = 0;
  std::from_chars(blocked.data(), blocked.data() + std::min<std::size_t>(blocked.size(), 16), mask, 16);
  status.blocks_trap = (mask >> (SIGTRAP - 1) & 1) != 0;
  return status;
}

// By a SIGTRAP that the runtime knows for its own (signal_path.cpp), should it arrive late. False: not yet
// (RLIMIT_SIGPENDING).
bool ask(std::uint32_t tid) {
  siginfo_t info{};
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = reinterpret_cast<void*>(UBP_ENTRY_MARK);
  constexpr long kTryAgain = -11;  // -EAGAIN
  return sys::call4(SYS_rt_tgsigqueueinfo, getpid(), tid, SIGTRAP, reinterpret_cast<long>(&info)) != kTryAgain;
}

}  // namespace

bool is_only_thread() { return other_threads().empty() && access("/proc/self/task", R_OK) == 0; }

std::optional<std::string> ParkedThreads::park(bool leaves_blocked) {
  constexpr long kPatience = 2000, kQuiet = 250, kSettled = 2;  // milliseconds in which no thread came
  if (other_threads().empty()) {
    // Without /proc nobody can be listed.
    const bool is_alone = access("/proc/self/task", R_OK) == 0 || __libc_single_threaded != 0;
    return is_alone ? std::nullopt
                    : std::optional<std::string>("cannot list the threads of this process: /proc is not there");
  }
  if (arrived() == nullptr) {  // the caller's lock: one at a time
    void* const bits = mmap(nullptr, kArrivedBytes + kBasesBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bits == MAP_FAILED) return "no memory to list the threads of this process";
    g_arrived.store(reinterpret_cast<std::uint64_t>(bits), std::memory_order_release);  // pairs with hold()
  } else {
    madvise(arrived(), kArrivedBytes, MADV_DONTNEED);  // zeros
  }
  trap::KernelSigaction act{}, old{};
  act.handler = reinterpret_cast<std::uint64_t>(&hold);
  act.flags = SA_ONSTACK | SA_RESTART | trap::kRestorer;
  act.restorer = reinterpret_cast<std::uint64_t>(&trap::ubp_trap_restorer);
  act.mask = ~trap::kSynchronousSignals;  // SIGTRAP is blocked there, and a handler could meet an int3
  if (sys::failed(
          sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&act), reinterpret_cast<long>(&old), 8))) {
    return "the kernel refuses a SIGTRAP handler";
  }
  g_arrivals.store(0, std::memory_order_relaxed);  // nobody looks before the next line
  g_held.store(1, std::memory_order_release);      // pairs with hold()
  std::unordered_set<std::uint32_t> asked;
  std::uint32_t arrivals = 0;
  std::int64_t latest = monotonic_ms();  // that a thread came
  for (;;) {
    std::optional<std::uint32_t> missing;
    Status status_of_missing;
    const std::int64_t quiet_for = monotonic_ms() - latest;
    for (const auto& [tid, in_proc] : other_threads()) {  // again and again: those that run may make more
      if (has_arrived(tid)) continue;
      const bool is_asked = asked.contains(tid);
      if (is_asked && quiet_for < kSettled) {
        missing = tid;
        continue;
      }
      const Status status = status_of(in_proc);
      if (status.state == 'Z' || status.state == 'X') continue;
      if (!is_asked && !status.blocks_trap && ask(tid)) asked.insert(tid);
      if (leaves_blocked && status.blocks_trap && status.state == 'S' && quiet_for > kQuiet) continue;
      missing = tid;
      status_of_missing = status;
    }
    if (!missing) break;
    const std::uint32_t now = g_arrivals.load(std::memory_order_acquire);  // pairs with hold()
    if (now != arrivals) latest = monotonic_ms();
    arrivals = now;
    if (quiet_for > kPatience && monotonic_ms() - latest > kPatience) {
      let_go();
      // A straggler meets this handler, which only returns.
      if (g_arrivals.load(std::memory_order_acquire) == asked.size())
        sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&old), 0, 8);
      return fmt::format("thread {} {}; register the first probe before it does", *missing,
                         status_of_missing.blocks_trap ? "blocks SIGTRAP" : "does not run");
    }
    wait_a_moment();
  }
  // What clone makes without a TLS of its own runs on its maker's: seen here where libc's clone did not make it.
  std::vector<std::uint64_t> storage;
  const std::uint32_t known = std::min(g_arrivals.load(std::memory_order_relaxed), kMostBases);  // all have arrived
  for (std::uint32_t i = 0; i < known; ++i)
    storage.push_back(bases()[i].load(std::memory_order_relaxed));  // has_arrived() acquired it
  storage.push_back(trap::fs_base());
  std::sort(storage.begin(), storage.end());
  if (std::adjacent_find(storage.begin(), storage.end()) != storage.end())
    trap::g_process.tasks.shares_tls.store(true, std::memory_order_relaxed);  // they wait
  // The disposition that was, for take_over() to find.
  sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&old), 0, 8);
  return std::nullopt;
}

ParkedThreads::~ParkedThreads() { let_go(); }

}  // namespace ubp::runtime
