// Calls of functions of texts and times. See analyser.h.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "runtime/analysis/analyser.h"
#include "runtime/helpers/helpers.h"

namespace ubp::program {

using language::NodeKind;

namespace {

// Arrays of characters are strings of their length.
bool has_bytes(const Type& type, std::uint32_t bytes) {
  return (type.is(TypeKind::kArray) || type.is(TypeKind::kString)) && type.bytes == bytes;
}

}  // namespace

// A string, or C's: an array of characters, or a pointer to some.
void Analyser::need_text(const Node& node) {
  const Type& type = expression(node);
  const auto is_character = [](const Type& element) { return element.is(TypeKind::kInteger) && element.bits == 8; };
  const bool is_c = type.is(TypeKind::kArray) || type.is(TypeKind::kPointer);
  if (type.is(TypeKind::kString) || (is_c && is_character(type.elements[0])) || (type.is(TypeKind::kNone) && !is_last_))
    return;
  error(node.span, fmt::format("a string is needed here, not '{}'", name_of(type)));
}

Type Analyser::call_of_text(const Node& node, Function function) {
  const bool makes_event = function == Function::kTime || function == Function::kAssert;
  if (!makes_event) site_of(node, Site::Kind::kAddress);  // of the pointers that it takes
  switch (function) {
    case Function::kCompare:
    case Function::kCompareBytes: return compare(node);
    case Function::kTextLength: need_text(*node.children[0]); return integer(64, false);
    case Function::kTextCapacity: need_text(*node.children[0]); return integer(64, true);
    case Function::kFindText:
    case Function::kContainsText:
    case Function::kJoinTexts:
      for (const auto& child : node.children) need_text(*child);
      if (function == Function::kJoinTexts) return string_of(static_cast<std::uint32_t>(out_.config.max_strlen));
      return function == Function::kFindText ? integer(64, true) : boolean();
    case Function::kErrorName:
    case Function::kSignalName:
      expression(*node.children[0]);
      need_number(*node.children[0], "a number of an error or a signal");
      return string_of(kNameEntry);
    case Function::kClock: return clock(node);
    case Function::kSwapBytes: {
      const Type type = expression(*node.children[0]);
      need_number(*node.children[0], "what bswap() takes");
      return integer(type.is(TypeKind::kBool) ? 8 : type.bits, false);
    }
    case Function::kAddressText: return inet(node);
    case Function::kAddressBytes: return inet_bytes(node);
    case Function::kHardwareAddress: return hardware_address(node);
    case Function::kStamp: return stamp(node);
    case Function::kTime: return print_time(node);
    default: return check(node);
  }
}

// strncmp(), memcmp()
Type Analyser::compare(const Node& node) {
  for (std::size_t i = 0; i < 2; ++i) {
    if (node.text == "strncmp") {
      need_text(*node.children[i]);
    } else if (const Type& type = expression(*node.children[i]);
               !type.is_wide() && (is_last_ || !type.is(TypeKind::kNone))) {
      error(node.children[i]->span, fmt::format("memcmp() takes what has bytes, not '{}'", name_of(type)));
    }
  }
  expression(*node.children[2]);
  need_number(*node.children[2], "a length");
  return integer(64, true);
}

// nsecs(), nsecs(boot)
Type Analyser::clock(const Node& node) {
  if (!node.children.empty()) {
    const Node& name = *node.children[0];
    std::uint32_t clock = 0;
    if (name.kind != NodeKind::kName || !find_clock(name.text, clock))
      error(name.span, "nsecs() takes a clock: boot, monotonic, tai or sw_tai");
  }
  return integer(64, false);
}

// ntop(address), ntop(family, address)
Type Analyser::inet(const Node& node) {
  const Node& address = *node.children.back();
  const Type& type = expression(address);
  if (!has_bytes(type, kInternetBytes) && !has_bytes(type, kInternet6Bytes)) need_number(address, "an address");
  if (node.children.size() == 2) {
    expression(*node.children[0]);
    need_number(*node.children[0], "an address family");
  }
  return {TypeKind::kInet};
}

// pton("127.0.0.1"), pton("::1")
Type Analyser::inet_bytes(const Node& node) {
  const std::string* const text = literal_text(*node.children[0]);
  const std::vector<std::uint8_t> bytes = text != nullptr ? bytes_of_inet(*text) : std::vector<std::uint8_t>{};
  if (text != nullptr && bytes.empty()) error(node.children[0]->span, "this is no address of the internet");
  return array_of(integer(8, false), static_cast<std::uint32_t>(std::max<std::size_t>(bytes.size(), 1)));
}

// macaddr(bytes), macaddr(pointer)
Type Analyser::hardware_address(const Node& node) {
  const Type& type = expression(*node.children[0]);
  if (!has_bytes(type, kHardwareBytes))
    need_number(*node.children[0], "what macaddr() takes: 6 bytes, or a pointer to them,");
  return {TypeKind::kMac};
}

// strftime(format, time)
Type Analyser::stamp(const Node& node) {
  Type type{TypeKind::kTimestamp};
  if (const std::string* const format = literal_text(*node.children[0]); format != nullptr) type.name = *format;
  expression(*node.children[1]);
  need_number(*node.children[1], "a time");
  std::int64_t time = 0;
  if (literal(*node.children[1], time) && time < 0) error(node.children[1]->span, "a time is no negative number");
  return type;
}

// time(), time(format)
Type Analyser::print_time(const Node& node) {
  constexpr std::string_view kDefault = "%H:%M:%S\n";
  const std::string* const format = node.children.empty() ? nullptr : literal_text(*node.children[0]);
  Type type{TypeKind::kTimestamp};
  type.name = format != nullptr ? *format : std::string(kDefault);
  out_.events[event_of(node)] = {Event::Kind::kTime, {}, {type}};
  return void_type();
}

// assert(condition, message)
Type Analyser::check(const Node& node) {
  condition(*node.children[0]);
  const Type& type = expression(*node.children[1]);
  if (is_last_ && (type.is(TypeKind::kNone) || type.is(TypeKind::kVoid)))
    error(node.children[1]->span, "a message is a value");
  out_.events[event_of(node)] = {Event::Kind::kError, "assert failed: %s", {type}, kNone, node.span};
  return void_type();
}

}  // namespace ubp::program
