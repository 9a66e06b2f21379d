// Who called whom, from a hit on: a walk over the stack that cannot fault, takes no lock and allocates nothing.
//
// A frame's caller is found by the call frame information of its code (frame_rules.h), and where there is none (code
// made at run time) by frame pointers. A signal frame leads to what the signal interrupted. Of the registers that
// functions keep for their callers only rbp is followed from frame to frame; where a rule needs another one, the walk
// begins again and follows that one too.
//
// Inline and free of libc. Context: hits. Async-signal-safe: yes. Thread-safe: yes. Bounded by the number of frames.
#pragma once

#include "runtime/stack/frame_rules.h"

namespace ubp::stack {

// Set in a frame's address where it is the instruction that a signal interrupted: all other addresses but the first one
// are those that calls return to, and stand behind their instruction.
inline constexpr std::uint64_t kInterrupted = std::uint64_t{1} << 63;
// In place of a frame: the one before it has a caller that could not be found.
inline constexpr std::uint64_t kNotFound = ~std::uint64_t{0};
inline constexpr std::uint64_t kMostFrames = 1024;

// Where a walk begins.
struct Start {
  std::uint64_t address;  // of the instruction that is next
  std::uint64_t registers[kRegisters];
};

// Read: bool(std::uint64_t address, std::uint64_t* to, std::uint64_t words); false: they cannot be read.
template <typename Read>
class Walk {
 public:
  Walk(const FrameTables& tables, const Start& start, const Read& read) : tables_(tables), start_(start), read_(read) {}

  // Returns how many frames there are, at most `limit`.
  std::uint64_t run(std::uint64_t* frames, std::uint64_t limit) {
    for (;;) {
      const std::uint64_t count = follow(frames, limit);
      if (wanted_ == kNoRegister) return count;
      followed_ |= 1U << wanted_;
    }
  }

 private:
  enum class Step : std::uint8_t { kCaller, kEnd, kLostWay };

  std::uint64_t follow(std::uint64_t* frames, std::uint64_t limit) {
    wanted_ = kNoRegister;
    pc_ = start_.address;
    for (std::size_t i = 0; i < kRegisters; ++i) values_[i] = start_.registers[i];
    known_ = (1U << kRegisters) - 1;
    is_exact_ = true;
    std::uint64_t count = 0;
    bool is_first = true;
    while (count < limit) {
      frames[count++] = is_exact_ && !is_first ? pc_ | kInterrupted : pc_;
      is_first = false;
      const Step step = to_caller(rule_at(tables_, is_exact_ ? pc_ : pc_ - 1));
      if (wanted_ != kNoRegister) return 0;
      if (step == Step::kEnd) break;
      if (step == Step::kLostWay) {
        if (count < limit) frames[count++] = kNotFound;
        break;
      }
    }
    return count;
  }

  // False: it is not known, and the walk may have to begin again (wanted_).
  bool value_of(std::uint8_t number, std::uint64_t& value) {
    if ((known_ >> number & 1) == 0) {
      if (kept_index(number) != kKept && (followed_ >> number & 1) == 0) wanted_ = number;
      return false;
    }
    value = values_[number];
    return true;
  }

  Step to_caller(const Rule& rule) {
    switch (rule.kind) {
      case Rule::kEnd: return Step::kEnd;
      case Rule::kUnknown: return Step::kLostWay;
      case Rule::kNone: return by_frame_pointer();
      case Rule::kSignalFrame: return to_interrupted();
      default: break;
    }
    std::uint64_t frame = 0;
    if (!value_of(rule.base, frame)) return Step::kLostWay;
    frame += static_cast<std::uint64_t>(std::int64_t{rule.offset});
    if (rule.kind == Rule::kStub && pc_ % 16 >= rule.stub) frame += sizeof(std::uint64_t);
    if (rule.kind == Rule::kIndirect) {
      if (!read_(frame, &frame, 1)) return Step::kLostWay;
      frame += sizeof(std::uint64_t) * rule.added_words;
    }
    std::uint64_t caller = 0;
    constexpr std::size_t kRbpIndex = 1;
    const std::int16_t kept = rule.kept[kRbpIndex];
    const bool is_pair = kept == rule.return_words - 1 && (rule.from_rbp >> kRbpIndex & 1) == 0 &&
                         kept != Rule::kSame && rule.return_register == kNoRegister;
    if (is_pair) {  // as nearly all have them
      std::uint64_t pair[2];
      if (!read_(frame + at_words(kept), pair, 2)) return Step::kLostWay;
      values_[kRbp] = pair[0];
      caller = pair[1];
    } else if (rule.return_register != kNoRegister) {
      if (!value_of(rule.return_register, caller)) return Step::kLostWay;
    } else if (!read_(frame + at_words(rule.return_words), &caller, 1)) {
      return Step::kLostWay;
    }
    const std::uint64_t its_rbp = values_[kRbp];
    if (!is_pair) restore(kRbp, rule, frame, its_rbp);
    if (followed_ != 0) [[unlikely]] {
      for (std::uint8_t number = kRbx; number < kRegisters; ++number) {
        if (number != kRbp && (followed_ >> number & 1) != 0) restore(number, rule, frame, its_rbp);
      }
    }
    values_[kRsp] = frame;
    return leave_to(caller);
  }

