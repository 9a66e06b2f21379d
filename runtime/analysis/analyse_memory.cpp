// Pointers, arrays and structs. See analyser.h.
#include <fmt/format.h>

#include <utility>

#include "runtime/analysis/analyser.h"

namespace ubp::program {

using language::NodeKind;

Type Analyser::named_type(std::string_view name, const Node& node) {
  Type type = out_.types->named(name);
  if (type.is(TypeKind::kNone)) error(node.span, fmt::format("Cannot resolve unknown type \"{}\"", name));
  return type;
}

Type Analyser::type_given(const Node& node) {
  if (node.kind == NodeKind::kType && node.children.empty()) return named_type(node.text, node);
  if (node.kind == NodeKind::kType) return Types::behind(type_given(*node.children[0]), node.text);
  if (node.kind == NodeKind::kMap && node.children.empty()) {
    Map& map = map_of(node);
    if (map.has_keys) return map.key;
  }
  return expression(node);
}

Type Analyser::dereference(const Node& node) {
  const Type& operand = expression(*node.children[0]);
  site_of(node, Site::Kind::kAddress);
  if (operand.is(TypeKind::kNone)) return {};
  if (!operand.is(TypeKind::kPointer) || operand.elements.front().is(TypeKind::kVoid)) {
    error(node.span, fmt::format("Can not dereference type '{}'", name_of(operand)),
          "a cast says what is there: *(int32*)address");
    return {};
  }
  Type target = out_.types->target(operand);
  if (target.is(TypeKind::kStruct) && target.layout == nullptr) {
    error(node.span, fmt::format("Cannot resolve unknown type \"{}\"", target.name));
    return {};
  }
  return target;
}

Type Analyser::address_of(const Node& node) {
  const Node& operand = *node.children[0];
  const Type& type = expression(operand);
  if (operand.kind != NodeKind::kVariable) {
    error(node.span, "& takes the address of a variable");
    return {};
  }
  return type.is(TypeKind::kNone) ? Type{} : pointer_to(type);
}

// tuple.0, struct.name, pointer->name, pointer.name
Type Analyser::member(const Node& node) {
  if (is_argument(node)) return argument_named(node);
  Type type = expression(*node.children[0]);
  if (type.is(TypeKind::kNone)) return {};
  if (node.text.empty()) {
    if (!type.is(TypeKind::kTuple)) {
      error(node.span, fmt::format("Can not access index '{}' on expression of type '{}'", node.number, name_of(type)));
      return {};
    }
    if (node.number < type.elements.size()) return type.elements[node.number];
    error(node.span,
          fmt::format("Invalid tuple index: {}. Found {} elements in tuple.", node.number, type.elements.size()));
    return {};
  }
  if (type.is(TypeKind::kTuple)) {
    const std::size_t its = element_named(type, node.text);
    if (its < type.fields.size()) return type.elements[its];
  }
  site_of(node, Site::Kind::kAddress);
  if (type.is(TypeKind::kPointer)) type = out_.types->target(type);
  if (!type.is(TypeKind::kStruct)) {
    error(node.span, fmt::format("Can not access field '{}' on expression of type '{}'", node.text, name_of(type)));
    return {};
  }
  if (type.layout == nullptr) {
    error(node.span, fmt::format("Cannot resolve unknown type \"{}\"", type.name));
    return {};
  }
  Member member = find_member(*type.layout, node.text);
  if (member.type.is(TypeKind::kNone))
    error(node.span,
          fmt::format("Struct/union of type '{}' does not contain a field named '{}'", type.name, node.text));
  if (member.type.is(TypeKind::kUnknown))
    error(node.span, fmt::format("'{}' is of a type that programs have no values of", node.text));
  if (member.bits != 0 && member.type.is(TypeKind::kInteger)) return integer(member.type.bits, false);
  return member.type.is(TypeKind::kUnknown) ? Type{} : std::move(member.type);
}

Type Analyser::index(const Node& node) {
  const Node& which = *node.children[1];
  const Type type = expression(*node.children[0]);
  expression(which);
  need_number(which, "an index");
  if (!type.is(TypeKind::kTuple))
    site_of(node, type.is(TypeKind::kPointer) ? Site::Kind::kAddress : Site::Kind::kBounds);
  std::int64_t number = 0;
  const bool is_literal = constant(which, number) && number >= 0;
  const auto check = [&](std::uint64_t count) {
    if (!is_literal || static_cast<std::uint64_t>(number) < count) return;
    error(node.span, fmt::format("the index {} is out of bounds for array of size {}", number, count));
  };
  switch (type.kind) {
    case TypeKind::kNone: return {};
    case TypeKind::kPointer: {
      Type target = out_.types->target(type);
      if (!target.is(TypeKind::kVoid)) return target;
      break;
    }
    case TypeKind::kArray: {
      const std::uint32_t size = type.elements.front().size();
      if (type.bytes != 0) check(type.bytes / size);  // the last member may have no size
      return type.elements.front();
    }
    case TypeKind::kString: check(type.bytes); return integer(8, true);
    case TypeKind::kTuple:
      if (is_literal && static_cast<std::uint64_t>(number) < type.elements.size()) {
        out_.facts[node.id].index = static_cast<std::uint32_t>(number);
        return type.elements[static_cast<std::size_t>(number)];
      }
      error(node.span,
            fmt::format("Invalid tuple index: {}. Found {} elements in tuple.", number, type.elements.size()));
      return {};
    default: break;
  }
  error(node.span, fmt::format("The array index operator [] can not be used on '{}'", name_of(type)));
  return {};
}

// (int8[8])number, (int8[])number, (int8[])"text", (int8[4])array
Type Analyser::cast_to_array(const Node& node, Type to, const Type& from) {
  if (from.is(TypeKind::kNone)) return {};
  const std::uint32_t size = to.elements.front().size();
  const bool fits = from.is_number() || from.is(TypeKind::kString) || from.is(TypeKind::kArray);
  if (to.bytes == 0 && fits && size != 0 && from.size() % size == 0)
    to = array_of(to.elements.front(), from.size() / size);
  const std::uint32_t from_bytes = from.is(TypeKind::kInteger) && node.children[0]->kind != NodeKind::kNumber
                                       ? from.size()
                                       : std::max(from.size(), from.is_number() ? 8U : 0U);
  if (!fits || (to.bytes != from.size() && to.bytes != from_bytes)) {
    error(node.span, fmt::format("Cannot cast from '{}' to '{}'", name_of(from), name_of(to)));
    return {};
  }
  return to;
}

// buf(pointer, bytes), buf(array), buf(text, bytes)
Type Analyser::buffer(const Node& node) {
  const Type from = expression(*node.children[0]);
  site_of(node, Site::Kind::kAddress);
  if (from.is(TypeKind::kNone)) return {};
  const bool has_size = from.is(TypeKind::kArray) || from.is(TypeKind::kString);
  if (!has_size) need_number(*node.children[0], "what buf() takes");
  if (node.children.size() == 1) {
    if (!has_size) error(node.span, "buf() expects a length argument for non-array types");
    return buffer_of(from.bytes);
  }
  const Node& length = *node.children[1];
  expression(length);
  need_number(length, "a length");
  std::int64_t bytes = 0;
  const auto most = static_cast<std::uint32_t>(out_.config.max_strlen);
  if (!literal(length, bytes)) return buffer_of(has_size ? from.bytes : most);
  if (bytes < 1 || bytes > most) {
    error(length.span, fmt::format("buf() takes 1 to {} bytes", most));
    return {};
  }
  return buffer_of(static_cast<std::uint32_t>(bytes));
}

Type Analyser::size_of(const Node& node) {
  out_.facts[node.id].index = type_given(*node.children[0]).size();
  return integer(64, false);
}

Type Analyser::offset_of(const Node& node) {
  Type type = type_given(*node.children[0]);
  std::uint32_t offset = 0;
  for (std::string_view path = node.text; !path.empty();) {
    const std::size_t end = std::min(path.find('.'), path.size());
    if (!type.is(TypeKind::kStruct) || type.layout == nullptr) {
      if (!type.is(TypeKind::kNone)) error(node.span, fmt::format("'{}' is not a struct or union", name_of(type)));
      return integer(64, false);
    }
    Member member = find_member(*type.layout, path.substr(0, end));
    if (member.type.is(TypeKind::kNone))
      error(node.span, fmt::format("Struct/union of type '{}' does not contain a field named '{}'", type.name,
                                   path.substr(0, end)));
    offset += member.offset;
    type = std::move(member.type);
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  out_.facts[node.id].index = offset;
  return integer(64, false);
}

}  // namespace ubp::program
