// See launch.h.
#include "runtime/command/launch.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include "runtime/base/executable.h"
#include "runtime/command/files.h"

namespace ubp::command {
namespace {

std::string beginning_of(const std::string& path) {
  std::string bytes(4096, '\0');
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  const ssize_t got = pread(file, bytes.data(), bytes.size(), 0);
  close(file);
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return bytes;
}

// Whether an ELF file names a dynamic linker. Source: gABI, "Program Header".
bool has_interpreter(const std::string& bytes, const Elf64_Ehdr& header) {
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    const std::uint64_t at = header.e_phoff + std::uint64_t{i} * sizeof segment;
    if (header.e_phentsize != sizeof segment || at > bytes.size() || bytes.size() - at < sizeof segment) return true;
    std::memcpy(&segment, bytes.data() + at, sizeof segment);
    if (segment.p_type == PT_INTERP) return true;
  }
  return false;
}

}  // namespace

std::string library_path() {
  const std::string own = runtime::executable_link();
  const std::string folder = own.substr(0, own.rfind('/') + 1);
  for (const char* const place :
       {"libubp.so", "../lib/x86_64-linux-gnu/libubp.so.0", "../lib64/libubp.so.0", "../lib/libubp.so.0"}) {
    char real[PATH_MAX];
    if (realpath((folder + place).c_str(), real) != nullptr) return folder + place;
  }
  return "";
}

bool can_be_probed(const std::string& command, std::string& found, Obstacle& obstacle) {
  constexpr int kMostScripts = 4;  // as the kernel: binfmt_script
  const auto fail = [&](std::string message, std::string hint, int status = kFailed) {
    obstacle = {std::move(message), std::move(hint), status};
    return false;
  };
  found = find_in_path(command);
  for (int scripts = 0;; ++scripts) {
    struct stat status {};
    if (found.empty() || stat(found.c_str(), &status) != 0)
      return fail(fmt::format("command '{}' does not exist", found.empty() ? command : found), "", kNotFound);
    if (!S_ISREG(status.st_mode) || access(found.c_str(), X_OK) != 0)
      return fail(fmt::format("command '{}' is not executable", found), "", kNotExecutable);
    const std::string bytes = beginning_of(found);
    if (bytes.starts_with("#!") && scripts < kMostScripts) {
      std::string_view line = std::string_view(bytes).substr(2, bytes.find('\n') - 2);
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      found = line.substr(0, line.find_first_of(" \t"));
      continue;
    }
    if (bytes.empty()) return true;  // it cannot be read: the dynamic linker will see
    if (bytes.size() < sizeof(Elf64_Ehdr) || !bytes.starts_with(ELFMAG))
      return fail(fmt::format("'{}' is no ELF program", found), "", kNotExecutable);
    if ((status.st_mode & (S_ISUID | S_ISGID)) != 0 && geteuid() != 0)
      return fail(fmt::format("'{}' is set-user-ID or set-group-ID: the dynamic linker lets nobody into it", found),
                  "copy it, or run this as root");
    if (bytes[EI_CLASS] != ELFCLASS64) return fail(fmt::format("'{}' is a 32-bit program", found), "UBP is 64-bit");
    Elf64_Ehdr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.e_machine != EM_X86_64) return fail(fmt::format("'{}' is for another processor", found), "");
    if (!has_interpreter(bytes, header))
      return fail(fmt::format("'{}' is linked statically: LD_PRELOAD has no effect on it", found),
                  "link it with libubp.a (libubp(3)), or dynamically");
    return true;
  }
}

pid_t launch(const std::vector<std::string>& command, const std::string& library, const std::string& session,
             Obstacle& obstacle) {
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    obstacle = {fmt::format("pipe: {}", strerrordesc_np(errno)), "", kFailed};
    return -1;
  }
  const char* const preload = std::getenv("LD_PRELOAD");
  const std::string preloads = preload != nullptr && *preload != '\0' ? library + ':' + preload : library;
  const pid_t child = fork();
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    setenv("LD_PRELOAD", preloads.c_str(), 1);
    setenv("UBP_SESSION", session.c_str(), 1);
    unsetenv("UBP_PROBES");
    unsetenv("UBP_PROBES_FILE");
    execvp(words[0], words.data());
    const int error = errno;
    if (write(ends[1], &error, sizeof error) < 0) _exit(kFailed);
    _exit(kNotFound);
  }
  close(ends[1]);
  int error = child < 0 ? errno : 0;
  if (child >= 0 && read(ends[0], &error, sizeof error) < 0) error = errno;
  close(ends[0]);
  if (error == 0) return child;
  obstacle = {fmt::format("cannot execute '{}': {}", command[0], strerrordesc_np(error)), "",
              error == ENOENT ? kNotFound : kNotExecutable};
  return -1;
}

bool descends_from(pid_t process, pid_t ancestor) {
  constexpr int kMost = 64;  // generations
  for (int generation = 0; generation < kMost && process > 1; ++generation) {
    if (process == ancestor) return true;
    std::ifstream status(fmt::format("/proc/{}/status", process));
    process = 0;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("PPid:")) process = std::atoi(line.c_str() + 5);
    }
  }
  return false;
}

}  // namespace ubp::command
