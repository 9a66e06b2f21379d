// See calling_convention.h.
#include "runtime/debuginfo/calling_convention.h"

#include <dwarf.h>

#include <iterator>

#include "runtime/debuginfo/place_expressions.h"
#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {
namespace {

using program::ArgumentPlace;
using symbols::ValuePlace;

// What a value is made of, eight bytes at a time.
enum class Class : std::uint8_t { kNone, kInteger, kVector, kVectorUp, kMemory };  // kVectorUp: of the register before

Class join(Class a, Class b) {
  if (a == b || b == Class::kNone) return a;
  if (a == Class::kNone) return b;
  if (a == Class::kMemory || b == Class::kMemory) return Class::kMemory;
  return a == Class::kInteger || b == Class::kInteger ? Class::kInteger : Class::kVector;
}

// Of a type without typedefs, at an offset of what is passed.
void classify(Dwarf_Die& type, std::uint64_t offset, Class (&classes)[2], int depth) {
  const auto add = [&](std::uint64_t at, Class its) {
    if (at / 8 < 2) classes[at / 8] = join(classes[at / 8], its);
  };
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 8);
  switch (dwarf_tag(&type)) {
    case DW_TAG_base_type: {
      const std::uint64_t encoding = number_of(type, DW_AT_encoding, 0);
      const bool is_complex = encoding == DW_ATE_complex_float;
      if (encoding != DW_ATE_float && !is_complex) {
        add(offset, Class::kInteger);
        if (size > 8) add(offset + 8, Class::kInteger);
      } else if (size <= 8 || (is_complex && size <= 16)) {
        add(offset, Class::kVector);
        if (size > 8) add(offset + 8, Class::kVector);
      } else {
        const bool is_quad = size == 16 && name_of(type).ends_with("loat128");  // else it is long double
        add(offset, is_quad ? Class::kVector : Class::kMemory);
        add(offset + 8, is_quad ? Class::kVectorUp : Class::kMemory);
      }
      return;
    }
    case DW_TAG_array_type: {
      Dwarf_Die element, child;
      if (dwarf_hasattr(&type, DW_AT_GNU_vector) != 0) {
        add(offset, Class::kVector);
        if (size > 8) add(offset + 8, Class::kVectorUp);
        return;
      }
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

}  // namespace

CallingConvention::CallingConvention(Dwarf_Die& function) {
  Dwarf_Die result;
  if (!plain_type_of(function, result)) return;
  Class classes[2] = {Class::kNone, Class::kNone};
  classify(result, 0, classes, 0);
  const bool is_memory = number_of(result, DW_AT_byte_size, 8) > 16 || classes[0] == Class::kMemory;
  const bool is_float = dwarf_tag(&result) == DW_TAG_base_type;  // a long double comes back in a register
  if (is_memory && !is_float) integers_ = 1;                     // where the result goes
}

ArgumentPlace CallingConvention::next(Dwarf_Die& parameter) {
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
  if (classes[1] == Class::kVectorUp && classes[0] != Class::kVector) classes[1] = Class::kVector;
  int integers = 0, vectors = 0;
  for (const Class its : classes) {
    integers += its == Class::kInteger ? 1 : 0;
    vectors += its == Class::kVector ? 1 : 0;
  }
  if (size > 16 && classes[1] == Class::kVectorUp) {  // or in memory: that depends on the processor
    ++vectors_;
    return {{}, kInWideVector};
  }
  const bool in_registers = size <= 16 && classes[0] != Class::kMemory && classes[1] != Class::kMemory &&
                            integers_ + integers <= static_cast<int>(std::size(symbols::kArgumentRegisters)) &&
                            vectors_ + vectors <= 8;
  if (!in_registers) {
    if (size > 8 && dwarf_tag(&type) == DW_TAG_base_type) stack_ = (stack_ - 8 + 15) / 16 * 16 + 8;  // long double
    ArgumentPlace place{place_in(ValuePlace::Kind::kMemory, kStackPointer, stack_)};
    stack_ += static_cast<std::int64_t>((size + 7) / 8 * 8);
    return place;
  }
  const auto next_of = [&](Class its) {
    if (its == Class::kInteger) return symbols::kArgumentRegisters[integers_++];
    return its == Class::kVector ? static_cast<std::int8_t>(symbols::kFirstVector + vectors_++) : symbols::kNoRegister;
  };
  ArgumentPlace place{place_in(ValuePlace::Kind::kRegister, next_of(classes[0]), 0)};
  place.place.index = next_of(classes[1]);
  if (place.place.base == symbols::kNoRegister) return {{}, "it has no bytes"};
  return place;
}

}  // namespace ubp::debuginfo
