// See debug_types.h.
#include "runtime/api/debug_types.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <variant>

#include "runtime/analysis/wishes.h"
#include "runtime/plan/modules.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;

// The command beside this library, or where it is installed; empty: it is nowhere.
std::string command_path(const plan::Modules& modules) {
  std::string folder;
  for (const symbols::Module& module : modules.all()) {
    if (module.is_runtime) folder = module.path.substr(0, module.path.rfind('/') + 1);
  }
  std::vector<std::string> places;
  if (!folder.empty()) places = {folder + "ubp", folder + "../../bin/ubp", folder + "../bin/ubp"};
  places.insert(places.end(), {"/usr/bin/ubp", "/usr/local/bin/ubp"});
  for (const std::string& place : places) {
    if (access(place.c_str(), X_OK) == 0) return place;
  }
  return "";
}

// A file without a name that holds the text.
int make_file(std::string_view text) {
  int file = memfd_create("ubp", MFD_CLOEXEC);
  if (file >= 0 && file <= STDERR_FILENO) {  // the program has closed one of these, and may open it again
    const int low = file;
    file = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(low);
  }
  for (std::size_t done = 0; file >= 0 && done < text.size();) {
    const ssize_t wrote = pwrite(file, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (wrote <= 0) break;
    done += static_cast<std::size_t>(wrote);
  }
  return file;
}

std::string content_of(int file) {
  struct stat status {};
  if (fstat(file, &status) != 0 || status.st_size < 0 || static_cast<std::size_t>(status.st_size) > kMostBytes)
    return "";
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t done = 0;
  for (ssize_t got = 1; got > 0 && done < text.size(); done += static_cast<std::size_t>(got > 0 ? got : 0))
    got = pread(file, text.data() + done, text.size() - done, static_cast<off_t>(done));
  text.resize(done);
  return text;
}

// Runs it to its end, and returns its status as wait() tells it. The program does not see the process: its end raises
// no signal, and no wait() of the program's finds it. No handler of fork's is called.
int run(const std::vector<std::string>& words, int input, int output) {
  std::vector<char*> arguments, variables;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    if (!text.starts_with("LD_PRELOAD=") && !text.starts_with("UBP_")) variables.push_back(*variable);
  }
  arguments.push_back(nullptr);
  variables.push_back(nullptr);
  const long child = sys::call6(SYS_clone, 0, 0, 0, 0, 0, 0);
  if (child == 0) {
    const std::uint64_t none = 0;
    sys::call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&none), 0, sizeof none);
    sys::call4(SYS_dup2, input, STDIN_FILENO);
    sys::call4(SYS_dup2, output, STDOUT_FILENO);
    sys::call4(SYS_execve, reinterpret_cast<long>(arguments[0]), reinterpret_cast<long>(arguments.data()),
               reinterpret_cast<long>(variables.data()));
    sys::call4(SYS_exit_group, 127);
  }
  if (sys::failed(child)) return -1;
  constexpr long kInterrupted = -4;         // -EINTR
  constexpr int kAllChildren = 0x40000000;  // __WALL
  int status = -1;
  while (sys::call4(SYS_wait4, child, reinterpret_cast<long>(&status), kAllChildren) == kInterrupted) {
  }
  return status;
}

// What a command writes that reads this; none: it failed.
std::optional<std::string> output_of(const std::vector<std::string>& words, std::string_view text) {
  const int input = make_file(text), output = make_file("");
  const int status = input >= 0 && output >= 0 ? run(words, input, output) : -1;
  std::optional<std::string> whole;
  if (status == 0) whole = content_of(output);
  if (input >= 0) close(input);
  if (output >= 0) close(output);
  return whole;
}

}  // namespace

std::string with_debug_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                             std::vector<program::Diagnostic>& diagnostics) {
  if (program::find_wishes(text, parameters).is_nothing()) return text;
  const auto fail = [&](std::string message, std::string hint) {
    diagnostics.push_back({{{1, 1}, {0, 0}}, std::move(message), std::move(hint), false});
    return text;
  };
  const plan::Modules modules;
  const std::string command = command_path(modules);
  if (command.empty())
    return fail(
        "what files say is asked for (args, source lines, types or uaddr), and the command that reads them is not there",
        "install ubp beside libubp.so");
  std::vector<std::string> words{command, "types", std::string(name)};
  for (const symbols::Module& module : modules.all()) {
    if (!module.is_vdso && !module.is_runtime) words.push_back(module.path);
  }
  words.emplace_back("--");
  words.insert(words.end(), parameters.begin(), parameters.end());
  auto whole = output_of(words, text);
  if (!whole) return fail(fmt::format("{} could not read debug information", command), "what it has printed says why");
  return *whole;
}

std::size_t inlined_instances(const language::Item& item) {
  const auto* const symbol = std::get_if<language::SymbolTarget>(&item.target);
  const plan::Modules modules;
  const std::string command = command_path(modules);
  if (symbol == nullptr || command.empty()) return 0;
  std::vector<std::string> words{command, "inlined", symbol->pattern, symbol->quoted ? "quoted" : ""};
  for (const symbols::Module& module : modules.all()) {
    if (item.module.empty() ? module.is_executable : symbols::module_matches(module, item.module))
      words.push_back(module.path);
  }
  const std::string text = output_of(words, "").value_or("");
  std::size_t count = 0;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count;
}

}  // namespace ubp::runtime
