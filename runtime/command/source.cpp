// See source.h.
#include "runtime/command/source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>
#include <variant>

#include "runtime/analysis/argument_places.h"
#include "runtime/command/compiled.h"
#include "runtime/command/debug_packages.h"
#include "runtime/command/debug_types.h"
#include "runtime/command/files.h"
#include "runtime/command/reading.h"
#include "runtime/debuginfo/debug_file.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/symbols.h"

namespace ubp::command {
namespace {

using debuginfo::DebugFile;
using debuginfo::Place;
using language::Item;
using language::LineTarget;
using language::SymbolTarget;

// A target that names a file's code.
std::optional<Item> item_of(std::string text) {
  const std::size_t at = text.find('@');
  const bool is_file = at != std::string::npos && text.find(':', at) == std::string::npos;
  if (is_file) text += ":*";
  const auto parsed = language::parse(text);
  if (const auto* const error = std::get_if<language::Error>(&parsed)) {
    say_error(fmt::format("{}: {}", text, error->message));
    return std::nullopt;
  }
  const auto& items = std::get<std::vector<Item>>(parsed);
  if (items.size() == 1 && !items.front().module.empty()) return items.front();
  say_error(fmt::format("'{}' does not name a file's code", text), "PATH:FUNCTION, PATH@FILE.c or PATH@FILE.c:LINE");
  return std::nullopt;
}

// By their paths; null: they have no debug information. Several targets may be of one.
using Files = std::map<std::string, std::unique_ptr<DebugFile>>;

// Calls visit(path, file, reading) for those that a target means and that have debug information: it ends the reading
// before it writes anything. False: none has.
template <typename Visit>
bool for_each_file(const Item& item, const SourceOptions& options, Files& known, const Visit& visit) {
  std::string without;
  bool any = false;
  const std::vector<std::string> files = files_of(item.module);
  for (const std::string& path : files) try {
      Reading reading(path);
      const auto [entry, is_new] = known.try_emplace(path);
      if (is_new) entry->second = DebugFile::open(path, options.debug_directories);
      if (entry->second != nullptr) {
        if (const debuginfo::Lack& lack = entry->second->lack(); is_new && !lack.what.empty()) {
          reading.end();
          say_error(lack.what, lack.hint);
        }
        visit(path, *entry->second, reading);
        any = true;
      } else {
        without = path;
      }
    } catch (const std::runtime_error& error) {
      say_error(fmt::format("{}: {}", path, error.what()));
      return false;
    }
  if (files.empty()) say_error(fmt::format("there is no file '{}'", item.module));
  if (!any && !without.empty()) {
    const std::string here = in_this_folder(item.module);
    say_error(fmt::format("there is no debug information of {}", without),
              here.empty() || here == without ? where_to_get_it(without)
                                              : fmt::format("the file in this folder is {}", here));
  }
  return any;
}

// The lines of a source file; none: it is not there.
std::vector<std::string> text_in(const std::string& path, const std::string& program) {
  const std::string folder = program.substr(0, program.rfind('/') + 1);
  std::vector<std::string> lines;
  for (const std::string& place : {path, folder + path}) {
    std::ifstream file(place);
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    if (!lines.empty()) break;
  }
  return lines;
}

void print_lines(const debuginfo::SourceLines& source, const std::string& program, std::uint32_t around) {
  constexpr std::uint32_t kBeside = 8;
  const std::vector<std::string> text = text_in(source.file, program);
  std::uint32_t first = source.function.empty() ? 1 : source.first;
  std::uint32_t last = source.function.empty() ? static_cast<std::uint32_t>(text.size()) : 0;
  if (!source.lines.empty()) first = std::min(first, source.lines.front()), last = std::max(last, source.lines.back());
  if (around != 0) first = around > kBeside ? around - kBeside : 1, last = std::min(last, around + kBeside);
  std::string out = source.function.empty()
                        ? fmt::format("{}\n", source.file)
                        : fmt::format("{} ({}:{})\n", symbols::demangle(source.function), source.file, source.first);
  if (text.empty()) out += "    (the source is not there)\n";
  for (std::uint32_t line = first; line <= last; ++line) {
    const bool has_code = std::binary_search(source.lines.begin(), source.lines.end(), line);
    if (text.empty() && !has_code) continue;
    const std::string its = line <= text.size() ? text[line - 1] : "";
    std::string row = fmt::format("{:>7}  {}", has_code ? std::to_string(line) : "", its);
    row.erase(row.find_last_not_of(" \t\r") + 1);
    out += row + '\n';
  }
  std::fputs((out + '\n').c_str(), stdout);
}

bool list_lines(const Item& item, const SourceOptions& options, Files& files) {
  const auto* const line = std::get_if<LineTarget>(&item.target);
  const auto* const symbol = std::get_if<SymbolTarget>(&item.target);
  if (line == nullptr && symbol == nullptr) {
    say_error(fmt::format("'{}' is neither a function nor a source file", item.text));
    return false;
  }
  bool any = false;
  const bool is_known =
      for_each_file(item, options, files, [&](const std::string& path, DebugFile& file, Reading& reading) {
        const auto sources = line != nullptr
                                 ? file.sources(debuginfo::LineQuery{line->file})
                                 : file.sources(debuginfo::FunctionPattern{symbol->pattern, symbol->quoted});
        reading.end();
        for (const debuginfo::SourceLines& source : sources)
          print_lines(source, path, line != nullptr ? line->line : 0);
        any |= !sources.empty();
      });
  if (is_known && !any)
    say_error(line != nullptr ? fmt::format("no source file '{}' is part of {}", line->file, item.module)
                              : fmt::format("no function '{}' is known in {}", symbol->pattern, item.module));
  return any;
}

constexpr const char* kRegisterNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

std::string where_of(const program::ArgumentPlace& where) {
  using Kind = symbols::ValuePlace::Kind;
  if (!where.problem.empty()) return where.problem;
  const symbols::ValuePlace& place = where.place;
  const auto name = [](std::int8_t number) -> std::string {
    if (number >= symbols::kFirstVector) return fmt::format("xmm{}", number - symbols::kFirstVector);
    return number >= 0 ? kRegisterNames[number] : "";
  };
  switch (place.kind) {
    case Kind::kRegister:
      return place.index >= 0 ? fmt::format("{}, {}", name(place.base), name(place.index)) : name(place.base);
    case Kind::kMemory:
      if (place.base < 0) return fmt::format("[0x{:x}]", place.offset);
      return fmt::format("[{}{:+}]", name(place.base), place.offset);
    case Kind::kConstant: return fmt::format("always {}", place.offset);
    case Kind::kComputed: {
      const bool is_kept = !where.steps.empty() && where.steps.back().code == symbols::PlaceStep::Code::kKept;
      return is_kept ? fmt::format("{} at the entry", name(where.steps.back().base)) : "computed";
    }
    case Kind::kComputedMemory: return "[computed]";
    case Kind::kPieces: return fmt::format("in {} pieces", where.pieces.size());
  }
  return "";
}

// Where a target is. For a function, its entry.
debuginfo::Found find(const Item& item, DebugFile& file) {
  const bool is_all = item.kind == language::Kind::kStatement;
  if (const auto* const line = std::get_if<LineTarget>(&item.target))
    return file.lines({line->file, line->line, line->column, is_all});
  if (const auto* const address = std::get_if<language::AddressTarget>(&item.target))
    return {{{address->address, nullptr, true}}};
  const auto* const symbol = std::get_if<SymbolTarget>(&item.target);
  if (symbol == nullptr) return {};
  const debuginfo::FunctionPattern pattern{symbol->pattern, symbol->quoted};
  return {is_all ? file.statements(pattern) : file.instances(pattern, nullptr)};
}

bool list_variables(const Item& item, const SourceOptions& options, Files& files) {
  bool any = false, said = false;
  const bool is_known =
      for_each_file(item, options, files, [&](const std::string& path, DebugFile& file, Reading& reading) {
        const debuginfo::Found found = find(item, file);
        const auto* const target = std::get_if<LineTarget>(&item.target);
        if (target != nullptr && found.places.empty()) {
          reading.end();
          const auto [message, hint] = missing_line(*target, found, path);
          say_error(message, hint);
          said = true;
        }
        std::string out;
        for (const Place& place : found.places) {
          const auto visible = file.visible(place);
          if (!visible) continue;
          any = true;
          // Several lines may begin at one address.
          const std::uint32_t line = target != nullptr && target->line != 0 ? target->line : visible->line;
          out += fmt::format("{}:0x{:x} {}:{} in {}\n", path, place.address, visible->file, line,
                             symbols::demangle(visible->function));
          std::size_t width = 0;
          for (const debuginfo::Parameter& one : visible->variables)
            width = std::max(width, one.spelling.size() + one.name.size() + 1);
          for (const debuginfo::Parameter& one : visible->variables) {
            out += fmt::format("    {:<{}}  {}", one.spelling + ' ' + one.name, width, where_of(one.where));
            if (one.where.problem.empty() && !one.lives.empty()) out += fmt::format("  (lines {})", one.lives);
            out += '\n';
          }
        }
        reading.end();
        std::fputs(out.c_str(), stdout);
      });
  if (is_known && !any && !said)
    say_error(fmt::format("nothing is known of '{}'", item.text), fmt::format("ubp lines {}", item.text));
  return any;
}

template <typename List>
int for_each_target(const SourceOptions& options, const List& list) {
  bool is_good = true;
  Files files;
  for (const std::string& target : options.targets) {
    const auto item = item_of(target);
    is_good &= item && list(*item, options, files);
  }
  return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int lines(const SourceOptions& options) { return for_each_target(options, list_lines); }
int vars(const SourceOptions& options) { return for_each_target(options, list_variables); }

}  // namespace ubp::command
