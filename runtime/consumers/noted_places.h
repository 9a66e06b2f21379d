// Which list of calls (call_stack.h) has noted a call at a place last, of all lists of the process.
//
// A call that ends in another task than it began leaves its frame in the first one's list. If a later call of the same
// function, from the same place, begins in a second task and ends in the first, nothing in the first one's list tells
// that frame from one of this call. This does.
//
// Invariant: what a word says is so. It holds a place and the number of a list, exactly: of the place it lacks what its
// index says. Two places with one index are told apart, and the later one is what is known.
//
// The index keeps near places in near words, as stacks are used; what lies above is mixed in, since stacks begin at
// like addresses. Relaxed accesses: whoever lets another task go on with a call orders what the first has stored.
//
// Inline and free of libc. Context: consumers of hits, also where they do not run. Async-signal-safe, thread-safe: yes.
#pragma once

#include <cstdint>

namespace ubp::runtime {

class NotedPlaces {
 public:
  static constexpr unsigned kIndexBits = 20, kNumberBits = 17;
  static constexpr std::uint64_t kBytes = (std::uint64_t{1} << kIndexBits) * sizeof(std::uint64_t);
  // Numbers of lists are kFirstList and higher.
  static constexpr std::uint32_t kNotKnown = 0;  // another place was noted since, or none ever
  static constexpr std::uint32_t kNobody = 1;    // a call that no list has: it was missed
  static constexpr std::uint32_t kFirstList = 2;
  static constexpr std::uint32_t kMostLists = (1U << kNumberBits) - kFirstList;

  explicit NotedPlaces(std::uint64_t memory) : words_(reinterpret_cast<std::uint64_t*>(memory)) {}

  [[gnu::always_inline]] void note(std::uint64_t place, std::uint32_t number) const {
    __atomic_store_n(&words_[index_of(place)], word_of(place) | number, __ATOMIC_RELAXED);
  }
  [[gnu::always_inline]] std::uint32_t last(std::uint64_t place) const {
    const std::uint64_t word = __atomic_load_n(&words_[index_of(place)], __ATOMIC_RELAXED);
    constexpr std::uint64_t kNumber = (std::uint64_t{1} << kNumberBits) - 1;
    return (word & ~kNumber) == word_of(place) ? static_cast<std::uint32_t>(word & kNumber) : kNotKnown;
  }

 private:
  static constexpr unsigned kWordShift = 3, kHighShift = kIndexBits + kWordShift;  // places are words, as a rule
  static_assert(kHighShift >= kNumberBits + kWordShift);

  [[gnu::always_inline]] static std::uint64_t index_of(std::uint64_t place) {
    constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15;
    const std::uint64_t mixed = (place >> kHighShift) * kMix >> (64 - kIndexBits);
    return ((place >> kWordShift) ^ mixed) & ((std::uint64_t{1} << kIndexBits) - 1);
  }
  [[gnu::always_inline]] static std::uint64_t word_of(std::uint64_t place) {
    const std::uint64_t rest = place & ((1U << kWordShift) - 1);
    return (place >> kHighShift << kWordShift | rest) << kNumberBits;
  }

  std::uint64_t* words_;
};

}  // namespace ubp::runtime
