// Files UBP writes: where they go and how they are made. Created 0600, never through a link, one per process.
#pragma once

#include <sys/types.h>

#include <ctime>
#include <optional>
#include <string>
#include <string_view>

namespace ubp::report {

struct PathFields {       // what the % escapes stand for
  int pid = 0;            // %p
  std::string program;    // %n: basename of the executable
  std::time_t start = 0;  // %t: seconds since the epoch, decimal
  std::string host;       // %h
};

// Expands %p %n %t %h %% in a pattern. Returns nothing and sets error ("unknown escape '%x' ...") for any
// other. A '/' inside the program's or the host's name becomes '_'.
std::optional<std::string> expand_path(std::string_view pattern, const PathFields& fields, std::string& error);

// A place to write once, at exit. Made at load so that mistakes are told at load.
// Context: load time and exit. Async-signal-safe: no (allocates). Thread-safe: no.
class OutputFile {
 public:
  // Checks the escapes, that the directory exists or can be made (0700) and is writable, and that the target
  // is no directory, symbolic link, socket or block device, nor another user's FIFO. Links among the directories are
  // followed, as everywhere else, but not what another user may have put into a directory that all may write to.
  // variable: "UBP_OUTPUT" or "UBP_SUMMARY", for messages. pattern: as the user typed it; made absolute against the
  // present working directory. Returns an error line ("UBP_OUTPUT: cannot write in
  // '/x': Permission denied (choose another path)") or nothing. After an error, and for an empty pattern,
  // is_set() is false.
  std::optional<std::string> prepare(std::string_view variable, std::string_view pattern, const PathFields& fields);

  // Writes the whole content: to a new 0600 file (O_EXCL, O_NOFOLLOW, random name) beside the target, then
  // renamed over it. An existing character device or FIFO is written to instead, never waiting for a reader
  // to open it. Another process than the owner whose pattern has no %p writes to
  // "<path>.<pid>". A process that has changed its root since writes only where the directory is the one that prepare
  // found, and makes none. Returns an error line or nothing; does nothing when !is_set().
  std::optional<std::string> write(std::string_view content, const PathFields& fields) const;

  // The process that writes under the very name, the others adding their ids where the pattern has no %p. The one at
  // prepare().
  void set_owner(int pid) { owner_ = pid; }

  bool is_set() const { return !pattern_.empty(); }
  std::string path(const PathFields& fields) const;  // where write() would put it

 private:
  struct Place {  // which directory it is, whatever its path
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const Place&) const = default;
  };
  static Place place_of(const std::string& directory);

  std::string variable_;  // "UBP_OUTPUT: "
  std::string pattern_;   // absolute, escapes still in
  int owner_ = 0;
  std::string base_;    // the directories before the first one that %p names
  Place root_, place_;  // of "/" and of base_
};

}  // namespace ubp::report
