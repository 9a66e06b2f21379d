// See places.h. Source: DWARF 5, 2.5 and 2.6; psABI 3.2.3 ("Parameter Passing") and 3.6.2 ("DWARF Register Number
// Mapping").
#include "runtime/debuginfo/places.h"

#include <dwarf.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {
namespace {

using program::ArgumentPlace;
using symbols::PlaceStep;
using symbols::ValuePlace;
using Code = PlaceStep::Code;

constexpr std::int8_t kStackPointer = 4;
constexpr std::array<std::int8_t, 16> kRegisters{0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr const char* kInVector = "it is in a vector register";

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

PlaceFinder::PlaceFinder(Dwarf_Die& function, std::uint64_t entry, std::uint64_t address, bool is_entry,
                         Dwarf_CFI* frames)
    : function_(function), entry_(entry), address_(address), is_entry_(is_entry), frames_(frames) {
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
                            integers_ + integers <= static_cast<int>(std::size(symbols::kArgumentRegisters)) &&
                            vectors_ + vectors <= 8;
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
  ArgumentPlace place{place_in(ValuePlace::Kind::kRegister, symbols::kArgumentRegisters[first], 0)};
  if (integers == 2) place.place.index = symbols::kArgumentRegisters[first + 1];
  if (integers == 0) return {{}, "it has no bytes"};
  return place;
}

std::optional<ArgumentPlace> PlaceFinder::by_location(Dwarf_Die& parameter, bool& may_be_rule) {
  Dwarf_Attribute attribute;
  if (dwarf_attr_integrate(&parameter, DW_AT_location, &attribute) == nullptr) {
    Dwarf_Sword constant = 0;
    Dwarf_Block block;
    if (dwarf_attr_integrate(&parameter, DW_AT_const_value, &attribute) == nullptr) return std::nullopt;
    if (dwarf_formsdata(&attribute, &constant) == 0)
      return ArgumentPlace{place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, constant)};
    if (dwarf_formblock(&attribute, &block) == 0 && block.length <= sizeof constant) {
      std::memcpy(&constant, block.data, block.length);
      return ArgumentPlace{place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, constant)};
    }
    return ArgumentPlace{{}, "it is a constant that has no place in memory"};
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
  return of_operations(attribute, operations, count);
}

// The frame's address: what the stack pointer was before the call.
std::string PlaceFinder::frame_address(Steps& steps, int depth) {
  if (is_entry_) {
    steps.push_back({Code::kRegister, kStackPointer, 8, 8});
    return "";
  }
  Dwarf_Frame* frame = nullptr;
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (frames_ == nullptr || dwarf_cfi_addrframe(frames_, address_, &frame) != 0) return "its frame is not known here";
  std::string problem = "its frame is not known here";
  if (dwarf_frame_cfa(frame, &operations, &count) == 0 && count != 0)
    problem = compile(operations, count, steps, depth + 1);
  std::free(frame);
  return problem;
}

// Where DW_OP_fbreg counts from.
std::string PlaceFinder::frame_base(Steps& steps, int depth) {
  Dwarf_Attribute attribute;
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (dwarf_attr_integrate(&function_, DW_AT_frame_base, &attribute) == nullptr ||
      dwarf_getlocation_addr(&attribute, address_, &operations, &count, 1) != 1 || count == 0)
    return "its frame is not known here";
  if (count == 1 && operations[0].atom >= DW_OP_reg0 && operations[0].atom <= DW_OP_reg15) {
    steps.push_back({Code::kRegister, kRegisters[operations[0].atom - DW_OP_reg0], 8, 0});
    return "";
  }
  return compile(operations, count, steps, depth + 1);
}

// What a register held where the function was entered. Those of arguments are kept from there.
std::string PlaceFinder::entry_value(const Dwarf_Op& operation, Steps& steps, int depth) {
  const auto gone = [](const char* why) { return fmt::format("{} ({})", kGone, why); };
  Dwarf_Attribute inner;
  Dwarf_Op* its = nullptr;
  std::size_t count = 0;
  if (attribute_ == nullptr || dwarf_getlocation_attr(attribute_, &operation, &inner) != 0 ||
      dwarf_getlocation(&inner, &its, &count) != 0 || count != 1)
    return gone("what it was at the function's entry is more than a register");
  const std::uint64_t number = its->atom == DW_OP_regx ? its->number : std::uint64_t{its->atom} - DW_OP_reg0;
  if (number >= kRegisters.size()) return gone("only a vector register had it, at the function's entry");
  const std::int8_t its_register = kRegisters[number];
  if (address_ == entry_) {
    steps.push_back({Code::kRegister, its_register, 8, 0});
    return "";
  }
  if (!symbols::is_argument_register(its_register))
    return gone("only a register that is no argument's had it, at the function's entry");
  std::string problem = frame_address(steps, depth);
  if (problem.empty()) steps.push_back({Code::kKept, its_register, 8, static_cast<std::int64_t>(entry_)});
  return problem;
}

namespace {

// What is a value of an operation's type there, in 64 bits. None: it is nothing that registers have.
std::optional<PlaceStep> extension_of(Dwarf_Attribute& attribute, const Dwarf_Op& operation, std::uint64_t offset) {
  Dwarf_Die type;
  if (offset == 0) return PlaceStep{Code::kZeroExtend, symbols::kNoRegister, 8, 0};
  if (dwarf_getlocation_die(&attribute, &operation, &type) != 0) return std::nullopt;
  const std::uint64_t size = number_of(type, DW_AT_byte_size, 0), encoding = number_of(type, DW_AT_encoding, 0);
  if ((size != 1 && size != 2 && size != 4 && size != 8) || encoding == DW_ATE_float) return std::nullopt;
  const bool is_signed = encoding == DW_ATE_signed || encoding == DW_ATE_signed_char;
  return PlaceStep{is_signed ? Code::kSignExtend : Code::kZeroExtend, symbols::kNoRegister,
                   static_cast<std::uint8_t>(size), 0};
}

std::optional<Code> code_of(unsigned atom) {
  switch (atom) {
    case DW_OP_dup: return Code::kDuplicate;
    case DW_OP_drop: return Code::kDrop;
    case DW_OP_swap: return Code::kSwap;
    case DW_OP_rot: return Code::kRotate;
    case DW_OP_abs: return Code::kAbsolute;
    case DW_OP_neg: return Code::kNegate;
    case DW_OP_not: return Code::kNot;
    case DW_OP_plus: return Code::kAdd;
    case DW_OP_minus: return Code::kSubtract;
    case DW_OP_mul: return Code::kMultiply;
    case DW_OP_div: return Code::kDivide;
    case DW_OP_mod: return Code::kModulo;
    case DW_OP_and: return Code::kAnd;
    case DW_OP_or: return Code::kOr;
    case DW_OP_xor: return Code::kXor;
    case DW_OP_shl: return Code::kShiftLeft;
    case DW_OP_shr: return Code::kShiftRight;
    case DW_OP_shra: return Code::kShiftRightSigned;
    case DW_OP_eq: return Code::kEqual;
    case DW_OP_ne: return Code::kNotEqual;
    case DW_OP_lt: return Code::kLess;
    case DW_OP_le: return Code::kLessEqual;
    case DW_OP_gt: return Code::kGreater;
    case DW_OP_ge: return Code::kGreaterEqual;
    default: return std::nullopt;
  }
}

}  // namespace

std::string PlaceFinder::compile_one(const Dwarf_Op& operation, Steps& steps, int depth) {
  constexpr const char* kOther = "it is in a place that programs cannot read";
  const unsigned atom = operation.atom;
  const auto number = static_cast<std::int64_t>(operation.number),
             second = static_cast<std::int64_t>(operation.number2);
  const auto push = [&](PlaceStep step) {
    steps.push_back(step);
    return std::string();
  };
  if (const auto code = code_of(atom)) return push({*code, symbols::kNoRegister, 8, 0});
  if (atom >= DW_OP_lit0 && atom <= DW_OP_lit31)
    return push({Code::kNumber, symbols::kNoRegister, 8, static_cast<std::int64_t>(atom - DW_OP_lit0)});
  if (atom >= DW_OP_const1u && atom <= DW_OP_consts) return push({Code::kNumber, symbols::kNoRegister, 8, number});
  if (atom >= DW_OP_breg0 && atom <= DW_OP_breg15)
    return push({Code::kRegister, kRegisters[atom - DW_OP_breg0], 8, number});
  if (atom == DW_OP_bregx && operation.number < kRegisters.size())
    return push({Code::kRegister, kRegisters[operation.number], 8, second});
  const auto is_sum = [&] {
    const Code code = steps.back().code;
    return code == Code::kRegister || code == Code::kNumber || code == Code::kThread;
  };
  switch (atom) {
    case DW_OP_nop: return "";
    case DW_OP_addrx:
    case DW_OP_GNU_addr_index: {
      Dwarf_Attribute its;
      Dwarf_Addr address = 0;
      if (attribute_ == nullptr || dwarf_getlocation_attr(attribute_, &operation, &its) != 0 ||
          dwarf_formaddr(&its, &address) != 0)
        return kOther;
      return push({Code::kNumber, symbols::kModuleBase, 8, static_cast<std::int64_t>(address)});
    }
    case DW_OP_addr: return push({Code::kNumber, symbols::kModuleBase, 8, number});
    case DW_OP_plus_uconst:
      if (!steps.empty() && is_sum()) {
        steps.back().number += number;
        return "";
      }
      return push({Code::kAddNumber, symbols::kNoRegister, 8, number});
    case DW_OP_deref: return push({Code::kLoad, symbols::kNoRegister, 8, 0});
    case DW_OP_deref_size:
      if (number != 1 && number != 2 && number != 4 && number != 8) return kOther;
      return push({Code::kLoad, symbols::kNoRegister, static_cast<std::uint8_t>(number), 0});
    case DW_OP_over: return push({Code::kPick, symbols::kNoRegister, 8, 1});
    case DW_OP_pick: return push({Code::kPick, symbols::kNoRegister, 8, number});
    case DW_OP_call_frame_cfa: return frame_address(steps, depth);
    case DW_OP_fbreg: {
      std::string problem = frame_base(steps, depth);
      if (problem.empty() && !steps.empty()) {
        if (is_sum()) {
          steps.back().number += number;
        } else {
          steps.push_back({Code::kAddNumber, symbols::kNoRegister, 8, number});
        }
      }
      return problem;
    }
    case DW_OP_constx:
    case DW_OP_GNU_const_index: {
      Dwarf_Attribute its;
      Dwarf_Word value = 0;
      if (attribute_ == nullptr || dwarf_getlocation_attr(attribute_, &operation, &its) != 0 ||
          (dwarf_formudata(&its, &value) != 0 && dwarf_formaddr(&its, &value) != 0))
        return kOther;
      return push({Code::kNumber, symbols::kNoRegister, 8, static_cast<std::int64_t>(value)});
    }
    case DW_OP_form_tls_address:
    case DW_OP_GNU_push_tls_address:  // of a number that counts from the beginning of the module's
      if (steps.empty() || steps.back().code != Code::kNumber) return kOther;
      steps.back() = {Code::kThread, symbols::kNoRegister, 8, steps.back().number};
      return "";
    case DW_OP_entry_value:
    case DW_OP_GNU_entry_value: return entry_value(operation, steps, depth);
    default: return kOther;
  }
}

// Values of other types than addresses: what the steps leave is as wide as the type says.
std::string PlaceFinder::compile_typed(Dwarf_Attribute& attribute, const Dwarf_Op& operation, Steps& steps) {
  const bool is_conversion = operation.atom == DW_OP_convert || operation.atom == DW_OP_GNU_convert ||
                             operation.atom == DW_OP_reinterpret || operation.atom == DW_OP_GNU_reinterpret;
  const bool is_register = operation.atom == DW_OP_regval_type || operation.atom == DW_OP_GNU_regval_type;
  if (is_register && operation.number >= kRegisters.size()) return kInVector;
  const auto extension = extension_of(attribute, operation, is_conversion ? operation.number : operation.number2);
  if (!extension) return "it is computed from a floating-point number";
  if (is_register) steps.push_back({Code::kRegister, kRegisters[operation.number], 8, 0});
  if (!is_conversion && !is_register)
    steps.push_back({Code::kLoad, symbols::kNoRegister, static_cast<std::uint8_t>(extension->bytes), 0});
  if (extension->bytes < 8) steps.push_back(*extension);
  return "";
}

std::string PlaceFinder::compile(const Dwarf_Op* operations, std::size_t count, Steps& steps, int depth) {
  if (depth > 4) return "it is in a place that programs cannot read";
  std::optional<PlaceStep> type;  // of what was computed last, where that is narrower than 64 bits
  const std::size_t begin = steps.size();
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned atom = operations[i].atom;
    const bool is_typed = atom == DW_OP_convert || atom == DW_OP_GNU_convert || atom == DW_OP_reinterpret ||
                          atom == DW_OP_GNU_reinterpret || atom == DW_OP_regval_type || atom == DW_OP_GNU_regval_type ||
                          atom == DW_OP_deref_type || atom == DW_OP_GNU_deref_type;
    std::string problem;
    if (is_typed && attribute_ != nullptr) {
      problem = compile_typed(*attribute_, operations[i], steps);
      const bool is_narrow =
          !steps.empty() && (steps.back().code == Code::kSignExtend || steps.back().code == Code::kZeroExtend);
      type = is_narrow ? std::optional(steps.back()) : std::nullopt;
    } else {
      problem = compile_one(operations[i], steps, depth);
      const auto code = code_of(atom);
      const bool computes = code && *code >= Code::kAdd && *code <= Code::kShiftRightSigned;
      if (problem.empty() && type && (computes || code == Code::kNegate || code == Code::kNot)) steps.push_back(*type);
    }
    if (!problem.empty()) return problem;
    if (steps.size() - begin > symbols::kMostPlaceParts) return "it takes too long to compute";
  }
  return "";
}

