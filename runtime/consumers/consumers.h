// Who is called at a hit: lists of consumers by probepoint, read by the trap path and by detours without a lock.
//
// The protocol is trap/consume.h's. Lists are immutable: a change makes a new one, and the old one is deleted when no
// task can be reading it.
//
// Context: normal, under the registry's lock. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/consumers/consumer_list.h"
#include "runtime/include/ubp.h"
#include "runtime/table/runs.h"

namespace ubp::runtime {

class Consumers {
 public:
  // What those at a probepoint ask for, and perhaps one more.
  static ActionNeeds needs(std::uint32_t index, const Consumer* added);
  // capacity: probepoints. mark: says in the table whether a probepoint has consumers. synchronise: makes every thread
  // see what was written, where a detour may have run.
  struct Callbacks {
    std::function<void(std::uint32_t index, bool has_consumers)> mark;
    std::function<void()> synchronise;
  };
  // Throws std::bad_alloc.
  void start(std::uint32_t capacity, Callbacks callbacks);

  // Takes a consumer in, or out, at every probepoint of the runs. Before the first int3 that leads to it is armed;
  // after the last, and then wait() before anything it used goes.
  void add(const Runs& runs, const Consumer& consumer);
  // The same of one, at its `point`.
  void add(const Consumer& consumer);
  void remove(const Runs& runs, const ubp_probe* probe);
  // Returns when no task runs a list that was taken out before, and deletes those lists.
  void wait();

 private:
  void add_at(std::uint32_t index, const Consumer& added);

  std::uint32_t capacity_ = 0;
  Callbacks callbacks_;
  std::vector<const Consumer*> retired_;
};

}  // namespace ubp::runtime
