// The specification's list, items and kinds; what follows a target. Pure text, load time; see spec.h and
// parser.h.
//
//   list := item { (";" | newline) item }          item := ["!"] [kind ":"] target
//
// The rest of the grammar (names, other kinds, options, captures, predicates, actions, file inclusion) is
// recognised where it would begin and refused by name.
#include "runtime/language/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/language/parser.h"
#include "runtime/language/text.h"

namespace ubp::language {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

struct KindWord {
  std::string_view word;
  std::optional<Kind> kind;  // none: in the grammar, not built yet
};

constexpr KindWord kKindWords[] = {
    {"u", Kind::kEntry},         {"uprobe", Kind::kEntry}, {"ur", std::nullopt},
    {"uretprobe", std::nullopt}, {"call", std::nullopt},   {"insn", Kind::kInsn},
    {"stmt", std::nullopt},      {"inline", std::nullopt}, {"usdt", std::nullopt},
};

Error bad_byte_error(std::string_view text, const BadByte& bad) {
  const std::string_view before = text.substr(0, bad.offset);
  const std::size_t newline = before.rfind('\n');
  const std::size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
  return {{1 + static_cast<int>(std::count(before.begin(), before.end(), '\n')),
           1 + static_cast<int>(bad.offset - line_start)},
          bad.message};
}

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kEntry: return "uprobe";
    case Kind::kInsn: return "insn";
  }
  return "unknown";
}

bool Parser::parse_list(std::vector<Item>& items, std::size_t most) {
  for (skip_blank(); !at_end(); skip_blank()) {
    if (items.size() == most)
      return fail(offset_, fmt::format("more than {} probes in one specification; a glob names many", most));
    Item item;
    if (!parse_item(item) || !expect_item_end()) return false;
    items.push_back(std::move(item));
  }
  return true;
}

bool Parser::parse_item(Item& item) {
  const std::size_t start = offset_;
  item.position = position(start);
  if (peek() == '!') {
    item.exclude = true;
    ++offset_;
    skip_space();
    if (at_end() || is_separator(peek()) || peek() == '#') return fail(offset_, "expected a target after '!'");
    if (peek() == '!') return fail(offset_, "unexpected second '!'");
  }
  if (peek() == '@') return fail_unsupported(offset_, fmt::format("file inclusion ({})", quote(word_at(offset_))));
  kind_given_ = false;
  if (!expect_no_name() || !parse_kind(item) || !parse_target(item) || !parse_options(item)) return false;
  item.text = slice(start, offset_);
  return true;
}

bool Parser::expect_no_name() {
  std::size_t end = offset_;
  while (is_word(at(end))) ++end;
  if (end == offset_ || is_digit(peek()) || at(end) != '=') return true;
  const std::string_view name = slice(offset_, end);
  if (name == "operator") return fail(offset_, "put a C++ operator's name in quotes");
  return fail_unsupported(offset_, fmt::format("naming a probe ({})", quote(slice(offset_, end + 1))));
}

bool Parser::parse_kind(Item& item) {
  const std::size_t colon = find_colon();
  if (colon == kNoOffset) return true;
  const std::string_view word = slice(offset_, colon);
  const KindWord* found = std::find_if(std::begin(kKindWords), std::end(kKindWords),
                                       [word](const KindWord& entry) { return entry.word == word; });
  if (found == std::end(kKindWords)) return true;  // a module
  if (!found->kind) return fail_unsupported(offset_, fmt::format("probe kind {}", quote(word)));
  item.kind = *found->kind;
  kind_given_ = true;
  offset_ = colon + 1;
  if (ends_word(offset_)) return fail_missing_target(colon, "a target");
  return true;
}

// [key=value,...]: of language.md's options this version knows missing=pending.
bool Parser::parse_options(Item& item) {
  const std::size_t before = offset_;
  skip_space();
  std::size_t key_end = offset_ + 1;
  while (is_word(at(key_end))) ++key_end;
  if (peek() != '[' || at(key_end) != '=') {
    offset_ = before;
    return true;
  }
  constexpr std::string_view kPending = "[missing=pending]";
  if (slice(offset_, std::min(offset_ + kPending.size(), text_.size())) != kPending) {
    return fail_unsupported(offset_,
                            fmt::format("an option list other than {} ({})", kPending, quote(word_at(offset_))));
  }
  if (item.exclude) return fail(offset_, "an exclusion has no options");
  item.pending = true;
  offset_ += kPending.size();
  return true;
}

// What may stand behind a target: nothing, a comment, or a part of the grammar that is not built yet.
bool Parser::expect_item_end() {
  const bool spaced = ends_word(offset_);
  skip_space();
  if (at_end() || is_separator(peek())) return true;
  switch (peek()) {
    case '[': return fail_unsupported(offset_, fmt::format("an option list ({})", quote(word_at(offset_))));
    case '/': return fail_unsupported(offset_, "a predicate (/.../)");
    case '{': return fail_unsupported(offset_, "an action ({...})");
    case '+':
      if (spaced) return fail(offset_, "unexpected '+'; write an offset without spaces: symbol+4");
      break;
    case ',': return fail(offset_, "unexpected ','; separate probes with ';'");
    case '#':
      if (!spaced) break;
      skip_comment();
      return true;
    default:
      if (spaced && (is_word(peek()) || peek() == '%' || peek() == '*' || peek() == '-')) {
        return fail(
            offset_,
            fmt::format(
                "unexpected {} after the target; separate probes with ';' (a capture is not supported yet by this version)",
                quote(word_at(offset_))));
      }
  }
  return fail(offset_, fmt::format("unexpected {} after the target", quote(character_at(offset_))));
}

void Parser::skip_blank() {
  while (!at_end()) {
    const char c = peek();
    if (c == '#') {
      skip_comment();
    } else if (c == '\n') {
      ++offset_;
      ++line_;
      line_start_ = offset_;
    } else if (c == ';' || is_space(c)) {
      ++offset_;
    } else {
      return;
    }
  }
}

void Parser::skip_space() {
  while (is_space(peek())) ++offset_;
}

void Parser::skip_comment() { offset_ = std::min(text_.find('\n', offset_), text_.size()); }

std::string_view Parser::word_at(std::size_t offset) const {
  std::size_t end = offset;
  while (!ends_word(end)) ++end;
  return slice(offset, end);
}

std::string_view Parser::character_at(std::size_t offset) const {
  std::size_t end = offset + 1;
  while (end < text_.size() && (static_cast<unsigned char>(text_[end]) & 0xc0) == 0x80) ++end;
  return slice(offset, end);
}

Position Parser::position(std::size_t offset) const { return {line_, static_cast<int>(offset - line_start_) + 1}; }

bool Parser::fail(std::size_t offset, std::string message) {
  error_ = {position(offset), std::move(message)};
  return false;
}

bool Parser::fail_unsupported(std::size_t offset, std::string_view what) {
  return fail(offset, fmt::format("{} is not supported yet by this version", what));
}

std::variant<std::vector<Item>, Error> parse(std::string_view text, std::size_t most) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (text.size() > kMaxBytes) return Error{{}, "the specification is larger than 16 MiB"};
  if (const std::optional<BadByte> bad = find_bad_byte(text)) return bad_byte_error(text, *bad);
  Parser parser(text);
  std::vector<Item> items;
  if (!parser.parse_list(items, most)) return parser.error();
  return items;
}

}  // namespace ubp::language
