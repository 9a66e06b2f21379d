// See name_filter.h. Sources: DWARF 5, 7.5 and 7.26; the Itanium C++ ABI, 5.1.3: a function's own name is in its
// linkage name as it is written, but for operators and what std has short forms for (5.1.8).
#include "runtime/debuginfo/name_filter.h"

#include <dwarf.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {
namespace {

constexpr std::string_view kGlob = "*?[", kMangled = "_Z";

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '.';
}

// Constructors' names that linkage names shorten.
bool is_shortened(std::string_view name) {
  constexpr std::string_view kShort[] = {"string",   "basic_string",  "allocator",     "istream",       "ostream",
                                         "iostream", "basic_istream", "basic_ostream", "basic_iostream"};
  return std::find(std::begin(kShort), std::end(kShort), name) != std::end(kShort);
}

// A function's own name in one that is written in full, "int ns::max<int>(int, int)": what stands before its arguments.
// Empty: it cannot be told.
std::string_view own_name(std::string_view text) {
  if (text.find("operator") != std::string_view::npos) return {};
  std::size_t begin = 0, end = 0;  // of the last name that stands outside of brackets
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (is_letter(c)) {
      if (at != end || begin == end) begin = at;
      end = at + 1;
    } else if (c == '<') {
      int depth = 0;
      for (; at < text.size(); ++at) {
        depth += text[at] == '<' ? 1 : text[at] == '>' ? -1 : 0;
        if (depth == 0) break;
      }
    } else if (c == '(') {
      const bool is_arguments = at != 0 && text[at - 1] != ' ' && text[at - 1] != ':' && text.substr(at, 2) != "(*" &&
                                text.substr(at, 2) != "(&";
      return is_arguments ? text.substr(begin, end - begin) : std::string_view();
    } else if (c != ':' && c != ' ') {
      return {};
    }
  }
  return text.substr(begin, end - begin);
}

// Calls visit(offset) for each place at which a part is.
template <typename Visit>
void for_each_place(Bytes bytes, std::string_view part, const Visit& visit) {
  const std::uint8_t* const begin = bytes.data();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const void* const found = memmem(begin + at, bytes.size() - at, part.data(), part.size());
    if (found == nullptr) return;
    at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - begin);
    visit(at);
  }
}

std::string_view longest_part(std::string_view glob) {
  std::string_view longest;
  for (std::size_t begin = 0; begin < glob.size();) {
    std::size_t end = begin;
    while (end < glob.size() && is_letter(glob[end])) ++end;
    if (end - begin > longest.size()) longest = glob.substr(begin, end - begin);
    begin = end + 1;
  }
  return longest;
}

std::uint32_t number_at(const std::uint8_t* bytes) {
  std::uint32_t number = 0;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

constexpr std::size_t kBlock = 16;

// Whether a number that begins in a block of bytes, at any of them, lies between two others. A hundred megabytes are
// looked through: by four numbers at once.
bool has_number(const std::uint8_t* bytes, std::uint32_t first, std::uint32_t last) {
  using Numbers [[gnu::vector_size(kBlock)]] = std::uint32_t;
  using Halves [[gnu::vector_size(kBlock)]] = std::uint64_t;
  const auto found = [&](std::size_t shift) {
    Numbers its;
    std::memcpy(&its, bytes + shift, sizeof its);
    return reinterpret_cast<Halves>(its - first <= last - first);
  };
  const Halves any = found(0) | found(1) | found(2) | found(3);
  return (any[0] | any[1]) != 0;
}

}  // namespace

NameFilter::NameFilter(Dwarf* dwarf, const FunctionPattern& pattern, std::function<bool(std::string_view)> fits)
    : units_(section(dwarf, ".debug_info")),
      abbreviations_(section(dwarf, ".debug_abbrev")),
      texts_(section(dwarf, ".debug_str")),
      indexes_(section(dwarf, ".debug_str_offsets")),
      fits_(std::move(fits)) {
  const std::string_view text = pattern.text;
  if (pattern.is_quoted || text.find_first_of(kGlob) == std::string_view::npos) {
    const std::string_view name = own_name(text);
    is_whole_ = name == text;
    if (!is_shortened(name)) find(name);
  } else if (text.find('[') == std::string_view::npos) {
    find(longest_part(text));
    if (!part_.empty()) find_mangled();  // a linkage name does not spell all out that a glob may mean: "*(int*"
  }
}

void NameFilter::add(std::size_t text) {
  candidates_[text] = 1;
  first_ = std::min(first_, static_cast<std::uint32_t>(text));
  last_ = std::max(last_, static_cast<std::uint32_t>(text));
}

