// See debug_types.h.
#include "runtime/command/debug_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <utility>
#include <variant>

#include "runtime/analysis/mark_types.h"
#include "runtime/analysis/sources.h"
#include "runtime/analysis/wishes.h"
#include "runtime/command/compiled.h"
#include "runtime/command/debug_packages.h"
#include "runtime/command/marks.h"
#include "runtime/command/reading.h"
#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/types.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/symbol_address.h"
#include "runtime/symbols/symbols.h"

namespace ubp::command {
namespace {

using debuginfo::DebugFile;
using debuginfo::Parameter;
using language::Item;
using language::LineTarget;
using language::SymbolTarget;

class Reader {
 public:
  Reader(const language::Program& tree, const std::vector<Item>& items, const DebugOptions& options,
         std::vector<program::Diagnostic>& diagnostics)
      : items_(items),
        options_(options),
        diagnostics_(diagnostics),
        wishes_(program::find_wishes(tree, items)),
        types_(program::defined_types(tree)) {}

  bool has_wishes() const { return !wishes_.is_nothing(); }
  std::string read();

 private:
  std::vector<std::string> files_of_item(const Item& item) const;
  DebugFile* file(const std::string& path);
  static debuginfo::Found find(const Item& item, DebugFile& file);
  std::vector<debuginfo::Place> places_of(const Item& item, const std::string& path);
  void read_places();
  void say_missing(const Item& item, const debuginfo::Found* found, const std::vector<std::string>& paths);
  void read_arguments(std::uint32_t probe, const std::set<std::string>& names);
  void read_symbols(std::uint32_t probe, const std::set<std::string>& names);

