// See helpers.h. Maps: map_helpers.cpp.
#include "runtime/helpers/helpers.h"

#include <x86gprintrin.h>

#include "runtime/helpers/point_names.h"
#include "runtime/helpers/read_memory.h"
#include "runtime/trap/tls.h"
#include "xol/sys.h"

namespace ubp::program {

using trap::Counter;
using trap::g_process;

namespace {

void count(const ubp_context* context, Counter name) {
  trap::TaskState* const task = context->task;
  const bool is_hit = task != nullptr && context->consumer != nullptr;  // else begin, end, or an interval
  if (!is_hit || task->counters == nullptr) return;                     // a child that another consumer forked
  std::uint64_t& counter = task->counters[g_process.tasks.offset_of(name) + runtime::counter_of(*context->consumer)];
  __atomic_store_n(&counter, counter + 1, __ATOMIC_RELAXED);  // the task's own; read by others at any time
}

// Zeros from a byte on, to the end of the last word of so many bytes. By stores, eight at a time: up to a few KiB no
// string instruction is faster.
void clear_behind(char* to, std::uint64_t from, std::uint64_t bytes) {
  const std::uint64_t room = words_of(bytes) * sizeof(std::uint64_t);
  for (; from < room && from % 8 != 0; ++from) to[from] = '\0';
  auto* at = reinterpret_cast<std::uint64_t*>(to + from);
  auto* const end = reinterpret_cast<std::uint64_t*>(to + room);
  for (; end - at >= 8; at += 8) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) at[i] = 0;
    asm volatile("" ::: "memory");  // no call of memset
  }
  for (; at < end; ++at) *at = 0;
}

// Eight bytes at a time: it is done at every hit that uses its function's name.
void copy_name(char* to, const char* from) {
  if (from == nullptr) return clear_behind(to, 0, kNameBytes);
  for (std::size_t i = 0; i < kNameBytes; i += sizeof(std::uint64_t)) {
    __builtin_memcpy(to + i, from + i, sizeof(std::uint64_t));
    asm volatile("" ::: "memory");  // no call of memcpy
  }
}

std::uint32_t task_of(const Run* run) { return run->context->task != nullptr ? run->context->task->block : kNoTask; }

}  // namespace

void count_filtered(const ubp_context* context) { count(context, Counter::kFiltered); }
void count_dropped(const ubp_context* context) { count(context, Counter::kDropped); }

void close_gate(Run* run, std::uint64_t status) {
  Control* const control = run->machine->control;
  std::uint32_t gate = Control::kOpen;
  if (__atomic_load_n(&control->gate, __ATOMIC_RELAXED) != gate) return;  // the first one's status counts
  __atomic_store_n(&control->status, static_cast<std::uint32_t>(status), __ATOMIC_RELAXED);  // published by the next
  __atomic_compare_exchange_n(&control->gate, &gate, Control::kExited, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

// False, where the probe has another's word: the first one's counts.
void override_result(Run* run, std::uint64_t value) { runtime::override_call(*run->context, value); }

void count_site(Run* run, std::uint64_t site) {
  __atomic_fetch_add(&run->machine->sites[site], 1, __ATOMIC_RELAXED);  // a number
}

std::uint64_t divide(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site) {
  if (right != 0) return left / right;
  count_site(run, site);
  return 1;
}
std::uint64_t modulo(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site) {
  if (right != 0) return left % right;
  count_site(run, site);
  return 1;
}
std::uint64_t divide_signed(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site) {
  if (right == ~std::uint64_t{0}) return -left;
  if (right == 0) return divide(run, left, right, site);
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(left) / static_cast<std::int64_t>(right));
}
std::uint64_t modulo_signed(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site) {
  if (right == ~std::uint64_t{0}) return 0;
  if (right == 0) return modulo(run, left, right, site);
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(left) % static_cast<std::int64_t>(right));
}

