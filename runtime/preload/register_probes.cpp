// See register_probes.h.
#include "runtime/preload/register_probes.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "runtime/api/api.h"
#include "runtime/preload/family.h"
#include "runtime/preload/loaded.h"
#include "runtime/report/report.h"

namespace ubp::runtime {
namespace {

using report::Level;
using report::say;

std::string position_of(const Problem& problem) {
  const language::Position &begin = problem.position, &end = problem.end;
  const std::string& source = g_loaded->source;
  if (begin.line == 0) return source;
  if (end.line == 0) return fmt::format("{}:{}:{}", source, begin.line, begin.column);
  if (end.line == begin.line) return fmt::format("{}:{}:{}-{}", source, begin.line, begin.column, end.column);
  return fmt::format("{}:{}-{}", source, begin.line, end.line);
}

// Says what is wrong with the specification, on one line, with its line of a program and a hint below.
void say_problem(Level level, const Problem& problem, std::string_view so = "") {
  say(level, fmt::format("{}: {}{}", position_of(problem), problem.message, so));
  if (!report::says(level)) return;
  std::string_view rest = problem.excerpt;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    report::error_stream().write(fmt::format("ubp:   {}\n", rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (!problem.hint.empty()) report::error_stream().write(fmt::format("ubp:   {}\n", problem.hint));
}

// "libc.so.6:malloc+0x4"
std::string place_of(std::string_view module, std::string_view symbol, std::uint64_t elf_address) {
  return !symbol.empty() ? fmt::format("{}:{}", module, symbol) : fmt::format("{}:0x{:x}", module, elf_address);
}

// Whether the first process says at its end that this one lacks what is to be probed: who executed it knows no better.
bool is_noted(const std::string& where, const Problem& why) {
  return was_executed() && !g_loaded->has_reader && g_loaded->options.missing != Missing::kError &&
         note_in_family(why.lacks_module ? Note::kUnmatched : Note::kNear,
                        fmt::format("{}: {}: {}", g_loaded->program, where, why.message));
}

// What the registered specification did not get: mistakes one by one, where they are to be said; refusals in one line.
void say_refusals(const Shortfall& missed, bool says_mistakes) {
  for (const Problem& mistake : missed.mistakes) {
    if (!says_mistakes || is_noted(position_of(mistake), mistake)) break;
    say_problem(Level::kWarning, mistake);
  }
  for (const Problem& waiting : missed.waiting) {
    if (is_noted(position_of(waiting), waiting)) break;
    say_problem(Level::kWarning, waiting);
  }
  if (missed.refused == 0) return;
  const Problem& first = missed.first;
  say(missed.is_exact ? Level::kWarning : Level::kInfo,
      fmt::format("{} of {} probes refused, first {}: {}; the report lists all", missed.refused,
                  missed.refused + missed.probes, place_of(first.module, first.symbol, first.elf_address),
                  first.message));
}

// Nothing is probed: says why.
void fail(const Registered& registered, const Options& options, bool is_said) {
  Problem problem;
  if (!registered.problems.empty()) problem = registered.problems.front();
  const bool names_place = problem.position.line == 0 && !problem.module.empty();
  const std::string where =
      names_place ? place_of(problem.module, problem.symbol, problem.elf_address) : position_of(problem);
  if (problem.message.empty()) problem.message = ubp_status_string(registered.status);
  keep_error(ubp_status_string(registered.status), where, problem.message, problem.hint);
  if (is_said) return;
  g_loaded->passes_on = registered.status == UBP_E_NOT_FOUND && options.missing == Missing::kNothing;
  if (g_loaded->has_reader) return note_not_run(problem);
  if (is_noted(where, problem)) return;
  const std::string_view so =
      g_loaded->passes_on ? "; nothing is probed, unless what this program executes has it" : "; nothing is probed";
  if (names_place) {
    say(Level::kError,
        fmt::format("{}: no probe could be armed, first {}: {}{}", g_loaded->source, where, problem.message, so));
    return;
  }
  say_problem(Level::kError, problem, so);
  for (std::size_t i = 1; i < registered.problems.size(); ++i) say_problem(Level::kError, registered.problems[i]);
}

}  // namespace

bool register_probes(const Options& options) {
  ProbepointsConfig config;
  config.slots = options.slots;
  config.policy = options.policy;
  config.optimize = options.optimize;
  config.probepoints = options.max_probepoints;
  config.counts_by_segment = !g_loaded->has_reader;  // its session has the counters
  const bool forgives = options.missing == Missing::kWarn || options.missing == Missing::kIgnore;
  std::uint32_t flags = 0;
  if (forgives) flags |= UBP_PROBE_IGNORE_MISSING;
  if (options.missing == Missing::kPending) flags |= UBP_PROBE_PENDING;
  const ubp_status started = initialise(config, false);
  const bool is_said = started == UBP_E_OTHER_RUNTIME;
  Registered registered;
  registered.status = started;
  if (started == UBP_OK) registered = register_environment(options.probes, flags);
  if (registered.status != UBP_OK) {
    if (!is_said) give_up();
    fail(registered, options, is_said);
    return false;
  }
  if (!g_loaded->has_reader) {  // it has said them
    for (const Problem& warning : registered.warnings) say_problem(Level::kWarning, warning);
  }
  g_loaded->has_report = registered.counts || !g_loaded->has_reader;
  const Shortfall missed = shortfall(registered.probes);
  g_loaded->passes_on = missed.probes == 0 && !registered.probes.empty();
  if (missed.probes != 0) files_owner(true);
  say_refusals(missed, options.missing == Missing::kWarn || registered.says_missing);
  if (options.log <= Level::kInfo) {
    for (ubp_probe* const probe : registered.probes) say(Level::kInfo, costs(probe));
  }
  return true;
}

void say_program_errors() {
  for (const Problem& problem : program_errors()) say_problem(Level::kWarning, problem);
}

}  // namespace ubp::runtime
