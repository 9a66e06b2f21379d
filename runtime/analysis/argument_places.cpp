// See argument_places.h.
#include "runtime/analysis/argument_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

namespace ubp::program {

using symbols::ValuePlace;

std::string text_of(const ArgumentPlace& argument) {
  if (!argument.problem.empty()) {
    std::string text = '!' + argument.problem;
    std::replace(text.begin(), text.end(), ' ', '_');
    return text;
  }
  const ValuePlace& place = argument.place;
  return fmt::format("{},{},{},{},{},{},{},{}", static_cast<int>(place.kind), place.bytes, place.is_signed ? 1 : 0,
                     place.shift, static_cast<int>(place.base), static_cast<int>(place.index), place.scale,
                     place.offset);
}

std::optional<ArgumentPlace> place_of_text(std::string_view text) {
  ArgumentPlace argument;
  if (text.starts_with('!')) {
    argument.problem = text.substr(1);
    std::replace(argument.problem.begin(), argument.problem.end(), '_', ' ');
    return argument;
  }
  std::int64_t numbers[8] = {};
  for (std::int64_t& number : numbers) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const auto [end, error] = std::from_chars(text.data(), text.data() + comma, number);
    if (error != std::errc{} || end != text.data() + comma) return std::nullopt;
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  const auto is_register = [](std::int64_t number) { return number >= symbols::kModuleBase && number < 16; };
  const bool is_good = numbers[0] >= 0 && numbers[0] <= static_cast<int>(ValuePlace::Kind::kConstant) &&
                       numbers[1] >= 0 && numbers[1] <= 8 && numbers[3] >= 0 && numbers[3] < 64 &&
                       is_register(numbers[4]) && is_register(numbers[5]) && numbers[6] >= 0 && numbers[6] <= 8;
  if (!is_good) return std::nullopt;
  argument.place = {static_cast<ValuePlace::Kind>(numbers[0]),
                    static_cast<std::uint8_t>(numbers[1]),
                    numbers[2] != 0,
                    static_cast<std::uint8_t>(numbers[3]),
                    static_cast<std::int8_t>(numbers[4]),
                    static_cast<std::int8_t>(numbers[5]),
                    static_cast<std::uint8_t>(numbers[6]),
                    numbers[7]};
  return argument;
}

}  // namespace ubp::program
