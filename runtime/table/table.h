// The probe table: address -> probepoint, for the trap path. A probepoint that was ever armed stays: a late trap still
// finds its displaced instruction.
//
// Open addressing, linear probing, at most three quarters full: a lookup reads two or three cache lines however many
// probepoints there are, takes no lock and never waits.
//
// Synchronization protocol. One writer at a time (the caller's lock); readers at any time, in the trap path. The
// probepoints never move: room for later ones is reserved when the table is made. The buckets are as many as there is
// need for, since each page of them is touched soon: more make a new array, which is published when it holds all that
// the old one does; the old one stays, for readers that are in it. A probepoint is written whole before its bucket is
// (release; x86 readers need no more than the dependency), and before its int3 is armed through the kernel. A
// probepoint that goes keeps its bucket and loses its address, in one store of the word that holds it.
//
// Context: normal. What the trap path reads of it: table_view.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "runtime/table/table_view.h"
#include "xol/displaced.h"

namespace ubp::runtime {

// Owns what a TableView shows. The memory outlives the process's last trap: it is never freed once published.
class Table {
 public:
  // Room for `capacity` probepoints; pages are used when they are. Throws std::bad_alloc.
  explicit Table(std::size_t capacity);
  TableView view() const;
  std::size_t room() const { return capacity_ - count_; }
  std::size_t bytes() const;  // used, to the page

  // Prepares for so many more, so that the buckets are not made again and again.
  void make_room(std::size_t more);
  // The index of the probepoint at this one's address, which is the one that was there, or this one, just added. Needs
  // room for one.
  std::uint32_t add(const xol::Displaced& point);
  // Changes what may change of a probepoint that is published.
  void set_consumers(std::uint32_t index, bool has_consumers);
  void mark_hook(std::uint32_t index);
  // Where it was, if its module is gone.
  std::uint64_t last_address(std::uint32_t index) const;
  // The module of this probepoint is gone: it is found no more. Its int3 went with it.
  void retire(std::uint32_t index);
  // It is back, at the same place.
  void revive(std::uint32_t index, std::uint64_t address);

 private:
  std::size_t capacity_;
  xol::Displaced* points_;
  const Buckets** present_;       // in a page of its own: for ever, as the rest
  Buckets* buckets_ = nullptr;    // the same ones
  std::size_t bucket_bytes_ = 0;  // of all that were ever made
  std::uint32_t count_ = 0;
  std::unordered_map<std::uint32_t, std::uint64_t> retired_;  // their addresses
};

}  // namespace ubp::runtime
