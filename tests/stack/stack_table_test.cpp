// The table of stacks: each once, whoever brings it; and what becomes of those that find no room.
#include "runtime/stack/stack_table.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/stack/module_log.h"

using namespace ubp::stack;

namespace {

struct Memory {
  static constexpr std::size_t kBytes = (kSlots + kStackWords + 2) * sizeof(std::uint64_t);
  std::uint64_t* words = static_cast<std::uint64_t*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  StackTable table{words, words + 1, words + 2, words + 2 + kSlots};
  Memory() { REQUIRE(words != MAP_FAILED); }
  ~Memory() { munmap(words, kBytes); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

}  // namespace

TEST_CASE("stack table: a stack is one number, and different ones have different numbers") {
  const Memory memory;
  const std::uint64_t frames[] = {0x1000, 0x2000, 0x3000};
  CHECK(number_of_stack(memory.table, 0, frames, 0) == kNoFrames);
  const std::uint64_t whole = number_of_stack(memory.table, 0, frames, 3);
  CHECK(whole != kNoFrames);
  CHECK(number_of_stack(memory.table, 0, frames, 3) == whole);
  CHECK(number_of_stack(memory.table, 0, frames, 2) != whole);
  CHECK(number_of_stack(memory.table, 1, frames, 3) != whole);  // of another image
  const Stack stack = stack_of(memory.table, whole);
  CHECK(stack.image == 0);
  REQUIRE(stack.count == 3);
  CHECK(stack.frames[2] == 0x3000);
  CHECK(stack_of(memory.table, number_of_stack(memory.table, 1, frames, 3)).image == 1);
  CHECK(stack_of(memory.table, kNoFrames).count == 0);
  CHECK(stack_of(memory.table, kNoRoom).count == 0);
}

TEST_CASE("stack table: threads that bring the same stacks find the same numbers") {
  const Memory memory;
  constexpr std::uint64_t kStacks = 5000;
  constexpr int kThreads = 4;
  std::vector<std::vector<std::uint64_t>> numbers(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t i = 0; i < kStacks; ++i) {
        const std::uint64_t frames[] = {i, i * 7, i % 13};
        numbers[thread].push_back(number_of_stack(memory.table, 0, frames, 3));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int thread = 1; thread < kThreads; ++thread) CHECK(numbers[thread] == numbers[0]);
  CHECK(*memory.table.lost == 0);
  std::size_t slots = 0;
  for (std::uint64_t i = 0; i < kSlots; ++i) slots += memory.table.slots[i] != 0 ? 1 : 0;
  CHECK(slots == kStacks);
}

TEST_CASE("stack table: what finds no room is counted, and has no frames") {
  const Memory memory;
  std::vector<std::uint64_t> frames(1000);
  std::uint64_t found = 0, lost = 0;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    frames[0] = i;
    (number_of_stack(memory.table, 0, frames.data(), frames.size()) != kNoRoom ? found : lost) += 1;
  }
  CHECK(found == (kStackWords - 2) / 1001);
  CHECK(*memory.table.lost == lost);
  frames[0] = 0;  // one that is there
  CHECK(number_of_stack(memory.table, 0, frames.data(), frames.size()) != kNoRoom);
}

TEST_CASE("module log: the later of two at one place counts, and each image has its own") {
  const auto log = std::make_unique<ModuleLog>();
  ubp::symbols::Module module;
  module.path = "/lib/first.so";
  module.bias = 0x10000;
  module.segments.push_back({.address = 0, .size = 0x2000});
  CHECK(take_image(*log) == 0);
  CHECK(take_image(*log) == 1);
  note_modules(*log, 0, {&module});
  note_modules(*log, 0, {&module});
  CHECK(log->records == 1);
  ubp::symbols::Module second = module;
  second.path = "/lib/second.so";
  note_modules(*log, 0, {&second});
  REQUIRE(module_of(*log, 0, 0x11fff) != nullptr);
  CHECK(module_of(*log, 0, 0x11fff)->path == second.path);
  CHECK(module_of(*log, 0, 0x12000) == nullptr);
  CHECK(module_of(*log, 1, 0x11fff) == nullptr);
  second.path = std::string(1000, 'x');  // too long for a record: the addresses stay numbers
  note_modules(*log, 1, {&second});
  CHECK(module_of(*log, 1, 0x11fff)->path[0] == '\0');
}