  const std::vector<Item>& items_;
  const DebugOptions& options_;
  std::vector<program::Diagnostic>& diagnostics_;
  const program::Wishes wishes_;
  std::map<std::string, std::unique_ptr<DebugFile>> files_;
  debuginfo::TypeWriter types_;
  std::map<std::pair<std::uint32_t, std::string>, std::vector<debuginfo::Place>> places_;  // by item and file
  std::string structs_, rows_;
  std::optional<Reading> reading_;
};

std::vector<std::string> Reader::files_of_item(const Item& item) const {
  std::vector<std::string> files;
  for (const std::string& path : options_.modules) {
    const symbols::Module module{.path = path, .name = path.substr(path.rfind('/') + 1)};
    const bool is_first = &path == &options_.modules.front();
    if (item.module.empty() ? is_first : symbols::module_matches(module, item.module)) files.push_back(path);
  }
  return files.empty() ? files_of_module(item, "") : files;
}

// Null: it has no debug information, or is no ELF file.
DebugFile* Reader::file(const std::string& path) {
  reading_->of(path);
  const auto [entry, is_new] = files_.try_emplace(path);
  if (is_new) try {
      entry->second = DebugFile::open(path, options_.directories);
    } catch (const std::runtime_error&) {  // no ELF file: who looks the target up says so
    }
  return entry->second.get();
}

// Where debug information says that an item is.
debuginfo::Found Reader::find(const Item& item, DebugFile& file) {
  const bool is_all = item.kind == language::Kind::kStatement;
  if (const auto* const line = std::get_if<LineTarget>(&item.target))
    return file.lines({line->file, line->line, line->column, is_all});
  const auto& symbol = std::get<SymbolTarget>(item.target);
  const debuginfo::FunctionPattern pattern{symbol.pattern, symbol.quoted};
  return {is_all ? file.statements(pattern) : file.instances(pattern, nullptr)};
}

std::vector<debuginfo::Place> Reader::places_of(const Item& item, const std::string& path) {
  if (item.is_by_debug_information()) {
    const auto found = places_.find({static_cast<std::uint32_t>(&item - items_.data()), path});
    return found != places_.end() ? found->second : std::vector<debuginfo::Place>{};
  }
  if (item.kind != language::Kind::kEntry && item.kind != language::Kind::kCall) return {};
  if (const auto* const address = std::get_if<language::AddressTarget>(&item.target))
    return {{address->address, nullptr, true}};
  const auto* const target = std::get_if<SymbolTarget>(&item.target);
  if (target == nullptr) return {};
  std::vector<debuginfo::Place> places;
  const symbols::ElfFile elf = symbols::ElfFile::open(path);
  const auto table = symbols::FunctionTable::load({.path = path,
                                                   .name = path.substr(path.rfind('/') + 1),
                                                   .segments = elf.segments(),
                                                   .build_id = elf.build_id(),
                                                   .is_relocated = false});
  for (const symbols::Function* function : table.match(target->pattern, target->quoted))
    places.push_back({function->address + target->offset, nullptr, target->offset != 0});
  return places;
}

void Reader::read_places() {
  for (std::uint32_t number = 0; number < items_.size(); ++number) {
    const Item& item = items_[number];
    if (!item.is_by_debug_information()) continue;
    const std::vector<std::string> paths = files_of_item(item);
    debuginfo::Found found;
    debuginfo::Lack lack;
    bool has_information = false, any = false;
    for (const std::string& path : paths) {
      DebugFile* const its = file(path);
      if (its == nullptr) continue;
      has_information = true;
      debuginfo::Found here = find(item, *its);
      found.has_file |= here.has_file;
      if (found.nearest.empty()) found.nearest = std::move(here.nearest);
      if (here.places.empty()) {
        if (lack.what.empty()) lack = its->lack();
        continue;
      }
      any = true;
      rows_ += fmt::format("#statement {:x} {}", number, its->build_id());
      for (const debuginfo::Place& place : here.places) rows_ += fmt::format(" {:x}", place.address);
      rows_ += '\n';
      places_[{number, path}] = std::move(here.places);
    }
    if (any || item.exclude) continue;
    if (lack.what.empty()) {
      say_missing(item, has_information ? &found : nullptr, paths);
    } else {
      diagnostics_.push_back({item_span(item), lack.what, lack.hint, false});
    }
  }
}

// found: what is known of a line that has no code; null: nothing, there is no debug information.
void Reader::say_missing(const Item& item, const debuginfo::Found* found, const std::vector<std::string>& paths) {
  const auto fail = [&](std::string message, std::string hint) {
    diagnostics_.push_back({item_span(item), std::move(message), std::move(hint), false});
  };
  const auto* const line = std::get_if<LineTarget>(&item.target);
  const auto* const symbol = std::get_if<SymbolTarget>(&item.target);
  const std::string where = line == nullptr   ? symbol->pattern
                            : line->line == 0 ? line->file
                                              : fmt::format("{}:{}", line->file, line->line);
  const std::string file = paths.empty() ? item.module : paths.front();
  if (paths.empty()) return fail(fmt::format("no file '{}' is known", item.module), "");
  if (found == nullptr)
    return fail(fmt::format("no debug information says where {} is in {}", where, file), where_to_get_it(file));
  if (line == nullptr) {
    const bool is_glob = !symbol->quoted && language::is_glob(symbol->pattern);
    return fail(fmt::format("the debug information of {} knows no function {}'{}'", file, is_glob ? "like " : "",
                            symbol->pattern),
                "");
  }
  auto [message, hint] = missing_line(*line, *found, file);
  fail(std::move(message), std::move(hint));
}

// A member for each name that a place has, as the first one has it.
class Members {
 public:
  void add(const Parameter& parameter) {
    const auto is_it = [&](const auto& member) { return member.first == parameter.name; };
    if (std::none_of(all_.begin(), all_.end(), is_it)) all_.emplace_back(parameter.name, parameter.type);
  }
  std::string text(const std::string& name) const {
    std::string text = name + " {";
    for (const auto& [member, declaration] : all_) text += fmt::format(" {};", declaration);
    return text + " };\n";
  }
  // Where they are at one place.
  std::string places(const std::vector<Parameter>& here) const {
    std::string text;
    for (const auto& [name, declaration] : all_) {
      program::ArgumentPlace where{{}, fmt::format("there is no {} here", name)};
      for (const Parameter& parameter : here) {
        if (parameter.name != name) continue;
        where = parameter.where;
        if (parameter.type != declaration)
          where.problem = fmt::format("{} is of another type here: {}", name, parameter.spelling);
        if (parameter.type == declaration && !where.problem.empty())
          where.problem = fmt::format("{} cannot be read: {}", name, where.problem);
      }
      text += ' ' + program::text_of(where);
    }
    return text;
  }

