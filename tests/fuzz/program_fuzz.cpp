// Programs: any text is parsed, checked, compiled, and what needs no hit is run. An input is a text, or, with 1 as its
// first byte, a number of a word of the language for each byte.
#include <algorithm>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fuzz.h"
#include "runtime/language/spec.h"
#include "runtime/program/program.h"

namespace ubp::trap {
Process g_process;  // nothing hits
}  // namespace ubp::trap

namespace ubp::fuzz {
namespace {

constexpr std::size_t kMostBytes = 4096;

std::string text_of(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::string_view kWords[] = {"begin {",
                                         "}",
                                         "end {",
                                         "f /",
                                         "/ {",
                                         "@",
                                         "@a",
                                         "@b[",
                                         "]",
                                         "$x",
                                         "$y",
                                         "=",
                                         "+=",
                                         "++",
                                         "--",
                                         "1",
                                         "0",
                                         "-",
                                         "255",
                                         "(",
                                         ")",
                                         ",",
                                         ";",
                                         "\"a\"",
                                         "\"\"",
                                         "+",
                                         "*",
                                         "/",
                                         "%",
                                         "<<",
                                         ">>",
                                         "<",
                                         "==",
                                         "!=",
                                         "&&",
                                         "||",
                                         "!",
                                         "~",
                                         "?",
                                         ":",
                                         "if (1)",
                                         "{",
                                         "} else {",
                                         "unroll(3) {",
                                         "break",
                                         "return",
                                         "let",
                                         ": uint8",
                                         "(int8)",
                                         "(bool)",
                                         "count()",
                                         "sum(",
                                         "min(",
                                         "avg(",
                                         "stats(",
                                         "hist(",
                                         "lhist(",
                                         "print(",
                                         "printf(\"%d\",",
                                         "clear(@a)",
                                         "zero(@b)",
                                         "delete(@b,",
                                         "len(@b)",
                                         "has_key(@b,",
                                         "str(",
                                         "exit()",
                                         "pid",
                                         "comm",
                                         "probe",
                                         "nsecs",
                                         "arg0",
                                         ".0",
                                         "0x7fffffffffffffff",
                                         "struct s { int a; char b[4]; struct s *n; int c : 3; }",
                                         "(struct s*)",
                                         "->n",
                                         ".a",
                                         "*",
                                         "&$x",
                                         "sizeof(",
                                         "(int8[])",
                                         "[2]",
                                         "buf(",
                                         "enum e { A, B = 3 }",
                                         "A",
                                         "for ($i : 0..3) {",
                                         "config = { max_strlen = 64 }",
                                         "lhist(1,0,9,2)"};
  if (size == 0 || bytes[0] != 1) return {reinterpret_cast<const char*>(bytes), size};
  std::string text;
  for (std::size_t i = 1; i < size; ++i) {
    text += kWords[bytes[i] % std::size(kWords)];
    text += ' ';
  }
  return text;
}

void check_span(std::string_view text, const language::Span& span) {
  const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
  FUZZ_CHECK(span.begin.line >= 1 && span.begin.line <= lines, "line %d of %ld", span.begin.line,
             static_cast<long>(lines));
  FUZZ_CHECK(span.begin.column >= 1 && static_cast<std::size_t>(span.begin.column) <= text.size() + 1);
  FUZZ_CHECK(!program::excerpt(text, span).empty());
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp;
  const std::string text = fuzz::text_of(bytes, std::min(size, fuzz::kMostBytes));
  language::Program tree;
  const auto result = language::parse(text, language::kMaxItems, &tree);
  if (const auto* error = std::get_if<language::Error>(&result)) {
    FUZZ_CHECK(!error->message.empty());
    fuzz::check_span(text, {error->position, error->end.line != 0 ? error->end : error->position});
    return 0;
  }
  std::vector<program::Diagnostic> diagnostics;
  const auto compiled = program::Program::compile(std::move(tree), diagnostics);
  for (const program::Diagnostic& diagnostic : diagnostics) fuzz::check_span(text, diagnostic.span);
  FUZZ_CHECK(compiled != nullptr || !diagnostics.empty());
  if (compiled == nullptr || text.find("while") != std::string::npos) return 0;  // a loop takes its time
  compiled->run(language::Probe::Event::kBegin);
  compiled->run(language::Probe::Event::kEnd);
  FUZZ_CHECK(compiled->printed().size() + compiled->maps().size() < std::size_t{1} << 30);
  return 0;
}
