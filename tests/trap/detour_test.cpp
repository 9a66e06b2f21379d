// A thread whose RIP is in a detour, as a handler is shown it: what is taken from where by the stage that the detour
// notes. The stages are made up here, one for each thing that may hold; those of the real detours, and that they say
// what is so, in tests/jump/detour_stages_test.cpp.
#include <algorithm>
#include <iterator>

#include "tests/trap/fabricated.h"

using namespace ubp;
using namespace ubp::trap;
using namespace ubp::runtime;

namespace {

constexpr std::uint64_t kRsp = 0x7ffe1000;
constexpr std::uint8_t kJump = 0xe9;

// A detour of two instructions at kOrigin, three and four bytes long, both counted:
//
//   0  block `first` (its slow way the 8 bytes before), 32  the first one's copy, 35  block `later`,
//   55  the second one's copy, 59  jmp, 64  block `late`
class MadeDetour {
 public:
  static constexpr std::uint16_t kSlowWay = 8, kFirstCopy = 32, kLaterBegin = 35, kSecondCopy = 55, kJumpBack = 59,
                                 kLateBegin = 64;

  MadeDetour() {
    shape_.first = {.bytes = kSlowWay + kFirstCopy, .entry = kSlowWay, .count = 0, .stages = {}};
    later_ = {.bytes = kSecondCopy - kLaterBegin, .entry = 0, .count = 0, .stages = {}};
    shape_.late = {.bytes = 16, .entry = 0, .count = 0, .stages = {}};
    shape_.later = &later_;
    info_.entry = reinterpret_cast<std::uint64_t>(code_.data()) + 64 + sizeof(void*) + kSlowWay;
    info_.origin = kOrigin;
    info_.shape = &shape_;
    info_.bytes = kLateBegin + 16;
    info_.late = kLateBegin;
    info_.counted = 3;
    info_.jump_bytes = 5;
    info_.count = 2;
    info_.length = 7;
    info_.starts[1] = 3;
    info_.copies[0] = kFirstCopy;
    info_.copies[1] = kSecondCopy;
    const std::uint64_t address = reinterpret_cast<std::uint64_t>(&info_);
    std::memcpy(code_.data() + 64, &address, sizeof address);
    std::uint8_t* const jump = code_.data() + 64 + sizeof(void*) + kSlowWay + kJumpBack;
    const std::int32_t back = 0x1234;
    jump[0] = kJump;
    std::memcpy(jump + 1, &back, sizeof back);
    begins_[1] = 1;  // a head begins at 64
    g_process.detours.chunks[0] = {reinterpret_cast<std::uint64_t>(code_.data()), begins_.data()};
    g_process.detours.count = 1;
    g_process.detours.infos = infos_.data();
    task_ = world_.own_task();
    save_ = reinterpret_cast<DetourSave*>(reinterpret_cast<std::uint64_t>(stack_.data()) + kDetourSaveSkew);
    for (std::uint64_t reg = 0; reg < 16; ++reg) save_->registers[reg] = 0x5a00 + reg;
    save_->status = 0xd5 << 8 | 1;  // all of them
    save_->rflags = kDirectionFlag;
    save_->mask = 0x4242;
    save_->context[kContextTask] = reinterpret_cast<std::uint64_t>(task_);
    task_->consumer_stack = reinterpret_cast<std::uint64_t>(save_);
    t_thread.spilled = {0x11, 0x22, 0x33, 0};
  }

  // From the entry on, all of this holds: until the first copy, or in another block.
  void hold(unsigned holds) { put(shape_.first, holds); }
  void hold_later(unsigned holds) { put(later_, holds); }
  void hold_late(unsigned holds) { put(shape_.late, holds); }
  std::uint64_t at(int offset) const { return info_.entry + static_cast<std::uint64_t>(std::int64_t{offset}); }
  DetourSave& save() { return *save_; }
  TaskState& task() { return *task_; }
  DetourInfo& info() { return info_; }

