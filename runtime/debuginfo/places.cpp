// See places.h. Source: DWARF 5, 2.5 and 2.6; psABI 3.2.3 ("Parameter Passing") and 3.6.2 ("DWARF Register Number
// Mapping").
#include "runtime/debuginfo/places.h"

#include <dwarf.h>

#include <array>
#include <vector>

#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {
namespace {

using program::ArgumentPlace;
using symbols::ValuePlace;

constexpr std::int8_t kStackPointer = 4;
constexpr std::array<std::int8_t, 16> kRegisters{0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr std::array<std::int8_t, 6> kArguments{7, 6, 2, 1, 8, 9};
constexpr const char* kInVector = "it is in a vector register";
constexpr const char* kGone = "it is optimised out here";

// What a value is made of, eight bytes at a time.
enum class Class : std::uint8_t { kNone, kInteger, kVector, kMemory };

Class join(Class a, Class b) {
  if (a == b || b == Class::kNone) return a;
  if (a == Class::kNone) return b;
  if (a == Class::kMemory || b == Class::kMemory) return Class::kMemory;
  return Class::kInteger;
}

// Of a type without typedefs, at an offset of what is passed.
void classify(Dwarf_Die& type, std::uint64_t offset, Class (&classes)[2], int depth) {
  const auto add = [&](std::uint64_t at, Class its) {
    if (at / 8 < 2) classes[at / 8] = join(classes[at / 8], its);
  };
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 8);
  switch (dwarf_tag(&type)) {
    case DW_TAG_base_type: {
      const bool is_float = number_of(type, DW_AT_encoding, 0) == DW_ATE_float;
      const Class its = !is_float ? Class::kInteger : size <= 8 ? Class::kVector : Class::kMemory;
      add(offset, its);
      if (size > 8) add(offset + 8, its);
      return;
    }
    case DW_TAG_array_type: {
      Dwarf_Die element, child;
      if (!plain_type_of(type, element) || dwarf_child(&type, &child) != 0 || depth > 16) return;
      const std::uint64_t step = number_of(element, DW_AT_byte_size, 8);
      for (std::uint64_t at = offset; step != 0 && at < 16 && at < offset + size; at += step)
        classify(element, at, classes, depth + 1);
      return;
    }
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
    case DW_TAG_union_type: {
      Dwarf_Die child;
      if (dwarf_child(&type, &child) != 0 || depth > 16) return;
      do {
        const int tag = dwarf_tag(&child);
        Dwarf_Die its;
        if ((tag != DW_TAG_member && tag != DW_TAG_inheritance) || dwarf_hasattr(&child, DW_AT_external) != 0 ||
            !plain_type_of(child, its))
          continue;
        const std::uint64_t bits = number_of(child, DW_AT_data_bit_offset, ~std::uint64_t{0});
        const std::uint64_t at = bits != ~std::uint64_t{0} ? bits / 8 : number_of(child, DW_AT_data_member_location, 0);
        classify(its, offset + at, classes, depth + 1);
      } while (dwarf_siblingof(&child, &child) == 0);
      return;
    }
    default: add(offset, Class::kInteger);  // pointers, enums
  }
}

bool is_signed(Dwarf_Die& type) {
  if (dwarf_tag(&type) != DW_TAG_base_type) return false;
  const std::uint64_t encoding = number_of(type, DW_AT_encoding, 0);
  return encoding == DW_ATE_signed || encoding == DW_ATE_signed_char;
}

ValuePlace place_in(ValuePlace::Kind kind, std::int8_t base, std::int64_t offset) {
  ValuePlace place;
  place.kind = kind;
  place.base = base;
  place.offset = offset;
  return place;
}

}  // namespace

PlaceFinder::PlaceFinder(Dwarf_Die& function, std::uint64_t address, bool is_entry, Elf* elf)
    : function_(function), address_(address), elf_(elf), is_entry_(is_entry) {
  Dwarf_Die result;
  if (!plain_type_of(function_, result)) return;
  Class classes[2] = {Class::kNone, Class::kNone};
  classify(result, 0, classes, 0);
  const bool is_memory = number_of(result, DW_AT_byte_size, 8) > 16 || classes[0] == Class::kMemory;
  const bool is_float = dwarf_tag(&result) == DW_TAG_base_type;  // a long double comes back in a register
  if (is_memory && !is_float) integers_ = 1;                     // where the result goes
}

