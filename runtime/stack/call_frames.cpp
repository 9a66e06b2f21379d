// See call_frames.h.
#include "runtime/stack/call_frames.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "runtime/symbols/readable.h"

namespace ubp::stack {
namespace {

using symbols::DwarfBytes;
using symbols::FrameEntry;

constexpr std::size_t kReturn = 16;                  // the return address, as DWARF counts
constexpr std::uint64_t kContextStackPointer = 160;  // in the kernel's ucontext

// DWARF's numbers as the hardware has them. Source: psABI, figure 3.36.
constexpr std::uint8_t kHardware[kRegisters] = {kRax, kRdx, kRcx, kRbx, kRsi, kRdi, kRbp, kRsp,
                                                8,    9,    10,   11,   12,   13,   14,   15};

// Where the value of a register is that the caller has there.
struct Place {
  enum Kind : std::uint8_t { kSame, kUndefined, kFrame, kBase, kIn, kOther } kind = kSame;
  std::int64_t offset = 0;  // bytes, from the frame address or from rbp; kIn: the register
};

// What holds at one instruction.
struct State {
  enum Kind : std::uint8_t { kNothing, kRegister, kExpression } kind = kNothing;
  std::uint64_t base = 0;  // kRegister
  std::int64_t offset = 0;
  DwarfBytes expression;
  Place places[kReturn + 1];
};

// An expression is "register + offset", the only kind of one piece that compilers make.
struct BasedOn {
  std::uint64_t base;  // as DWARF counts
  std::int64_t offset;
};
std::optional<BasedOn> read_based(DwarfBytes& expression) {
  const std::optional<std::uint64_t> operation = expression.read<std::uint8_t>();
  if (!operation || *operation < DW_OP_breg0 || *operation > DW_OP_breg16) return std::nullopt;
  const std::optional<std::int64_t> offset = expression.read_sleb128();
  if (!offset) return std::nullopt;
  return BasedOn{*operation - DW_OP_breg0, *offset};
}

bool fits(std::int64_t offset) { return offset >= INT32_MIN && offset <= INT32_MAX; }

Rule unknown() {
  Rule rule;
  rule.kind = Rule::kUnknown;
  return rule;
}

// The frame address by an expression.
Rule by_expression(DwarfBytes expression, bool is_signal_frame) {
  Rule rule = unknown();
  const std::optional<BasedOn> based = read_based(expression);
  if (!based || based->base >= kRegisters || !fits(based->offset)) return rule;
  rule.base = kHardware[based->base];
  rule.offset = static_cast<std::int32_t>(based->offset);
  const std::string_view rest(reinterpret_cast<const char*>(expression.at()), expression.left());
  constexpr char kDereference = DW_OP_deref, kAdd = DW_OP_plus_uconst;
  constexpr std::string_view kStub("\x80\x00\x3f\x1a", 4);                 // breg16 0; lit15; and
  constexpr std::string_view kThen("\x2a\x33\x24\x22");                    // ge; lit3; shl; plus
  constexpr std::size_t kWord = sizeof(std::uint64_t), kMostAdded = 0x7f;  // of one byte
  const bool is_added = rest.size() == 3 && rest[1] == kAdd && static_cast<unsigned char>(rest[2]) <= kMostAdded &&
                        static_cast<unsigned char>(rest[2]) % kWord == 0;
  if (!rest.empty() && rest[0] == kDereference && (rest.size() == 1 || is_added)) {
    rule.kind = Rule::kIndirect;
    if (is_added) rule.added_words = static_cast<std::uint8_t>(static_cast<unsigned char>(rest[2]) / kWord);
    if (is_signal_frame && !is_added && rule.base == kRsp && based->offset == kContextStackPointer)
      rule.kind = Rule::kSignalFrame;
  } else if (rest.size() == kStub.size() + 1 + kThen.size() && rest.starts_with(kStub) && rest.ends_with(kThen)) {
    const auto literal = static_cast<std::uint8_t>(rest[kStub.size()]);
    if (literal < DW_OP_lit0 || literal > DW_OP_lit15) return rule;
    rule.kind = Rule::kStub;
    rule.stub = static_cast<std::uint8_t>(literal - DW_OP_lit0);
  }
  return rule;
}

Rule rule_of(const State& state, bool is_signal_frame) {
  Rule rule = unknown();
  const Place& caller = state.places[kReturn];
  if (caller.kind == Place::kUndefined) {
    rule.kind = Rule::kEnd;
    return rule;
  }
  if (state.kind == State::kExpression) rule = by_expression(state.expression, is_signal_frame);
  if (state.kind == State::kRegister && state.base < kRegisters && fits(state.offset)) {
    rule.kind = Rule::kRegister;
    rule.base = kHardware[state.base];
    rule.offset = static_cast<std::int32_t>(state.offset);
  }
  if (rule.kind == Rule::kUnknown) return unknown();
  if (rule.kind == Rule::kSignalFrame) return rule;
  constexpr std::int64_t kWord = sizeof(std::uint64_t);
  const auto in_words = [](std::int64_t offset) {
    const std::int64_t words = offset / kWord;
    return offset % kWord == 0 && words > INT16_MIN && words < INT16_MAX ? static_cast<std::int16_t>(words)
                                                                         : Rule::kLost;
  };
  const std::int16_t return_words = in_words(caller.offset);
  if (caller.kind == Place::kIn && caller.offset >= 0 && caller.offset < std::int64_t{kRegisters}) {
    rule.return_register = kHardware[caller.offset];
  } else if (caller.kind == Place::kFrame && return_words != Rule::kLost) {
    rule.return_words = return_words;
  } else {
    return unknown();
  }
  for (std::size_t number = 0; number < kRegisters; ++number) {
    const std::size_t index = kept_index(kHardware[number]);
    const Place& place = state.places[number];
    if (index == kKept || place.kind == Place::kSame) continue;
    std::int16_t words = Rule::kLost;
    if (place.kind == Place::kFrame) words = in_words(place.offset);
    if (place.kind == Place::kFrame && words == Rule::kSame) words = Rule::kLost;
    if (place.kind == Place::kBase) {  // one more, so that none is kSame
      words = in_words(place.offset + kWord);
      if (words == Rule::kSame) words = Rule::kLost;
      if (words != Rule::kLost) rule.from_rbp |= static_cast<std::uint8_t>(1U << index);
    }
    rule.kept[index] = words;
  }
  return rule;
}

// Carries instructions out.
class Machine {
 public:
  Machine(const FrameEntry& entry, const std::function<void(std::uint64_t, const Rule&)>& row)
      : entry_(entry), row_(row) {}

