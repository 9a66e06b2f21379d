// Filters and blocks: what text becomes which tree, and where what is none is wrong.
#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/language/spec.h"

namespace ubp::language {
namespace {

struct Parsed {
  std::vector<Item> items;
  Program program;
};

Parsed parsed(std::string_view text) {
  Parsed parsed;
  auto result = parse(text, kMaxItems, &parsed.program);
  if (const Error* error = std::get_if<Error>(&result)) {
    FAIL_CHECK(error->position.line << ":" << error->position.column << ": " << error->message << " in: " << text);
  } else {
    parsed.items = std::get<std::vector<Item>>(std::move(result));
  }
  return parsed;
}

// A tree as text: every operation in brackets, so that what binds how is seen.
std::string shown(const Node& node) {
  constexpr std::string_view kSigns[] = {"=", "*",  "/",     "%",       "+",   "-",   "<<",  ">>", "<",  "<=",
                                         ">", ">=", "==",    "!=",      "&",   "^",   "|",   "&&", "||", "!",
                                         "~", "-",  "deref", "address", "++.", "--.", ".++", ".--"};
  const std::string sign(kSigns[static_cast<std::size_t>(node.operation)]);
  std::string children;
  for (const auto& child : node.children) children += (children.empty() ? "" : " ") + shown(*child);
  switch (node.kind) {
    case NodeKind::kNumber:
    case NodeKind::kBool: return std::to_string(node.number);
    case NodeKind::kString: return '"' + node.text + '"';
    case NodeKind::kName: return node.text;
    case NodeKind::kVariable: return '$' + node.text;
    case NodeKind::kMap: return node.children.empty() ? node.text : node.text + '[' + children + ']';
    case NodeKind::kCall: return node.text + '(' + children + ')';
    case NodeKind::kConditional: return "(? " + children + ')';
    case NodeKind::kTuple: return "(, " + children + ')';
    case NodeKind::kMember:
      return '(' + children + '.' + (node.text.empty() ? std::to_string(node.number) : node.text) + ')';
    case NodeKind::kIndex: return "([] " + children + ')';
    case NodeKind::kSizeOf: return "(sizeof " + children + ')';
    case NodeKind::kCast: return '(' + shown(*node.children[1]) + ' ' + shown(*node.children[0]) + ')';
    case NodeKind::kType: return node.children.empty() ? node.text : "(typeof " + children + ')' + node.text;
    case NodeKind::kExpression: return children;
    case NodeKind::kDeclare: {
      const bool has_type = !node.children.empty() && node.children.front()->kind == NodeKind::kType;
      return "let " + node.text + (children.empty() ? "" : (has_type ? ":" : " ") + children);
    }
    case NodeKind::kBlock: return '{' + children + '}';
    case NodeKind::kIf: return "if " + children;
    case NodeKind::kWhile: return "while " + children;
    case NodeKind::kUnroll: return "unroll " + children;
    case NodeKind::kBreak: return "break";
    case NodeKind::kContinue: return "continue";
    case NodeKind::kReturn: return "return";
    default: return '(' + sign + ' ' + children + ')';
  }
}

std::string block_of(const std::string& text) {
  const Parsed all = parsed("begin { " + text + " }");
  return all.program.probes.size() == 1 ? shown(*all.program.probes[0].block) : "";
}

}  // namespace

TEST_CASE("program: how expressions bind") {
  const std::pair<std::string, std::string> cases[] = {
      {"1 + 2 * 3", "(+ 1 (* 2 3))"},
      {"(1 + 2) * 3", "(* (+ 1 2) 3)"},
      {"1 - 2 - 3", "(- (- 1 2) 3)"},
      {"1 | 2 ^ 3 & 4", "(| 1 (^ 2 (& 3 4)))"},
      {"1 == 2 < 3", "(== 1 (< 2 3))"},
      {"1 < 2 << 3 + 4", "(< 1 (<< 2 (+ 3 4)))"},
      {"1 || 2 && 3 | 4", "(|| 1 (&& 2 (| 3 4)))"},
      {"-1 * !2 + ~3", "(+ (* (- 1) (! 2)) (~ 3))"},
      {"1 ? 2 : 3 ? 4 : 5", "(? 1 2 (? 3 4 5))"},
      {"1 ?: 2", "(? 1 2)"},
      {"(1, \"a\").1", "((, 1 \"a\").1)"},
      {"(1,)", "(, 1)"},
      {"()", "(, )"},
      {"(uint8)1 + 2", "(+ (uint8 1) 2)"},
      {"(int32_t)-1", "(int32 (- 1))"},
      {"(struct foo *)$x.y->z[1]", "(struct foo* ([] (($x.y).z) 1))"},
      {"*$p + **$q[2] & -&$x", "(& (+ (deref $p) (deref (deref ([] $q 2)))) (- (address $x)))"},
      {"(unsigned long long)1 + sizeof(const char *[3])", "(+ (uint64 1) (sizeof int8*[3]))"},
      {"$a++ + ++$b - @c--", "(- (+ (.++ $a) (++. $b)) (.-- @c))"},
      {"@a[1, \"k\"] + @", "(+ @a[1 \"k\"] @)"},
      {"f(1, g(), pid)", "f(1 g() pid)"},
      {"0x1f + 017 + 1e3 + 1_000 + 5UL + 2ms", "(+ (+ (+ (+ (+ 31 15) 1000) 1000) 5) 2000000)"},
      {"true && false", "(&& 1 0)"},
      {"1 /* two */ + // three\n 4", "(+ 1 4)"},
  };
  for (const auto& [text, tree] : cases) {
    CAPTURE(text);
    CHECK(block_of(text) == '{' + tree + '}');
  }
}

TEST_CASE("program: statements") {
  const std::pair<std::string, std::string> cases[] = {
      {"$x = 1; @y[2] = count(); $x += 3", "(= $x 1) (= @y[2] count()) (+ $x 3)"},
      {"@ <<= 2; @ >>= 1; @ %= 4;", "(<< @ 2) (>> @ 1) (% @ 4)"},
      {"if (1) { f() } else if 2 { g() } else { }", "if 1 {f()} if 2 {g()} {}"},
      {"while ($i < 3) { break; continue; return }", "while (< $i 3) {break continue return}"},
      {"unroll(3) { f(); }", "unroll 3 {f()}"},
      {"let $x; let $y: int8; let $z = 1; let $w : uint64 = 2", "let x let y:int8 let z 1 let w:uint64 2"},
      {"{ f() } ;; g()", "{f()} g()"},
  };
  for (const auto& [text, tree] : cases) {
    CAPTURE(text);
    CHECK(block_of(text) == '{' + tree + '}');
  }
}

TEST_CASE("program: strings") {
  const Parsed all = parsed(R"(begin { print("a\n\t\r\\\"\101\x42c") })");
  REQUIRE(all.program.probes.size() == 1);
  CHECK(all.program.probes[0].block->children[0]->children[0]->children[0]->text == "a\n\t\r\\\"ABc");
}

