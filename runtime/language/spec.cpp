// The specification's list, items and kinds; what follows a target. Pure text, load time; see spec.h and
// parser.h.
//
//   list   := item { (";" | newline) item }        item := ["!"] attach { "," attach } ["/" filter "/"] [block]
//   attach := [kind ":"] target                    also what events.cpp and preamble.cpp read
//
// The rest of the grammar (names, other kinds, options, captures, file inclusion) is recognised where it would begin
// and refused by name.
#include "runtime/language/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "runtime/language/definition_parser.h"
#include "runtime/language/parser.h"
#include "runtime/language/program_parser.h"
#include "runtime/language/text.h"

namespace ubp::language {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

struct KindWord {
  std::string_view word;
  std::optional<Kind> kind;  // none: in the grammar, not built yet
};

constexpr KindWord kKindWords[] = {
    {"u", Kind::kEntry},   {"uprobe", Kind::kEntry}, {"ur", Kind::kReturn},        {"uretprobe", Kind::kReturn},
    {"call", Kind::kCall}, {"insn", Kind::kInsn},    {"stmt", Kind::kStatement},   {"inline", Kind::kInline},
    {"usdt", Kind::kMark}, {"U", Kind::kMark},       {"watchpoint", std::nullopt},
};

Error bad_byte_error(std::string_view text, const BadByte& bad) {
  const std::string_view before = text.substr(0, bad.offset);
  const std::size_t newline = before.rfind('\n');
  const std::size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
  return {{1 + static_cast<int>(std::count(before.begin(), before.end(), '\n')),
           1 + static_cast<int>(bad.offset - line_start)},
          bad.message,
          {0, 0}};
}

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kEntry: return "uprobe";
    case Kind::kReturn: return "uretprobe";
    case Kind::kCall: return "call";
    case Kind::kInsn: return "insn";
    case Kind::kMark: return "usdt";
    case Kind::kStatement: return "stmt";
    case Kind::kInline: return "inline";
  }
  return "unknown";
}

bool Parser::parse_list(std::vector<Item>& items, std::size_t most) {
  for (skip_blank(); !at_end(); skip_blank()) {
    if (items.size() == most)
      return fail(offset_, fmt::format("more than {} probes in one specification; a glob names many", most));
    if (begins_definition()) {
      DefinitionParser parser(text_, cursor(), program_->definitions);
      if (!parser.parse()) {
        error_ = {parser.span().begin, parser.message(), parser.span().end};
        return false;
      }
      move_to(parser.end());
      continue;
    }
    if (!place_parameters()) return false;
    if (find_event(cursor())) {
      if (!parse_events()) return false;
      continue;
    }
    bool is_preamble = false;
    if (!parse_preamble(is_preamble)) return false;
    if (is_preamble) continue;
    Item item;
    if (!parse_item(item)) return false;
    items.push_back(std::move(item));
    if (!parse_more(items)) return false;
  }
  if (program_ == nullptr) return true;
  for (const StatementRow& row : program_->definitions.statements) {
    if (row.item < items.size() && items[row.item].is_by_debug_information())
      items[row.item].found.push_back({row.build_id, row.addresses});
  }
  return true;
}

// "struct" and the like, with a name or a body behind; else a function is called so.
bool Parser::begins_definition() const {
  if (program_ == nullptr) return false;
  for (const std::string_view word : {"struct", "union", "enum", "typedef"}) {
    if (!text_.substr(offset_).starts_with(word)) continue;
    Lexer ahead(text_, {offset_ + word.size(), line_, line_start_});
    const char next = ahead.skip_blanks();
    const bool is_apart = ahead.cursor().offset > offset_ + word.size();
    return (is_apart && (is_letter(next) || next == '{')) || next == '{';
  }
  return false;
}

// Behind an attach point: does a filter or a block stand there, on the same line or at the beginning of the next?
bool Parser::has_program() const {
  Lexer ahead(text_, cursor());
  const char first = ahead.skip_spaces();
  if (program_ == nullptr || first == ';') return first == '/' || first == '{';
  const char next = ahead.skip_blanks();
  if (next != '/' || ahead.cursor().line == line_) return next == '/' || next == '{';
  // On the next line a '/' also begins an item's path: it is a filter's if another one ends it.
  const std::size_t begin = ahead.cursor().offset;
  const std::string_view line = slice(begin, std::min(text_.find('\n', begin), text_.size()));
  const std::size_t end = std::min({line.find('{'), line.find(" #"), line.find("//"), line.size()});
  const std::size_t last = end != 0 ? line.find_last_not_of(" \t\r", end - 1) : std::string_view::npos;
  return last != 0 && last != std::string_view::npos && line[last] == '/';
}

bool Parser::parse_program(Probe::Event event, const Cursor& begin) {
  Probe probe;
  probe.event = event;
  probe.span = {begin.position(), position(offset_)};
  ProgramParser parser(text_, cursor(), *program_);
  if (!parser.parse(probe)) {
    error_ = {parser.span().begin, parser.message(), parser.span().end};
    return false;
  }
  move_to(parser.end());
  program_->probes.push_back(std::move(probe));
  return true;
}

void Parser::move_to(const Cursor& cursor) {
  offset_ = cursor.offset;
  line_ = cursor.line;
  line_start_ = cursor.line_start;
}

