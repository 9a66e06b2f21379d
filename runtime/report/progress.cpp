// Progress of long work, on a terminal only.
#include <unistd.h>

#include <string>

#include "runtime/base/clock.h"
#include "runtime/report/report.h"

namespace ubp::report {
namespace {

constexpr std::int64_t kFirst_ns = 300'000'000, kInterval_ns = 100'000'000;

}  // namespace

Progress::Progress() : is_terminal_(isatty(STDERR_FILENO) != 0), next_ns_(runtime::monotonic_ns() + kFirst_ns) {}

void Progress::show(std::string_view text) {
  if (!is_terminal_ || runtime::monotonic_ns() < next_ns_) return;
  next_ns_ = runtime::monotonic_ns() + kInterval_ns;
  shown_ = true;
  error_stream().write("\r\033[Kubp: " + std::string(text));
}

void Progress::clear() {
  if (shown_) error_stream().write("\r\033[K");
  shown_ = false;
}

}  // namespace ubp::report
