// See places.h. Source: DWARF 5, 2.6.
#include "runtime/debuginfo/places.h"

#include <dwarf.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {

using program::ArgumentPlace;
using symbols::PlaceStep;
using symbols::ValuePlace;
using Code = PlaceStep::Code;

namespace {

bool is_signed(Dwarf_Die& type) {
  if (dwarf_tag(&type) != DW_TAG_base_type) return false;
  const std::uint64_t encoding = number_of(type, DW_AT_encoding, 0);
  return encoding == DW_ATE_signed || encoding == DW_ATE_signed_char;
}

bool is_too_wide(const ValuePlace& place, std::uint64_t bytes) {
  return place.kind == ValuePlace::Kind::kRegister && place.base >= symbols::kFirstVector && bytes > 16;
}

// What the type of something says of its place.
void set_type(ArgumentPlace& its, Dwarf_Die& declared) {
  Dwarf_Die type;
  const bool has_type = plain_type_of(declared, type);
  const std::uint64_t size = has_type ? number_of(type, DW_AT_byte_size, 8) : 8;
  its.place.bytes = static_cast<std::uint8_t>(size == 1 || size == 2 || size == 4 ? size : 8);
  its.place.is_signed = has_type && is_signed(type);
  if (its.problem.empty() && is_too_wide(its.place, size)) its.problem = kInWideVector;
}

}  // namespace

ArgumentPlace PlaceFinder::find(Dwarf_Die& parameter) {
  ArgumentPlace by_rule = convention_.next(parameter);
  // A compiler that passes it in another way, or not at all, has no one place for it.
  bool may_be_rule = false;
  const std::optional<ArgumentPlace> known = by_location(parameter, may_be_rule);
  ArgumentPlace its = known ? *known : may_be_rule ? by_rule : ArgumentPlace{{}, kGone};
  set_type(its, parameter);
  return its;
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
  if (dwarf_getlocation_addr(&attribute, expressions_.address(), &operations, &count, 1) != 1 || count == 0)
    return std::nullopt;
  // One place for the whole function holds behind its beginning: where it has stored its parameters.
  const bool is_list = dwarf_whatform(&attribute) != DW_FORM_exprloc;
  if (expressions_.is_entry() && !is_list) {
    const bool is_callers = operations[0].atom == DW_OP_fbreg && static_cast<std::int64_t>(operations[0].number) >= 0;
    const bool is_stored =
        operations[0].atom == DW_OP_fbreg || (operations[0].atom >= DW_OP_breg0 && operations[0].atom <= DW_OP_breg15);
    may_be_rule = is_stored && !is_callers && count == 1;
    if (may_be_rule) return std::nullopt;
  }
  return of_operations(attribute, operations, count);
}

std::string PlaceFinder::simple(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count,
                                PlaceExpressions::Steps& steps, ValuePlace& result) {
  const Dwarf_Op& first = operations[0];
  if (first.atom == DW_OP_implicit_pointer || first.atom == DW_OP_GNU_implicit_pointer)
    return std::string(kGone) + " (what it points to has no address)";
  const bool is_register = (first.atom >= DW_OP_reg0 && first.atom <= DW_OP_reg31) || first.atom == DW_OP_regx;
  if (is_register && count == 1) {
    const std::uint64_t number = first.atom == DW_OP_regx ? first.number : std::uint64_t{first.atom} - DW_OP_reg0;
    const auto its = value_register(number);
    if (!its) return "it is in a register that programs cannot read";
    result = place_in(ValuePlace::Kind::kRegister, *its, 0);
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
  PlaceExpressions::Steps its;
  std::string problem = expressions_.compile(attribute, operations, is_value ? count - 1 : count, its);
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
    if (problem.empty() && is_too_wide(piece, size)) problem = kInWideVector;
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
  bool may_be_rule = false;
  ArgumentPlace its = by_location(variable, may_be_rule).value_or(ArgumentPlace{{}, kGone});
  if (may_be_rule) its.problem = "the function has not begun here";
  set_type(its, variable);
  return its;
}

ArgumentPlace PlaceFinder::behind(const ArgumentPlace& pointer, std::int64_t offset, Dwarf_Die& member) const {
  ArgumentPlace its = pointer;
  const ValuePlace& place = pointer.place;
  PlaceExpressions::Steps steps;
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
  its.pieces.clear();
  its.place = place_in(ValuePlace::Kind::kComputedMemory, symbols::kNoRegister, 0);
  its.place.count = static_cast<std::uint32_t>(steps.size());
  set_type(its, member);
  its.steps = std::move(steps);
  return its;
}

}  // namespace ubp::debuginfo
