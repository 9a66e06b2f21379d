// The list of the calls that a task is in: what it gives up, and what it must not.
#include "runtime/consumers/call_stack.h"

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <random>
#include <vector>

namespace ubp::runtime {
namespace {

constexpr std::uint64_t kHigh = 0x7fff00000000, kReturn = 0x401000;
constexpr int kOwner = 0, kOther = 0;

// What lies on the stacks.
using Memory = std::map<std::uint64_t, std::uint64_t>;

struct List {
  std::unique_ptr<CallStack> calls = std::make_unique<CallStack>();  // zeros
  Memory memory;
  std::vector<CallFrame> left;

  CallFrame frame(std::uint64_t place, std::uint32_t point = 1, const void* owner = &kOwner) {
    return {place, memory[place], nullptr, owner, point, 1, 0};
  }
  bool is_left(const CallFrame& its) const {
    const auto found = memory.find(its.place);
    return found == memory.end() || found->second != its.returns_to;
  }
  // A call puts its return address there.
  void call(std::uint64_t place, std::uint64_t returns_to = kReturn, std::uint32_t point = 1) {
    memory[place] = returns_to;
    enter(place, point);
  }
  void enter(std::uint64_t place, std::uint32_t point = 1, const void* owner = &kOwner) {
    calls->enter(
        frame(place, point, owner), [&](const CallFrame& its) { return is_left(its); },
        [&](const CallFrame& its) { return owner == &kOther && its.owner == &kOwner; },  // that one is the first
        [&](const CallFrame& its) { left.push_back(its); });
  }
  // Whether the return at this place is of a call that was noted.
  bool returns(std::uint64_t place) {
    calls->give_up_below(
        place, [&](const CallFrame& its) { return is_left(its); }, [&](const CallFrame& its) { left.push_back(its); });
    const std::uint64_t at = calls->find(&kOwner, 1, place);
    if (at == CallStack::kNone || calls->frames[at].returns_to != memory[place]) return false;
    calls->remove(at);
    return true;
  }
  std::uint64_t seams() const {
    std::uint64_t count = 0;
    for (std::uint64_t at = 1; at < calls->depth; ++at) count += calls->frames[at].place > calls->frames[at - 1].place;
    return count;
  }
};

}  // namespace

TEST_CASE("call_stack: calls within each other return in turn") {
  List list;
  for (std::uint64_t i = 0; i < 100; ++i) list.call(kHigh - i * 48);
  CHECK(list.calls->depth == 100);
  CHECK_FALSE(list.returns(kHigh - 99 * 48 - 16));  // a function that nobody asked for
  for (std::uint64_t i = 100; i-- != 0;) CHECK(list.returns(kHigh - i * 48));
  CHECK(list.calls->depth == 0);
  CHECK(list.left.empty());
}

TEST_CASE("call_stack: what an exception has left is given up when something is called there again") {
  List list;
  for (int turn = 0; turn < 1000; ++turn) {
    for (std::uint64_t i = 0; i < 10; ++i) list.call(kHigh - i * 200);
  }
  CHECK(list.calls->depth == 10);
  CHECK(list.left.size() == 9990);
  CHECK(list.returns(kHigh));
  CHECK(list.calls->depth == 0);
  CHECK(list.left.size() == 9999);
}

TEST_CASE("call_stack: frames further apart go when their place is written to, or used again") {
  List list;
  for (int turn = 0; turn < 100; ++turn) {
    for (std::uint64_t i = 0; i < 5; ++i) list.call(kHigh - i * 8192);
  }
  CHECK(list.calls->depth <= 10);
  list.memory[kHigh - 4 * 8192] = 0;
  list.call(kHigh);
  CHECK(list.calls->depth <= 10);
  CHECK(list.returns(kHigh));
}

TEST_CASE("call_stack: a jump to another function keeps the call, a call at the same place does not") {
  List list;
  list.call(kHigh, kReturn, 1);
  list.calls->frames[0].flags = CallFrame::kHasJumped;
  list.enter(kHigh, 2);
  CHECK(list.calls->depth == 2);
  list.call(kHigh, kReturn + 8, 3);  // from elsewhere: both were left
  CHECK(list.calls->depth == 1);
  list.call(kHigh, kReturn + 8, 4);
  CHECK(list.calls->depth == 1);
  CHECK(list.left.size() == 3);
}

TEST_CASE("call_stack: one call that two owners ask for is noted for both") {
  List list;
  list.call(kHigh);
  list.enter(kHigh, 1, &kOther);
  CHECK(list.calls->depth == 2);
  list.enter(kHigh);  // the next call
  list.enter(kHigh, 1, &kOther);
  CHECK(list.calls->depth == 2);
  CHECK(list.left.size() == 2);
  CHECK(list.returns(kHigh));
  CHECK(list.calls->depth == 1);
}

TEST_CASE("call_stack: other stacks, above and below, keep their calls") {
  List list;
  const std::uint64_t low = kHigh - 0x100000, high = kHigh + 0x100000;
  list.call(kHigh);
  list.call(low);
  list.call(high);
  list.call(kHigh - 64);
  list.call(low - 64);
  CHECK(list.calls->depth == 5);
  CHECK(list.calls->seams == list.seams());
  for (const std::uint64_t place : {high, low - 64, kHigh - 64, kHigh, low}) CHECK(list.returns(place));
  CHECK(list.left.empty());
  CHECK(list.calls->seams == 0);
}

TEST_CASE("call_stack: a stack that is gone takes its calls along") {
  List list;
  list.call(0x10000);
  list.memory.clear();
  list.call(kHigh);
  CHECK(list.calls->depth == 1);
  CHECK(list.left.size() == 1);
}

TEST_CASE("call_stack: when it is full, room is what is certainly gone") {
  List list;
  const auto make_room = [&] {
    return list.calls->make_room([&](const CallFrame& its) { return list.is_left(its); },
                                 [&](const CallFrame& its) { list.left.push_back(its); });
  };
  for (std::uint64_t i = 0; i < kMostCalls; ++i) {
    REQUIRE(make_room());
    list.call(kHigh - i * 32);
  }
  for (std::uint64_t i = 0; i <= kMostCalls; ++i) {
    if (make_room()) FAIL("there is none");
  }
  CHECK(list.left.empty());
  for (std::uint64_t i = 100; i < 200; ++i) list.memory[kHigh - i * 32] = 0;
  CHECK(make_room());
  CHECK(list.calls->depth == kMostCalls - 100);
  CHECK(list.left.size() == 100);
  CHECK(list.returns(kHigh - (kMostCalls - 1) * 32));
}

namespace {

// A list that keeps times, by a clock of which each look is a tick, and a tick a ns.
struct TimedList : List {
  std::vector<KeptCall> room{kMostCalls};
  std::uint64_t clock = 0;
  const void* family = &kOwner;
  bool is_net = false;