TEST_CASE("program: mixed with bare targets") {
  const Parsed all = parsed(
      "libc:malloc; libc:free /arg0 != 0/\n"
      "u:a:f, b:g , insn:c:h [missing=pending]\n"
      "{ @ = count() } !x:y; // a comment\n"
      "begin { f() } end { g() } z /* another */ /pid / 2 > 1/ { }\n"
      "/usr/lib/q.so:r\n"
      "s\n"
      "/arg1/ # the end\n"
      "begin");
  REQUIRE(all.items.size() == 10);
  REQUIRE(all.program.probes.size() == 6);
  const std::uint32_t probes[] = {kBare, 0, 1, 1, 1, kBare, 4, kBare, 5, kBare};
  for (std::size_t i = 0; i < 10; ++i) {
    CAPTURE(i);
    CHECK(all.items[i].probe == probes[i]);
  }
  CHECK(all.items[1].text == "libc:free");
  CHECK(all.items[4].text == "insn:c:h [missing=pending]");
  CHECK(all.items[4].pending);
  CHECK(all.items[7].module == "/usr/lib/q.so");
  CHECK(all.program.probes[2].event == Probe::Event::kBegin);
  CHECK(all.program.probes[3].event == Probe::Event::kEnd);
  CHECK(shown(*all.program.probes[4].filter) == "(> (/ pid 2) 1)");
  CHECK(all.program.probes[0].block == nullptr);
  CHECK(all.program.probes[0].filter != nullptr);
  CHECK(all.program.probes[5].filter != nullptr);
}

TEST_CASE("program: a function may be called begin") {
  const Parsed all = parsed("begin; end; u:begin { }");
  CHECK(all.items.size() == 3);
  CHECK(all.program.probes.size() == 1);
}

