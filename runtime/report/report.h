// How UBP speaks: one-line messages while the program runs, the summary at its end. Never on standard output.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/report/summary.h"

namespace ubp::report {

enum class Level : std::uint8_t { kDebug, kInfo, kWarning, kError, kOff };

// A private, close-on-exec duplicate of standard error taken at load (>= descriptor 100 where the limit
// allows), because programs close descriptor 2 in their exit handlers. Before each use it is compared
// (st_dev, st_ino) with the file it was taken from, so that a descriptor the application closed and reused is
// never written to.
class ErrorStream {
 public:
  // The duplicate (-1: none), and which file it is.
  struct Source {
    int descriptor = -1;
    dev_t device = 0;
    ino_t inode = 0;
  };

  ErrorStream();   // takes the duplicate; harmless when descriptor 2 is closed
  ~ErrorStream();  // closes it, unless the application has reused its number
  ErrorStream(const ErrorStream&) = delete;
  ErrorStream& operator=(const ErrorStream&) = delete;

  // All of it, retrying short writes and EINTR. When the duplicate is gone, descriptor 2 is used while it
  // still is the same file; otherwise silently nothing. errno and the application's SIGPIPE survive.
  void write(std::string_view text) const;
  void release();  // closes the duplicate now
  const Source& source() const { return source_; }
  void replace(const Source& source);  // by another descriptor of that file, or by none

 private:
  bool is_ours(int fd) const;

  bool is_known_ = false;  // which file it is: that of descriptor 2 at construction, or another process's
  Source source_;
};

// The process's ErrorStream: taken at the first call (call it first thing at load), never destroyed.
const ErrorStream& error_stream();

// Gives the duplicate back: in a forked child, since a daemon must not hold its starter's pipe open, and where the
// report goes to a file, since the application must meet no descriptor of UBP's. What is still to be said goes to
// descriptor 2 while that is the same file. Async-signal-safe: yes.
void release_error_duplicate();

// What is said goes to another process's standard error from here on: to this descriptor of it, or to descriptor 2 if
// that is the same file; else nowhere.
void redirect_errors(const ErrorStream::Source& source);

// Sets the lowest level that say() prints. Default kWarning.
void set_level(Level level);
bool says(Level level);                                   // whether say() prints it
std::optional<Level> parse_level(std::string_view text);  // debug info warn warning error off

// Prints "ubp: <level>: <text>" as one line on standard error through spdlog with a sink on ErrorStream.
// kInfo prints "ubp: <text>". Control characters in text become '?', and a line is cut at 500 bytes ("...").
// Context: load time and exit. Async-signal-safe: no. Thread-safe: yes.
void say(Level level, std::string_view text);

// "ubp: <text>" on one line of a terminal that is overwritten; nothing when standard error is no terminal, nothing in
// the first 0.3 s, then at most ten times a second. Load time only.
class Progress {
 public:
  Progress();
  void show(std::string_view text);
  void clear();  // leaves the line empty; the destructor does not

 private:
  bool is_terminal_ = false;
  bool shown_ = false;
  std::int64_t next_ns_ = 0;
};

// A longer table leaves out the probes that were never hit.
inline constexpr std::size_t kMaxRowsWithoutHits = 200;
// The block and the table a person reads; every line starts with "ubp: ". Probes sorted by hits, most first.
std::string format_text(const Summary& summary);
// The same as JSON, the stable schema of ubp-probes(7), REPORT. Ends in a newline.
std::string format_json(const Summary& summary);

}  // namespace ubp::report
