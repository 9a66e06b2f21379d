// libelf, opened for the time of loading and closed again.
//
// Linking it would put it and its dependencies (libz, libzstd) into the application's global symbol
// scope, where they could answer for a library the application loads later. dlopen(RTLD_LOCAL) keeps them
// out, and after dlclose nothing of them stays mapped. Its headers lend types only.
// (This file cannot be called libelf.h: meson searches this directory first, and <libelf.h> would be it.)
//
// Context: load time. Async-signal-safe: no. Thread-safe: one object per thread.
#pragma once

#include <gelf.h>
#include <libelf.h>

#include <string>

namespace ubp::symbols {

#define UBP_LIBELF_FUNCTIONS(X) \
  X(elf_version)                \
  X(elf_begin)                  \
  X(elf_memory)                 \
  X(elf_end)                    \
  X(elf_kind)                   \
  X(elf_errmsg)                 \
  X(elf_nextscn)                \
  X(elf_getscn)                 \
  X(elf_getdata)                \
  X(elf_getdata_rawchunk)       \
  X(elf_getshdrstrndx)          \
  X(elf_getphdrnum)             \
  X(elf_strptr)                 \
  X(gelf_getehdr)               \
  X(gelf_getshdr)               \
  X(gelf_getphdr)

class Libelf {
 public:
  // Throws std::runtime_error when libelf.so.1 is missing or lacks a function.
  Libelf();
  ~Libelf();
  Libelf(const Libelf&) = delete;
  Libelf& operator=(const Libelf&) = delete;

  std::string last_error() const;

#define UBP_LIBELF_MEMBER(name) decltype(&::name) name = nullptr;
  UBP_LIBELF_FUNCTIONS(UBP_LIBELF_MEMBER)
#undef UBP_LIBELF_MEMBER

 private:
  void* handle_ = nullptr;
};

// Before either is used: throws InHandler (symbols.h) in a signal handler, where MayBeInHandler asks for it.
void refuse_in_handler();

// The library that keep_reader() (symbols.h) keeps open, or null.
const Libelf* kept_libelf();

}  // namespace ubp::symbols
