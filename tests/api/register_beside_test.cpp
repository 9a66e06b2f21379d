// Registration beside threads: thousands; one that blocks SIGTRAP; one whose first hit is on a stack of its own; one
// that runs on another's TLS; one that loads and unloads what is registered.
#include "fixture.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

// clone(flags, stack) by a system call of its own; the task calls the function and ends.
extern "C" long test_clone(unsigned long flags, void* stack, void (*function)());
asm(".text\ntest_clone: push %r12\nmov %rdx, %r12\nxor %edx, %edx\nxor %r10d, %r10d\nxor %r8d, %r8d\n"
    "mov $56, %eax\nsyscall\ntest %rax, %rax\njnz 1f\nxor %ebp, %ebp\ncall *%r12\nmov $60, %eax\nxor %edi, %edi\nsyscall\n"
    "1: pop %r12\nret\n");

namespace {

pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t g_go = PTHREAD_COND_INITIALIZER;
bool g_may_go = false;
std::atomic<long> g_waiting{0};

void* waits(void*) {
  pthread_mutex_lock(&g_mutex);
  ++g_waiting;
  while (!g_may_go) pthread_cond_wait(&g_go, &g_mutex);
  pthread_mutex_unlock(&g_mutex);
  target_add(1, 2);
  return nullptr;
}

}  // namespace

