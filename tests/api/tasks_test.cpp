// Consumers and calls of the interface in threads that are cancelled, or change their group; and signals meanwhile.
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

// Saves all, works, and goes on where the thread was: past the return address that a handler has pushed, and the red
// zone above it.
extern "C" void test_trampoline();
extern "C" __attribute__((used)) void test_preempted();
asm(".text\ntest_trampoline:\n"
    "pushfq; push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi\n"
    "push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, %rbp; and $-16, %rsp; cld; call test_preempted; mov %rbp, %rsp\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8\n"
    "pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax; popfq; ret $128\n");

namespace {

std::atomic<long> g_preempted, g_seen;

std::atomic<int> g_step;

}  // namespace

TEST_CASE("setid_in_consumer_beside_unregister: whoever waits for a consumer is no thread that it waits for") {
  const auto body = []() -> int {
    g_step = 0;
    const auto consumer = [](const ubp_context*, void*) {
      g_step = 1;
      while (g_step != 2) std::this_thread::yield();
      usleep(100'000);
      g_step = setgid(getgid()) == 0 ? 3 : 4;
    };
    ubp_probe* const probe = add("libfx_target:target_add", consumer);
    std::thread thread([] { target_add(1, 1); });
    while (g_step != 1) std::this_thread::yield();
    g_step = 2;
    const bool done = ubp_unregister(probe) == UBP_OK && g_step == 3;
    thread.join();
    return done ? 0 : 1;
  };
  CHECK(end_of_child(20, body) == 0);
}

TEST_CASE("setgid while a consumer of another thread runs, and waits for it") {
  const auto body = []() -> int {
    g_step = 0;
    const auto consumer = [](const ubp_context*, void*) {
      g_step = 1;
      while (g_step != 2) usleep(1000);
    };
    const Scoped probe(add("libfx_target:target_add", consumer));
    std::thread thread([] { target_add(1, 1); });
    while (g_step != 1) std::this_thread::yield();
    const bool done = setgid(getgid()) == 0;
    g_step = 2;
    thread.join();
    return done ? 0 : 1;
  };
  CHECK(end_of_child(20, body) == 0);
}

TEST_CASE("cancel_pending: neither a consumer nor a call is where a thread ends that is to be cancelled") {
#ifdef __SANITIZE_ADDRESS__
  MESSAGE("skipped: the address sanitizer takes a cancelled thread's stack for poisoned");
  return;
#endif
  const auto body = []() -> int {
    static int ran, wrong, file;
    static ubp_status status;
    ran = wrong = 0;
    file = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const auto consumer = [](const ubp_context*, void*) {
      ++ran;
      wrong += write(file, "x", 1) != 1;  // a cancellation point
    };
    const Scoped probe(add("libfx_target:target_add", consumer));
    g_step = 0;
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          g_step = 1;
          while (g_step != 2) {
          }
          for (int i = 0; i < 600; ++i) wrong += target_add(i, 1) != i + 1;
          ubp_probe* other = nullptr;
          status = ubp_register("libstdc++:*filebuf*open*", nullptr, &other, nullptr);
          if (status == UBP_OK) status = ubp_unregister(other);
          g_step = 3;
          int state = -1;
          pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
          wrong += state != PTHREAD_CANCEL_ENABLE;
          pthread_testcancel();
          g_step = 4;
          return nullptr;
        },
        nullptr);
    while (g_step != 1) std::this_thread::yield();
    pthread_cancel(thread);
    g_step = 2;
    void* end = nullptr;
    pthread_join(thread, &end);
    const bool counted = read(probe.probe).recorded == 600 && ran == 600;
    return end == PTHREAD_CANCELED && g_step == 3 && wrong == 0 && status == UBP_OK && counted ? 0 : 1;
  };
  CHECK(end_of_child(20, body) == 0);
}

void test_preempted() { ++g_preempted; }