TEST_CASE("program: what is wrong, and where") {
  struct Case {
    std::string text;
    int line, column, end;
    std::string message;
  };
  const Case cases[] = {
      {"begin { print(1 }", 1, 17, 18, "syntax: expected ')'"},
      {"begin { @x[1 = 2 }", 1, 14, 15, "syntax: expected ']'"},
      {"begin {\n  $x = ;\n}", 2, 8, 9, "syntax: unexpected ';'"},
      {"begin { 1 2 }", 1, 11, 12, "syntax: expected ';' or '}'"},
      {"begin { f() ", 1, 13, 13, "syntax: expected ';' or '}'"},
      {"begin { f();", 1, 13, 13, "syntax: expected '}'"},
      {"f /1 > / { }", 1, 8, 9, "syntax: unexpected '/'"},
      {"f /1", 1, 5, 5, "syntax: expected '/'"},
      {"begin { \"a }", 1, 9, 13, "syntax: the quote is not closed"},
      {"begin { \"\\q\" }", 1, 9, 12, "syntax: unknown escape '\\q'"},
      {"begin { 12x }", 1, 9, 12, "syntax: '12x' is not a number"},
      {"begin { 18446744073709551616 }", 1, 9, 29, "syntax: '18446744073709551616' does not fit in 64 bits"},
      {"begin { 1 = 2 }", 1, 9, 10, "syntax: only variables and maps can be assigned to"},
      {"begin { ++1 }", 1, 11, 12, "syntax: only variables and maps can be incremented"},
      {"begin { @x[] = 1 }", 1, 11, 12, "syntax: expected a key after '['"},
      {"begin { let x }", 1, 13, 14, "syntax: expected a variable after 'let'"},
      {"begin { $x = ` }", 1, 14, 15, "syntax: unexpected '`'"},
      {"begin { if (1) f() }", 1, 16, 17, "syntax: expected '{'"},
      {"begin { $ = 1 }", 1, 9, 10, "syntax: expected a name after '$'"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    Program program;
    const auto result = parse(c.text, kMaxItems, &program);
    const Error* const error = std::get_if<Error>(&result);
    REQUIRE(error != nullptr);
    CHECK(error->message == c.message);
    CHECK(error->position.line == c.line);
    CHECK(error->position.column == c.column);
    CHECK(error->end.column == c.end);
  }
  const std::pair<std::string, int> items[] = {{"a, b", 2}, {"!a { }", 4}, {"a, { }", 2}};
  for (const auto& [text, column] : items) {
    CAPTURE(text);
    Program program;
    const auto result = parse(text, kMaxItems, &program);
    REQUIRE(std::holds_alternative<Error>(result));
    CHECK(std::get<Error>(result).position.column == column);
  }
}

TEST_CASE("program: text that nests without end is an error, not a crash") {
  for (const std::string_view piece :
       {"(", "-", "@[", "f(", "1?", "{", "if 1 {", "!(", "++", "1+", "1 + 1 - ", "$x.0", "@++", "else if 1 { }"}) {
    CAPTURE(piece);
    std::string text = "begin { ";
    while (text.size() < 1'000'000) text += piece;
    Program program;
    CHECK(std::holds_alternative<Error>(parse(text, kMaxItems, &program)));
  }
}

TEST_CASE("program: a '/=' begins no filter") {
  Program program;
  const auto result = parse("libc:malloc /= 3 { }", kMaxItems, &program);
  REQUIRE(std::holds_alternative<Error>(result));
  CHECK(std::get<Error>(result).message == "syntax: unexpected '/='");
}

TEST_CASE("program: the part that is C's") {
  const Parsed all = parsed(
      "#!/usr/bin/ubp\n#define LIMIT 0x10\n#define NAME \"text\"\n"
      "enum { kOne = 1, kTwo, kMask = (1 << 4) | kOne };\n"
      "typedef unsigned int u;\n"
      "struct a { u x, *y; int m[2][LIMIT]; int (*f)(int, char); struct { char c; } in; union { int i; }; int b : 3 }\n"
      "struct __attribute__((packed)) b { char c; } __attribute__((aligned(8)))\n"
      "f { print(((struct a*)arg0)->x); }");
  const Definitions& definitions = all.program.definitions;
  CHECK(definitions.constants.at("kMask") == 17);
  CHECK(definitions.constants.at("LIMIT") == 16);
  CHECK(definitions.texts.at("NAME") == "text");
  CHECK(definitions.typedefs.at("u") == "uint32");
  REQUIRE(definitions.structs.size() == 4);
  std::string fields;
  for (const Field& field : definitions.structs[2].fields)
    fields += field.type + ' ' + field.name + (field.bits >= 0 ? ':' + std::to_string(field.bits) : "") + "; ";
  CHECK(fields == "uint32 x; uint32* y; int32[2][16] m; void* f; struct <1> in; union <2> ; int32 b:3; ");
  CHECK(definitions.structs[3].is_packed);
  CHECK(definitions.structs[3].alignment == 8);
  CHECK(all.items.size() == 1);
  // Functions may have these names.
  CHECK(parsed("struct; union;").items.size() == 2);
}

TEST_CASE("program: begin and end may share a block") {
  const Parsed both = parsed("begin, END { @++ }\nf { @-- }");
  REQUIRE(both.program.probes.size() == 3);
  CHECK(both.program.probes[0].event == Probe::Event::kBegin);
  CHECK(both.program.probes[1].event == Probe::Event::kEnd);
  CHECK(shown(*both.program.probes[0].block) == shown(*both.program.probes[1].block));
  CHECK(both.items.size() == 1);
}

}  // namespace ubp::language