bool Parser::parse_more(std::vector<Item>& items) {
  const std::size_t first = items.size() - 1;
  const Cursor begin{offset_ - items.back().text.size(), line_, line_start_};
  Cursor behind = cursor();
  skip_space();
  const Cursor comma = cursor();
  const auto fail_at_comma = [&] {
    move_to(comma);
    return fail(offset_, "unexpected ','; separate probes with ';'");
  };
  while (peek() == ',') {
    if (program_ == nullptr || items[first].exclude) return fail_at_comma();
    ++offset_;
    Lexer ahead(text_, cursor());
    ahead.skip_blanks();
    move_to(ahead.cursor());
    Item item;
    if (!parse_attach(item)) return fail_at_comma();
    items.push_back(std::move(item));
    behind = cursor();
    skip_space();
  }
  move_to(behind);
  if (!has_program()) return items.size() - 1 == first ? expect_item_end() : fail_at_comma();
  skip_space();
  if (program_ == nullptr) return fail(offset_, "filters and blocks are for UBP_PROBES alone");
  if (items[first].exclude) return fail(offset_, "an exclusion has no filter and no block");
  bool has_marks = false;
  for (std::size_t i = first; i < items.size(); ++i) {
    items[i].probe = static_cast<std::uint32_t>(program_->probes.size());
    has_marks |= items[i].kind == Kind::kMark;
  }
  if (!parse_program(Probe::Event::kItems, begin)) return false;
  Probe& probe = program_->probes.back();
  probe.has_marks = has_marks;
  for (const Item& item : std::span(items).subspan(first)) {
    probe.has_returns |= item.kind == Kind::kReturn;
    probe.has_calls |= item.kind == Kind::kCall;
    probe.has_entries |= !is_of_returns(item.kind);
  }
  return true;
}

bool Parser::parse_item(Item& item) {
  const std::size_t start = offset_;
  if (peek() == '!') {
    item.exclude = true;
    ++offset_;
    skip_space();
    if (at_end() || is_separator(peek()) || peek() == '#') return fail(offset_, "expected a target after '!'");
    if (peek() == '!') return fail(offset_, "unexpected second '!'");
  }
  const bool is_line = find_colon() != kNoOffset && (is_digit(at(find_colon() + 1)) || at(find_colon() + 1) == '*');
  if (peek() == '@' && !is_line)
    return fail_unsupported(offset_, fmt::format("file inclusion ({})", quote(word_at(offset_))));
  if (!expect_no_name() || !parse_attach(item)) return false;
  item.position = position(start);
  item.text = slice(start, offset_);
  return true;
}

bool Parser::parse_attach(Item& item) {
  const std::size_t start = offset_;
  kind_given_ = false;
  item.position = position(start);
  if (!parse_kind(item)) return false;
  if (item.kind == Kind::kMark ? !parse_mark(item) : !parse_target(item)) return false;
  if (!parse_options(item)) return false;
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

bool Parser::is_kernel_kind(std::string_view word) {
  constexpr std::string_view kWords[] = {"kprobe",     "kretprobe",     "kfunc",    "kretfunc", "fentry", "fexit",
                                         "tracepoint", "rawtracepoint", "software", "hardware", "iter",   "profile"};
  return std::find(std::begin(kWords), std::end(kWords), word) != std::end(kWords);
}

bool Parser::fail_kernel_kind(std::size_t offset, std::string_view word) {
  return fail(offset,
              fmt::format("probe kind {} is for the kernel's probes; UBP has its own process's: u, uprobe, insn, usdt "
                          "(a module of that name is put in quotes)",
                          quote(word)));
}

bool Parser::parse_kind(Item& item) {
  constexpr std::string_view kOfExecutable = "usdt::";  // its marks; elsewhere "::" is C++
  const bool is_mark = text_.substr(offset_).starts_with(kOfExecutable);
  const std::size_t colon = is_mark ? offset_ + kOfExecutable.find(':') : find_colon();
  if (colon == kNoOffset) return true;
  const std::string_view word = slice(offset_, colon);
  const KindWord* found = std::find_if(std::begin(kKindWords), std::end(kKindWords),
                                       [word](const KindWord& entry) { return entry.word == word; });
  if (is_kernel_kind(word)) return fail_kernel_kind(offset_, word);
  if (word == "interval")
    return fail(offset_, "an interval is a time and has a block: interval:ms:10 { }, interval:1s { }");
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
    case '+':
      if (spaced) return fail(offset_, "unexpected '+'; write an offset without spaces: symbol+4");
      break;
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
      if (program_ != nullptr) DefinitionParser(text_, cursor(), program_->definitions).parse_line();
      skip_comment();
    } else if (c == '\n') {
      ++offset_;
      ++line_;
      line_start_ = offset_;
    } else if (c == ';' || is_space(c)) {
      ++offset_;
    } else if (program_ != nullptr && c == '/' && (at(offset_ + 1) == '/' || at(offset_ + 1) == '*')) {
      Lexer ahead(text_, cursor());
      ahead.skip_blanks();
      if (ahead.cursor().offset == offset_) return;  // "/*" that nothing closes: a path with globs
      move_to(ahead.cursor());
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

Position Parser::position(std::size_t offset) const { return Cursor{offset, line_, line_start_}.position(); }

bool Parser::fail(std::size_t offset, std::string message) {
  error_ = {position(offset), std::move(message), {0, 0}};
  return false;
}

bool Parser::fail_unsupported(std::size_t offset, std::string_view what) {
  return fail(offset, fmt::format("{} is not supported yet by this version", what));
}

std::variant<std::vector<Item>, Error> parse(std::string_view text, std::size_t most, Program* program,
                                             const std::vector<std::string>& parameters) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (text.size() > kMaxBytes) return Error{{}, "the specification is larger than 16 MiB", {0, 0}};
  if (const std::optional<BadByte> bad = find_bad_byte(text)) return bad_byte_error(text, *bad);
  Parser parser(text, program, parameters);
  std::vector<Item> items;
  if (!parser.parse_list(items, most)) return parser.error();
  return items;
}

}  // namespace ubp::language
