// Functions called in turn (turns.S), with detours made by hand: the floor of a probed program, which executes more
// than one function.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "bench.h"
#include "decoder/window.h"
#include "xol/slot_image.h"

namespace {
struct Turn {
  std::uint8_t* function;
  std::uint64_t kept;  // bytes of its first instructions that the jump replaces, and the detour stands for
};
}  // namespace

extern "C" {
extern const Turn bench_turns[ubp::bench::kTurns];
extern const std::uint8_t bench_turns_calls[];
extern std::uint8_t bench_turns_near[], bench_turns_end[];
extern __thread std::uint64_t bench_turn_counters[ubp::bench::kTurns];
long bench_call_turns(long argument, const std::uint8_t* calls);
}

namespace ubp::bench {
namespace {

constexpr std::uint64_t kCallBytes = 8;  // in turns.S
// So far below: the low bits, by which a branch predictor tells branches apart, are not alike.
constexpr std::uint64_t kFar = 860'000'000 & ~std::uint64_t{4095};

// Where detours are written, one behind the other. Null: there is no room.
std::uint8_t* detours(bool is_far) {
  if (!is_far) return bench_turns_near;
  const auto bytes = static_cast<std::size_t>(bench_turns_end - bench_turns_near);
  auto* const below = reinterpret_cast<void*>(reinterpret_cast<std::uint64_t>(bench_turns_near) - kFar);
  void* const place =
      mmap(below, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  return place != MAP_FAILED ? static_cast<std::uint8_t*>(place) : nullptr;
}

}  // namespace

bool make_turn_detours(int count, bool is_far, bool counts) {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  auto* const text =
      reinterpret_cast<std::uint8_t*>(reinterpret_cast<std::uint64_t>(bench_turns[0].function) & ~(page - 1));
  if (mprotect(text, static_cast<std::size_t>(bench_turns_end - text), PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
    return false;
  std::uint8_t* out = detours(is_far);
  if (out == nullptr) return false;
  std::uint64_t thread;
  asm("mov %%fs:0, %0" : "=r"(thread));
  for (int turn = kTurns - count; turn < kTurns; ++turn) {
    const auto& [function, kept] = bench_turns[turn];
    const std::uint8_t* const detour = out;
    if (counts) {
      constexpr std::uint8_t kIncrement[] = {0x64, 0x48, 0xff, 0x04, 0x25};  // incq %fs:
      out = std::copy(std::begin(kIncrement), std::end(kIncrement), out);
      xol::store32(out,
                   static_cast<std::uint32_t>(reinterpret_cast<std::uint64_t>(&bench_turn_counters[turn]) - thread));
      out += 4;
    }
    out = std::copy_n(function, kept, out);
    xol::write_jump(out, reinterpret_cast<std::uint64_t>(out), reinterpret_cast<std::uint64_t>(function) + kept);
    out += decoder::kJumpBytes;
    xol::write_jump(function, reinterpret_cast<std::uint64_t>(function), reinterpret_cast<std::uint64_t>(detour));
  }
  return mprotect(text, static_cast<std::size_t>(bench_turns_end - text), PROT_READ | PROT_EXEC) == 0;
}

bool call_turns(int count, long argument) {
  const int first = kTurns - count;
  const long added = static_cast<long>(count) * (first + kTurns - 1) / 2;
  return bench_call_turns(argument, bench_turns_calls + kCallBytes * static_cast<std::uint64_t>(first)) ==
         argument + added;
}

std::uint64_t counted_turns() {
  return std::accumulate(std::begin(bench_turn_counters), std::end(bench_turn_counters), std::uint64_t{0});
}

}  // namespace ubp::bench
