// Compiled expressions against a plain interpreter of the same tree, on random ones. UBP_TEST_LONG: a million.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "compiled.h"
#include "interpreter.h"

namespace ubp::program {
namespace {

class Sentences {
 public:
  explicit Sentences(std::uint32_t seed) : random_(seed) {}

  std::string number() {
    switch (below(6)) {
      case 0: return std::to_string(below(4));
      case 1: return std::to_string(std::uint64_t{1} << below(64));
      case 2: return std::to_string((std::uint64_t{1} << below(64)) - 1);
      default: return std::to_string(std::uint64_t{random_()} << 32 | random_());
    }
  }
  // An expression of numbers, with so many levels at most.
  std::string expression(int depth) {
    constexpr std::string_view kBinary[] = {"+",  "-", "*",  "/", "%",  "&",  "|",  "^",  "<<",
                                            ">>", "<", "<=", ">", ">=", "==", "!=", "&&", "||"};
    constexpr std::string_view kUnary[] = {"-", "~", "!"};
    constexpr std::string_view kTypes[] = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"};
    if (depth == 0) return below(3) == 0 ? number() : std::string("$") + static_cast<char>('a' + below(4));
    switch (below(8)) {
      case 0: return pick(kUnary) + '(' + expression(depth - 1) + ')';
      case 1: return '(' + pick(kTypes) + ")(" + expression(depth - 1) + ')';
      case 2:
        return '(' + expression(depth - 1) + " ? (int64)" + '(' + expression(depth - 1) + ") : (int64)(" +
               expression(depth - 1) + "))";
      case 3: return expression(0);
      default: return '(' + expression(depth - 1) + ' ' + pick(kBinary) + ' ' + expression(depth - 1) + ')';
    }
  }

 private:
  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  template <std::size_t Size>
  std::string pick(const std::string_view (&words)[Size]) {
    return std::string(words[below(Size)]);
  }

  std::mt19937 random_;
};

}  // namespace

TEST_CASE("program: random expressions are what an interpreter says") {
  constexpr int kTogether = 100;
  const int rounds = std::getenv("UBP_TEST_LONG") != nullptr ? 10000 : 300;
  for (int round = 0; round < rounds; ++round) {
    Sentences sentences(static_cast<std::uint32_t>(round));
    std::string text = "begin { ";
    for (const char name : {'a', 'b', 'c', 'd'})
      text += std::string("$") + name + " = (" + (name < 'c' ? "int64" : "uint64") + ")" + sentences.number() + "; ";
    std::vector<std::string> expressions;
    for (int i = 0; i < kTogether; ++i) {
      expressions.push_back(sentences.expression(1 + i % 5));
      text += "printf(\"%lx \", (uint64)(" + expressions.back() + ")); ";
    }
    const auto program = compiled(text + '}');
    program->run(language::Probe::Event::kBegin);
    const std::string printed = program->printed();

    const language::Node& block = *program->tree().probes[0].block;
    std::map<std::string, Number> variables;
    std::string expected;
    for (const auto& statement : block.children) {
      if (statement->kind == language::NodeKind::kAssign) {
        variables[statement->children[0]->text] = interpret(*statement->children[1], variables);
        continue;
      }
      char digits[20];
      std::snprintf(digits, sizeof digits, "%lx ",
                    static_cast<unsigned long>(interpret(*statement->children[0]->children[1], variables).bits));
      expected += digits;
    }
    if (printed == expected) continue;
    CAPTURE(text);
    REQUIRE(printed == expected);
  }
}

TEST_CASE("program: division by nothing gives 1 and is counted; the smallest number divided by -1 is itself") {
  const auto program = compiled(
      "begin { $z = 0; $m = (int64)9223372036854775808; $n = -1; "
      "printf(\"%ld %ld %ld %ld\", 5 / $z, 5 % $z, $m / $n, $m % $n) }");
  program->run(language::Probe::Event::kBegin);
  CHECK(program->printed() == "1 1 -9223372036854775808 0");
  const auto errors = run_time_errors(program->analysis(), program->place(), false);
  REQUIRE(errors.size() == 2);
  CHECK(errors[0].message.starts_with("Divide or modulo by 0 detected."));
  CHECK(errors[0].span.begin.column == 85);
}

}  // namespace ubp::program
