// Programs: any text is parsed, checked, compiled, and what needs no hit is run. An input is a text, or, with 1 as its
// first byte, chooses a program by the language's grammar.
#include <algorithm>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fuzz.h"
#include "program_grammar.h"
#include "runtime/language/spec.h"
#include "runtime/program/program.h"
#include "tests/program/verifier.h"

namespace ubp::fuzz {
namespace {

constexpr std::size_t kMostBytes = 4096;

std::string text_of(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0 || bytes[0] != 1) return {reinterpret_cast<const char*>(bytes), size};
  return Grammar(bytes + 1, size - 1).program();
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
  const std::string why = compiled != nullptr ? program::refusal_of(*compiled) : "";
  FUZZ_CHECK(why.empty(), "%s", why.c_str());
  const bool is_bounded = size != 0 && bytes[0] == 1;  // another loop takes its time
  if (compiled == nullptr || (!is_bounded && text.find("while") != std::string::npos)) return 0;
  compiled->run(language::Probe::Event::kBegin);
  compiled->run(language::Probe::Event::kEnd);
  FUZZ_CHECK(compiled->printed().size() + compiled->maps().size() < std::size_t{1} << 30);
  return 0;
}
