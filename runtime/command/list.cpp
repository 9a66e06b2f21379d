// See list.h.
#include "runtime/command/list.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <variant>

#include "runtime/command/compiled.h"
#include "runtime/command/files.h"
#include "runtime/command/reading.h"
#include "runtime/debuginfo/debug_file.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/marks.h"

namespace ubp::command {
namespace {

using language::glob_match;

// What can be probed by name, and what is known of it: a line each.
using Listed = std::map<std::string, std::vector<std::string>>;

// The functions' names, without versions, as they are in the file or its separate debug file.
Listed functions_in(const std::string& path, const std::string& pattern, const ListOptions& options) {
  std::map<std::string, std::uint64_t> names;
  const auto add = [&](const symbols::ElfFile& file, std::uint32_t table) {
    const auto found = file.symbols(table);
    if (!found) return;
    for (const symbols::Symbol& symbol : *found) {
      const unsigned type = ELF64_ST_TYPE(symbol.entry.st_info);
      if ((type != STT_FUNC && type != STT_GNU_IFUNC) || symbol.entry.st_shndx == SHN_UNDEF) continue;
      const std::string_view name = symbols::VersionedName(symbol.name).name;
      if (!name.empty() && glob_match(pattern, name)) names.emplace(name, symbol.entry.st_value);
    }
  };
  const symbols::ElfFile file = symbols::ElfFile::open(path);
  add(file, SHT_SYMTAB);
  add(file, SHT_DYNSYM);
  if (const auto debug = symbols::find_debug_file(path, file)) add(*debug, SHT_SYMTAB);
  std::optional<Reading> reading;
  if (options.is_verbose) reading.emplace(path);
  const auto information = options.is_verbose ? debuginfo::DebugFile::open(path, options.debug_directories) : nullptr;
  Listed listed;
  for (const auto& [name, address] : names) {
    std::vector<std::string>& arguments = listed[name];
    const auto parameters = information != nullptr ? information->parameters({address}, nullptr) : std::nullopt;
    if (!parameters) continue;
    for (const debuginfo::Parameter& parameter : *parameters)
      arguments.push_back(fmt::format("{} {}", parameter.spelling, parameter.name));
  }
  return listed;
}

// "provider:name".
Listed marks_in(const std::string& path, const std::string& pattern, const ListOptions&) {
  Listed listed;
  for (const symbols::Mark& mark : symbols::marks_in(symbols::ElfFile::open(path))) {
    const std::string name = fmt::format("{}:{}", mark.provider, mark.name);
    if (!glob_match(pattern, name)) continue;
    std::vector<std::string>& arguments = listed[name];
    if (!arguments.empty()) continue;  // another place of it
    for (std::size_t i = 0; i < mark.arguments.size(); ++i) {
      const symbols::ValuePlace& place = mark.arguments[i].place;
      arguments.push_back(mark.arguments[i].problem.empty()
                              ? fmt::format("{}int{} arg{}", place.is_signed ? "" : "u", place.bytes * 8, i)
                              : fmt::format("? arg{} ({} {})", i, mark.arguments[i].text, mark.arguments[i].problem));
    }
  }
  return listed;
}

// By colons outside of quotes, which are taken away.
std::vector<std::string> parts_of(std::string_view pattern) {
  std::vector<std::string> parts(1);
  bool is_quoted = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '"') {
      is_quoted = !is_quoted;
    } else if (is_quoted && pattern[i] == '\\' && i + 1 < pattern.size()) {
      parts.back() += pattern[++i];
    } else if (pattern[i] == ':' && !is_quoted) {
      parts.emplace_back();
    } else {
      parts.back() += pattern[i];
    }
  }
  return parts;
}

// What is listed for one kind of probe, of every file that a target means.
template <typename ListedIn>
void print(std::string_view kind, const std::string& target, const std::string& pattern, const ListOptions& options,
           const ListedIn& listed_in) {
  for (const std::string& path : files_of(target)) {
    std::string lines;
    try {
      for (const auto& [name, arguments] : listed_in(path, pattern, options)) {
        lines += fmt::format("{}:{}:{}\n", kind, path, name);
        for (const std::string& argument : options.is_verbose ? arguments : std::vector<std::string>{})
          lines += fmt::format("    {}\n", argument);
      }
    } catch (const std::runtime_error&) {  // no ELF file, or a damaged one: it has nothing to list
      continue;
    }
    std::fputs(lines.c_str(), stdout);
  }
}

