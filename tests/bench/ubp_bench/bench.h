// The parts of ubp-bench. It starts itself again as a worker, with libubp.so preloaded or not, and compares.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ubp::bench {

// What one worker said, and what its summary says.
struct Outcome {
  double ns = 0;                     // elapsed, of one thread, per call
  double processor_ns = 0;           // of all processors, per call: other work on the machine is not in it
  std::vector<std::uint64_t> calls;  // by thread
  std::uint64_t wrong = 0;
  std::map<std::string, std::uint64_t> xol, totals, optimised;
  std::string error;  // "" when all went well
};

struct Run {
  std::vector<std::string> worker;                 // arguments behind "worker"
  std::map<std::string, std::string> environment;  // UBP_ variables; empty: libubp.so is not preloaded
  std::string library;
  std::uint64_t uprobe_offset = 0;  // not 0: a kernel uprobe there, file offset in this program
};

// Starts a worker and waits for it.
Outcome run(const Run& run);

// In the worker: does what its arguments say and prints the result. Returns the exit status.
int work(const std::vector<std::string>& arguments);

// What is wrong with an outcome: its counts, its results, the tier of its hits. "": nothing.
std::string check(const Run& run, const Outcome& outcome);

// The table of functions in turn, of one thread: medians of so many rounds. json: not nullptr: appended to it instead.
// False: a row failed.
bool print_turns(const std::string& library, int repeat, int ms, nlohmann::json* json);
// In the worker: replaces the first instructions of the last `count` functions by jumps to detours made by hand, near
// or far away, that count or do nothing. False: it cannot.
bool make_turn_detours(int count, bool is_far, bool counts);
// Calls the last `count` functions, one after the other. False: their result is wrong.
bool call_turns(int count, long argument);
// How many calls the detours have counted in this thread.
std::uint64_t counted_turns();
inline constexpr int kTurns = 2048;

// A policy's own part of a hit, without the kernel: nanoseconds of `threads` threads at once, per call and thread.
// cycle: over so many probepoints, with 64 slots. Once in a process: the memory is laid out for the policy.
double slot_ns(const std::string& policy, int cycle, int threads);

// The functions of points.S.
extern "C" long bench_emulated(long), bench_nop5(long), bench_slot(long), bench_syscall(long);
extern "C" long bench_long(long), bench_floor(long), bench_floor_far(long), bench_floor_call(long);
extern "C" void bench_consumer();                   // does nothing
extern "C" __thread std::uint64_t* bench_counters;  // where they count: bench_counters[kFloorCounter]
inline constexpr int kFloorCounter = 128;
extern "C" long (*const bench_points[4096])(long);
inline constexpr int kPoints = 4096;

}  // namespace ubp::bench
