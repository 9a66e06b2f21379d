// See layout.h.
#include "runtime/analysis/layout.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace ubp::program {
namespace {

std::uint32_t round_up(std::uint32_t value, std::uint32_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

Types::Types(const language::Definitions& definitions) : typedefs_(definitions.typedefs), texts_(definitions.texts) {
  for (const auto& [name, value] : definitions.constants) constants_[name] = {type_of_literal(value), value};
  for (const language::EnumDefinition& definition : definitions.enums) {
    auto names = std::make_shared<EnumNames>();
    for (const auto& [name, value] : definition.values) names->try_emplace(value & 0xffffffff, name);
    enums_[definition.name] = std::move(names);
    for (const auto& [name, value] : definition.values) constants_[name] = {named(definition.name), value};
  }
  for (const language::StructDefinition& definition : definitions.structs) lay_out(definition);
}

// Members one behind the other, aligned. Source: psABI 3.1.2, "Aggregates and Unions", "Bit-Fields".
void Types::lay_out(const language::StructDefinition& definition) {
  auto layout = std::make_shared<Layout>();
  std::uint64_t bit = 0;  // where the next member may begin
  std::uint64_t end = 0;
  for (const language::Field& field : definition.fields) {
    Type type = named(field.type);
    if (type.is(TypeKind::kNone) || type.is(TypeKind::kVoid)) {
      type = Type{TypeKind::kUnknown};
      type.bytes = field.type == "float" ? 4 : field.type == "int128" ? 16 : 8;
    }
    // An array of characters is a text.
    const bool is_text = type.is(TypeKind::kArray) && field.type.starts_with("int8[") &&
                         type.elements.front().is(TypeKind::kInteger) && type.bytes != 0;
    if (is_text) type = string_of(type.bytes);
    const std::uint32_t alignment = definition.is_packed ? 1 : type.alignment();
    Member member{field.name, type, 0, 0, 0};
    if (field.bits >= 0) {
      const auto bits = static_cast<std::uint32_t>(field.bits);
      const std::uint32_t unit = type.size() * 8;
      if (bits == 0) {
        bit = (bit + unit - 1) / unit * unit;
        continue;
      }
      if (!definition.is_packed && bit / unit != (bit + bits - 1) / unit) bit = (bit + unit - 1) / unit * unit;
      const std::uint64_t from = bit / unit * unit;  // of the number that it is a part of
      member.offset = static_cast<std::uint32_t>(from / 8);
      member.shift = static_cast<std::uint8_t>(bit - from);
      member.bits = static_cast<std::uint8_t>(bits);
      bit += bits;
      layout->alignment = std::max(layout->alignment, alignment);
    } else {
      member.offset = round_up(static_cast<std::uint32_t>((bit + 7) / 8), alignment);
      bit = (std::uint64_t{member.offset} + type.size()) * 8;
      layout->alignment = std::max(layout->alignment, alignment);
    }
    layout->members.push_back(std::move(member));
    end = std::max(end, bit);
    if (definition.is_union) bit = 0;
  }
  layout->alignment = std::max(layout->alignment, definition.alignment);
  layout->size = round_up(static_cast<std::uint32_t>((end + 7) / 8), layout->alignment);
  layouts_[definition.name] = std::move(layout);
}

Type Types::named(std::string_view name) const {
  const std::size_t suffix = std::min(name.find_first_of("*["), name.size());
  const std::string_view base = name.substr(0, suffix);
  Type type;
  if (const auto known = typedefs_.find(base); known != typedefs_.end()) {
    type = named(known->second);
  } else if (base == "void") {
    type = void_type();
  } else if (base == "bool") {
    type = boolean();
  } else if (base.starts_with("enum ")) {
    const auto found = enums_.find(base);
    if (found == enums_.end()) return {};
    type = integer(32, false);
    type.name = base;
    type.names = found->second;
  } else if (base.starts_with("struct ") || base.starts_with("union ")) {
    type.kind = TypeKind::kStruct;
    type.name = base;
    if (const auto found = layouts_.find(base); found != layouts_.end()) {
      type.layout = found->second;
      type.bytes = found->second->size;
    } else if (suffix == name.size()) {
      return {};
    }
  } else {
    for (const bool is_signed : {false, true}) {
      for (const int bits : {8, 16, 32, 64}) {
        const Type number = integer(static_cast<std::uint8_t>(bits), is_signed);
        if (base == name_of(number)) type = number;
      }
    }
  }
  return behind(std::move(type), name.substr(suffix));
}

// int8[2][3] is two arrays of three; a '*' takes all that stands before it.
Type Types::behind(Type type, std::string_view rest) {
  if (type.is(TypeKind::kNone)) return {};
  while (!rest.empty()) {
    if (rest.front() == '*') {
      type = pointer_to(std::move(type));
      rest.remove_prefix(1);
      continue;
    }
    std::vector<std::uint32_t> counts;
    while (!rest.empty() && rest.front() == '[') {
      std::uint32_t count = 0;
      const std::size_t close = rest.find(']');
      std::from_chars(rest.data() + 1, rest.data() + close, count);
      counts.push_back(count);
      rest.remove_prefix(close + 1);
    }
    for (auto count = counts.rbegin(); count != counts.rend(); ++count) {
      if (type.size() != 0 && *count > (std::uint32_t{1} << 20) / type.size()) return {};
      type = array_of(std::move(type), *count);
    }
  }
  return type;
}

Type Types::target(const Type& pointer) const {
  Type type = pointer.elements.front();
  const auto resolve = [this](Type& its) {
    if (!its.is(TypeKind::kStruct)) return;
    if (const auto found = layouts_.find(its.name); found != layouts_.end()) {
      its.layout = found->second;
      its.bytes = found->second->size;
    }
  };
  resolve(type);
  return type;
}

Types::Constant Types::constant(std::string_view name) const {
  const auto found = constants_.find(name);
  return found != constants_.end() ? found->second : Constant{};
}

const std::string* Types::text(std::string_view name) const {
  const auto found = texts_.find(name);
  return found != texts_.end() ? &found->second : nullptr;
}

Member find_member(const Layout& layout, std::string_view name) {
  for (const Member& member : layout.members) {
    if (member.name == name) return member;
    if (!member.name.empty() || member.type.layout == nullptr) continue;
    Member inner = find_member(*member.type.layout, name);
    if (inner.type.is(TypeKind::kNone)) continue;
    inner.offset += member.offset;
    return inner;
  }
  return {};
}

}  // namespace ubp::program