void copy_words(std::uint64_t* to, std::uint64_t to_words, const std::uint64_t* from, std::uint64_t from_words) {
  const std::uint64_t copied = from_words < to_words ? from_words : to_words;
  std::uint64_t i = 0;
  for (; i + 8 <= copied; i += 8) {
#pragma GCC unroll 8
    for (std::uint64_t next = i; next < i + 8; ++next) to[next] = from[next];
  }
  for (; i < copied; ++i) to[i] = from[i];
  clear_behind(reinterpret_cast<char*>(to), copied * sizeof *to, to_words * sizeof *to);
}

std::uint64_t is_same_text(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes) {
  for (std::uint64_t i = 0;; ++i) {
    const char a = i < left_bytes ? left[i] : '\0', b = i < right_bytes ? right[i] : '\0';
    if (a != b) return 0;
    if (a == '\0') return 1;
  }
}

std::uint64_t is_same(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes) {
  if (left_bytes != right_bytes) return 0;
  for (std::uint64_t i = 0; i < left_bytes; ++i) {
    if (left[i] != right[i]) return 0;
  }
  return 1;
}

std::uint64_t read_number(Run* run, std::uint64_t address, std::uint64_t bytes, std::uint64_t site) {
  std::uint64_t number = 0;
  if (read_memory(run, address, &number, bytes) == bytes) return number;
  count_site(run, site);
  return 0;
}

void read_bytes(Run* run, std::uint64_t address, char* to, std::uint64_t bytes, std::uint64_t site) {
  std::uint64_t got = read_memory(run, address, to, bytes);
  if (got != bytes) {
    count_site(run, site);
    got = 0;
  }
  clear_behind(to, got, bytes);
}

void read_buffer(Run* run, std::uint64_t address, std::uint64_t* to, std::uint64_t bytes, std::uint64_t words,
                 std::uint64_t site) {
  for (std::uint64_t i = 0; i <= words; ++i) to[i] = 0;
  to[0] = bytes;
  read_bytes(run, address, reinterpret_cast<char*>(to + 1), bytes, site);
}

void read_text(Run* run, std::uint64_t address, char* to, std::uint64_t characters, std::uint64_t words,
               std::uint64_t site) {
  bool is_there = false;
  const std::uint64_t length = characters != 0 ? read_text_of(run, address, to, characters, is_there) : 0;
  if (!is_there && address != 0 && characters != 0) count_site(run, site);
  clear_behind(to, length, words * sizeof(std::uint64_t));
}

std::uint64_t process_id(Run*) { return trap::may_ask() ? sys::getpid() : g_process.tasks.pid; }
std::uint64_t thread_id(Run* run) {
  const trap::TaskState* const task = run->context->task;
  if (task == nullptr) return sys::gettid();
  return task->tid.load(std::memory_order_relaxed) & ~(trap::kGuest | trap::kOtherNamespace);  // its own
}
std::uint64_t user_id(Run*) { return trap::may_ask() ? static_cast<std::uint32_t>(sys::call4(SYS_getuid, 0)) : 0; }
std::uint64_t group_id(Run*) { return trap::may_ask() ? static_cast<std::uint32_t>(sys::call4(SYS_getgid, 0)) : 0; }

std::uint64_t processor(Run*) {
  std::uint32_t number = 0;
  if (trap::may_ask()) sys::call4(SYS_getcpu, reinterpret_cast<long>(&number));
  return number;
}

std::uint64_t clock_time(std::uint64_t clock) {
  if (!trap::may_ask()) return 0;
  std::uint64_t time[2] = {};
  sys::call4(SYS_clock_gettime, static_cast<long>(clock), reinterpret_cast<long>(time));
  return time[0] * 1'000'000'000 + time[1];
}
std::uint64_t boot_time(Run*) { return clock_time(kBootTime); }
std::uint64_t elapsed_time(Run* run) { return boot_time(run) - run->machine->start_ns; }

std::uint64_t random_number(Run* run) {                                                               // splitmix64
  std::uint64_t z = __atomic_add_fetch(&run->machine->random, 0x9e3779b97f4a7c15, __ATOMIC_RELAXED);  // on its own
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return (z ^ (z >> 31)) >> 32;
}