TEST_CASE("preempt_trampoline_exact: a hit's consumers run once, wherever a handler sends the thread in between") {
  static std::atomic<bool> stop;
  static std::atomic<long> runs;
  static std::uint64_t low;
  runs = g_preempted = g_seen = 0;
  stop = false;
  low = reinterpret_cast<std::uint64_t>(&target_add);
  struct sigaction act {
  }, old{};
  act.sa_sigaction = [](int, siginfo_t*, void* context) {
    greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    ++g_seen;
    if (static_cast<std::uint64_t>(registers[REG_RIP]) - low >= 16) return;
    registers[REG_RSP] -= 128 + 8;
    *reinterpret_cast<greg_t*>(registers[REG_RSP]) = registers[REG_RIP];
    registers[REG_RIP] = reinterpret_cast<greg_t>(&test_trampoline);
  };
  act.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGUSR1, &act, &old);
  {
    const Scoped probe(add("libfx_target:target_add",
                           [](const ubp_context*, void*) { runs.fetch_add(1, std::memory_order_relaxed); }));
    const pthread_t self = pthread_self();
    std::thread sender([self] {
      while (!stop) {
        const long before = g_seen;
        pthread_kill(self, SIGUSR1);
        while (!stop && g_seen == before) usleep(1);
        usleep(10);
      }
    });
    long calls = 0, wrong = 0;
    for (; calls < 2'000'000 && (calls < 100'000 || g_preempted < 200); ++calls)
      wrong += target_add(calls, 1) != calls + 1;
    stop = true;
    sender.join();
    CHECK(wrong == 0);
    CHECK(runs == calls);
    CHECK(read(probe.probe).recorded == static_cast<std::uint64_t>(calls));
    CHECK(g_preempted > 0);
  }
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE("a thread that a handler led away from a hit, for good, leaves nothing to the next one on its stack") {
  static std::atomic<long> runs;
  static std::atomic<bool> leaves;
  const auto body = []() -> int {
    constexpr std::size_t kStack = 1 << 18;
    constexpr long kThreads = 20;
    runs = 0;
    leaves = true;
    struct sigaction act {};
    act.sa_sigaction = [](int, siginfo_t*, void* context) {
      void (*const leave)() = [] { pthread_exit(nullptr); };
      static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(leave);
    };
    act.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &act, nullptr);
    if (ubp_init(nullptr) != UBP_OK) return 1;
    const Scoped probe(add("libfx_target:target_add", [](const ubp_context*, void*) {
      ++runs;
      if (leaves.exchange(false)) pthread_kill(pthread_self(), SIGUSR1);  // waits until the consumer has returned
    }));
    void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, kStack);
    for (long i = 0; i < kThreads; ++i) {
      pthread_t thread;
      pthread_create(
          &thread, &attributes, [](void*) -> void* { return reinterpret_cast<void*>(target_add(1, 2)); }, nullptr);
      void* sum = nullptr;
      pthread_join(thread, &sum);
      if (sum != (i == 0 ? nullptr : reinterpret_cast<void*>(3))) return 2;
    }
    return runs == kThreads && read(probe.probe).recorded == kThreads ? 0 : 3;
  };
  CHECK(end_of_child(20, body) == 0);
}

TEST_CASE("rt_signals_in_order: those that come while consumers run are handled as they were sent") {
  constexpr int kSignals = 10'000;
  static std::atomic<int> handled, wrong;
  handled = wrong = 0;
  struct sigaction act {
  }, old{};
  act.sa_sigaction = [](int, siginfo_t* info, void*) {
    wrong += info->si_value.sival_int != handled;
    ++handled;
  };
  act.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGRTMIN, &act, &old);
  {
    const Scoped probe(add("libfx_target:target_add", [](const ubp_context*, void*) {
      for (int i = 0; i < 200; ++i) asm volatile("");
    }));
    const pthread_t self = pthread_self();
    std::thread sender([self] {
      for (int i = 0; i < kSignals;) {
        sigval value{};
        value.sival_int = i;
        if (pthread_sigqueue(self, SIGRTMIN, value) == 0) {
          ++i;
        } else {
          usleep(100);  // as many as may be pending
        }
      }
    });
    for (long i = 0; handled < kSignals && i < 20'000'000; ++i) target_add(i, 1);
    sender.join();
    CHECK(handled == kSignals);
    CHECK(wrong == 0);
  }
  sigaction(SIGRTMIN, &old, nullptr);
}

TEST_CASE("a signal that waits for a consumer and whose handler is for once") {
  static std::atomic<int> handled;
  handled = 0;
  struct sigaction act {
  }, old{}, now{};
  act.sa_handler = [](int) { ++handled; };
  act.sa_flags = SA_RESETHAND;
  sigaction(SIGUSR2, &act, &old);
  {
    const Scoped probe(add("libfx_target:target_add", [](const ubp_context*, void*) {
      if (handled == 0) pthread_kill(pthread_self(), SIGUSR2);
    }));
    CHECK(target_add(1, 2) == 3);
    CHECK(target_add(1, 2) == 3);
  }
  CHECK(handled == 1);
  sigaction(SIGUSR2, &old, &now);
  CHECK((now.sa_handler == SIG_DFL));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need the storage themselves
TEST_CASE("a consumer does not run where %fs does not lead to libc's storage: those hits are missed") {
  const auto body = []() -> int {
    constexpr long kSetFs = 0x1002, kGetFs = 0x1003;
    g_seen = 0;
    ubp_probe* const probe = add("libfx_target:target_add", [](const ubp_context*, void*) { ++g_seen; });
    target_add(1, 1);
    unsigned long own = 0;
    syscall(SYS_arch_prctl, kGetFs, &own);
    syscall(SYS_arch_prctl, kSetFs, 0UL);
    for (int i = 0; i < 50; ++i) target_add(1, 1);
    syscall(SYS_arch_prctl, kSetFs, own);
    target_add(1, 1);
    const ubp_probe_stats stats = read(probe);
    return stats.hits == 52 && stats.recorded == 2 && stats.missed == 50 && g_seen == 2 ? 0 : 1;
  };
  CHECK(end_of_child(20, body) == 0);
}
#endif
