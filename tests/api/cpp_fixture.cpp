#include "cpp_fixture.h"

extern "C" {
long cpp_fixture_step(long value) { return value + 1; }
int cpp_fixture_mixed(int narrow, bool flag, const char* text) {
  return narrow + (flag ? 1 : 0) + (text == nullptr ? 1 : 0);
}
}

namespace cpp_fixture {
long overloaded(int number, char const* text) { return number + (text == nullptr ? 1 : 0); }
long overloaded(std::string const& text) { return static_cast<long>(text.size()); }
}  // namespace cpp_fixture
