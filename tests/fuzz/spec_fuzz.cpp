// The specification parser: any bytes give items that stand in the text and mean the same alone, or one printable line
// that points into the text.
#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "fuzz.h"
#include "runtime/language/spec.h"
#include "runtime/language/text.h"

namespace ubp::fuzz {
namespace {

using namespace ubp::language;

constexpr std::size_t kMostBytes = 1 << 16;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (true) {
    const std::size_t newline = text.find('\n');
    lines.push_back(text.substr(0, newline));
    if (newline == std::string_view::npos) return lines;
    text.remove_prefix(newline + 1);
  }
}

// A position may be the byte behind its line: there something is missing.
void check_position(const std::vector<std::string_view>& lines, Position position) {
  FUZZ_CHECK(position.line >= 1 && static_cast<std::size_t>(position.line) <= lines.size(), "line %d of %zu",
             position.line, lines.size());
  const std::size_t length = lines[static_cast<std::size_t>(position.line - 1)].size();
  FUZZ_CHECK(position.column >= 1 && static_cast<std::size_t>(position.column) <= length + 1, "column %d of %zu",
             position.column, length);
}

void check_error(const std::vector<std::string_view>& lines, const Error& error) {
  check_position(lines, error.position);
  FUZZ_CHECK(!error.message.empty() && error.message.size() < 400 && error.message.back() != '.');
  FUZZ_CHECK(!find_bad_byte(error.message) && error.message.find_first_of("\n\r\t") == std::string::npos, "'%s'",
             error.message.c_str());
}

bool same_target(const SymbolTarget& a, const SymbolTarget& b) {
  return a.pattern == b.pattern && a.quoted == b.quoted && a.offset == b.offset;
}
bool same_target(const AddressTarget& a, const AddressTarget& b) { return a.address == b.address && a.end == b.end; }
bool same_target(const MarkTarget& a, const MarkTarget& b) { return a.provider == b.provider && a.name == b.name; }
bool same_target(const LineTarget& a, const LineTarget& b) {
  return a.file == b.file && a.line == b.line && a.column == b.column;
}

bool same_item(const Item& a, const Item& b) {
  return a.text == b.text && a.exclude == b.exclude && a.kind == b.kind && a.module == b.module &&
         a.target.index() == b.target.index() &&
         std::visit(
             [&](const auto& target) {
               return same_target(target, std::get<std::decay_t<decltype(target)>>(b.target));
             },
             a.target);
}

void check_target(const SymbolTarget& target) { FUZZ_CHECK(!target.pattern.empty()); }
void check_target(const AddressTarget& target) { FUZZ_CHECK(target.end > target.address); }
void check_target(const MarkTarget& target) { FUZZ_CHECK(!target.name.empty()); }
void check_target(const LineTarget& target) {
  FUZZ_CHECK(!target.file.empty() && (target.line != 0 || target.column == 0));
}

void check_item(const std::vector<std::string_view>& lines, const Item& item) {
  FUZZ_CHECK(!item.text.empty() && item.text.find('\n') == std::string::npos);
  FUZZ_CHECK(item.exclude == (item.text[0] == '!'));
  check_position(lines, item.position);
  const std::string_view line = lines[static_cast<std::size_t>(item.position.line - 1)];
  const auto column = static_cast<std::size_t>(item.position.column - 1);
  FUZZ_CHECK(line.substr(column, item.text.size()) == item.text, "'%s'", item.text.c_str());
  FUZZ_CHECK(item.target_position.line == item.position.line && item.target_position.column >= item.position.column);
  FUZZ_CHECK(static_cast<std::size_t>(item.target_position.column - item.position.column) < item.text.size());
  std::visit([](const auto& target) { check_target(target); }, item.target);
}

// The items' texts, typed anew, are the same items.
void check_again(const std::vector<Item>& items) {
  std::string joined;
  for (const Item& item : items) {
    const auto again = parse(item.text);
    const auto* one = std::get_if<std::vector<Item>>(&again);
    FUZZ_CHECK(one != nullptr && one->size() == 1 && same_item(one->front(), item), "'%s'", item.text.c_str());
    joined += item.text + " ;\n";
  }
  const auto again = parse(joined);
  const auto* all = std::get_if<std::vector<Item>>(&again);
  FUZZ_CHECK(all != nullptr && std::equal(all->begin(), all->end(), items.begin(), items.end(), same_item), "%s",
             joined.c_str());
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  const std::string_view text{reinterpret_cast<const char*>(bytes), std::min(size, kMostBytes)};
  const std::vector<std::string_view> lines = lines_of(text);
  const auto result = ubp::language::parse(text);
  if (const auto* error = std::get_if<ubp::language::Error>(&result)) {
    check_error(lines, *error);
    return 0;
  }
  const auto& items = std::get<std::vector<ubp::language::Item>>(result);
  for (const ubp::language::Item& item : items) check_item(lines, item);
  check_again(items);
  return 0;
}
