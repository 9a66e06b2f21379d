// The first registration beside threads: thousands; one that blocks SIGTRAP; one whose first hit is on a stack of its own.
#include "fixture.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

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
          struct sigaction act {}, now{};
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
          ubp_probe* const probe =
              add("libfx_target:target_add", [](const ubp_context*, void*) { sum = sum + target_quiet(5); });  // that hit is a trap
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
