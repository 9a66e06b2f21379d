// Exits of the functions of real libraries: where they are, and where the jumps out of them lead.
#include "runtime/plan/exits.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "runtime/symbols/imports.h"

namespace ubp::plan {
namespace {

std::uint32_t module_named(const Modules& modules, std::string_view name) {
  for (std::uint32_t index = 0; index < modules.all().size(); ++index) {
    if (symbols::module_matches(modules.all()[index], name)) return index;
  }
  FAIL("no such module");
  return 0;
}

}  // namespace

TEST_CASE("exits: a function's returns are instructions that return, each once, by address") {
  const Modules modules;
  const std::uint32_t libc = module_named(modules, "libc");
  for (const char* name : {"malloc", "qsort", "strtol", "fopen", "getenv"}) {
    CAPTURE(name);
    Exits exits(modules);
    const auto functions = modules.table_of(libc).match(name, true);
    REQUIRE(functions.size() == 1);
    const auto problem = exits.want(libc, *functions.front());
    CHECK_MESSAGE(!problem, problem.value_or(""));
    const std::vector<Exit> found = exits.find(false);
    CHECK(std::none_of(found.begin(), found.end(), [](const Exit& exit) { return exit.approach.has_value(); }));
    CHECK(std::any_of(found.begin(), found.end(),
                      [](const Exit& exit) { return exit.exit.kind == decoder::Exit::Kind::kReturn; }));
    std::set<std::uint64_t> seen;
    std::uint64_t last = 0;
    for (const Exit& exit : found) {
      const std::uint64_t address = exit.point.address;
      CHECK(address > last);
      last = address;
      CHECK(address >= exit.low);
      CHECK(address < exit.high);
      if (exit.exit.kind != decoder::Exit::Kind::kReturn) continue;
      const auto* const code = reinterpret_cast<const std::uint8_t*>(address);
      const bool is_return = code[0] == 0xc3 || code[0] == 0xc2 || (code[0] == 0xf3 && code[1] == 0xc3) ||
                             (code[0] == 0xf2 && code[1] == 0xc3);
      CHECK(is_return);
    }
    CHECK(std::is_sorted(exits.followed().begin(), exits.followed().end(),
                         [](const CodeRange& a, const CodeRange& b) { return a.begin < b.begin; }));
    const std::uint64_t entry = functions.front()->address + modules.all()[libc].bias;
    CHECK(std::any_of(exits.followed().begin(), exits.followed().end(),
                      [&](const CodeRange& range) { return range.begin == entry; }));
  }
}

TEST_CASE("exits: nearly all functions of libc can be seen to return") {
  const Modules modules;
  const std::uint32_t libc = module_named(modules, "libc");
  Exits exits(modules);
  std::size_t wanted = 0, refused = 0;
  std::uint64_t last = 0;
  for (const symbols::Function& function : modules.table_of(libc).functions()) {
    if (!function.has_symbol() || function.address == last) continue;
    last = function.address;
    ++wanted;
    const auto problem = exits.want(libc, function);
    refused += problem && !problem->starts_with("no-entry");  // parts of functions have names, too
  }
  const std::vector<Exit> found = exits.find(true);
  CHECK(wanted > 1500);
  CHECK(refused * 200 < wanted);
  const auto of_kind = [&](decoder::Exit::Kind kind) {
    return std::count_if(found.begin(), found.end(), [&](const Exit& exit) { return exit.exit.kind == kind; });
  };
  MESSAGE("functions " << wanted << ", refused " << refused << ", returns " << of_kind(decoder::Exit::Kind::kReturn)
                       << ", jumps " << of_kind(decoder::Exit::Kind::kJump) << ", indirect "
                       << of_kind(decoder::Exit::Kind::kIndirect));
  CHECK(of_kind(decoder::Exit::Kind::kReturn) > 2000);

  // Whatever leads to an exit from before it runs straight there, and has room for a jump.
  std::size_t approaches = 0;
  for (const Exit& exit : found) {
    if (!exit.approach) continue;
    ++approaches;
    const std::uint64_t address = exit.point.address, begin = exit.approach->address;
    REQUIRE(begin < address);
    REQUIRE(begin >= exit.low + decoder::kJumpBytes);
    std::uint64_t at = begin;
    while (at < address) {
      const decoder::Instruction instruction =
          decoder::classify({reinterpret_cast<const std::uint8_t*>(at), decoder::kMaxInstructionBytes});
      REQUIRE(instruction.length != 0);
      CHECK_FALSE(instruction.is_call);
      CHECK_FALSE(instruction.ends_block);
      at += instruction.length;
    }
    CHECK(at == address);
  }
  MESSAGE("exits that have no room for a jump, and are led to from before: " << approaches);
  CHECK(approaches > 500);
}

TEST_CASE("imports: what a module calls of others, by the words that lead there") {
  const Modules modules;
  std::set<std::string> names;
  for (const auto& [word, name] : symbols::imports_of(modules.all().front())) {
    names.insert(name);
    CHECK(modules.all().front().segment_at(word) != nullptr);
  }
  CHECK(names.contains("__libc_start_main"));
  CHECK(names.size() > 20);
}

}  // namespace ubp::plan
