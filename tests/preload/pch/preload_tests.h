// What every file here includes, compiled once.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
