// Resolving a specification against the loaded modules. Load time only.
#include "runtime/probes/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <stdexcept>

namespace ubp::probes {
namespace {

using symbols::Function;
using symbols::FunctionTable;
using symbols::Module;

bool is_glob_target(const spec::Item& item) {
  const auto* symbol = std::get_if<spec::SymbolTarget>(&item.target);
  return symbol != nullptr && spec::is_glob(symbol->pattern);
}

std::string code_of(const Module& module, std::uint64_t address) { return fmt::format("{}:0x{:x}", module.name, address); }

// The bytes of a function, as far as they are mapped.
std::span<const std::uint8_t> code_from(const Module& module, std::uint64_t address, std::uint64_t end) {
  const symbols::Segment* segment = module.segment_at(address);
  const std::uint8_t* bytes = module.bytes_at(address);
  if (segment == nullptr || bytes == nullptr || !segment->executable) return {};
  const std::uint64_t limit = std::min(end, segment->address + segment->size);
  return {bytes, limit > address ? limit - address : 0};
}

}  // namespace

Plan::Plan(std::vector<spec::Item> items) : items_(std::move(items)), modules_(symbols::loaded_modules()) {}

const FunctionTable& Plan::table_of(std::uint32_t module) {
  auto found = tables_.find(module);
  if (found == tables_.end()) found = tables_.emplace(module, FunctionTable::load(modules_[module])).first;
  return found->second;
}

std::vector<std::uint32_t> Plan::modules_matching(const spec::Item& item) const {
  std::vector<std::uint32_t> matching;
  const bool by_glob = spec::is_glob(item.module);
  for (std::uint32_t index = 0; index < modules_.size(); ++index) {
    const Module& module = modules_[index];
    const bool wanted = item.module.empty() ? module.is_executable : symbols::module_matches(module, item.module);
    // A glob means the application's modules: the runtime and the vDSO only when named.
    if (wanted && !(by_glob && (module.is_runtime || module.is_vdso))) matching.push_back(index);
  }
  return matching;
}

Mistake Plan::unknown_module(const spec::Item& item) const {
  std::string names;
  for (const Module& module : modules_) {
    if (!module.is_runtime) names += (names.empty() ? "" : ", ") + module.name;
  }
  return {item.position, fmt::format("no module '{}' is loaded", item.module), fmt::format("loaded: {}", names)};
}

Mistake Plan::unknown_symbol(const spec::Item& item, const std::vector<std::uint32_t>& modules) {
  const auto& target = std::get<spec::SymbolTarget>(item.target);
  const Module& module = modules_[modules.front()];
  const FunctionTable& table = table_of(modules.front());
  const std::string where = item.module.empty() ? module.path : module.name;
  Mistake mistake{item.target_position, "", ""};
  if (table.other(target.pattern) == FunctionTable::Other::kData) {
    mistake.message = fmt::format("'{}' in {} is a data symbol, not a function", target.pattern, where);
    return mistake;
  }
  if (table.other(target.pattern) == FunctionTable::Other::kUndefined) {
    std::string definer;
    for (std::uint32_t index = 0; index < modules_.size() && definer.empty(); ++index) {
      if (modules_[index].is_runtime || modules_[index].is_vdso || index == modules.front()) continue;
      if (!table_of(index).match(target.pattern, true).empty()) definer = modules_[index].name;
    }
    mistake.message = fmt::format("'{}' is undefined in {}", target.pattern, where);
    if (!definer.empty()) {
      mistake.message += fmt::format(", defined in {}", definer);
      mistake.hint = fmt::format("did you mean '{}:{}'?", definer, target.pattern);
    }
    return mistake;
  }
  mistake.message = fmt::format("no function '{}' in {} ({} functions, {})", target.pattern, where,
                                table.functions().size(), table.sources());
  if (modules.size() > 1) mistake.message += fmt::format(" nor in {} more modules", modules.size() - 1);
  std::string near;
  for (const std::string& name : table.nearest(target.pattern)) near += fmt::format("{}'{}'", near.empty() ? "" : ", ", name);
  if (!near.empty()) mistake.hint = fmt::format("did you mean {}?", near);
  return mistake;
}

// Nothing when an instruction starts at the probe's address; else the refusal.
std::optional<std::string> Plan::boundary_problem(const Probe& probe) const {
  const Module& module = modules_[probe.module];
  if (module.is_runtime) return reason_text(Reason::kRuntime, decoder::Refusal::kNone, "");
  if (module.is_vdso) return reason_text(Reason::kVdso, decoder::Refusal::kNone, "");
  if (probe.function == nullptr) return reason_text(Reason::kUnverified, decoder::Refusal::kNone, "no function there");
  if (probe.offset == 0) return std::nullopt;
  const auto code = code_from(module, probe.function->address, probe.function->end);
  const auto boundary = probe.offset < code.size() ? decoder::find_boundary(code, probe.offset) : std::nullopt;
  if (!boundary) {
    return reason_text(Reason::kUnverified, decoder::Refusal::kNone,
                       fmt::format("data or unknown bytes between {} and it", probe.function->name));
  }
  if (boundary->is_boundary) return std::nullopt;
  return reason_text(Reason::kMidInstruction, decoder::Refusal::kNone,
                     fmt::format("nearest boundaries: {0}+0x{1:x} and {0}+0x{2:x}", probe.function->name,
                                 boundary->before, boundary->after));
}

std::optional<Mistake> Plan::add_symbol(std::uint32_t item_index, const std::vector<std::uint32_t>& modules,
                                        std::vector<Probe>& found) {
  const spec::Item& item = items_[item_index];
  const auto& target = std::get<spec::SymbolTarget>(item.target);
  bool any = false;
  for (const std::uint32_t module : modules) {
    for (const Function* function : table_of(module).match(target.pattern, target.quoted)) {
      any = true;
      if (target.offset >= function->end - function->address) {
        if (is_glob_target(item)) continue;  // f*+0x40: the functions that are that long
        return Mistake{item.target_position,
                       fmt::format("offset 0x{:x} lies outside '{}', which has {} bytes", target.offset,
                                   function->name, function->end - function->address),
                       ""};
      }
      found.push_back({item_index, module, 0, static_cast<std::uint32_t>(target.offset), function,
                       function->address + target.offset});
    }
  }
  if (any || item.exclude) return std::nullopt;
  return unknown_symbol(item, modules);
}

std::optional<Mistake> Plan::add_address(std::uint32_t item_index, const std::vector<std::uint32_t>& modules,
                                         std::vector<Probe>& found) {
  const spec::Item& item = items_[item_index];
  const std::uint64_t address = std::get<spec::AddressTarget>(item.target).address;
  for (const std::uint32_t module : modules) {
    const symbols::Segment* segment = modules_[module].segment_at(address);
    if (segment == nullptr || !segment->executable) {
      if (item.exclude) continue;
      return Mistake{item.target_position,
                     fmt::format("address 0x{:x} lies outside the text of {}", address, modules_[module].name),
                     "addresses are ELF virtual addresses, as nm and objdump print them"};
    }
    const Function* function = table_of(module).containing(address);
    const auto offset = function != nullptr ? static_cast<std::uint32_t>(address - function->address) : 0;
    found.push_back({item_index, module, 0, offset, function, address});
  }
  return std::nullopt;
}

std::optional<Mistake> Plan::add_item(std::uint32_t item_index) {
  const spec::Item& item = items_[item_index];
  const std::vector<std::uint32_t> modules = modules_matching(item);
  if (modules.empty()) return item.exclude ? std::nullopt : std::optional(unknown_module(item));
  std::vector<Probe> found;
  try {
    const auto mistake = std::holds_alternative<spec::SymbolTarget>(item.target)
                             ? add_symbol(item_index, modules, found)
                             : add_address(item_index, modules, found);
    if (mistake) return mistake;
  } catch (const std::runtime_error& error) {  // an unreadable file
    return Mistake{item.position, error.what(), ""};
  }
  if (item.exclude) {
    std::set<std::pair<std::uint32_t, std::uint64_t>> out;
    for (const Probe& probe : found) out.insert({probe.module, probe.address});
    std::erase_if(probes_, [&](const Probe& probe) { return out.contains({probe.module, probe.address}); });
    std::erase_if(refused_, [&](const Refused& r) { return out.contains({r.probe.module, r.probe.address}); });
    return std::nullopt;
  }
  std::optional<Mistake> mistake;
  for (const Probe& probe : found) {
    const auto problem = boundary_problem(probe);
    if (!problem) {
      probes_.push_back(probe);
      continue;
    }
    refused_.push_back({probe, *problem});
    if (!is_glob_target(item) && !mistake) {
      mistake = Mistake{item.target_position,
                        fmt::format("cannot probe {}: {}", code_of(modules_[probe.module], probe.address), *problem), ""};
    }
  }
  return mistake;
}

std::vector<Mistake> Plan::resolve() {
  std::vector<Mistake> mistakes;
  for (std::uint32_t item = 0; item < items_.size(); ++item) {
    if (auto mistake = add_item(item)) mistakes.push_back(std::move(*mistake));
  }
  return mistakes;
}

void Plan::set_points(std::vector<Probe> probes, std::vector<xol::Displaced> points) {
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.address < b.address; });
  points.erase(std::unique(points.begin(), points.end(), [](const auto& a, const auto& b) { return a.address == b.address; }),
               points.end());
  point_modules_.assign(points.size(), 0);
  for (Probe& probe : probes) {
    const std::uint64_t address = probe.address + modules_[probe.module].bias;
    const auto at = std::lower_bound(points.begin(), points.end(), address,
                                     [](const xol::Displaced& point, std::uint64_t value) { return point.address < value; });
    probe.point = static_cast<std::uint32_t>(at - points.begin());
    point_modules_[probe.point] = probe.module;
  }
  probes_ = std::move(probes);
  points_ = std::move(points);
}

