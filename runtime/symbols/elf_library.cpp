// Opening libelf.so.1 and finding its functions. The contract is in elf_library.h.
#include "runtime/symbols/elf_library.h"

#include <dlfcn.h>

#include "runtime/symbols/symbols.h"

#include <atomic>
#include <stdexcept>
#include <string_view>

namespace ubp::symbols {
namespace {

constexpr const char* kLibelf = "libelf.so.1";

// package: Debian's.
void* open_library(const std::string& library, const std::string& package) {
  if (void* handle = dlopen(library.c_str(), RTLD_LOCAL | RTLD_NOW)) return handle;
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

}  // namespace

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
  static const Libelf& libelf = *new Libelf;
  g_libelf.store(&libelf, std::memory_order_release);  // pairs with the load
}

const Libelf* kept_libelf() { return g_libelf.load(std::memory_order_acquire); }

}  // namespace ubp::symbols
