// malloc and its kin as libubp's own, for what is linked into it and calls them: libstdc++'s emergency pool and its
// demangler. The program's may be its own, small, or not ready before main.
//
// Hidden: the program's calls go where they always did. Nothing here frees what libc has allocated. Context: as the
// functions of the same names; in libubp.so and libubp.a only.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace {
constexpr std::size_t kBefore = 16;  // a block's size stands before it
}

// Under the names that objects refer to them by, which C++ knows as something else.
#define UBP_OWN(type, name, ...)                                                                         \
  extern "C" __attribute__((visibility("hidden"))) type ubp_own_##name(__VA_ARGS__) noexcept asm(#name); \
  type ubp_own_##name(__VA_ARGS__) noexcept

UBP_OWN(void*, malloc, std::size_t size) {
  auto* const block =
      size < SIZE_MAX - kBefore ? static_cast<char*>(::operator new(size + kBefore, std::nothrow)) : nullptr;
  if (block == nullptr) return nullptr;
  std::memcpy(block, &size, sizeof size);
  return block + kBefore;
}

UBP_OWN(void, free, void* memory) {
  if (memory != nullptr) ::operator delete(static_cast<char*>(memory) - kBefore);
}

UBP_OWN(void*, realloc, void* memory, std::size_t size) {
  std::size_t before = 0;
  if (memory != nullptr) std::memcpy(&before, static_cast<char*>(memory) - kBefore, sizeof before);
  void* const moved = ubp_own_malloc(size);
  if (moved == nullptr || memory == nullptr) return moved;
  std::memcpy(moved, memory, before < size ? before : size);
  ubp_own_free(memory);
  return moved;
}
