// What the trap path sees of the detours: the chunks that hold them (detour_space.h makes them), and each probepoint's.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <cstdint>

#include "runtime/table/detour.h"

namespace ubp::runtime {

inline constexpr std::uint64_t kChunkBytes = std::uint64_t{2} << 20;
inline constexpr std::uint32_t kMostChunks = 512;

struct DetourChunk {
  std::uint64_t base = 0;
  const std::uint64_t* begins = nullptr;  // a bit for every byte: a detour's head begins there
};

// Whether what stands at a place may be a jump to a detour (DetourWriter::write_jump).
[[gnu::always_inline]] inline bool is_detour_jump(const std::uint8_t* text) {
  return text[0] == 0xe9 || text[0] == 0x3e;
}

struct DetourView {
  DetourChunk chunks[kMostChunks];
  std::uint32_t count = 0;
  const DetourInfo** infos =
      nullptr;  // by probepoint: its latest detour, or the one that covers it; null: none was made

  [[gnu::always_inline]] inline const DetourChunk* chunk_of(std::uint64_t address) const {
    const std::uint32_t chunks_made = __atomic_load_n(&count, __ATOMIC_ACQUIRE);  // pairs with DetourSpace
    for (std::uint32_t i = 0; i < chunks_made; ++i) {
      if (address - chunks[i].base < kChunkBytes) return &chunks[i];
    }
    return nullptr;
  }
  // Whether kMostJumpBytes of text begin with a jump into a chunk: no other code has such.
  [[gnu::always_inline]] inline bool is_jumped_from(const std::uint8_t* text) const {
    if (!is_detour_jump(text)) return false;
    std::uint32_t prefixes = 0;
    while (prefixes < decoder::kMostPrefixes && text[prefixes] == 0x3e) ++prefixes;
    if (text[prefixes] != 0xe9) return false;
    const auto displacement = static_cast<std::int32_t>(xol::load32(text + prefixes + 1));
    const std::uint64_t behind = reinterpret_cast<std::uint64_t>(text) + prefixes + decoder::kJumpBytes;
    return chunk_of(behind + static_cast<std::uint64_t>(std::int64_t{displacement})) != nullptr;
  }
  // The detour that holds the address, its slow way included; null: none does.
  [[gnu::always_inline]] inline const DetourInfo* around(std::uint64_t address) const {
    const DetourChunk* const chunk = chunk_of(address);
    if (chunk == nullptr) return nullptr;
    constexpr std::uint64_t kBits = 64, kFurthest = kMostDetourBytes / kBits;  // words back
    std::uint64_t last = address - chunk->base, word = last / kBits;
    const auto load = [&]() __attribute__((always_inline)) {
      return __atomic_load_n(&chunk->begins[word], __ATOMIC_RELAXED);
    };                                                          // whoever is inside sees its own
    std::uint64_t bits = load() << (kBits - 1 - last % kBits);  // the bytes up to `last`, that one highest
    for (std::uint64_t words = 0; bits == 0; ++words) {
      if (word == 0 || words == kFurthest) return nullptr;
      last = word * kBits - 1;
      --word;
      bits = load();
    }
    const std::uint64_t head = chunk->base + last - static_cast<std::uint64_t>(__builtin_clzll(bits));
    const auto* info = reinterpret_cast<const DetourInfo*>(xol::load64(reinterpret_cast<const std::uint8_t*>(head)));
    return address < info->entry + info->bytes ? info : nullptr;
  }
  [[gnu::always_inline]] inline const DetourInfo* of(std::uint32_t point) const {
    return infos == nullptr ? nullptr : __atomic_load_n(&infos[point], __ATOMIC_ACQUIRE);  // pairs with its publication
  }
  // Where a probepoint's instruction is executed by an active detour in which it is not the first; 0: nowhere.
  [[gnu::always_inline]] inline std::uint64_t covered_copy(std::uint32_t point, std::uint64_t address) const {
    const DetourInfo* const info = of(point);
    std::uint32_t part = 0;
    if (info == nullptr || info->origin == address || __atomic_load_n(&info->is_active, __ATOMIC_RELAXED) == 0)
      return 0;
    return info->find_part(address - info->origin, part) && !info->is_chained(part) ? info->entry + info->copies[part]
                                                                                    : 0;
  }
};

}  // namespace ubp::runtime