void Plan::classify() {
  std::vector<Probe> kept;
  std::vector<xol::Displaced> points;
  for (const Probe& probe : probes_) {
    const Module& module = modules_[probe.module];
    const auto code = code_from(module, probe.address, ~std::uint64_t{0});
    const decoder::Instruction instruction = decoder::classify(code.first(std::min<std::size_t>(code.size(), 15)));
    if (instruction.route == decoder::Route::kRefused) {
      refused_.push_back({probe, reason_text(Reason::kInstruction, instruction.refusal, "")});
      continue;
    }
    xol::Displaced point;
    point.address = probe.address + module.bias;
    point.length = instruction.length;
    point.route = instruction.route;
    point.rip_disp_offset = instruction.rip_disp_offset;
    point.first_byte = code[0];
    if (instruction.route == decoder::Route::kEmulate) {
      point.op = instruction.op;
    } else {
      std::copy_n(code.begin(), instruction.length, point.bytes);
    }
    kept.push_back(probe);
    points.push_back(point);
  }
  set_points(std::move(kept), std::move(points));
}

std::string Plan::symbol_of(const Probe& probe) const {
  if (probe.function == nullptr) return fmt::format("0x{:x}", probe.address);
  return probe.offset == 0 ? probe.function->name : fmt::format("{}+0x{:x}", probe.function->name, probe.offset);
}

}  // namespace ubp::probes
