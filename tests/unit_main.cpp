// main() of the unit tests. Every other file of tests/ registers its cases here through doctest.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