  bool run() {
    if (!carry_out(entry_.common.instructions)) return false;
    initial_ = state_;
    at_ = 0;
    const bool is_whole = entry_.common.return_register == kReturn && carry_out(entry_.instructions);
    emit();
    return is_whole;
  }

 private:
  void emit() { row_(at_, rule_of(state_, entry_.common.is_signal_frame)); }

  bool advance(std::optional<std::uint64_t> count) {
    if (!count || *count > entry_.range.size) return false;
    const std::uint64_t distance = *count * entry_.common.code_factor;
    if (distance == 0) return true;
    if (distance / *count != entry_.common.code_factor || distance >= entry_.range.size - at_) return false;
    emit();
    at_ += distance;
    return true;
  }

  void place(std::optional<std::uint64_t> number, Place::Kind kind, std::int64_t offset) {
    if (number && *number <= kReturn) state_.places[*number] = {kind, offset};
  }
  std::int64_t scaled(std::uint64_t value) const {  // wraps
    return static_cast<std::int64_t>(value * static_cast<std::uint64_t>(entry_.common.data_factor));
  }

  bool carry_out(DwarfBytes code) {
    while (code.left() != 0) {
      if (!one(code)) return false;
    }
    return true;
  }

  bool one(DwarfBytes& code) {
    constexpr std::uint64_t kHigh = 0xc0, kLow = 0x3f;
    const std::uint64_t operation = *code.read<std::uint8_t>();
    switch (operation & kHigh) {
      case DW_CFA_advance_loc: return advance(operation & kLow);
      case DW_CFA_offset: return offset(operation & kLow, code.read_uleb128());
      case DW_CFA_restore: return restore(operation & kLow);
      default: return extended(operation, code);
    }
  }

  bool offset(std::optional<std::uint64_t> number, std::optional<std::uint64_t> factored) {
    if (!number || !factored) return false;
    place(number, Place::kFrame, scaled(*factored));
    return true;
  }
  bool restore(std::optional<std::uint64_t> number) {
    if (!number) return false;
    if (*number <= kReturn) state_.places[*number] = initial_.places[*number];
    return true;
  }

  bool define(std::optional<std::uint64_t> base, std::optional<std::int64_t> offset) {
    if (!base || !offset) return false;
    state_.kind = State::kRegister;
    state_.base = *base;
    state_.offset = *offset;
    return true;
  }
  std::optional<std::int64_t> read_signed(DwarfBytes& code) const {
    const std::optional<std::int64_t> value = code.read_sleb128();
    if (!value) return std::nullopt;
    return scaled(static_cast<std::uint64_t>(*value));
  }
  static std::optional<std::int64_t> read_plain(DwarfBytes& code) {
    const std::optional<std::uint64_t> value = code.read_uleb128();
    if (!value) return std::nullopt;
    return static_cast<std::int64_t>(*value);
  }

