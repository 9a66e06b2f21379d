// What the tests of ubp.hpp probe in their own program.
#pragma once

#include <atomic>

extern std::atomic<long> g_static_calls;

extern "C" {
long cpp_fixture_step(long value);
int cpp_fixture_mixed(int narrow, bool flag, const char* text);
}
