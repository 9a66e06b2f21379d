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
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>

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

// mkdir -p with mode 0700. Returns an error line or nothing.
std::optional<std::string> make_directories(const std::string& directory) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return std::nullopt;
    return failure("cannot write in", directory, reason_of(ENOTDIR));
  }
  for (std::size_t end = 0; end != std::string::npos;) {
    end = directory.find('/', end + 1);
    const std::string part = directory.substr(0, end);
    if (::mkdir(part.c_str(), 0700) == 0 || errno == EEXIST) continue;
    const int error = errno;
    if (::stat(part.c_str(), &status) == 0) continue;  // some file systems deny mkdir before they say EEXIST
    return failure("cannot make the directory", part, reason_of(error));
  }
  return std::nullopt;
}

// The file at target without following a link: its mode, 0 when there is none; or an error line.
std::optional<std::string> look_at(const Target& target, int directory, const std::string& path,
                                   mode_t& mode) {
  mode = 0;
  struct stat status {};
  if (::fstatat(directory, target.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::nullopt;
    return failure("cannot write", path, reason_of(errno));
  }
  mode = status.st_mode;
  if (const auto why = refuse_kind(mode)) {
    return failure("cannot write", path, *why, "choose another path, or leave it out for standard error");
  }
  return std::nullopt;
}

std::string random_name() {
  std::uint64_t random = 0;
  if (::getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    random = static_cast<std::uint64_t>(now.tv_nsec) << 32 ^ static_cast<std::uint64_t>(::getpid());
  }
  char digits[16];
  return ".ubp-" + std::string(digits, std::to_chars(digits, digits + sizeof digits, random, 16).ptr) +
         ".tmp";
}

// Signals wait as long as it lives: one that ends the process would leave half a file behind.
class SignalsWait {
 public:
  SignalsWait() {
    const std::uint64_t all = ~(std::uint64_t{1} << (SIGTRAP - 1));  // the runtime's own
    sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, reinterpret_cast<long>(&all), reinterpret_cast<long>(&before_), sizeof all);
  }
  ~SignalsWait() { sys::set_signal_mask(before_); }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  std::uint64_t before_ = 0;
};

// Fills a new file and gives it the target's name. Returns 0 or an errno; nothing is left behind then.
int replace_file(int directory, const Target& target, std::string_view content) {
  const SignalsWait no_signal_ends_this;
  std::string name;
  int made = -1;
  for (int attempt = 0; attempt < kNameAttempts && made < 0; ++attempt) {
    name = random_name();
    made = ::openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY,
                    0600);
    if (made < 0 && errno != EEXIST) return errno;
  }
  if (made < 0) return errno;
  Descriptor file(made);
  int error = ::fchmod(file.get(), 0600) == 0 ? 0 : errno;  // a umask may have taken bits away
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
  if (!is_stream(status.st_mode)) return EAGAIN;  // exchanged since it was looked at
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
  if (auto problem = make_directories(target.directory)) return problem;
  const Descriptor directory(::open(target.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return failure("cannot write in", target.directory, reason_of(errno));
  mode_t mode = 0;
  if (auto problem = look_at(target, directory.get(), path, mode)) return problem;
  const bool needs_directory = !is_stream(mode);
  const std::string& written = needs_directory ? target.directory : path;
  if (::faccessat(AT_FDCWD, written.c_str(), needs_directory ? W_OK | X_OK : W_OK, AT_EACCESS) == 0) {
    return std::nullopt;
  }
  return failure(needs_directory ? "cannot write in" : "cannot write", written, reason_of(errno));
}

// Returns an error line or nothing.
std::optional<std::string> write_to(const std::string& path, std::string_view content) {
  const Target target = split(path);
  if (auto problem = make_directories(target.directory))
    return problem;  // in a child %p may name another one
  const Descriptor directory(::open(target.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return failure("cannot write in", target.directory, reason_of(errno));
  mode_t mode = 0;
  if (auto problem = look_at(target, directory.get(), path, mode)) return problem;
  const int error = is_stream(mode) ? write_stream(directory.get(), target, content)
                                    : replace_file(directory.get(), target, content);
  if (error == 0) return std::nullopt;
  if (error == ENXIO)
    return failure("cannot write", path, "nobody reads this FIFO", "start its reader first");
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

std::optional<std::string> expand_path(std::string_view pattern, const PathFields& fields,
                                       std::string& error) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') {
      out += pattern[i];
      continue;
    }
    switch (++i < pattern.size() ? pattern[i] : '\0') {
      case 'p':
        out += std::to_string(fields.pid);
        break;
      case 'n':
        out += component(fields.program);
        break;
      case 't':
        out += std::to_string(fields.start);
        break;
      case 'h':
        out += component(fields.host);
        break;
      case '%':
        out += '%';
        break;
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
    return variable_ +
           failure("no working directory to put", pattern, reason_of(errno), "use an absolute path");
  }
  if (auto problem = check_place(*expand_path(*absolute, fields, error))) return variable_ + *problem;
  pattern_ = *absolute;
  owner_ = fields.pid;
  const std::string directory = split(pattern_).directory;
  const std::size_t varies = process_escape(directory);
  base_ = *expand_path(varies == directory.npos ? directory : directory.substr(0, directory.rfind('/', varies)), fields, error) + '/';
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
  if (is_set() && fields.pid != owner_ && !names_process(pattern_))
    path += '.' + std::to_string(fields.pid);
  return path;
}

std::optional<std::string> OutputFile::write(std::string_view content, const PathFields& fields) const {
  if (!is_set()) return std::nullopt;
  if (place_of("/") != root_ && place_of(base_) != place_) {
    return variable_ + failure("cannot write", path(fields), "the process has another root directory by now", "leave it out for standard error");
  }
  if (auto problem = write_to(path(fields), content)) return variable_ + *problem;
  return std::nullopt;
}

}  // namespace ubp::report
