// The machine code of detours, as text that reads as assembler: Xbyak writes it, into a buffer that it cannot run past,
// and what holds of a thread is noted while it does (table/detour_stages.h).
//
// Blocks that many detours have are assembled once for each shape, with blanks for what differs; a detour is put
// together from them and from the copies of the displaced instructions. Layouts of what the code reads and writes are
// the structs' own (offsetof).
//
// Context: normal. Thread-safe: no. Throws Xbyak::Error, a std::exception, where something does not fit. No memory but
// libubp's own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/xbyak.h"
#include "runtime/jump/detour_plan.h"
#include "runtime/table/detour_save.h"

namespace ubp::runtime {

// What a block leaves blank, for each detour to fill in: the last four bytes of an instruction, or eight (kList).
enum class Blank : std::uint8_t {
  kCounter,    // bytes from where the task counts to the probepoint's counter
  kInSegment,  // likewise, from %gs:0
  kDropped,    // likewise: to what a recorder drops
  kSkipped,    // likewise: to what the filter of a shortcut says no to,
  kPerformed,  // and to what it performs
  kList,       // where the pointer to the first consumer is
  kPoint,      // the probepoint's index
  kAction,     // the counter of the only action
  kToLate,     // a jump's displacement to the late block,
  kToResume,   // and back
  kToReturn,   // likewise: to where a call that is over returns, in the late block
};

// A block as it was assembled.
struct BlockCode {
  DetourBlock block;
  std::vector<std::uint8_t> bytes;
  struct Hole {
    std::uint16_t end;  // the blank ends here, bytes from the block's begin
    Blank blank;
  };
  std::vector<Hole> holes;
  std::uint16_t resume = 0;  // where the late block goes on: bytes from this block's begin
  std::uint16_t leave = 0;   // of a late block, likewise: where a call returns that is over
};

struct ShortcutStep;
class ShortcutRegisters;

class DetourAssembler : public Xbyak::CodeGenerator {
 public:
  explicit DetourAssembler(const DetourStorage& storage) : CodeGenerator(sizeof buffer_, buffer_), storage_(storage) {}

  // Counts: the slow way, and then what a hit enters. is_later: what comes from above enters it too, by a hop over the
  // slow way.
  BlockCode count(bool is_later);
  // Counts in one instruction.
  BlockCode count_by_segment();
  // Counts and records.
  BlockCode record();
  // Counts, and calls the consumers; and what belongs to that, behind the copies.
  BlockCode consumers(const DetourConsumers& consumers);
  BlockCode late(const BlockCode& first, const DetourConsumers& consumers);
  // Does what the consumers' shortcut says, and calls them where that is not all (shortcut_code.cpp).
  BlockCode shortcut(const DetourConsumers& consumers);

  // Puts a detour together, to run at an address.
  void start_at(std::uint64_t address);
  std::uint64_t here() const { return address_ + getSize(); }
  void put(const BlockCode& code) { put(std::span<const std::uint8_t>(code.bytes)); }
  // Fills the blanks of a block that was put at an offset; value(blank) gives what belongs there.
  template <typename Value>
  void fill(const BlockCode& code, std::size_t offset, const Value& value) {
    for (const BlockCode::Hole& hole : code.holes) {
      const std::size_t end = offset + hole.end;
      if (hole.blank == Blank::kList) {
        xol::store64(&buffer_[end - 8], value(hole.blank, end));
      } else {
        xol::store32(&buffer_[end - 4], static_cast<std::uint32_t>(value(hole.blank, end)));
      }
    }
  }
  // Appends what does the same as the instruction at `address`, which reads `code`.
  void copy_of(const decoder::Instruction& instruction, std::uint64_t address, std::span<const std::uint8_t> code);
  static std::uint32_t copy_bytes(const decoder::Instruction& instruction);  // how many that will be
  void jump_to(std::uint64_t target) { jmp(known_as(target), T_NEAR); }
  std::span<const std::uint8_t> written() const { return {buffer_, getSize()}; }

 private:
  static constexpr std::uint32_t kHopBytes = 2, kPushBytes = 6;  // jmp rel8; push disp32(%rip)
  static constexpr std::uint32_t kBlank = 0x7eeeeeee;            // no shorter displacement or immediate will do
  static constexpr std::uint64_t kBlankQuad = 0x7eeeeeee'eeeeeeee;

  // Appends bytes. (Xbyak's db() takes them one by one.)
  void put(std::span<const std::uint8_t> bytes) {
    const std::size_t at = getSize();
    setSize(at + bytes.size());  // throws where there is no room
    std::copy(bytes.begin(), bytes.end(), buffer_ + at);
  }
  void start_block();
  BlockCode finish_block();
  void leave_blank(Blank blank) { code_.holes.push_back({static_cast<std::uint16_t>(getSize()), blank}); }

  // Notes what holds from here on, or no longer does.
  void holds(std::uint32_t what) { note(holds_ | what); }
  void holds_no_longer(std::uint32_t what) { note(holds_ & ~what); }
  void note(std::uint32_t now);

  // Memory that the instruction at hand finds so far from %fs:0.
  Xbyak::Address thread(std::int32_t offset, const Xbyak::AddressFrame* size = nullptr);
  // A register and its place in the thread's storage.
  void spill(const Xbyak::Reg64& reg);
  void unspill(const Xbyak::Reg64& reg);
  std::int32_t spilled_at(const Xbyak::Reg64& reg) const;
  // A register and its place in the DetourSave that `base` leads to.
  void save(const Xbyak::Reg64& reg, const Xbyak::Reg64& base);
  void load(const Xbyak::Reg64& reg, const Xbyak::Reg64& base);
  Xbyak::Address saved(std::size_t offset) { return ptr[rsp + offset]; }
  // Adds one to a counter, by way of rax, and leaves the flags alone.
  void increment(const Xbyak::Address& counter);
  void increment(const Xbyak::Reg64& base, Blank blank);

  // shortcut_code.cpp
  void keep_flags();
  void restore_flags();
  void leave_shortcut(const ShortcutRegisters& registers, bool with_rcx);
  template <typename Use>
  void with_operand(const ShortcutStep& step, const ShortcutRegisters& registers, const Use& use);
  void branch(const ShortcutStep& step, const ShortcutRegisters& registers, const Xbyak::Label& target);
  void compute(const ShortcutStep& step, const ShortcutRegisters& registers);
  void count_as(Blank outcome);
  void ask(const Shortcut& shortcut, const ShortcutRegisters& registers, const Xbyak::Label& no);
  void skip();
  void perform(const Shortcut& shortcut, const ShortcutRegisters& registers, const Xbyak::Label& calls);

  // Where rcx is spilled.
  void call_consumers(const DetourConsumers& consumers);
  void slow_way(Xbyak::Label& slow);
  void enter(const Xbyak::Label& slow);
  void load_all(const DetourConsumers& consumers, bool returns);
  void save_floating(const DetourConsumers& consumers);
  void restore_floating(const DetourConsumers& consumers);
  void call_with_save(std::uint64_t function);
  void xsave(const DetourConsumers& consumers, bool restores);

  // The address by which Xbyak knows a target: it takes the code to run where it is written.
  const void* known_as(std::uint64_t target) const { return buffer_ + (target - address_); }

  DetourStorage storage_;
  std::uint64_t address_ = 0;  // where the buffer's begin will run
  BlockCode code_;             // the block being assembled
  std::uint32_t holds_ = 0;
  std::uint8_t buffer_[kMostDetourBytes];
};

}  // namespace ubp::runtime
