// See stepped_detour.h.
#include "tests/jump/stepped_detour.h"

#include <cpuid.h>
#include <doctest/doctest.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "decoder/classify.h"

namespace ubp::runtime {
namespace {

using trap::Context;
using trap::g_process;

constexpr std::uint64_t kTrapFlag = 0x100, kStatus = 0x8d5, kCarry = 1, kZero = 0x40, kDefaultMxcsr = 0x1f80,
                        kRoundsUp = 0x4000;
constexpr std::uint32_t kDropped = 20, kSkipped = 21, kPerformed = 22;  // counters that no part has
constexpr std::uint8_t kAddOne[] = {0x48, 0x8d, 0x5b, 0x01}, kReturn = 0xc3;
constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::size_t kRax = 0, kRcx = 1, kRbx = 3, kRsp = 4, kR11 = 11;
constexpr std::uint64_t kReturned = 0x1234'5678'9abc'def0, kCallerOffset = 512;  // of a call that is over

SteppedDetour* g_stepped = nullptr;
thread_local std::uint8_t t_cancel = 0;
sigjmp_buf g_faulted;  // a spoilt stage takes any register for a pointer

template <typename T>
std::int32_t from_thread(const T& object) {
  return static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(&object) -
                                   reinterpret_cast<std::uint64_t>(__builtin_thread_pointer()));
}

bool has_xsavec() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(0xd, 1, &a, &b, &c, &d) != 0 && (a & 2) != 0;
}

// The frame of a handler, with what translate() writes below it.
struct Frame {
  std::uint64_t padding = 0;
  std::uint64_t return_address = 0xdead;
  alignas(16) Context uc{};
  siginfo_t info{};
};
static_assert(offsetof(Frame, uc) - offsetof(Frame, return_address) == 8);

[[gnu::noinline]] void launch() { asm volatile("int3" ::: "memory"); }

std::uint8_t* map(std::size_t bytes, int protection, int flags = 0) {
  void* const memory = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return static_cast<std::uint8_t*>(memory);
}

}  // namespace

