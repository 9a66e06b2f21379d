// This process's memory through the kernel: reads that cannot fault, writes that no page protection stops.
#pragma once

#include <cstdint>

namespace ubp::patch {

// /proc/self/mem, open from the first access for as long as the object lives, which is to be short: no forked child may
// hold its parent's. Where it is denied, process_vm_readv reads what the program itself may read, and nothing is
// written. Context: normal. Async-signal-safe: yes. Thread-safe: no. Source: proc(5), process_vm_readv(2).
class OwnMemory {
 public:
  OwnMemory() = default;
  ~OwnMemory();
  OwnMemory(const OwnMemory&) = delete;
  OwnMemory& operator=(const OwnMemory&) = delete;

  // Returns how many bytes could be read.
  std::uint64_t read(std::uint64_t address, std::uint8_t* to, std::uint64_t size) const;
  // False: not all of it was written; errno says why.
  bool write(std::uint64_t address, const std::uint8_t* from, std::uint64_t size) const;

 private:
  static constexpr int kNotOpened = -2;

  int descriptor() const;

  mutable int fd_ = kNotOpened;  // -1: denied
};

}  // namespace ubp::patch
