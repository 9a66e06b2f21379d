// See targets.h.
#include "runtime/command/targets.h"

#include <fmt/format.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "runtime/command/debug_types.h"
#include "runtime/command/files.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/marks.h"
#include "runtime/symbols/symbols.h"

namespace ubp::command {
namespace {

using language::AddressTarget;
using language::Item;
using language::MarkTarget;
using language::SymbolTarget;
using symbols::ElfFile;
using symbols::FunctionTable;

// An ELF file as the process that has it loaded will see it.
struct File {
  explicit File(const std::string& path)
      : file(ElfFile::open(path)),
        segments(file.segments()),
        table(FunctionTable::load({.path = path,
                                   .name = path.substr(path.rfind('/') + 1),
                                   .segments = segments,
                                   .build_id = file.build_id(),
                                   .is_relocated = false})) {}

  // An IFUNC's implementation is known in the process alone.
  bool has_ifunc(const SymbolTarget& target) const {
    const std::string_view wanted = symbols::VersionedName(target.pattern).name;
    for (const std::uint32_t kind : {SHT_DYNSYM, SHT_SYMTAB}) {
      const auto found = file.symbols(kind);
      if (!found) continue;
      for (const symbols::Symbol& symbol : *found) {
        if (ELF64_ST_TYPE(symbol.entry.st_info) == STT_GNU_IFUNC && symbol.entry.st_shndx != SHN_UNDEF &&
            language::glob_match(wanted, symbols::VersionedName(symbol.name).name))
          return true;
      }
    }
    return false;
  }
  bool has_text(std::uint64_t address) const {
    for (const symbols::Segment& segment : segments) {
      if (segment.executable && address >= segment.address && address - segment.address < segment.size) return true;
    }
    return false;
  }

  ElfFile file;
  std::vector<symbols::Segment> segments;
  FunctionTable table;
};

class Checker {
 public:
  Checker(const Compiled& compiled, MissingProbes missing, bool says_warnings,
          const std::vector<std::string>& debug_directories)
      : compiled_(compiled), missing_(missing), says_warnings_(says_warnings), debug_directories_(debug_directories) {}

  bool check();

 private:
  // Whether something fits it, as far as files tell.
  bool check_item(const Item& item);
  bool check_symbol(const Item& item, const SymbolTarget& target, const std::vector<std::string>& files);
  bool check_mark(const Item& item, const MarkTarget& target, const std::vector<std::string>& files);
  bool check_address(const Item& item, const AddressTarget& target, const std::vector<std::string>& files);
  const File* file(const std::string& path);
  void fail(const Item& item, std::string message, std::string hint = {});
  void say_missing(const language::Span& span, std::string message, std::string_view so, std::string hint);