  // A register's place by an expression: what compilers make is rbp + offset.
  bool by_expression(std::optional<std::uint64_t> number, DwarfBytes& code, bool is_value) {
    const std::optional<std::uint64_t> size = code.read_uleb128();
    if (!number || !size || *size > code.left()) return false;
    DwarfBytes expression = code.take(*size);
    const std::optional<BasedOn> based = read_based(expression);
    const bool is_plain = based && expression.left() == 0 && !is_value && based->base < kRegisters &&
                          kHardware[based->base] == kRbp && fits(based->offset);
    place(number, is_plain ? Place::kBase : Place::kOther, is_plain ? based->offset : 0);
    return true;
  }

  bool extended(std::uint64_t operation, DwarfBytes& code) {
    constexpr std::size_t kMostRemembered = 64;
    const auto number = [&] { return code.read_uleb128(); };
    switch (operation) {
      case DW_CFA_nop: return true;
      case DW_CFA_advance_loc1: return advance(code.read<std::uint8_t>());
      case DW_CFA_advance_loc2: return advance(code.read<std::uint16_t>());
      case DW_CFA_advance_loc4: return advance(code.read<std::uint32_t>());
      case DW_CFA_offset_extended: {
        const auto its = number();
        return offset(its, code.read_uleb128());
      }
      case DW_CFA_offset_extended_sf: {
        const auto its = number();
        const std::optional<std::int64_t> at = read_signed(code);
        if (!its || !at) return false;
        place(its, Place::kFrame, *at);
        return true;
      }
      case DW_CFA_restore_extended: return restore(number());
      case DW_CFA_undefined: {
        const auto its = number();
        place(its, Place::kUndefined, 0);
        return its.has_value();
      }
      case DW_CFA_same_value: {
        const auto its = number();
        place(its, Place::kSame, 0);
        return its.has_value();
      }
      case DW_CFA_register: {
        const auto its = number(), in = number();
        if (!its || !in) return false;
        place(its, Place::kIn, static_cast<std::int64_t>(*in));
        return true;
      }
      case DW_CFA_remember_state:
        if (remembered_.size() == kMostRemembered) return false;
        remembered_.push_back(state_);
        return true;
      case DW_CFA_restore_state:
        if (remembered_.empty()) return false;
        state_ = remembered_.back();
        remembered_.pop_back();
        return true;
      case DW_CFA_def_cfa: {
        const auto base = number();
        return define(base, read_plain(code));
      }
      case DW_CFA_def_cfa_sf: {
        const auto base = number();
        return define(base, read_signed(code));
      }
      case DW_CFA_def_cfa_register: return state_.kind == State::kRegister && define(number(), state_.offset);
      case DW_CFA_def_cfa_offset: return state_.kind == State::kRegister && define(state_.base, read_plain(code));
      case DW_CFA_def_cfa_offset_sf: return state_.kind == State::kRegister && define(state_.base, read_signed(code));
      case DW_CFA_def_cfa_expression: {
        const std::optional<std::uint64_t> size = code.read_uleb128();
        if (!size || *size > code.left()) return false;
        state_.kind = State::kExpression;
        state_.expression = code.take(*size);
        return true;
      }
      case DW_CFA_expression: {
        const auto its = number();
        return by_expression(its, code, false);
      }
      case DW_CFA_val_expression: {
        const auto its = number();
        return by_expression(its, code, true);
      }
      case DW_CFA_val_offset: {
        const auto its = number();
        place(its, Place::kOther, 0);
        return its && code.read_uleb128();
      }
      case DW_CFA_val_offset_sf: {
        const auto its = number();
        place(its, Place::kOther, 0);
        return its && code.read_sleb128();
      }
      case DW_CFA_GNU_args_size: return code.read_uleb128().has_value();
      default: return false;
    }
  }

