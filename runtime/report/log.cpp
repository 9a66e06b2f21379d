// One-line messages through spdlog, and the private standard error below them.
//
// The only file that includes spdlog. It uses a logger and a sink of its own, never spdlog's registry, thread
// ids or thread-local storage: nothing is shared with an application that uses spdlog too. Context: load time
// and exit. errno survives every call.
#define SPDLOG_NO_THREAD_ID
#define SPDLOG_NO_TLS
#include <fcntl.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/sink.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <memory>

#include "runtime/report/descriptor.h"
#include "runtime/report/line.h"
#include "runtime/report/report.h"
#include "xol/assert.h"

namespace ubp::report {
namespace {

constexpr std::size_t kMaxLineBytes = 500;
constexpr std::string_view kCut = "...";
constexpr int kLowest = 100;

class ErrnoKeeper {
 public:
  ErrnoKeeper() = default;
  ~ErrnoKeeper() { errno = saved_; }
  ErrnoKeeper(const ErrnoKeeper&) = delete;
  ErrnoKeeper& operator=(const ErrnoKeeper&) = delete;

 private:
  int saved_ = errno;
};

bool is_utf8_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Cuts at kMaxLineBytes, never inside a UTF-8 sequence.
void cut_line(std::string& line) {
  if (line.size() <= kMaxLineBytes) return;
  std::size_t end = kMaxLineBytes - kCut.size();
  while (end > 0 && is_utf8_continuation(line[end])) --end;
  line.resize(end);
  line += kCut;
}

// The form of a line is part of the interface, so spdlog's patterns have no say in it.
class ErrorSink final : public spdlog::sinks::sink {
 public:
  void log(const spdlog::details::log_msg& message) override {
    std::string line = "ubp: ";
    if (message.level != spdlog::level::info) {
      const spdlog::string_view_t name = spdlog::level::to_string_view(message.level);
      line.append(name.data(), name.size());
      line += ": ";
    }
    append_printable(line, {message.payload.data(), message.payload.size()});
    cut_line(line);
    line += '\n';
    error_stream().write(line);
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}
};

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarning: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
    case Level::kOff: break;
  }
  return spdlog::level::off;
}

// Never destroyed: the summary is written after the application's and the library's static destructors.
spdlog::logger& logger() {
  static spdlog::logger& instance = []() -> spdlog::logger& {
    auto* made = new spdlog::logger("ubp", std::make_shared<ErrorSink>());
    made->set_level(to_spdlog(Level::kWarning));
    return *made;
  }();
  return instance;
}

}  // namespace

ErrorStream::ErrorStream() {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::fstat(STDERR_FILENO, &status) != 0) return;
  source_ = {-1, status.st_dev, status.st_ino};
  is_known_ = true;
  // High numbers stay clear of programs that count on the lowest free descriptor; a low limit forbids them.
  for (const int lowest : {kLowest, 10, 3}) {
    source_.descriptor = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, lowest);
    if (source_.descriptor >= 0) break;
  }
}

ErrorStream::~ErrorStream() { release(); }

void ErrorStream::release() {
  const ErrnoKeeper keeper;
  if (is_ours(source_.descriptor)) ::close(source_.descriptor);
  source_.descriptor = -1;
}

void ErrorStream::replace(const Source& source) {
  release();
  const ErrnoKeeper keeper;
  source_ = source;
  is_known_ = source.inode != 0;
  struct stat status {};
  // Descriptor 2 may have been free: then it is this very one.
  const bool is_own = source.descriptor != STDERR_FILENO && ::fstat(STDERR_FILENO, &status) == 0 &&
                      status.st_dev == source.device && status.st_ino == source.inode;
  if (source.descriptor >= 0) {
    source_.descriptor =
        is_ours(source.descriptor) && !is_own ? ::fcntl(source.descriptor, F_DUPFD_CLOEXEC, kLowest) : -1;
    ::close(source.descriptor);
  }
  if (is_own) source_.descriptor = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, kLowest);
}

bool ErrorStream::is_ours(int fd) const {
  struct stat status {};
  return is_known_ && fd >= 0 && ::fstat(fd, &status) == 0 && status.st_dev == source_.device &&
         status.st_ino == source_.inode;
}

void ErrorStream::write(std::string_view text) const {
  const ErrnoKeeper keeper;
  // Daemons close every descriptor above 2 (closefrom): descriptor 2 is as good while it is the same file.
  const int fd = is_ours(source_.descriptor) ? source_.descriptor : STDERR_FILENO;
  if (is_ours(fd)) write_all(fd, text);
}

namespace {

// Where a broken invariant is said (xol/assert.h): by whoever finds it, without a call.
void tell_asserts(const ErrorStream& stream) {
  constexpr auto kOrder = std::memory_order_relaxed;  // who reads them compares all three with a file
  g_error_output.duplicate.store(stream.source().descriptor, kOrder);
  g_error_output.device.store(stream.source().device, kOrder);
  g_error_output.inode.store(stream.source().inode, kOrder);
}

ErrorStream& process_stream() {
  static ErrorStream& instance = []() -> ErrorStream& {
    auto& made = *new ErrorStream();
    tell_asserts(made);
    return made;
  }();
  return instance;
}

}  // namespace

const ErrorStream& error_stream() { return process_stream(); }

void redirect_errors(const ErrorStream::Source& source) {
  process_stream().replace(source);
  tell_asserts(process_stream());
}

void release_error_duplicate() {
  process_stream().release();
  tell_asserts(process_stream());
}

void set_level(Level level) { logger().set_level(to_spdlog(level)); }
bool says(Level level) { return logger().should_log(to_spdlog(level)); }

std::optional<Level> parse_level(std::string_view text) {
  if (text == "debug") return Level::kDebug;
  if (text == "info") return Level::kInfo;
  if (text == "warn" || text == "warning") return Level::kWarning;
  if (text == "error") return Level::kError;
  if (text == "off") return Level::kOff;
  return std::nullopt;
}

void say(Level level, std::string_view text) {
  const ErrnoKeeper keeper;
  logger().log(to_spdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace ubp::report
