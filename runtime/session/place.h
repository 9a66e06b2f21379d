// The memory of a program in this process, and where everything is in it.
#pragma once

#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/helpers/memory.h"

namespace ubp::program {

class Place {
 public:
  // Reserves it for this process alone; what is not used takes no memory. Throws std::bad_alloc.
  explicit Place(const Analysis& analysis);
  // In memory that others share, of bytes(), and zeros at first. Both stay the caller's, and outlive this.
  Place(const Analysis& analysis, Control* control, std::uint8_t* memory);
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  // How much shared memory the program takes.
  static std::uint64_t bytes(const Analysis& analysis);

  Machine& machine() { return machine_; }
  const Machine& machine() const { return machine_; }
  const std::vector<MapView>& maps() const { return maps_; }

 private:
  void put(const Analysis& analysis, Control* control, std::uint8_t* memory);

  Machine machine_;
  Control control_{};
  std::vector<MapView> maps_;
  void* memory_ = nullptr;  // null: it is shared
  std::size_t bytes_ = 0;
  void* by_task_ = nullptr;
  std::size_t task_bytes_ = 0;
};

}  // namespace ubp::program
