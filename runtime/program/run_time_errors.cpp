// See reader.h.
#include <fmt/format.h>

#include "runtime/program/reader.h"

namespace ubp::program {

std::vector<Diagnostic> run_time_errors(const Analysis& analysis, const Place& place) {
  constexpr std::string_view kTexts[] = {
      "Divide or modulo by 0 detected. This can lead to unexpected results. 1 is being used as the result.",
      "The loop was ended: a hit has a budget of 1048576 turns.", "Bad address: it reads as 0, or as \"\".",
      "Array access out of bounds. This can lead to unexpected results."};
  std::vector<Diagnostic> errors;
  const auto add = [&](const language::Span& span, std::string_view text, std::uint64_t times) {
    if (times != 0)
      errors.push_back({span, fmt::format("{} ({} time{})", text, times, times == 1 ? "" : "s"), {}, true});
  };
  for (std::size_t i = 0; i < analysis.sites.size(); ++i) {
    const Site& site = analysis.sites[i];
    add(site.span, kTexts[static_cast<std::size_t>(site.kind)],
        __atomic_load_n(&place.machine().sites[i], __ATOMIC_RELAXED));  // a number
  }
  for (std::size_t i = 0; i < analysis.maps.size(); ++i) {
    const Map& map = analysis.maps[i];
    const std::uint64_t refused = __atomic_load_n(&place.maps()[i].header->refused, __ATOMIC_RELAXED);  // as above
    add(map.first, fmt::format("Map full; can't update element. {} holds {} keys.", map.name, map.capacity), refused);
  }
  return errors;
}

}  // namespace ubp::program