  TimedList() { calls->kept = room.data(); }
  void call_timed(std::uint64_t place, std::uint32_t point = 1, const void* owner = &kOwner) {
    memory[place] = kReturn;
    enter(place, point, owner);
    calls->keep(family, ++clock, is_net);
  }
  // What is kept of the call that returns at this place.
  KeptCall returns_timed(std::uint64_t place, const void* owner = &kOwner) {
    ++clock;
    calls->give_up_below(
        place, [&](const CallFrame& its) { return is_left(its); }, [&](const CallFrame& its) { left.push_back(its); });
    const std::uint64_t at = calls->find(owner, 1, place);
    REQUIRE(at != CallStack::kNone);
    if (at + 1 != calls->depth) calls->set_apart(family, at + 1, calls->depth, place);
    calls->end_calls(place, memory[place], family, clock, [](std::uint64_t ticks) { return ticks; });
    const KeptCall kept = calls->kept[at];
    calls->remove(at);
    return kept;
  }
};

}  // namespace

TEST_CASE("call_stack: times of calls within each other, their depth, and what is their own") {
  TimedList list;
  list.call_timed(kHigh, 1);                         // 1
  list.call_timed(kHigh - 2000, 2);                  // 2
  list.call_timed(kHigh - 4000, 3);                  // 3
  KeptCall kept = list.returns_timed(kHigh - 4000);  // 4
  CHECK(kept.elapsed == 1);
  CHECK(kept.depth == 2);
  list.call_timed(kHigh - 4000, 3);         // 5
  kept = list.returns_timed(kHigh - 4000);  // 6
  CHECK(kept.depth == 2);
  kept = list.returns_timed(kHigh - 2000);  // 7
  CHECK(kept.elapsed == 5);
  CHECK(kept.inner == 2);
  CHECK(kept.depth == 1);
  kept = list.returns_timed(kHigh);  // 8
  CHECK(kept.elapsed == 7);
  CHECK(kept.inner == 5);
  CHECK(kept.depth == 0);
}

TEST_CASE("call_stack: net times are without what probes have taken meanwhile, in calls and between them") {
  TimedList list;
  const auto probe = [&](std::uint64_t ticks) {
    list.calls->begin_probe(list.clock);
    list.calls->end_probe(list.clock, ticks);
    list.clock += ticks;
  };
  probe(1000);
  list.is_net = true;
  list.call_timed(kHigh, 1);
  probe(10);
  list.call_timed(kHigh - 4000, 2);
  probe(100);
  KeptCall kept = list.returns_timed(kHigh - 4000);
  CHECK(kept.elapsed == 1);
  probe(30);
  kept = list.returns_timed(kHigh);
  CHECK(kept.elapsed == 3);
  CHECK(kept.inner == 1);
  // More is taken off than has passed: the clock stands still.
  list.call_timed(kHigh, 1);
  list.calls->begin_probe(list.clock);
  list.calls->end_probe(list.clock, 50);
  list.clock += 10;
  list.calls->begin_probe(list.clock + 1);
  CHECK(list.returns_timed(kHigh).elapsed == 0);
  list.call_timed(kHigh, 1);
  CHECK(list.returns_timed(kHigh).elapsed == 1);
  list.call_timed(kHigh, 1);
  probe(10);
  list.clock -= 20;  // another processor's, which is behind
  CHECK(list.returns_timed(kHigh).elapsed == 0);
  list.is_net = false;
  list.call_timed(kHigh, 1);
  probe(10);
  CHECK(list.returns_timed(kHigh).elapsed == 11);
}

TEST_CASE("call_stack: what is kept goes with its frame, and frames of which nothing is kept do not count") {
  TimedList list;
  list.call_timed(kHigh, 1);  // 1
  list.call(kHigh - 3000, kReturn, 9);
  list.call_timed(kHigh - 6000, 2);  // 2
  CHECK(list.calls->kept[1].family == nullptr);
  list.calls->remove(1);
  const KeptCall kept = list.returns_timed(kHigh - 6000);  // 3
  CHECK(kept.depth == 1);
  CHECK(kept.elapsed == 1);
  CHECK(list.returns_timed(kHigh).inner == 1);
}

TEST_CASE("call_stack: one call that two owners time is one call, and its caller hears of it once") {
  TimedList list;
  for (const int* owner : {&kOwner, &kOther}) list.call_timed(kHigh, 1, owner);         // 1, 2
  for (const int* owner : {&kOwner, &kOther}) list.call_timed(kHigh - 3000, 2, owner);  // 3, 4
  for (const int* owner : {&kOwner, &kOther}) {                                         // 5, 6
    const KeptCall kept = list.returns_timed(kHigh - 3000, owner);
    CHECK(kept.elapsed == 2);
    CHECK(kept.depth == 1);
    CHECK((kept.flags & KeptCall::kAgain) == (owner == &kOther ? KeptCall::kAgain : 0));
  }
  for (const int* owner : {&kOther, &kOwner}) {
    const KeptCall kept = list.returns_timed(kHigh, owner);
    CHECK(kept.elapsed == 6);
    CHECK(kept.inner == 2);
    CHECK(kept.depth == 0);
  }
}

TEST_CASE("call_stack: one call that two owners time, where one was left before, has its own time") {
  TimedList list;
  for (const int* owner : {&kOwner, &kOther}) list.call_timed(kHigh, 1, owner);         // 1, 2
  for (const int* owner : {&kOwner, &kOther}) list.call_timed(kHigh - 3000, 2, owner);  // 3, 4
  list.clock = 100;                                                                     // longjmp
  for (const int* owner : {&kOwner, &kOther}) list.call_timed(kHigh - 3000, 2, owner);  // 101, 102
  CHECK(list.left.size() == 2);
  list.clock = 110;
  for (const int* owner : {&kOwner, &kOther}) CHECK(list.returns_timed(kHigh - 3000, owner).elapsed == 10);  // 111
  CHECK(list.returns_timed(kHigh).inner == 10);
}

TEST_CASE("call_stack: a call and one that it has jumped to end at one moment") {
  TimedList list;
  list.call_timed(kHigh, 1);  // 1
  list.calls->frames[0].flags = CallFrame::kHasJumped;
  list.enter(kHigh, 2, &kOther);
  list.calls->keep(list.family, ++list.clock, false);  // 2
  const KeptCall first = list.returns_timed(kHigh);    // 3: the jump's owner is told first
  CHECK(first.elapsed == 2);
  CHECK(first.inner == 1);
  const KeptCall second = list.returns_timed(kHigh, &kOther);
  CHECK(second.elapsed == 1);
  CHECK(second.depth == 1);
}

TEST_CASE("call_stack: a call that was left is its caller's time, but for the calls in it that have returned") {
  TimedList list;
  list.call_timed(kHigh, 1);                            // 1
  list.call_timed(kHigh - 200, 2);                      // 2
  list.call_timed(kHigh - 400, 3);                      // 3
  CHECK(list.returns_timed(kHigh - 400).elapsed == 1);  // 4
  list.call_timed(kHigh - 400, 3);                      // 5
  const KeptCall kept = list.returns_timed(kHigh);      // 6: an exception has left two
  CHECK(list.left.size() == 2);
  CHECK(kept.elapsed == 5);
  CHECK(kept.inner == 1);
}

TEST_CASE("call_stack: calls on two stacks that run by turns are not within each other") {
  TimedList list;
  const std::uint64_t other = kHigh - 0x100000;
  list.call_timed(kHigh, 1);                             // 1
  list.call_timed(other, 2);                             // 2: as a coroutine begins
  list.call_timed(other - 3000, 3);                      // 3
  list.call_timed(kHigh - 3000, 4);                      // 4: the first stack goes on
  CHECK(list.returns_timed(other - 3000).elapsed == 2);  // 5
  const KeptCall coroutine = list.returns_timed(other);  // 6
  CHECK(coroutine.elapsed == 4);
  CHECK(coroutine.inner == 2);
  CHECK(list.returns_timed(kHigh - 3000).elapsed == 3);  // 7
  const KeptCall kept = list.returns_timed(kHigh);       // 8
  CHECK(kept.elapsed == 7);
  CHECK(kept.inner == 3);  // and not 7
}

// Programs that call, return, throw and switch stacks at random, of whose functions most are probed.
TEST_CASE("call_stack: no call that goes on is ever given up, and each return is found") {
  struct Call {
    std::uint64_t place, returns_to;
    bool is_noted;
  };
  for (unsigned seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const auto below = [&](std::uint64_t most) { return random() % most; };
    constexpr std::uint64_t kStacks = 6, kStackBytes = 65536, kGuard = 4096;
    TimedList list;
    std::uint64_t told = 0;
    std::vector<std::vector<Call>> stacks(kStacks);
    std::vector<std::uint64_t> tops;
    for (std::uint64_t i = 0; i < kStacks; ++i) tops.push_back(kHigh + (i * 5 % kStacks) * (kStackBytes + kGuard));
    std::uint64_t now = 0, entries = 0, returns = 0;
    for (int step = 0; step < 20000; ++step) {
      std::vector<Call>& stack = stacks[now];
      const std::uint64_t top = stack.empty() ? tops[now] : stack.back().place;
      const std::uint64_t choice = below(100);
      if (choice < 50) {
        const std::uint64_t place = top - 16 - 8 * below(choice < 5 ? 600 : 40);
        if (tops[now] - place > kStackBytes - 2048) continue;
        const std::uint64_t returns_to = kReturn + 8 * below(50);
        for (auto old = list.memory.lower_bound(place); old != list.memory.end() && old->first < top;)
          old = list.memory.erase(old);  // locals
        list.memory[place] = returns_to;
        const bool is_noted = below(4) != 0;
        if (is_noted) {
          list.enter(place, static_cast<std::uint32_t>(1 + below(20)));
          list.calls->keep(list.family, ++list.clock, false);
          ++entries;
        }
        stack.push_back({place, returns_to, is_noted});
      } else if (choice < 93) {
        if (stack.empty()) continue;
        const Call call = stack.back();
        stack.pop_back();
        if (!call.is_noted) continue;
        const KeptCall kept = list.returns_timed(call.place);
        REQUIRE(kept.inner <= kept.elapsed);  // nothing is taken off twice
        told += kept.inner != 0;
        ++returns;
      } else if (choice < 97) {
        stack.resize(below(stack.size() + 1));  // longjmp
      } else {
        now = below(kStacks);
      }
      REQUIRE(list.calls->seams == list.seams());
      REQUIRE(entries == returns + list.left.size() + list.calls->depth);
      std::uint64_t going_on = 0;
      for (const auto& its : stacks) {
        for (const Call& call : its) going_on += call.is_noted;
      }
      REQUIRE(list.calls->depth >= going_on);
    }
    CHECK(returns > 1000);
    CHECK(told > 100);
  }
}

}  // namespace ubp::runtime