// The lines with code that a target means, by debug information.
void print_lines(const language::Item& item, const language::LineTarget& target, const ListOptions& options) {
  for (const std::string& path : files_of(item.module)) {
    std::string lines;
    try {
      const Reading reading(path);
      const auto information = debuginfo::DebugFile::open(path, options.debug_directories);
      if (information == nullptr) continue;
      for (const debuginfo::SourceLines& source : information->sources(debuginfo::LineQuery{target.file})) {
        const std::string file =
            language::is_glob(target.file) ? source.file.substr(source.file.rfind('/') + 1) : target.file;
        for (const std::uint32_t line : source.lines) {
          if (target.line == 0 || line == target.line)
            lines += fmt::format("{}:{}@{}:{}\n", language::kind_name(item.kind), path, file, line);
        }
      }
    } catch (const std::runtime_error&) {  // no ELF file
      continue;
    }
    std::fputs(lines.c_str(), stdout);
  }
}

bool is_kind(const std::string& pattern, std::string_view kind, std::string_view shorter) {
  return pattern == shorter || glob_match(pattern, kind);
}

void list_pattern(const std::string& pattern, const ListOptions& options) {
  const std::vector<std::string> parts = parts_of(pattern);
  if (parts.size() < 2 || parts[1].empty()) {
    say_warning(fmt::format("'{}' names no file: what is probed is a process's own", pattern),
                "uprobe:PATH:FUNCTION, usdt:PATH:PROVIDER:NAME, with '*' anywhere");
    return;
  }
  if (parts[1].find('@') != std::string::npos) {
    const auto parsed = language::parse(parts.size() > 2 ? pattern : pattern + ":*");
    const auto* const items = std::get_if<std::vector<language::Item>>(&parsed);
    const auto* const line =
        items != nullptr && !items->empty() ? std::get_if<language::LineTarget>(&items->front().target) : nullptr;
    if (line != nullptr) print_lines(items->front(), *line, options);
    return;
  }
  const std::string& last = parts.back();
  const std::string name = parts.size() > 2 ? last : "*";
  const std::string kind = parts[0] == "ur" ? "uretprobe" : parts[0];
  const bool returns = kind == "uretprobe" || kind == "call";
  if (returns || is_kind(parts[0], "uprobe", "u"))
    print(returns ? kind : "uprobe", parts[1], name, options, functions_in);
  if (is_kind(parts[0], "usdt", "U")) {
    const std::string provider = parts.size() > 3 && !parts[2].empty() ? parts[2] : "*";
    print("usdt", parts[1], fmt::format("{}:{}", provider, name), options, marks_in);
  }
}

void list_patterns(std::string_view patterns, const ListOptions& options) {
  if (patterns.find('.') != std::string_view::npos && patterns.find_first_of(":*") == std::string_view::npos) {
    say_warning(
        fmt::format("It appears that '{0}' is a filename but the file does not exist. Treating '{0}' as a search "
                    "pattern.",
                    patterns));
  }
  bool is_quoted = false;
  std::string pattern;
  for (const char c : fmt::format("{},", patterns)) {
    is_quoted ^= c == '"';
    if (c != ',' || is_quoted) {
      if (c != ' ' || is_quoted) pattern += c;
      continue;
    }
    if (!pattern.empty()) list_pattern(pattern, options);
    pattern.clear();
  }
}

bool list_program(const std::string& text, const ListOptions& options) {
  language::Program tree;
  const Compiled compiled(options.name, text);
  const auto parsed = language::parse(text, language::kMaxItems, &tree, options.parameters);
  if (const auto* error = std::get_if<language::Error>(&parsed)) {
    say(compiled, {{error->position, error->end}, error->message, {}, false});
    return false;
  }
  for (const language::Probe& probe : tree.probes) {
    if (probe.event == language::Probe::Event::kInterval) std::fputs((probe.name + '\n').c_str(), stdout);
  }
  for (const language::Item& item : std::get<std::vector<language::Item>>(parsed)) {
    const auto* symbol = std::get_if<language::SymbolTarget>(&item.target);
    const auto* mark = std::get_if<language::MarkTarget>(&item.target);
    const auto* line = std::get_if<language::LineTarget>(&item.target);
    if (item.exclude || (symbol == nullptr && mark == nullptr && line == nullptr)) continue;
    if (item.module.empty()) {
      say(compiled, {item_span(item), "the command's own functions are not known here", "name its file", true});
      continue;
    }
    if (line != nullptr) {
      print_lines(item, *line, options);
      continue;
    }
    if (mark != nullptr) {
      const std::string provider = mark->provider.empty() ? "*" : mark->provider;
      print(language::kind_name(item.kind), item.module, fmt::format("{}:{}", provider, mark->name), options, marks_in);
      continue;
    }
    const std::string pattern(symbols::VersionedName(symbol->pattern).name);
    print(language::kind_name(item.kind), item.module, pattern, options, functions_in);
  }
  return true;
}

}  // namespace

bool is_elf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[SELFMAG] = {};
  file.read(magic, sizeof magic);
  return file && std::string_view(magic, sizeof magic) == ELFMAG;
}

int list(const ListOptions& options) {
  bool is_good = true;
  for (const std::string& program : options.programs) is_good &= list_program(program, options);
  for (const std::string& patterns : options.patterns) list_patterns(patterns, options);
  return is_good ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace ubp::command
