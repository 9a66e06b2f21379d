// Addresses of symbols that are no functions: of this program against its own variables, of the fixtures with a debug
// file beside them (tests/symbols/meson.build).
#include "runtime/symbols/symbol_address.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>

#include "runtime/symbols/symbols.h"

using namespace ubp::symbols;

extern "C" {
std::uint16_t symbol_address_global = 7;
thread_local int symbol_address_own = 8;
}
namespace shop {
long till[3] = {1, 2, 3};
}
[[gnu::used]] static char symbol_address_local[5];

namespace {

SymbolAddress of_this_program(const char* name) { return address_of_symbol("/proc/self/exe", name); }
std::uint64_t at(const void* variable) {
  return reinterpret_cast<std::uint64_t>(variable) - loaded_modules().front().bias;
}

}  // namespace

TEST_CASE("symbol addresses: variables of this program") {
  const SymbolAddress global = of_this_program("symbol_address_global");
  CHECK(global.problem.empty());
  CHECK(global.address == at(&symbol_address_global));
  CHECK(global.bytes == 2);
  CHECK(global.build_id == loaded_modules().front().build_id);
  CHECK(of_this_program("shop::till").address == at(shop::till));
  CHECK(of_this_program("shop::till").bytes == sizeof shop::till);
  CHECK(of_this_program("_ZN4shop4tillE").address == at(shop::till));
  CHECK(of_this_program("symbol_address_local").address == at(symbol_address_local));
  CHECK(of_this_program("symbol_address_local").bytes == 5);
}

TEST_CASE("symbol addresses: what has none") {
  symbol_address_own += 1;
  CHECK(of_this_program("symbol_address_own").problem ==
        "'symbol_address_own' is thread-local in /proc/self/exe: each thread has its own");
  CHECK(of_this_program("getenv").problem ==
        "'getenv' is not defined in /proc/self/exe, which has it from another file");
  const SymbolAddress near = of_this_program("symbol_adress_globl");
  CHECK(near.problem == "no symbol 'symbol_adress_globl' in /proc/self/exe");
  CHECK(near.hint.starts_with("did you mean 'symbol_address_global'"));
  CHECK(of_this_program("nothing_that_is_near_to_anything").hint.empty());
  CHECK(address_of_symbol("/dev/null", "x").problem.starts_with("/dev/null cannot be read: "));
}

TEST_CASE("symbol addresses: of a stripped library, by its debug file; of two versions") {
  const char* const folder = std::getenv("UBP_SYMBOLS_FIXTURES");
  if (folder == nullptr) {
    MESSAGE("UBP_SYMBOLS_FIXTURES is not set: no fixture is looked at");
    return;
  }
  for (const char* const number : {"1", "2"}) {
    const std::string path = std::string(folder) + "/ubp_fixture" + number;
    const SymbolAddress here = address_of_symbol(path + ".so", "fixture_private");
    CHECK(here.problem.empty());
    CHECK(here.address == address_of_symbol(path + "_full.so", "fixture_private").address);
    CHECK(address_of_symbol(path + ".so", "fixture_value").bytes == 4);
  }
  const std::string versions = std::string(folder) + "/ubp_versions.so";
  CHECK(address_of_symbol(versions, "twice").problem == "'twice' is 2 symbols in " + versions);
  CHECK(address_of_symbol(versions, "once").problem.empty());
}