std::uint64_t register_value(Run* run, std::uint64_t number) {
  const ubp_context& context = *run->context;
  if (context.save != nullptr) return context.save->registers[number];
  return context.registers != nullptr ? context.registers->general(static_cast<unsigned>(number)) : 0;
}

std::uint64_t instruction_address(Run* run) {
  const runtime::Consumer* const consumer = run->context->consumer;
  return consumer != nullptr ? g_process.table.address_of(consumer->point) : 0;
}

void probe_name(Run* run, char* to) {
  const PointName* const name = name_of(run);
  copy_name(to, name != nullptr ? name->probe : nullptr);
}
void probe_kind(Run* run, char* to) {
  const PointName* const name = name_of(run);
  std::uint32_t length = 0;
  for (; name != nullptr && length + 1 < kTaskNameBytes && name->probe[length] != ':'; ++length)
    to[length] = name->probe[length];
  for (; length < kTaskNameBytes; ++length) to[length] = '\0';
}
void function_name(Run* run, char* to) {
  const PointName* const name = name_of(run);
  copy_name(to, name != nullptr ? name->function : nullptr);
}

namespace {

Chunk* chunk_at(const Machine* machine, std::uint64_t index) {
  return reinterpret_cast<Chunk*>(machine->chunks + index * Chunk::kBytes);
}

// A new chunk becomes memory at once: a page fault for each of its pages would cost more than what is written there.
// Denied, or not known to the kernel: then they come one by one.
void populate(Chunk* chunk) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, since Linux 5.14
  if (!trap::may_ask()) return;
  const std::uint64_t begin = reinterpret_cast<std::uint64_t>(chunk), page = begin & ~(sys::kPageBytes - 1);
  sys::call4(SYS_madvise, static_cast<long>(page), static_cast<long>(begin + Chunk::kBytes - page), kPopulateWrite);
}