std::string PlaceFinder::simple(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count, Steps& steps,
                                ValuePlace& result) {
  const Dwarf_Op& first = operations[0];
  if (first.atom == DW_OP_implicit_pointer || first.atom == DW_OP_GNU_implicit_pointer)
    return std::string(kGone) + " (what it points to has no address)";
  const bool is_register = (first.atom >= DW_OP_reg0 && first.atom <= DW_OP_reg31) || first.atom == DW_OP_regx;
  if (is_register && count == 1) {
    const std::uint64_t number = first.atom == DW_OP_regx ? first.number : std::uint64_t{first.atom} - DW_OP_reg0;
    if (number >= kRegisters.size()) return kInVector;
    result = place_in(ValuePlace::Kind::kRegister, kRegisters[number], 0);
    return "";
  }
  if (first.atom == DW_OP_implicit_value) {
    Dwarf_Block block;
    std::int64_t value = 0;
    if (dwarf_getlocation_implicit_value(&attribute, &first, &block) != 0 || block.length > sizeof value)
      return "it is a constant that has no place in memory";
    std::memcpy(&value, block.data, block.length);
    result = place_in(ValuePlace::Kind::kConstant, symbols::kNoRegister, value);
    return "";
  }
  const bool is_value = operations[count - 1].atom == DW_OP_stack_value;
  Steps its;
  attribute_ = &attribute;
  std::string problem = compile(operations, is_value ? count - 1 : count, its, 0);
  if (!problem.empty()) return problem;
  if (its.empty()) return kGone;
  const PlaceStep& last = its.back();
  const bool is_number = its.size() == 1 && last.code == Code::kNumber;
  if (its.size() == 1 && !is_value && (is_number || last.code == Code::kRegister)) {
    result = place_in(ValuePlace::Kind::kMemory, last.base, last.number);
  } else if (is_number) {
    result = place_in(ValuePlace::Kind::kConstant, last.base, last.number);
  } else {
    result =
        place_in(is_value ? ValuePlace::Kind::kComputed : ValuePlace::Kind::kComputedMemory, symbols::kNoRegister, 0);
    result.first = static_cast<std::uint32_t>(steps.size());
    result.count = static_cast<std::uint32_t>(its.size());
    steps.insert(steps.end(), its.begin(), its.end());
  }
  return "";
}

