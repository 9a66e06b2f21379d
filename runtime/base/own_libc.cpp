// What libubp calls of libc, as code of its own: nobody probes it.
//
// While probes of libc are armed, libubp's own calls of it would trap like the program's: millions of times where an
// instruction of memmove is probed. Linked into libubp alone, these hidden definitions are what its other rooms, and
// libstdc++ inside it, are bound to; the application's calls go where they always did. They are the string functions,
// and the system calls, which here are no cancellation points either. What is not here (the dynamic linker's functions)
// may trap, and is counted (TaskState::own_traps).
//
// Not under a sanitizer, which stands in front of these itself. Context: as the functions of the same names.
#include <dlfcn.h>
#include <emmintrin.h>
#include <sys/syscall.h>

#include <cstdarg>
#include <cstddef>
#include <cstdint>

#include "xol/sys.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#pragma GCC visibility push(hidden)

namespace {

using Byte = unsigned char;

template <typename T>
T load(const void* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);  // one move
  return value;
}
template <typename T>
void store(void* to, T value) {
  __builtin_memcpy(to, &value, sizeof value);  // one move
}

// Two moves that may overlap each other, both loaded before either is stored.
template <typename T>
void move_ends(Byte* to, const Byte* from, std::size_t size) {
  const T head = load<T>(from), tail = load<T>(from + size - sizeof(T));
  store(to, head);
  store(to + size - sizeof(T), tail);
}

constexpr std::size_t kBlock = sizeof(__m128i);
constexpr std::size_t kLong = 512;  // from here on the processor's own way is the fastest

void* move(void* target, const void* source, std::size_t size) {
  auto* to = static_cast<Byte*>(target);
  const auto* from = static_cast<const Byte*>(source);
  if (size < 2) {
    if (size == 1) *to = *from;
  } else if (size <= 4) {
    move_ends<std::uint16_t>(to, from, size);
  } else if (size <= 8) {
    move_ends<std::uint32_t>(to, from, size);
  } else if (size < kBlock) {
    move_ends<std::uint64_t>(to, from, size);
  } else if (size <= 2 * kBlock) {
    move_ends<__m128i>(to, from, size);
  } else if (static_cast<std::size_t>(to - from) < size) {  // the end first
    const __m128i head = load<__m128i>(from);
    Byte* const begin = to;
    for (; size > kBlock; size -= kBlock) store(to + size - kBlock, load<__m128i>(from + size - kBlock));
    store(begin, head);
  } else if (size >= kLong && static_cast<std::size_t>(from - to) >= kLong) {
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  } else {
    const __m128i tail = load<__m128i>(from + size - kBlock);
    Byte* const end = to + size;
    for (; size > kBlock; size -= kBlock, to += kBlock, from += kBlock) store(to, load<__m128i>(from));
    store(end - kBlock, tail);
  }
  return target;
}

// libc's errno, at the same place in every thread: its storage is there from the start.
int& error_number() {
  static constinit std::int64_t offset = 0;  // whoever finds it, finds the same: a number on its own
  const auto thread = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
  std::int64_t known = __atomic_load_n(&offset, __ATOMIC_RELAXED);
  if (known == 0) {
    // Not the next one: in a program that does not name libubp itself, libc comes before it. libubp's own is hidden.
    const auto real = reinterpret_cast<int* (*)()>(dlsym(RTLD_DEFAULT, "__errno_location"));
    known = static_cast<std::int64_t>(reinterpret_cast<std::uint64_t>(real()) - thread);
    __atomic_store_n(&offset, known, __ATOMIC_RELAXED);
  }
  return *reinterpret_cast<int*>(thread + static_cast<std::uint64_t>(known));
}

long result_of(long result) {
  if (!ubp::sys::failed(result)) return result;
  error_number() = static_cast<int>(-result);
  return -1;
}

template <typename T>
long word(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

long open_at(int folder, const char* path, int flags, std::va_list list) {
  constexpr int kCreates = 0100, kTemporary = 020000000;
  const int mode = (flags & (kCreates | kTemporary)) != 0 ? va_arg(list, int) : 0;
  return result_of(ubp::sys::call4(SYS_openat, folder, word(path), flags, mode));
}

constexpr int kHere = -100;  // AT_FDCWD

}  // namespace

