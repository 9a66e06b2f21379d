// See reader.h.
#include <fmt/format.h>

#include <iterator>

#include "runtime/output/reader.h"

namespace ubp::program {
namespace {

struct Error {
  std::string_view text;
  std::string_view helper{};
  int code = 0;
};
constexpr Error kErrors[] = {
    // by Site::Kind
    {"Divide or modulo by 0 detected. This can lead to unexpected results. 1 is being used as the result."},
    {"The loop was ended: a hit has a budget of 1048576 turns."},
    {"Bad address", "probe_read_user", -14},
    {"Array access out of bounds. This can lead to unexpected results."},
    {"Can't lookup map element because it does not exist.", "map_lookup_elem", 0},
    {"The value is not known: the function was entered before it was probed, or in a way that is not seen, or the thread "
     "has left libc's storage. 0 is being used as the result."},
};

// Once is what one expects.
std::string with_times(std::string text, std::uint64_t times) {
  return times == 1 ? text : fmt::format("{} ({} times)", text, times);
}

}  // namespace

std::vector<Diagnostic> run_time_errors(const Analysis& analysis, const Place& place, bool says_reads) {
  std::vector<Diagnostic> errors;
  for (std::size_t i = 0; i < analysis.sites.size(); ++i) {
    const Site& site = analysis.sites[i];
    const Error& error = kErrors[static_cast<std::size_t>(site.kind)];
    const std::uint64_t times = __atomic_load_n(&place.machine().sites[i], __ATOMIC_RELAXED);  // a number
    if (times == 0 || (!error.helper.empty() && !says_reads)) continue;
    errors.push_back({site.span, with_times(std::string(error.text), times), {}, true, error.helper, error.code});
  }
  for (std::size_t i = 0; i < analysis.maps.size(); ++i) {
    const Map& map = analysis.maps[i];
    const std::uint64_t refused = __atomic_load_n(&place.maps()[i].header->refused, __ATOMIC_RELAXED);  // as above
    if (refused == 0) continue;
    errors.push_back(
        {map.first,
         with_times(fmt::format("Map full; can't update element. {} holds {} keys.", map.name, map.capacity), refused),
         {},
         true});
  }
  const stack::StackTable& stacks = place.machine().stacks;
  const std::uint64_t lost = stacks.lost != nullptr ? __atomic_load_n(stacks.lost, __ATOMIC_RELAXED) : 0;  // as above
  if (lost != 0) {
    constexpr std::string_view kText = "Stacks full; those that were not met before have no frames.";
    errors.push_back({analysis.first_stack, with_times(std::string(kText), lost), {}, true});
  }
  return errors;
}

std::string json_error(const Diagnostic& error, const Sources& sources) {
  const auto [name, line] = sources.of(error.span.begin.line);
  const bool is_read = !error.helper.empty();
  const std::string helper =
      is_read ? fmt::format("\"helper\": {}, \"retcode\": {}, ", json_quoted(error.helper), error.code) : "";
  return fmt::format("{{\"type\": \"{}\", \"msg\": {}, {}\"filename\": {}, \"line\": {}, \"col\": {}}}\n",
                     is_read ? "helper_error" : "runtime_error", json_quoted(error.message), helper, json_quoted(name),
                     line, error.span.begin.column);
}

}  // namespace ubp::program
