// libubp.so started as a program, as libc.so.6 can be: says what it is. In the shared library only.
//
// The kernel hands it to the dynamic linker, which relocates it and jumps here: nothing of libc's is made ready.
#include <cstddef>

#include "runtime/registry/registry.h"
#include "xol/sys.h"

namespace {

// Which dynamic linker (the x86-64 psABI's); a library that is loaded has no use for it.
[[gnu::used, gnu::section(".interp")]] const char kInterpreter[] = "/lib64/ld-linux-x86-64.so.2";

constexpr char kBefore[] = "libubp.so, UBP ";
constexpr char kAfter[] =
    ": counts how often instructions of a program are executed, from inside it.\n"
    "Use: LD_PRELOAD=/path/to/libubp.so UBP_PROBES='libc:malloc; main' COMMAND    (UBP_OPTIONS=help=1 lists the variables)\n";

void print(const char* text, std::size_t length) {
  ubp::sys::call4(SYS_write, 1, reinterpret_cast<long>(text), static_cast<long>(length));
}

}  // namespace

extern "C" [[noreturn, gnu::used, gnu::visibility("hidden"), gnu::force_align_arg_pointer]] void ubp_as_program() {
  print(kBefore, sizeof kBefore - 1);
  std::size_t length = 0;
  while (ubp::runtime::kVersion[length] != '\0') ++length;
  print(ubp::runtime::kVersion, length);
  print(kAfter, sizeof kAfter - 1);
  for (;;) ubp::sys::call4(SYS_exit_group, 0);
}
