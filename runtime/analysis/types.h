// Types of a program's values, and how they lie in memory: as whole words. An integer of any width takes one, extended
// by its sign; a string as many as its bytes need, with zeros behind its text; a tuple its elements, one behind the
// other. What C lays out (arrays, structs) keeps its bytes as they are in the program's memory, with zeros behind.
//
// Context: load time, and readers. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/helpers/memory.h"

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
  kPointer,
  kArray,
  kStruct,
  kBuffer,   // how many bytes, and then they
  kStack,    // its number (stack/stack_table.h)
  kSymbol,   // an address that is shown as a name (stack_helpers.h)
  kUnknown,  // of a member that programs know nothing of: it is there, and prints as null
};

inline constexpr std::uint32_t kInetWords = 3;

struct Layout;
struct StackText;
using EnumNames = std::map<std::uint64_t, std::string>;

struct Type {
  TypeKind kind = TypeKind::kNone;
  std::uint8_t bits = 64;   // kInteger
  bool is_signed = true;    // kInteger, and what a kAggregate is made of
  std::uint32_t bytes = 0;  // kString: with its NUL; kArray, kStruct: all of it; kBuffer: at most; kStack: frames
  Aggregate aggregate = Aggregate::kNone;
  std::vector<Type> elements{};  // kTuple; kPointer: what it points to; kArray: what it is made of
  std::string name{};  // kStruct: "struct foo"; an enum's; kTimestamp: strftime's format; kString: what is printed
                       // behind one that takes all its bytes, and so may have been longer; kStack: its mode
  std::shared_ptr<const Layout> layout{};     // kStruct; null: behind a pointer, where its name is enough
  std::shared_ptr<const EnumNames> names{};   // kInteger: of an enum
  std::vector<std::string> fields{};          // the names of a kTuple's elements, where they have some: a record
  std::shared_ptr<const StackText> stacks{};  // kStack, kSymbol

  bool operator==(const Type&) const = default;
  bool is(TypeKind other) const { return kind == other; }
  // What takes a register: also pointers.
  bool is_number() const { return is(TypeKind::kInteger) || is(TypeKind::kBool) || is(TypeKind::kPointer); }
  // Handled by its address.
  bool is_wide() const {
    return is(TypeKind::kString) || is(TypeKind::kTuple) || is(TypeKind::kInet) || is(TypeKind::kBuffer) || is_c();
  }
  // Laid out as C does.
  bool is_c() const { return is(TypeKind::kArray) || is(TypeKind::kStruct); }
  // Bytes in the program's memory; of a tuple as if it were a struct. What its address is a multiple of.
  std::uint32_t size() const;
  std::uint32_t alignment() const;
  // Bytes where it lies in the frame, by its address.
  std::uint32_t frame_bytes() const { return is_c() || is(TypeKind::kString) ? bytes : words() * 8; }
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

Type buffer_of(std::uint32_t bytes);
Type pointer_to(Type target);
Type array_of(Type element, std::uint32_t count);

// The element of a tuple that has this name; as many as there are: none has.
std::size_t element_named(const Type& tuple, std::string_view name);

// Widens `into` so that it holds a value of the other type, too. False: no type does.
bool join(Type& into, const Type& from);

// Of the smallest signed type that holds it; above that, unsigned.
Type type_of_literal(std::uint64_t value);

}  // namespace ubp::program
