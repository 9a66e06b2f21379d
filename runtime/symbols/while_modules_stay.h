// Reading what is mapped of modules that another thread may unload.
#pragma once

#include <functional>

namespace ubp::symbols {

// Calls body while no thread can unload a module: under the dynamic linker's lock of its list. An exception of body's
// goes through. body: does not wait for another thread, nor call what takes the dynamic linker's other lock (dlopen,
// dlsym, dladdr): a thread that is inside dlclose holds that one, and waits for this one. Context: normal.
// Async-signal-safe: no. Thread-safe: yes.
void while_modules_stay(const std::function<void()>& body);

}  // namespace ubp::symbols