 private:
  std::vector<std::pair<std::string, std::string>> all_;  // names and declarations
};

void Reader::read_arguments(std::uint32_t probe, const std::set<std::string>& names) {
  struct Here {
    std::string build_id;
    std::uint64_t address;
    std::vector<Parameter> named, parameters;
  };
  std::vector<Here> all;
  Members named, parameters;
  for (const Item& item : items_) {
    if (item.probe != probe || item.exclude || item.kind == language::Kind::kMark) continue;
    for (const std::string& path : files_of_item(item)) {
      DebugFile* const its = file(path);
      if (its == nullptr) continue;
      for (const debuginfo::Place& place : places_of(item, path)) {
        if (const debuginfo::Lack& lack = its->lack(); !lack.what.empty()) {
          diagnostics_.push_back({item_span(item), lack.what, lack.hint, false});
          return;
        }
        auto known = its->parameters(place, &types_);
        if (!known) continue;
        Here here{its->build_id(), place.address, {}, std::move(*known)};
        for (const std::string& name : names) {
          if (auto variable = its->variable(place, name, types_)) here.named.push_back(std::move(*variable));
        }
        for (const Parameter& variable : here.named) named.add(variable);
        for (const Parameter& parameter : here.parameters) parameters.add(parameter);
        all.push_back(std::move(here));
      }
    }
  }
  if (all.empty()) return;
  structs_ += named.text(program::variables_name(probe)) + parameters.text(program::arguments_name(probe));
  for (const Here& here : all) {
    rows_ += fmt::format("#place {:x} {} {:x}{}{}\n", probe, here.build_id, here.address, named.places(here.named),
                         parameters.places(here.parameters));
  }
}

// The symbols of the one file that a probe's attach points are in.
void Reader::read_symbols(std::uint32_t probe, const std::set<std::string>& names) {
  std::set<std::string> files;
  std::string module;  // that no file is known of
  for (const Item& item : items_) {
    if (item.probe != probe || item.exclude) continue;
    const std::vector<std::string> its = files_of_item(item);
    for (const std::string& path : its) files.insert(symbols::real_path(path));
    if (its.empty()) module = item.module;
  }
  for (const std::string& name : names) {
    symbols::SymbolAddress found;
    if (files.empty()) {
      found.problem = fmt::format("no file '{}' is known", module);
    } else if (files.size() > 1) {
      found.problem = fmt::format("uaddr() takes the symbols of one file, and this probe is in {}", files.size());
      found.hint = fmt::format("give {} and the others blocks of their own", *files.begin());
    } else {
      found = symbols::address_of_symbol(*files.begin(), name);
    }
    rows_ += fmt::format("#symbol {:x} {} {:x} {:x} {}\t{}\t{}\n", probe, found.build_id.empty() ? "-" : found.build_id,
                         found.address, found.bytes, name, found.problem, found.hint);
  }
}

std::string Reader::read() {
  reading_.emplace();
  read_places();
  for (const auto& [probe, names] : wishes_.probes) read_arguments(probe, names);
  for (const auto& [probe, names] : wishes_.symbols) read_symbols(probe, names);
  for (const std::string& type : wishes_.types) {
    bool found = false;
    for (const Item& item : items_) {
      for (const std::string& path : files_of_item(item)) {
        DebugFile* const its = found ? nullptr : file(path);
        found |= its != nullptr && its->add_type(type, types_);
      }
    }
  }
  std::string text = types_.take() + structs_ + rows_;
  reading_.reset();
  return text;
}

}  // namespace

std::size_t inlined_instances(const std::string& path, const debuginfo::FunctionPattern& pattern,
                              const std::vector<std::string>& directories) {
  std::size_t count = 0;
  const Reading reading(path);
  try {
    if (const auto file = DebugFile::open(path, directories)) file->instances(pattern, &count);
  } catch (const std::runtime_error&) {  // no ELF file
  }
  return count;
}

std::pair<std::string, std::string> missing_line(const LineTarget& line, const debuginfo::Found& found,
                                                 const std::string& file) {
  if (!found.has_file) return {fmt::format("no source file '{}' is part of {}", line.file, file), ""};
  std::string near;
  for (const std::uint32_t other : found.nearest) near += fmt::format("{}{}", near.empty() ? "" : " and ", other);
  return {fmt::format("there is no code at {}:{}", line.file, line.line),
          near.empty() ? "" : fmt::format("lines with code: {}", near)};
}

std::string inlined_text(std::size_t instances) {
  if (instances == 0) return "";
  return fmt::format(": it is inlined only ({} instance{})", instances, instances == 1 ? "" : "s");
}

std::string with_debug_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                             const DebugOptions& options, std::vector<program::Diagnostic>& diagnostics) {
  language::Program tree;
  auto parsed = language::parse(text, language::kMaxItems, &tree, parameters);
  const auto* const items = std::get_if<std::vector<Item>>(&parsed);
  if (items == nullptr) return text;  // who checks it says what is wrong
  Reader reader(tree, *items, options, diagnostics);
  if (!reader.has_wishes()) return text;
  const std::string prefix = reader.read();
  if (!diagnostics.empty() || prefix.empty()) return text;
  return program::with_prefix("debug information", prefix, name, std::move(text));
}

}  // namespace ubp::command
