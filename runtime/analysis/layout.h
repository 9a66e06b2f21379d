// How C lays structs out, and the types that names stand for.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/types.h"
#include "runtime/language/tree.h"

namespace ubp::program {

// A member of a struct. One without a name has the members of its type, which are this struct's too.
struct Member {
  std::string name;
  Type type;
  std::uint32_t offset = 0;  // bytes
  std::uint8_t bits = 0,
               shift = 0;  // of a bit field: how many, and from which bit of the number at the offset; 0: none
};
struct Layout {
  std::uint32_t size = 0, alignment = 1;
  std::vector<Member> members;
};

// The types of a program: those of the language, and of its C part.
class Types {
 public:
  explicit Types(const language::Definitions& definitions);

  // kNone: there is none of this name. "T[]" is an array of no elements.
  Type named(std::string_view name) const;
  // The type with "*" and "[2]" behind it; kNone: it is too large.
  static Type behind(Type type, std::string_view suffixes);
  // What a pointer points to, with the layout of a struct.
  Type target(const Type& pointer) const;
  // A name for a number: of an enum, or of #define. kNone: there is none.
  struct Constant {
    Type type;
    std::uint64_t value = 0;
  };
  Constant constant(std::string_view name) const;
  // A name for a text; null: there is none.
  const std::string* text(std::string_view name) const;

 private:
  void lay_out(const language::StructDefinition& definition);

  std::map<std::string, std::string, std::less<>> typedefs_, texts_;
  std::map<std::string, Constant, std::less<>> constants_;
  std::map<std::string, std::shared_ptr<const Layout>, std::less<>> layouts_;
  std::map<std::string, std::shared_ptr<const EnumNames>, std::less<>> enums_;
};

// A member by its name, also of nested ones without a name; the offset is from the struct's beginning. Its type is
// kNone: there is none.
Member find_member(const Layout& layout, std::string_view name);

}  // namespace ubp::program