SteppedDetour::SteppedDetour(const Kind& kind)
    : kind_(kind), begins_(kChunkBytes / 64), ring_(record::kRingRecords), signal_stack_(65536) {
  constexpr int kAll = PROT_READ | PROT_WRITE | PROT_EXEC;
  mapping_ = reinterpret_cast<std::uint64_t>(map(3 * kChunkBytes, PROT_NONE));
  const std::uint64_t chunk = (mapping_ + 2 * kChunkBytes - 1) & ~(kChunkBytes - 1);
  origin_ = chunk - kTextBytes;
  REQUIRE(mprotect(reinterpret_cast<void*>(origin_), 2 * kTextBytes, kAll) == 0);
  segment_ = reinterpret_cast<std::uint64_t*>(map(4096, PROT_READ | PROT_WRITE, MAP_32BIT));
  stack_ = map(kStackBytes + kDetourSaveBytes, PROT_READ | PROT_WRITE);

  std::construct_at(&g_process);
  task_ = std::make_unique<trap::TaskState>();
  sink_.assign(16 * 0x1111 + 2 * kDetourSaveBytes, reinterpret_cast<std::uint64_t>(task_.get()));
  task_->counters = counters_.data();
  task_->jumped = counters_.data();
  task_->tid = 4711;
  task_->block = kBlock;
  task_->consumer_stack = reinterpret_cast<std::uint64_t>(stack_ + kStackBytes) + kDetourSaveSkew;
  auto* const save = reinterpret_cast<DetourSave*>(task_->consumer_stack);
  save->context[1] = task_->consumer_stack;
  save->context[kContextTask] = reinterpret_cast<std::uint64_t>(task_.get());
  save->counters = reinterpret_cast<std::uint64_t>(counters_.data());
  trap::t_thread.state = task_.get();

  // The probed code, and where it leads to.
  auto* const text = reinterpret_cast<std::uint8_t*>(origin_);
  DetourPlan plan;
  table_ = std::make_unique<Table>(kParts);
  for (std::uint32_t part = 0; part < kParts; ++part) {
    std::copy_n(kAddOne, kPartBytes, text + part * kPartBytes);
    const bool is_point = part != 1, by_segment = part == 3 || (part == 0 && kind.by_segment);
    plan.parts.push_back({static_cast<std::uint8_t>(part * kPartBytes),
                          decoder::classify({text + part * kPartBytes, kPartBytes}), is_point, by_segment,
                          static_cast<std::uint32_t>(part * sizeof(std::uint64_t))});
    xol::Displaced point{};
    point.address = static_cast<std::int64_t>(origin_ + part * kPartBytes);
    point.length = kPartBytes;
    point.route = decoder::Route::kSlot;
    if (is_point) table_->add(point);
  }
  plan.length = kParts * kPartBytes;
  std::uint8_t* const empty_function = text + 256;
  *empty_function = kReturn;
  g_process.table = table_->view();

  const trap::Thread& thread = trap::t_thread;
  const DetourStorage storage{from_thread(thread.state),
                              from_thread(thread.spilled.rcx),
                              from_thread(thread.spilled.rax),
                              from_thread(thread.spilled.rdx),
                              static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(segment_)),
                              from_thread(thread.spilled.status)};
  writer_ = std::make_unique<DetourWriter>(storage);
  DetourConsumers consumers;
  consumers.needs = kind.needs;
  consumers.list = reinterpret_cast<std::uint64_t>(&first_consumer_);
  consumers.dropped = kDropped * sizeof(std::uint64_t);
  consumers.skipped = kSkipped * sizeof(std::uint64_t);
  consumers.performed = kPerformed * sizeof(std::uint64_t);
  consumers.is_inside = kind.is_inside;
  consumers.error = from_thread(errno);
  consumers.cancel = from_thread(t_cancel);
  consumers.floating = {3, has_xsavec(), 0, 0};  // x87 and SSE
  if (kind.has_moves)
    consumers.floating.save = consumers.floating.restore = reinterpret_cast<std::uint64_t>(empty_function);
  for (std::size_t i = 0; i < list_.size(); ++i) {
    list_[i] = {{ActionKind::kCall, &SteppedDetour::consume, this, kind.needs},
                i + 1 < list_.size() ? &list_[i + 1] : nullptr,
                30 * sizeof(std::uint64_t),
                nullptr,
                0};
  }
  const DetourConsumers* const called = kind.calls ? &consumers : nullptr;
  const DetourSize size = writer_->size_of(plan, called);
  info_.entry = chunk + 64 + size.head;
  info_.origin = origin_;
  info_.jump_bytes = decoder::kJumpBytes;
  auto* const code = reinterpret_cast<std::uint8_t*>(info_.entry - size.head);
  writer_->write({code, size.head + size.code}, info_, plan, {text, plan.length}, called);
  begins_[1] = 1;
  g_process.detours.chunks[0] = {chunk, begins_.data()};
  g_process.detours.count = 1;
  g_process.detours.infos = infos_.data();
  REQUIRE(info_.head() == chunk + 64);

  g_stepped = this;
  stack_t signal_stack{};
  signal_stack.ss_sp = signal_stack_.data();
  signal_stack.ss_size = signal_stack_.size();
  REQUIRE(sigaltstack(&signal_stack, &signal_stack_was_) == 0);
  struct sigaction act {};
  act.sa_sigaction = &SteppedDetour::on_trap;
  act.sa_flags = SA_SIGINFO | SA_ONSTACK;
  REQUIRE(sigaction(SIGTRAP, &act, &trap_was_) == 0);
  act.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_faulted, 1); };
  REQUIRE(sigaction(SIGSEGV, &act, &fault_was_) == 0);
}

SteppedDetour::~SteppedDetour() {
  sigaction(SIGSEGV, &fault_was_, nullptr);
  sigaction(SIGTRAP, &trap_was_, nullptr);
  sigaltstack(&signal_stack_was_, nullptr);
  g_stepped = nullptr;
  trap::t_thread.state = trap::g_nobody.state;
  std::construct_at(&g_process);
  munmap(reinterpret_cast<void*>(mapping_), 3 * kChunkBytes);
  munmap(segment_, 4096);
  munmap(stack_, kStackBytes + kDetourSaveBytes);
}

SteppedDetour::Blocks SteppedDetour::blocks() const {
  return {*info_.shape, *info_.shape->later, *info_.shape->by_segment};
}

void SteppedDetour::use(Blocks& blocks) {
  blocks.shape.later = &blocks.later;
  blocks.shape.by_segment = &blocks.by_segment;
  info_.shape = &blocks.shape;
}

