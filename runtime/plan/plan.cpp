// Resolving a specification against the loaded modules: items, exclusions, mistakes. Load time only.
#include "runtime/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "runtime/plan/found.h"

namespace ubp::plan {
namespace {

using symbols::Function;
using symbols::FunctionTable;
using symbols::Module;

bool is_glob_target(const language::Item& item) {
  if (const auto* mark = std::get_if<language::MarkTarget>(&item.target))
    return mark->provider.empty() || language::is_glob(mark->provider) || language::is_glob(mark->name);
  if (const auto* line = std::get_if<language::LineTarget>(&item.target))
    return line->line == 0 || language::is_glob(line->file);
  const auto* symbol = std::get_if<language::SymbolTarget>(&item.target);
  return symbol != nullptr && language::is_glob(symbol->pattern);
}

// What libubp.so brings along.
bool is_runtimes_own(const Module& module) { return module.name.starts_with("libZydis.so"); }

}  // namespace

Plan::Plan(const Modules& modules, std::vector<language::Item> items, std::optional<std::uint32_t> module)
    : modules_(modules), items_(std::move(items)), only_module_(module) {
  matched_.resize(items_.size());
}

bool Plan::has_pending() const {
  return std::any_of(items_.begin(), items_.end(), [](const language::Item& item) { return item.pending; });
}

std::size_t Plan::pending() const {
  std::size_t count = 0;
  for (std::size_t item = 0; item < items_.size(); ++item) count += items_[item].pending && !matched_[item];
  return count;
}

void Plan::add_module(std::uint32_t module, std::vector<Mistake>& mistakes) {
  only_module_ = module;
  first_point_ += static_cast<std::uint32_t>(points_.size());
  points_.clear();
  exits_.clear();
  for (std::uint32_t item = 0; item < items_.size(); ++item) {
    if (!items_[item].pending && !items_[item].exclude) continue;
    if (auto mistake = add_item(item)) mistakes.push_back(std::move(*mistake));
  }
  number_points();
}

std::vector<std::uint32_t> Plan::modules_matching(const language::Item& item) const {
  std::vector<std::uint32_t> matching;
  const bool by_glob = language::is_glob(item.module);
  if (const auto* address = std::get_if<language::AddressTarget>(&item.target);
      address != nullptr && item.module.empty() && only_module_) {
    return {*only_module_};  // asked for by run-time address
  }
  for (std::uint32_t index = 0; index < modules_.all().size(); ++index) {
    if (!modules_.is_present(index) || (only_module_ && index != *only_module_)) continue;
    const Module& module = modules_.all()[index];
    const bool wanted = item.module.empty() ? module.is_executable : symbols::module_matches(module, item.module);
    // A glob means the application's modules: the runtime, its decoder and the vDSO only when named.
    const bool is_application = !module.is_runtime && !module.is_vdso && !is_runtimes_own(module);
    if (wanted && (is_application || !by_glob)) matching.push_back(index);
  }
  return matching;
}

Mistake Plan::unknown_module(const language::Item& item) const {
  std::string names;
  for (std::uint32_t index = 0; index < modules_.all().size(); ++index) {
    const Module& module = modules_.all()[index];
    if (modules_.is_present(index) && !module.is_runtime && !module.is_vdso && !is_runtimes_own(module))
      names += (names.empty() ? "" : ", ") + module.name;
  }
  std::string message = fmt::format("no module '{}' is loaded", item.module);
  if (modules_.left_out() != 0)
    message +=
        fmt::format(", or it is one of the {} beyond the {} that UBP can know", modules_.left_out(), kMaxModules);
  const auto* symbol = std::get_if<language::SymbolTarget>(&item.target);
  constexpr std::string_view kMerged[] = {"libpthread", "libdl", "librt", "libutil", "libanl"};
  const bool was_merged = std::any_of(std::begin(kMerged), std::end(kMerged), [&](std::string_view name) {
    return item.module.starts_with(name) &&
           (item.module.size() == name.size() || item.module[name.size()] == '.' || item.module[name.size()] == '*');
  });
  if (was_merged && symbol != nullptr) {
    return {item.position, message, fmt::format("it is part of libc.so.6 since glibc 2.34: 'libc:{}'", symbol->pattern),
            std::nullopt, true};
  }
  return {item.position, message, fmt::format("loaded: {}", names), std::nullopt, true};
}

// A symbol that names a module, or one with it before "::", most likely means module:symbol.
std::string Plan::meant_module(const language::Item& item) const {
  const std::string& pattern = std::get<language::SymbolTarget>(item.target).pattern;
  const std::size_t colons = item.module.empty() ? pattern.find("::") : std::string::npos;
  const std::string name = pattern.substr(0, colons),
                    rest = colons != std::string::npos ? pattern.substr(colons + 2) : "";
  if (!item.module.empty() || language::is_glob(name)) return {};
  for (std::uint32_t index = 0; index < modules_.all().size(); ++index) {
    const Module& module = modules_.all()[index];
    if (module.is_runtime || module.is_vdso || !modules_.is_present(index) || !symbols::module_matches(module, name))
      continue;
    if (rest.empty())
      return fmt::format("{} is a module: '{}:FUNCTION', or '{}:*' for all of it", module.name, name, name);
    if (!modules_.table_of(index).match(rest, false).empty()) return fmt::format("did you mean '{}:{}'?", name, rest);
  }
  return {};
}

Mistake Plan::unknown_symbol(const language::Item& item, const std::vector<std::uint32_t>& modules) const {
  const auto& target = std::get<language::SymbolTarget>(item.target);
  const Module& module = modules_.all()[modules.front()];
  const FunctionTable& table = modules_.table_of(modules.front());
  const std::string where = item.module.empty() ? module.path : module.name;
  Mistake mistake{item.target_position, "", ""};
  const symbols::VersionedName wanted(target.pattern);
  if (!wanted.version.empty() && !language::is_glob(wanted.name)) {
    for (const Function* function : table.match(wanted.name, target.quoted)) {
      mistake.hint +=
          fmt::format("{}'{}{}'", mistake.hint.empty() ? "there is " : ", ", wanted.name, table.version_of(*function));
    }
    if (!mistake.hint.empty()) {
      const std::string_view kind = wanted.is_default ? "default version" : "version";
      mistake.message = fmt::format("'{}' in {} has no {} '{}'", wanted.name, where, kind, wanted.version);
      return mistake;
    }
  }
  switch (table.other(wanted.name)) {
    case FunctionTable::Other::kData:
      mistake.message = fmt::format("'{}' in {} is a data symbol, not a function", target.pattern, where);
      return mistake;
    case FunctionTable::Other::kElsewhere:
      mistake.message = fmt::format("'{}' in {} is implemented in another module (the vDSO?)", target.pattern, where);
      return mistake;
    case FunctionTable::Other::kUndefined: {
      std::string definer;
      for (std::uint32_t index = 0; index < modules_.all().size() && definer.empty(); ++index) {
        if (modules_.all()[index].is_runtime || modules_.all()[index].is_vdso || index == modules.front()) continue;
        if (!modules_.table_of(index).match(target.pattern, true).empty()) definer = modules_.all()[index].name;
      }
      mistake.message = fmt::format("'{}' is undefined in {}", target.pattern, where);
      if (!definer.empty()) {
        mistake.message += fmt::format(", defined in {}", definer);
        mistake.hint = fmt::format("did you mean '{}:{}'?", definer, target.pattern);
      }
      return mistake;
    }
    case FunctionTable::Other::kAbsent: break;
  }
  mistake.message = fmt::format("no function '{}' in {} ({} functions, {})", target.pattern, where,
                                table.functions().size(), table.sources());
  if (modules.size() > 1) mistake.message += fmt::format(" nor in {} more modules", modules.size() - 1);
  std::string near;
  for (const std::string& name : table.nearest(wanted.name))
    near += fmt::format("{}'{}'", near.empty() ? "" : ", ", name);
  if (!near.empty()) mistake.hint = fmt::format("did you mean {}?", near);
  if (std::string meant = meant_module(item); !meant.empty()) mistake.hint = std::move(meant);
  return mistake;
}

std::optional<Mistake> Plan::find_symbol(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                         Found& found) {
  const auto& target = std::get<language::SymbolTarget>(item.target);
  bool any = false;
  for (const std::uint32_t module : modules) {
    std::vector<const Function*> functions = modules_.table_of(module).match(target.pattern, target.quoted);
    // Linked into the executable, the runtime is no part of the application: only a name that nothing else has means
    // it.
    const auto is_own = [&](const Function* function) {
      return modules_.is_own_text(function->address + modules_.all()[module].bias);
    };
    if (is_glob_target(item) || !std::all_of(functions.begin(), functions.end(), is_own))
      std::erase_if(functions, is_own);
    any |= !functions.empty();
    if (item.kind == language::Kind::kInsn) {
      add_functions(module, functions, 0, ~std::uint64_t{0}, found);
      continue;
    }
    for (const Function* function : functions) {
      if (target.offset < function->end - function->address) {
        add_one(module, function, function->address + target.offset, found);
      } else if (!is_glob_target(item)) {  // f*+0x40: the functions that are that long
        return Mistake{item.target_position,
                       fmt::format("offset 0x{:x} lies outside '{}', which has {} bytes", target.offset,
                                   function->name(), function->end - function->address),
                       ""};
      }
    }
  }
  if (any || item.exclude || (item.pending && only_module_)) return std::nullopt;
  return wait_or_fail(item, unknown_symbol(item, modules));
}

// Nothing was found: the item waits for other modules, if it may.
std::optional<Mistake> Plan::wait_or_fail(const language::Item& item, Mistake mistake) {
  if (!item.pending) return mistake;
  mistake.message += item.module.empty() ? "; without a module the executable is meant, and no other comes"
                                         : "; it waits for another module of that name";
  waiting_.push_back(std::move(mistake));
  return std::nullopt;
}

std::optional<Mistake> Plan::find_address(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                          Found& found) {
  const auto& target = std::get<language::AddressTarget>(item.target);
  for (const std::uint32_t module : modules) {
    const symbols::Segment* segment = modules_.all()[module].segment_at(target.address);
    const bool inside = segment != nullptr && segment->executable && target.end - segment->address <= segment->size;
    if (!inside) {
      if (item.exclude) continue;
      return Mistake{
          item.target_position,
          fmt::format("address 0x{:x} lies outside the text of {}", target.address, modules_.all()[module].name),
          "addresses are ELF virtual addresses, as nm and objdump print them"};
    }
    const FunctionTable& table = modules_.table_of(module);
    if (item.kind != language::Kind::kInsn || target.end == target.address + 1) {
      add_one(module, table.containing(target.address), target.address, found);
      continue;
    }
    std::vector<const Function*> functions;
    std::uint64_t covered = target.address;  // up to here functions are known
    for (const Function& function : table.functions()) {
      if (function.end <= target.address || function.address >= target.end) continue;
      if (!functions.empty() && functions.back()->address == function.address) continue;  // an alias
      if (function.address > covered) {
        refuse(module, nullptr, covered,
               reason_text(Reason::kUnverified, decoder::Refusal::kNone,
                           fmt::format("{} bytes", function.address - covered)),
               found);
      }
      functions.push_back(&function);
      covered = std::max(covered, function.end);
    }
    if (covered < target.end) {
      refuse(module, nullptr, covered,
             reason_text(Reason::kUnverified, decoder::Refusal::kNone, fmt::format("{} bytes", target.end - covered)),
             found);
    }
    add_functions(module, functions, target.address, target.end, found);
  }
  return std::nullopt;
}

void Plan::exclude(const Found& found) {
  std::vector<std::uint64_t> out;
  for (const Candidate& candidate : found.candidates) out.push_back(candidate.point.address);
  std::sort(out.begin(), out.end());
  std::erase_if(candidates_,
                [&](const Candidate& c) { return std::binary_search(out.begin(), out.end(), c.point.address); });
  std::erase_if(refused_, [&](const Refused& refused) {
    return std::binary_search(out.begin(), out.end(), refused.address + modules_.all()[refused.module].bias);
  });
}

// "type:.eq.T" may be a function of the executable's, where no module is called "type".
language::Item Plan::as_named(const language::Item& item) const {
  language::Item named = item;
  const auto* symbol = std::get_if<language::SymbolTarget>(&item.target);
  if (symbol == nullptr || item.module.empty() || only_module_ || item.is_by_debug_information() ||
      !modules_matching(item).empty())
    return named;
  language::SymbolTarget whole = *symbol;
  whole.pattern = item.module + ":" + symbol->pattern;
  named.module.clear();
  named.target = whole;
  try {
    const std::vector<std::uint32_t> executable = modules_matching(named);
    const bool has_it =
        !executable.empty() && !modules_.table_of(executable.front()).match(whole.pattern, whole.quoted).empty();
    return has_it ? named : item;
  } catch (const std::runtime_error&) {  // an unreadable file
    return item;
  }
}

std::optional<Mistake> Plan::add_item(std::uint32_t item_index) {
  const language::Item item = as_named(items_[item_index]);
  const std::vector<std::uint32_t> modules = modules_matching(item);
  if (modules.empty()) {
    items_[item_index].pending |= item.awaited;
    return item.exclude || items_[item_index].pending ? std::nullopt : std::optional(unknown_module(item));
  }
  Found found;
  found.item = item_index;
  found.excludes = item.exclude;
  try {
    std::optional<Mistake> mistake;
    if (item.is_by_debug_information()) {
      mistake = find_places(item, modules, found);
    } else if (std::holds_alternative<language::SymbolTarget>(item.target)) {
      mistake = find_symbol(item, modules, found);
    } else if (std::holds_alternative<language::AddressTarget>(item.target)) {
      mistake = find_address(item, modules, found);
    } else {
      mistake = find_mark(item, modules, found);
    }
    if (mistake) return mistake;
  } catch (const std::runtime_error& error) {  // an unreadable file
    return Mistake{item.position, error.what(), ""};
  }
  if (item.exclude) {
    exclude(found);
    return std::nullopt;
  }
  std::optional<Mistake> mistake;
  // An address the user named must be an instruction. One that cannot be probed, or that a glob or insn: came upon, is
  // refused, and the others are armed.
  const bool is_one = item.kind == language::Kind::kEntry || language::is_of_returns(item.kind);
  const bool named = is_one && !is_glob_target(item);
  for (Refused& refused : found.refused) refused.named = named;
  if (named && !found.refused.empty() && found.refused.front().misplaced) {
    const Refused& first = found.refused.front();
    mistake = Mistake{
        item.target_position,
        fmt::format("cannot probe {}:0x{:x}: {}", modules_.all()[first.module].name, first.address, first.reason), "",
        first};
  }
  if (!found.candidates.empty() || !found.refused.empty()) matched_[item_index] = true;
  candidates_.insert(candidates_.end(), found.candidates.begin(), found.candidates.end());
  refused_.insert(refused_.end(), std::make_move_iterator(found.refused.begin()),
                  std::make_move_iterator(found.refused.end()));
  return mistake;
}

// Candidates -> probes and points, sorted by address; one probe an item and address.
void Plan::number_points() {
  const auto before = [](const Candidate& a, const Candidate& b) {
    if (a.point.address != b.point.address) return a.point.address < b.point.address;
    return a.probe.item < b.probe.item;
  };
  if (!std::is_sorted(candidates_.begin(), candidates_.end(), before)) {
    std::stable_sort(candidates_.begin(), candidates_.end(), before);
  }
  const auto same = [](const Candidate& a, const Candidate& b) {
    return a.point.address == b.point.address && a.probe.item == b.probe.item;
  };
  candidates_.erase(std::unique(candidates_.begin(), candidates_.end(), same), candidates_.end());
  find_exits();
  probes_.reserve(probes_.size() + candidates_.size());
  struct Other {
    const xol::Displaced* point;
    std::uint32_t* number;
  };
  std::vector<Other> others;
  for (Exit& exit : exits_) {
    others.push_back({&exit.point, &exit.number});
    if (exit.approach) others.push_back({&*exit.approach, &exit.approach_number});
  }
  std::sort(others.begin(), others.end(),
            [](const Other& a, const Other& b) { return a.point->address < b.point->address; });
  std::size_t distinct = others.size();
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    distinct += i == 0 || candidates_[i].point.address != candidates_[i - 1].point.address;
  }
  points_.reserve(distinct);
  const auto number_of = [&](const xol::Displaced& point) {
    if (points_.empty() || points_.back().address != point.address) points_.push_back(point);
    return first_point_ + static_cast<std::uint32_t>(points_.size() - 1);
  };
  auto other = others.begin();
  for (Candidate& candidate : candidates_) {
    for (; other != others.end() && other->point->address < candidate.point.address; ++other)
      *other->number = number_of(*other->point);
    candidate.probe.point = number_of(candidate.point);
    probes_.push_back(candidate.probe);
  }
  for (; other != others.end(); ++other) *other->number = number_of(*other->point);
  std::vector<Candidate>().swap(candidates_);
}

std::string symbol_of(const Modules& modules, const Probe& probe) {
  const FunctionTable& table = modules.table_of(probe.module);
  const Function& function = table.functions()[probe.function];
  const std::string name =
      symbols::demangle(function.name()) + (table.needs_version(function) ? table.version_of(function) : "");
  return probe.offset == 0 ? name : fmt::format("{}+0x{:x}", name, probe.offset);
}

std::uint64_t address_of(const Modules& modules, const Probe& probe) {
  return modules.table_of(probe.module).functions()[probe.function].address + probe.offset;
}

std::string place_of(const Modules& modules, const Refused& refused) {
  const std::string& module = modules.all()[refused.module].name;
  return refused.symbol.empty() ? fmt::format("{}:0x{:x}", module, refused.address)
                                : fmt::format("{}:{}", module, refused.symbol);
}

}  // namespace ubp::plan