  // A frame whose RIP is there; its registers are 0xee01 (rax) to 0xee10 (r15), but for the stack pointer.
  void stand(Frame& frame, int offset) {
    for (unsigned reg = 0; reg < 16; ++reg) frame.uc.general(reg) = 0xee01 + reg;
    frame.uc.rsp = kRsp;
    frame.uc.eflags = 0x202;
    frame.uc.rip = at(offset);
  }

 private:
  static void put(DetourBlock& block, unsigned holds) {
    block.count = 1;
    block.stages[0] = {0, holds};
  }

  World world_;
  alignas(64) std::array<std::uint8_t, 256> code_{};
  std::array<std::uint64_t, kChunkBytes / 64> begins_{};
  DetourShape shape_;
  DetourBlock later_;
  DetourInfo info_;
  std::array<const DetourInfo*, 2> infos_{&info_, nullptr};
  alignas(4096) std::array<std::uint8_t, kDetourSaveBytes> stack_{};
  DetourSave* save_;
  TaskState* task_;
};

void show(Frame& frame) { translate(&frame.uc, &frame.info); }

}  // namespace

TEST_CASE("detour, nothing holds: the origin, and the hit is still to come") {
  MadeDetour detour;
  detour.hold(0);
  for (const int offset : {-static_cast<int>(MadeDetour::kSlowWay), 0, 31}) {
    CAPTURE(offset);
    Frame frame;
    detour.stand(frame, offset);
    show(frame);
    CHECK(frame.uc.rip == kOrigin);
    CHECK(frame.return_address == 0xdead);
    CHECK(frame.uc.rax == 0xee01);
    CHECK(frame.uc.rcx == 0xee02);
    CHECK(frame.uc.rdx == 0xee03);
    CHECK(frame.uc.rsp == kRsp);
  }
}

TEST_CASE("detour: what is not its own is left alone") {
  MadeDetour detour;
  detour.hold(kCounted | kRaxSpilled);
  // Its head, and what stands behind it.
  for (const std::uint64_t rip : {detour.info().head() - 1, detour.at(detour.info().bytes)}) {
    Frame frame;
    detour.stand(frame, 0);
    frame.uc.rip = rip;
    show(frame);
    CHECK(frame.uc.rip == rip);
    CHECK(frame.uc.rax == 0xee01);
    CHECK(frame.return_address == 0xdead);
  }
}

TEST_CASE("detour: each register that is spilled comes from the thread's storage, and no other") {
  MadeDetour detour;
  for (unsigned holds = 0; holds < 8; ++holds) {
    CAPTURE(holds);
    detour.hold(holds);
    Frame frame;
    detour.stand(frame, 5);
    show(frame);
    CHECK(frame.uc.rcx == ((holds & kRcxSpilled) != 0 ? 0x11 : 0xee02));
    CHECK(frame.uc.rax == ((holds & kRaxSpilled) != 0 ? 0x22 : 0xee01));
    CHECK(frame.uc.rdx == ((holds & kRdxSpilled) != 0 ? 0x33 : 0xee03));
    CHECK(frame.uc.rbx == 0xee04);
  }
}

TEST_CASE("detour, counted: the hit goes on when the handler returns, with its consumers or without") {
  MadeDetour detour;
  for (const bool is_consumed : {false, true}) {
    detour.hold(kCounted | (is_consumed ? kNothing : kUnconsumed));
    Frame frame;
    detour.stand(frame, 5);
    show(frame);
    CHECK(frame.uc.rip == kOrigin);
    CHECK(frame.return_address == kResume);
    CHECK(frame.uc.reserved[0] == kOrigin);
    CHECK(frame.uc.reserved[1] == (is_consumed ? kConsumed : kNotConsumed));
    CHECK(frame.uc.reserved[3] == kRsp);
  }
}

