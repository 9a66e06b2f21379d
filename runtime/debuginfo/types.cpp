// See types.h.
#include "runtime/debuginfo/types.h"

#include <dwarf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace ubp::debuginfo {
namespace {

constexpr std::size_t kMostTypes = 4096;

bool is_qualifier(int tag) {
  return tag == DW_TAG_const_type || tag == DW_TAG_volatile_type || tag == DW_TAG_restrict_type ||
         tag == DW_TAG_atomic_type;
}
bool is_struct(int tag) { return tag == DW_TAG_structure_type || tag == DW_TAG_class_type || tag == DW_TAG_union_type; }

std::string identifier(std::string name) {
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

// A type that is only declared here may be defined elsewhere in its unit.
Dwarf_Die complete(Dwarf_Die type) {
  Dwarf_Attribute attribute;
  bool is_declaration = false;
  if (dwarf_attr(&type, DW_AT_declaration, &attribute) == nullptr || dwarf_formflag(&attribute, &is_declaration) != 0 ||
      !is_declaration)
    return type;
  Dwarf_Die unit, child;
  const std::string name = name_of(type);
  if (name.empty() || dwarf_diecu(&type, &unit, nullptr, nullptr) == nullptr || dwarf_child(&unit, &child) != 0)
    return type;
  do {
    if (dwarf_tag(&child) == dwarf_tag(&type) && name_of(child) == name && dwarf_hasattr(&child, DW_AT_byte_size) != 0)
      return child;
  } while (dwarf_siblingof(&child, &child) == 0);
  return type;
}

std::string keyword_of(int tag) {
  if (tag == DW_TAG_enumeration_type) return "enum";
  return tag == DW_TAG_union_type ? "union" : "struct";
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

bool die_of(Dwarf_Die& die, unsigned attribute, Dwarf_Die& result) {
  Dwarf_Attribute value;
  return dwarf_attr_integrate(&die, attribute, &value) != nullptr && dwarf_formref_die(&value, &result) != nullptr;
}

std::string name_of(Dwarf_Die& die) {
  Dwarf_Attribute value;
  const char* const text =
      dwarf_attr_integrate(&die, DW_AT_name, &value) != nullptr ? dwarf_formstring(&value) : nullptr;
  return text != nullptr ? text : "";
}

std::uint64_t number_of(Dwarf_Die& die, unsigned attribute, std::uint64_t otherwise) {
  Dwarf_Attribute value;
  Dwarf_Word number = 0;
  return dwarf_attr_integrate(&die, attribute, &value) != nullptr && dwarf_formudata(&value, &number) == 0 ? number
                                                                                                           : otherwise;
}

bool plain_type_of(Dwarf_Die& die, Dwarf_Die& result) {
  if (!die_of(die, DW_AT_type, result)) return false;
  for (int depth = 0; depth < 64; ++depth) {
    const int tag = dwarf_tag(&result);
    if (!is_qualifier(tag) && tag != DW_TAG_typedef) return true;
    Dwarf_Die inner;
    if (!die_of(result, DW_AT_type, inner)) return false;
    result = inner;
  }
  return false;
}

namespace {

std::string spelling(Dwarf_Die* type, int depth) {
  if (type == nullptr) return "void";
  if (depth > 32) return "...";
  const int tag = dwarf_tag(type);
  Dwarf_Die inner;
  Dwarf_Die* const target = die_of(*type, DW_AT_type, inner) ? &inner : nullptr;
  const auto inside = [&] { return spelling(target, depth + 1); };
  const std::string name = name_of(*type);
  switch (tag) {
    case DW_TAG_const_type:
    case DW_TAG_volatile_type: {
      const std::string word = tag == DW_TAG_const_type ? "const" : "volatile";
      const std::string its = inside();
      return its.ends_with('*') ? its + ' ' + word : word + ' ' + its;
    }
    case DW_TAG_restrict_type:
    case DW_TAG_atomic_type: return inside();
    case DW_TAG_pointer_type:
      if (target != nullptr && dwarf_tag(target) == DW_TAG_subroutine_type) return "void (*)()";
      return inside() + '*';
    case DW_TAG_reference_type: return inside() + '&';
    case DW_TAG_rvalue_reference_type: return inside() + "&&";
    case DW_TAG_array_type: return inside() + "[]";
    case DW_TAG_subroutine_type: return "void ()";
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type: return keyword_of(tag) + ' ' + (name.empty() ? std::string("<anonymous>") : name);
    default: return name.empty() ? "?" : name;
  }
}

}  // namespace

std::string spelling_of(Dwarf_Die& declared) {
  Dwarf_Die type;
  return spelling(die_of(declared, DW_AT_type, type) ? &type : nullptr, 0);
}

TypeWriter::Shape TypeWriter::base_shape(Dwarf_Die& type) const {
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 0), encoding = number_of(type, DW_AT_encoding, 0);
  const auto bytes = [&] { return Shape{"uint8", fmt::format("[{}]", size), size, 1}; };
  const auto number = [&](std::string_view sign) {
    if (size == 16) return Shape{"__int128", "", 16, 8};
    if (size != 1 && size != 2 && size != 4 && size != 8) return bytes();
    return Shape{fmt::format("{}int{}", sign, size * 8), "", size, size};
  };
  switch (encoding) {
    case DW_ATE_boolean: return size == 1 ? Shape{"bool", "", 1, 1} : number("u");
    case DW_ATE_signed:
    case DW_ATE_signed_char: return number("");
    case DW_ATE_unsigned:
    case DW_ATE_unsigned_char:
    case DW_ATE_UTF:
    case DW_ATE_address: return number("u");
    case DW_ATE_float:
      if (size == 4) return {"float", "", 4, 4};
      if (size == 8) return {"double", "", 8, 8};
      if (size == 16) return {"__int128", "", 16, 8};
      return bytes();
    default: return bytes();
  }
}

TypeWriter::Shape TypeWriter::array_shape(Dwarf_Die& type) {
  Dwarf_Die element, child;
  Shape its = shape(die_of(type, DW_AT_type, element) ? &element : nullptr);
  std::string counts;
  std::uint64_t all = 1;
  if (dwarf_child(&type, &child) == 0) do {
      if (dwarf_tag(&child) != DW_TAG_subrange_type) continue;
      constexpr std::uint64_t kNone = ~std::uint64_t{0};
      const std::uint64_t last = number_of(child, DW_AT_upper_bound, kNone);
      const std::uint64_t count = number_of(child, DW_AT_count, last + 1);  // without either: none
      counts += fmt::format("[{}]", count);
      all *= count;
    } while (dwarf_siblingof(&child, &child) == 0);
  its.suffix = counts + its.suffix;
  its.size *= all;
  return its;
}

// Of an anonymous one, a typedef's.
TypeWriter::Shape TypeWriter::struct_shape(Dwarf_Die& declared, const std::string& alias) {
  Dwarf_Die type = complete(declared);
  const int tag = dwarf_tag(&type);
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 0);
  std::string name = identifier(name_of(type));
  if (name.empty()) name = alias;
  if (tag == DW_TAG_enumeration_type) {
    const std::uint64_t bytes = size == 0 ? 4 : size;
    if (bytes != 4) return {fmt::format("uint{}", bytes * 8), "", bytes, bytes};
    if (name.empty()) name = fmt::format("__enum_{:x}", dwarf_dieoffset(&type));
    const std::string whole = "enum " + name;
    if (!known_.contains(whole) && done_.emplace(whole, 4).second) {
      std::string values;
      Dwarf_Die child;
      if (dwarf_child(&type, &child) == 0) do {
          Dwarf_Attribute value;
          Dwarf_Sword number = 0;
          if (dwarf_tag(&child) != DW_TAG_enumerator || dwarf_attr(&child, DW_AT_const_value, &value) == nullptr ||
              dwarf_formsdata(&value, &number) != 0)
            continue;
          values += fmt::format("{} {} = {}", values.empty() ? "" : ",", identifier(name_of(child)), number);
        } while (dwarf_siblingof(&child, &child) == 0);
      if (values.empty()) return {"uint32", "", 4, 4};
      text_ += fmt::format("{} {{{} }};\n", whole, values);
    }
    return {whole, "", 4, 4};
  }
  if (name.empty()) name = fmt::format("__anonymous_{:x}", dwarf_dieoffset(&type));
  const std::string whole = keyword_of(tag) + ' ' + name;
  std::uint64_t alignment = 1;
  if (!known_.contains(whole)) {
    if (const auto done = done_.find(whole); done != done_.end()) return {whole, "", size, done->second};
    if (count_ >= kMostTypes || size == 0) return {"uint8", fmt::format("[{}]", size), size, 1};
    ++count_;
    const std::string its = body(type, alignment);
    done_[whole] = alignment;
    text_ += fmt::format("{} {};\n", whole, its);
  }
  return {whole, "", size, alignment};
}

TypeWriter::Shape TypeWriter::shape(Dwarf_Die* given) {
  if (given == nullptr) return {"void", "", 1, 1};
  Dwarf_Die type = *given;
  std::string alias;
  for (int depth = 0; depth < 64; ++depth) {
    const int tag = dwarf_tag(&type);
    if (tag == DW_TAG_typedef) alias = identifier(name_of(type));
    if (!is_qualifier(tag) && tag != DW_TAG_typedef) break;
    Dwarf_Die inner;
    if (!die_of(type, DW_AT_type, inner)) return {"void", "", 1, 1};
    type = inner;
  }
  switch (dwarf_tag(&type)) {
    case DW_TAG_base_type: return base_shape(type);
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type: return struct_shape(type, alias);
    case DW_TAG_array_type: return array_shape(type);
    case DW_TAG_pointer_type:
    case DW_TAG_reference_type:
    case DW_TAG_rvalue_reference_type: {
      Dwarf_Die target;
      if (!die_of(type, DW_AT_type, target)) return {"void*", "", 8, 8};
      std::string target_alias;
      Dwarf_Die plain = target;
      while (is_qualifier(dwarf_tag(&plain)) || dwarf_tag(&plain) == DW_TAG_typedef) {
        if (dwarf_tag(&plain) == DW_TAG_typedef) target_alias = identifier(name_of(plain));
        Dwarf_Die inner;
        if (!die_of(plain, DW_AT_type, inner)) return {"void*", "", 8, 8};
        plain = inner;
      }
      const int tag = dwarf_tag(&plain);
      if (tag == DW_TAG_subroutine_type || tag == DW_TAG_array_type) return {"void*", "", 8, 8};
      if (!is_struct(tag)) {
        const Shape its = shape(&plain);
        const bool has_values = its.base != "float" && its.base != "double" && its.base != "__int128";
        return its.suffix.empty() && has_values ? Shape{its.base + '*', "", 8, 8} : Shape{"void*", "", 8, 8};
      }
      std::string name = identifier(name_of(plain));
      if (name.empty()) name = target_alias;
      if (name.empty()) name = fmt::format("__anonymous_{:x}", dwarf_dieoffset(&plain));
      waiting_.emplace_back(plain, name);
      return {keyword_of(tag) + ' ' + name + '*', "", 8, 8};
    }
    default: {
      const std::uint64_t size = number_of(type, DW_AT_byte_size, 8);
      return {"uint8", fmt::format("[{}]", size), size, 1};
    }
  }
}

std::vector<TypeWriter::MemberShape> TypeWriter::members(Dwarf_Die& type) {
  std::vector<MemberShape> all;
  Dwarf_Die child;
  if (dwarf_child(&type, &child) != 0) return all;
  do {
    const int tag = dwarf_tag(&child);
    if (tag != DW_TAG_member && tag != DW_TAG_inheritance) continue;
    if (dwarf_hasattr(&child, DW_AT_external) != 0) continue;  // static
    if (tag == DW_TAG_member && dwarf_tag(&type) != DW_TAG_union_type &&
        dwarf_hasattr(&child, DW_AT_data_member_location) == 0 && dwarf_hasattr(&child, DW_AT_data_bit_offset) == 0)
      continue;
    MemberShape member;
    member.offset = number_of(child, DW_AT_data_member_location, 0);
    Dwarf_Die its_type, plain;
    const bool has_type = die_of(child, DW_AT_type, its_type);
    const std::string name = tag == DW_TAG_inheritance ? "" : identifier(name_of(child));
    const bool is_inner = has_type && plain_type_of(child, plain) && is_struct(dwarf_tag(&plain)) &&
                          name_of(plain).empty() && dwarf_tag(&its_type) != DW_TAG_typedef;
    Shape its;
    if (is_inner) {
      std::uint64_t alignment = 1;
      its.base = keyword_of(dwarf_tag(&plain)) + ' ' + body(plain, alignment);
      its.size = number_of(plain, DW_AT_byte_size, 0);
      its.alignment = alignment;
    } else {
      its = shape(has_type ? &its_type : nullptr);
    }
    member.text = fmt::format(" {} {}{};", its.base, name, its.suffix);
    member.size = its.size;
    member.alignment = its.alignment;
    const std::uint64_t bits = number_of(child, DW_AT_bit_size, 0);
    if (bits != 0 && its.suffix.empty()) {
      member.bits = static_cast<int>(bits);
      member.bit_offset = number_of(child, DW_AT_data_bit_offset, ~std::uint64_t{0});
      if (member.bit_offset == ~std::uint64_t{0}) {  // DWARF 3: from the unit's most significant bit on
        const std::uint64_t unit = number_of(child, DW_AT_byte_size, its.size);
        member.bit_offset = member.offset * 8 + unit * 8 - number_of(child, DW_AT_bit_offset, 0) - bits;
      }
      member.text = fmt::format(" {} {} : {};", its.base, name, bits);
    }
    all.push_back(std::move(member));
  } while (dwarf_siblingof(&child, &child) == 0);
  return all;
}

// As programs lay structs out (runtime/program/layout.cpp); where that is not how this one lies, packed, with what is
// between as members.
std::string TypeWriter::body(Dwarf_Die& type, std::uint64_t& alignment) {
  const std::vector<MemberShape> all = members(type);
  const bool is_union = dwarf_tag(&type) == DW_TAG_union_type;
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 0);
  std::string natural = "{";
  std::uint64_t bit = 0, end = 0;
  bool is_natural = true;
  alignment = 1;
  for (const MemberShape& member : all) {
    natural += member.text;
    alignment = std::max(alignment, member.alignment);
    if (member.bits >= 0) {
      const std::uint64_t unit = member.size * 8, bits = static_cast<std::uint64_t>(member.bits);
      if (unit == 0) return "{ }";
      if (bit / unit != (bit + bits - 1) / unit) bit = round_up(bit, unit);
      is_natural &= bit == member.bit_offset || is_union;
      bit += bits;
    } else {
      const std::uint64_t offset = round_up((bit + 7) / 8, member.alignment);
      is_natural &= offset == member.offset;
      bit = (offset + member.size) * 8;
    }
    end = std::max(end, bit);
    if (is_union) bit = 0;
  }
  natural += " }";
  if (is_natural && round_up((end + 7) / 8, alignment) == size) return natural;
  // The same with its own alignment, or else packed.
  alignment = 1;
  std::string packed = "{";
  std::uint64_t at = 0;  // bits
  int gaps = 0;
  for (const MemberShape& member : all) {
    const std::uint64_t begin = member.bits >= 0 ? member.bit_offset : member.offset * 8;
    if (!is_union && begin > at) {
      const std::uint64_t from = round_up(at, 8);
      if (from > at) packed += fmt::format(" uint8 __gap_{} : {};", gaps++, from - at);
      if (begin / 8 > from / 8) packed += fmt::format(" uint8 __gap_{}[{}];", gaps++, begin / 8 - from / 8);
      if (begin % 8 != 0 && begin > from) packed += fmt::format(" uint8 __gap_{} : {};", gaps++, begin % 8);
    }
    packed += member.text;
    at = begin + (member.bits >= 0 ? static_cast<std::uint64_t>(member.bits) : member.size * 8);
  }
  if (is_union || all.empty()) {
    packed += fmt::format(" uint8 __all[{}];", size);
  } else if (round_up(at, 8) / 8 < size) {
    packed += fmt::format(" uint8 __gap_{}[{}];", gaps, size - round_up(at, 8) / 8);
  }
  return packed + " } __attribute__((packed))";
}

std::string TypeWriter::declare(Dwarf_Die& declared, const std::string& name) {
  Dwarf_Die type;
  const Shape its = shape(die_of(declared, DW_AT_type, type) ? &type : nullptr);
  return fmt::format("{} {}{}", its.base, name, its.suffix);
}

std::string TypeWriter::define(Dwarf_Die& type) { return struct_shape(type, "").base; }

std::string TypeWriter::take() {
  while (!waiting_.empty()) {
    auto [type, alias] = waiting_.front();
    waiting_.pop_front();
    if (count_ < kMostTypes) struct_shape(type, alias);
  }
  return std::exchange(text_, {});
}

}  // namespace ubp::debuginfo
