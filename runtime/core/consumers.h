// Who is called at a hit: lists of consumers by probepoint, read by the trap path and by detours without a lock.
//
// The protocol is trap/consume.h's. Lists are immutable: a change makes a new one, and the old one is deleted when no task
// can be reading it.
//
// Context: normal, under the registry's lock. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/core/consumer_list.h"
#include "runtime/core/machine.h"
#include "runtime/include/ubp.h"

namespace ubp::core {

class Consumers {
 public:
  // What those at a probepoint ask for, and perhaps one more.
  static xol::ConsumerNeeds needs(std::uint32_t index, const Consumer* added);
  // capacity: probepoints. Throws std::bad_alloc.
  void start(std::uint32_t capacity);

  // Takes a consumer in, or out, at every probepoint of the runs. Before the first int3 that leads to it is armed; after
  // the last, and then wait() before anything it used goes.
  void add(Machine& machine, const Runs& runs, const Consumer& consumer);
  void remove(Machine& machine, const Runs& runs, const ubp_probe* probe);
  // Returns when no task runs a list that was taken out before, and deletes those lists. synchronise: makes every thread see
  // what was written.
  void wait(Machine& machine);

 private:
  std::vector<const Consumer*> retired_;
};

}  // namespace ubp::core