  static std::uint64_t at_words(std::int16_t words) { return static_cast<std::uint64_t>(std::int64_t{words} * 8); }

  // rbp: what it is in the frame.
  void restore(std::uint8_t number, const Rule& rule, std::uint64_t frame, std::uint64_t rbp) {
    const std::size_t index = kept_index(number);
    const std::int16_t words = rule.kept[index];
    if (words == Rule::kSame) return;
    const std::uint64_t from = (rule.from_rbp >> index & 1) != 0 ? rbp - sizeof(std::uint64_t) : frame;
    if (words == Rule::kLost || !read_(from + at_words(words), &values_[number], 1)) known_ &= ~(1U << number);
  }

  Step leave_to(std::uint64_t caller) {
    constexpr std::uint64_t kLowest = 4096;  // nothing is mapped below
    const std::uint32_t followed = followed_ | 1U << kRsp | 1U << kRbp;
    known_ &= followed;
    is_exact_ = false;
    pc_ = caller;
    return caller < kLowest || caller >= kInterrupted ? Step::kEnd : Step::kCaller;
  }

  Step by_frame_pointer() {
    if (is_at_restorer()) return to_interrupted();
    const std::uint64_t frame = values_[kRbp];
    std::uint64_t pair[2];
    constexpr std::uint64_t kWord = sizeof(std::uint64_t);
    if ((known_ >> kRbp & 1) == 0 || frame < values_[kRsp] || frame % kWord != 0 || !read_(frame, pair, 2))
      return Step::kEnd;
    values_[kRbp] = pair[0];
    values_[kRsp] = frame + 2 * kWord;
    known_ &= 1U << kRsp | 1U << kRbp;  // nobody knows where the others are
    return leave_to(pair[1]);
  }

  // Whether a signal's handler returns there: mov $15, %rax; syscall. At the stack pointer is then what the kernel has
  // put there: some flags, and no link. That says it of nearly all others. Source: arch/x86/kernel/signal_64.c.
  bool is_at_restorer() {
    constexpr std::uint64_t kRestorer = 0x0f0000000fc0c748, kThen = 0x05, kMostFlags = 0xff;
    std::uint64_t words[2];
    if (!read_(values_[kRsp], words, 2) || words[0] > kMostFlags || words[1] != 0) return false;
    return read_(pc_, words, 2) && words[0] == kRestorer && (words[1] & 0xff) == kThen;
  }

  // The kernel's ucontext is at the stack pointer. Source: uapi/asm/ucontext.h, uapi/asm/sigcontext.h.
  Step to_interrupted() {
    constexpr std::uint64_t kFirst = 40, kWords = 17;  // r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip
    constexpr std::uint8_t kPlaces[kRegisters] = {13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7};
    std::uint64_t words[kWords];
    if (!read_(values_[kRsp] + kFirst, words, kWords)) return Step::kLostWay;
    for (std::size_t i = 0; i < kRegisters; ++i) values_[i] = words[kPlaces[i]];
    known_ = (1U << kRegisters) - 1;
    is_exact_ = true;
    pc_ = words[kWords - 1];
    return pc_ >= kInterrupted ? Step::kEnd : Step::kCaller;
  }

  const FrameTables& tables_;
  const Start& start_;
  const Read& read_;
  std::uint64_t pc_ = 0;
  std::uint64_t values_[kRegisters];
  std::uint32_t known_ = 0;     // bits, by number: whose values are those of the frame
  std::uint32_t followed_ = 0;  // beside rsp and rbp
  std::uint8_t wanted_ = kNoRegister;
  bool is_exact_ = true;
};

}  // namespace ubp::stack
