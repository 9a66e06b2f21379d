// The calls that a task is in, as far as their returns are wanted: noted at functions' entries, beside the stack, which
// nothing is written to. So unwinders, exceptions and debuggers see what they see without probes.
//
// A frame is known by the stack pointer at its entry, which is the same again at its return, and by the return address
// that lies there. That is also what a frame is given up by, for not every call returns: longjmp, exceptions and
// pthread_exit leave frames behind, and nobody says so.
//
// Invariant: no live frame is given up, on whatever stack. One is given up where
// - the same function is entered at its place, or another one that it has not jumped to: the place is free;
// - the word at its place is no longer its return address, or cannot be read: no call that goes on loses that;
// - it lies below the place of an entry or a return, and no more than kSameStack bytes are between: on one stack, what
//   is called later lies below. Frames that lie so near each other form a chain, which is given up as a whole. Two
//   stacks never come that near while there is anything left of the upper one to use.
// - another task has noted a call at its place since (call_lists.h): it has moved there, or has ended there. Of a call
//   that moves and comes back only a jump to another function meanwhile looks like that.
// Other frames stay, with later ones above them: they are of other stacks (coroutines, alternate signal stacks), or
// left, and given up when their place has been written to. Frames of one stack descend in the list; where they do not
// ("seams"), another stack begins.
//
// Inline and free of libc. Context: consumers of hits, on the task's own list. Async-signal-safe: signals are put off.
//
// Of calls whose times are wanted more is kept (KeptCall). A call's time is told to the nearest call of the same family
// that it was made in, once, when it returns: so what the calls within a call have taken can be taken off, exactly,
// since each clock reading is used on both sides. Calls on different stacks that run by turns are not within each other
// (kApart); the time of a call that was left is its caller's own, but for what the calls in it have told.
//
// Net times are of a clock that stands still while the task is in probes: probe_ticks is how far that is behind. It
// never goes back, though what an empty trap takes is a mean of some: so no time is negative, and sums stay exact.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ubp::runtime {

struct ReturnFunction;

struct CallFrame {
  static constexpr std::uint16_t kHasJumped = 1;    // to a function whose returns are seen too
  static constexpr std::uint16_t kHasReturned = 2;  // once, and will again: vfork

  std::uint64_t place;       // the stack pointer at the entry, less CallStack::base
  std::uint64_t returns_to;  // what lies there
  const ReturnFunction* function;
  const void* owner;         // whose returns these are
  std::uint32_t point;       // the probepoint at the entry
  std::uint16_t generation;  // of the owner; another one: what was noted before it paused
  std::uint16_t flags;
};
inline constexpr std::uint64_t kCallStackBytes = std::uint64_t{2} << 20, kCallStackHead = 128;
inline constexpr std::uint64_t calls_in(std::uint64_t bytes) { return (bytes - kCallStackHead) / sizeof(CallFrame); }
inline constexpr std::uint64_t kMostCalls = calls_in(kCallStackBytes);
inline constexpr std::uint64_t kSameStack = 1024;

inline constexpr unsigned kKeptArguments = 6;
struct KeptCall {
  static constexpr std::uint32_t kApart = 1;  // nobody is told its time: it and its caller run by turns
  static constexpr std::uint32_t kTold = 2;   // its caller has been told, or has nothing to hear
  static constexpr std::uint32_t kAgain = 4;  // a frame before it is of the same call
  // It may be no new call: control was there again before the one before had returned, which it has left, or which
  // loops to its own entry.
  static constexpr std::uint32_t kDoubtful = 8;
  static constexpr std::uint32_t kNet = 16;  // its time is without that of probes

  const void* family;     // whose calls are seen as within each other; null: nothing is kept of this frame
  std::uint64_t begin;    // of the timestamp counter
  std::uint64_t before;   // CallStack::probe_ticks at its begin
  std::uint64_t elapsed;  // ns, since it has returned
  std::uint64_t inner;    // ns of elapsed that calls in it have taken
  std::uint32_t depth;    // calls that it was made in
  std::uint32_t flags;
  std::uint64_t arguments[kKeptArguments];  // where they are wanted

