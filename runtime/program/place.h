// The memory of a program in this process, and where everything is in it.
#pragma once

#include <vector>

#include "runtime/program/analysis.h"
#include "runtime/program/memory.h"

namespace ubp::program {

class Place {
 public:
  // Reserves it; what is not used takes no memory. Throws std::bad_alloc.
  explicit Place(const Analysis& analysis);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  Machine& machine() { return machine_; }
  const Machine& machine() const { return machine_; }
  const std::vector<MapView>& maps() const { return maps_; }

 private:
  Machine machine_;
  std::vector<MapView> maps_;
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace ubp::program