  const FrameEntry& entry_;
  const std::function<void(std::uint64_t, const Rule&)>& row_;
  State state_, initial_;
  std::vector<State> remembered_;
  std::uint64_t at_ = 0;
};

// .eh_frame by its index: from its begin to the end of the segment, since nothing says where it ends.
std::optional<symbols::SectionBytes> frames_of(const symbols::Module& module, symbols::Readable& readable) {
  constexpr std::uint64_t kHeader = 8;
  constexpr std::uint8_t kPcRelative = DW_EH_PE_pcrel | DW_EH_PE_sdata4;
  if (module.unwind_index == 0) return std::nullopt;
  const std::uint8_t* const header = module.bytes_at(module.unwind_index, kHeader, readable);
  if (header == nullptr || header[0] != 1 || header[1] != kPcRelative) return std::nullopt;
  std::int32_t distance = 0;
  std::memcpy(&distance, header + 4, sizeof distance);
  const std::uint64_t address = module.unwind_index + 4 + static_cast<std::uint64_t>(std::int64_t{distance});
  const symbols::Segment* const segment = module.segment_at(address);
  if (segment == nullptr || address - segment->address >= segment->file_size) return std::nullopt;
  const std::uint64_t most = segment->file_size - (address - segment->address);
  if (module.bytes_at(address, 1, readable) == nullptr) return std::nullopt;
  const std::uint64_t begin = module.bias + address;
  const std::uint64_t size = readable.end_of(begin, begin + most) - begin;
  return symbols::SectionBytes{reinterpret_cast<const std::uint8_t*>(begin), size, address};
}

}  // namespace

RuleSet::RuleSet(Rule* rules) : rules_(rules) {
  for (const Rule& rule : {Rule{}, unknown()}) {
    rules_[numbers_.size()] = rule;
    numbers_.emplace(rule, static_cast<std::uint16_t>(numbers_.size()));
  }
}

std::size_t RuleSet::Hash::operator()(const Rule& rule) const {
  static_assert(std::has_unique_object_representations_v<Rule>);
  return std::hash<std::string_view>()({reinterpret_cast<const char*>(&rule), sizeof rule});
}

std::uint16_t RuleSet::number_of(const Rule& rule) {
  if (const auto found = numbers_.find(rule); found != numbers_.end()) return found->second;
  const std::size_t next = numbers_.size();
  if (next == kMostRules) return numbers_.at(unknown());
  rules_[next] = rule;
  numbers_.emplace(rule, static_cast<std::uint16_t>(next));
  return static_cast<std::uint16_t>(next);
}

bool rules_of(const FrameEntry& entry, const std::function<void(std::uint64_t, const Rule&)>& row) {
  return Machine(entry, row).run();
}

ModuleRules compile(const symbols::Module& module, RuleSet& rules) {
  ModuleRules compiled;
  compiled.low = module.low();
  compiled.high = module.high();
  symbols::Readable readable;
  const std::optional<symbols::SectionBytes> frames = frames_of(module, readable);
  if (!frames || compiled.high - compiled.low > UINT32_MAX) return compiled;
  // Rows of one function after the other, in the order of the entries; then of the addresses.
  struct Function {
    std::uint64_t begin, end;  // from compiled.low on
    std::size_t first, count;  // rows
  };
  std::vector<Function> functions;
  std::vector<std::pair<std::uint32_t, std::uint16_t>> rows;
  symbols::visit_frames(*frames, [&](const FrameEntry& entry) {
    const symbols::Segment* const segment = module.segment_at(entry.range.address);
    if (segment == nullptr || entry.range.size > segment->size - (entry.range.address - segment->address)) return;
    Function function{entry.range.address + module.bias - compiled.low, 0, rows.size(), 0};
    function.end = function.begin + entry.range.size;
    const bool is_whole = rules_of(entry, [&](std::uint64_t offset, const Rule& rule) {
      rows.emplace_back(static_cast<std::uint32_t>(function.begin + offset), rules.number_of(rule));
    });
    if (!is_whole) {
      rows.resize(function.first);
      rows.emplace_back(static_cast<std::uint32_t>(function.begin), rules.number_of(unknown()));
    }
    function.count = rows.size() - function.first;
    functions.push_back(function);
  });
  std::stable_sort(functions.begin(), functions.end(),
                   [](const Function& a, const Function& b) { return a.begin < b.begin; });
  const auto add = [&](std::uint64_t start, std::uint16_t rule) {
    if (!compiled.rules.empty() && compiled.rules.back() == rule) return;
    compiled.starts.push_back(static_cast<std::uint32_t>(start));
    compiled.rules.push_back(rule);
  };
  compiled.starts.reserve(rows.size() + functions.size());
  compiled.rules.reserve(rows.size() + functions.size());
  std::uint64_t end = 0;
  for (const Function& function : functions) {
    if (function.begin < end) continue;  // a damaged one, or a second one for the same code
    if (function.begin > end) add(end, 0);
    for (std::size_t i = function.first; i < function.first + function.count; ++i) add(rows[i].first, rows[i].second);
    end = function.end;
  }
  if (!functions.empty()) add(end, 0);
  return compiled;
}

}  // namespace ubp::stack
