// Versions of symbols: a library with two of them (versions.c), as it is and stripped, against what dlvsym says.
//
// The library lies in $UBP_SYMBOLS_FIXTURES (tests/symbols/meson.build); the test passes when that is unset.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/symbols/symbols.h"

using namespace ubp::symbols;

namespace {

std::string spelt(const FunctionTable& table, const Function& function) {
  return function.name() + table.version_of(function);
}

// The functions that a pattern names, with their versions, in the order of their names.
std::vector<std::string> matches(const FunctionTable& table, const std::string& pattern, bool quoted = false) {
  std::vector<std::string> found;
  for (const Function* function : table.match(pattern, quoted)) found.push_back(spelt(table, *function));
  std::sort(found.begin(), found.end());
  return found;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("names: a version behind a name") {
  for (const auto& [text, name, version, is_default] : {std::tuple{"memcpy", "memcpy", "", false},
                                                        {"memcpy@V", "memcpy", "V", false},
                                                        {"memcpy@@V", "memcpy", "V", true},
                                                        {"a*@V_1.2", "a*", "V_1.2", false},
                                                        {"@V", "@V", "", false},
                                                        {"", "", "", false}}) {
    CAPTURE(std::string(text));
    const VersionedName wanted(text);
    CHECK(wanted.name == name);
    CHECK(wanted.version == version);
    CHECK(wanted.is_default == is_default);
  }
}

TEST_CASE("versions of a symbol are told apart, from .symtab and from .gnu.version") {
  const char* const fixtures = std::getenv("UBP_SYMBOLS_FIXTURES");
  if (fixtures == nullptr) {
    MESSAGE("skipped: UBP_SYMBOLS_FIXTURES is not set (meson test sets it)");
    return;
  }
  for (const std::string name : {"ubp_versions.so", "ubp_versions_stripped.so"}) {
    CAPTURE(name);
    void* const handle = dlopen((fixtures + ("/" + name)).c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(handle != nullptr);
    Module module;
    for (Module& it : loaded_modules()) {
      if (it.name == name) module = std::move(it);
    }
    REQUIRE(module.name == name);
    const FunctionTable table = FunctionTable::load(module);
    const auto address = [&](const char* symbol, const char* version) {
      return reinterpret_cast<std::uint64_t>(dlvsym(handle, symbol, version)) - module.bias;
    };

    CHECK(matches(table, "twice") == Names{"twice@@UBP_2", "twice@UBP_1"});
    CHECK(matches(table, "twice@UBP_1") == Names{"twice@UBP_1"});
    CHECK(matches(table, "twice@UBP_2") == Names{"twice@@UBP_2"});
    CHECK(matches(table, "twice@@UBP_2") == Names{"twice@@UBP_2"});
    CHECK(matches(table, "twice@@UBP_2", true) == Names{"twice@@UBP_2"});
    CHECK(matches(table, "twice@@UBP_1").empty());
    CHECK(matches(table, "twice@UBP_3").empty());
    CHECK(matches(table, "twice_1@UBP_1").empty());
    CHECK(matches(table, "*@UBP_1") == Names{"once@UBP_1", "twice@UBP_1"});
    CHECK(matches(table, "*@@UBP_2") == Names{"once@@UBP_2", "plain@@UBP_2", "twice@@UBP_2"});
    // One address is one match, under the version that was asked for.
    CHECK(matches(table, "once") == Names{"once@@UBP_2"});
    CHECK(matches(table, "once@UBP_1") == Names{"once@UBP_1"});

    for (const char* version : {"UBP_1", "UBP_2"}) {
      const auto found = table.match(std::string("twice@") + version, false);
      REQUIRE(found.size() == 1);
      CHECK(found.front()->address == address("twice", version));
      CHECK(table.needs_version(*found.front()));
    }
    for (const char* one : {"once", "once@UBP_1", "plain"})
      CHECK_FALSE(table.needs_version(*table.match(one, false).front()));
    CHECK(table.match("once", false).front()->address == address("once", "UBP_1"));
    dlclose(handle);
  }
}