  const Compiled& compiled_;
  const MissingProbes missing_;
  const bool says_warnings_;
  const std::vector<std::string>& debug_directories_;
  bool is_good_ = true;
  std::map<std::string, std::unique_ptr<File>> files_;
};

void Checker::fail(const Item& item, std::string message, std::string hint) {
  say(compiled_, {item_span(item), std::move(message), std::move(hint), false});
  is_good_ = false;
}

// so: of a warning.
void Checker::say_missing(const language::Span& span, std::string message, std::string_view so, std::string hint) {
  const bool is_error = missing_ == MissingProbes::kError;
  if (missing_ == MissingProbes::kIgnore || (!is_error && !says_warnings_)) return;
  if (!is_error) message += so;
  say(compiled_, {span, std::move(message), std::move(hint), !is_error});
  is_good_ &= !is_error;
}

// Null: it is no ELF file that can be read.
const File* Checker::file(const std::string& path) {
  const auto [entry, is_new] = files_.try_emplace(path);
  if (is_new) try {
      entry->second = std::make_unique<File>(path);
    } catch (const std::runtime_error&) {
    }
  return entry->second.get();
}

bool Checker::check_symbol(const Item& item, const SymbolTarget& target, const std::vector<std::string>& files) {
  const bool is_glob = !target.quoted && language::is_glob(target.pattern);
  std::string near;
  for (const std::string& path : files) {
    const File* const its = file(path);
    if (its == nullptr) continue;
    const auto functions = its->table.match(target.pattern, target.quoted);
    if (!functions.empty() && !is_glob && target.offset >= functions.front()->end - functions.front()->address) {
      say_error(fmt::format("Offset outside the function bounds ('{}' size is {})", target.pattern,
                            functions.front()->end - functions.front()->address));
      is_good_ = false;
    }
    if (!functions.empty() || its->has_ifunc(target)) return true;
    if (is_glob) continue;
    for (const std::string& name : its->table.nearest(target.pattern))
      near += fmt::format("{}'{}'", near.empty() ? "" : ", ", name);
  }
  if (is_glob && missing_ == MissingProbes::kError) return false;  // said of the whole probe
  std::size_t inlined = 0;
  for (const std::string& path : is_glob ? std::vector<std::string>{} : files)
    inlined += inlined_instances(path, {target.pattern, target.quoted}, debug_directories_);
  std::string hint = near.empty() ? "" : fmt::format("did you mean {}?", near);
  if (inlined != 0) hint = fmt::format("use inline:{}:{}", item.module, target.pattern);
  say_missing(item_span(item),
              fmt::format("No matches for {} {}:{}{}.", language::kind_name(item.kind), item.module, target.pattern,
                          inlined_text(inlined)),
              " Skipping.", std::move(hint));
  return false;
}

bool Checker::check_mark(const Item& item, const MarkTarget& target, const std::vector<std::string>& files) {
  std::vector<std::string> near;
  for (const std::string& path : files) {
    const File* const its = file(path);
    if (its == nullptr) continue;
    const std::vector<symbols::Mark> marks = symbols::marks_in(its->file);
    for (const symbols::Mark& mark : marks) {
      if (symbols::mark_matches(mark, target.provider, target.name)) return true;
    }
    if (near.empty()) near = symbols::nearest_marks(marks, target.provider, target.name);
  }
  if (language::is_glob(target.name) && missing_ == MissingProbes::kError) return false;  // said of the whole probe
  std::string hint;
  for (const std::string& name : near) hint += fmt::format("{}'{}'", hint.empty() ? "did you mean " : ", ", name);
  say_missing(item_span(item),
              fmt::format("No matches for {} {}:{}{}{}.", language::kind_name(item.kind), item.module, target.provider,
                          target.provider.empty() ? "" : ":", target.name),
              " Skipping.", hint.empty() ? hint : hint + '?');
  return false;
}

bool Checker::check_address(const Item& item, const AddressTarget& target, const std::vector<std::string>& files) {
  for (const std::string& path : files) {
    const File* const its = file(path);
    if (its == nullptr || its->has_text(target.address)) continue;
    say_error(fmt::format("Could not resolve address: {}:0x{:x}", item.module, target.address),
              "addresses are those of the file's text, as nm and objdump print them");
    is_good_ = false;
  }
  return true;
}

bool Checker::check_item(const Item& item) {
  // Without a file's path, a module is what the process calls one.
  if (item.module.find('/') == std::string::npos) return true;
  const std::vector<std::string> files = files_of(item.module);
  bool has_elf = false;
  for (const std::string& path : files) has_elf |= file(path) != nullptr;
  if (!has_elf) {
    fail(item, fmt::format("{} target file '{}' does not exist or is not executable", language::kind_name(item.kind),
                           item.module));
    return true;
  }
  if (const auto* address = std::get_if<AddressTarget>(&item.target)) return check_address(item, *address, files);
  if (const auto* mark = std::get_if<MarkTarget>(&item.target)) return check_mark(item, *mark, files);
  if (item.is_by_debug_information()) return true;
  return check_symbol(item, std::get<SymbolTarget>(item.target), files);
}

bool Checker::check() {
  std::vector<bool> has_match(compiled_.tree.probes.size());
  bool has_any = false;
  for (std::size_t probe = 0; probe < has_match.size(); ++probe) {
    const bool is_event = compiled_.tree.probes[probe].event != language::Probe::Event::kItems;
    has_match[probe] = is_event;
    has_any |= is_event;
  }
  for (const Item& item : compiled_.items) {
    if (item.exclude) continue;
    const bool matches = check_item(item);
    if (!matches) continue;
    has_any = true;
    if (item.probe != language::kBare) has_match[item.probe] = true;
  }
  for (std::size_t probe = 0; is_good_ && probe < has_match.size(); ++probe) {
    if (has_match[probe]) continue;
    const std::string_view so = missing_ == MissingProbes::kError
                                    ? " If this is expected, set the 'missing_probes' config variable to 'warn'."
                                    : " It is being removed which may cause issues with program behavior.";
    say_missing(compiled_.tree.probes[probe].span, fmt::format("Probe has no valid attach points.{}", so), "", "");
  }
  if (is_good_ && !has_any) {
    say_error("No probes to attach");
    return false;
  }
  return is_good_;
}

}  // namespace

bool check_targets(const Compiled& compiled, MissingProbes missing, bool says_warnings,
                   const std::vector<std::string>& debug_directories) {
  return Checker(compiled, missing, says_warnings, debug_directories).check();
}

}  // namespace ubp::command
