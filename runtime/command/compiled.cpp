// See compiled.h.
#include "runtime/command/compiled.h"

#include <fmt/format.h>

#include <cstdio>
#include <utility>

namespace ubp::command {
namespace {

void say_without_place(std::string_view level, std::string_view message, std::string_view hint) {
  std::string text = message.empty() ? "" : fmt::format("{}: {}\n", level, message);
  if (!hint.empty()) text += fmt::format("HINT: {}\n", hint);
  std::fputs(text.c_str(), stderr);
}

}  // namespace

void say(const Compiled& compiled, const program::Diagnostic& diagnostic) {
  if (diagnostic.span.begin.line == 0) return say_error(diagnostic.message, diagnostic.hint);
  std::string text;
  const auto add = [&](const language::Span& span, std::string_view message, std::string_view more) {
    text += fmt::format("{}: {}: {}\n{}{}", compiled.sources().place(span), diagnostic.is_warning ? "WARNING" : "ERROR",
                        message, more, program::excerpt(compiled.text, span));
    if (!text.ends_with('\n')) text += '\n';
  };
  const std::string more = diagnostic.helper.empty() ? ""
                                                     : fmt::format("Additional Info - helper: {}, retcode: {}\n",
                                                                   diagnostic.helper, diagnostic.code);
  add(diagnostic.span, diagnostic.message, more);
  text += compiled.sources().uses(diagnostic.expanded_from, diagnostic.is_warning ? "WARNING" : "ERROR");
  if (!diagnostic.hint.empty()) text += fmt::format("HINT: {}\n", diagnostic.hint);
  std::fputs(text.c_str(), stderr);
}

void say_error(std::string_view message, std::string_view hint) { say_without_place("ERROR", message, hint); }
void say_warning(std::string_view message, std::string_view hint) { say_without_place("WARNING", message, hint); }

language::Span item_span(const language::Item& item) {
  language::Position end = item.position;
  end.column += static_cast<int>(item.text.size());
  return {item.position, end};
}

std::optional<std::string> whole_text(const std::string& name, const std::string& text,
                                      const program::SourceOptions& options) {
  std::vector<program::Diagnostic> diagnostics;
  std::string whole = program::with_sources(name, text, options, diagnostics);
  for (const program::Diagnostic& diagnostic : diagnostics) say({name, text}, diagnostic);
  if (!diagnostics.empty()) return std::nullopt;
  return whole;
}

std::optional<Compiled> compile(std::string name, std::string text, const program::Inputs& inputs, bool says_warnings) {
  Compiled compiled(std::move(name), std::move(text));
  std::vector<program::Diagnostic> diagnostics;
  auto checked = program::check(compiled.text, inputs, diagnostics);
  for (const program::Diagnostic& diagnostic : diagnostics) {
    if (!diagnostic.is_warning || says_warnings) say(compiled, diagnostic);
  }
  if (!checked) return std::nullopt;
  if (checked->is_empty()) {
    say_error("No probes to attach");
    return std::nullopt;
  }
  static_cast<program::Checked&>(compiled) = std::move(*checked);
  return compiled;
}

}  // namespace ubp::command