ArgumentPlace PlaceFinder::find(Dwarf_Die& parameter) {
  Dwarf_Die type;
  const bool has_type = plain_type_of(parameter, type);
  const std::uint64_t size = has_type ? number_of(type, DW_AT_byte_size, 8) : 8;
  ArgumentPlace by_rule = by_convention(parameter);
  // A compiler that passes it in another way, or not at all, has no one place for it.
  bool may_be_rule = false;
  const std::optional<ArgumentPlace> known = by_location(parameter, may_be_rule);
  ArgumentPlace its = known ? *known : may_be_rule ? by_rule : ArgumentPlace{{}, kGone};
  its.place.bytes = static_cast<std::uint8_t>(size == 1 || size == 2 || size == 4 ? size : 8);
  its.place.is_signed = has_type && is_signed(type);
  return its;
}

ArgumentPlace PlaceFinder::by_convention(Dwarf_Die& parameter) {
  Dwarf_Die type;
  Class classes[2] = {Class::kNone, Class::kNone};
  std::uint64_t size = 8;
  if (plain_type_of(parameter, type)) {
    classify(type, 0, classes, 0);
    size = number_of(type, DW_AT_byte_size, 8);
    constexpr std::uint64_t kByReference = 4;  // DW_CC_pass_by_reference: what has a copy constructor
    if (number_of(type, DW_AT_calling_convention, 0) == kByReference) {
      ++integers_;
      return {{}, "it is passed by reference"};
    }
  }
  int integers = 0, vectors = 0;
  for (const Class its : classes) {
    integers += its == Class::kInteger ? 1 : 0;
    vectors += its == Class::kVector ? 1 : 0;
  }
  const bool in_registers = size <= 16 && classes[0] != Class::kMemory && classes[1] != Class::kMemory &&
                            integers_ + integers <= static_cast<int>(kArguments.size()) && vectors_ + vectors <= 8;
  if (!in_registers) {
    if (size > 8 && dwarf_tag(&type) == DW_TAG_base_type) stack_ = (stack_ - 8 + 15) / 16 * 16 + 8;  // long double
    ArgumentPlace place{place_in(ValuePlace::Kind::kMemory, kStackPointer, stack_)};
    stack_ += static_cast<std::int64_t>((size + 7) / 8 * 8);
    return place;
  }
  const int first = integers_;
  integers_ += integers;
  vectors_ += vectors;
  if (vectors != 0) return {{}, kInVector};
  ArgumentPlace place{place_in(ValuePlace::Kind::kRegister, kArguments[static_cast<std::size_t>(first)], 0)};
  if (integers == 2) place.place.index = kArguments[static_cast<std::size_t>(first) + 1];
  if (integers == 0) return {{}, "it has no bytes"};
  return place;
}

std::optional<ArgumentPlace> PlaceFinder::by_location(Dwarf_Die& parameter, bool& may_be_rule) {
  Dwarf_Attribute attribute;
  if (dwarf_attr_integrate(&parameter, DW_AT_location, &attribute) == nullptr) {
    Dwarf_Sword constant = 0;
    if (dwarf_attr_integrate(&parameter, DW_AT_const_value, &attribute) != nullptr &&
        dwarf_formsdata(&attribute, &constant) == 0)
      return ArgumentPlace{place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, constant)};
    return std::nullopt;
  }
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (dwarf_getlocation_addr(&attribute, address_, &operations, &count, 1) != 1 || count == 0) return std::nullopt;
  // One place for the whole function holds behind its beginning: where it has stored its parameters.
  const bool is_list = dwarf_whatform(&attribute) != DW_FORM_exprloc;
  if (is_entry_ && !is_list) {
    const bool is_callers = operations[0].atom == DW_OP_fbreg && static_cast<std::int64_t>(operations[0].number) >= 0;
    const bool is_stored =
        operations[0].atom == DW_OP_fbreg || (operations[0].atom >= DW_OP_breg0 && operations[0].atom <= DW_OP_breg15);
    may_be_rule = is_stored && !is_callers && count == 1;
    if (may_be_rule) return std::nullopt;
  }
  return of_operations(operations, count);
}