TEST_CASE("detour, saved: the registers come from the DetourSave, through the stack pointer or through rcx") {
  MadeDetour detour;
  constexpr unsigned kKept[] = {3, 5, 12, 13, 14};  // rbx, rbp, r12, r13, r14: a call keeps them
  for (const bool has_kept : {false, true}) {
    for (int below = -1; below <= 2; ++below) {  // -1: in rcx; else how many words below the DetourSave rsp is
      CAPTURE(has_kept);
      CAPTURE(below);
      detour.hold(kAllSaved | kUnconsumed | (has_kept ? kKeptSaved : kNothing) | (below < 0 ? kSaveInRcx : kNothing));
      Frame frame;
      detour.stand(frame, 5);
      const auto save = reinterpret_cast<std::uint64_t>(&detour.save());
      if (below < 0) {
        frame.uc.rcx = save;
      } else {
        frame.uc.rsp = save - 8 * static_cast<std::uint64_t>(below);
      }
      show(frame);
      for (unsigned reg = 0; reg < 16; ++reg) {
        CAPTURE(reg);
        const bool stays = !has_kept && std::find(std::begin(kKept), std::end(kKept), reg) != std::end(kKept);
        CHECK(frame.uc.general(reg) == (stays ? 0xee01 + reg : 0x5a00 + reg));
      }
      CHECK(frame.uc.eflags == (0x202 | 0xd5 | 0x800));
    }
  }
}

TEST_CASE("detour: rax alone may be saved, and rcx spilled beside it") {
  MadeDetour detour;
  detour.hold(kRaxSaved | kRcxSpilled);
  Frame frame;
  detour.stand(frame, 5);
  frame.uc.rcx = reinterpret_cast<std::uint64_t>(&detour.save());  // where the DetourSave is, until all is saved
  show(frame);
  CHECK(frame.uc.rax == 0x5a00);
  CHECK(frame.uc.rcx == 0x11);
  CHECK(frame.uc.rdx == 0xee03);
  CHECK(frame.uc.eflags == 0x202);
}

TEST_CASE("detour: the status flags alone may be in rax, or spilled") {
  MadeDetour detour;
  constexpr std::uint64_t kStatusFlags = 0x8d5, kOthers = 0xffff ^ kStatusFlags;
  for (const bool is_spilled : {false, true}) {
    for (const std::uint64_t status : {std::uint64_t{0x8500}, std::uint64_t{0x5001}}) {
      detour.hold(is_spilled ? kStatusSpilled | kRaxSpilled : kStatusInRax | kRaxSpilled);
      t_thread.spilled.status = is_spilled ? status : ~status;
      Frame frame;
      detour.stand(frame, 5);
      if (!is_spilled) frame.uc.rax = status;
      frame.uc.eflags = kOthers | (kStatusFlags & 0x45);
      show(frame);
      CHECK(frame.uc.eflags == (kOthers | (status >> 8 & 0xd5) | ((status & 1) != 0 ? 0x800 : 0)));
      CHECK(frame.uc.rax == 0x22);
    }
  }
}

TEST_CASE("detour: what is still to be stored is, before rax and rdx have their values again") {
  MadeDetour detour;
  std::uint64_t cell = 41;
  for (const bool stores : {false, true}) {
    detour.hold(kCounted | kRaxSpilled | kRdxSpilled | (stores ? kStoresRax : kNothing));
    Frame frame;
    detour.stand(frame, 5);
    frame.uc.rax = 42;
    frame.uc.rdx = reinterpret_cast<std::uint64_t>(&cell);
    show(frame);
    CHECK(cell == (stores ? 42 : 41));
    CHECK(frame.uc.rax == 0x22);
    CHECK(frame.uc.rdx == 0x33);
    CHECK(frame.return_address == kResume);
    CHECK(frame.uc.reserved[1] == kConsumed);
  }
}