  // What it has taken, in ticks. probe_ticks: as they are now.
  [[gnu::always_inline]] std::uint64_t ticks(std::uint64_t now, std::uint64_t probe_ticks) const {
    const std::uint64_t all = now > begin ? now - begin : 0, own = (flags & kNet) != 0 ? probe_ticks - before : 0;
    return all > own ? all - own : 0;  // a thread may go on where the counter is behind
  }
};
inline constexpr std::uint64_t kept_bytes(std::uint64_t calls) {
  return (calls * sizeof(KeptCall) + 4095) & ~std::uint64_t{4095};
}
inline constexpr std::uint64_t kKeptCallsBytes = kept_bytes(kMostCalls);

struct CallStack {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  std::uint64_t depth;
  std::uint64_t seams;  // frames that do not lie below the one before
  std::uint64_t waits;  // calls without room, until it is looked for again
  std::uint32_t slot;   // of a goroutine's list: where its owner stands (call_lists.h)
  std::uint32_t process;
  KeptCall* kept;                   // by frame; null: nothing is kept of any
  std::uint64_t probe_ticks;        // that the task has been in probes whose time is not to be counted
  std::uint64_t net_clock;          // as the last one of them has read it
  std::uint64_t room = kMostCalls;  // frames that it has room for
  // 0: places are addresses. Else all frames are of one stack, which ends here, and is copied elsewhere now and then.
  std::uint64_t base;
  alignas(kCallStackHead) CallFrame frames[kMostCalls];

  [[gnu::always_inline]] bool is_seam(std::uint64_t at) const {
    return at != 0 && at < depth && frames[at].place > frames[at - 1].place;
  }
  // There is room.
  [[gnu::always_inline]] void push(const CallFrame& frame) {
    if (kept != nullptr) kept[depth].family = nullptr;
    frames[depth++] = frame;
    seams += is_seam(depth - 1);
  }
  [[gnu::always_inline]] void remove(std::uint64_t at) {
    seams -= is_seam(at) + is_seam(at + 1);
    --depth;
    for (std::uint64_t i = at; i < depth; ++i) {
      frames[i] = frames[i + 1];
      if (kept != nullptr) kept[i] = kept[i + 1];
      asm volatile("" ::: "memory");  // no call of memmove
    }
    seams += is_seam(at);
  }
  // The last frame at this place that is the owner's; kNone: there is none.
  [[gnu::always_inline]] std::uint64_t find(const void* its_owner, std::uint16_t generation,
                                            std::uint64_t place) const {
    for (std::uint64_t at = depth; at-- != 0;) {
      const CallFrame& frame = frames[at];
      if (frame.place == place && frame.owner == its_owner && frame.generation == generation) return at;
      if (seams == 0 && frame.place > place) break;
    }
    return kNone;
  }

  // The call has not returned, or nobody knows.
  template <typename Drop>
  [[gnu::always_inline]] void give_up(std::uint64_t at, const Drop& drop) {
    leave_to_caller(at, at + 1);
    drop(frames[at]);
    remove(at);
  }

  // The stack pointer is at `place`, and everything at the end of the list that is below is looked at.
  // IsLeft: bool(const CallFrame&), whether what lies at its place is certainly not its return address. Drop:
  // void(const CallFrame&), for each that is given up.
  template <typename IsLeft, typename Drop>
  [[gnu::always_inline]] void give_up_below(std::uint64_t place, const IsLeft& is_left, const Drop& drop) {
    while (depth != 0 && frames[depth - 1].place < place) {
      const std::uint64_t first = first_of_chain(place);
      const bool is_chain = first != depth;
      if (!is_chain && !is_left(frames[depth - 1])) return;
      do {
        give_up(depth - 1, drop);
      } while (is_chain && depth != first);
    }
  }

