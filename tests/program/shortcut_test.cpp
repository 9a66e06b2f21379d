// What a detour is told to do by itself: a filter's steps, carried out one by one here, say yes where the filter that
// is compiled does. The machine code of the steps: tests/jump/detour_stages_test.cpp, tests/preload/program_test.cpp.
#include <array>
#include <random>

#include "runtime/consumers/consumer_list.h"
#include "runtime/program/shortcut.h"
#include "tests/program/compiled.h"

using namespace ubp::program;
using ubp::runtime::DetourSave;
using ubp::runtime::Shortcut;
using ubp::runtime::ShortcutStep;

namespace {

using Registers = std::array<std::uint64_t, 16>;

bool holds(std::uint8_t condition, std::uint64_t left, std::uint64_t right) {
  const auto signed_left = static_cast<std::int64_t>(left), signed_right = static_cast<std::int64_t>(right);
  const bool is_so = [&] {
    switch (condition & ~1) {
      case 2: return left < right;
      case 4: return left == right;
      case 6: return left <= right;
      case 12: return signed_left < signed_right;
      case 14: return signed_left <= signed_right;
      default: FAIL("no such condition"); return false;
    }
  }();
  return is_so != ((condition & 1) != 0);
}

std::uint64_t extended(const ShortcutStep& step, std::uint64_t value) {
  const int above = 64 - static_cast<int>(step.operand);
  return step.is_signed ? static_cast<std::uint64_t>(static_cast<std::int64_t>(value << above) >> above)
                        : value << above >> above;
}

bool says_yes(const Shortcut& shortcut, const Registers& registers) {
  std::uint64_t value = 0;
  for (std::size_t at = 0; at < shortcut.filter.size(); ++at) {
    const ShortcutStep& step = shortcut.filter[at];
    const std::uint64_t operand = step.is_register ? registers[step.operand] : step.operand;
    bool goes = step.kind == ShortcutStep::kGo;
    switch (step.kind) {
      case ShortcutStep::kLoad: value = operand; break;
      case ShortcutStep::kAdd: value += operand; break;
      case ShortcutStep::kSubtract: value -= operand; break;
      case ShortcutStep::kMultiply: value *= operand; break;
      case ShortcutStep::kAnd: value &= operand; break;
      case ShortcutStep::kOr: value |= operand; break;
      case ShortcutStep::kXor: value ^= operand; break;
      case ShortcutStep::kShiftLeft: value <<= operand & 63; break;
      case ShortcutStep::kShiftRight: value >>= operand & 63; break;
      case ShortcutStep::kShiftSigned:
        value = static_cast<std::uint64_t>(static_cast<std::int64_t>(value) >> (operand & 63));
        break;
      case ShortcutStep::kExtend: value = extended(step, value); break;
      case ShortcutStep::kBranch:
        goes = holds(step.condition, step.subject < 0 ? value : registers[static_cast<std::size_t>(step.subject)],
                     operand);
        break;
      default: break;
    }
    if (!goes) continue;
    if (step.label == Shortcut::kNo) return false;
    while (at < shortcut.filter.size() &&
           (shortcut.filter[at].kind != ShortcutStep::kLabel || shortcut.filter[at].label != step.label))
      ++at;
    REQUIRE(at < shortcut.filter.size());  // it leads onwards
  }
  return true;
}

// Numbers that are alike, and near what filters compare with.
Registers registers_of(std::mt19937_64& random) {
  constexpr std::uint64_t kNotable[] = {0,   1,   2,          3,          7,          8,     100,
                                        255, 256, 0x7fffffff, 0x80000000, 0xffffffff, ~0ULL, 1ULL << 63};
  Registers registers;
  for (std::uint64_t& value : registers) {
    value = random() % 4 == 0 ? random() : kNotable[random() % std::size(kNotable)];
  }
  return registers;
}

// An expression of registers and numbers; condition: what filters are made of.
std::string expression(std::mt19937_64& random, int depth, bool is_condition) {
  const auto pick = [&](const auto& from) { return std::string(from[random() % std::size(from)]); };
  constexpr const char* kLeaves[] = {"arg0",        "arg1", "arg2", "arg3", "reg(\"ax\")",
                                     "reg(\"bp\")", "0",    "3",    "-5",   "0x123456789a"};
  constexpr const char* kOperators[] = {" + ", " - ", " * ", " & ", " | ", " ^ ", " << ", " >> ", " / ", " % "};
  constexpr const char* kComparisons[] = {" == ", " != ", " < ", " <= ", " > ", " >= "};
  constexpr const char* kPrefixes[] = {"", "", "(int8)", "(uint16)", "(int32)", "(uint32)", "(int64)", "~", "- "};
  if (is_condition && depth > 0) {
    switch (random() % 4) {
      case 0: return "(" + expression(random, depth - 1, true) + " && " + expression(random, depth - 1, true) + ")";
      case 1: return "(" + expression(random, depth - 1, true) + " || " + expression(random, depth - 1, true) + ")";
      case 2: return "!(" + expression(random, depth - 1, true) + ")";
      default: break;
    }
  }
  if (is_condition) {
    if (random() % 4 == 0) return expression(random, depth, false);
    return "(" + expression(random, depth, false) + pick(kComparisons) + expression(random, depth / 2, false) + ")";
  }
  if (depth == 0 || random() % 3 == 0) return pick(kPrefixes) + pick(kLeaves);
  return "(" + expression(random, depth - 1, false) + pick(kOperators) + expression(random, 0, false) + ")";
}

std::optional<Shortcut> shortcut_of_filter(const std::string& filter) {
  const auto program = compiled("f /" + filter + "/ { }");
  const Shortcut* const found = program->shortcut(0);
  return found != nullptr ? std::optional(*found) : std::nullopt;
}

}  // namespace

