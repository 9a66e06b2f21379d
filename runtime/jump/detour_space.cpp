// Finding places for detours. See detour_space.h.
#include "runtime/jump/detour_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace ubp::runtime {
namespace {

constexpr std::uint64_t kEnd = ~std::uint64_t{0};

// The smallest value from `x` on that matches; kEnd: none. The pattern fixes whole bytes, the highest among them.
std::uint64_t next_match(std::uint64_t x, Pattern pattern) {
  if ((x & pattern.mask) == pattern.value) return x;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const std::uint64_t byte = std::uint64_t{0xff} << shift;
    if ((pattern.mask & byte) == 0 || (x & byte) == (pattern.value & byte)) continue;
    const std::uint64_t below = (std::uint64_t{1} << (shift + 8)) - 1;  // this byte and those below
    if ((x & byte) > (pattern.value & byte)) {                          // the free bits above count one up
      x = ((x | pattern.mask | below) + 1);
      if (x >> 32 != 0) return kEnd;
    }
    return (x & ~below & ~std::uint64_t{pattern.mask}) | pattern.value;
  }
  return x;
}

}  // namespace

DetourSpace::Chunk* DetourSpace::chunk_at(std::uint64_t base) {
  if (base != latest_base_) latest_ = find_chunk(base);
  latest_base_ = base;
  return latest_;
}

DetourSpace::Chunk* DetourSpace::find_chunk(std::uint64_t base) {
  const auto [found, is_new] = chunks_.try_emplace(base);
  if (!is_new) return found->second.get();
  constexpr std::uint64_t kBitmap = kChunkBytes / 8;
  if (chunks_made_ == kMostChunks || !reserve_(base)) return nullptr;
  void* const bitmaps =
      mmap(nullptr, 2 * kBitmap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bitmaps == MAP_FAILED) return nullptr;
  ++chunks_made_;
  auto chunk = std::make_unique<Chunk>();
  chunk->begins = static_cast<std::uint64_t*>(bitmaps);
  chunk->used = chunk->begins + kBitmap / 8;
  std::fill(std::begin(chunk->longest), std::end(chunk->longest), kChunkBytes);
  found->second = std::move(chunk);
  return found->second.get();
}

// The last used byte in [begin, end) plus one, offsets in the chunk; `begin`: all are free.
std::uint64_t DetourSpace::last_used(Chunk& chunk, std::uint64_t begin, std::uint64_t end) const {
  for (std::uint64_t at = end; at > begin;) {
    const std::uint64_t word = (at - 1) / 64, low = std::max(begin, word * 64);
    std::uint64_t bits = chunk.used[word] << (63 - (at - 1) % 64);  // the bits up to at - 1, highest first
    if (bits != 0) {
      const auto gap = static_cast<std::uint64_t>(std::countl_zero(bits));
      if (at - 1 - gap >= low) return at - gap;
    }
    at = low;
  }
  return begin;
}

std::optional<std::uint64_t> DetourSpace::place(std::uint64_t from, Pattern pattern, DetourSize size, Extent code) {
  const std::uint64_t reach =
      from - (pattern.value >> 31 != 0 ? std::uint64_t{1} << 32 : 0);  // entry = reach + displacement
  const std::uint64_t begin = pattern.value & 0xff000000, end = begin + (std::uint64_t{1} << 24);
  const std::uint64_t home = begin + home_of(from) - from;
  if (const auto entry = search(reach, {home, end}, pattern, size, code)) return entry;
  return search(reach, {begin, home}, pattern, size, code);
}

// The first place with a displacement in `within`, but in no chunk that such detours have often been looked for in
// vain: without that the time would grow by the square of their number.
std::optional<std::uint64_t> DetourSpace::search(std::uint64_t reach, Extent within, Pattern pattern, DetourSize size,
                                                 Extent code) {
  const std::uint64_t need = size.head + size.code, first = reach + within.begin - size.head;
  const bool is_contiguous = (pattern.mask & 0xffffff) == 0;
  constexpr std::uint8_t kOften = 4;
  const std::uint32_t fixed = (pattern.mask & 0xff) / 0xff;
  const bool is_dense =
      (pattern.mask & 0xffff00) == 0;  // it may lie anywhere in a chunk, or nearly so: one failure tells of others
  const std::uint32_t bucket = std::min<std::uint32_t>(static_cast<std::uint32_t>(need) / 64, kSizes - 1);
  std::uint64_t relative = next_match(within.begin, pattern),
                begun = ~std::uint64_t{0};  // the chunk that is being searched from its begin
  Chunk* searched = nullptr;
  while (relative < within.end) {
    const std::uint64_t begin = reach + relative - size.head, base = begin & ~(kChunkBytes - 1), offset = begin - base;
    const auto go_to = [&](std::uint64_t address) { relative = next_match(address + size.head - reach, pattern); };
    Chunk* const chunk = chunk_at(base);
    if (base != begun) {
      if (searched != nullptr && searched->in_vain[fixed][bucket] < kOften) ++searched->in_vain[fixed][bucket];
      searched = is_dense && (begin != first || offset < kPage) ? chunk : nullptr;
      begun = base;
    }
    if (chunk == nullptr || offset + need > kChunkBytes || (is_dense && chunk->in_vain[fixed][bucket] == kOften)) {
      go_to(base + kChunkBytes);
      continue;
    }
    const std::uint64_t page = offset / kPage;
    if (chunk->longest[page] < need) {
      go_to(base + (page + 1) * kPage);
      continue;
    }
    const std::uint64_t blocked = last_used(*chunk, offset, offset + need);
    if (blocked == offset && shares_low_bits({begin, begin + need}, code)) {
      go_to(begin + 1);
      continue;
    }
    if (blocked == offset) {
      for (std::uint64_t at = offset; at < offset + need; ++at) chunk->used[at / 64] |= std::uint64_t{1} << (at % 64);
      used_bytes_ += need;
      return begin + size.head;
    }
    // A whole page without a place for this one has none for a longer one either.
    if (is_contiguous && blocked >= (page + 1) * kPage && base + page * kPage >= first) {
      chunk->longest[page] = static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk->longest[page], need - 1));
    }
    go_to(base + blocked);
  }
  return std::nullopt;
}

void DetourSpace::publish(DetourView& view, std::uint64_t head) {
  const std::uint64_t begin = head, base = begin & ~(kChunkBytes - 1);
  Chunk& chunk = *chunks_.at(base);
  const std::uint64_t offset = begin - base;
  __atomic_fetch_or(&chunk.begins[offset / 64], std::uint64_t{1} << (offset % 64),
                    __ATOMIC_RELEASE);  // before its jump is written
  if (chunk.is_shown) return;
  view.chunks[view.count] = {base, chunk.begins};
  __atomic_store_n(&view.count, view.count + 1, __ATOMIC_RELEASE);  // whoever counts it finds it whole
  chunk.is_shown = true;
}

}  // namespace ubp::runtime
