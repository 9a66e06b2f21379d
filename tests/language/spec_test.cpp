// runtime/spec: what each form of the grammar becomes, every error with its place, and behaviour on random
// bytes.
#include "runtime/language/spec.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/language/text.h"

namespace ubp::language {
namespace {

using namespace std::string_literals;

std::vector<Item> items_of(std::string_view text) {
  const auto result = parse(text);
  if (const Error* error = std::get_if<Error>(&result)) {
    FAIL_CHECK(error->position.line << ":" << error->position.column << ": " << error->message << " in: " << text);
    return {};
  }
  return std::get<std::vector<Item>>(result);
}

struct SymbolCase {
  std::string_view text;
  std::string_view module;
  std::string_view pattern;
  bool quoted;
  std::uint64_t offset;
  int column;  // of the symbol
};

struct ErrorCase {
  std::string text;
  int line;
  int column;
  std::string_view message;
};

void check_errors(const std::vector<ErrorCase>& cases) {
  for (const ErrorCase& c : cases) {
    CAPTURE(c.text);
    const auto result = parse(c.text);
    const Error* error = std::get_if<Error>(&result);
    REQUIRE(error != nullptr);
    CHECK(error->message == c.message);
    CHECK(error->position.line == c.line);
    CHECK(error->position.column == c.column);
  }
}

}  // namespace

TEST_CASE("lines: module, file, line and column; addresses stand before the text") {
  struct LineCase {
    std::string_view text, module, file;
    std::uint32_t line, column;
  };
  constexpr LineCase kCases[] = {
      {"app@parser.c:120", "app", "parser.c", 120, 0},
      {"u:./bin/app@src/a.c:7:3", "./bin/app", "src/a.c", 7, 3},
      {"uprobe:lib*@a.c:1", "lib*", "a.c", 1, 0},
      {"@a.c:12", "", "a.c", 12, 0},
      {"@a.c:*", "", "a.c", 0, 0},
      {"stmt:app@src/*.c:*", "app", "src/*.c", 0, 0},
      {"stmt:app@a.c:7", "app", "a.c", 7, 0},
  };
  for (const LineCase& c : kCases) {
    CAPTURE(c.text);
    const std::vector<Item> items = items_of(c.text);
    REQUIRE(items.size() == 1);
    CHECK(items[0].module == c.module);
    CHECK(items[0].text == c.text);
    const auto* line = std::get_if<LineTarget>(&items[0].target);
    REQUIRE(line != nullptr);
    CHECK(line->file == c.file);
    CHECK(line->line == c.line);
    CHECK(line->column == c.column);
    CHECK(items[0].found.empty());
  }
  Program program;
  const auto parsed = parse("#statement 1 ab12 1000 1008\n#place 0 ab12 1000 0,8 !gone\n#place x y\nf\napp@a.c:3 { }\n",
                            kMaxItems, &program);
  const auto* items = std::get_if<std::vector<Item>>(&parsed);
  REQUIRE(items != nullptr);
  REQUIRE(items->size() == 2);
  REQUIRE((*items)[1].found.size() == 1);
  CHECK((*items)[1].found[0].build_id == "ab12");
  CHECK((*items)[1].found[0].addresses == std::vector<std::uint64_t>{0x1000, 0x1008});
  CHECK(items_of("stmt:app:f*")[0].kind == Kind::kStatement);
  CHECK(items_of("inline:\"a::f(int)\"")[0].kind == Kind::kInline);
  REQUIRE(program.definitions.places.size() == 1);
  CHECK(program.definitions.places[0].address == 0x1000);
  CHECK(program.definitions.places[0].places == std::vector<std::string>{"0,8", "!gone"});
  parse("#symbol 2 ab12 4010 8 a::b(int)\t\t\n#symbol 3 - 0 0 c\tnone\tdid you mean 'd'?\n#symbol x\nf\n", kMaxItems,
        &program);
  REQUIRE(program.definitions.symbols.size() == 2);
  const SymbolRow &there = program.definitions.symbols[0], &missing = program.definitions.symbols[1];
  CHECK(there.probe == 2);
  CHECK(there.build_id == "ab12");
  CHECK(there.address == 0x4010);
  CHECK(there.bytes == 8);
  CHECK(there.name == "a::b(int)");
  CHECK(there.problem.empty());
  CHECK(missing.name == "c");
  CHECK(missing.problem == "none");
  CHECK(missing.hint == "did you mean 'd'?");
}

TEST_CASE("marks: module, provider and name") {
  struct MarkCase {
    std::string_view text, module, provider, name;
  };
  constexpr MarkCase kCases[] = {
      {"usdt:app:prov:request", "app", "prov", "request"},
      {"U:app:prov:request", "app", "prov", "request"},
      {"usdt:./bin/app:request", "./bin/app", "", "request"},
      {"usdt:app::request", "app", "", "request"},
      {"usdt::prov:request", "", "prov", "request"},
      {"usdt:::request", "", "", "request"},
      {"usdt:*:*", "*", "", "*"},
      {"usdt:lib[cm]*:p?:r[a-z]*", "lib[cm]*", "p?", "r[a-z]*"},
      {"usdt:app:test:\"\\\"probe*\\\"\"", "app", "test", "\"probe\\*\""},
      {"usdt:\"a b\":p:m-x", "a b", "p", "m-x"},
  };
  for (const MarkCase& c : kCases) {
    CAPTURE(c.text);
    const std::vector<Item> items = items_of(c.text);
    REQUIRE(items.size() == 1);
    CHECK(items[0].kind == Kind::kMark);
    CHECK(items[0].module == c.module);
    CHECK(items[0].text == c.text);
    const auto* mark = std::get_if<MarkTarget>(&items[0].target);
    REQUIRE(mark != nullptr);
    CHECK(mark->provider == c.provider);
    CHECK(mark->name == c.name);
  }
  CHECK(items_of("usdt:app:p:m [missing=pending]")[0].pending);
  CHECK(items_of("!usdt:app:p:m")[0].exclude);
  CHECK(items_of("usdt:app:p:m; U::f").size() == 2);
  CHECK(items_of("U::f")[0].kind == Kind::kEntry);  // C++
}

TEST_CASE("spec: a byte order mark is no text") {
  const std::vector<Item> items = items_of(
      "\xef\xbb\xbf"
      "compute");
  REQUIRE(items.size() == 1);
  CHECK(items[0].text == "compute");
  CHECK(items[0].position.column == 1);
}

TEST_CASE("spec: symbol targets") {
  const SymbolCase cases[] = {
      {"compute", "", "compute", false, 0, 1},
      {"libc:malloc", "libc", "malloc", false, 0, 6},
      {"libssl*:SSL_*", "libssl*", "SSL_*", false, 0, 9},
      {"lib[a-c]?.so:f[0-9]", "lib[a-c]?.so", "f[0-9]", false, 0, 14},
      {"lib[:]x:f", "lib[:]x", "f", false, 0, 9},
      {"f[!ab]*", "", "f[!ab]*", false, 0, 1},
      {"f[]]", "", "f[]]", false, 0, 1},
      {"f[^]x]", "", "f[^]x]", false, 0, 1},
      {"*", "", "*", false, 0, 1},
      {"*:*", "*", "*", false, 0, 3},
      {"app:parse+0x1c", "app", "parse", false, 0x1c, 5},
      {"app:parse+0X1C", "app", "parse", false, 0x1c, 5},
      {"f+0", "", "f", false, 0, 1},
      {"f+12", "", "f", false, 12, 1},
      {"f+010", "", "f", false, 10, 1},
      {"f+0xffffffffffffffff", "", "f", false, ~std::uint64_t{0}, 1},
      {"f+18446744073709551615", "", "f", false, ~std::uint64_t{0}, 1},
      {"u:f", "", "f", false, 0, 3},
      {"uprobe:f", "", "f", false, 0, 8},
      {"u:app:f+4", "app", "f", false, 4, 7},
      {"u", "", "u", false, 0, 1},
      {"call", "", "call", false, 0, 1},
      {"\"call\":f", "call", "f", false, 0, 8},
      {"u:call:f", "call", "f", false, 0, 8},
      {"u:u:u", "u", "u", false, 0, 5},
      {"/usr/lib/x/libfoo.so:f", "/usr/lib/x/libfoo.so", "f", false, 0, 22},
      {"uprobe:/bin/app:f", "/bin/app", "f", false, 0, 17},
      {"./app:f", "./app", "f", false, 0, 7},
      {"../a-b/app:f", "../a-b/app", "f", false, 0, 12},
      {"libstdc++.so.6:f", "libstdc++.so.6", "f", false, 0, 16},
      {"ns::f", "", "ns::f", false, 0, 1},
      {"runtime/internal/syscall.*", "", "runtime/internal/syscall.*", false, 0, 1},
      {"go/app:a/b.(*T).Go+2", "go/app", "a/b.(*T).Go", false, 2, 8},
      {"app:ns::Cls::m*", "app", "ns::Cls::m*", false, 0, 5},
      {"u:app:ns::f", "app", "ns::f", false, 0, 7},
      {"u:ns::f", "", "ns::f", false, 0, 3},
      {"u::f", "", "u::f", false, 0, 1},
      {"app:::f", "app", "::f", false, 0, 5},
      {"ns::~Cls", "", "ns::~Cls", false, 0, 1},
      {"A::f(int,char&)", "", "A::f(int,char&)", false, 0, 1},
      {"A::f(int, char const*)", "", "A::f(int, char const*)", false, 0, 1},
      {"app:A::f(std::vector<int, std::allocator<int> > const&)+4", "app",
       "A::f(std::vector<int, std::allocator<int> > const&)", false, 4, 5},
      {"std::vector<A<int>>::at", "", "std::vector<A<int>>::at", false, 0, 1},
      {"foo.cold", "", "foo.cold", false, 0, 1},
      {"foo.isra.0+3", "", "foo.isra.0", false, 3, 1},
      {"_ZN1A1fEi", "", "_ZN1A1fEi", false, 0, 1},
      {"sub_1234", "", "sub_1234", false, 0, 1},
      {"a$b", "", "a$b", false, 0, 1},
      {"gr\xc3\xb6\xc3\x9f"
       "e",
       "",
       "gr\xc3\xb6\xc3\x9f"
       "e",
       false, 0, 1},
      {"f\\*x", "", "f\\*x", false, 0, 1},
      {"f[a\\]b]", "", "f[a\\]b]", false, 0, 1},
      {"\"A::f(int)\"", "", "A::f(int)", true, 0, 1},
      {"\"A::f(int, char)\"+0x10", "", "A::f(int, char)", true, 16, 1},
      {"app:\"(anonymous namespace)::f()\"", "app", "(anonymous namespace)::f()", true, 0, 5},
      {"\"a;b#c/{d}\"", "", "a;b#c/{d}", true, 0, 1},
      {"\"a\\\"b\\\\c\\d\"", "", "a\"b\\c\\d", true, 0, 1},
      {"\"my app\":f", "my app", "f", false, 0, 10},
      {"u:\"my:app\":\"x:y\"", "my:app", "x:y", true, 0, 12},
      {"\"lib[1]*\\\\.so\":f", "lib\\[1]\\*\\\\.so", "f", false, 0, 16},
      {"A::\\*", "", "A::\\*", false, 0, 1},
      {"libc:fopen@GLIBC_2.2.5", "libc", "fopen@GLIBC_2.2.5", false, 0, 6},
      {"fopen@@GLIBC_2.2.5+0x4", "", "fopen@@GLIBC_2.2.5", false, 4, 1},
      {"libc:mem*@GLIBC-2", "libc", "mem*@GLIBC-2", false, 0, 6},
      {"libc:\"operator new@V_1\"", "libc", "operator new@V_1", true, 0, 6},
  };
  for (const SymbolCase& c : cases) {
    CAPTURE(c.text);
    const std::vector<Item> items = items_of(c.text);
    REQUIRE(items.size() == 1);
    const Item& item = items[0];
    CHECK(item.module == c.module);
    CHECK(item.kind == Kind::kEntry);
    CHECK(!item.exclude);
    CHECK(item.text == c.text);
    CHECK(item.position.line == 1);
    CHECK(item.position.column == 1);
    CHECK(item.target_position.line == 1);
    CHECK(item.target_position.column == c.column);
    const auto* symbol = std::get_if<SymbolTarget>(&item.target);
    REQUIRE(symbol != nullptr);
    CHECK(symbol->pattern == c.pattern);
    CHECK(symbol->quoted == c.quoted);
    CHECK(symbol->offset == c.offset);
  }
}

TEST_CASE("spec: address targets") {
  const struct {
    std::string_view text;
    std::string_view module;
    std::uint64_t address;
    int column;
  } cases[] = {
      {"app:0x1400", "app", 0x1400, 5},
      {"u:lib*.so:0XaB", "lib*.so", 0xab, 11},
      {"app:10", "app", 10, 5},
      {"\"my app\":0x0", "my app", 0, 10},
      {"./app:0xfffffffffffffffe", "./app", ~std::uint64_t{0} - 1, 7},
      {"app:0x0000000000000000000001", "app", 1, 5},
  };
  for (const auto& c : cases) {
    CAPTURE(c.text);
    const std::vector<Item> items = items_of(c.text);
    REQUIRE(items.size() == 1);
    CHECK(items[0].module == c.module);
    CHECK(items[0].target_position.column == c.column);
    const auto* target = std::get_if<AddressTarget>(&items[0].target);
    REQUIRE(target != nullptr);
    CHECK(target->address == c.address);
  }
}

TEST_CASE("spec: a list separates, skips comments and keeps places") {
  const std::vector<Item> items =
      items_of("# head ; x\n  f ;; libc:g # tail; h\r\n;!libc:mem*;\t! k\n#end\n\"a;b\";m;");
  REQUIRE(items.size() == 6);
  const struct {
    std::string_view text;
    int line, column, target_column;
    bool exclude;
  } expected[] = {
      {"f", 2, 3, 3, false},    {"libc:g", 2, 8, 13, false}, {"!libc:mem*", 3, 2, 8, true},
      {"! k", 3, 14, 16, true}, {"\"a;b\"", 5, 1, 1, false}, {"m", 5, 7, 7, false},
  };
  for (std::size_t i = 0; i < items.size(); ++i) {
    CAPTURE(i);
    CHECK(items[i].text == expected[i].text);
    CHECK(items[i].position.line == expected[i].line);
    CHECK(items[i].position.column == expected[i].column);
    CHECK(items[i].target_position.line == expected[i].line);
    CHECK(items[i].target_position.column == expected[i].target_column);
    CHECK(items[i].exclude == expected[i].exclude);
  }
}

TEST_CASE("spec: nothing but space and comments is an empty list") {
  for (const std::string_view text : {"", " ", ";;;", "\n\n", " # f", "#\n;#x;y\n\t", "\r\n"}) {
    CAPTURE(text);
    CHECK(items_of(text).empty());
  }
}

TEST_CASE("spec: errors in lists and items") {
  check_errors({
      {"!", 1, 2, "expected a target after '!'"},
      {"f;! ;g", 1, 5, "expected a target after '!'"},
      {"! # x", 1, 3, "expected a target after '!'"},
      {"!!f", 1, 2, "unexpected second '!'"},
      {"f\ng\n h i", 3, 4,
       "unexpected 'i' after the target; separate probes with ';' (a capture is not supported yet by this version)"},
      {"f, g", 1, 2, "unexpected ','; separate probes with ';'"},
      {"f ,g", 1, 3, "unexpected ','; separate probes with ';'"},
      {"libc:malloc,libc:free", 1, 12, "unexpected ','; separate probes with ';'"},
      {"f + 4", 1, 3, "unexpected '+'; write an offset without spaces: symbol+4"},
      {"f !g", 1, 3, "unexpected '!' after the target"},
      {"f \"g\"", 1, 3, "unexpected '\"' after the target"},
      {"f \xc3\xb6", 1, 3, "unexpected '\xc3\xb6' after the target"},
      {"\"f\"#x", 1, 4, "unexpected '#' after the target"},
  });
}

TEST_CASE("spec: more items than there may be are an error at the first of them") {
  CHECK(std::holds_alternative<std::vector<Item>>(parse("f; g;\n h", 3)));
  const auto result = parse("f; g;\n h; i", 3);
  const Error* const error = std::get_if<Error>(&result);
  REQUIRE(error != nullptr);
  CHECK(error->message == "more than 3 probes in one specification; a glob names many");
  CHECK(error->position.line == 2);
  CHECK(error->position.column == 5);
}

TEST_CASE("spec: errors in targets") {
  check_errors({
      {":f", 1, 1, "expected a module before ':'"},
      {" !:f", 1, 3, "expected a module before ':'"},
      {"app:", 1, 5, "expected a symbol or 0xADDRESS after ':'"},
      {"app: f", 1, 5, "expected a symbol or 0xADDRESS after ':'"},
      {"app:;f", 1, 5, "expected a symbol or 0xADDRESS after ':'"},
      {"app:#x", 1, 5, "expected a symbol or 0xADDRESS after ':'"},
      {"u:", 1, 3, "expected a target after ':'"},
      {"u:app:", 1, 7, "expected a symbol or 0xADDRESS after ':'"},
      {"u:#x", 1, 3, "expected a symbol, found '#'"},
      {"=f", 1, 1, "expected a symbol, found '='"},
      {"+4", 1, 1, "expected a symbol, found '+'"},
      {"app:+4", 1, 5, "expected a symbol, found '+'"},
      {"app:/x", 1, 5, "expected a symbol, found '/'"},
      {"app:-x", 1, 5, "expected a symbol, found '-'"},
      {"{ count() }", 1, 1, "expected a symbol, found '{'"},
      {"[limit=3]", 1, 1, "expected a symbol, found '['"},
      {"xyz:app:f", 1, 8,
       "unexpected ':' after 'xyz:app'; write module:symbol (the known kinds are u, uprobe, ur, call, insn, stmt, inline and usdt, and C++ scopes are written '::')"},
      {"a; kprobe:./app:f", 1, 4,
       "probe kind 'kprobe' is for the kernel's probes; UBP has its own process's: u, uprobe, insn, usdt (a module of that name is put in quotes)"},
      {"kprobe:vfs_read", 1, 1,
       "probe kind 'kprobe' is for the kernel's probes; UBP has its own process's: u, uprobe, insn, usdt (a module of that name is put in quotes)"},
      {"t:syscalls:sys_enter_read", 1, 1,
       "probe kind 't' is for the kernel's probes; UBP has its own process's: u, uprobe, insn, usdt (a module of that name is put in quotes)"},
      {"interval:s:1", 1, 1, "an interval is a time and has a block: interval:ms:10 { }, interval:1s { }"},
      {"u:app:prov:mark", 1, 11, "unexpected ':' after 'prov' (C++ scopes are written '::')"},
      {"\"app\":prov:mark", 1, 11, "unexpected ':' after 'prov' (C++ scopes are written '::')"},
      {"ns::", 1, 5, "expected a name after '::'"},
      {"::", 1, 3, "expected a name after '::'"},
      {"123", 1, 1, "'123' is neither a symbol nor an address (addresses begin with 0x)"},
      {"app:12x", 1, 5, "'12x' is neither a symbol nor an address (addresses begin with 0x)"},
      {"./app", 1, 1, "'./app' names a module but no symbol; write module:symbol"},
      {"/usr/bin/x", 1, 1, "'/usr/bin/x' names a module but no symbol; write module:symbol"},
      {"../x", 1, 1, "'../x' names a module but no symbol; write module:symbol"},
      {"f/x/", 1, 2, "put a space before a filter (/.../)"},
      {"app:f/x == 3/", 1, 9, "unexpected '=' after the target"},
      {"f/x==3/", 1, 2, "put a space before a filter (/.../)"},
      {"f-4", 1, 2, "unexpected '-'; an offset is written symbol+4 and is never negative"},
      {"f%return", 1, 2, "unexpected '%' in a symbol; put an unusual name in quotes"},
      {"f#x", 1, 2, "unexpected '#' in a symbol; put an unusual name in quotes"},
      {"f\"g\"", 1, 2, "unexpected '\"' in a symbol; put an unusual name in quotes"},
      {"f)", 1, 2, "unexpected ')' in a symbol; put an unusual name in quotes"},
      {"f\\", 1, 2, "unexpected '\\' in a symbol; put an unusual name in quotes"},
      {"f\\;", 1, 2, "unexpected '\\' in a symbol; put an unusual name in quotes"},
      {"A::f(int, char", 1, 5, "'(' is not closed (put an operator's name in quotes)"},
      {"A::f(int, char; g)", 1, 5, "'(' is not closed (put an operator's name in quotes)"},
      {"v<A<int>", 1, 2, "'<' is not closed (put an operator's name in quotes)"},
      {"f<(>)", 1, 3, "'(' is not closed (put an operator's name in quotes)"},
      {"f[ab", 1, 2, "'[' is not closed (put the symbol in quotes if '[' belongs to its name)"},
      {"lib[ab:f", 1, 4, "'[' is not closed (put the symbol in quotes if '[' belongs to its name)"},
      {"f[a b]", 1, 2, "'[' is not closed (put the symbol in quotes if '[' belongs to its name)"},
      {"operator==", 1, 1, "put a C++ operator's name in quotes"},
  });
}

TEST_CASE("spec: errors in quotes") {
  check_errors({
      {"\"f", 1, 1, "the quote is not closed"},
      {"app:\"f;g", 1, 5, "the quote is not closed"},
      {"g;\"f\n\"", 1, 3, "the quote is not closed"},
      {"\"f\\\"", 1, 1, "the quote is not closed"},
      {"\"\"", 1, 1, "the quotes are empty"},
      {"\"\":f", 1, 1, "the quotes are empty"},
      {"\"f\"x", 1, 4, "unexpected 'x' after a closing quote"},
      {"\"A\"::f", 1, 4, "unexpected ':' after a closing quote"},
      {"\"f\"\"g\"", 1, 4, "unexpected '\"' after a closing quote"},
      {"\"f\"-4", 1, 4, "unexpected '-' after the target"},
  });
}

TEST_CASE("spec: errors in numbers") {
  check_errors({
      {"f+", 1, 3, "expected an offset after '+'"},
      {"f+;g", 1, 3, "expected an offset after '+'"},
      {"f+-4", 1, 3, "expected an offset after '+', found '-'"},
      {"f+x", 1, 3, "expected an offset after '+', found 'x'"},
      {"f+0x", 1, 3, "'0x' is not a number (decimal, or 0x and hexadecimal digits)"},
      {"f+12ab", 1, 3, "'12ab' is not a number (decimal, or 0x and hexadecimal digits)"},
      {"f+0x1g", 1, 3, "'0x1g' is not a number (decimal, or 0x and hexadecimal digits)"},
      {"f+18446744073709551616", 1, 3, "offset '18446744073709551616' does not fit in 64 bits"},
      {"f+0x10000000000000000", 1, 3, "offset '0x10000000000000000' does not fit in 64 bits"},
      {"f+4+4", 1, 4, "unexpected '+' after the target"},
      {"app:0x", 1, 5, "'0x' is not a number (decimal, or 0x and hexadecimal digits)"},
      {"app:0x12zz", 1, 5, "'0x12zz' is not a number (decimal, or 0x and hexadecimal digits)"},
      {"app:0x10000000000000000", 1, 5, "address '0x10000000000000000' does not fit in 64 bits"},
      {"app:0x10+4", 1, 9, "an address takes no offset; add it to the address"},
      {"app:0x10*", 1, 9, "unexpected '*' after the target"},
      {"0x1400", 1, 1, "an address needs a module: write module:0xADDRESS"},
      {"u:0x1400", 1, 3, "an address needs a module: write module:0xADDRESS"},
  });
}

TEST_CASE("spec: [missing=pending]") {
  for (std::string text :
       {"lib*:init [missing=pending]", "lib*:init[missing=pending]", "lib*:init [missing=pending] # later"}) {
    CAPTURE(text);
    const auto result = parse(text + "; f");
    const auto* items = std::get_if<std::vector<Item>>(&result);
    REQUIRE(items != nullptr);
    REQUIRE(items->size() == (text.find('#') == std::string::npos ? 2 : 1));
    CHECK(items->front().pending);
    CHECK(items->front().text.ends_with("[missing=pending]"));
    CHECK(std::get<SymbolTarget>(items->front().target).pattern == "init");
    if (items->size() == 2) CHECK(!items->back().pending);
  }
  check_errors({
      {"!lib*:init [missing=pending]", 1, 12, "an exclusion has no options"},
      {"f [missing=warn]", 1, 3,
       "an option list other than [missing=pending] ('[missing=warn]') is not supported yet by this version"},
      {"f [missing=pending] x", 1, 21,
       "unexpected 'x' after the target; separate probes with ';' (a capture is not supported yet by this version)"},
  });
}

TEST_CASE("spec: the parts of the grammar that are not built yet are named") {
  check_errors({
      {"@probes.txt", 1, 1, "file inclusion ('@probes.txt') is not supported yet by this version"},
      {"f;\n @p.txt", 2, 2, "file inclusion ('@p.txt') is not supported yet by this version"},
      {"size=libc:malloc", 1, 1, "naming a probe ('size=') is not supported yet by this version"},
      {"!x=f", 1, 2, "naming a probe ('x=') is not supported yet by this version"},
      {"ur:f+4", 1, 5, "uretprobes can not be attached to a function offset"},
      {"insn:app:0x1400-0x1480 [every=1000]", 1, 24,
       "an option list other than [missing=pending] ('[every=1000]') is not supported yet by this version"},
      {"stmt:app:f+4", 1, 11, "stmt: takes no offset; without it, symbol+offset probes one instruction"},
      {"stmt:app:0x10", 1, 10, "stmt: takes a function or a source line, not an address"},
      {"inline:app@a.c:7", 1, 11, "a source line is one of uprobe's targets, and of stmt's"},
      {"f; usdt:app:prov:request+4", 1, 25, "a static mark takes no offset"},
      {"usdt:app", 1, 6,
       "a static mark is written usdt:module:provider:name or usdt:module:name, with '*' in any part"},
      {"usdt:app:", 1, 10, "expected a mark's name"},
      {"usdt:app:p:", 1, 12, "expected a mark's name"},
      {"usdt:app:p:m:x", 1, 13, "unexpected ':'; a static mark is written usdt:module:provider:name"},
      {"usdt:app:(:m", 1, 10, "expected a provider's name"},
      {"U:app:p(:m", 1, 8, "unexpected '('"},
      {"app@parser.c:x", 1, 14, "expected a line number"},
      {"app@parser.c:0", 1, 15, "there is no line 0"},
      {"app@parser.c:7:", 1, 16, "expected a column number"},
      {"u:app@:1", 1, 7, "expected a source file behind '@'"},
      {"insn:app@p.c:1", 1, 9, "a source line is one of uprobe's targets, and of stmt's"},
      {"foo@plt", 1, 4, "foo@plt leads to another module's function; probe that one (*:foo is wherever it is defined)"},
      {"libc:fopen@", 1, 11,
       "expected a version, which is no glob, after '@': name@VERSION, or name@@VERSION for the default one"},
      {"fopen@@ [missing=pending]", 1, 6,
       "expected a version, which is no glob, after '@': name@VERSION, or name@@VERSION for the default one"},
      {"fopen@GLIBC_*", 1, 6,
       "expected a version, which is no glob, after '@': name@VERSION, or name@@VERSION for the default one"},
      {"fopen@A@B", 1, 6,
       "expected a version, which is no glob, after '@': name@VERSION, or name@@VERSION for the default one"},
      {"app:0x1400-0x1480", 1, 11, "an address range needs the kind insn: write insn:module:0xA-0xB"},
      {"insn:app:0x1400-0x1400", 1, 17, "the range ends before it begins"},
      {"insn:app:0x1400-x", 1, 17, "expected the end of the range after '-'"},
      {"insn:f+4", 1, 7, "insn: probes every instruction of a function; without it, symbol+offset probes one"},
      {"f [limit=3]", 1, 3,
       "an option list other than [missing=pending] ('[limit=3]') is not supported yet by this version"},
      {"f[limit=3]", 1, 2,
       "an option list other than [missing=pending] ('[limit=3]') is not supported yet by this version"},
      {"f+4[limit=3]", 1, 4,
       "an option list other than [missing=pending] ('[limit=3]') is not supported yet by this version"},
      {"\"f\" [x]", 1, 5, "an option list ('[x]') is not supported yet by this version"},
      {"libc:malloc size=arg0:u64", 1, 13,
       "unexpected 'size=arg0:u64' after the target; separate probes with ';' (a capture is not supported yet by this version)"},
      {"f %rax", 1, 3,
       "unexpected '%rax' after the target; separate probes with ';' (a capture is not supported yet by this version)"},
      {"f *(+8)(arg0)", 1, 3,
       "unexpected '*(+8)(arg0)' after the target; separate probes with ';' (a capture is not supported yet by this version)"},
      {"libc:read /arg0 < 0/", 1, 11, "filters and blocks are for UBP_PROBES alone"},
      {"libc:read/arg0/", 1, 10, "put a space before a filter (/.../)"},
      {"f+4/arg0/", 1, 4, "filters and blocks are for UBP_PROBES alone"},
      {"f { count(); }", 1, 3, "filters and blocks are for UBP_PROBES alone"},
      {"f{count()}", 1, 2, "filters and blocks are for UBP_PROBES alone"},
  });
}

TEST_CASE("spec: bytes that are not text") {
  check_errors({
      {"f;\0g"s, 1, 3, "NUL byte"},
      {"f\n g\x1b[31m", 2, 3, "control character \\x1b"},
      {"f\x7f", 1, 2, "control character \\x7f"},
      {"f\rg", 1, 2, "control character \\x0d"},
      {"f\xc2\x9b", 1, 2, "control character \\xc2\\x9b"},
      {"\"a\xff\"", 1, 3, "byte \\xff is not valid UTF-8"},
      {"# \xc3", 1, 3, "byte \\xc3 is not valid UTF-8"},
      {"\xc0\x80", 1, 1, "byte \\xc0 is not valid UTF-8"},
      {"\xe0\x80\x80", 1, 1, "byte \\xe0 is not valid UTF-8"},
      {"\xed\xa0\x80", 1, 1, "byte \\xed is not valid UTF-8"},
      {"\xf0\x80\x80\x80", 1, 1, "byte \\xf0 is not valid UTF-8"},
      {"\xf4\x90\x80\x80", 1, 1, "byte \\xf4 is not valid UTF-8"},
      {"\xf5\x80\x80\x80", 1, 1, "byte \\xf5 is not valid UTF-8"},
      {"a\x80", 1, 2, "byte \\x80 is not valid UTF-8"},
  });
  CHECK(items_of("\xf0\x9f\x98\x80;\xe2\x82\xac;\xef\xbf\xbd").size() == 3);
}

TEST_CASE("spec: a specification above 16 MiB is refused") {
  const std::size_t limit = std::size_t{16} << 20;
  CHECK(items_of(std::string(limit, ' ')).empty());
  check_errors({{std::string(limit + 1, ' '), 1, 1, "the specification is larger than 16 MiB"}});
}

TEST_CASE("spec: messages cut and escape what they quote") {
  CHECK(quote("a\x01\n\xff\xc3\xb6") == "'a\\x01\\x0a\\xff\xc3\xb6'");
  CHECK(quote(std::string(60, 'a')) == "'" + std::string(60, 'a') + "'");
  CHECK(quote(std::string(61, 'a')) == "'" + std::string(60, 'a') + "...'");
  CHECK(quote(std::string(59, 'a') + "\xc3\xb6") == "'" + std::string(59, 'a') + "...'");
}

TEST_CASE("spec: returns, by both names of their kind") {
  const auto parsed = parse("ur:libc:read; uretprobe:f; ur:app:0x1400");
  const auto* const items = std::get_if<std::vector<Item>>(&parsed);
  REQUIRE(items != nullptr);
  REQUIRE(items->size() == 3);
  for (const Item& item : *items) CHECK(item.kind == Kind::kReturn);
  CHECK((*items)[0].module == "libc");
  CHECK((*items)[0].text == "ur:libc:read");
  CHECK((*items)[1].module.empty());
  CHECK(kind_name(Kind::kReturn) == "uretprobe");
}

TEST_CASE("spec: calls, and what a block's attach points are") {
  Program program;
  const auto parsed = parse("call:libc:read { } call:f, ur:g { } f { } call:app:*", kMaxItems, &program);
  const auto* const items = std::get_if<std::vector<Item>>(&parsed);
  REQUIRE(items != nullptr);
  REQUIRE(items->size() == 5);
  CHECK((*items)[0].kind == Kind::kCall);
  CHECK((*items)[0].module == "libc");
  CHECK((*items)[4].kind == Kind::kCall);
  CHECK(kind_name(Kind::kCall) == "call");
  REQUIRE(program.probes.size() == 3);
  const auto is = [&](std::size_t probe, bool has_calls, bool has_returns, bool has_entries) {
    const Probe& its = program.probes[probe];
    return its.has_calls == has_calls && its.has_returns == has_returns && its.has_entries == has_entries;
  };
  CHECK(is(0, true, false, false));
  CHECK(is(1, true, true, false));
  CHECK(is(2, false, false, true));
  check_errors({{"call:f+4", 1, 7, "calls have no function offset: a call is of a whole function"}});
}

TEST_CASE("spec: a kind's name") { CHECK(kind_name(Kind::kEntry) == "uprobe"); }

}  // namespace ubp::language

TEST_CASE("insn: functions and address ranges") {
  using namespace ubp::language;
  auto parsed = parse("insn:app:f*; insn:app:0x10-0x20; insn:app:0x30; insn:*; !insn:g");
  const auto* items = std::get_if<std::vector<Item>>(&parsed);
  REQUIRE(items != nullptr);
  REQUIRE(items->size() == 5);
  for (const Item& item : *items) CHECK(item.kind == Kind::kInsn);
  CHECK(std::get<SymbolTarget>((*items)[0].target).pattern == "f*");
  CHECK(std::get<AddressTarget>((*items)[1].target).address == 0x10);
  CHECK(std::get<AddressTarget>((*items)[1].target).end == 0x20);
  CHECK(std::get<AddressTarget>((*items)[2].target).end == 0x31);
  CHECK((*items)[3].module.empty());
  CHECK((*items)[4].exclude);
  CHECK(kind_name(Kind::kInsn) == "insn");
}