// Under the names that objects refer to them by, which C++ knows as something else.
#ifndef UBP_OWN_PREFIX  // tests/base compares them with libc's
#define UBP_OWN_PREFIX ""
#endif
#define UBP_OWN(type, name, ...)                                         \
  extern "C" type ubp_own_##name(__VA_ARGS__) asm(UBP_OWN_PREFIX #name); \
  type ubp_own_##name(__VA_ARGS__)

UBP_OWN(void*, memmove, void* to, const void* from, std::size_t size) { return move(to, from, size); }
UBP_OWN(void*, memcpy, void* to, const void* from, std::size_t size) { return move(to, from, size); }

UBP_OWN(void*, memset, void* target, int value, std::size_t size) {
  auto* to = static_cast<Byte*>(target);
  if (size >= kLong) {
    asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
    return target;
  }
  const __m128i block = _mm_set1_epi8(static_cast<char>(value));
  if (size >= kBlock) {
    Byte* const end = to + size;
    for (; to + kBlock < end; to += kBlock) store(to, block);
    store(end - kBlock, block);
    return target;
  }
  for (std::size_t at = 0; at < size; ++at) to[at] = static_cast<Byte>(value);
  return target;
}

namespace {

int compare(const Byte* a, const Byte* b, std::size_t size) {
  for (; size >= kBlock; size -= kBlock, a += kBlock, b += kBlock) {
    const auto equal = static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(load<__m128i>(a), load<__m128i>(b))));
    if (equal == 0xffff) continue;
    const int at = __builtin_ctz(~equal);
    return a[at] - b[at];
  }
  for (std::size_t at = 0; at < size; ++at) {
    if (a[at] != b[at]) return a[at] - b[at];
  }
  return 0;
}

}  // namespace

UBP_OWN(int, memcmp, const void* left, const void* right, std::size_t size) {
  return compare(static_cast<const Byte*>(left), static_cast<const Byte*>(right), size);
}

// Looks for the wanted bytes' first and last at once.
UBP_OWN(void*, memmem, const void* memory, std::size_t size, const void* wanted, std::size_t wanted_size) {
  const auto *at = static_cast<const Byte*>(memory), *const bytes = static_cast<const Byte*>(wanted);
  if (wanted_size == 0) return const_cast<Byte*>(at);
  const std::size_t tail = wanted_size - 1;
  const __m128i first = _mm_set1_epi8(static_cast<char>(bytes[0])),
                last = _mm_set1_epi8(static_cast<char>(bytes[tail]));
  for (; size >= kBlock + tail; size -= kBlock, at += kBlock) {
    const __m128i both =
        _mm_and_si128(_mm_cmpeq_epi8(load<__m128i>(at), first), _mm_cmpeq_epi8(load<__m128i>(at + tail), last));
    for (auto found = static_cast<unsigned>(_mm_movemask_epi8(both)); found != 0; found &= found - 1) {
      const Byte* const here = at + __builtin_ctz(found);
      if (compare(here, bytes, wanted_size) == 0) return const_cast<Byte*>(here);
    }
  }
  for (; size >= wanted_size; --size, ++at) {
    if (compare(at, bytes, wanted_size) == 0) return const_cast<Byte*>(at);
  }
  return nullptr;
}

UBP_OWN(void*, memchr, const void* memory, int value, std::size_t size) {
  const auto* at = static_cast<const Byte*>(memory);
  const __m128i wanted = _mm_set1_epi8(static_cast<char>(value));
  for (; size >= kBlock; size -= kBlock, at += kBlock) {
    const auto found = static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(load<__m128i>(at), wanted)));
    if (found != 0) return const_cast<Byte*>(at + __builtin_ctz(found));
  }
  for (; size != 0; --size, ++at) {
    if (*at == static_cast<Byte>(value)) return const_cast<Byte*>(at);
  }
  return nullptr;
}

UBP_OWN(std::size_t, strlen, const char* text) {
  // Whole aligned blocks: none of them crosses into a page that may not be there.
  const auto address = reinterpret_cast<std::uint64_t>(text);
  const auto* block = reinterpret_cast<const char*>(address & ~(kBlock - 1));
  const __m128i zero = _mm_setzero_si128();
  const auto zeros = [&] {
    return static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(load<__m128i>(block), zero)));
  };
  unsigned found = zeros() >> (address % kBlock);
  if (found != 0) return static_cast<std::size_t>(__builtin_ctz(found));
  do block += kBlock;
  while ((found = zeros()) == 0);
  return static_cast<std::size_t>(block + __builtin_ctz(found) - text);
}

UBP_OWN(std::size_t, strnlen, const char* text, std::size_t most) {
  std::size_t length = 0;
  while (length != most && text[length] != '\0') ++length;
  return length;
}

