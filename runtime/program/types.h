// Types of a program's values, and how they lie in memory: as whole words. An integer of any width takes one, extended
// by its sign; a string as many as its bytes need, with zeros behind its text; a tuple its elements, one behind the
// other.
//
// Context: load time, and readers. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/program/memory.h"

namespace ubp::program {

enum class TypeKind : std::uint8_t {
  kNone,
  kVoid,
  kBool,
  kInteger,
  kString,
  kTuple,
  kAggregate,
  // Only for printing; one word, but for kInet.
  kTimestamp,  // ns of CLOCK_BOOTTIME
  kInet,       // the family, and 4 or 16 bytes
  kMac,
  kUsername,  // a user's id
};

inline constexpr std::uint32_t kInetWords = 3;

struct Type {
  TypeKind kind = TypeKind::kNone;
  std::uint8_t bits = 64;   // kInteger
  bool is_signed = true;    // kInteger, and what a kAggregate is made of
  std::uint32_t bytes = 0;  // kString: with its NUL
  Aggregate aggregate = Aggregate::kNone;
  std::vector<Type> elements{};  // kTuple
  std::string name{};            // kTimestamp: strftime's format

  bool operator==(const Type&) const = default;
  bool is(TypeKind other) const { return kind == other; }
  bool is_number() const { return kind == TypeKind::kInteger || kind == TypeKind::kBool; }
  // Handled by its address.
  bool is_wide() const { return is(TypeKind::kString) || is(TypeKind::kTuple) || is(TypeKind::kInet); }
  std::uint32_t words() const;
};

Type integer(std::uint8_t bits, bool is_signed);
Type string_of(std::uint32_t bytes);
Type boolean();
Type void_type();
Type tuple_of(std::vector<Type> elements);
Type aggregate_of(Aggregate aggregate, bool is_signed);

// As messages print it: "int64", "string[8]", "(int8,string[4])", "count_t".
std::string name_of(const Type& type);

// The type for a cast or a declaration; kNone: there is none of this name.
Type named_type(std::string_view name);

// Widens `into` so that it holds a value of the other type, too. False: no type does.
bool join(Type& into, const Type& from);

// Of the smallest signed type that holds it; above that, unsigned.
Type type_of_literal(std::uint64_t value);

}  // namespace ubp::program
