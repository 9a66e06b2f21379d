// Opening libelf.so.1 and finding its functions. The contract is in elf_library.h.
#include "runtime/symbols/elf_library.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string_view>

namespace ubp::symbols {
namespace {

constexpr const char* kLibrary = "libelf.so.1";

void* open_library() {
  if (void* handle = dlopen(kLibrary, RTLD_LOCAL | RTLD_NOW)) return handle;
  const char* reason = dlerror();
  const std::string_view text = reason == nullptr ? "unknown reason" : reason;
  if (text.starts_with("libelf.so.1: cannot open shared object file: No such file")) {
    throw std::runtime_error("libelf.so.1 is not installed (apt-get install libelf1)");
  }
  throw std::runtime_error("libelf.so.1 cannot be opened: " + std::string(text));
}

}  // namespace

Libelf::Libelf() : handle_(open_library()) {
  const char* missing = nullptr;
#define UBP_LIBELF_RESOLVE(name)                                  \
  name = reinterpret_cast<decltype(name)>(dlsym(handle_, #name)); \
  if (name == nullptr) missing = #name;
  UBP_LIBELF_FUNCTIONS(UBP_LIBELF_RESOLVE)
#undef UBP_LIBELF_RESOLVE
  if (missing == nullptr && elf_version(EV_CURRENT) == EV_NONE) missing = "ELF version 1";
  if (missing != nullptr) {
    dlclose(handle_);
    throw std::runtime_error(std::string("libelf.so.1 is too old: it has no ") + missing);
  }
}

Libelf::~Libelf() { dlclose(handle_); }

std::string Libelf::last_error() const {
  const char* message = elf_errmsg(-1);
  return message == nullptr ? "unknown error" : message;
}

}  // namespace ubp::symbols
