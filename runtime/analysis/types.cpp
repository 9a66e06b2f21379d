// See types.h.
#include "runtime/analysis/types.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "runtime/analysis/layout.h"

namespace ubp::program {
namespace {

constexpr std::uint8_t kWidths[] = {8, 16, 32, 64};
constexpr std::uint32_t kWord = sizeof(std::uint64_t);

}  // namespace

std::uint32_t Type::words() const {
  switch (kind) {
    case TypeKind::kNone:
    case TypeKind::kVoid: return 0;
    case TypeKind::kArray:
    case TypeKind::kStruct:
    case TypeKind::kString: return static_cast<std::uint32_t>(words_of(bytes));
    case TypeKind::kBuffer: return static_cast<std::uint32_t>(1 + words_of(bytes));
    case TypeKind::kInet: return kInetWords;
    case TypeKind::kTuple: {
      std::uint32_t sum = 0;
      for (const Type& element : elements) sum += element.words();
      return sum;
    }
    default: return 1;
  }
}

std::uint32_t Type::size() const {
  switch (kind) {
    case TypeKind::kBool: return 1;
    case TypeKind::kInteger: return bits / 8;
    case TypeKind::kString:
    case TypeKind::kUnknown:
    case TypeKind::kBuffer:
    case TypeKind::kArray:
    case TypeKind::kStruct: return bytes;
    case TypeKind::kVoid: return 1;  // as pointers to it count
    case TypeKind::kTuple: {
      std::uint32_t sum = 0, most = 1;
      for (const Type& element : elements) {
        const std::uint32_t its = element.alignment();
        most = std::max(most, its);
        sum = (sum + its - 1) / its * its + element.size();
      }
      return (sum + most - 1) / most * most;
    }
    default: return words() * kWord;
  }
}

std::uint32_t Type::alignment() const {
  switch (kind) {
    case TypeKind::kStruct: return layout != nullptr ? layout->alignment : 1;
    case TypeKind::kArray: return elements.front().alignment();
    case TypeKind::kString: return 1;
    case TypeKind::kTuple: {
      std::uint32_t most = 1;
      for (const Type& element : elements) most = std::max(most, element.alignment());
      return most;
    }
    default: return std::clamp<std::uint32_t>(size(), 1, kWord);
  }
}

Type integer(std::uint8_t bits, bool is_signed) { return {TypeKind::kInteger, bits, is_signed}; }
Type string_of(std::uint32_t bytes) { return {TypeKind::kString, 64, true, bytes}; }
Type boolean() { return {TypeKind::kBool, 64, false}; }
Type void_type() { return {TypeKind::kVoid}; }
Type tuple_of(std::vector<Type> elements) {
  return {TypeKind::kTuple, 64, true, 0, Aggregate::kNone, std::move(elements)};
}
Type aggregate_of(Aggregate aggregate, bool is_signed) { return {TypeKind::kAggregate, 64, is_signed, 0, aggregate}; }

std::string name_of(const Type& type) {
  constexpr std::string_view kAggregates[] = {"none",  "count_t", "sum_t",  "min_t",   "max_t",
                                              "avg_t", "stats_t", "hist_t", "lhist_t", "tseries_t"};
  switch (type.kind) {
    case TypeKind::kNone: return "none";
    case TypeKind::kVoid: return "void";
    case TypeKind::kBool: return "bool";
    case TypeKind::kInteger:
      if (!type.name.empty()) return type.name;
      return fmt::format("{}int{}", type.is_signed ? "" : "u", type.bits);
    case TypeKind::kString: return fmt::format("string[{}]", type.bytes);
    case TypeKind::kAggregate: return std::string(kAggregates[static_cast<std::size_t>(type.aggregate)]);
    case TypeKind::kTimestamp: return "timestamp";
    case TypeKind::kInet: return "inet";
    case TypeKind::kMac: return "mac_address";
    case TypeKind::kUsername: return "username";
    case TypeKind::kPointer:
      return name_of(type.elements.front()) + (type.elements.front().is(TypeKind::kPointer) ? "*" : " *");
    case TypeKind::kArray:
      return fmt::format("{}[{}]", name_of(type.elements.front()),
                         type.elements.front().size() != 0 ? type.bytes / type.elements.front().size() : 0);
    case TypeKind::kStruct: return type.name;
    case TypeKind::kBuffer: return fmt::format("buffer[{}]", type.bytes);
    case TypeKind::kStack: return fmt::format("ustack({})", type.name);
    case TypeKind::kSymbol: return "usym";
    case TypeKind::kUnknown: return "unknown";
    case TypeKind::kTuple: break;
  }
  std::string text = "(";
  for (std::size_t i = 0; i < type.elements.size(); ++i) {
    text += text.size() > 1 ? "," : "";
    text += (type.fields.empty() ? "" : '.' + type.fields[i] + '=') + name_of(type.elements[i]);
  }
  return text + ')';
}

Type buffer_of(std::uint32_t bytes) { return {TypeKind::kBuffer, 64, true, bytes}; }

Type pointer_to(Type target) {
  Type type{TypeKind::kPointer, 64, false};
  target.layout = nullptr;  // a struct may point to itself
  type.elements.push_back(std::move(target));
  return type;
}

Type array_of(Type element, std::uint32_t count) {
  Type type{TypeKind::kArray};
  type.bytes = element.size() * count;
  type.elements.push_back(std::move(element));
  return type;
}

std::size_t element_named(const Type& tuple, std::string_view name) {
  return static_cast<std::size_t>(std::find(tuple.fields.begin(), tuple.fields.end(), name) - tuple.fields.begin());
}

bool join(Type& into, const Type& from) {
  if (into.is(TypeKind::kNone)) into = from;
  if (from.is(TypeKind::kNone) || into == from) return true;
  if (into.kind != from.kind) return false;
  switch (into.kind) {
    case TypeKind::kPointer: {  // what differs is a number from then on
      if (into.elements.front().is(TypeKind::kVoid)) into = from;
      return true;
    }
    case TypeKind::kArray:
    case TypeKind::kStruct: return false;
    case TypeKind::kInteger:
      if (into.names != from.names) {
        into.names = nullptr;
        into.name.clear();
      }
      if (into.is_signed == from.is_signed) {
        into.bits = std::max(into.bits, from.bits);
      } else {  // a signed one that holds both, as far as there is one
        const std::uint8_t with_unsigned = into.is_signed ? from.bits : into.bits;
        const int needed = std::max<int>(into.is_signed ? into.bits : from.bits, 2 * with_unsigned);
        into = integer(static_cast<std::uint8_t>(std::min(needed, 64)), true);
      }
      return true;
    case TypeKind::kBuffer:
    case TypeKind::kString:
      into.bytes = std::max(into.bytes, from.bytes);
      if (into.name.empty()) into.name = from.name;
      return true;
    case TypeKind::kTuple: {
      if (into.elements.size() != from.elements.size() || into.fields.empty() != from.fields.empty()) return false;
      for (std::size_t i = 0; i < into.elements.size(); ++i) {
        const std::size_t its = into.fields.empty() ? i : element_named(from, into.fields[i]);
        if (its == from.elements.size() || !join(into.elements[i], from.elements[its])) return false;
      }
      return true;
    }
    case TypeKind::kAggregate:
      if (into.aggregate != from.aggregate) return false;
      into.is_signed |= from.is_signed;
      return true;
    case TypeKind::kTimestamp: return into.name == from.name;
    case TypeKind::kStack: into.bytes = std::max(into.bytes, from.bytes); return into.name == from.name;
    default: return true;
  }
}

Type type_of_literal(std::uint64_t value) {
  for (const std::uint8_t bits : kWidths) {
    if (value >> (bits - 1) == 0) return integer(bits, true);
  }
  return integer(64, false);
}

}  // namespace ubp::program
