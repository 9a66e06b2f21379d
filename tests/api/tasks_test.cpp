// Consumers and calls of the interface in threads that are cancelled, or change their group.
#include "fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace {

// How a child ends that does this; it is killed after 20 seconds.
template <typename Body>
int end_of_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body());
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

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
  CHECK(end_of_child(body) == 0);
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
  CHECK(end_of_child(body) == 0);
}

TEST_CASE("cancel_pending: neither a consumer nor a call is where a thread ends that is to be cancelled") {
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
  CHECK(end_of_child(body) == 0);
}
