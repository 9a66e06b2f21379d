// What the interposing files share: libc's own definitions, and whether the runtime has taken over.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <type_traits>

#pragma GCC diagnostic ignored "-Wignored-attributes"  // libc's nonnull, on a type passed as a template argument
#define UBP_EXPORT extern "C" __attribute__((visibility("default")))

namespace ubp::signals {

// Set by take_over(); before, every interposed function passes straight to libc's.
extern std::atomic<bool> g_active;

inline std::uint64_t bit_of(int signal) { return std::uint64_t{1} << (signal - 1); }
inline bool is_signal(int signal) { return signal >= 1 && signal <= 64; }
inline constexpr std::uint64_t kSigsetBytes = 8;

template <typename Function>
Function* next_symbol(std::atomic<Function*>& cache, const char* name) {
  Function* function = cache.load(std::memory_order_relaxed);  // any thread finds the same value
  if (function == nullptr) {
    function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
    // Behind libc, where the program itself does not name libubp, nothing comes next; nobody's calls come here then but
    // libubp's own.
    if (function == nullptr) {
      if (void* const libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD))
        function = reinterpret_cast<Function*>(dlsym(libc, name));
    }
    cache.store(function, std::memory_order_relaxed);
  }
  return function;
}

// libc's own definition of an interposed function.
#define UBP_REAL(name)                                       \
  [] {                                                       \
    static constinit std::atomic<decltype(&::name)> cache{}; \
    using Type = std::remove_pointer_t<decltype(&::name)>;   \
    return ::ubp::signals::next_symbol<Type>(cache, #name);  \
  }()

}  // namespace ubp::signals
