// The recursive-descent parser of UBP_PROBES, one method per rule of the grammar. Internal to spec/.
//
// spec.cpp holds the rules above the target (list, item, kind, what follows a target); target.cpp holds the
// target (module, symbol, address, offset), mark_target.cpp that of a static mark, events.cpp what has none. A rule
// leaves the cursor behind what it read and returns true, or calls fail() with the byte where the mistake is and
// returns false; the first failure ends the parse.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/language/characters.h"
#include "runtime/language/lexer.h"
#include "runtime/language/spec.h"

namespace ubp::language {

constexpr std::size_t kNoOffset = static_cast<std::size_t>(-1);

constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }
constexpr bool is_separator(char c) { return c == ';' || c == '\n'; }
constexpr bool is_unicode(char c) { return static_cast<unsigned char>(c) >= 0x80; }

// A quoted text as a glob that matches just this text.
std::string escape_glob(std::string_view text);

class Parser {
 public:
  // text: already checked by find_bad_byte(). program: see parse().
  Parser(std::string_view text, Program* program, const std::vector<std::string>& parameters)
      : text_(text), program_(program), parameters_(parameters) {}

  bool parse_list(std::vector<Item>& items, std::size_t most);
  const Error& error() const { return error_; }

 private:
  // spec.cpp
  bool parse_item(Item& item);
  bool parse_attach(Item& item);
  bool parse_kind(Item& item);
  static bool is_kernel_kind(std::string_view word);
  bool fail_kernel_kind(std::size_t offset, std::string_view word);
  bool expect_no_name();
  bool parse_options(Item& item);
  bool parse_more(std::vector<Item>& items);  // the attach points behind the first one, and the block
  bool begins_definition() const;
  bool parse_preamble(bool& is_one);
  bool place_parameters();
  bool parse_program(Probe::Event event, const Cursor& begin);
  bool has_program() const;
  bool expect_item_end();
  void skip_blank();  // space, separators and comments between items
  void skip_space();
  void skip_comment();

  // events.cpp
  struct EventPoint {
    Probe::Event event;
    std::size_t bytes;     // of its text
    std::uint64_t period;  // kInterval: ns
  };
  std::optional<EventPoint> find_event(const Cursor& at) const;
  bool parse_events();

  // target.cpp
  bool parse_target(Item& item);
  bool parse_module(std::size_t colon, std::string& module);
  bool parse_line(Item& item, std::size_t at, std::size_t colon);
  bool parse_symbol(Item& item);
  bool is_within_name(std::size_t start) const;
  bool parse_name(const Item& item, std::string& pattern);
  bool parse_quoted(std::string& text);
  bool parse_address(const Item& item, AddressTarget& target);
  bool parse_offset(std::uint64_t& offset);
  bool parse_number(std::string_view what, std::uint64_t& value);
  bool expect_one_colon(const Item& item, std::size_t module_at);
  bool is_decimal_address() const;
  bool fail_in_name(const Item& item, std::size_t start);
  bool fail_missing_target(std::size_t after, std::string_view what);
  std::size_t find_colon() const;
  std::size_t class_end(std::size_t open) const;

  // mark_target.cpp
  bool parse_mark(Item& item);
  bool parse_mark_part(std::string_view what, std::string& glob);
  std::size_t find_mark_colon() const;

  // The cursor.
  char at(std::size_t offset) const { return offset < text_.size() ? text_[offset] : '\0'; }
  char peek() const { return at(offset_); }
  bool at_end() const { return offset_ >= text_.size(); }
  bool ends_word(std::size_t offset) const {  // nothing, space or a separator stands there
    return offset >= text_.size() || is_space(text_[offset]) || is_separator(text_[offset]);
  }
  std::string_view word_at(std::size_t offset) const;       // up to space, a separator or the end
  std::string_view character_at(std::size_t offset) const;  // one whole UTF-8 character
  std::string_view slice(std::size_t begin, std::size_t end) const { return text_.substr(begin, end - begin); }
  Position position(std::size_t offset) const;  // offset: on the cursor's line
  Cursor cursor() const { return {offset_, line_, line_start_}; }
  void move_to(const Cursor& cursor);
  bool fail(std::size_t offset, std::string message);
  bool fail_unsupported(std::size_t offset, std::string_view what);

  std::string_view text_;
  Program* program_;
  const std::vector<std::string>& parameters_;
  std::deque<std::string> texts_;  // with parameters in their places
  std::size_t offset_ = 0;
  int line_ = 1;
  std::size_t line_start_ = 0;
  bool kind_given_ = false;  // the item under the cursor named its kind
  Error error_;
};

}  // namespace ubp::language
