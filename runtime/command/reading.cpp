// See reading.h.
#include "runtime/command/reading.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

namespace ubp::command {
namespace {

// The end of a path, so that the line is no longer than the terminal is wide: only one row can be erased.
std::string line_of(const std::string& path) {
  constexpr std::string_view kBefore = "reading the debug information of ", kBehind = " ...", kCut = "...";
  constexpr std::size_t kPrefix = 5, kUsual = 80;  // "ubp: "
  winsize size{};
  const bool is_known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
  const std::size_t columns = is_known ? size.ws_col : kUsual, others = kPrefix + kBefore.size() + kBehind.size() + 1;
  const std::size_t room = columns > others + kCut.size() ? columns - others : kCut.size();
  if (path.size() <= room) return fmt::format("{}{}{}", kBefore, path, kBehind);
  return fmt::format("{}{}{}{}", kBefore, kCut, path.substr(path.size() - (room - kCut.size())), kBehind);
}

}  // namespace

Reading::Reading(std::string path) : path_(std::move(path)) {
  if (isatty(STDERR_FILENO) == 0) return;
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGRTMIN);  // end()'s
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    struct sigaction its {};
    if (sigaction(number, nullptr, &its) == 0 && its.sa_handler == SIG_DFL) sigaddset(&signals_, number);
  }
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  watcher_ = std::jthread([this] { watch(); });
}

void Reading::of(const std::string& path) {
  const std::lock_guard guard(lock_);
  path_ = path;
}

void Reading::end() {
  if (!watcher_.joinable()) return;
  is_over_ = true;
  pthread_kill(watcher_.native_handle(), SIGRTMIN);
  watcher_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void Reading::watch() {
  constexpr timespec kTurn{0, 20'000'000};
  for (;;) {
    const int signal = sigtimedwait(&signals_, nullptr, &kTurn);
    if (signal <= 0 && !is_over_) {
      const std::lock_guard guard(lock_);
      progress_.show(line_of(path_));
      continue;
    }
    progress_.clear();
    if (is_over_) return;
    sigset_t its;
    sigemptyset(&its);
    sigaddset(&its, signal);
    pthread_sigmask(SIG_UNBLOCK, &its, nullptr);
    raise(signal);  // which ends the command, unless somebody else has sent end()'s
    pthread_sigmask(SIG_BLOCK, &its, nullptr);
  }
}

}  // namespace ubp::command
