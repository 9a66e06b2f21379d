// See compiled.h.
#include "runtime/command/compiled.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>
#include <variant>

namespace ubp::command {
void say(const Compiled& compiled, const program::Diagnostic& diagnostic) {
  std::string text = fmt::format("{}: {}: {}\n", program::place_of(compiled.name, diagnostic.span),
                                 diagnostic.is_warning ? "WARNING" : "ERROR", diagnostic.message);
  text += program::excerpt(compiled.text, diagnostic.span);
  if (!text.ends_with('\n')) text += '\n';
  if (!diagnostic.hint.empty()) text += fmt::format("HINT: {}\n", diagnostic.hint);
  std::fputs(text.c_str(), stderr);
}

void say_error(std::string_view message, std::string_view hint) {
  std::string text = fmt::format("ERROR: {}\n", message);
  if (!hint.empty()) text += fmt::format("HINT: {}\n", hint);
  std::fputs(text.c_str(), stderr);
}

std::optional<Compiled> compile(std::string name, std::string text, bool says_warnings) {
  Compiled compiled{std::move(name), std::move(text), {}, {}, {}};
  auto parsed = language::parse(compiled.text, language::kMaxItems, &compiled.tree);
  if (const auto* error = std::get_if<language::Error>(&parsed)) {
    say(compiled, {{error->position, error->end}, error->message, {}, false});
    return std::nullopt;
  }
  compiled.items = std::move(std::get<std::vector<language::Item>>(parsed));
  if (compiled.items.empty() && compiled.tree.probes.empty()) {
    say_error("No probes to attach");
    return std::nullopt;
  }
  compiled.analysis = program::analyse(compiled.tree);
  for (const program::Diagnostic& diagnostic : compiled.analysis.diagnostics) {
    if (!diagnostic.is_warning || says_warnings) say(compiled, diagnostic);
  }
  if (compiled.analysis.has_errors()) return std::nullopt;
  return compiled;
}

}  // namespace ubp::command
