// The target of an item: which module, and which symbol or address in it. Pure text, load time; see parser.h.
//
//   target := [module ":"] name ["+" number]  |  module ":" 0xADDRESS  |  module ":" ADDRESS, in decimal digits
//   module := glob or path, or quoted           name := glob ["@" version | "@@" version], or quoted
//
// "::" is C++ and never separates; of an odd run of colons the first separates. [ and ] around a glob class
// hide what is between them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "runtime/language/parser.h"
#include "runtime/language/text.h"

namespace ubp::language {
namespace {

bool starts_number(std::string_view word) {
  return word.size() >= 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
}

// What could as well be a module's name, unless a second colon follows.
bool is_short_kernel_kind(std::string_view word) {
  constexpr std::string_view kWords[] = {"k", "kr", "t", "rt", "f", "fr", "p", "s", "h"};
  return std::find(std::begin(kWords), std::end(kWords), word) != std::end(kWords);
}

}  // namespace

std::string escape_glob(std::string_view text) {
  std::string glob;
  for (const char c : text) {
    if (c == '*' || c == '?' || c == '[' || c == '\\') glob += '\\';
    glob += c;
  }
  return glob;
}

bool Parser::parse_target(Item& item) {
  const std::size_t module_at = offset_;
  const std::size_t colon = find_colon();
  if (colon != kNoOffset) {
    const std::size_t source = peek() == '"' ? std::string_view::npos : slice(offset_, colon).find('@');
    if (source != std::string_view::npos) return parse_line(item, offset_ + source, colon);
    if (!parse_module(colon, item.module)) return false;
    offset_ = colon + 1;
    if (ends_word(offset_) || peek() == '#') return fail_missing_target(colon, "a symbol or 0xADDRESS");
    if (!expect_one_colon(item, module_at)) return false;
  }
  item.target_position = position(offset_);
  const bool is_function = item.kind == Kind::kStatement || item.kind == Kind::kInline;
  if (starts_number(word_at(offset_)) || (!item.module.empty() && is_decimal_address())) {
    if (is_function)
      return fail(offset_, fmt::format("{}: takes a function{}, not an address", kind_name(item.kind),
                                       item.kind == Kind::kStatement ? " or a source line" : ""));
    AddressTarget target;
    if (!parse_address(item, target)) return false;
    item.target = target;
    return true;
  }
  return parse_symbol(item);
}

// The offset of the ":" that ends the part of a target at the cursor, kNoOffset when it is the last part.
std::size_t Parser::find_colon() const {
  std::size_t i = offset_;
  if (at(i) == '"') {
    for (++i; i < text_.size() && text_[i] != '"'; ++i) {
      if (text_[i] == '\n') return kNoOffset;
      if (text_[i] == '\\') ++i;
    }
    ++i;
    return at(i) == ':' && at(i + 1) != ':' ? i : kNoOffset;
  }
  int open = 0;  // ( and <
  while (!ends_word(i) && text_[i] != '"' && text_[i] != '{' && (text_[i] != ',' || open > 0)) {
    open += (text_[i] == '(' || text_[i] == '<') - (text_[i] == ')' || text_[i] == '>');
    if (text_[i] == ':') {
      std::size_t end = i;
      while (at(end) == ':') ++end;
      if ((end - i) % 2 == 1) return i;
      i = end;
    } else if (text_[i] == '[') {
      i = class_end(i);
      if (i == kNoOffset) return kNoOffset;  // parse_name() will say so
    } else {
      i += text_[i] == '\\' && !ends_word(i + 1) ? 2 : 1;
    }
  }
  return kNoOffset;
}

// One past the "]" of the glob class that opens at `open`, kNoOffset when the word ends before it.
std::size_t Parser::class_end(std::size_t open) const {
  std::size_t i = open + 1;
  if (at(i) == '!' || at(i) == '^') ++i;
  if (at(i) == ']') ++i;
  while (!ends_word(i)) {
    if (text_[i] == ']') return i + 1;
    i += text_[i] == '\\' && !ends_word(i + 1) ? 2 : 1;
  }
  return kNoOffset;
}

// Digits alone, up to what cannot belong to a symbol.
bool Parser::is_decimal_address() const {
  std::size_t end = offset_;
  while (is_digit(at(end))) ++end;
  return end != offset_ && (ends_word(end) || std::string_view("{[,-").find(at(end)) != std::string_view::npos);
}

bool Parser::parse_module(std::size_t colon, std::string& module) {
  const std::size_t start = offset_;
  if (start == colon) return fail(start, "expected a module before ':'");
  if (peek() == '"') {
    std::string text;
    if (!parse_quoted(text)) return false;
    module = escape_glob(text);
    return true;
  }
  module = slice(start, colon);
  return true;
}

// module@file:line[:column] or module@file:*, with the '@' and the ':' behind the file.
bool Parser::parse_line(Item& item, std::size_t at, std::size_t colon) {
  if (item.kind != Kind::kEntry && item.kind != Kind::kStatement)
    return fail(at, "a source line is one of uprobe's targets, and of stmt's");
  item.module = slice(offset_, at);
  LineTarget target;
  target.file = slice(at + 1, colon);
  item.target_position = position(at + 1);
  if (target.file.empty()) return fail(at + 1, "expected a source file behind '@'");
  const auto number = [&](std::string_view what, std::uint32_t& to) {
    std::uint64_t value = 0;
    if (!is_digit(peek())) return fail(offset_, fmt::format("expected a {} number", what));
    if (!parse_number(what, value)) return false;
    to = static_cast<std::uint32_t>(value);
    return (value != 0 && value == to) || fail(offset_, fmt::format("there is no {} {}", what, value));
  };
  offset_ = colon + 1;
  const bool is_any = peek() == '*';
  if (is_any) ++offset_;
  if (!is_any && !number("line", target.line)) return false;
  if (!is_any && peek() == ':') {
    ++offset_;
    if (!number("column", target.column)) return false;
  }
  item.target = std::move(target);
  return true;
}

// With the module read and the cursor behind its colon: a second colon belongs to no target built so far.
bool Parser::expect_one_colon(const Item& item, std::size_t module_at) {
  const std::size_t second = find_colon();
  if (second == kNoOffset) return true;
  if (kind_given_ || at(module_at) == '"') {
    return fail(second,
                fmt::format("unexpected ':' after {} (C++ scopes are written '::')", quote(slice(offset_, second))));
  }
  if (is_kernel_kind(item.module) || is_short_kernel_kind(item.module)) return fail_kernel_kind(module_at, item.module);
  return fail(
      second,
      fmt::format(
          "unexpected ':' after {}; write module:symbol (the known kinds are u, uprobe, ur, call, insn, stmt, inline and usdt, and C++ scopes are "
          "written '::')",
          quote(slice(module_at, second))));
}

bool Parser::parse_symbol(Item& item) {
  SymbolTarget target;
  target.quoted = peek() == '"';
  if (target.quoted ? !parse_quoted(target.pattern) : !parse_name(item, target.pattern)) return false;
  if (peek() == '+' && item.kind == Kind::kInsn) {
    return fail(offset_, "insn: probes every instruction of a function; without it, symbol+offset probes one");
  }
  if (peek() == '+' && (item.kind == Kind::kStatement || item.kind == Kind::kInline))
    return fail(offset_, fmt::format("{}: takes no offset; without it, symbol+offset probes one instruction",
                                     kind_name(item.kind)));
  if (peek() == '+' && is_of_returns(item.kind)) {
    return fail(offset_, item.kind == Kind::kCall ? "calls have no function offset: a call is of a whole function"
                                                  : "uretprobes can not be attached to a function offset");
  }
  if (peek() == '+' && !parse_offset(target.offset)) return false;
  if (target.quoted && (is_word(peek()) || peek() == ':' || peek() == '"')) {
    return fail(offset_, fmt::format("unexpected {} after a closing quote", quote(character_at(offset_))));
  }
  item.target = std::move(target);
  return true;
}

// Whether the '/' at the cursor belongs to the symbol that began at `start`, and neither to a path ("./app") nor to a
// predicate.
bool Parser::is_within_name(std::size_t start) const {
  const char next = at(offset_ + 1);
  const bool goes_on = is_word(next) || is_unicode(next) ||
                       (next != '\0' && std::string_view(".*?[(").find(next) != std::string_view::npos);
  return goes_on && slice(start, offset_).find_first_not_of('.') != std::string_view::npos;
}

// An unquoted symbol, up to what cannot belong to one.
bool Parser::parse_name(const Item& item, std::string& pattern) {
  const std::size_t start = offset_;
  if (is_digit(peek())) {
    return fail(start,
                fmt::format("{} is neither a symbol nor an address (addresses begin with 0x)", quote(word_at(start))));
  }
  std::vector<std::size_t> open;  // offsets of ( and < that are not closed yet
  // Between brackets a space belongs to the name: "f(int, char const*)".
  while (!ends_word(offset_) || (!open.empty() && peek() == ' ')) {
    const char c = peek();
    if (c == ' ') {
      ++offset_;
    } else if (is_word(c) || is_unicode(c) ||
               (c != '\0' && std::string_view(".$*?:~").find(c) != std::string_view::npos)) {
      ++offset_;
    } else if (c == '(' || c == '<') {
      open.push_back(offset_++);
    } else if ((c == ')' || c == '>') && !open.empty() && text_[open.back()] == (c == ')' ? '(' : '<')) {
      open.pop_back();
      ++offset_;
    } else if ((c == ',' || c == '&') && !open.empty()) {
      ++offset_;
    } else if (c == '/' && is_within_name(start)) {  // Go's packages
      ++offset_;
    } else if (c == '@' && open.empty() && offset_ != start &&
               slice(start, offset_).find('@') == std::string_view::npos) {
      const std::size_t version = offset_ + (at(offset_ + 1) == '@' ? 2 : 1);
      std::size_t end = version;
      while (is_word(at(end)) || at(end) == '.' || at(end) == '-') ++end;
      if (end == version || slice(offset_, end) == "@plt" || !(ends_word(end) || at(end) == '+' || at(end) == '['))
        break;
      offset_ = end;
    } else if (c == '\\' && !ends_word(offset_ + 1)) {
      offset_ += 1 + character_at(offset_ + 1).size();
    } else if (c == '[') {
      std::size_t key_end = offset_ + 1;
      while (is_word(at(key_end))) ++key_end;
      if (key_end > offset_ + 1 && at(key_end) == '=') break;  // options
      const std::size_t end = class_end(offset_);
      if (end == kNoOffset) {
        return fail(offset_, "'[' is not closed (put the symbol in quotes if '[' belongs to its name)");
      }
      offset_ = end;
    } else {
      break;
    }
  }
  if (!open.empty()) {
    return fail(open.back(),
                fmt::format("{} is not closed (put an operator's name in quotes)", quote(character_at(open.back()))));
  }
  const bool stopped_well = ends_word(offset_) || peek() == '+' || peek() == '{' || peek() == '[' || peek() == ',';
  if (!stopped_well || offset_ == start) return fail_in_name(item, start);
  pattern = slice(start, offset_);
  if (pattern.ends_with("::")) return fail(offset_, "expected a name after '::'");
  return true;
}

// The cursor is on a character that cannot stand in a symbol that began at `start`: says why.
bool Parser::fail_in_name(const Item& item, std::size_t start) {
  const std::string_view before = slice(start, offset_);
  const bool has_module = !item.module.empty();
  if (peek() == '@') {
    const std::string_view behind = word_at(offset_).substr(1);
    if (behind == "plt") {
      return fail(
          offset_,
          fmt::format("{0}@plt leads to another module's function; probe that one (*:{0} is wherever it is defined)",
                      before));
    }
    if (behind.find(':') != std::string_view::npos) return fail(offset_, "a source line is written module@file:line");
    return fail(offset_,
                "expected a version, which is no glob, after '@': name@VERSION, or name@@VERSION for the default one");
  }
  if (peek() == '/' && !has_module &&
      before.find_first_not_of('.') == std::string_view::npos) {  // "/usr/bin/x", "./app", "../app"
    return fail(start, fmt::format("{} names a module but no symbol; write module:symbol", quote(word_at(start))));
  }
  if (before.empty()) return fail(offset_, fmt::format("expected a symbol, found {}", quote(character_at(offset_))));
  const std::size_t slash = peek() == '/' ? before.size() : before.find('/');
  if (slash != std::string_view::npos)
    return fail(start + std::min(slash, before.find('/')), "put a space before a filter (/.../)");
  if (peek() == '-') return fail(offset_, "unexpected '-'; an offset is written symbol+4 and is never negative");
  return fail(offset_,
              fmt::format("unexpected {} in a symbol; put an unusual name in quotes", quote(character_at(offset_))));
}

// "...", with \" and \\ inside; on one line.
bool Parser::parse_quoted(std::string& text) {
  const std::size_t open = offset_++;
  while (!at_end() && peek() != '\n') {
    const char c = text_[offset_++];
    if (c == '"') {
      if (text.empty()) return fail(open, "the quotes are empty");
      return true;
    }
    const bool escaped = c == '\\' && (peek() == '"' || peek() == '\\');
    text += escaped ? text_[offset_++] : c;
  }
  return fail(open, "the quote is not closed");
}

bool Parser::parse_address(const Item& item, AddressTarget& target) {
  const std::size_t start = offset_;
  if (item.module.empty()) {
    return fail(start, "an address needs a module: write module:0xADDRESS");
  }
  if (!parse_number("address", target.address)) return false;
  if (target.address == std::numeric_limits<std::uint64_t>::max())
    return fail(start, "address 0xffffffffffffffff lies outside any text");
  target.end = target.address + 1;
  if (peek() == '-') {
    if (item.kind != Kind::kInsn) {
      return fail(offset_, "an address range needs the kind insn: write insn:module:0xA-0xB");
    }
    const std::size_t end_start = ++offset_;
    if (!is_digit(peek())) return fail_missing_target(end_start - 1, "the end of the range");
    if (!parse_number("address", target.end)) return false;
    if (target.end <= target.address) return fail(end_start, "the range ends before it begins");
  }
  if (peek() == '+') return fail(offset_, "an address takes no offset; add it to the address");
  return true;
}

bool Parser::parse_offset(std::uint64_t& offset) {
  const std::size_t plus = offset_++;
  if (ends_word(offset_)) return fail_missing_target(plus, "an offset");
  if (!is_digit(peek())) {
    return fail(offset_, fmt::format("expected an offset after '+', found {}", quote(character_at(offset_))));
  }
  return parse_number("offset", offset);
}

// Decimal, or 0x and hexadecimal digits. what: "offset", "address".
bool Parser::parse_number(std::string_view what, std::uint64_t& value) {
  const std::size_t start = offset_;
  while (is_word(peek())) ++offset_;
  const std::string_view word = slice(start, offset_);
  const bool hex = starts_number(word);
  const char* first = word.data() + (hex ? 2 : 0);
  const char* last = word.data() + word.size();
  const std::from_chars_result result = std::from_chars(first, last, value, hex ? 16 : 10);
  if (result.ec == std::errc::invalid_argument || result.ptr != last) {
    return fail(start, fmt::format("{} is not a number (decimal, or 0x and hexadecimal digits)", quote(word)));
  }
  if (result.ec == std::errc::result_out_of_range) {
    return fail(start, fmt::format("{} {} does not fit in 64 bits", what, quote(word)));
  }
  return true;
}

// Nothing stands behind the ":" or "+" at `after`.
bool Parser::fail_missing_target(std::size_t after, std::string_view what) {
  return fail(after + 1, fmt::format("expected {} after '{}'", what, text_[after]));
}

}  // namespace ubp::language
