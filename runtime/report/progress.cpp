// Progress of long work, on a terminal only.
#include <unistd.h>

#include <ctime>
#include <string>

#include "runtime/report/report.h"

namespace ubp::report {
namespace {

constexpr std::int64_t kFirst_ns = 300'000'000, kInterval_ns = 100'000'000;

std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Progress::Progress() : is_terminal_(isatty(STDERR_FILENO) != 0), next_ns_(now_ns() + kFirst_ns) {}

void Progress::show(std::string_view text) {
  if (!is_terminal_ || now_ns() < next_ns_) return;
  next_ns_ = now_ns() + kInterval_ns;
  shown_ = true;
  error_stream().write("\r\033[Kubp: " + std::string(text));
}

void Progress::clear() {
  if (shown_) error_stream().write("\r\033[K");
  shown_ = false;
}

}  // namespace ubp::report
