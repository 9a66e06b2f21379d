// What of a program a detour does by itself, so that a hit which needs no more goes no further: its filter, where that
// is made of registers and numbers. program/shortcut.cpp makes it of the tree, jump/shortcut_code.cpp machine code of
// it.
//
// Plain data. Context: load time.
#pragma once

#include <cstdint>
#include <vector>

namespace ubp::runtime {

// One step. There is one number at hand, at first none.
struct ShortcutStep {
  enum Kind : std::uint8_t {
    kLoad,  // the number at hand is the operand
    kAdd,   // and from here on what it is with the operand
    kSubtract,
    kMultiply,
    kAnd,
    kOr,
    kXor,
    kShiftLeft,  // by the operand modulo 64
    kShiftRight,
    kShiftSigned,
    kExtend,  // its lowest operand bits: 8, 16 or 32
    kBranch,  // the number at hand, or a register, compared with the operand: to `label` if `condition` holds
    kGo,      // to `label`
    kLabel,   // which is here, and further on than what leads to it
  } kind;
  bool is_register = false;    // the operand is what is in the register of this number
  bool is_signed = false;      // kExtend
  std::int8_t subject = -1;    // kBranch: the register; -1: the number at hand
  std::uint8_t condition = 0;  // kBranch: as the hardware numbers them, in jcc
  std::uint16_t label = 0;     // kBranch, kGo, kLabel: below Shortcut::labels
  std::uint64_t operand = 0;
};

struct Shortcut {
  static constexpr std::uint16_t kNo = 0;  // the label where the filter says no; behind the last step it says yes
  std::vector<ShortcutStep> filter;        // none: every hit is to be performed
  std::uint16_t labels = 1;

  // What is done where the filter says yes.
  enum Act : std::uint8_t {
    kCall,         // the program is called
    kAddOne,       // to the task's own cell
    kAddValue,     // the number at hand behind the steps `value`
    kAddToBucket,  // one to a cell further on: the first, 0, that number's lowest bit, ...
  } act = kCall;
  bool calls_negative = false;  // kAddToBucket: a number below 0 has a bucket that only the program knows
  std::vector<ShortcutStep> value;
  std::uint64_t* const* cells = nullptr;  // by TaskState::block: a task's own first cell; null: the program knows
  const std::uint32_t* gate = nullptr;    // not 0: the program knows
};

}  // namespace ubp::runtime
