// Plans: from functions and addresses to instructions. `insn:` items walk whole functions. Load time only.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "runtime/plan/found.h"

namespace ubp::plan {

using symbols::Function;
using symbols::Module;

// Nothing when the module's code may be probed at all.
std::optional<std::string> Plan::module_problem(std::uint32_t module) const {
  const Module& its = modules_.all()[module];
  if (its.is_runtime) return reason_text(Reason::kRuntime, decoder::Refusal::kNone, "");
  if (its.has_text_relocations && !its.is_relocated)
    return reason_text(Reason::kTextRelocations, decoder::Refusal::kNone, "");
  if (its.is_vdso) return reason_text(Reason::kVdso, decoder::Refusal::kNone, "");
  return std::nullopt;
}

// Nothing when an instruction starts at the address; else the refusal.
std::optional<std::string> Plan::boundary_problem(std::uint32_t module, const Function* function, std::uint64_t address,
                                                  Found& found) const {
  if (function == nullptr) return reason_text(Reason::kUnverified, decoder::Refusal::kNone, "no function there");
  const auto offset = static_cast<std::uint32_t>(address - function->address);
  if (offset == 0) return std::nullopt;
  const auto code = modules_.code_from(module, function->address, function->end, found.readable);
  const std::uint32_t from = found.swept == function && found.swept_to <= offset ? found.swept_to : 0;
  const auto boundary = offset < code.size() ? decoder::find_boundary(code, offset, from) : std::nullopt;
  found.swept = function;
  found.swept_to = boundary ? boundary->before : 0;
  if (!boundary) {
    return reason_text(Reason::kUnverified, decoder::Refusal::kNone,
                       fmt::format("data or unknown bytes between {} and it", function->name()));
  }
  if (boundary->is_boundary) return std::nullopt;
  return reason_text(Reason::kMidInstruction, decoder::Refusal::kNone,
                     fmt::format("nearest boundaries: {0}+0x{1:x} and {0}+0x{2:x}", function->name(), boundary->before,
                                 boundary->after));
}

void Plan::refuse(std::uint32_t module, const Function* function, std::uint64_t address, std::string reason,
                  Found& found, bool misplaced) const {
  if (found.excludes) return;
  std::string symbol;
  if (function != nullptr) {
    symbol = function->name();
    if (address != function->address) symbol += fmt::format("+0x{:x}", address - function->address);
  }
  found.refused.push_back({found.item, module, address, std::move(symbol), std::move(reason), misplaced});
}

// Whether an instruction is one that calls of the function begin with. Where only the call frame information knows of
// it, that may be a part that another function jumps to; so is one that the compiler names so.
bool Plan::is_called(const Function& function, std::uint32_t offset, const Found& found) const {
  return offset == 0 && items_[found.item].kind == language::Kind::kEntry && function.has_symbol() &&
         function.symbol().find(".cold") == std::string_view::npos;
}

void Plan::add_decoded(std::uint32_t module, const Function& function, const decoder::Decoded& decoded,
                       const std::uint8_t* bytes, Found& found) const {
  const std::uint64_t address = function.address + decoded.offset;
  if (decoded.instruction.route == decoder::Route::kRefused) {
    refuse(module, &function, address, reason_text(Reason::kInstruction, decoded.instruction.refusal, ""), found);
    return;
  }
  if (wants_calls_ && !is_called(function, decoded.offset, found)) {
    refuse(module, &function, address, reason_text(Reason::kNotCalled, decoder::Refusal::kNone, ""), found);
    return;
  }
  if (language::is_of_returns(items_[found.item].kind) && decoded.offset != 0) {
    refuse(module, &function, address, reason_text(Reason::kNoEntry, decoder::Refusal::kNone, ""), found);
    return;
  }
  if (modules_.is_own_text(address + modules_.all()[module].bias)) {
    refuse(module, &function, address, reason_text(Reason::kRuntime, decoder::Refusal::kNone, ""), found);
    return;
  }
  if (modules_.is_in_rseq(module, address)) {
    refuse(module, &function, address, reason_text(Reason::kRseq, decoder::Refusal::kNone, ""), found);
    return;
  }
  Probe probe;
  probe.function =
      static_cast<std::uint32_t>(&function - modules_.table_of(module).functions().data()) & ((1U << 28) - 1);
  probe.offset = decoded.offset;
  probe.item = found.item & (language::kMaxItems - 1);
  probe.module = module & (kMaxModules - 1);
  found.candidates.push_back({probe, {address + modules_.all()[module].bias, decoded.instruction, bytes}});
}

// One probe at an ELF address. function: the one that holds it, or nullptr.
void Plan::add_one(std::uint32_t module, const Function* function, std::uint64_t address, Found& found) const {
  if (auto problem = module_problem(module)) {
    refuse(module, function, address, std::move(*problem), found);
    return;
  }
  if (text_from(modules_.all()[module], address, address + 1, found.readable).empty()) {
    refuse(module, function, address, reason_text(Reason::kUnreadable, decoder::Refusal::kNone, ""), found);
    return;
  }
  if (auto problem = boundary_problem(module, function, address, found)) {
    refuse(module, function, address, std::move(*problem), found, true);
    return;
  }
  const auto code = modules_.code_from(module, address, address + 15, found.readable);
  const auto offset = static_cast<std::uint32_t>(address - function->address);
  add_decoded(module, *function, {offset, decoder::classify(code)}, code.data(), found);
}

// Probes at ELF addresses, ascending. Where there are several in a function it is decoded once.
void Plan::add_addresses(std::uint32_t module, std::span<const std::uint64_t> addresses, Found& found) {
  const bool may_be_probed = !module_problem(module);
  for (std::size_t i = 0, end = 0; i < addresses.size(); i = end) {
    const Function* const function = modules_.table_of(module).containing(addresses[i]);
    end = i + 1;
    while (function != nullptr && end < addresses.size() && addresses[end] < function->end) ++end;
    if (!may_be_probed || end - i == 1) {
      for (std::size_t at = i; at < end; ++at) add_one(module, function, addresses[at], found);
      continue;
    }
    const auto code = modules_.code_from(module, function->address, function->end, found.readable);
    const decoder::Walk walk = code.empty() ? decoder::Walk{} : decoder::walk_function(code, function->address);
    auto decoded = walk.reached.begin();
    for (std::size_t at = i; at < end; ++at) {
      while (decoded != walk.reached.end() && function->address + decoded->offset < addresses[at]) ++decoded;
      if (decoded != walk.reached.end() && function->address + decoded->offset == addresses[at]) {
        add_decoded(module, *function, *decoded, code.data() + decoded->offset, found);
      } else {
        add_one(module, function, addresses[at], found);
      }
    }
  }
}

// Every instruction of the functions, as far as it lies in [low, high). The functions are all walked first: what one
// of them refers to as data is no code in another.
void Plan::add_functions(std::uint32_t module, std::span<const Function* const> functions, std::uint64_t low,
                         std::uint64_t high, Found& found) {
  const auto start = std::chrono::steady_clock::now();
  const Module& its = modules_.all()[module];
  if (auto problem = module_problem(module)) {
    if (!functions.empty()) refuse(module, functions.front(), functions.front()->address, std::move(*problem), found);
    return;
  }
  struct Gap {
    const Function* function;
    decoder::ByteRange bytes;
    std::vector<decoder::Decoded> decoded;
  };
  std::vector<Gap> gaps;
  std::vector<std::uint64_t> references;
  const auto add_in_range = [&](const Function& function, const decoder::Decoded& decoded,
                                std::span<const std::uint8_t> code) {
    const std::uint64_t address = function.address + decoded.offset;
    if (address >= low && address < high) add_decoded(module, function, decoded, code.data() + decoded.offset, found);
  };
  for (const Function* function : functions) {
    const auto code = modules_.code_from(module, function->address, function->end, found.readable);
    // Where no table says how long it is, its entry alone is its for certain.
    const std::uint64_t own_end = function->size != 0 ? function->end : function->address + 1;
    const std::uint64_t read_end =
        function->address + text_from(its, function->address, own_end, found.readable).size();
    if (read_end < own_end && its.segment_at(read_end) != nullptr) {
      refuse(module, function, read_end,
             reason_text(Reason::kUnreadable, decoder::Refusal::kNone, fmt::format("{} bytes", own_end - read_end)),
             found);
    }
    if (code.empty()) continue;
    decoder::Walk walk = decoder::walk_function(code, function->address);
    for (const decoder::Decoded& decoded : walk.reached) add_in_range(*function, decoded, code);
    references.insert(references.end(), walk.references.begin(), walk.references.end());
    if (function->size == 0 && !walk.gaps.empty() && walk.gaps.back().end == code.size()) {
      walk.gaps.pop_back();  // no table says where it ends: what lies behind its last instruction is not its
    }
    for (const decoder::ByteRange& bytes : walk.gaps) {
      // Without a known end there may be data between: only what is reached is taken.
      auto decoded = function->size == 0 ? std::vector<decoder::Decoded>{}
                                         : decoder::decode_gap(code, bytes, function->address, references);
      gaps.push_back({function, bytes, std::move(decoded)});
    }
  }
  std::sort(references.begin(), references.end());
  for (const Gap& gap : gaps) {
    const std::uint64_t begin = gap.function->address + gap.bytes.begin, end = gap.function->address + gap.bytes.end;
    if (end <= low || begin >= high) continue;
    const auto named = std::lower_bound(references.begin(), references.end(), begin);
    const bool is_data = named != references.end() && *named < end;
    if (gap.decoded.empty() || is_data) {
      refuse(module, gap.function, begin,
             reason_text(Reason::kDoubtful, decoder::Refusal::kNone, fmt::format("{} bytes", end - begin)), found);
      continue;
    }
    const auto code = modules_.code_from(module, gap.function->address, gap.function->end, found.readable);
    for (const decoder::Decoded& decoded : gap.decoded) add_in_range(*gap.function, decoded, code);
  }
  decode_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count();
}

// Of what is left when all exclusions are made: functions whose returns cannot all be seen are refused.
void Plan::find_exits() {
  const auto wants = [&](const Candidate& candidate) { return wants_returns(candidate.probe); };
  if (std::none_of(candidates_.begin(), candidates_.end(), wants)) return;
  const auto start = std::chrono::steady_clock::now();
  Exits exits(modules_);
  std::erase_if(candidates_, [&](const Candidate& candidate) {
    const Probe& probe = candidate.probe;
    if (!wants(candidate)) return false;
    const auto module = static_cast<std::uint32_t>(probe.module), item = static_cast<std::uint32_t>(probe.item);
    auto problem = exits.want(module, modules_.table_of(module).functions()[probe.function]);
    if (!problem) return false;
    const auto* const symbol = std::get_if<language::SymbolTarget>(&items_[item].target);
    refused_.push_back({item, module, address_of(modules_, probe), symbol_of(modules_, probe), std::move(*problem),
                        false, symbol == nullptr || !language::is_glob(symbol->pattern)});
    return true;
  });
  exits_ = exits.find(wants_approaches_);
  followed_ = exits.followed();
  decode_ns_ += std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count();
}

// Exits at points that are refused go, and with them the probes of the functions that they are in. Who jumps there from
// elsewhere is missed.
void Plan::refuse_exits(const std::map<std::uint32_t, std::string>& reasons, const std::vector<std::uint32_t>& number) {
  std::map<std::uint64_t, const std::string*> functions;  // by their entries
  std::erase_if(exits_, [&](Exit& exit) {
    const auto reason = reasons.find(exit.number - first_point_);
    if (exit.approach && reasons.contains(exit.approach_number - first_point_)) exit.approach.reset();
    if (exit.approach) exit.approach_number = first_point_ + number[exit.approach_number - first_point_];
    if (reason == reasons.end()) {
      exit.number = first_point_ + number[exit.number - first_point_];
      return false;
    }
    functions.try_emplace(exit.low, &reason->second);
    return true;
  });
  if (functions.empty()) return;
  std::erase_if(probes_, [&](const Probe& probe) {
    if (!wants_returns(probe) || probe.point < first_point_) return false;
    const auto refused = functions.find(address_of(modules_, probe) + modules_.all()[probe.module].bias);
    if (refused == functions.end()) return false;
    refused_.push_back({static_cast<std::uint32_t>(probe.item), static_cast<std::uint32_t>(probe.module),
                        address_of(modules_, probe), symbol_of(modules_, probe), *refused->second});
    return true;
  });
}

}  // namespace ubp::plan
