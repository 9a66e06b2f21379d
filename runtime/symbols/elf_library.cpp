// Opening libelf.so.1 and finding its functions. The contract is in elf_library.h.
#include "runtime/symbols/elf_library.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unwind.h>

#include "runtime/symbols/symbols.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace ubp::symbols {
namespace {

constexpr const char* kLibelf = "libelf.so.1";

// libelf's memory is libubp's, not the program's: the program's malloc may be its own, small, or not ready before main. Each block is
// preceded by its size.
constexpr std::size_t kBefore = 16;
void* own_malloc(std::size_t size) {
  auto* const block = size < SIZE_MAX - kBefore ? static_cast<char*>(::operator new(size + kBefore, std::nothrow)) : nullptr;
  if (block == nullptr) return nullptr;
  std::memcpy(block, &size, sizeof size);
  return block + kBefore;
}
void own_free(void* memory) {
  if (memory != nullptr) ::operator delete(static_cast<char*>(memory) - kBefore);
}
void* own_calloc(std::size_t count, std::size_t size) {
  std::size_t bytes = 0;
  void* const memory = __builtin_mul_overflow(count, size, &bytes) ? nullptr : own_malloc(bytes);
  return memory != nullptr ? std::memset(memory, 0, bytes) : nullptr;
}
void* own_realloc(void* memory, std::size_t size) {
  std::size_t before = 0;
  if (memory != nullptr) std::memcpy(&before, static_cast<char*>(memory) - kBefore, sizeof before);
  void* const moved = own_malloc(size);
  if (moved == nullptr || memory == nullptr) return moved;
  std::memcpy(moved, memory, std::min(before, size));
  own_free(memory);
  return moved;
}

// Binds the library's calls of the allocator to the functions above, before it has made any. Source: gABI, "Dynamic Linking"; psABI 4.4.
void give_own_memory(void* handle) {
  const std::pair<std::string_view, void*> functions[] = {{"malloc", reinterpret_cast<void*>(&own_malloc)}, {"free", reinterpret_cast<void*>(&own_free)},
                                                          {"calloc", reinterpret_cast<void*>(&own_calloc)}, {"realloc", reinterpret_cast<void*>(&own_realloc)}};
  const auto* const map = static_cast<const link_map*>(handle);
  const auto word = [&](std::int64_t tag) -> std::uint64_t {
    const ElfW(Dyn)* entry = map->l_ld;
    while (entry->d_tag != DT_NULL && entry->d_tag != tag) ++entry;
    return entry->d_un.d_val;
  };
  const auto* const symbols = reinterpret_cast<const ElfW(Sym)*>(word(DT_SYMTAB));
  const auto* const names = reinterpret_cast<const char*>(word(DT_STRTAB));
  const auto bind = [&](std::uint64_t table, std::uint64_t bytes) {
    for (const auto* at = reinterpret_cast<const ElfW(Rela)*>(table); bytes >= sizeof *at; ++at, bytes -= sizeof *at) {
      const auto type = ELF64_R_TYPE(at->r_info);
      if (type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) continue;
      const std::string_view name = names + symbols[ELF64_R_SYM(at->r_info)].st_name;
      for (const auto& [known, function] : functions) {
        if (name != known) continue;
        constexpr std::uint64_t kPage = 4096;
        const std::uint64_t slot = map->l_addr + at->r_offset;
        auto* const page = reinterpret_cast<void*>(slot & ~(kPage - 1));
        if (mprotect(page, kPage, PROT_READ | PROT_WRITE) == 0) std::memcpy(reinterpret_cast<void*>(slot), &function, sizeof function);
      }
    }
  };
  bind(word(DT_JMPREL), word(DT_PLTRELSZ));
  bind(word(DT_RELA), word(DT_RELASZ));
}

// package: Debian's.
void* open_library(const std::string& library, const std::string& package) {
  void* const present = dlopen(library.c_str(), RTLD_LOCAL | RTLD_NOW | RTLD_NOLOAD);  // the program's, or an earlier one of ours
  if (present != nullptr) return present;
  if (void* handle = dlopen(library.c_str(), RTLD_LOCAL | RTLD_NOW)) {
    give_own_memory(handle);
    return handle;
  }
  const char* reason = dlerror();
  const std::string_view text = reason == nullptr ? "unknown reason" : reason;
  if (text.starts_with(library + ": cannot open shared object file: No such file")) {
    throw std::runtime_error(library + " is not installed (apt-get install " + package + ")");
  }
  throw std::runtime_error(library + " cannot be opened: " + std::string(text));
}

// Closes the library that lacks `missing` and throws.
[[noreturn]] void refuse_library(void* handle, const std::string& library, const std::string& missing) {
  dlclose(handle);
  throw std::runtime_error(library + " is too old: it has no " + missing);
}

thread_local constinit bool t_may_be_in_handler __attribute__((tls_model("initial-exec"))) = false;

_Unwind_Reason_Code look(_Unwind_Context* context, void* found) {
  int is_interrupted = 0;
  _Unwind_GetIPInfo(context, &is_interrupted);
  if (is_interrupted == 0) return _URC_NO_REASON;
  *static_cast<bool*>(found) = true;
  return _URC_END_OF_STACK;
}

}  // namespace

MayBeInHandler::MayBeInHandler() { t_may_be_in_handler = true; }
MayBeInHandler::~MayBeInHandler() { t_may_be_in_handler = false; }

void refuse_in_handler() {
  bool is_in_handler = false;
  if (t_may_be_in_handler) _Unwind_Backtrace(look, &is_in_handler);
  if (is_in_handler) throw InHandler();
}

Libelf::Libelf() : handle_(open_library(kLibelf, "libelf1")) {
  const char* missing = nullptr;
#define UBP_LIBELF_RESOLVE(name)                                  \
  name = reinterpret_cast<decltype(name)>(dlsym(handle_, #name)); \
  if (name == nullptr) missing = #name;
  UBP_LIBELF_FUNCTIONS(UBP_LIBELF_RESOLVE)
#undef UBP_LIBELF_RESOLVE
  if (missing == nullptr && elf_version(EV_CURRENT) == EV_NONE) missing = "ELF version 1";
  if (missing != nullptr) refuse_library(handle_, kLibelf, missing);
}

Libelf::~Libelf() { dlclose(handle_); }

std::string Libelf::last_error() const {
  const char* message = elf_errmsg(-1);
  return message == nullptr ? "unknown error" : message;
}

namespace {
std::atomic<const Libelf*> g_libelf{nullptr};
}  // namespace

void keep_reader() {
  if (kept_libelf() == nullptr) refuse_in_handler();
  static const Libelf& libelf = *new Libelf;
  g_libelf.store(&libelf, std::memory_order_release);  // pairs with the load
}

const Libelf* kept_libelf() { return g_libelf.load(std::memory_order_acquire); }

}  // namespace ubp::symbols