bool SteppedDetour::is_of_one_instruction(std::size_t block, std::uint32_t stage) const {
  constexpr std::uint32_t kLaterPart = 2;
  Blocks own = blocks();
  const DetourBlock& stages = *own.all()[block];
  const std::uint64_t begins[] = {info_.entry - stages.entry, info_.entry + info_.late,
                                  info_.entry + info_.copies[kLaterPart] - stages.bytes};
  const std::uint32_t begin = stages.stages[stage].begin,
                      end = stage + 1 < stages.count ? stages.stages[stage + 1].begin : stages.bytes;
  return decoder::length_of({reinterpret_cast<const std::uint8_t*>(begins[block] + begin), end - begin}) == end - begin;
}

std::set<std::uint64_t> SteppedDetour::boundaries() const {
  std::set<std::uint64_t> found;
  const std::uint64_t end = info_.entry + info_.bytes;
  for (std::uint64_t at = info_.head() + sizeof(void*); at < end;) {
    found.insert(at - info_.entry);
    const std::uint8_t length = decoder::length_of({reinterpret_cast<const std::uint8_t*>(at), end - at});
    REQUIRE(length != 0);
    at += length;
  }
  return found;
}

void SteppedDetour::run(const Scenario& scenario) {
  scenario_ = scenario;
  task_->fast = scenario.counts_alone ? task_->jumped : nullptr;
  task_->ring = scenario.has_ring ? reinterpret_cast<std::uint64_t>(ring_.data()) : 0;
  task_->ring_head = 0x1fffe;  // not far from the ring's end
  task_->ring_limit = task_->ring_head + (scenario.is_full ? 0 : 100);
  task_->consumer = 0;
  task_->has_deferred = 0;
  first_consumer_ =
      scenario.consumers == 0 ? nullptr : &list_[list_.size() - static_cast<std::size_t>(scenario.consumers)];
  t_cancel = scenario.is_disabled ? 1 : 0;
  g_gate = scenario.is_closed ? 1 : 0;
  g_own_cells[kBlock] = scenario.has_cells ? g_cells : nullptr;
  calls_ = delivered_ = 0;
  executed_ = 0;
  steps_ = 0;
  was_lost_ = {};
  last_ = 0;
  const unsigned mxcsr = _mm_getcsr();
  if (scenario.has_own_mxcsr) _mm_setcsr(kDefaultMxcsr | kRoundsUp);
  launch();
  _mm_setcsr(mxcsr);
}

void SteppedDetour::on_trap(int, siginfo_t* info, void* context) {
  g_stepped->trap(info, static_cast<Context*>(context));
}

void SteppedDetour::consume(const ubp_context* context, void* data) {
  auto& self = *static_cast<SteppedDetour*>(data);
  ++self.calls_;
  if (self.kind_.needs.modifies) {
    context->save->registers[kRbx] += 100;
    self.registers_[kRbx] += 100;
  }
  if (self.scenario_.changes_errno) errno = 77;
  if (self.scenario_.overrides)
    self.expect(override_call(*context, kReturned) == (self.kind_.needs.overrides && self.calls_ == 1), "who overrides",
                0);
  if (self.scenario_.defers && self.calls_ == self.scenario_.consumers) {
    context->save->mask = 0x1234;
    self.task_->has_deferred = 1;
  }
}

void SteppedDetour::begin(Context* uc) {
  launched_ = *uc;
  for (unsigned reg = 0; reg < 16; ++reg)
    registers_[reg] = uc->general(reg) = reinterpret_cast<std::uint64_t>(&sink_[reg * 0x1111]);
  if (!scenario_.passes) registers_[kR11] = uc->r11 = 0;
  flags_ = 0x202 | (scenario_.is_zero ? kZero : kStatus & ~kZero) | (scenario_.goes_backwards ? kDirectionFlag : 0);
  uc->eflags = flags_ | kTrapFlag;
  uc->rip = info_.entry;
  for (std::uint32_t part = 0; part < kParts; ++part) counted_[part] = counter_of_part(part);
  *reinterpret_cast<std::uint64_t*>(registers_[kRsp]) = origin_ + kCallerOffset;  // the return address
  head_ = task_->ring_head;
  dropped_ = counters_[kDropped];
  skipped_ = counters_[kSkipped];
  performed_ = counters_[kPerformed];
  cells_ = sum_of_cells();
  is_running_ = true;
  check(uc);
  last_ = uc->rip;
}

