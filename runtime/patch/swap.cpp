// See swap.h.
#include "runtime/patch/swap.h"

#include <algorithm>
#include <vector>

#include "runtime/patch/own_memory.h"
#include "runtime/patch/poke.h"
#include "xol/assert.h"

namespace ubp::patch {
namespace {

std::uint64_t page_below(std::uint64_t address) { return address & ~(kPageBytes - 1); }

// Makes the swaps of one page in its copy. False: it is not what was written, or there is nothing to do.
bool apply(std::span<const Swap> swaps, std::uint8_t* page) {
  const auto byte = [&](const Swap& swap) -> std::uint8_t& { return page[swap.address % kPageBytes]; };
  bool changes = false;
  for (const Swap& swap : swaps) {
    if (byte(swap) != swap.from && byte(swap) != swap.to) return false;
    changes |= byte(swap) != swap.to;
  }
  for (const Swap& swap : swaps) byte(swap) = swap.to;
  return changes;
}

}  // namespace

std::optional<std::string> swap_text(std::span<const Swap> swaps) {
  constexpr std::size_t kMostPages = 64;
  if (swaps.empty()) return std::nullopt;
  const OwnMemory own;
  std::vector<std::uint8_t> memory;  // no more than is needed: none may be had at the end of a sandboxed program
  std::vector<Page> pages;
  std::optional<std::string> denied;
  while (!swaps.empty()) {
    // A run of neighbouring pages at a time, each of them with something to do.
    const std::uint64_t first = page_below(swaps.front().address);
    std::size_t count = 1;
    std::uint64_t last = first;
    for (; count < swaps.size(); ++count) {
      const std::uint64_t page = page_below(swaps[count].address);
      UBP_ASSERT(page >= last);
      if (page > last + kPageBytes || page - first >= kMostPages * kPageBytes) break;
      last = page;
    }
    const std::uint64_t whole = last + kPageBytes - first;
    if (memory.size() < whole) memory.resize(whole);
    std::uint64_t readable = own.read(first, memory.data(), whole);
    pages.clear();
    for (std::size_t begin = 0; begin < count;) {
      const std::uint64_t page = page_below(swaps[begin].address);
      std::uint8_t* const copy = memory.data() + (page - first);
      std::size_t end = begin;
      while (end < count && page_below(swaps[end].address) == page) ++end;
      // Behind a page that cannot be read there may be one that can.
      const bool is_read = page - first + kPageBytes <= readable || own.read(page, copy, kPageBytes) == kPageBytes;
      if (is_read && apply(swaps.subspan(begin, end - begin), copy)) pages.push_back({page, copy});
      begin = end;
    }
    if (auto problem = write_pages(pages)) denied = std::move(problem);
    swaps = swaps.subspan(count);
  }
  return denied;
}

}  // namespace ubp::patch
