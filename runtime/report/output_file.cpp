// Making and replacing the files UBP writes. See output_file.h.
//
//   prepare (load)   expand -> absolute -> directories -> checks, so that mistakes are told before the
//   program runs write (exit)     regular or missing target:  new 0600 file beside it, renamed over it: never
//   through a link
//                    FIFO, character device:     opened and written to, without waiting for a reader
// Context: load time and exit, never inside a hit. Errors are one line: variable, what, where, why, what to
// do.
#include "runtime/report/output_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "runtime/base/clock.h"
#include "runtime/report/descriptor.h"
#include "xol/sys.h"

namespace ubp::report {
namespace {

constexpr std::string_view kChooseAnother = "choose another path";
constexpr int kNameAttempts = 16;

struct Target {
  std::string directory;
  std::string name;
};

// path: absolute.
Target split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

std::string reason_of(int error) {
  const char* text = strerrordesc_np(error);  // not strerror: it translates, with the application's locale
  return text != nullptr ? text : "error " + std::to_string(error);
}

std::string failure(std::string_view what, std::string_view where, std::string_view why,
                    std::string_view advice = kChooseAnother) {
  std::string text(what);
  text += " '";
  text += where;
  text += "': ";
  text += why;
  text += " (";
  text += advice;
  return text + ')';
}

// Why a file of this kind is no place to write, or nothing.
std::optional<std::string_view> refuse_kind(mode_t mode) {
  if (S_ISREG(mode) || S_ISCHR(mode) || S_ISFIFO(mode)) return std::nullopt;
  if (S_ISLNK(mode)) return "it is a symbolic link, and UBP never writes through one";
  if (S_ISDIR(mode)) return "it is a directory";
  return "it is neither a regular file, a FIFO nor a character device";
}

bool is_stream(mode_t mode) { return S_ISCHR(mode) || S_ISFIFO(mode); }

// What stands in a directory that others may write to, and is neither this user's nor root's nor the directory's
// owner's, another user may have put there: the kernel's fs.protected_symlinks has the same rule for links.
bool may_be_planted(const struct stat& directory, const struct stat& entry) {
  const bool is_sticky = (directory.st_mode & S_ISVTX) != 0;
  const bool is_shared = (directory.st_mode & S_IWOTH) != 0 || (is_sticky && (directory.st_mode & S_IWGRP) != 0);
  const bool is_owners = is_sticky && entry.st_uid == directory.st_uid;
  return is_shared && !is_owners && entry.st_uid != ::geteuid() && entry.st_uid != 0;
}

constexpr std::string_view kPlanted = "it belongs to another user, who may have put it there";

// Where the program has used up its descriptors, there are some more as long as this lives, if its hard limit allows
// it.
class Descriptors {
 public:
  Descriptors() {
    const int any = ::open("/", O_PATH | O_CLOEXEC);
    if (any >= 0) {
      ::close(any);
    } else if (errno == EMFILE && ::getrlimit(RLIMIT_NOFILE, &before_) == 0) {
      constexpr rlim_t kNeeded = 16;
      const rlimit more{before_.rlim_cur + std::min(kNeeded, before_.rlim_max - before_.rlim_cur), before_.rlim_max};
      is_raised_ = ::setrlimit(RLIMIT_NOFILE, &more) == 0;
    }
  }
  ~Descriptors() {
    if (is_raised_) ::setrlimit(RLIMIT_NOFILE, &before_);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

 private:
  rlimit before_{};
  bool is_raised_ = false;
};

// Opens a directory (O_PATH) component by component, making what is missing with mode 0700; links are followed, but
// none that another user may have put there, nor a directory of his. Returns the descriptor; -1 and an error line in
// `problem`.
int open_directory(const std::string& directory, std::optional<std::string>& problem) {
  constexpr int kFlags = O_PATH | O_CLOEXEC;
  constexpr int kMostLinks = 40;  // as the kernel
  std::string rest = directory, done;
  int links = 0;
  int here = ::open("/", kFlags | O_DIRECTORY);
  const auto fail = [&](std::string_view what, std::string_view why) {
    problem = failure(what, links == 0 && !done.empty() ? done : directory, why);  // as it was typed
    if (here >= 0) ::close(here);
    return -1;
  };
  struct stat status {};
  if (here < 0 || ::fstat(here, &status) != 0) return fail("cannot write in", reason_of(errno));
  for (;;) {
    const std::size_t begin = rest.find_first_not_of('/');
    if (begin == rest.npos) return here;
    const std::size_t end = std::min(rest.find('/', begin), rest.size());
    const std::string name = rest.substr(begin, end - begin);
    rest.erase(0, end);
    done += '/' + name;
    int next = ::openat(here, name.c_str(), kFlags | O_NOFOLLOW);
    if (next < 0 && errno == ENOENT) {
      if (::mkdirat(here, name.c_str(), 0700) != 0 && errno != EEXIST)
        return fail("cannot make the directory", reason_of(errno));
      next = ::openat(here, name.c_str(), kFlags | O_NOFOLLOW);
    }
    const struct stat parent = status;
    if (next < 0 || ::fstat(next, &status) != 0) {
      const int error = errno;
      if (next >= 0) ::close(next);
      return fail("cannot write in", reason_of(error));
    }
    const bool is_planted = name != ".." && may_be_planted(parent, status);
    char target[PATH_MAX];
    const bool is_link = S_ISLNK(status.st_mode);
    const ssize_t length = is_link && !is_planted ? ::readlinkat(next, "", target, sizeof target - 1) : 0;
    if (is_planted || length < 0 || (!is_link && !S_ISDIR(status.st_mode)) || (is_link && ++links > kMostLinks)) {
      const std::string why = is_planted ? std::string(kPlanted)
                                         : reason_of(length < 0 ? errno
                                                     : is_link  ? ELOOP
                                                                : ENOTDIR);
      ::close(next);
      return fail("cannot write in", why);
    }
    if (!is_link) {
      ::close(here);
      here = next;
      continue;
    }
    ::close(next);
    target[length] = '\0';
    rest = std::string(target) + rest;
    done.resize(done.size() - name.size() - 1);
    if (target[0] == '/') {
      done.clear();
      ::close(here);
      here = ::open("/", kFlags | O_DIRECTORY);
      if (here < 0) return fail("cannot write in", reason_of(errno));
    }
    if (::fstat(here, &status) != 0) return fail("cannot write in", reason_of(errno));
  }
}

// A reader of another user's would get what is written; root's are trusted.
bool is_foreign(const struct stat& status) {
  return S_ISFIFO(status.st_mode) && status.st_uid != ::geteuid() && status.st_uid != 0;
}

// The file at target without following a link: its status, with mode 0 when there is none; or an error line.
std::optional<std::string> look_at(const Target& target, int directory, const std::string& path, struct stat& status) {
  if (::fstatat(directory, target.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    status = {};
    if (errno == ENOENT) return std::nullopt;
    return failure("cannot write", path, reason_of(errno));
  }
  auto why = refuse_kind(status.st_mode);
  if (!why && is_foreign(status)) why = kPlanted;
  if (why) return failure("cannot write", path, *why, "choose another path, or leave it out for standard error");
  return std::nullopt;
}

std::string random_name() {
  std::uint64_t random = 0;
  if (::getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
    random = static_cast<std::uint64_t>(runtime::monotonic_ns()) << 32 ^ static_cast<std::uint64_t>(::getpid());
  }
  char digits[16];
  return ".ubp-" + std::string(digits, std::to_chars(digits, digits + sizeof digits, random, 16).ptr) + ".tmp";
}

// Signals wait as long as it lives: one that ends the process would leave half a file behind.
class SignalsWait {
 public:
  SignalsWait() {
    const std::uint64_t all = ~(std::uint64_t{1} << (SIGTRAP - 1));  // the runtime's own
    sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, reinterpret_cast<long>(&all), reinterpret_cast<long>(&before_),
               sizeof all);
  }
  ~SignalsWait() { sys::set_signal_mask(before_); }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  std::uint64_t before_ = 0;
};

// A user's own file keeps the mode that he gave it, another's what is stricter than 0600; a new one has that.
mode_t mode_after(const struct stat& before) {
  constexpr mode_t kPrivate = 0600, kReadWrite = 0666;
  if (!S_ISREG(before.st_mode)) return kPrivate;
  return before.st_uid == ::geteuid() ? before.st_mode & kReadWrite : before.st_mode & kPrivate;
}

// Fills a new file and gives it the target's name. before: what has it now. Returns 0 or an errno; nothing is left
// behind then.
int replace_file(int directory, const Target& target, const struct stat& before, std::string_view content) {
  const SignalsWait no_signal_ends_this;
  std::string name;
  int made = -1;
  for (int attempt = 0; attempt < kNameAttempts && made < 0; ++attempt) {
    name = random_name();
    made = ::openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    if (made < 0 && errno != EEXIST) return errno;
  }
  if (made < 0) return errno;
  Descriptor file(made);
  mode_t mode = mode_after(before);
  constexpr mode_t kGroup = 0070;
  const bool has_group = (mode & kGroup) != 0 && ::fchown(file.get(), static_cast<uid_t>(-1), before.st_gid) == 0;
  if (!has_group) mode &= ~kGroup;                          // of another group
  int error = ::fchmod(file.get(), mode) == 0 ? 0 : errno;  // a umask may have taken bits away
  if (error == 0) error = write_all(file.get(), content);
  const int close_error = file.close();
  if (error == 0) error = close_error;
  if (error == 0 && ::renameat(directory, name.c_str(), directory, target.name.c_str()) != 0) error = errno;
  if (error != 0) ::unlinkat(directory, name.c_str(), 0);
  return error;
}

// Writes to a FIFO or character device. Never waits for a reader to come: the program is about to exit.
int write_stream(int directory, const Target& target, std::string_view content) {
  Descriptor stream(
      ::openat(directory, target.name.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY));
  if (!stream) return errno;
  struct stat status {};
  if (::fstat(stream.get(), &status) != 0) return errno;
  if (!is_stream(status.st_mode) || is_foreign(status)) return EAGAIN;  // exchanged since it was looked at
  return write_all(stream.get(), content);
}

// A name out of %n or %h stays one path component.
std::string component(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c == '/') c = '_';
  }
  return out;
}

// Where %p stands in a pattern; npos: nowhere.
std::size_t process_escape(std::string_view pattern) {
  for (std::size_t i = 0; i + 1 < pattern.size(); ++i) {
    if (pattern[i] != '%') continue;
    if (pattern[++i] == 'p') return i - 1;
  }
  return pattern.npos;
}

bool names_process(std::string_view pattern) { return process_escape(pattern) != pattern.npos; }

// Makes the directories of path and checks that write_to() has a chance. Returns an error line or nothing.
std::optional<std::string> check_place(const std::string& path) {
  const Target target = split(path);
  if (target.name.empty() || target.name == "." || target.name == "..") {
    return failure("cannot write", path, "it is a directory", "add a file name, such as ubp.%p.out");
  }
  std::optional<std::string> problem;
  const Descriptor directory(open_directory(target.directory, problem));
  if (!directory) return problem;
  struct stat status {};
  if (problem = look_at(target, directory.get(), path, status); problem) return problem;
  const bool needs_directory = !is_stream(status.st_mode);
  const std::string& written = needs_directory ? target.directory : path;
  if (::faccessat(AT_FDCWD, written.c_str(), needs_directory ? W_OK | X_OK : W_OK, AT_EACCESS) == 0) {
    return std::nullopt;
  }
  return failure(needs_directory ? "cannot write in" : "cannot write", written, reason_of(errno));
}

// Returns an error line or nothing.
std::optional<std::string> write_to(const std::string& path, std::string_view content) {
  const Descriptors enough;
  const Target target = split(path);
  std::optional<std::string> problem;
  const Descriptor directory(open_directory(target.directory, problem));  // in a child %p may name another one
  if (!directory) return problem;
  struct stat status {};
  if (problem = look_at(target, directory.get(), path, status); problem) return problem;
  const int error = is_stream(status.st_mode) ? write_stream(directory.get(), target, content)
                                              : replace_file(directory.get(), target, status, content);
  if (error == 0) return std::nullopt;
  if (error == ENXIO) return failure("cannot write", path, "nobody reads this FIFO", "start its reader first");
  return failure("cannot write", path, reason_of(error));
}

// The pattern made absolute, the working directory's own percent signs escaped; or nothing, with errno.
std::optional<std::string> absolute_pattern(std::string_view pattern) {
  if (pattern[0] == '/') return std::string(pattern);
  char here[PATH_MAX];
  if (::getcwd(here, sizeof here) == nullptr) return std::nullopt;
  std::string absolute;
  for (const char* c = here; *c != '\0'; ++c) absolute.append(*c == '%' ? 2 : 1, *c);
  absolute += '/';
  absolute += pattern;
  return absolute;
}

}  // namespace

