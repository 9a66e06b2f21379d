// See functions.h.
#include "runtime/output/functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "runtime/analysis/inputs.h"

namespace ubp::program {
namespace {

struct TimedFunction {
  std::string name;
  std::uint64_t calls = 0, total = 0, self = 0, longest = 0;
  std::uint64_t average() const { return calls != 0 ? total / calls : 0; }
};

std::vector<TimedFunction> read_functions(const Analysis& analysis, const std::vector<MapView>& maps) {
  std::map<std::string, TimedFunction> functions;
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const std::string& name = analysis.maps[i].name;
    std::uint64_t TimedFunction::*const member = name == kCallsMap     ? &TimedFunction::calls
                                                 : name == kTotalMap   ? &TimedFunction::total
                                                 : name == kLongestMap ? &TimedFunction::longest
                                                 : name == kSelfMap    ? &TimedFunction::self
                                                                       : nullptr;
    if (member == nullptr) continue;
    for (const Row& row : read_rows(maps[i])) functions[key_text(analysis.maps[i], row)].*member = row.value[0];
  }
  std::vector<TimedFunction> all;
  for (auto& [name, function] : functions) {
    function.name = name;
    all.push_back(std::move(function));
  }
  return all;
}

}  // namespace

std::string function_table(const Analysis& analysis, const std::vector<MapView>& maps, std::string_view order,
                           Format format) {
  std::vector<TimedFunction> functions = read_functions(analysis, maps);
  const auto key = [&](const TimedFunction& function) {
    if (order == "self") return function.self;
    if (order == "calls") return function.calls;
    if (order == "avg") return function.average();
    return order == "max" ? function.longest : function.total;
  };
  std::stable_sort(functions.begin(), functions.end(),
                   [&](const TimedFunction& a, const TimedFunction& b) { return key(a) > key(b); });
  std::string text;
  if (format == Format::kJson) {
    for (const TimedFunction& its : functions)
      text += json_line("function",
                        fmt::format("{{\"func\": {}, \"calls\": {}, \"total\": {}, \"self\": {}, "
                                    "\"avg\": {}, \"max\": {}}}",
                                    json_quoted(its.name), its.calls, its.total, its.self, its.average(), its.longest));
    return text;
  }
  const std::string rule(10, '=');
  text = fmt::format("{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {}\n{}  {}  {}  {}  {}  {}\n", "Total time", "Self time",
                     "Calls", "Average", "Max time", "Function", rule, rule, rule, rule, rule, std::string(20, '='));
  for (const TimedFunction& its : functions)
    text += fmt::format("{}  {}  {:>10}  {}  {}  {}\n", duration_text(its.total), duration_text(its.self), its.calls,
                        duration_text(its.average()), duration_text(its.longest), its.name);
  return text;
}

}  // namespace ubp::program
