// operator new and delete for libubp itself: memory of its own, never the application's malloc.
//
// The report may run inside an application's signal handler that calls _exit while the application's allocator is
// locked; and an application should find its heap as if UBP were not there. The operators are hidden: nothing outside
// libubp uses them.
//
// Context: load time, exit. Async-signal-safe: yes, in that it never waits: when the pool is in use (the thread that
// holds it was interrupted, or another thread is inside) a block gets pages of its own.
#include "runtime/base/arena.h"

#include <linux/mman.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "xol/assert.h"
#include "xol/sys.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // tests: their own allocator sees more
std::uint64_t ubp::runtime::arena_bytes() { return 0; }
void ubp::runtime::reserve_arena() {}
#else

namespace {

// Stands before every block.
struct Header {
  std::uint64_t bytes : 56;  // of the whole block
  std::uint64_t pooled : 1;
};
constexpr std::size_t kHeaderBytes = 16;  // keeps what operator new promises: alignment for any type
static_assert(sizeof(Header) <= kHeaderBytes);

struct FreeBlock {
  FreeBlock* next;
};

// Blocks up to 256 KiB come in classes, four to a power of two, cut from 1 MiB mappings and kept for reuse; larger
// ones are mappings of their own, given back when released. (At load most blocks are some ten pages that are soon
// released: to give those back and to fault the next ones in again took longer than to fill them.)
constexpr std::size_t kMappingBytes = std::size_t{1} << 20;
constexpr std::size_t kLargestPooled = std::size_t{256} << 10;
// The pages that come next are asked for so many at a time: one system call costs less than a page fault for each.
constexpr std::size_t kPopulatedBytes = std::size_t{32} << 10;
constexpr std::size_t kClasses = 64;

std::atomic<std::uint64_t> g_bytes{0};
std::atomic_flag g_pool_in_use;
FreeBlock* g_free[kClasses];
std::byte* g_at = nullptr;
std::size_t g_left = 0;
std::byte* g_populated = nullptr;  // up to here there are pages

void* map_pages(std::size_t bytes) {
  void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();      // the entry says so, and the program goes on
  g_bytes.fetch_add(bytes, std::memory_order_relaxed);  // a statistic, here and below
  return pages;
}

void unmap_pages(void* pages, std::size_t bytes) {
  munmap(pages, bytes);
  g_bytes.fetch_sub(bytes, std::memory_order_relaxed);
}

// The class of a block, and the size of all blocks of that class (a multiple of 16).
std::size_t class_of(std::size_t bytes, std::size_t& rounded) {
  if (bytes <= 128) {
    rounded = (bytes + 15) & ~std::size_t{15};
    return rounded / 16;
  }
  const auto shift = static_cast<unsigned>(std::bit_width(bytes - 1)) - 3;  // four steps within each power of two
  rounded = ((bytes - 1) >> shift << shift) + (std::size_t{1} << shift);
  return 8 + (std::size_t{shift} - 5) * 4 + ((rounded - 1) >> shift) - 3;
}

// Whoever has set g_pool_in_use, until it goes.
struct PoolHeld {
  PoolHeld() = default;
  ~PoolHeld() { g_pool_in_use.clear(std::memory_order_release); }  // pairs with test_and_set
  PoolHeld(const PoolHeld&) = delete;
  PoolHeld& operator=(const PoolHeld&) = delete;
};

void map_pool() {
  g_populated = g_at = static_cast<std::byte*>(map_pages(kMappingBytes));
  g_left = kMappingBytes;
}

void* take_pooled(std::size_t bytes, std::size_t& rounded) {
  FreeBlock*& list = g_free[class_of(bytes, rounded)];
  if (list != nullptr) {
    FreeBlock* const block = list;
    list = block->next;
    return block;
  }
  if (g_left < rounded) map_pool();  // what is left of the old mapping is less than one block: dropped
  void* const block = g_at;
  g_at += rounded;
  if (g_populated < g_at) {
    const auto wanted = static_cast<std::size_t>(g_at - g_populated) + kPopulatedBytes - 1;
    const std::size_t more = wanted - wanted % kPopulatedBytes;
    // Refused (before Linux 5.14, or there is no memory): they come when they are touched.
    ubp::sys::call4(SYS_madvise, reinterpret_cast<long>(g_populated), static_cast<long>(more), MADV_POPULATE_WRITE);
    g_populated += more;
  }
  g_left -= rounded;
  return block;
}

void* allocate(std::size_t bytes) {
  std::size_t whole = bytes + kHeaderBytes;
  const bool pooled =
      whole <= kLargestPooled && !g_pool_in_use.test_and_set(std::memory_order_acquire);  // pairs with clear
  void* block;
  if (pooled) {
    const PoolHeld held;
    block = take_pooled(whole, whole);
  } else {
    whole = (whole + 4095) & ~std::size_t{4095};
    block = map_pages(whole);
  }
  new (block) Header{whole & ((std::uint64_t{1} << 56) - 1), pooled};
  return static_cast<std::byte*>(block) + kHeaderBytes;
}

void release(void* memory) {
  if (memory == nullptr) return;
  void* const block = static_cast<std::byte*>(memory) - kHeaderBytes;
  const Header header = *static_cast<Header*>(block);
  const bool is_whole = header.pooled ? header.bytes <= kLargestPooled : header.bytes % ubp::sys::kPageBytes == 0;
  UBP_ASSERT(is_whole && header.bytes >= kHeaderBytes);  // else it is none of these blocks, or was written over
  if (!header.pooled) {
    unmap_pages(block, header.bytes);
  } else if (!g_pool_in_use.test_and_set(std::memory_order_acquire)) {  // pairs with the clears
    std::size_t rounded;
    FreeBlock*& list = g_free[class_of(header.bytes, rounded)];
    list = new (block) FreeBlock{list};
    g_pool_in_use.clear(std::memory_order_release);  // pairs with test_and_set
  }                                                  // else it stays: waiting could deadlock
}

}  // namespace

std::uint64_t ubp::runtime::arena_bytes() { return g_bytes.load(std::memory_order_relaxed); }

void ubp::runtime::reserve_arena() {
  if (g_pool_in_use.test_and_set(std::memory_order_acquire)) return;  // pairs with clear
  const PoolHeld held;
  constexpr std::size_t kReserve = kMappingBytes / 2;
  if (g_left < kReserve) map_pool();
}

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

#endif
