// What a registered program has gathered and printed.
#include <algorithm>
#include <deque>
#include <string>
#include <string_view>

#include "runtime/api/calls.h"
#include "runtime/api/programs.h"
#include "runtime/output/map_values.h"

namespace ubp::runtime {
namespace {

// Reads a map of the probe's program, in one moment for everybody who changes the probe.
ubp_status read_map(const ubp_probe* probe, std::string_view name, program::Aggregate& aggregate, bool& has_keys,
                    std::deque<program::MapValues>& entries) {
  return inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    const OwnProgram* const own = program_of(id_of(probe));
    if (own == nullptr) return UBP_E_NOT_FOUND;
    const auto& maps = own->program->analysis().maps;
    const auto found =
        std::find_if(maps.begin(), maps.end(), [&](const program::Map& map) { return map.name == name; });
    if (found == maps.end()) return UBP_E_NOT_FOUND;
    aggregate = found->value.aggregate;
    has_keys = found->has_keys;
    if (aggregate == program::Aggregate::kSeries) return UBP_E_INVALID;
    read_values(*found, own->program->place().maps()[static_cast<std::size_t>(found - maps.begin())], entries);
    return UBP_OK;
  });
}

// Frees what a call took. What that calls is no hit.
template <typename T>
void let_go(T& container) {
  const SignalsHeld quiet;
  T().swap(container);
}

}  // namespace
}  // namespace ubp::runtime

using namespace ubp::runtime;

ubp_status ubp_map_read(ubp_probe* probe, const char* name, ubp_map_visitor visit, void* data) {
  if (name == nullptr || visit == nullptr) return UBP_E_INVALID;
  std::deque<ubp::program::MapValues> entries;
  ubp::program::Aggregate aggregate{};
  bool has_keys = false;
  const ubp_status status = read_map(probe, name, aggregate, has_keys, entries);
  for (const ubp::program::MapValues& values : entries) {
    const ubp_map_entry entry = values.entry(aggregate);
    visit(&entry, data);
  }
  let_go(entries);
  return status;
}

ubp_status ubp_map_number(ubp_probe* probe, const char* name, int64_t* number) {
  if (name == nullptr || number == nullptr) return UBP_E_INVALID;
  std::deque<ubp::program::MapValues> entries;
  ubp::program::Aggregate aggregate{};
  bool has_keys = false;
  ubp_status status = read_map(probe, name, aggregate, has_keys, entries);
  if (status == UBP_OK) {
    const auto is_number = [](const std::vector<ubp_value>& values) {
      return values.size() == 1 && values[0].kind <= UBP_VALUE_UNSIGNED;
    };
    if (has_keys || (!entries.empty() && !is_number(entries.front().values))) {
      status = UBP_E_INVALID;
    } else {
      *number = entries.empty() ? 0 : entries.front().values[0].number;
    }
  }
  let_go(entries);
  return status;
}

ubp_status ubp_drain_text(ubp_probe* probe, ubp_text_visitor visit, void* data) {
  if (visit == nullptr) return UBP_E_INVALID;
  std::string text;
  const ubp_status status = inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    OwnProgram* const own = program_of(id_of(probe));
    if (own == nullptr) return UBP_E_NOT_FOUND;
    text = own->reader.events();
    own->reader.recycle();
    return UBP_OK;
  });
  if (!text.empty()) visit(text.c_str(), text.size(), data);
  let_go(text);
  return status;
}