TEST_CASE("detour: the direction flag comes from the DetourSave, set or clear") {
  MadeDetour detour;
  for (const bool is_set : {false, true}) {
    for (const bool is_saved : {false, true}) {
      detour.hold(kAllSaved | kUnconsumed | kSaveInRcx | (is_saved ? kDirectionSaved : kNothing));
      detour.save().rflags = is_set ? kDirectionFlag : 0;
      Frame frame;
      detour.stand(frame, 5);
      frame.uc.rcx = reinterpret_cast<std::uint64_t>(&detour.save());
      frame.uc.eflags = 0x202 | (is_set ? 0 : kDirectionFlag);
      show(frame);
      CHECK(((frame.uc.eflags & kDirectionFlag) != 0) == (is_saved ? is_set : !is_set));
    }
  }
}

TEST_CASE(
    "detour: a signal that waited for its consumers is sent again, under the mask that was, for its end is not reached") {
  MadeDetour detour;
  for (const bool is_consumed : {false, true}) {
    for (const std::uint64_t deferred : {std::uint64_t{0}, std::uint64_t{1}, kDelivering}) {
      CAPTURE(is_consumed);
      CAPTURE(deferred);
      KeptMask kept;
      sys::set_signal_mask(kAllSignals);
      detour.hold(kCounted | kAllSaved | kSaveInRcx | (is_consumed ? kNothing : kUnconsumed));
      detour.task().has_deferred = deferred;
      detour.task().deferred = {};
      detour.task().deferred.si_signo = SIGUSR1;
      detour.task().deferred.si_code = SI_QUEUE;
      detour.task().deferred.si_value.sival_int = 77;
      Frame frame;
      detour.stand(frame, 5);
      frame.uc.rcx = reinterpret_cast<std::uint64_t>(&detour.save());
      frame.uc.mask = ~std::uint64_t{0};
      show(frame);
      const bool is_given_up = is_consumed && deferred != 0;
      CHECK(frame.uc.mask == (is_given_up ? 0x4242 : ~std::uint64_t{0}));
      CHECK(detour.task().has_deferred == (is_given_up ? 0 : deferred));
      siginfo_t sent{};
      CHECK(KeptMask::take(sent) == (is_given_up && deferred == 1 ? SIGUSR1 : 0));
      if (sent.si_signo != 0) CHECK(sent.si_value.sival_int == 77);
    }
  }
}

TEST_CASE("detour: a fault that names the copy names the original instruction") {
  MadeDetour detour;
  for (const bool is_second : {false, true}) {
    const int copy = is_second ? MadeDetour::kSecondCopy : MadeDetour::kFirstCopy;
    Frame frame;
    detour.stand(frame, copy);
    frame.info.si_signo = SIGFPE;
    frame.info.si_code = FPE_INTDIV;
    frame.info.si_addr = reinterpret_cast<void*>(detour.at(copy));
    show(frame);
    CHECK(frame.info.si_addr == reinterpret_cast<void*>(kOrigin + (is_second ? 3 : 0)));
  }
}

TEST_CASE("detour: at a copy its own instruction is still to be executed, and its hit counted or none") {
  MadeDetour detour;
  detour.hold(kRaxSpilled);  // says nothing of the copies
  for (const bool is_counted : {false, true}) {
    detour.info().counted = is_counted ? 3 : 1;
    Frame first, second;
    detour.stand(first, MadeDetour::kFirstCopy);
    show(first);
    CHECK(first.uc.rip == kOrigin);
    CHECK(first.return_address == kResume);
    CHECK(first.uc.rax == 0xee01);
    detour.stand(second, MadeDetour::kSecondCopy);
    show(second);
    CHECK(second.uc.rip == kOrigin + 3);
    CHECK(second.return_address == (is_counted ? kResume : 0xdead));
  }
}

TEST_CASE("detour, before the second copy: the second instruction, by its own block's stages") {
  MadeDetour detour;
  detour.hold(kRaxSpilled);
  detour.hold_later(kCounted | kRcxSpilled);
  Frame frame;
  detour.stand(frame, MadeDetour::kLaterBegin + 3);
  show(frame);
  CHECK(frame.uc.rip == kOrigin + 3);
  CHECK(frame.return_address == kResume);
  CHECK(frame.uc.rcx == 0x11);
  CHECK(frame.uc.rax == 0xee01);
}

