// Which consumers can be seen to touch no vector or floating-point state, and which cannot.
#include <doctest/doctest.h>
#include <sys/mman.h>

#include <cstring>

#include "runtime/consumers/consumer_code.h"

#define CONSUMER(name) extern "C" void name(const ubp_context*, void*)  // consumer_code.S
CONSUMER(general_leaf);
CONSUMER(general_calls);
CONSUMER(hidden_vector);
CONSUMER(calls_vector);
CONSUMER(jumps_to_vector);
CONSUMER(constant_vector);
CONSUMER(writable_word);
CONSUMER(by_register);
CONSUMER(enters_kernel);
CONSUMER(uses_x87);
CONSUMER(uses_mmx);
CONSUMER(uses_mask);
CONSUMER(sets_mxcsr);
CONSUMER(ends_nowhere);

using ubp::runtime::is_general_code;

TEST_CASE("a consumer all of whose code keeps to general registers is seen to do so") {
  CHECK(is_general_code(&general_leaf));
  CHECK(is_general_code(&general_calls));
}

TEST_CASE("one that may touch more, wherever and however it gets there, or that cannot be followed, is not") {
  CHECK_FALSE(is_general_code(&hidden_vector));
  CHECK_FALSE(is_general_code(&calls_vector));
  CHECK_FALSE(is_general_code(&jumps_to_vector));
  CHECK_FALSE(is_general_code(&constant_vector));
  CHECK_FALSE(is_general_code(&writable_word));
  CHECK_FALSE(is_general_code(&by_register));
  CHECK_FALSE(is_general_code(&enters_kernel));
  CHECK_FALSE(is_general_code(&uses_x87));
  CHECK_FALSE(is_general_code(&uses_mmx));
  CHECK_FALSE(is_general_code(&uses_mask));
  CHECK_FALSE(is_general_code(&sets_mxcsr));
  CHECK_FALSE(is_general_code(&ends_nowhere));
}

TEST_CASE("code that is in no module's text may change: it is not") {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  std::memset(page, 0xc3, 4096);  // ret
  mprotect(page, 4096, PROT_READ | PROT_EXEC);
  CHECK_FALSE(is_general_code(reinterpret_cast<ubp_consumer>(page)));
  munmap(page, 4096);
}