void SteppedDetour::trap(siginfo_t* info, Context* uc) {
  if (!is_running_) return begin(uc);
  for (std::uint32_t part = 0; part < kParts; ++part) {
    if (last_ != info_.entry + info_.copies[part]) continue;
    executed_ = part + 1;
    ++registers_[kRbx];
  }
  last_ = uc->rip;
  if (info->si_code == SI_KERNEL) {  // an int3 of the detour's own
    trap::Detoured found;
    if (trap::find_detoured(g_process, uc->rip, found)) {
      expect(found.origin == origin_ + executed_ * kPartBytes, "the slow way's probepoint", uc->rip);
      expect(found.copy == info_.entry + info_.copies[executed_], "the slow way's copy", uc->rip);
      last_ = uc->rip = found.copy;
      leave_to_breakpoint_tier();
      check(uc);
      return;
    }
    expect(detour_position(info_, uc->rip - 1).is(kDelivers), "an int3 that nobody knows", uc->rip);
    if (++delivered_ == 2) task_->has_deferred = 0;  // the first time another's SIGTRAP has come in its way
    expect(delivered_ <= 2, "a signal that is delivered for ever", uc->rip);
  }
  constexpr long kMostSteps = 5000;  // far more than any detour takes
  const bool has_returned = uc->rip == origin_ + kCallerOffset;
  if (has_returned) {
    expect(is_over(), "whether the call is over", uc->rip);
    registers_[kRax] = kReturned;
    registers_[kRsp] += sizeof(std::uint64_t);
  }
  if (has_returned || uc->rip == origin_ + kParts * kPartBytes || ++steps_ == kMostSteps) {
    expect(executed_ == (is_over() ? 0 : kParts), "which instructions are executed", uc->rip);
    for (unsigned reg = 0; reg < 16; ++reg)
      expect(uc->general(reg) == registers_[reg], "a register at the end", uc->rip);
    std::memcpy(&uc->r8, &launched_.r8, offsetof(Context, cs) - offsetof(Context, r8));
    is_running_ = false;
    return;
  }
  if (g_process.detours.around(uc->rip) != &info_) return;
  check(uc);
  const auto* const code = reinterpret_cast<const std::uint8_t*>(uc->rip);
  if (code[0] != 0x0f || code[1] != 0x05) return;
  // A step over a system call ends behind the next instruction: it is made here.
  expect(uc->rax == SYS_rt_sigprocmask && uc->rsi == reinterpret_cast<std::uint64_t>(save_mask()), "the system call",
         uc->rip);
  uc->rip += 2;
  uc->rax = 0;
  uc->rcx = uc->rip;
  uc->r11 = uc->eflags;
  check(uc);
}

std::uint64_t SteppedDetour::sum_of_cells() {
  return std::accumulate(std::begin(g_cells), std::end(g_cells), std::uint64_t{0});
}

const std::uint64_t* SteppedDetour::save_mask() const {
  return &reinterpret_cast<const DetourSave*>(task_->consumer_stack)->mask;
}

// What a handler's own hits may do to the thread's storage, once a register that was spilled has its value again.
void SteppedDetour::spill_over(const Context* uc) {
  std::uint64_t* const places[3] = {&trap::t_thread.spilled.rax, &trap::t_thread.spilled.rcx,
                                    &trap::t_thread.spilled.rdx};
  for (unsigned reg = 0; reg < 3; ++reg) {  // numbered as they are here
    const bool is_lost = const_cast<Context*>(uc)->general(reg) != registers_[reg];
    if (was_lost_[reg] && !is_lost) *places[reg] = ~registers_[reg];
    was_lost_[reg] = is_lost;
  }
}

// What the trap path does of a hit.
void SteppedDetour::leave_to_breakpoint_tier() {
  ++counters_[executed_];
  if (executed_ != 0) return;
  ++task_->ring_head;
  calls_ = scenario_.consumers;
}

std::uint64_t SteppedDetour::counter_of_part(std::uint32_t part) const {
  const bool by_segment = (info_.by_segment >> part & 1) != 0;
  return by_segment ? segment_[part] : counters_[part];
}
bool SteppedDetour::is_counted(std::uint32_t part) const {
  return part < kParts && counter_of_part(part) != counted_[part];
}