// Where DW_OP_fbreg counts from.
bool PlaceFinder::find_frame(std::int8_t& base, std::int64_t& offset) {
  Dwarf_Attribute attribute;
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (dwarf_attr_integrate(&function_, DW_AT_frame_base, &attribute) == nullptr ||
      dwarf_getlocation_addr(&attribute, address_, &operations, &count, 1) != 1 || count != 1)
    return false;
  if (operations[0].atom >= DW_OP_breg0 && operations[0].atom <= DW_OP_breg15) {
    base = kRegisters[operations[0].atom - DW_OP_breg0];
    offset = static_cast<std::int64_t>(operations[0].number);
    return true;
  }
  if (operations[0].atom >= DW_OP_reg0 && operations[0].atom <= DW_OP_reg15) {
    base = kRegisters[operations[0].atom - DW_OP_reg0];
    offset = 0;
    return true;
  }
  if (operations[0].atom != DW_OP_call_frame_cfa) return false;
  if (is_entry_) {
    base = kStackPointer;
    offset = 8;
    return true;
  }
  Dwarf_CFI* const information = elf_ != nullptr ? dwarf_getcfi_elf(elf_) : nullptr;
  Dwarf_Frame* frame = nullptr;
  if (information == nullptr) return false;
  const bool has_frame = dwarf_cfi_addrframe(information, address_, &frame) == 0 &&
                         dwarf_frame_cfa(frame, &operations, &count) == 0 && count == 1;
  bool found = false;
  if (has_frame && operations[0].atom == DW_OP_bregx && operations[0].number < kRegisters.size()) {
    base = kRegisters[operations[0].number];
    offset = static_cast<std::int64_t>(operations[0].number2);
    found = true;
  } else if (has_frame && operations[0].atom >= DW_OP_breg0 && operations[0].atom <= DW_OP_breg15) {
    base = kRegisters[operations[0].atom - DW_OP_breg0];
    offset = static_cast<std::int64_t>(operations[0].number);
    found = true;
  }
  std::free(frame);
  dwarf_cfi_end(information);
  return found;
}

std::optional<ArgumentPlace> PlaceFinder::of_operations(const Dwarf_Op* operations, std::size_t count) {
  const bool is_implicit = operations[0].atom == DW_OP_implicit_pointer ||
                           operations[0].atom == DW_OP_GNU_implicit_pointer ||
                           operations[0].atom == DW_OP_implicit_value;
  const ArgumentPlace other{{}, is_implicit ? kGone : "it is in a place that programs cannot read"};
  const Dwarf_Op& first = operations[0];
  const auto in_register = [&](std::uint64_t number) {
    if (number >= kRegisters.size()) return ArgumentPlace{{}, kInVector};
    return ArgumentPlace{place_in(ValuePlace::Kind::kRegister, kRegisters[number], 0)};
  };
  const bool is_register = (first.atom >= DW_OP_reg0 && first.atom <= DW_OP_reg31) || first.atom == DW_OP_regx;
  const auto register_of = [](const Dwarf_Op& its) {
    return its.atom == DW_OP_regx ? its.number : std::uint64_t{its.atom} - DW_OP_reg0;
  };
  if (is_register && count == 1) return in_register(register_of(first));
  const bool has_pieces = count == 4 && operations[1].atom == DW_OP_piece && operations[3].atom == DW_OP_piece;
  if (is_register && has_pieces && operations[1].number == 8) {
    const Dwarf_Op& second = operations[2];
    if (second.atom < DW_OP_reg0 || second.atom > DW_OP_reg31) return other;
    ArgumentPlace whole = in_register(register_of(first)), rest = in_register(register_of(second));
    if (!whole.problem.empty() || !rest.problem.empty()) return ArgumentPlace{{}, kInVector};
    whole.place.index = rest.place.base;
    return whole;
  }
  if (count == 1 && first.atom == DW_OP_fbreg) {
    std::int8_t base = 0;
    std::int64_t offset = 0;
    if (!find_frame(base, offset)) return other;
    return ArgumentPlace{place_in(ValuePlace::Kind::kMemory, base, offset + static_cast<std::int64_t>(first.number))};
  }
  if (count == 1 && first.atom >= DW_OP_breg0 && first.atom <= DW_OP_breg15)
    return ArgumentPlace{place_in(ValuePlace::Kind::kMemory, kRegisters[first.atom - DW_OP_breg0],
                                  static_cast<std::int64_t>(first.number))};
  if (count == 1 && first.atom == DW_OP_addr)
    return ArgumentPlace{
        place_in(ValuePlace::Kind::kMemory, symbols::kModuleBase, static_cast<std::int64_t>(first.number))};
  if (count == 2 && operations[1].atom == DW_OP_stack_value) {
    if (first.atom == DW_OP_addr)
      return ArgumentPlace{
          place_in(ValuePlace::Kind::kConstant, symbols::kModuleBase, static_cast<std::int64_t>(first.number))};
    if (first.atom >= DW_OP_lit0 && first.atom <= DW_OP_lit31)
      return ArgumentPlace{place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, first.atom - DW_OP_lit0)};
    if (first.atom >= DW_OP_const1u && first.atom <= DW_OP_consts)
      return ArgumentPlace{
          place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, static_cast<std::int64_t>(first.number))};
    const bool is_entry_value = first.atom == DW_OP_entry_value || first.atom == DW_OP_GNU_entry_value;
    if (is_entry_value && !is_entry_) return ArgumentPlace{{}, kGone};  // what it was, nobody keeps
  }
  return other;
}

}  // namespace ubp::debuginfo