// The texts that have a part and fit. A text may be the end of another one.
void NameFilter::find(std::string_view part) {
  if (texts_.size() > ~std::uint32_t{0}) return;
  part_ = part;
  if (part.empty()) return;
  candidates_.resize(texts_.size());
  for_each_place(texts_, part, [&](std::size_t at) {
    for (std::size_t first = at + 1; first-- > 0 && (first == at || texts_[first] != 0);) {
      const std::string_view text = text_at(texts_, first);
      const bool may_fit = !is_whole_ || text.size() == part.size() || text.starts_with(kMangled);
      if (may_fit && candidates_[first] == 0 && fits_(text)) add(first);
    }
  });
}

void NameFilter::find_mangled() {
  for_each_place(texts_, kMangled, [&](std::size_t at) {
    if (candidates_[at] == 0 && fits_(text_at(texts_, at))) add(at);
  });
}

bool NameFilter::is_candidate(std::uint64_t offset) const {
  return offset >= first_ && offset <= last_ && candidates_[offset] != 0;
}

// Whether a unit has a number that is where such a text begins, or such a text itself.
bool NameFilter::refers(Bytes unit) const {
  if (memmem(unit.data(), unit.size(), part_.data(), part_.size() + (is_whole_ ? 1 : 0)) != nullptr) return true;
  if (first_ > last_) return false;
  const std::uint8_t* const fits = candidates_.data();
  const std::uint32_t first = first_, last = last_;
  for (std::size_t at = 0; at + sizeof first <= unit.size();) {
    const std::size_t left = unit.size() - at - sizeof first + 1, end = at + std::min(left, kBlock);
    if (left > kBlock && !has_number(unit.data() + at, first, last)) {
      at = end;
      continue;
    }
    for (; at < end; ++at) {
      const std::uint32_t number = number_at(unit.data() + at);
      if (number - first <= last - first && fits[number] != 0) return true;
    }
  }
  return false;
}

// The same of its table of texts.
bool NameFilter::has_index(Dwarf_Die& unit) const {
  constexpr std::uint64_t kNone = ~std::uint64_t{0}, kHead = 8;  // of the table
  const std::uint64_t base = number_of(unit, DW_AT_str_offsets_base, kNone);
  if (base == kNone || base < kHead) return true;
  ByteReader reader(indexes_, base - kHead);
  const std::uint64_t bytes = reader.number(4);
  reader.number(4);
  if (!reader.is_good() || bytes >= indexes_.size()) return true;
  for (std::uint64_t i = 4; i + 4 <= bytes; i += 4) {
    if (is_candidate(reader.number(4))) return true;
  }
  return !reader.is_good();
}

// Source: DWARF 5, 7.5.3.
const NameFilter::Forms& NameFilter::forms(std::uint64_t abbreviations) {
  const auto [known, is_new] = forms_.try_emplace(abbreviations);
  Forms& its = known->second;
  if (!is_new) return its;
  ByteReader reader(abbreviations_, abbreviations);
  while (reader.is_good() && reader.leb() != 0) {
    reader.leb();  // the tag
    reader.number(1);
    for (;;) {
      const std::uint64_t attribute = reader.leb(), form = reader.leb();
      if (form == DW_FORM_implicit_const) reader.leb();
      if (!reader.is_good() || (attribute == 0 && form == 0)) break;
      const bool is_name =
          attribute == DW_AT_name || attribute == DW_AT_linkage_name || attribute == DW_AT_MIPS_linkage_name;
      const bool is_other = attribute == DW_AT_abstract_origin || attribute == DW_AT_specification;
      if (!is_name && !is_other) continue;
      switch (form) {
        case DW_FORM_strx:
        case DW_FORM_strx1:
        case DW_FORM_strx2:
        case DW_FORM_strx3:
        case DW_FORM_strx4: its.has_indexes = true; break;
        case DW_FORM_string:  // of linkage names, which may have another form, it is not looked for
          if (attribute != DW_AT_name) return its;
          break;
        case DW_FORM_strp:
        case DW_FORM_line_strp:  // a unit's own
        case DW_FORM_ref1:
        case DW_FORM_ref2:
        case DW_FORM_ref4:
        case DW_FORM_ref8:
        case DW_FORM_ref_udata: break;
        default: return its;
      }
    }
  }
  its.is_known = reader.is_good();
  return its;
}

bool NameFilter::may_have(Dwarf_Die& skeleton, const Dwarf_Die& whole) {
  constexpr std::uint64_t kLong = 0xfffffff0;
  if (part_.empty() || skeleton.addr != whole.addr) return true;
  const std::uint64_t entry = dwarf_dieoffset(&skeleton), begin = entry - dwarf_cuoffset(&skeleton);
  ByteReader reader(units_, begin);
  const std::uint64_t bytes = reader.number(4), version = reader.number(2);
  if (version >= 5) reader.number(2);  // the kind; the size of addresses
  const std::uint64_t abbreviations = reader.number(4), end = begin + 4 + bytes;
  if (!reader.is_good() || bytes >= kLong || end > units_.size() || entry > end) return true;
  const Forms& its = forms(abbreviations);
  return !its.is_known || (its.has_indexes && has_index(skeleton)) || refers(units_.subspan(entry, end - entry));
}

}  // namespace ubp::debuginfo
