// Where detours lie: chunks of address space within a jump's reach of the code, filled densely from a place that all
// code of one section (8 MiB) shares, because scattered detours cost misses of the instruction TLB.
//
// A processor's branch predictor tells branches apart by their low address bits, 24 of them on Intel's (measured on
// Sapphire Rapids: a detour at any multiple of 2^24 from its function costs 11 to 12 ns a hit, anywhere else 1 to 2).
// So a detour never agrees in them with the code it stands for (shares_low_bits), and where the pattern leaves a
// choice, it agrees with none of the code around: the section's detours begin where the section ends, 8 MiB on in the
// next sixteen, and differ from all of it in bit 23.
//
// A chunk is read-execute from the start and never writable: its pages come into being when the text poke writes them.
// What was placed is never freed: a thread may sleep in it for hours.
//
// Context: normal. Thread-safe: no.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/jump/detour_plan.h"
#include "runtime/table/detour_view.h"
#include "xol/sys.h"

namespace ubp::runtime {

// Addresses, or displacements: [begin, end).
struct Extent {
  std::uint64_t begin, end;
};

// Whether some address of one agrees with some address of the other in the bits by which a branch predictor knows them.
inline constexpr std::uint64_t kPredictorBytes = std::uint64_t{1} << 24;
inline bool shares_low_bits(Extent a, Extent b) {
  return (b.begin - a.begin) % kPredictorBytes < a.end - a.begin ||
         (a.begin - b.begin) % kPredictorBytes < b.end - b.begin;
}

// Where the detours of the code at an address begin, but for the displacement's highest byte, which changes none of the
// low 24 bits.
inline constexpr std::uint64_t kSectionBytes = kPredictorBytes / 2;
inline std::uint64_t home_of(std::uint64_t address) { return (address & ~(kSectionBytes - 1)) + kSectionBytes; }

class DetourSpace {
 public:
  // reserve(base): maps a chunk there, or says that it cannot.
  explicit DetourSpace(std::function<bool(std::uint64_t base)> reserve) : reserve_(std::move(reserve)) {}

  // A place for a detour, such that its entry (behind its head) minus `from` (the address behind the jump)
  // matches the pattern, whose highest byte is fixed, and that it shares no low bits with `code`, which it stands for.
  // Marks it as used. Returns the entry; nothing: no such place is free.
  std::optional<std::uint64_t> place(std::uint64_t from, Pattern pattern, DetourSize size, Extent code);

  // Publishes what is placed there, once its bytes are written: threads that are found inside are recognised.
  void publish(DetourView& view, std::uint64_t head);

  std::uint64_t used_bytes() const { return used_bytes_; }

 private:
  static constexpr std::uint64_t kPage = sys::kPageBytes;
  static constexpr std::uint32_t kPatterns = 2, kSizes = 32;  // whether the lowest byte is fixed; by 64 bytes
  struct Chunk {
    std::uint64_t* used = nullptr;               // a bit for every byte
    std::uint64_t* begins = nullptr;             // DetourChunk::begins
    std::uint32_t longest[kChunkBytes / kPage];  // no free run that begins in the page is longer
    bool is_shown = false;                       // in the view
    std::uint8_t in_vain[kPatterns]
                        [kSizes];  // searches from its begin to its end for a place for such a detour, without one
  };

  Chunk* chunk_at(std::uint64_t base);
  Chunk* find_chunk(std::uint64_t base);
  std::optional<std::uint64_t> search(std::uint64_t reach, Extent within, Pattern pattern, DetourSize size,
                                      Extent code);
  std::uint64_t last_used(Chunk& chunk, std::uint64_t begin, std::uint64_t end) const;

  std::function<bool(std::uint64_t)> reserve_;
  std::map<std::uint64_t, std::unique_ptr<Chunk>> chunks_;  // by base; null: cannot be had
  std::uint64_t latest_base_ = ~std::uint64_t{0};           // of the chunk that was looked up last
  Chunk* latest_ = nullptr;
  std::uint32_t chunks_made_ = 0;
  std::uint64_t used_bytes_ = 0;
};

}  // namespace ubp::runtime
