// Looking things up in a test that cannot go on without them.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/symbols.h"

inline ubp::symbols::Module find_module(std::string_view glob) {
  for (const ubp::symbols::Module& module : ubp::symbols::loaded_modules()) {
    if (ubp::symbols::module_matches(module, glob)) return module;
  }
  FAIL("no module ", std::string(glob));
  return {};
}

inline const ubp::symbols::Function* only(const std::vector<const ubp::symbols::Function*>& functions) {
  REQUIRE(functions.size() == 1);
  return functions.front();
}