TEST_CASE("register_beside_5000_threads") {
  constexpr int kThreads = 5000, kSkipped = 77;
  const int status = end_of_child(100, []() -> int {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    std::vector<pthread_t> threads(kThreads);
    for (pthread_t& thread : threads) {
      if (pthread_create(&thread, &attributes, waits, nullptr) != 0) return kSkipped;
    }
    while (g_waiting != kThreads) usleep(1000);
    const ubp_config config = [] {
      auto made = sized<ubp_config>();
      made.max_probepoints = 1000;
      return made;
    }();
    if (ubp_init(&config) != UBP_OK) return 1;
    ubp_probe* probe = nullptr;
    auto refusal = sized<ubp_refusal>();
    if (ubp_register("libfx_target:target_add", nullptr, &probe, &refusal) != UBP_OK) {
      MESSAGE(std::string(refusal.message));
      return 2;
    }
    pthread_mutex_lock(&g_mutex);
    g_may_go = true;
    pthread_cond_broadcast(&g_go);
    pthread_mutex_unlock(&g_mutex);
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    return read(probe).hits == kThreads ? 0 : 3;
  });
  if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
    MESSAGE("skipped: so many threads cannot be made here");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("a thread that blocks SIGTRAP for good is named, and the program is as it was") {
  CHECK(end_of_child(100, []() -> int {
          static std::atomic<int> number{0};
          pthread_t thread;
          pthread_create(
              &thread, nullptr,
              [](void*) -> void* {
                sigset_t all;
                sigfillset(&all);
                pthread_sigmask(SIG_BLOCK, &all, nullptr);
                number = gettid();
                for (;;) pause();
              },
              nullptr);
          while (number == 0) usleep(1000);
          struct sigaction act {
          }, now{};
          act.sa_handler = [](int) {};
          sigaction(SIGTRAP, &act, nullptr);
          if (ubp_init(nullptr) != UBP_OK) return 1;
          auto refusal = sized<ubp_refusal>();
          if (ubp_register("libfx_target:target_add", nullptr, nullptr, &refusal) != UBP_E_SYSTEM) return 2;
          const std::string wanted = "thread " + std::to_string(number) + " blocks SIGTRAP";
          if (std::string(refusal.message).find(wanted) == std::string::npos) return 3;
          sigaction(SIGTRAP, nullptr, &now);
          return now.sa_handler == act.sa_handler ? 0 : 4;
        }) == 0);
}

TEST_CASE("a thread whose first hit is on its own alternate stack: what lives there stays") {
  static std::atomic<int> step{0};
  static int wrong, calls;
  static volatile long sum;
  static void (*const handler)(int) = [](int) {
    volatile unsigned char lives[4096];
    for (unsigned i = 0; i < sizeof lives; ++i) lives[i] = static_cast<unsigned char>(i * 7);
    for (int i = 0; i < 50; ++i) wrong += target_add(i, 1) != i + 1;
    for (unsigned i = 0; i < sizeof lives; ++i) wrong += lives[i] != static_cast<unsigned char>(i * 7);
    ++calls;
    ++step;
  };
  for (const bool at_once : {true, false}) {
    CAPTURE(at_once);
    CHECK(end_of_child(100, [&]() -> int {
            pthread_t thread;
            pthread_create(
                &thread, nullptr,
                [](void*) -> void* {
                  constexpr std::size_t kBytes = 65536;
                  stack_t stack{};
                  stack.ss_sp = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                  stack.ss_size = kBytes;
                  sigaltstack(&stack, nullptr);
                  step = 1;
                  while (step != 3) {  // two handlers, and no hit but theirs
                  }
                  for (int i = 0; i < 50; ++i) wrong += target_add(i, 1) != i + 1;
                  return nullptr;
                },
                nullptr);
            while (step != 1) usleep(1000);
            struct sigaction act {};
            act.sa_handler = handler;
            act.sa_flags = SA_ONSTACK;
            sigaction(SIGUSR1, &act, nullptr);
            if (ubp_init(nullptr) != UBP_OK) return 1;
            ubp_probe* const quiet = add("libfx_target:target_quiet");
            ubp_probe* const probe = add("libfx_target:target_add", [](const ubp_context*, void*) {
              sum = sum + target_quiet(5);
            });                            // that hit is a trap
            if (!at_once) usleep(20'000);  // it has left the place where it was held
            for (int next = 2; next <= 3; ++next) {
              pthread_kill(thread, SIGUSR1);
              while (step != next) usleep(1000);
            }
            pthread_join(thread, nullptr);
            return wrong == 0 && calls == 2 && read(probe).recorded == 150 && read(quiet).missed == 150 ? 0 : 2;
          }) == 0);
  }
}

TEST_CASE(
    "a task that a system call of the program's has put on another's TLS, before the first probe: no jumps, exact counts") {
  static constexpr long kCalls = 300;
  static std::atomic<bool> may_go{false}, has_ended{false};
  static std::atomic<long> wrong{0};
  static const auto work = [] {
    for (long i = 0; i < kCalls; ++i) wrong += target_add(i, 2 * i) != 3 * i;
  };
  for (const bool shares : {false, true}) {
    CAPTURE(shares);
    CHECK(end_of_child(100, [&]() -> int {
            constexpr std::size_t kStack = std::size_t{1} << 17;
            target_add(1, 2);  // bound before two tasks may bind it
            if (shares) {
              auto* const stack =
                  static_cast<char*>(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
              constexpr unsigned long kThread =
                  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
              const auto task = [] {
                while (!may_go) __builtin_ia32_pause();
                work();
                has_ended = true;
              };
              if (test_clone(kThread, stack + kStack, task) < 0) return 1;
            }
            auto config = sized<ubp_config>();
            config.optimize = UBP_OPTIMIZE_ALWAYS;
            if (ubp_init(&config) != UBP_OK) return 2;
            ubp_probe* const probe = add("libfx_target:target_add");
            may_go = true;
            work();
            while (shares && !has_ended) usleep(1000);
            auto stats = sized<ubp_stats>();
            if (ubp_read(&stats) != UBP_OK) return 3;
            if (stats.optimised_probepoints != (shares ? 0 : 1)) return 4;
            return wrong == 0 && read(probe).hits == (shares ? 2 : 1) * kCalls ? 0 : 5;
          }) == 0);
  }
}

TEST_CASE("registration beside a thread that loads and unloads what is registered") {
  static std::atomic<bool> stops{false};
  CHECK(end_of_child(100, []() -> int {
          constexpr int kRounds = 1500;
          if (ubp_init(nullptr) != UBP_OK) return 1;
          pthread_t thread;
          pthread_create(
              &thread, nullptr,
              [](void*) -> void* {
                while (!stops) {
                  if (void* const module = dlopen(FX_LATE, RTLD_NOW)) dlclose(module);
                }
                return nullptr;
              },
              nullptr);
          for (int round = 0; round < kRounds; ++round) {
            ubp_probe* probe = nullptr;
            if (ubp_register("insn:libfx_late:*", nullptr, &probe, nullptr) == UBP_OK) ubp_unregister(probe);
            if (round == kRounds / 2) ubp_unregister(add("libc:memcpy"));  // an IFUNC
          }
          stops = true;
          pthread_join(thread, nullptr);
          void* const module = dlopen(FX_LATE, RTLD_NOW);
          const auto first = reinterpret_cast<long (*)()>(dlsym(module, "page_0_first"));
          ubp_probe* const probe = add("libfx_late:page_0_first");
          for (int call = 0; call < 100; ++call) first();
          return read(probe).hits == 100 ? 0 : 2;
        }) == 0);
}

TEST_CASE("a process of a PID namespace that has not its own /proc, alone and beside a thread") {
  constexpr int kSkipped = 77;
  for (const bool has_thread : {false, true}) {
    CAPTURE(has_thread);
    const int status = end_of_child(100, [&]() -> int {
      if (unshare(CLONE_NEWPID) != 0) return kSkipped;
      const int inner = end_of_child(100, [&]() -> int {
        static std::atomic<bool> may_go{false};
        if (getpid() != 1) return 1;
        pthread_t thread{};
        const auto calls = [](void*) -> void* {
          while (!may_go) usleep(1000);
          for (int call = 0; call < 100; ++call) target_add(call, 1);
          return nullptr;
        };
        if (has_thread) pthread_create(&thread, nullptr, calls, nullptr);
        if (ubp_init(nullptr) != UBP_OK) return 2;
        ubp_probe* probe = nullptr;
        auto refusal = sized<ubp_refusal>();
        if (ubp_register("libfx_target:target_add", nullptr, &probe, &refusal) != UBP_OK) {
          MESSAGE(std::string(refusal.message));
          return 3;
        }
        may_go = true;
        calls(nullptr);
        if (has_thread) pthread_join(thread, nullptr);
        return read(probe).hits == (has_thread ? 200 : 100) ? 0 : 4;
      });
      return WIFEXITED(inner) ? WEXITSTATUS(inner) : 9;
    });
    if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
      MESSAGE("skipped: no PID namespace can be made here");
      return;
    }
    CHECK(status == 0);
  }
}

TEST_CASE("more modules than there are numbers of ten bits") {
  constexpr int kModules = 1100, kSkipped = 77;
  std::string folder = "/tmp/ubp_modules_XXXXXX";
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  const int status = end_of_child(300, [&]() -> int {
    void* module = nullptr;
    for (int number = 0; number < kModules; ++number) {
      const std::string path = folder + "/many_" + std::to_string(number) + ".so";
      std::filesystem::copy_file(FX_LATE, path);
      module = dlopen(path.c_str(), RTLD_NOW);
      if (module == nullptr) return kSkipped;
    }
    if (ubp_init(nullptr) != UBP_OK) return 1;
    const auto first = reinterpret_cast<long (*)()>(dlsym(module, "page_0_first"));
    ubp_probe* const probe = add(("many_" + std::to_string(kModules - 1) + ":page_0_first").c_str());
    for (int call = 0; call < 100; ++call) first();
    return read(probe).hits == 100 ? 0 : 2;
  });
  std::filesystem::remove_all(folder);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
    MESSAGE("skipped: so many modules cannot be loaded here");
    return;
  }
  CHECK(status == 0);
}