bool SteppedDetour::is_consumed() const {
  if (!kind_.calls || executed_ != 0) return true;
  if (kind_.needs.block == ActionKind::kRecord) return task_->ring_head != head_ || counters_[kDropped] != dropped_;
  return calls_ == scenario_.consumers || counters_[kSkipped] != skipped_ || counters_[kPerformed] != performed_;
}

bool SteppedDetour::is_over() const {
  return scenario_.overrides && kind_.needs.overrides && scenario_.consumers != 0 && is_consumed();
}

void SteppedDetour::expect(bool is_right, const char* what, std::uint64_t rip) {
  if (is_right) return;
  if (wrong_++ != 0) return;
  char text[200];
  std::snprintf(text, sizeof text, "%s: %s: %s, at %+ld", kind_.name.c_str(), scenario_.name, what,
                static_cast<long>(rip - info_.entry));
  first_wrong_ = text;
}

void SteppedDetour::check(const Context* uc) {
  const std::uint64_t rip = uc->rip;
  visited_.insert(rip - info_.entry);
  Frame frame;
  std::memcpy(static_cast<void*>(&frame.uc), uc, sizeof frame.uc);
  std::fill(std::begin(frame.uc.reserved), std::end(frame.uc.reserved), 0);
  frame.uc.mask = ~std::uint64_t{0};
  const auto* const save = reinterpret_cast<const DetourSave*>(task_->consumer_stack);
  spill_over(uc);
  const bool is_int3 = *reinterpret_cast<const std::uint8_t*>(rip) == 0xcc;
  const bool is_said = (detour_position(info_, rip).holds & (kLeaves | kDelivers)) != 0;
  expect(is_said == is_int3, "whether there is an int3", rip);
  const bool is_marked = task_->consumer != 0, is_deferred = task_->has_deferred != 0, has_run = is_consumed();
  if (is_deferred) task_->has_deferred = trap::kDelivering;  // then nothing is sent
  if (sigsetjmp(g_faulted, 1) != 0) return expect(false, "where a register leads", rip);
  trap::translate(&frame.uc, &frame.info);
  const bool takes_back = is_deferred && task_->has_deferred == 0;
  if (is_deferred) task_->has_deferred = 1;

  // Behind a handler it will not be stored here.
  expect((sum_of_cells() != cells_) == (counters_[kPerformed] != performed_), "whether what is performed is stored",
         rip);
  const std::uint64_t original = origin_ + executed_ * kPartBytes;
  const bool goes_on = frame.return_address == trap::address_of(&trap::ubp_resume_restorer);
  // From where nothing is put off any more; before, whoever looks may find the call over or not.
  const bool has_returned = is_over() && !is_marked;
  if (is_over() && is_marked) return;
  expect(frame.uc.rip == (has_returned ? origin_ + kCallerOffset : original), "RIP", rip);
  for (unsigned reg = 0; reg < 16; ++reg) {
    const std::uint64_t own = has_returned && reg == kRax ? kReturned : registers_[reg];
    const std::uint64_t wanted = has_returned && reg == kRsp ? own + sizeof(std::uint64_t) : own;
    expect(frame.uc.general(reg) == wanted, kNames[reg], rip);
  }
  const bool are_dead =
      (info_.by_segment & 1) != 0 ? is_counted(0) : is_counted(kParts - 1);  // as where it counts in one instruction
  const std::uint64_t compared = are_dead ? kDirectionFlag | kCarry : kDirectionFlag | kStatus;
  expect((frame.uc.eflags & compared) == (flags_ & compared), "the flags", rip);
  expect(goes_on == (is_counted(executed_) && !has_returned), "whether the hit is counted", rip);
  if (goes_on) expect(frame.uc.reserved[0] == original, "which hit goes on", rip);
  // While the task is marked, signals are put off.
  const bool is_known = !is_marked && (!kind_.calls || scenario_.consumers != 0);
  if (goes_on && is_known)
    expect((frame.uc.reserved[1] == trap::kConsumed) == has_run, "whether the consumers have run", rip);
  if (is_known && is_deferred) {
    expect(takes_back == has_run, "whether the signal that was put off is taken back", rip);
    if (takes_back) expect(frame.uc.mask == save->mask, "the signal mask", rip);
  }
}

}  // namespace ubp::runtime