ArgumentPlace PlaceFinder::of_operations(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count) {
  ArgumentPlace all;
  const auto is_piece = [](const Dwarf_Op& its) { return its.atom == DW_OP_piece || its.atom == DW_OP_bit_piece; };
  if (std::none_of(operations, operations + count, is_piece)) {
    all.problem = simple(attribute, operations, count, all.steps, all.place);
    return all;
  }
  std::uint64_t bytes = 0;
  for (std::size_t i = 0, begin = 0; i < count; ++i) {
    if (!is_piece(operations[i])) continue;
    const std::uint64_t size = operations[i].number;
    if (operations[i].atom == DW_OP_bit_piece || size > 255) return {{}, "it is in pieces that programs cannot read"};
    ValuePlace piece;
    std::string problem = i == begin ? kGone : simple(attribute, operations + begin, i - begin, all.steps, piece);
    if (!problem.empty()) {
      return {{}, fmt::format("{} (bytes {} to {} of it)", problem, bytes, bytes + size - 1)};
    }
    piece.bytes = static_cast<std::uint8_t>(size);
    all.pieces.push_back(piece);
    bytes += size;
    begin = i + 1;
  }
  all.place = place_in(ValuePlace::Kind::kPieces, symbols::kNoRegister, 0);
  all.place.count = static_cast<std::uint32_t>(all.pieces.size());
  return all;
}