  // A function is entered. There is room. IsSame: bool(const CallFrame&), whether what another owner has of an entry at
  // this place was noted at this hit, and not before.
  template <typename IsLeft, typename IsSame, typename Drop>
  [[gnu::always_inline]] void enter(const CallFrame& frame, const IsLeft& is_left, const IsSame& is_same,
                                    const Drop& drop) {
    give_up_below(frame.place, is_left, drop);
    // What lies at the same place; in other stacks' frames too, where there are any.
    constexpr std::uint64_t kMostLooks = 64;
    for (std::uint64_t at = depth, looks = 0; at-- != 0 && looks < kMostLooks; ++looks) {
      const CallFrame& other = frames[at];
      if (other.place != frame.place) {
        if (seams == 0 && other.place > frame.place) break;
        continue;
      }
      // It has jumped here. Not to itself: it has been called again, or runs in a loop.
      const bool has_jumped =
          other.flags == CallFrame::kHasJumped && other.returns_to == frame.returns_to && other.point != frame.point;
      const bool comes_again = (other.flags & CallFrame::kHasReturned) != 0;
      const bool is_other_owners = other.owner != frame.owner && other.point == frame.point && is_same(other);
      if (has_jumped || comes_again || is_other_owners) continue;
      give_up(at, drop);
    }
    push(frame);
  }

  // A probe whose time is not to be counted begins. now: of the timestamp counter.
  [[gnu::always_inline]] void begin_probe(std::uint64_t now) {
    if (static_cast<std::int64_t>(now - probe_ticks - net_clock) < 0) probe_ticks = now - net_clock;
  }
  // It has begun then, and took so many ticks, what was before and comes behind included.
  [[gnu::always_inline]] void end_probe(std::uint64_t begin, std::uint64_t ticks) {
    net_clock = begin - probe_ticks;
    probe_ticks += ticks;
  }

  // Makes room by what is certainly gone. False: there is none.
  template <typename IsLeft, typename Drop>
  [[gnu::always_inline]] bool make_room(const IsLeft& is_left, const Drop& drop) {
    if (depth < room) return true;
    if (waits != 0) {  // it was in vain not long ago
      --waits;
      return false;
    }
    constexpr std::uint64_t kPlaces = 1024;
    std::uint32_t later[kPlaces];  // frames that stand later in the list, by their places
    for (std::uint64_t i = 0; i < kPlaces; ++i) {
      later[i] = 0;
      asm volatile("" ::: "memory");  // no call of memset
    }
    std::uint64_t stays = depth;  // frames[stays..] stay
    for (std::uint64_t at = depth; at-- != 0;) {
      const CallFrame frame = frames[at];
      std::uint32_t& last = later[(frame.place >> 3) % kPlaces];
      const bool is_taken =
          last != 0 && frames[last].place == frame.place && frames[last].owner == frame.owner && frame.flags == 0;
      if (is_taken || is_left(frame)) {
        leave_to_caller(at, stays);
        drop(frame);
      } else {
        last = static_cast<std::uint32_t>(--stays);
        frames[stays] = frame;
        if (kept != nullptr) kept[stays] = kept[at];
        asm volatile("" ::: "memory");  // no call of memmove, as below
      }
    }
    depth -= stays;
    seams = 0;
    for (std::uint64_t at = 0; at < depth; ++at) {
      frames[at] = frames[at + stays];
      if (kept != nullptr) kept[at] = kept[at + stays];
      asm volatile("" ::: "memory");
      seams += at != 0 && frames[at].place > frames[at - 1].place;
    }
    if (depth == room) waits = room;
    return depth < room;
  }