UBP_OWN(int, strcmp, const char* left, const char* right) {
  while (*left != '\0' && *left == *right) ++left, ++right;
  return static_cast<Byte>(*left) - static_cast<Byte>(*right);
}
UBP_OWN(int, strncmp, const char* left, const char* right, std::size_t most) {
  for (; most != 0; --most, ++left, ++right) {
    if (*left != *right || *left == '\0') return static_cast<Byte>(*left) - static_cast<Byte>(*right);
  }
  return 0;
}

UBP_OWN(int*, __errno_location) { return &error_number(); }

UBP_OWN(void*, mmap64, void* address, std::size_t size, int protection, int flags, int file, long offset) {
  return reinterpret_cast<void*>(
      result_of(ubp::sys::call6(SYS_mmap, word(address), static_cast<long>(size), protection, flags, file, offset)));
}
UBP_OWN(int, munmap, void* address, std::size_t size) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_munmap, word(address), static_cast<long>(size))));
}
UBP_OWN(int, mprotect, void* address, std::size_t size, int protection) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_mprotect, word(address), static_cast<long>(size), protection)));
}
UBP_OWN(int, madvise, void* address, std::size_t size, int advice) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_madvise, word(address), static_cast<long>(size), advice)));
}
UBP_OWN(void*, mremap, void* address, std::size_t size, std::size_t wanted, int flags, ...) {
  std::va_list list;
  va_start(list, flags);
  void* const target = va_arg(list, void*);  // read whether passed or not, as libc's does
  va_end(list);
  return reinterpret_cast<void*>(result_of(ubp::sys::call6(SYS_mremap, word(address), static_cast<long>(size),
                                                           static_cast<long>(wanted), flags, word(target), 0)));
}

UBP_OWN(int, open64, const char* path, int flags, ...) {
  std::va_list list;
  va_start(list, flags);
  const long file = open_at(kHere, path, flags, list);
  va_end(list);
  return static_cast<int>(file);
}
UBP_OWN(int, openat64, int folder, const char* path, int flags, ...) {
  std::va_list list;
  va_start(list, flags);
  const long file = open_at(folder, path, flags, list);
  va_end(list);
  return static_cast<int>(file);
}
UBP_OWN(int, close, int file) { return static_cast<int>(result_of(ubp::sys::call4(SYS_close, file))); }
UBP_OWN(long, read, int file, void* to, std::size_t size) {
  return result_of(ubp::sys::call4(SYS_read, file, word(to), static_cast<long>(size)));
}
UBP_OWN(long, write, int file, const void* from, std::size_t size) {
  return result_of(ubp::sys::call4(SYS_write, file, word(from), static_cast<long>(size)));
}
UBP_OWN(int, poll, void* files, unsigned long count, int patience) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_poll, word(files), static_cast<long>(count), patience)));
}
UBP_OWN(long, pread64, int file, void* to, std::size_t size, long offset) {
  return result_of(ubp::sys::call4(SYS_pread64, file, word(to), static_cast<long>(size), offset));
}
UBP_OWN(long, pwrite64, int file, const void* from, std::size_t size, long offset) {
  return result_of(ubp::sys::call4(SYS_pwrite64, file, word(from), static_cast<long>(size), offset));
}
UBP_OWN(int, fstat64, int file, void* status) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_fstat, file, word(status))));
}
UBP_OWN(int, access, const char* path, int mode) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_access, word(path), mode)));
}
UBP_OWN(long, readlink, const char* path, char* to, std::size_t size) {
  return result_of(ubp::sys::call4(SYS_readlink, word(path), word(to), static_cast<long>(size)));
}
// Not through the vDSO, which reads the timestamp counter: a program may have made that a fault (PR_SET_TSC).
UBP_OWN(int, clock_gettime, int clock, void* now) {
  return static_cast<int>(result_of(ubp::sys::call4(SYS_clock_gettime, clock, word(now))));
}
UBP_OWN(int, getpid) { return static_cast<int>(ubp::sys::getpid()); }
UBP_OWN(long, process_vm_readv, int process, const void* local, unsigned long locals, const void* remote,
        unsigned long remotes, unsigned long flags) {
  return result_of(ubp::sys::call6(SYS_process_vm_readv, process, word(local), static_cast<long>(locals), word(remote),
                                   static_cast<long>(remotes), static_cast<long>(flags)));
}

#pragma GCC visibility pop

#endif
