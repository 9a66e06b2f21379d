// What the tests of ubp.hpp probe in their own program.
#pragma once

#include <atomic>
#include <string>

extern std::atomic<long> g_static_calls;

namespace cpp_fixture {
long overloaded(int number, char const* text);
long overloaded(std::string const& text);
}  // namespace cpp_fixture

extern "C" {
long cpp_fixture_step(long value);
int cpp_fixture_mixed(int narrow, bool flag, const char* text);
}
