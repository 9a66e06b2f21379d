// See place_expressions.h.
#include "runtime/debuginfo/place_expressions.h"

#include <dwarf.h>

#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {

using symbols::PlaceStep;
using symbols::ValuePlace;
using Code = PlaceStep::Code;

std::optional<std::int8_t> general_register(std::uint64_t number) {
  constexpr std::array<std::int8_t, 16> kRegisters{0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};
  return number < kRegisters.size() ? std::optional(kRegisters[number]) : std::nullopt;
}

std::optional<std::int8_t> value_register(std::uint64_t number) {
  constexpr std::uint64_t kFirst = 17, kLast = 32;  // %xmm0 to %xmm15
  if (number < kFirst || number > kLast) return general_register(number);
  return static_cast<std::int8_t>(symbols::kFirstVector + static_cast<int>(number - kFirst));
}

ValuePlace place_in(ValuePlace::Kind kind, std::int8_t base, std::int64_t offset) {
  ValuePlace place;
  place.kind = kind;
  place.base = base;
  place.offset = offset;
  return place;
}

// The frame's address: what the stack pointer was before the call.
std::string PlaceExpressions::frame_address(Steps& steps, int depth) {
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
std::string PlaceExpressions::frame_base(Steps& steps, int depth) {
  Dwarf_Attribute attribute;
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (dwarf_attr_integrate(&function_, DW_AT_frame_base, &attribute) == nullptr ||
      dwarf_getlocation_addr(&attribute, address_, &operations, &count, 1) != 1 || count == 0)
    return "its frame is not known here";
  if (count == 1 && operations[0].atom >= DW_OP_reg0 && operations[0].atom <= DW_OP_reg15) {
    steps.push_back({Code::kRegister, *general_register(operations[0].atom - DW_OP_reg0), 8, 0});
    return "";
  }
  return compile(operations, count, steps, depth + 1);
}

// What a register held where the function was entered. Those of arguments are kept from there.
std::string PlaceExpressions::entry_value(const Dwarf_Op& operation, Steps& steps, int depth) {
  const auto gone = [](const char* why) { return fmt::format("{} ({})", kGone, why); };
  Dwarf_Attribute inner;
  Dwarf_Op* its = nullptr;
  std::size_t count = 0;
  if (attribute_ == nullptr || dwarf_getlocation_attr(attribute_, &operation, &inner) != 0 ||
      dwarf_getlocation(&inner, &its, &count) != 0 || count != 1)
    return gone("what it was at the function's entry is more than a register");
  const std::uint64_t number = its->atom == DW_OP_regx ? its->number : std::uint64_t{its->atom} - DW_OP_reg0;
  if (!general_register(number)) return gone("only a vector register had it, at the function's entry");
  const std::int8_t its_register = *general_register(number);
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

std::string PlaceExpressions::compile_one(const Dwarf_Op& operation, Steps& steps, int depth) {
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
    return push({Code::kRegister, *general_register(atom - DW_OP_breg0), 8, number});
  if (atom == DW_OP_bregx && general_register(operation.number))
    return push({Code::kRegister, *general_register(operation.number), 8, second});
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
std::string PlaceExpressions::compile_typed(Dwarf_Attribute& attribute, const Dwarf_Op& operation, Steps& steps) {
  const bool is_conversion = operation.atom == DW_OP_convert || operation.atom == DW_OP_GNU_convert ||
                             operation.atom == DW_OP_reinterpret || operation.atom == DW_OP_GNU_reinterpret;
  const bool is_register = operation.atom == DW_OP_regval_type || operation.atom == DW_OP_GNU_regval_type;
  if (is_register && !general_register(operation.number)) return "it is computed from a vector register";
  const auto extension = extension_of(attribute, operation, is_conversion ? operation.number : operation.number2);
  if (!extension) return "it is computed from a floating-point number";
  if (is_register) steps.push_back({Code::kRegister, *general_register(operation.number), 8, 0});
  if (!is_conversion && !is_register)
    steps.push_back({Code::kLoad, symbols::kNoRegister, static_cast<std::uint8_t>(extension->bytes), 0});
  if (extension->bytes < 8) steps.push_back(*extension);
  return "";
}

std::string PlaceExpressions::compile(const Dwarf_Op* operations, std::size_t count, Steps& steps, int depth) {
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

std::string PlaceExpressions::compile(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count,
                                      Steps& steps) {
  attribute_ = &attribute;
  return compile(operations, count, steps, 0);
}

}  // namespace ubp::debuginfo