std::optional<std::string> expand_path(std::string_view pattern, const PathFields& fields, std::string& error) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      out += pattern[i];
      continue;
    }
    switch (++i < pattern.size() ? pattern[i] : '\0') {
      case 'p': out += std::to_string(fields.pid); break;
      case 'n': out += component(fields.program); break;
      case 't': out += std::to_string(fields.start); break;
      case 'h': out += component(fields.host); break;
      case '%': out += '%'; break;
      default:
        error = "unknown escape '";
        error += pattern.substr(i - 1, 2);
        error += "' in '";
        error += pattern;
        error += "' (use %p pid, %n program, %t start time, %h host, %% percent sign)";
        return std::nullopt;
    }
  }
  return out;
}

std::optional<std::string> OutputFile::prepare(std::string_view variable, std::string_view pattern,
                                               const PathFields& fields) {
  variable_ = std::string(variable) + ": ";
  pattern_.clear();
  if (pattern.empty()) return std::nullopt;
  std::string error;
  if (!expand_path(pattern, fields, error)) return variable_ + error;
  const auto absolute = absolute_pattern(pattern);
  if (!absolute) {
    return variable_ + failure("no working directory to put", pattern, reason_of(errno), "use an absolute path");
  }
  if (auto problem = check_place(*expand_path(*absolute, fields, error))) return variable_ + *problem;
  pattern_ = *absolute;
  owner_ = fields.pid;
  const std::string directory = split(pattern_).directory;
  const std::size_t varies = process_escape(directory);
  base_ = *expand_path(varies == directory.npos ? directory : directory.substr(0, directory.rfind('/', varies)), fields,
                       error) +
          '/';
  root_ = place_of("/");
  place_ = place_of(base_);
  return std::nullopt;
}

OutputFile::Place OutputFile::place_of(const std::string& directory) {
  struct stat status {};
  return ::stat(directory.c_str(), &status) == 0 ? Place{status.st_dev, status.st_ino} : Place{};
}

std::string OutputFile::path(const PathFields& fields) const {
  std::string error;
  std::string path = expand_path(pattern_, fields, error).value_or("");
  if (is_set() && fields.pid != owner_ && !names_process(pattern_)) path += '.' + std::to_string(fields.pid);
  return path;
}

std::optional<std::string> OutputFile::write(std::string_view content, const PathFields& fields) const {
  if (!is_set()) return std::nullopt;
  if (place_of("/") != root_ && place_of(base_) != place_) {
    return variable_ + failure("cannot write", path(fields), "the process has another root directory by now",
                               "leave it out for standard error");
  }
  if (auto problem = write_to(path(fields), content)) return variable_ + *problem;
  return std::nullopt;
}

}  // namespace ubp::report
