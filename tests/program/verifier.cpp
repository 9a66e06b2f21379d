// See verifier.h.
#include "tests/program/verifier.h"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "tests/program/verifier_helpers.h"
#include "tests/program/verifier_instruction.h"

namespace ubp::program {
namespace {

constexpr std::int64_t kMostFrame = 24576;  // program.cpp
constexpr std::int64_t kWord = 8;

// One function, as it is taken apart.
class Function {
 public:
  Function(std::span<const std::uint8_t> code, std::uint64_t entry) : code_(code), entry_(entry) {
    ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  }

  std::string refusal() {
    decode();
    if (why_.empty()) check_frame();
    for (const auto& [address, instruction] : all_) {
      if (!why_.empty()) break;
      check_registers(instruction);
      check_stores(instruction);
      check_calls(instruction);
    }
    if (why_.empty()) check_loops();
    return why_;
  }

 private:
  void refuse(std::uint64_t address, std::string_view why) {
    if (why_.empty()) why_ = fmt::format("+{:#x}: {}", address - entry_, why);
  }

  // What can be reached from the entry.
  void decode() {
    std::vector<std::uint64_t> open{entry_};
    while (!open.empty() && why_.empty()) {
      const std::uint64_t address = open.back();
      open.pop_back();
      if (all_.contains(address)) continue;
      const std::uint64_t offset = address - reinterpret_cast<std::uint64_t>(code_.data());
      if (offset >= code_.size()) return refuse(address, "code outside of the program's");
      Instruction instruction{};
      instruction.address = address;
      if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, code_.data() + offset, code_.size() - offset,
                                               &instruction.its, instruction.operands)))
        return refuse(address, "no instruction");
      instruction.next = address + instruction.its.length;
      const ZydisInstructionCategory category = instruction.its.meta.category;
      const bool is_conditional = category == ZYDIS_CATEGORY_COND_BR;
      if (category == ZYDIS_CATEGORY_UNCOND_BR || is_conditional) {
        const ZydisDecodedOperand& where = instruction.operands[0];
        const bool is_tail = instruction.its.mnemonic == ZYDIS_MNEMONIC_JMP && is_register(where, ZYDIS_REGISTER_RAX);
        if (where.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
          instruction.target = instruction.next + where.imm.value.u;
          open.push_back(*instruction.target);
        } else if (!is_tail) {
          return refuse(address, "an indirect jump");
        }
      } else if (!is_allowed(instruction.its.mnemonic)) {
        return refuse(address, ZydisMnemonicGetString(instruction.its.mnemonic));
      }
      constexpr ZydisInstructionAttributes kPrefixes =
          ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_SEGMENT;
      if ((instruction.its.attributes & kPrefixes) != 0) return refuse(address, "a prefix");
      instruction.falls_through = category != ZYDIS_CATEGORY_UNCOND_BR && category != ZYDIS_CATEGORY_RET;
      if (instruction.falls_through) open.push_back(instruction.next);
      all_.emplace(address, instruction);
      if (instruction.target) targets_.insert(*instruction.target);
    }
    // No instruction begins in another.
    for (auto it = all_.begin(); it != all_.end() && std::next(it) != all_.end(); ++it) {
      if (it->second.next > std::next(it)->first) refuse(std::next(it)->first, "a jump into an instruction");
    }
  }

  const Instruction* after(const Instruction& instruction) const {
    const auto it = all_.find(instruction.next);
    return it != all_.end() ? &it->second : nullptr;
  }
  bool is_alone(const Instruction& instruction) const { return !targets_.contains(instruction.address); }

  // push rbp; mov rbp, rsp; push rbx; sub rsp, n ... leave; ret. rbx: lea rbx, [rbp - n] right behind.
  void check_frame() {
    const Instruction* const push_rbp = &all_.at(entry_);
    const Instruction* const set_rbp = after(*push_rbp);
    const Instruction* const push_rbx = set_rbp != nullptr ? after(*set_rbp) : nullptr;
    const Instruction* const take = push_rbx != nullptr ? after(*push_rbx) : nullptr;
    const Instruction* const run = take != nullptr ? after(*take) : nullptr;
    if (run == nullptr) return refuse(entry_, "no frame");
    const auto is = [](const Instruction& instruction, ZydisMnemonic mnemonic, ZydisRegister first) {
      return instruction.its.mnemonic == mnemonic && is_register(instruction.operands[0], first);
    };
    const bool is_frame =
        is(*push_rbp, ZYDIS_MNEMONIC_PUSH, ZYDIS_REGISTER_RBP) &&
        is(*set_rbp, ZYDIS_MNEMONIC_MOV, ZYDIS_REGISTER_RBP) && is_register(set_rbp->operands[1], ZYDIS_REGISTER_RSP) &&
        is(*push_rbx, ZYDIS_MNEMONIC_PUSH, ZYDIS_REGISTER_RBX) && is(*take, ZYDIS_MNEMONIC_SUB, ZYDIS_REGISTER_RSP) &&
        take->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && is(*run, ZYDIS_MNEMONIC_LEA, ZYDIS_REGISTER_RBX) &&
        run->operands[1].mem.base == ZYDIS_REGISTER_RBP && run->operands[1].mem.index == ZYDIS_REGISTER_NONE;
    if (!is_frame) return refuse(entry_, "another beginning");
    for (const Instruction* const early : {push_rbp, set_rbp, push_rbx, take, run}) {
      if (!is_alone(*early)) return refuse(early->address, "a jump to the beginning");
    }
    const std::int64_t bytes = take->operands[1].imm.value.s;
    if (bytes < 0 || bytes > kMostFrame || bytes % 16 != 8) return refuse(take->address, "a frame of another size");
    low_ = -kWord - bytes;
    run_ = run->operands[1].mem.disp.value;
    if (!is_in_frame(run_, sizeof(Run))) return refuse(run->address, "the Run is not in the frame");
    begin_ = {push_rbp, set_rbp, push_rbx, take, run};
  }

  // rbp, rbx and rsp are as the beginning sets them, up to the end.
  void check_registers(const Instruction& instruction) {
    for (int i = 0; i < instruction.its.operand_count; ++i) {
      const ZydisDecodedOperand& operand = instruction.operands[i];
      const bool is_stack =
          instruction.its.mnemonic == ZYDIS_MNEMONIC_PUSH || instruction.its.mnemonic == ZYDIS_MNEMONIC_CALL ||
          instruction.its.mnemonic == ZYDIS_MNEMONIC_RET || instruction.its.mnemonic == ZYDIS_MNEMONIC_LEAVE;
      if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && !is_general(operand.reg.value))
        return refuse(instruction.address, "another register");
      if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && !is_stack &&
          (!is_general(operand.mem.base) || operand.mem.base == ZYDIS_REGISTER_RIP))
        return refuse(instruction.address, "another base");
    }
    if (std::find(begin_.begin(), begin_.end(), &instruction) != begin_.end()) return;
    switch (instruction.its.mnemonic) {
      case ZYDIS_MNEMONIC_PUSH: return refuse(instruction.address, "a push");
      case ZYDIS_MNEMONIC_CALL: return;
      case ZYDIS_MNEMONIC_RET:
        if (last_leave_ != instruction.address || !is_alone(instruction))
          refuse(instruction.address, "a ret in a frame");
        return;
      case ZYDIS_MNEMONIC_LEAVE:
        last_leave_ = instruction.next;
        if (last_rbx_ != instruction.address || !is_alone(instruction))
          refuse(instruction.address, "rbx is not put back");
        return;
      default: break;
    }
    const bool puts_back = instruction.its.mnemonic == ZYDIS_MNEMONIC_MOV &&
                           is_register(instruction.operands[0], ZYDIS_REGISTER_RBX) &&
                           is_frame_word(instruction.operands[1]) && instruction.operands[1].mem.disp.value == -kWord;
    if (puts_back) {
      last_rbx_ = instruction.next;
      const Instruction* const next = after(instruction);
      if (next == nullptr || next->its.mnemonic != ZYDIS_MNEMONIC_LEAVE)
        refuse(instruction.address, "rbx is put back too early");
      return;
    }
    for (const ZydisRegister kept : {ZYDIS_REGISTER_RBP, ZYDIS_REGISTER_RBX, ZYDIS_REGISTER_RSP, ZYDIS_REGISTER_R12,
                                     ZYDIS_REGISTER_R13, ZYDIS_REGISTER_R14, ZYDIS_REGISTER_R15}) {
      if (writes(instruction, kept)) return refuse(instruction.address, "a kept register is changed");
    }
  }

  static bool is_frame_word(const ZydisDecodedOperand& operand) {
    return operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.base == ZYDIS_REGISTER_RBP &&
           operand.mem.index == ZYDIS_REGISTER_NONE;
  }
  bool is_in_frame(std::int64_t from, std::int64_t bytes) const { return from >= low_ && from + bytes <= -kWord; }

  // Where from rbp an operand lies; nothing: elsewhere.
  std::optional<std::int64_t> place_of(const ZydisDecodedOperand& operand) const {
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.index != ZYDIS_REGISTER_NONE) return std::nullopt;
    const std::int64_t displacement = operand.mem.disp.value;
    if (operand.mem.base == ZYDIS_REGISTER_RBP) return displacement;
    if (operand.mem.base == ZYDIS_REGISTER_RBX) return run_ + displacement;
    return std::nullopt;
  }

  static bool is_step(const Instruction& instruction) {  // less by 1
    return instruction.its.mnemonic == ZYDIS_MNEMONIC_SUB && is_immediate(instruction.operands[1], 1) &&
           instruction.operands[0].size == 64;
  }
  bool overlaps_budget(std::int64_t place, std::int64_t bytes) const {
    const std::int64_t budget = run_ + static_cast<std::int64_t>(offsetof(Run, budget));
    return place < budget + kWord && budget < place + bytes;
  }
  bool spends(const Instruction& instruction) const {
    const auto place = place_of(instruction.operands[0]);
    return is_step(instruction) && place && *place == run_ + static_cast<std::int64_t>(offsetof(Run, budget));
  }

  void check_stores(const Instruction& instruction) {
    for (int i = 0; i < instruction.its.operand_count; ++i) {
      const ZydisDecodedOperand& operand = instruction.operands[i];
      if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || !writes(operand)) continue;
      const bool is_stack =
          operand.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && operand.mem.base == ZYDIS_REGISTER_RSP;
      if (is_stack) continue;  // of a push in the beginning, or a call
      const auto place = place_of(operand);
      const std::int64_t bytes = operand.size / 8;
      if (!place && (is_in_event(instruction, operand) || ends_event(instruction, operand))) continue;
      if (!place || !is_in_frame(*place, bytes)) return refuse(instruction.address, "a store outside of the frame");
      const std::int64_t chunk = run_ + static_cast<std::int64_t>(offsetof(Run, chunk));
      if (*place < chunk + kWord && chunk < *place + bytes) return refuse(instruction.address, "the chunk is changed");
      if (!overlaps_budget(*place, bytes)) continue;
      const bool sets = instruction.its.mnemonic == ZYDIS_MNEMONIC_MOV &&
                        instruction.operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !sets_budget_ && bytes == kWord;
      sets_budget_ |= sets;
      if (!sets && !spends(instruction)) return refuse(instruction.address, "the budget is changed");
    }
    if (instruction.its.mnemonic != ZYDIS_MNEMONIC_LEA) return;
    const ZydisDecodedOperand& from = instruction.operands[1];
    const bool is_frames = from.mem.base == ZYDIS_REGISTER_RBP || from.mem.base == ZYDIS_REGISTER_RBX;
    const auto place = place_of(from);
    if (is_frames && (!place || !is_in_frame(*place, 0)))
      refuse(instruction.address, "an address outside of the frame");
  }

  // What sets a register before an instruction, with no jump in between; null: something else may.
  const Instruction* definition(ZydisRegister reg, const Instruction& before) const {
    for (auto it = all_.find(before.address); is_alone(it->second) && it != all_.begin();) {
      const Instruction& user = it->second;
      --it;
      if (it->second.next != user.address || !it->second.falls_through || it->second.target) return nullptr;
      if (it->second.its.mnemonic == ZYDIS_MNEMONIC_CALL) return nullptr;
      if (writes(it->second, reg)) return &it->second;
    }
    return nullptr;
  }
  std::optional<std::uint64_t> constant(ZydisRegister reg, const Instruction& before) const {
    const Instruction* const set = definition(reg, before);
    const bool is = set != nullptr && set->its.mnemonic == ZYDIS_MNEMONIC_MOV &&
                    set->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    return is ? std::optional(set->operands[1].imm.value.u) : std::nullopt;
  }
  // How many words the event has that was begun before an instruction, with no jump in between; in_rax: where rax still
  // leads to it. Nothing: none was.
  std::optional<std::uint64_t> event_words(const Instruction& before, bool in_rax) const {
    for (auto it = all_.find(before.address); it != all_.begin();) {
      const Instruction& user = it->second;
      const Instruction& last = (--it)->second;
      if (!is_alone(user) || last.next != user.address) return std::nullopt;
      if (last.its.mnemonic != ZYDIS_MNEMONIC_CALL) {
        if (in_rax && writes(last, ZYDIS_REGISTER_RAX)) return std::nullopt;
        continue;
      }
      const auto function = constant(ZYDIS_REGISTER_RAX, last);
      if (function == kBeginEvent) return constant(ZYDIS_REGISTER_RDX, last);
      if (in_rax || function != kCopyWords) return std::nullopt;
    }
    return std::nullopt;
  }
  // mov rdi, rax, which is what begin_event has returned for as many words.
  bool is_event(const Instruction& set, const Instruction& before) const {
    if (set.its.mnemonic != ZYDIS_MNEMONIC_MOV || !is_register(set.operands[1], ZYDIS_REGISTER_RAX)) return false;
    const auto words = event_words(set, true);
    return words && words == constant(ZYDIS_REGISTER_RSI, before);
  }
  // mov [rax + n], a word of the event that was begun.
  bool is_in_event(const Instruction& store, const ZydisDecodedOperand& to) const {
    const std::int64_t place = to.mem.disp.value;
    if (to.mem.base != ZYDIS_REGISTER_RAX || to.mem.index != ZYDIS_REGISTER_NONE || to.size != 64) return false;
    const auto words = event_words(store, true);
    return words && place >= 0 && place + kWord <= static_cast<std::int64_t>(*words) * kWord;
  }
  // mov rcx, the Run's chunk; add [rcx + used], all bytes of the event: from there on it is one.
  bool ends_event(const Instruction& store, const ZydisDecodedOperand& to) const {
    const bool adds = store.its.mnemonic == ZYDIS_MNEMONIC_ADD && to.mem.base == ZYDIS_REGISTER_RCX &&
                      to.mem.index == ZYDIS_REGISTER_NONE && to.mem.disp.value == offsetof(Chunk, used) &&
                      to.size == 64;
    const Instruction* const set = adds ? definition(ZYDIS_REGISTER_RCX, store) : nullptr;
    const auto from =
        set != nullptr && set->its.mnemonic == ZYDIS_MNEMONIC_MOV ? place_of(set->operands[1]) : std::nullopt;
    if (!from || *from != run_ + static_cast<std::int64_t>(offsetof(Run, chunk))) return false;
    const auto words = event_words(store, false);
    return words && is_immediate(store.operands[1], static_cast<std::int64_t>(sizeof(EventHeader) + *words * kWord));
  }
  // What a helper writes lies in the frame, or in an event.
  void check_output(const Instruction& call, const Output& output) {
    const Instruction* const set = definition(output.pointer, call);
    std::uint64_t size = output.count;
    if (output.size != ZYDIS_REGISTER_NONE) {
      const auto units = constant(output.size, call);
      if (!units) return refuse(call.address, "what is written is of no known size");
      size = output.size_of != nullptr ? output.size_of(*units) : (*units + output.count) * output.unit;
    }
    if (set == nullptr) return refuse(call.address, "what is written is nowhere known");
    const bool is_address = set->its.mnemonic == ZYDIS_MNEMONIC_LEA;
    const auto place = is_address ? place_of(set->operands[1]) : std::nullopt;
    const bool is_good =
        place ? is_in_frame(*place, static_cast<std::int64_t>((size + 7) / 8 * 8)) : is_event(*set, call);
    if (!is_good) refuse(call.address, "a helper writes outside of the frame");
  }

  // leave; mov rsi, constant; mov rax, helper; jmp rax: the helper is called in place of the block.
  bool is_behind_leave(const Instruction& jump) const {
    auto it = all_.find(jump.address);
    for (const ZydisRegister set : {ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_RSI, ZYDIS_REGISTER_NONE}) {
      if (it == all_.begin() || !is_alone(it->second)) return false;
      const std::uint64_t address = it->first;
      const Instruction& before = (--it)->second;
      const bool is_move = before.its.mnemonic == ZYDIS_MNEMONIC_MOV && writes(before, set) &&
                           before.operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
      const bool is_leave = set == ZYDIS_REGISTER_NONE && before.its.mnemonic == ZYDIS_MNEMONIC_LEAVE;
      if (before.next != address || (!is_move && !is_leave)) return false;
    }
    return true;
  }

  // mov rax, helper; call rax
  void check_calls(const Instruction& instruction) {
    const Instruction* const next = after(instruction);
    if (instruction.its.mnemonic == ZYDIS_MNEMONIC_CALL) {
      if (known_call_ != instruction.address || !is_alone(instruction))
        refuse(instruction.address, "a call of something");
      return;
    }
    if (instruction.its.mnemonic == ZYDIS_MNEMONIC_JMP && !instruction.target) {
      if (known_call_ != instruction.address || !is_alone(instruction) || !is_behind_leave(instruction))
        refuse(instruction.address, "an indirect jump");
      return;
    }
    const bool is_before = next != nullptr &&
                           (next->its.mnemonic == ZYDIS_MNEMONIC_CALL || next->its.mnemonic == ZYDIS_MNEMONIC_JMP) &&
                           is_register(next->operands[0], ZYDIS_REGISTER_RAX);
    const bool loads = instruction.its.mnemonic == ZYDIS_MNEMONIC_MOV &&
                       whole(instruction.operands[0].reg.value) == ZYDIS_REGISTER_RAX &&
                       instruction.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                       instruction.operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (!is_before || !loads) return;
    const Helper* const helper = find_helper(instruction.operands[1].imm.value.u);
    if (helper == nullptr) return refuse(instruction.address, "a call of no helper");
    for (const Output& output : helper->outputs) check_output(instruction, output);
    known_call_ = next->address;
  }

  // Whether an edge back counts a word of the frame down, which nothing else stores to in between.
  bool counts_down(const Instruction& branch) const {
    if (branch.its.mnemonic != ZYDIS_MNEMONIC_JNZ || !is_alone(branch)) return false;
    const auto it = all_.find(branch.address);
    const Instruction& step = std::prev(it)->second;
    const auto place = place_of(step.operands[0]);
    if (step.next != branch.address || !is_step(step) || !place) return false;
    bool begins = false;
    for (const auto& [address, instruction] : all_) {
      const auto its = place_of(instruction.operands[0]);
      const bool stores = instruction.its.operand_count > 0 && writes(instruction.operands[0]) && its &&
                          *its < *place + kWord && *place < *its + instruction.operands[0].size / 8;
      if (!stores || address == step.address) continue;
      if (address >= *branch.target && address < step.address) return false;
      begins |= instruction.next == *branch.target && instruction.its.mnemonic == ZYDIS_MNEMONIC_MOV &&
                instruction.operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && instruction.operands[1].imm.value.s > 0;
    }
    return begins;
  }

  // A run ends where nothing is left of the budget. Without the instructions that spend of it, and the edges that count
  // down, there is no way round.
  void check_loops() {
    enum class State : std::uint8_t { kNew, kOnTheWay, kDone };
    std::map<std::uint64_t, State> states;
    for (const auto& [root, first] : all_) {
      const Instruction* const next = after(first);
      if (spends(first) && (next == nullptr || next->its.mnemonic != ZYDIS_MNEMONIC_JNS || !is_alone(*next)))
        return refuse(root, "what is left is not looked at");
      std::vector<std::pair<std::uint64_t, bool>> open{{root, false}};
      while (!open.empty()) {
        const auto [address, is_done] = open.back();
        open.pop_back();
        if (is_done) states[address] = State::kDone;
        if (is_done || states[address] != State::kNew || spends(all_.at(address))) continue;
        states[address] = State::kOnTheWay;
        open.emplace_back(address, true);
        const Instruction& instruction = all_.at(address);
        const auto go = [&](std::uint64_t to) {
          if (states[to] == State::kOnTheWay) refuse(address, "a loop without a bound");
          open.emplace_back(to, false);
        };
        if (instruction.falls_through) go(instruction.next);
        if (instruction.target && !(*instruction.target <= address && counts_down(instruction)))
          go(*instruction.target);
      }
    }
  }

  std::span<const std::uint8_t> code_;
  std::uint64_t entry_;
  ZydisDecoder decoder_{};
  std::map<std::uint64_t, Instruction> all_;
  std::set<std::uint64_t> targets_;
  std::vector<const Instruction*> begin_;
  std::int64_t low_ = 0, run_ = 0;
  std::uint64_t last_leave_ = 0, last_rbx_ = 0, known_call_ = 0;
  bool sets_budget_ = false;
  std::string why_;
};

}  // namespace

std::string refusal_of(std::span<const std::uint8_t> code, std::uint64_t entry) {
  return Function(code, entry).refusal();
}

std::string refusal_of(const Program& program) {
  for (std::size_t probe = 0; probe < program.tree().probes.size(); ++probe) {
    std::string why = refusal_of(program.code(), reinterpret_cast<std::uint64_t>(program.function(probe)));
    if (!why.empty()) return fmt::format("block {}: {}", probe, why);
  }
  return "";
}

}  // namespace ubp::program