// A chunk that nobody has, by number from 1 on; 0: there is none.
std::uint32_t take_chunk(Machine* machine) {
  constexpr std::uint64_t kPause = 1 << 20;  // ticks: a look at all of them takes a while
  const std::uint64_t now = __rdtsc();
  if (now < __atomic_load_n(&machine->look_again, __ATOMIC_RELAXED)) return 0;  // a number on its own
  for (std::uint64_t look = 0; look < machine->chunk_count; ++look) {
    const std::uint64_t turn = __atomic_fetch_add(machine->next_chunk, 1, __ATOMIC_RELAXED);  // only where to look
    const std::uint64_t index = turn % machine->chunk_count;
    std::uint32_t is_free = Chunk::kFree;
    Chunk* const chunk = chunk_at(machine, index);
    if (__atomic_load_n(&chunk->state, __ATOMIC_RELAXED) != Chunk::kFree) continue;  // as above
    if (!__atomic_compare_exchange_n(&chunk->state, &is_free, Chunk::kTaken, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
      continue;
    if (chunk->process == 0) populate(chunk);
    chunk->process = static_cast<std::uint32_t>(g_process.tasks.pid);
    return static_cast<std::uint32_t>(index + 1);
  }
  __atomic_store_n(&machine->look_again, now + kPause, __ATOMIC_RELAXED);  // as above
  return 0;
}

bool may_wait(const Run* run) {
  const Control& control = *run->machine->control;  // the reader is set before the process begins
  return run->context->task != nullptr && __atomic_load_n(&control.reader, __ATOMIC_RELAXED) != 0;
}

// A hit waits until the reader has given room back. 0: it is gone, or finds nothing to give back, or the run is over.
// While a task waits it has no chunk of its own, which the reader could not give back.
std::uint32_t wait_for_chunk(Run* run) {
  Machine* const machine = run->machine;
  Control* const control = machine->control;
  constexpr std::uint32_t kMostPasses = 200;
  constexpr long kWait = 0, kNoSuchProcess = -3;        // FUTEX_WAIT, -ESRCH
  constexpr std::uint64_t kLook[2] = {0, 100'000'000};  // s, ns: whether the reader is still there
  const std::uint32_t first = __atomic_load_n(&control->passes, __ATOMIC_ACQUIRE);  // pairs with the reader
  for (std::uint32_t seen = first; seen - first < kMostPasses;) {
    if (!trap::may_ask() || __atomic_load_n(&control->gate, __ATOMIC_RELAXED) != Control::kOpen) return 0;
    __atomic_store_n(&machine->look_again, 0, __ATOMIC_RELAXED);  // a number
    if (const std::uint32_t chunk = take_chunk(machine)) return chunk;
    sys::call6(SYS_futex, reinterpret_cast<long>(&control->passes), kWait, static_cast<long>(seen),
               reinterpret_cast<long>(kLook), 0, 0);
    const std::uint32_t now = __atomic_load_n(&control->passes, __ATOMIC_ACQUIRE);               // as above
    const long reader = static_cast<long>(__atomic_load_n(&control->reader, __ATOMIC_RELAXED));  // as in may_wait()
    if (now == seen && (reader == 0 || sys::call4(SYS_kill, reader, 0) == kNoSuchProcess)) {
      __atomic_store_n(&control->reader, 0, __ATOMIC_RELAXED);  // nobody waits any more
      return 0;
    }
    seen = now;
  }
  return 0;
}

}  // namespace

void look_after_intervals(const ubp_context* context, Machine* machine) {
  constexpr std::uint64_t kCycles = 100'000;  // to ask for the time at each hit would cost more than most blocks
  const std::uint64_t cycles = __rdtsc();
  if (cycles - __atomic_load_n(&machine->looked, __ATOMIC_RELAXED) < kCycles) return;  // a hint
  __atomic_store_n(&machine->looked, cycles, __ATOMIC_RELAXED);                        // as above
  const std::uint64_t now = clock_time(kMonotonic);
  const ubp_context nowhere{nullptr, nullptr, context->task, nullptr};
  for (std::uint64_t i = 0; i < machine->interval_count; ++i) {
    Interval& interval = machine->intervals[i];
    std::uint64_t next = __atomic_load_n(&interval.next, __ATOMIC_RELAXED);  // whoever moves it on runs the block
    if (now < next) continue;
    const std::uint64_t after = next + ((now - next) / interval.period + 1) * interval.period;
    if (__atomic_compare_exchange_n(&interval.next, &next, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))  // it
      interval.block(&nowhere, nullptr);
  }
}

std::uint64_t* begin_event(Run* run, std::uint64_t event, std::uint64_t words) {
  Machine* const machine = run->machine;
  const std::uint32_t task = task_of(run);
  std::uint32_t& own = machine->task_chunks[task];
  const std::uint64_t bytes = sizeof(EventHeader) + words * sizeof(std::uint64_t);
  Chunk* chunk = own != 0 ? chunk_at(machine, own - 1) : nullptr;
  if (chunk == nullptr || chunk->used + bytes > Chunk::kRoom) {
    std::uint32_t next = bytes <= Chunk::kRoom ? take_chunk(machine) : 0;
    const bool waits = next == 0 && bytes <= Chunk::kRoom && may_wait(run);
    if (chunk != nullptr && (next != 0 || waits)) {
      own = 0;
      __atomic_store_n(&chunk->state, Chunk::kFull, __ATOMIC_RELEASE);  // pairs with the reader
    }
    if (waits) next = wait_for_chunk(run);
    if (next == 0) {
      run->dropped = 1;
      __atomic_fetch_add(machine->lost, 1, __ATOMIC_RELAXED);  // a number
      return nullptr;
    }
    own = next;
    chunk = chunk_at(machine, next - 1);
  }
  run->chunk = chunk;
  auto* const header = reinterpret_cast<EventHeader*>(chunk->data() + chunk->used);
  *header = {static_cast<std::uint32_t>(bytes), static_cast<std::uint32_t>(event), __rdtsc(), task, kWhole};
  return reinterpret_cast<std::uint64_t*>(header + 1);
}

void end_event(Run* run, std::uint64_t* words) {
  const auto* const header = reinterpret_cast<const EventHeader*>(words) - 1;
  __atomic_store_n(&run->chunk->used, run->chunk->used + header->bytes, __ATOMIC_RELEASE);  // pairs with the reader
}

}  // namespace ubp::program
