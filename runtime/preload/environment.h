// The environment that the program finds and its children inherit: without what was meant for libubp, or with what they
// need of it.
//
// Context: load time, before the program's own threads. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>
#include <string_view>

namespace ubp::runtime {

// The value of a variable as it stands in `environ`; null: it is not there. (Programs bring their own getenv: bash
// does.)
const char* find_variable(std::string_view name);

// Whether LD_PRELOAD names libubp: the process did not ask for it itself.
bool is_preloaded();

// Gives the process an environment without UBP's variables and without libubp in LD_PRELOAD, with a copy of the
// auxiliary vector behind it. In the kernel's own block, where some programs look (Go's do), those entries are empty
// strings: it keeps its length, since others walk from there to the auxiliary vector. block: it begins behind argv.
// Where there is no memory nothing happens.
void hide_from_children(char** block);

// The same with them, libubp by its absolute path and UBP_FIRST with this value (family.h): what the process executes
// is probed too.
void announce_to_children(char** block, const std::string& first);

}  // namespace ubp::runtime