TEST_CASE("detour, behind the copies: the jump back leads where it leads; the late block belongs to the first hit") {
  MadeDetour detour;
  Frame jump, late;
  detour.stand(jump, MadeDetour::kJumpBack);
  show(jump);
  CHECK(jump.uc.rip == detour.at(MadeDetour::kJumpBack) + 5 + 0x1234);
  CHECK(jump.return_address == 0xdead);
  detour.hold_late(kCounted | kRdxSpilled);
  detour.stand(late, MadeDetour::kLateBegin + 4);
  show(late);
  CHECK(late.uc.rip == kOrigin);
  CHECK(late.return_address == kResume);
  CHECK(late.uc.rdx == 0x33);
}

TEST_CASE("detour: a second signal that comes before the handler has begun finds what the first has shown") {
  MadeDetour detour;
  detour.hold(kCounted | kRaxSpilled | kAllSaved | kSaveInRcx | kUnconsumed);
  Frame frame;
  detour.stand(frame, 5);
  frame.uc.rcx = reinterpret_cast<std::uint64_t>(&detour.save());
  show(frame);
  const Context once = frame.uc;
  show(frame);
  CHECK(std::memcmp(&once, &frame.uc, sizeof once) == 0);
}

TEST_CASE("an emulated jump into a detour's copy, interrupted behind its store: the original of that copy") {
  MadeDetour detour;
  for (const bool is_emulated : {false, true}) {
    Frame hit, handler;
    interrupt(handler, hit, address_of(&ubp_trap_stored));
    continuation(&hit.uc).is_emulated = is_emulated;
    continuation(&hit.uc).rip = detour.at(MadeDetour::kSecondCopy);
    show(handler);
    CHECK(handler.uc.rip == kOrigin + (is_emulated ? 3 : 0));
    CHECK(handler.return_address == kResume);
    CHECK(handler.uc.reserved[0] == handler.uc.rip);
    check_copied(handler);
  }
}

TEST_CASE("the trap of a detour's own int3, interrupted before it counted: the probepoint, with nothing to go on") {
  MadeDetour detour;
  detour.hold(kLeaves);
  Frame hit, handler;
  interrupt(handler, hit, code_of(&ubp_trap_decide));
  hit.uc.rip = detour.at(-4) + 1;
  show(handler);
  CHECK(handler.uc.rip == kOrigin);
  CHECK(handler.return_address == 0xdead);

  detour.hold(0);  // control: an int3 that the detour does not own is another's, and not abandoned
  Frame other, second;
  interrupt(second, other, code_of(&ubp_trap_decide));
  other.uc.rip = detour.at(-4) + 1;
  show(second);
  CHECK(second.uc.rip == code_of(&ubp_trap_decide));
}

TEST_CASE("the trap at a boundary in a jump's window, interrupted before it went on: the instruction there") {
  MadeDetour detour;
  for (const bool is_boundary : {true, false}) {
    Frame hit, handler;
    interrupt(handler, hit, code_of(&ubp_trap_decide));
    hit.uc.rip = kOrigin + (is_boundary ? 3 : 2) + 1;
    show(handler);
    CHECK(handler.uc.rip == (is_boundary ? kOrigin + 3 : code_of(&ubp_trap_decide)));
    CHECK(handler.return_address == 0xdead);
  }
}

TEST_CASE("a single step in a detour shows where one of the program's instructions has been executed") {
  MadeDetour detour;
  detour.hold(0);
  const auto is_hidden = [&](int offset) { return is_before_copies(g_process, detour.at(offset)); };
  CHECK(is_hidden(0));
  CHECK(is_hidden(MadeDetour::kFirstCopy));
  CHECK_FALSE(is_hidden(MadeDetour::kLaterBegin));
  CHECK_FALSE(is_hidden(MadeDetour::kSecondCopy));
  CHECK_FALSE(is_hidden(MadeDetour::kJumpBack));
  CHECK_FALSE(is_before_copies(g_process, 0x403333));
}
