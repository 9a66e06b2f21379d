// Probes of nothing in the program: "begin", "end", "interval:s:1". See parser.h.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "runtime/language/parser.h"
#include "runtime/language/program_parser.h"

namespace ubp::language {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t ns;
};
constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr Unit kUnits[] = {{"s", kSecond}, {"ms", 1'000'000}, {"us", 1'000}, {"ns", 1}};

// "s:1", "hz:99", "10ms"; 0: it is none.
std::uint64_t period_of(std::string_view text) {
  const auto number_of = [](std::string_view digits, std::uint64_t& number) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return error == std::errc{} && number != 0 ? end : digits.data();
  };
  std::uint64_t count = 0, period = 0;
  const std::size_t colon = text.find(':');
  std::string_view unit = text.substr(0, colon);
  if (colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    if (number_of(digits, count) != digits.data() + digits.size()) return 0;
    if (unit == "hz") return count <= kSecond ? kSecond / count : 0;
  } else {
    const char* const end = number_of(text, count);
    unit = text.substr(static_cast<std::size_t>(end - text.data()));
  }
  const auto* const found =
      std::find_if(std::begin(kUnits), std::end(kUnits), [unit](const Unit& known) { return known.name == unit; });
  if (count == 0 || found == std::end(kUnits) || __builtin_mul_overflow(count, found->ns, &period)) return 0;
  return period <= ~std::uint64_t{0} / 4 ? period : 0;  // times stay below 2^64
}

}  // namespace

// "begin" and "end" are functions' names, too, where no block follows; "i" may be a module's.
std::optional<Parser::EventPoint> Parser::find_event(const Cursor& at) const {
  constexpr std::pair<std::string_view, Probe::Event> kEvents[] = {
      {"begin", Probe::Event::kBegin}, {"BEGIN", Probe::Event::kBegin},        {"end", Probe::Event::kEnd},
      {"END", Probe::Event::kEnd},     {"interval:", Probe::Event::kInterval}, {"i:", Probe::Event::kInterval}};
  if (program_ == nullptr) return std::nullopt;
  for (const auto& [word, event] : kEvents) {
    if (!text_.substr(at.offset).starts_with(word)) continue;
    EventPoint point{event, word.size(), 0};
    if (event == Probe::Event::kInterval) {
      while (is_word(this->at(at.offset + point.bytes)) || this->at(at.offset + point.bytes) == ':') ++point.bytes;
      point.period = period_of(slice(at.offset + word.size(), at.offset + point.bytes));
      if (point.period == 0) continue;
    }
    Lexer ahead(text_, {at.offset + point.bytes, at.line, at.line_start});
    const char next = ahead.skip_blanks();
    const bool is_apart = ahead.cursor().offset > at.offset + point.bytes;
    if (next == '{' || (next == '/' && is_apart)) return point;
    if (next != ',') continue;
    ahead.next();
    ahead.skip_blanks();
    if (find_event(ahead.cursor())) return point;
  }
  return std::nullopt;
}

// "begin, end", and their block, which each has for itself.
bool Parser::parse_events() {
  struct Point {
    EventPoint what;
    std::string name;
  };
  const Cursor begin = cursor();
  std::vector<Point> points;
  while (const auto event = find_event(cursor())) {
    points.push_back({*event, std::string(slice(offset_, offset_ + event->bytes))});
    offset_ += event->bytes;
    Lexer ahead(text_, cursor());
    if (ahead.skip_blanks() != ',') break;
    ahead.next();
    ahead.skip_blanks();
    move_to(ahead.cursor());
  }
  const Cursor block = cursor();
  for (Point& point : points) {
    move_to(block);
    if (!parse_program(point.what.event, begin)) return false;
    Probe& probe = program_->probes.back();
    if (point.name.starts_with("i:")) point.name.insert(1, "nterval");
    if (point.name == "BEGIN") point.name = "begin";
    if (point.name == "END") point.name = "end";
    probe.name = std::move(point.name);
    probe.period = point.what.period;
  }
  return true;
}

}  // namespace ubp::language
