// operator new and delete for libubp itself: memory of its own, never the application's malloc.
//
// The report may run inside an application's signal handler that calls _exit while the application's allocator is
// locked; and an application should find its heap as if UBP were not there. The operators are hidden: nothing outside
// libubp uses them.
//
// Context: load time, exit. Async-signal-safe: yes, in that it never waits: when the pool is in use (the thread that
// holds it was interrupted, or another thread is inside) a block gets pages of its own.
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory_resource>
#include <new>

namespace {

class PageResource : public std::pmr::memory_resource {
  void* do_allocate(std::size_t bytes, std::size_t) override {
    void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) abort();  // as under -fno-exceptions: the few callers are at load and exit
    return pages;
  }
  void do_deallocate(void* pages, std::size_t bytes, std::size_t) override { munmap(pages, bytes); }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

// Stands before every block. The pool's blocks are given back only to the pool.
struct Header {
  std::size_t bytes;  // of the whole block
  bool pooled;
};
constexpr std::size_t kHeaderBytes = 16;
static_assert(sizeof(Header) <= kHeaderBytes);

std::atomic_flag g_pool_in_use;

PageResource& pages() {
  alignas(PageResource) static std::byte storage[sizeof(PageResource)];
  static auto* const resource = new (storage) PageResource;
  return *resource;
}

std::pmr::memory_resource& pool() {
  using Pool = std::pmr::unsynchronized_pool_resource;
  alignas(Pool) static std::byte storage[sizeof(Pool)];
  // Big chunks: the first ones serve a small specification whole.
  static auto* const resource = new (storage) Pool(std::pmr::pool_options{4096, 65536}, &pages());
  return *resource;
}

void* allocate(std::size_t bytes) {
  const std::size_t whole = bytes + kHeaderBytes;
  const bool pooled = !g_pool_in_use.test_and_set(std::memory_order_acquire);  // pairs with the clears below
  void* const block = pooled ? pool().allocate(whole, kHeaderBytes) : pages().allocate(whole, kHeaderBytes);
  if (pooled) g_pool_in_use.clear(std::memory_order_release);
  new (block) Header{whole, pooled};
  return static_cast<std::byte*>(block) + kHeaderBytes;
}

void release(void* memory) {
  if (memory == nullptr) return;
  void* const block = static_cast<std::byte*>(memory) - kHeaderBytes;
  const Header header = *static_cast<Header*>(block);
  if (!header.pooled) {
    pages().deallocate(block, header.bytes, kHeaderBytes);
  } else if (!g_pool_in_use.test_and_set(std::memory_order_acquire)) {  // pairs with the clears
    pool().deallocate(block, header.bytes, kHeaderBytes);
    g_pool_in_use.clear(std::memory_order_release);
  }  // else it stays: waiting could deadlock
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
