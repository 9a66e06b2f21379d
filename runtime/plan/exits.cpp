// See exits.h.
#include "runtime/plan/exits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "decoder/window.h"
#include "runtime/plan/refusal.h"
#include "runtime/symbols/imports.h"

namespace ubp::plan {

using decoder::Refusal;
using symbols::Function;

Exits::Body& Exits::body_at(std::uint32_t module, const Function& function) {
  const auto [found, is_new] = bodies_.try_emplace({module, function.address});
  Body& body = found->second;
  if (!is_new) return body;
  body.end = function.end;
  const auto code = modules_.code_from(module, function.address, function.end, readable_);
  auto exits = code.size() == function.end - function.address || function.size == 0
                   ? decoder::find_exits(code, function.address, function.size != 0)
                   : std::nullopt;
  if (!exits) {
    body.problem = reason_text(Reason::kExits, Refusal::kNone, "");
    return body;
  }
  body.exits = std::move(*exits);
  const std::uint64_t bias = modules_.all()[module].bias;
  for (const decoder::Exit& exit : body.exits) {
    const std::uint64_t address = function.address + exit.offset;
    if (modules_.is_in_rseq(module, address)) body.problem = reason_text(Reason::kRseq, Refusal::kNone, "");
    if (modules_.is_own_text(address + bias)) body.problem = reason_text(Reason::kRuntime, Refusal::kNone, "");
    if (exit.instruction.route == decoder::Route::kRefused)
      body.problem = reason_text(Reason::kInstruction, exit.instruction.refusal, "");
  }
  return body;
}

bool Exits::may_be_at_entry(std::uint32_t module, std::uint64_t address) {
  const symbols::Module& its = modules_.all()[module];
  const auto [found, is_new] = frames_.try_emplace(module);
  if (is_new) found->second = stack::compile(its, rules_);
  const stack::ModuleRules& frames = found->second;
  const std::uint64_t at = address + its.bias;
  if (at < frames.low || at >= frames.high) return true;
  const std::uint64_t rows = stack::not_above(frames.starts.data(), frames.starts.size(), at - frames.low);
  if (rows == 0) return true;
  const stack::Rule& rule = rule_room_[frames.rules[rows - 1]];
  if (rule.kind == stack::Rule::kNone || rule.kind == stack::Rule::kUnknown) return true;
  return rule.kind == stack::Rule::kRegister && rule.base == stack::kRsp && rule.offset == sizeof(std::uint64_t);
}

// Whether the compiler has moved it out of another function.
bool Exits::is_part(std::uint32_t module, std::uint64_t address) const {
  const Function* const function = modules_.table_of(module).containing(address);
  return function != nullptr && function->has_symbol() && function->symbol().find(".cold") != std::string_view::npos;
}

std::optional<std::string> Exits::want(std::uint32_t module, const Function& function) {
  if (is_part(module, function.address) || !may_be_at_entry(module, function.address))
    return reason_text(Reason::kNoEntry, Refusal::kNone, "");
  const bool knows_goroutines = modules_.all()[module].is_executable && modules_.goroutine_word().has_value();
  if (modules_.has_go_code(module) && !knows_goroutines) return reason_text(Reason::kGoroutines, Refusal::kNone, "");
  Body& body = body_at(module, function);
  if (!body.problem.empty()) return body.problem;
  // Where it jumps with a frame of its own, or to a part of its own, it goes on there: what that does has to be known.
  for (const decoder::Exit& exit : body.exits) {  // a map's: it stays where it is
    const bool goes_on = exit.kind == decoder::Exit::Kind::kJump &&
                         (!may_be_at_entry(module, function.address + exit.offset) || is_part(module, exit.target));
    if (!goes_on) continue;
    const std::vector<Key> targets = targets_of(module, exit.target);
    const bool is_known = !targets.empty() && std::all_of(targets.begin(), targets.end(), [&](const Key& key) {
      const Function* const target = modules_.table_of(key.first).containing(key.second);
      return target != nullptr && body_at(key.first, *target).problem.empty();
    });
    if (!is_known) return reason_text(Reason::kExits, Refusal::kNone, fmt::format("at +0x{:x}", exit.offset));
  }
  body.is_wanted = true;
  if (!std::exchange(body.is_queued, true)) queue_.push_back({module, function.address});
  return std::nullopt;
}

// [endbr64] [bnd] jmp *word(%rip), as linkers write it.
std::optional<std::uint64_t> Exits::word_of_stub(std::uint32_t module, std::uint64_t address) {
  constexpr std::uint64_t kMostBytes = 16, kMark = 4;
  const auto code = modules_.code_from(module, address, address + kMostBytes, readable_);
  std::span<const std::uint8_t> rest = code;
  if (rest.size() >= kMark && rest[0] == 0xf3 && rest[1] == 0x0f && rest[2] == 0x1e && rest[3] == 0xfa) {
    rest = rest.subspan(kMark);
    address += kMark;
  }
  const decoder::Instruction jump = decoder::classify(rest);
  if (jump.length == 0 || jump.length > rest.size()) return std::nullopt;
  const auto operand = decoder::operand_of_jump(rest.first(jump.length));
  if (!operand || !operand->is_memory || operand->base != decoder::kRipRegister) return std::nullopt;
  return address + jump.length + static_cast<std::uint64_t>(std::int64_t{operand->displacement});
}

std::vector<Exits::Key> Exits::targets_of(std::uint32_t module, std::uint64_t target) {
  const Function* const function = modules_.table_of(module).containing(target);
  if (function != nullptr && function->has_symbol()) return {{module, function->address}};
  const auto word = word_of_stub(module, target);
  if (!word) return function != nullptr ? std::vector<Key>{{module, function->address}} : std::vector<Key>{};
  const symbols::Module& its = modules_.all()[module];
  const auto [imports, is_new] = imports_.try_emplace(module);
  if (is_new) imports->second = symbols::imports_of(its);
  std::vector<Key> found;
  const auto import = imports->second.find(*word);
  if (import == imports->second.end()) {  // an IFUNC of its own: the dynamic linker has chosen at once
    const std::uint8_t* const bytes =
        its.is_relocated ? its.bytes_at(*word, sizeof(std::uint64_t), readable_) : nullptr;
    if (bytes == nullptr) return found;
    std::uint64_t address;
    std::memcpy(&address, bytes, sizeof address);
    const auto other = modules_.module_at(address);
    if (!other || modules_.all()[*other].is_vdso) return found;
    const Function* const chosen = modules_.table_of(*other).containing(address - modules_.all()[*other].bias);
    if (chosen != nullptr && chosen->has_symbol()) found.emplace_back(*other, chosen->address);
    return found;
  }
  for (std::uint32_t index = 0; index < modules_.all().size() && found.empty(); ++index) {
    const symbols::Module& other = modules_.all()[index];
    if (!modules_.is_present(index) || other.is_runtime || other.is_vdso) continue;
    try {
      for (const Function* const candidate : modules_.table_of(index).match(import->second, true)) {
        if (candidate->binding != symbols::Binding::kLocal) found.emplace_back(index, candidate->address);
      }
    } catch (const std::runtime_error&) {  // an unreadable file: it is another's
    }
  }
  return found;
}

bool Exits::follow(std::uint32_t module, std::uint64_t target) {
  const std::vector<Key> targets = targets_of(module, target);
  bool is_known = !targets.empty();
  for (const Key& key : targets) {
    const Function* const function = modules_.table_of(key.first).containing(key.second);
    if (function == nullptr) return false;
    Body& body = body_at(key.first, *function);
    is_known &= body.problem.empty();
    if (body.problem.empty() && !std::exchange(body.is_queued, true)) queue_.push_back(key);
  }
  return is_known;
}

// Of the exits of one function. What the detour of a jump at its entry can hold needs none.
void Exits::find_approaches(std::uint32_t module, std::uint64_t entry, std::span<Exit> exits) {
  const Function* const function = modules_.table_of(module).containing(entry);
  if (function == nullptr || exits.empty()) return;
  const std::uint64_t bias = modules_.all()[module].bias;
  const Code code = modules_.code_from(module, function->address, function->end, readable_);
  const std::uint64_t own = function->size != 0 ? function->size : function->end - function->address;
  const decoder::FunctionCode its{code, static_cast<std::uint32_t>(std::min<std::uint64_t>(own, code.size()))};
  decoder::BranchTargets targets(its);
  const decoder::Straight from_entry = decoder::follow(its, 0, runtime::kMostParts, decoder::kJumpBytes);
  for (Exit& exit : exits) {
    const std::uint32_t offset = exit.exit.offset;
    if (!exit.exit.instruction.ends_block || offset < from_entry.length || offset >= code.size()) continue;
    const auto at = decoder::approach_of(its, targets, exit.exit.run, offset);
    if (!at) continue;
    const std::span<const std::uint8_t> there = std::span<const std::uint8_t>(code).subspan(*at);
    const decoder::Instruction instruction =
        decoder::classify(there.first(std::min(there.size(), decoder::kMaxInstructionBytes)));
    exit.approach.emplace(function->address + *at + bias, instruction, there.data());
  }
}

std::vector<Exit> Exits::find(bool approaches) {
  std::vector<Exit> found;
  std::vector<std::size_t> counts;                            // behind each of the queue: how many were found
  for (std::size_t next = 0; next < queue_.size(); ++next) {  // grows
    const Key key = queue_[next];
    const auto [module, entry] = key;
    const symbols::Module& its = modules_.all()[module];
    const Body& body = bodies_.at(key);  // as above
    followed_.push_back({entry + its.bias, body.end + its.bias});
    const std::size_t first = found.size();
    for (const decoder::Exit& exit : body.exits) {
      const std::uint64_t address = entry + exit.offset;
      const bool may_leave = exit.kind == decoder::Exit::Kind::kReturn || may_be_at_entry(module, address);
      bool is_followed = true;
      if (exit.kind == decoder::Exit::Kind::kJump) {
        is_followed = follow(module, exit.target);
        for (const Key& target : may_leave ? std::vector<Key>{} : targets_of(module, exit.target)) {
          const Function* const function = modules_.table_of(target.first).containing(target.second);
          if (function != nullptr) body_at(target.first, *function).is_gone_on_in = true;
        }
        if (!body.is_wanted && is_followed) continue;  // nothing is to be told there
      }
      if (!may_leave || (exit.kind == decoder::Exit::Kind::kJump && is_part(module, exit.target))) continue;
      const auto code = modules_.code_from(module, address, address + exit.instruction.length, readable_);
      if (code.size() < exit.instruction.length) continue;
      found.push_back({xol::Displaced(address + its.bias, exit.instruction, code.data()), exit, is_followed,
                       entry + its.bias, body.end + its.bias});
      found.back().exit.target += its.bias;
    }
    if (approaches) find_approaches(module, entry, std::span(found).subspan(first));
    counts.push_back(found.size());
  }
  std::size_t at = 0;
  for (std::size_t next = 0; next < queue_.size(); ++next) {
    const auto [module, entry] = queue_[next];
    const bool is_part_of_others = bodies_.at(queue_[next]).is_gone_on_in || is_part(module, entry);
    for (; at < counts[next]; ++at) found[at].is_in_part = is_part_of_others;
  }
  const auto before = [](const Exit& a, const Exit& b) { return a.point.address < b.point.address; };
  std::sort(found.begin(), found.end(), before);
  const auto same = [](const Exit& a, const Exit& b) { return a.point.address == b.point.address; };
  for (auto exit = found.begin(), first = exit; exit != found.end(); ++exit) {
    if (!same(*first, *exit)) first = exit;
    first->is_in_part |= exit->is_in_part;
    if (exit->exit.kind != decoder::Exit::Kind::kReturn) continue;
    first->low = std::min(first->low, exit->low);
    first->high = std::max(first->high, exit->high);
  }
  found.erase(std::unique(found.begin(), found.end(), same), found.end());
  std::sort(followed_.begin(), followed_.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.begin < b.begin; });
  return found;
}

}  // namespace ubp::plan