TEST_CASE("shortcut: filters of registers and numbers have one, others have none") {
  for (const char* filter : {"arg0 == 7", "arg0", "!arg0", "7 < arg0", "arg0 % 8 == 3", "(int32)arg1 > -3",
                             "arg0 > 1 && arg1 > 2 || arg2", "reg(\"sp\") & 15", "1", "(arg0 >> arg1) ^ 5"}) {
    CAPTURE(filter);
    CHECK(shortcut_of_filter(filter).has_value());
  }
  for (const char* filter :
       {"tid == 5", "arg0 % 7 == 3", "nsecs > 1", "rand % 2", "*(int8*)arg0 == 1", "arg0 / arg1 > 3", "comm == \"x\"",
        "reg(\"ip\") == 1", "(arg0 > 3) == (arg1 > 3)", "str(arg0) == \"x\"", "arg0 * arg1 == arg2 * arg3"}) {
    CAPTURE(filter);
    CHECK_FALSE(shortcut_of_filter(filter).has_value());
  }
  CHECK(compiled("f { }")->shortcut(0) == nullptr);
  CHECK(compiled("begin { @ = count() }")->shortcut(0) == nullptr);
}

TEST_CASE("shortcut: a block that adds to one aggregation without keys has one, unless the map is cleared somewhere") {
  const auto act_of = [](const std::string& text) {
    const auto program = compiled(text);
    const Shortcut* const found = program->shortcut(0);
    return found != nullptr ? found->act : Shortcut::kCall;
  };
  CHECK(act_of("f { @ = count() }") == Shortcut::kAddOne);
  CHECK(act_of("f /arg0 > 3/ { @ = count() }") == Shortcut::kAddOne);
  CHECK(act_of("f { @ = sum(arg0 + 3) }") == Shortcut::kAddValue);
  CHECK(act_of("f { @ = hist(arg0) }") == Shortcut::kAddToBucket);
  CHECK(act_of("f { @ = hist(arg0) } g { @ = hist((int64)arg1) }") == Shortcut::kAddToBucket);
  for (const char* text :
       {"f { @[arg0] = count() }", "f { @ = avg(arg0) }", "f { @ = max(arg0) }", "f { @++ }", "f { @ = hist(arg0, 3) }",
        "f { @ = sum(*(int8*)arg0) }", "f { @a = count(); @b = count() }", "f /tid == 1/ { @ = count() }",
        "f { @ = count() } interval:s:1 { print(@) }", "f { @ = count() } g { clear(@) }",
        "f { @ = count() } end { zero(@) }", "f { @ = count() } end { delete(@) }"}) {
    CAPTURE(text);
    CHECK(act_of(text) == Shortcut::kCall);
  }
}

TEST_CASE("shortcut: the steps say what the compiled filter says, for any registers") {
  std::mt19937_64 random(20261129);
  long with_one = 0, yes = 0, asked = 0;
  for (int i = 0; i < 400; ++i) {
    const std::string filter = expression(random, 1 + static_cast<int>(random() % 3), true);
    CAPTURE(filter);
    const auto program = compiled("f /" + filter + "/ { @n++ }");
    const Shortcut* const shortcut = program->shortcut(0);
    if (shortcut == nullptr) continue;
    ++with_one;
    const auto save = std::make_unique<DetourSave>();
    const ubp_context context{nullptr, save.get(), nullptr, nullptr};
    std::uint64_t expected = 0;
    for (int j = 0; j < 50; ++j, ++asked) {
      const Registers registers = registers_of(random);
      std::copy(registers.begin(), registers.end(), save->registers);
      const bool is_so = says_yes(*shortcut, registers);
      expected += is_so ? 1 : 0;
      program->function(0)(&context, program.get());
      CAPTURE(j);
      const std::string maps = program->maps(), all = "@n: " + std::to_string(expected) + "\n";
      REQUIRE(maps.find(expected == 0 ? "@n" : all) == (expected == 0 ? std::string::npos : maps.size() - all.size()));
    }
    yes += static_cast<long>(expected);
  }
  CHECK(with_one > 50);
  CHECK(yes * 10 > asked);  // neither always nor never
  CHECK(yes * 10 < asked * 9);
}