ArgumentPlace PlaceFinder::find_variable(Dwarf_Die& variable) {
  Dwarf_Die type;
  const bool has_type = plain_type_of(variable, type);
  const std::uint64_t size = has_type ? number_of(type, DW_AT_byte_size, 8) : 8;
  bool may_be_rule = false;
  ArgumentPlace its = by_location(variable, may_be_rule).value_or(ArgumentPlace{{}, kGone});
  if (may_be_rule) its.problem = "the function has not begun here";
  its.place.bytes = static_cast<std::uint8_t>(size == 1 || size == 2 || size == 4 ? size : 8);
  its.place.is_signed = has_type && is_signed(type);
  return its;
}

ArgumentPlace PlaceFinder::behind(const ArgumentPlace& pointer, std::int64_t offset, Dwarf_Die& member) const {
  ArgumentPlace its = pointer;
  const ValuePlace& place = pointer.place;
  Steps steps;
  switch (place.kind) {
    case ValuePlace::Kind::kRegister: steps.push_back({Code::kRegister, place.base, 8, 0}); break;
    case ValuePlace::Kind::kConstant: steps.push_back({Code::kNumber, place.base, 8, place.offset}); break;
    case ValuePlace::Kind::kMemory:
      steps.push_back({place.base >= 0 ? Code::kRegister : Code::kNumber, place.base, 8, place.offset});
      steps.push_back({Code::kLoad, symbols::kNoRegister, 8, 0});
      break;
    case ValuePlace::Kind::kComputed:
    case ValuePlace::Kind::kComputedMemory:
      steps.assign(pointer.steps.begin() + place.first, pointer.steps.begin() + place.first + place.count);
      if (place.kind == ValuePlace::Kind::kComputedMemory) steps.push_back({Code::kLoad, symbols::kNoRegister, 8, 0});
      break;
    case ValuePlace::Kind::kPieces: its.problem = "it is in pieces"; break;
  }
  steps.push_back({Code::kAddNumber, symbols::kNoRegister, 8, offset});
  Dwarf_Die type;
  const bool has_type = plain_type_of(member, type);
  const std::uint64_t size = has_type ? number_of(type, DW_AT_byte_size, 8) : 8;
  its.pieces.clear();
  its.place = place_in(ValuePlace::Kind::kComputedMemory, symbols::kNoRegister, 0);
  its.place.count = static_cast<std::uint32_t>(steps.size());
  its.place.bytes = static_cast<std::uint8_t>(size == 1 || size == 2 || size == 4 ? size : 8);
  its.place.is_signed = has_type && is_signed(type);
  its.steps = std::move(steps);
  return its;
}

}  // namespace ubp::debuginfo
