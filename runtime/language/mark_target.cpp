// The target of a static mark. Pure text, load time; see parser.h.
//
//   target := [module] ":" [[provider] ":"] name         each a glob, or quoted; no module: the executable
#include <fmt/format.h>

#include "runtime/language/parser.h"
#include "runtime/language/text.h"

namespace ubp::language {

// The ":" that ends the part at the cursor, which "::" does too; kNoOffset: it is the last one.
std::size_t Parser::find_mark_colon() const {
  bool is_quoted = false;
  for (std::size_t i = offset_; i < text_.size() && (is_quoted || !ends_word(i)); ++i) {
    const char c = text_[i];
    if (c == '\n') return kNoOffset;
    if (c == '"') is_quoted = !is_quoted;
    if (c == '\\') ++i;
    if (is_quoted) continue;
    if (c == ':') return i;
    if (c == '{' || c == ',') return kNoOffset;
    if (c == '[') {
      const std::size_t end = class_end(i);
      if (end == kNoOffset) return kNoOffset;
      i = end - 1;
    }
  }
  return kNoOffset;
}

bool Parser::parse_mark(Item& item) {
  const std::size_t module = find_mark_colon();
  if (module == kNoOffset)
    return fail(offset_,
                "a static mark is written usdt:module:provider:name or usdt:module:name, with '*' in any part");
  if (module != offset_ && !parse_module(module, item.module)) return false;
  offset_ = module + 1;
  item.target_position = position(offset_);
  MarkTarget target;
  if (const std::size_t provider = find_mark_colon(); provider != kNoOffset) {
    if (provider != offset_ && !parse_mark_part("provider", target.provider)) return false;
    if (offset_ != provider) return fail(offset_, fmt::format("unexpected {}", quote(character_at(offset_))));
    offset_ = provider + 1;
  }
  if (!parse_mark_part("mark", target.name)) return false;
  if (peek() == ':') return fail(offset_, "unexpected ':'; a static mark is written usdt:module:provider:name");
  if (peek() == '+') return fail(offset_, "a static mark takes no offset");
  item.target = std::move(target);
  return true;
}

bool Parser::parse_mark_part(std::string_view what, std::string& glob) {
  const std::size_t start = offset_;
  if (peek() == '"') {
    std::string text;
    if (!parse_quoted(text)) return false;
    glob = escape_glob(text);
    return true;
  }
  for (;;) {
    const char c = peek();
    if (is_word(c) || is_unicode(c) || (c != '\0' && std::string_view(".$*?-~").find(c) != std::string_view::npos)) {
      ++offset_;
    } else if (c == '\\' && !ends_word(offset_ + 1)) {
      offset_ += 1 + character_at(offset_ + 1).size();
    } else if (c == '[' && class_end(offset_) != kNoOffset) {
      std::size_t key_end = offset_ + 1;
      while (is_word(at(key_end))) ++key_end;
      if (at(key_end) == '=') break;  // options
      offset_ = class_end(offset_);
    } else {
      break;
    }
  }
  if (offset_ == start) return fail(start, fmt::format("expected a {}'s name", what));
  glob = slice(start, offset_);
  return true;
}

}  // namespace ubp::language
