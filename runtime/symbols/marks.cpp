// Reading and finding static marks. See marks.h.
#include "runtime/symbols/marks.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <utility>

#include "runtime/base/edit_distance.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/notes.h"

namespace ubp::symbols {
namespace {

struct Register {
  std::int8_t number = kNoRegister;
  std::uint8_t bytes = 8, shift = 0;
};

// "rax", "eax", "ax", "al", "ah", "r8d"; number kNoRegister: it is none.
Register register_named(std::string_view name) {
  constexpr std::string_view kNames[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
  constexpr std::string_view kHigh[] = {"ah", "ch", "dh", "bh"};
  const auto number_of = [](std::string_view wanted, const auto& names) {
    const auto* const found = std::find(std::begin(names), std::end(names), wanted);
    return found != std::end(names) ? static_cast<std::int8_t>(found - std::begin(names)) : kNoRegister;
  };
  if (name.size() == 3 && (name[0] == 'r' || name[0] == 'e')) {
    const std::int8_t number = number_of(name.substr(1), kNames);
    if (number != kNoRegister) return {number, static_cast<std::uint8_t>(name[0] == 'r' ? 8 : 4)};
  }
  if (const std::int8_t number = number_of(name, kNames); number != kNoRegister) return {number, 2};
  if (const std::int8_t number = number_of(name, kHigh); number != kNoRegister) return {number, 1, 8};
  if (name.ends_with('l') && name.size() <= 3) {  // al, sil
    const std::string_view stem = name.substr(0, name.size() - 1);
    const std::int8_t number = number_of(stem.size() == 1 ? std::string(stem) + 'x' : std::string(stem), kNames);
    if (number != kNoRegister && (stem.size() == 2) == (number >= 4)) return {number, 1};
  }
  if (name.starts_with('r')) {
    int number = 0;
    const auto [end, error] = std::from_chars(name.data() + 1, name.data() + name.size(), number);
    const std::string_view suffix(end, static_cast<std::size_t>(name.data() + name.size() - end));
    if (error != std::errc{} || number < 8 || number > 15) return {};
    const auto its = static_cast<std::int8_t>(number);
    if (suffix.empty()) return {its, 8};
    if (suffix == "d") return {its, 4};
    if (suffix == "w") return {its, 2};
    if (suffix == "b" || suffix == "l") return {its, 1};
  }
  return {};
}

// A number in any of C's bases, with its sign, moved over; false: there is none.
bool take_number(std::string_view& text, std::int64_t& number) {
  const bool is_negative = text.starts_with('-');
  std::string_view digits = text.substr(is_negative || text.starts_with('+') ? 1 : 0);
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.size() > 1 && digits[0] == '0') {
    base = 8;
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  number = static_cast<std::int64_t>(is_negative ? 0 - value : value);
  return true;
}

// Reads one operand of GNU as.
class OperandReader {
 public:
  OperandReader(std::string_view text, const VariableAddress& address_of) : text_(text), address_of_(address_of) {}

  // Returns what is wrong with it, or nothing.
  std::string read(ValuePlace& place) {
    if (text_.starts_with('$')) return read_constant(place);
    if (text_.starts_with('%') && text_.find(':') == std::string_view::npos) return read_register(place);
    return read_memory(place);
  }
  std::uint8_t register_bytes() const { return register_bytes_; }

 private:
  std::string strange() const { return "is in no form that is known"; }

  std::string read_constant(ValuePlace& place) {
    text_.remove_prefix(1);
    place.kind = ValuePlace::Kind::kConstant;
    return take_number(text_, place.offset) && text_.empty() ? "" : strange();
  }

  std::string read_register(ValuePlace& place) {
    const std::string_view name = text_.substr(1);
    const Register its = register_named(name);
    if (its.number == kNoRegister) {
      const bool is_other = name.find("mm") != std::string_view::npos || name.starts_with("st");
      return is_other ? "is a floating-point value" : strange();
    }
    place.kind = ValuePlace::Kind::kRegister;
    place.base = its.number;
    place.shift = its.shift;
    register_bytes_ = its.bytes;
    return "";
  }

  // [symbol] [+-number] ["(" [base] ["," index ["," scale]] ")"]
  std::string read_memory(ValuePlace& place) {
    if (text_.starts_with("%")) return "is thread-local, or in another segment";
    place.kind = ValuePlace::Kind::kMemory;
    bool has_symbol = false;
    std::uint64_t symbol = 0;
    while (!text_.empty() && text_[0] != '(') {
      std::int64_t number = 0;
      if (take_number(text_, number)) {
        place.offset += number;
        continue;
      }
      if (text_[0] == '+') text_.remove_prefix(1);
      const std::size_t end = std::min(text_.find_first_of("+-(@"), text_.size());
      if (has_symbol || end == 0) return strange();
      const std::optional<std::uint64_t> address = address_of_(text_.substr(0, end));
      if (!address) return "names a variable that is in no symbol table: " + std::string(text_.substr(0, end));
      if (end < text_.size() && text_[end] == '@') return "is thread-local, or another module's";
      has_symbol = true;
      symbol = *address;
      text_.remove_prefix(end);
    }
    place.offset += static_cast<std::int64_t>(symbol);
    if (has_symbol) place.base = kModuleBase;
    if (text_.empty()) return has_symbol ? "" : "is at an address that is not the module's";
    if (!text_.ends_with(')')) return strange();
    std::string_view inside = text_.substr(1, text_.size() - 2);
    if (inside == "%rip") return has_symbol ? "" : "is at an address that counts from the instruction's";
    std::string_view parts[3];
    for (std::string_view& part : parts) {
      const std::size_t comma = std::min(inside.find(','), inside.size());
      part = inside.substr(0, comma);
      inside.remove_prefix(std::min(comma + 1, inside.size()));
    }
    const auto take_register = [](std::string_view name, std::int8_t& number) {
      if (name.empty()) return true;
      const Register its = name.starts_with('%') ? register_named(name.substr(1)) : Register{};
      number = its.number;
      return its.number != kNoRegister && its.bytes == 8;
    };
    std::int8_t base = kNoRegister;
    std::int64_t scale = 1;
    if (!take_register(parts[0], base) || !take_register(parts[1], place.index)) return strange();
    if (!parts[2].empty() && (!take_number(parts[2], scale) || !parts[2].empty())) return strange();
    if (scale != 1 && scale != 2 && scale != 4 && scale != 8) return strange();
    if (has_symbol && base != kNoRegister) {  // x(%rax): where a module lies at its own addresses
      if (place.index != kNoRegister) return strange();
      place.index = base;
    } else if (!has_symbol) {
      place.base = base;
    }
    place.scale = static_cast<std::uint8_t>(scale);
    return "";
  }

  std::string_view text_;
  const VariableAddress& address_of_;
  std::uint8_t register_bytes_ = 0;
};

MarkArgument parse_argument(std::string_view text, const VariableAddress& address_of) {
  MarkArgument argument{{}, std::string(text), {}};
  std::string_view operand = text;
  std::int64_t bytes = 0;
  bool is_float = false, has_size = false;
  if (const std::size_t at = text.find('@'); at != std::string_view::npos) {
    std::string_view size = text.substr(0, at);
    if (take_number(size, bytes)) {
      is_float = size == "f";
      has_size = size.empty() || is_float;
      if (has_size) operand.remove_prefix(at + 1);
    }
  }
  OperandReader reader(operand, address_of);
  argument.problem = reader.read(argument.place);
  if (!has_size) bytes = reader.register_bytes() != 0 ? reader.register_bytes() : 8;
  argument.place.is_signed = bytes < 0;
  const std::int64_t size = bytes < 0 ? -bytes : bytes;
  if (is_float) {
    argument.problem = "is a floating-point value";
  } else if (size != 1 && size != 2 && size != 4 && size != 8) {
    argument.problem = "is not of 1, 2, 4 or 8 bytes";
  } else {
    argument.place.bytes = static_cast<std::uint8_t>(size);
  }
  return argument;
}

}  // namespace

std::vector<MarkArgument> parse_mark_arguments(std::string_view text, const VariableAddress& address_of) {
  std::vector<MarkArgument> arguments;
  while (!text.empty()) {
    int open = 0;
    std::size_t end = 0;  // blanks between parentheses are the operand's
    for (; end < text.size() && (text[end] != ' ' || open > 0); ++end)
      open += (text[end] == '(' ? 1 : 0) - (text[end] == ')' ? 1 : 0);
    std::string one(text.substr(0, end));
    std::erase(one, ' ');
    if (!one.empty()) arguments.push_back(parse_argument(one, address_of));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return arguments;
}

std::vector<Mark> marks_in(const ElfFile& file) {
  std::vector<Mark> marks;
  const auto notes = file.section(".note.stapsdt");
  if (!notes) return marks;
  std::uint64_t base = 0;  // where .stapsdt.base lies; what moved it has moved the marks
  for (const Elf64_Shdr& section : file.sections()) {
    if (file.is_called(section, ".stapsdt.base")) base = section.sh_addr;
  }
  const VariableAddress address_of = [&](std::string_view name) -> std::optional<std::uint64_t> {
    for (const std::uint32_t table : {SHT_SYMTAB, SHT_DYNSYM}) {
      const auto symbols = file.symbols(table);
      if (!symbols) continue;
      for (const Symbol& symbol : *symbols) {
        const unsigned type = ELF64_ST_TYPE(symbol.entry.st_info);
        const bool is_variable = type == STT_OBJECT || type == STT_NOTYPE;
        if (is_variable && symbol.entry.st_shndx != SHN_UNDEF && VersionedName(symbol.name).name == name)
          return symbol.entry.st_value;
      }
    }
    return std::nullopt;
  };
  for (const StaticMark& noted : static_marks(notes->bytes, notes->size)) {
    const std::uint64_t moved = base != 0 && noted.base != 0 ? base - noted.base : 0;
    marks.push_back({noted.address + moved, noted.semaphore != 0 ? noted.semaphore + moved : 0,
                     std::string(noted.provider), std::string(noted.name),
                     parse_mark_arguments(noted.arguments, address_of)});
  }
  std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.address < b.address; });
  return marks;
}

std::vector<Mark> marks_of(const Module& module) try {
  if (module.is_vdso) return {};
  return marks_in(open_module(module));
} catch (const std::runtime_error& error) {
  throw std::runtime_error("cannot read the static marks of " + module.path + ": " + error.what());
}

bool mark_matches(const Mark& mark, std::string_view provider, std::string_view name) {
  return (provider.empty() || language::glob_match(provider, mark.provider)) && language::glob_match(name, mark.name);
}

std::vector<std::string> nearest_marks(const std::vector<Mark>& marks, std::string_view provider,
                                       std::string_view name) {
  const std::string wanted = provider.empty() ? std::string(name) : std::string(provider) + ':' + std::string(name);
  const std::size_t limit = std::max<std::size_t>(2, wanted.size() / 3);
  EditDistance distance(wanted, limit);
  std::vector<std::pair<std::size_t, std::string>> found;
  for (const Mark& mark : marks) {
    const std::string whole = mark.provider + ':' + mark.name;
    const std::size_t edits = mark.name == name ? 1 : distance.to(provider.empty() ? mark.name : whole);
    if (edits <= limit) found.emplace_back(edits, whole);
  }
  return first_names(std::move(found));
}

}  // namespace ubp::symbols
