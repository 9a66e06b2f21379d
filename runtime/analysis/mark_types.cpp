// See mark_types.h.
#include "runtime/analysis/mark_types.h"

#include <fmt/format.h>

#include <map>
#include <variant>

#include "runtime/analysis/sources.h"
#include "runtime/analysis/types.h"

namespace ubp::program {

std::string arguments_name(std::uint32_t probe) { return fmt::format("struct __arguments_{}", probe); }
std::string variables_name(std::uint32_t probe) { return fmt::format("struct __variables_{}", probe); }

std::string with_mark_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                            const MarksOf& marks_of) {
  if (text.find("usdt:") == std::string::npos && text.find("U:") == std::string::npos) return text;
  language::Program tree;
  const auto parsed = language::parse(text, language::kMaxItems, &tree, parameters);
  const auto* const items = std::get_if<std::vector<language::Item>>(&parsed);
  if (items == nullptr) return text;                 // who checks it says what is wrong
  std::map<std::uint32_t, std::vector<Type>> types;  // by probe and argument
  for (const language::Item& item : *items) {
    if (item.kind != language::Kind::kMark || item.probe == language::kBare) continue;
    for (const symbols::Mark& mark : marks_of(item)) {
      std::vector<Type>& its = types[item.probe];
      if (its.size() < mark.arguments.size()) its.resize(mark.arguments.size());
      for (std::size_t i = 0; i < mark.arguments.size(); ++i) {
        const symbols::ValuePlace& place = mark.arguments[i].place;
        join(its[i], integer(static_cast<std::uint8_t>(place.bytes * 8), place.is_signed));
      }
    }
  }
  std::string structs;
  for (const auto& [probe, arguments] : types) {
    if (arguments.empty()) continue;
    structs += arguments_name(probe) + " {";
    for (std::size_t i = 0; i < arguments.size(); ++i) structs += fmt::format(" {} arg{};", name_of(arguments[i]), i);
    structs += " };\n";
  }
  return structs.empty() ? text : with_prefix("types of static marks", structs, name, std::move(text));
}

}  // namespace ubp::program
