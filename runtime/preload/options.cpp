// The environment variables, read once at load. kVariables is the whole truth: the parser, the help and the
// list of names come from it. Nothing is printed here; the caller reports the errors.
#include "runtime/preload/options.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/base/edit_distance.h"
#include "runtime/language/text.h"

namespace ubp::runtime {
namespace {

using language::quote;

constexpr std::size_t kMaxFileBytes = std::size_t{16} << 20;
constexpr std::uint32_t kMaxSlots = 4096, kMaxProbepoints = 1u << 24;

using SetResult = std::optional<std::string>;  // what is wrong with the value; nothing when it was taken

struct Variable {
  std::string_view name;
  std::string_view values;         // as the help shows them
  std::string_view default_value;  // as the help shows it
  std::string_view meaning;
  SetResult (*set)(Options& options, std::string_view value);
};

std::string not_one_of(std::string_view value, std::string_view choices) {
  return fmt::format("{} is not one of {}", quote(value), choices);
}

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The next element of a comma list, trimmed; `rest` loses it and its comma.
std::string_view next_element(std::string_view& rest) {
  const std::size_t comma = rest.find(',');
  const std::string_view element = trim(rest.substr(0, comma));
  rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  return element;
}

// Appends the file's content to `text`. Returns what went wrong, or nothing.
SetResult read_file(std::string_view path, std::string& text) {
  const auto failure = [path](int error) {
    return fmt::format("cannot read {}: {}", quote(path), ::strerrordesc_np(error));
  };
  const int fd = ::open(std::string(path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failure(errno);
  SetResult result;
  char buffer[65536];
  std::size_t total = 0;
  while (!result) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got == 0) break;
    if (got < 0) {
      if (errno != EINTR) result = failure(errno);
      continue;
    }
    total += static_cast<std::size_t>(got);
    if (total > kMaxFileBytes) {
      result = fmt::format("{} is larger than 16 MiB", quote(path));
    } else {
      text.append(buffer, static_cast<std::size_t>(got));
    }
  }
  ::close(fd);
  return result;
}

SetResult set_probes(Options& options, std::string_view value) {
  options.probes = value;
  options.has_probes = true;
  return std::nullopt;
}

// Stands behind UBP_PROBES in the table, so that the file's items come after it.
SetResult set_probes_file(Options& options, std::string_view value) {
  std::string content;
  SetResult error = read_file(value, content);
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (options.has_probes) options.probes += '\n';
  options.has_probes = true;
  if (!error) options.probes += content.starts_with(kByteOrderMark) ? content.substr(kByteOrderMark.size()) : content;
  return error;
}

SetResult set_output(Options& options, std::string_view value) {
  options.output = value == "-" ? std::string_view() : value;
  return std::nullopt;
}

SetResult set_summary(Options& options, std::string_view value) {
  options.summary = value;
  return std::nullopt;
}

SetResult set_number(std::uint32_t& option, std::string_view value, std::uint32_t most) {
  std::uint32_t number = 0;
  const char* last = value.data() + value.size();
  const std::from_chars_result result = std::from_chars(value.data(), last, number);
  if (result.ec != std::errc{} || result.ptr != last || number < 1 || number > most) {
    return fmt::format("{} is not a number from 1 to {}", quote(value), most);
  }
  option = number;
  return std::nullopt;
}

SetResult set_slots(Options& options, std::string_view value) { return set_number(options.slots, value, kMaxSlots); }

SetResult set_max_probepoints(Options& options, std::string_view value) {
  return set_number(options.max_probepoints, value, kMaxProbepoints);
}

SetResult set_xol(Options& options, std::string_view value) {
  for (const xol::Policy policy :
       {xol::Policy::kThread, xol::Policy::kProbepoint, xol::Policy::kSteal, xol::Policy::kAdaptive}) {
    if (value != xol::policy_name(policy)) continue;
    options.policy = policy;
    return std::nullopt;
  }
  return not_one_of(value, "thread, probepoint, steal, adaptive");
}

SetResult set_optimize(Options& options, std::string_view value) {
  if (value == "auto") {
    options.optimize = Optimize::kAuto;
  } else if (value == "always") {
    options.optimize = Optimize::kAlways;
  } else if (value == "never") {
    options.optimize = Optimize::kNever;
  } else {
    return not_one_of(value, "auto, always, never");
  }
  return std::nullopt;
}

SetResult set_missing(Options& options, std::string_view value) {
  if (value == "error") {
    options.missing = Missing::kError;
  } else if (value == "warn") {
    options.missing = Missing::kWarn;
  } else if (value == "ignore") {
    options.missing = Missing::kIgnore;
  } else if (value == "pending") {
    options.missing = Missing::kPending;
  } else {
    return not_one_of(value, "error, warn, ignore, pending");
  }
  return std::nullopt;
}

// For `ubp run`, which says in the session what is to be done.
SetResult set_full(Options&, std::string_view value) {
  if (value != "drop" && value != "block") return not_one_of(value, "drop, block");
  return std::nullopt;
}

SetResult set_log(Options& options, std::string_view value) {
  const std::optional<report::Level> level = report::parse_level(value);
  if (!level) return not_one_of(value, "debug, info, warning, error, off");
  options.log = *level;
  return std::nullopt;
}

SetResult set_follow(Options& options, std::string_view value) {
  bool exec = false;
  for (std::string_view rest = value; !rest.empty();) {
    const std::string_view element = next_element(rest);
    if (element == "exec") {
      exec = true;
    } else if (element != "fork") {
      return not_one_of(element, "fork, exec");
    }
  }
  options.follow_exec = exec;
  return std::nullopt;
}

SetResult set_options(Options& options, std::string_view value) {
  for (std::string_view rest = value; !rest.empty();) {
    const std::string_view element = next_element(rest);
    if (element != "help=1" && element != "help=0") return not_one_of(element, "help=1, help=0");
    options.help = element == "help=1";
  }
  return std::nullopt;
}

constexpr Variable kVariables[] = {
    {"UBP_PROBES", "[module:]symbol[+offset];...", "none",
     "what to probe. Separate items with ';' or a newline; # begins a comment; !item excludes. Modules and "
     "symbols "
     "are globs, or exact in quotes; without a module the executable is meant. module:0xADDRESS is relative "
     "to the "
     "module's load base (the ELF virtual address), not a file offset. A filter and a block in bpftrace's language may "
     "follow: ubp-probes(7), PROGRAMS",
     set_probes},
    {"UBP_PROBES_FILE", "path", "none", "a file with more items, at most 16 MiB, read after UBP_PROBES",
     set_probes_file},
    {"UBP_OUTPUT", "path", "standard error",
     "where the text goes; %p process id, %t start time, %n program, %h host, %% a percent sign", set_output},
    {"UBP_SUMMARY", "path", "none", "also write the summary there as JSON, with the same % escapes", set_summary},
    {"UBP_XOL", "thread|probepoint|steal|adaptive", "thread",
     "where displaced instructions run: thread gives each thread its own slots, probepoint each probepoint one for ever, "
     "steal shares a fixed pool, adaptive is thread until a probepoint has been refilled often and gets one for ever",
     set_xol},
    {"UBP_OPTIMIZE", "auto|always|never", "auto",
     "which probepoints a hit enters by a jump, without the kernel: auto function entries and later what is hit often, always whatever can, never none; "
     "the summary says what kept the others",
     set_optimize},
    {"UBP_SLOTS", "1..4096", "64", "slots of each thread; of the pool for steal", set_slots},
    {"UBP_MAX_PROBEPOINTS", "1..16777216", "65536 more than at load",
     "the most probepoints, those in modules that are loaded later ([missing=pending]) included; those at load are always "
     "taken. More take address space until they are used",
     set_max_probepoints},
    {"UBP_MISSING", "error|warn|ignore|pending", "arm nothing",
     "a probe that cannot be armed: by default nothing is armed and the program runs unprobed; error does "
     "not start the program (exit 125), warn reports and arms the others, ignore arms the others, pending waits for "
     "modules that are loaded later, as [missing=pending] behind one item does",
     set_missing},
    {"UBP_FULL", "drop|block", "drop",
     "what a block does whose event finds no room because `ubp run` has not read enough yet: drop counts it as dropped, "
     "block waits. Without `ubp run` nobody reads meanwhile, and it is dropped",
     set_full},
    {"UBP_FOLLOW", "fork,exec", "fork",
     "which children are probed too; fork is always on, exec keeps UBP in the environment of executed "
     "programs",
     set_follow},
    {"UBP_LOG", "debug|info|warning|error|off", "warning", "the lowest level of message that is printed", set_log},
    {"UBP_OPTIONS", "help=1", "none", "help=1 prints this list", set_options},
};

// Documented names of later versions.
constexpr std::string_view kPlannedNames[] = {"UBP_FORMAT", "UBP_BUFFER"};

constexpr std::string_view kPrefix = "UBP_";

struct Assignment {
  std::string_view name;
  std::string_view value;
};

std::vector<Assignment> ubp_assignments(char** environment) {
  std::vector<Assignment> found;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const std::size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    found.push_back({entry.substr(0, equals), entry.substr(equals + 1)});
  }
  return found;
}

// The known name that a mistyped one most likely means; empty when none is near.
std::string_view nearest_name(std::string_view name) {
  constexpr std::size_t kLongest = 32;
  if (name.size() > kLongest) return {};
  std::string typed(name.substr(kPrefix.size()));
  for (char& letter : typed) letter = letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(1, typed.size() / 3) + 1;
  EditDistance distance_of(typed, best_distance);
  for (const Variable& variable : kVariables) {
    const std::string_view known = variable.name.substr(kPrefix.size());
    const bool begins = typed.size() >= 3 && known.starts_with(typed);
    const std::size_t distance = begins ? 1 : distance_of.to(known);
    if (distance < best_distance) {
      best = variable.name;
      best_distance = distance;
    }
  }
  return best;
}

std::string unknown_name_message(std::string_view name) {
  const std::string_view* planned = std::find(std::begin(kPlannedNames), std::end(kPlannedNames), name);
  if (planned != std::end(kPlannedNames)) return fmt::format("{}: not supported yet by this version", name);
  const std::string shown = quote(name);
  const std::string_view near = nearest_name(name);
  if (near.empty()) return fmt::format("unknown variable {} (UBP_OPTIONS=help=1 lists them)", shown);
  return fmt::format("unknown variable {}; did you mean {}?", shown, near);
}

// `text` in lines of at most `width` bytes, broken at spaces, each behind `prefix`.
std::string wrap(std::string_view text, std::string_view prefix, std::size_t width) {
  std::string lines;
  while (!text.empty()) {
    std::size_t end = text.size();
    if (end > width) end = std::min(text.rfind(' ', width), end);
    lines += fmt::format("{}{}\n", prefix, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

Options read_options(char** environment, std::vector<OptionError>& errors) {
  Options options;
  const std::vector<Assignment> assignments = ubp_assignments(environment);
  for (const Variable& variable : kVariables) {
    const auto found = std::find_if(assignments.begin(), assignments.end(), [&variable](const Assignment& assignment) {
      return assignment.name == variable.name;  // the first of several, as getenv
    });
    if (found == assignments.end()) continue;
    if (const SetResult wrong = variable.set(options, found->value)) {
      errors.push_back({fmt::format("{}: {}", variable.name, *wrong)});
    }
  }
  const std::vector<std::string>& names = option_names();
  for (const Assignment& assignment : assignments) {
    if (assignment.name != kFirstVariable && assignment.name != kSessionVariable &&
        std::find(names.begin(), names.end(), assignment.name) == names.end()) {
      errors.push_back({unknown_name_message(assignment.name)});
    }
  }
  return options;
}

std::string options_help() {
  std::string help = "ubp: environment variables\n";
  for (const Variable& variable : kVariables) {
    help += fmt::format("ubp:   {}={}  (default: {})\n", variable.name, variable.values, variable.default_value);
    help += wrap(variable.meaning, "ubp:       ", 85);
  }
  return help;
}

const std::vector<std::string>& option_names() {
  // Never destroyed: children are started until the very end of the process.
  static const std::vector<std::string>* const names = [] {
    auto* list = new std::vector<std::string>;
    for (const Variable& variable : kVariables) list->emplace_back(variable.name);
    return list;
  }();
  return *names;
}

}  // namespace ubp::runtime