  // More is kept of the frame that was pushed last. now: of the timestamp counter. True: it is the first frame of its
  // call, and its arguments are still to be kept.
  [[gnu::always_inline]] bool keep(const void* family, std::uint64_t now, bool is_net) {
    const std::uint64_t at = depth - 1;
    KeptCall& its = kept[at];
    for (std::uint64_t other = at; other-- != 0 && frames[other].place == frames[at].place;) {
      if (kept[other].family != family || frames[other].point != frames[at].point) continue;
      its = kept[other];
      its.flags |= KeptCall::kAgain;
      return false;
    }
    its.family = family;
    its.begin = now;
    its.before = probe_ticks;
    its.elapsed = its.inner = 0;
    its.flags = is_net ? KeptCall::kNet : 0;
    const std::uint64_t caller = caller_of(at);
    its.depth = caller != kNone ? kept[caller].depth + 1 : 0;
    if (seams != 0) set_apart(family, caller != kNone ? caller + 1 : 0, at, frames[at].place);
    return true;
  }
  // All calls at a place return there now: what is kept of those of a family is what it took.
  template <typename ToNs>
  [[gnu::always_inline]] void end_calls(std::uint64_t place, std::uint64_t returns_to, const void* family,
                                        std::uint64_t now, const ToNs& to_ns) {
    for (std::uint64_t at = depth; at-- != 0;) {
      const CallFrame& frame = frames[at];
      if (frame.place == place && frame.returns_to == returns_to && kept[at].family == family &&
          (kept[at].flags & KeptCall::kTold) == 0) {
        const std::uint64_t took = to_ns(kept[at].ticks(now, probe_ticks));
        for_each_of_call(at, [&](std::uint64_t same) { kept[same].elapsed = took; });
        tell_caller(at, took);
      }
      if (seams == 0 && frame.place > place) break;
    }
  }
  // A call of the family is entered or ends at `place`, and those in frames[from .. to) that lie below go on: they are
  // on other stacks.
  [[gnu::always_inline]] void set_apart(const void* family, std::uint64_t from, std::uint64_t to, std::uint64_t place) {
    // Only those that are in no other one of them: what these have called is within them as before.
    std::uint64_t highest = 0, looks = 0;
    for (std::uint64_t at = from; at < to && looks < kMostCallers; ++at, ++looks) {
      if (kept[at].family != family || frames[at].place >= place || frames[at].place <= highest) continue;
      highest = frames[at].place;
      for_each_of_call(at, [&](std::uint64_t same) { kept[same].flags |= KeptCall::kApart; });
    }
  }

 private:
  static constexpr std::uint64_t kMostCallers = 1024;

  // The frames that several owners have of one call, if anything is kept of it.
  template <typename Visit>
  [[gnu::always_inline]] void for_each_of_call(std::uint64_t at, const Visit& visit) {
    const void* const family = kept[at].family;
    const CallFrame& its = frames[at];
    if (family == nullptr) return;
    std::uint64_t first = at;
    while (first != 0 && frames[first - 1].place == its.place) --first;
    for (; first < depth && frames[first].place == its.place; ++first) {
      if (kept[first].family == family && frames[first].point == its.point) visit(first);
    }
  }
  // The nearest call of the family that one was made in. It lies above on the same stack, as far as anything shows.
  [[gnu::always_inline]] std::uint64_t caller_of(std::uint64_t at) const {
    const CallFrame& its = frames[at];
    for (std::uint64_t other = at, looks = 0; other-- != 0 && looks < kMostCallers; ++looks) {
      const bool is_same = frames[other].place == its.place && frames[other].point == its.point;
      if (kept[other].family == kept[at].family && frames[other].place >= its.place && !is_same) return other;
    }
    return kNone;
  }
  [[gnu::always_inline]] void tell_caller(std::uint64_t at, std::uint64_t took) {
    const std::uint64_t caller = (kept[at].flags & KeptCall::kApart) != 0 ? kNone : caller_of(at);
    for_each_of_call(at, [&](std::uint64_t same) { kept[same].flags |= KeptCall::kTold; });
    if (caller != kNone) for_each_of_call(caller, [&](std::uint64_t same) { kept[same].inner += took; });
  }
  // What was left is its caller's own time, but for the calls in it that have returned. Those in frames[behind ..
  // depth) that have been made in it and go on are on other stacks.
  [[gnu::always_inline]] void leave_to_caller(std::uint64_t at, std::uint64_t behind) {
    if (kept == nullptr || kept[at].family == nullptr) return;
    if ((kept[at].flags & KeptCall::kTold) == 0) tell_caller(at, kept[at].inner);
    set_apart(kept[at].family, behind, depth, frames[at].place);
  }
  // Where the chain begins that leads from the last frame up to `place`; `depth`: none does.
  [[gnu::always_inline]] std::uint64_t first_of_chain(std::uint64_t place) const {
    std::uint64_t first = depth;
    for (std::uint64_t at = depth; at-- != 0;) {
      const std::uint64_t its = frames[at].place;
      if (first != depth && (its < frames[at + 1].place || its - frames[at + 1].place > kSameStack)) break;
      if (its >= place) return first;
      first = at;
      if (place - its <= kSameStack) {
        // All that lies below and near belongs to it.
        return first;
      }
    }
    return depth;
  }
};
static_assert(sizeof(CallStack) <= kCallStackBytes && sizeof(CallFrame) == 40 &&
              offsetof(CallStack, frames) == kCallStackHead);

}  // namespace ubp::runtime
