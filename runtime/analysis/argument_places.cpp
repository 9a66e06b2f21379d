// See argument_places.h. A place is numbers with commas between them; "|" stands before each piece, ";" before each
// step.
#include "runtime/analysis/argument_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <span>

namespace ubp::program {

using symbols::PlaceStep;
using symbols::ValuePlace;

namespace {

constexpr char kBlank = '~';  // in problems

std::string text_of(const ValuePlace& place) {
  return fmt::format("{},{},{},{},{},{},{},{},{},{}", static_cast<int>(place.kind), place.bytes,
                     place.is_signed ? 1 : 0, place.shift, static_cast<int>(place.base), static_cast<int>(place.index),
                     place.scale, place.offset, place.first, place.count);
}

// Takes the numbers of a part off the text. False: it has others.
bool take_part(std::string_view& text, std::span<std::int64_t> numbers) {
  const std::size_t end = std::min(text.find_first_of("|;"), text.size());
  std::string_view part = text.substr(0, end);
  text.remove_prefix(end);
  for (std::int64_t& number : numbers) {
    const std::size_t comma = std::min(part.find(','), part.size());
    const auto [last, error] = std::from_chars(part.data(), part.data() + comma, number);
    if (error != std::errc{} || last != part.data() + comma) return false;
    part.remove_prefix(std::min(comma + 1, part.size()));
  }
  return part.empty();
}

bool is_register(std::int64_t number, std::int64_t last = 15) {
  return number >= symbols::kModuleBase && number <= last;
}
bool is_size(std::int64_t bytes) { return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8; }

bool take_place(std::string_view& text, ValuePlace& place) {
  std::int64_t numbers[10] = {};
  if (!take_part(text, numbers)) return false;
  const std::int64_t last = numbers[0] == static_cast<int>(ValuePlace::Kind::kRegister) ? symbols::kLastVector : 15;
  const bool is_good = numbers[0] >= 0 && numbers[0] <= static_cast<int>(ValuePlace::Kind::kPieces) &&
                       numbers[1] >= 0 && numbers[1] <= 255 && numbers[3] >= 0 && numbers[3] < 64 &&
                       is_register(numbers[4], last) && is_register(numbers[5], last) && numbers[6] >= 0 &&
                       numbers[6] <= 8 && numbers[8] >= 0 && numbers[9] >= 0 && numbers[8] + numbers[9] <= 1 << 16;
  if (!is_good) return false;
  place = {static_cast<ValuePlace::Kind>(numbers[0]),
           static_cast<std::uint8_t>(numbers[1]),
           numbers[2] != 0,
           static_cast<std::uint8_t>(numbers[3]),
           static_cast<std::int8_t>(numbers[4]),
           static_cast<std::int8_t>(numbers[5]),
           static_cast<std::uint8_t>(numbers[6]),
           numbers[7],
           static_cast<std::uint32_t>(numbers[8]),
           static_cast<std::uint32_t>(numbers[9])};
  return true;
}

bool take_step(std::string_view& text, PlaceStep& step) {
  std::int64_t numbers[4] = {};
  if (!take_part(text, numbers)) return false;
  if (numbers[0] < 0 || numbers[0] > static_cast<int>(PlaceStep::kLast) || !is_register(numbers[1]) ||
      !is_size(numbers[2]))
    return false;
  step = {static_cast<PlaceStep::Code>(numbers[0]), static_cast<std::int8_t>(numbers[1]),
          static_cast<std::uint8_t>(numbers[2]), numbers[3]};
  return true;
}

// Whether steps keep to their stack, and leave something there.
bool are_good(std::span<const PlaceStep> steps) {
  using Code = PlaceStep::Code;
  int depth = 0;
  for (const PlaceStep& step : steps) {
    int needed = 0, change = 0;
    switch (step.code) {
      case Code::kNumber:
      case Code::kThread: change = 1; break;
      case Code::kRegister:
        if (step.base < 0) return false;
        change = 1;
        break;
      case Code::kKept:
        if (!symbols::is_argument_register(step.base)) return false;
        needed = 1;
        break;
      case Code::kDuplicate: needed = change = 1; break;
      case Code::kPick:
        if (step.number < 0 || step.number >= symbols::kMostPlaceDepth) return false;
        needed = static_cast<int>(step.number) + 1;
        change = 1;
        break;
      case Code::kDrop:
        needed = 1;
        change = -1;
        break;
      case Code::kSwap: needed = 2; break;
      case Code::kRotate: needed = 3; break;
      default: needed = step.code >= Code::kAdd ? 2 : 1; change = step.code >= Code::kAdd ? -1 : 0;
    }
    if (depth < needed) return false;
    depth += change;
    if (depth > symbols::kMostPlaceDepth) return false;
  }
  return depth > 0;
}

// Whether what a place refers to is there.
bool is_good(const ValuePlace& place, const ArgumentPlace& all, bool may_have_pieces) {
  using Kind = ValuePlace::Kind;
  if (place.count > symbols::kMostPlaceParts) return false;
  if (place.kind == Kind::kPieces) return may_have_pieces && place.first + place.count <= all.pieces.size();
  if (place.kind != Kind::kComputed && place.kind != Kind::kComputedMemory) return true;
  return place.first + place.count <= all.steps.size() &&
         are_good(std::span(all.steps).subspan(place.first, place.count));
}

}  // namespace

std::string text_of(const ArgumentPlace& argument) {
  if (!argument.problem.empty()) {
    std::string text = '!' + argument.problem;
    std::replace(text.begin(), text.end(), ' ', kBlank);
    return text;
  }
  std::string text = text_of(argument.place);
  for (const ValuePlace& piece : argument.pieces) text += '|' + text_of(piece);
  for (const PlaceStep& step : argument.steps)
    text +=
        fmt::format(";{},{},{},{}", static_cast<int>(step.code), static_cast<int>(step.base), step.bytes, step.number);
  return text;
}

std::optional<ArgumentPlace> place_of_text(std::string_view text) {
  ArgumentPlace argument;
  if (text.starts_with('!')) {
    argument.problem = text.substr(1);
    std::replace(argument.problem.begin(), argument.problem.end(), kBlank, ' ');
    return argument;
  }
  if (!take_place(text, argument.place)) return std::nullopt;
  while (!text.empty()) {
    const bool is_piece = text.front() == '|';
    text.remove_prefix(1);
    if (is_piece ? !take_place(text, argument.pieces.emplace_back()) : !take_step(text, argument.steps.emplace_back()))
      return std::nullopt;
  }
  bool are_all_good = is_good(argument.place, argument, true) &&
                      (argument.place.kind == ValuePlace::Kind::kPieces || argument.place.bytes <= 8);
  for (const ValuePlace& piece : argument.pieces) are_all_good &= is_good(piece, argument, false);
  if (!are_all_good) return std::nullopt;
  return argument;
}

}  // namespace ubp::program
