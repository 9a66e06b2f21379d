// See register_probes.h.
#include "runtime/preload/register_probes.h"

#include <fmt/format.h>

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

std::string position_of(std::size_t line, std::size_t column) {
  return line != 0 ? fmt::format("UBP_PROBES:{}:{}", line, column) : std::string("UBP_PROBES");
}

// Says what is wrong with the specification, on one line, with a hint on a second.
void say_problem(Level level, std::string_view where, std::string_view message, std::string_view hint) {
  say(level, fmt::format("{}: {}", where, message));
  if (!hint.empty() && report::says(level)) report::error_stream().write(fmt::format("ubp:   {}\n", hint));
}

// "libc.so.6:malloc+0x4"
std::string place_of(std::string_view module, std::string_view symbol, std::uint64_t elf_address) {
  return !symbol.empty() ? fmt::format("{}:{}", module, symbol) : fmt::format("{}:0x{:x}", module, elf_address);
}

// Whether the first process says at its end that this one lacks what is to be probed: who executed it knows no better.
bool is_noted(const std::string& where, std::string_view why) {
  return was_executed() && g_loaded->options.missing != Missing::kError &&
         note_in_family(lacks_module(why) ? Note::kUnmatched : Note::kNear,
                        fmt::format("{}: {}: {}", g_loaded->program, where, why));
}

// What the registered specification did not get: mistakes one by one, where they are to be said; refusals in one line.
void say_refusals(const Shortfall& missed, bool says_mistakes) {
  for (const Problem& mistake : missed.mistakes) {
    const std::string where = position_of(mistake.position.line, mistake.position.column);
    if (!says_mistakes || is_noted(where, mistake.message)) break;
    say_problem(Level::kWarning, where, mistake.message, mistake.hint);
  }
  for (const Problem& waiting : missed.waiting) {
    const std::string where = position_of(waiting.position.line, waiting.position.column);
    if (is_noted(where, waiting.message)) break;
    say_problem(Level::kWarning, where, waiting.message, waiting.hint);
  }
  if (missed.refused == 0) return;
  const Problem& first = missed.first;
  say(missed.is_exact ? Level::kWarning : Level::kInfo,
      fmt::format("{} of {} probes refused, first {}: {}; the report lists all", missed.refused,
                  missed.refused + missed.probes, place_of(first.module, first.symbol, first.elf_address),
                  first.message));
}

}  // namespace

bool register_probes(const Options& options) {
  ProbepointsConfig config;
  config.slots = options.slots;
  config.policy = options.policy;
  config.optimize = options.optimize;
  config.probepoints = options.max_probepoints;
  const bool forgives = options.missing == Missing::kWarn || options.missing == Missing::kIgnore;
  std::uint32_t flags = 0;
  if (forgives) flags |= UBP_PROBE_IGNORE_MISSING;
  if (options.missing == Missing::kPending) flags |= UBP_PROBE_PENDING;
  ubp_probe* probe = nullptr;
  ubp_refusal problem{};
  problem.struct_size = sizeof problem;
  ubp_status status = initialise(config, false);
  const bool is_said = status == UBP_E_OTHER_RUNTIME;
  if (status == UBP_OK) status = register_environment(options.probes, flags, &probe, &problem);
  if (status != UBP_OK) {
    if (!is_said) give_up();
    const bool names_place = problem.line == 0 && problem.module[0] != '\0';
    const std::string where = names_place ? place_of(problem.module, problem.symbol, problem.elf_address)
                                          : position_of(problem.line, problem.column);
    const std::string why = problem.message[0] != '\0' ? problem.message : ubp_status_string(status);
    keep_error(ubp_status_string(status), where, why, problem.hint);
    if (is_said) return false;
    g_loaded->passes_on = status == UBP_E_NOT_FOUND && options.missing == Missing::kNothing;
    if (is_noted(where, why)) return false;
    const std::string_view so =
        g_loaded->passes_on ? "; nothing is probed, unless what this program executes has it" : "; nothing is probed";
    if (names_place) {
      say(Level::kError, fmt::format("{}: no probe could be armed, first {}: {}{}", position_of(0, 0), where, why, so));
    } else {
      say_problem(Level::kError, where, fmt::format("{}{}", why, so), problem.hint);
    }
    return false;
  }
  const Shortfall missed = shortfall(probe);
  g_loaded->passes_on = missed.probes == 0;
  if (missed.probes != 0) files_owner(true);
  say_refusals(missed, options.missing == Missing::kWarn);
  if (options.log <= Level::kInfo) say(Level::kInfo, costs(probe));
  return true;
}

}  // namespace ubp::runtime
