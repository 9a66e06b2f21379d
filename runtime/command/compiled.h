// A program as the command knows it: read and checked here, so that a mistake starts nothing, and run elsewhere.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/analysis/checked.h"
#include "runtime/analysis/sources.h"

namespace ubp::command {

struct Compiled : program::Checked {
  Compiled(std::string its_name, std::string its_text) : name(std::move(its_name)), text(std::move(its_text)) {}

  std::string name;  // in messages: "stdin", or the file's path
  std::string text;  // with what it imports

  program::Sources sources() const { return {name, text}; }
};

// Reads and checks a program, and says on standard error what is wrong with it. None: it has mistakes.
std::optional<Compiled> compile(std::string name, std::string text, const program::Inputs& inputs, bool says_warnings);

// The text with what it imports and includes. None: something is not there, which has been said.
std::optional<std::string> whole_text(const std::string& name, const std::string& text,
                                      const program::SourceOptions& options);

// A mistake or a warning, as bpftrace prints it: place, message, line, marker, hint.
void say(const Compiled& compiled, const program::Diagnostic& diagnostic);
// One without a place. Standard error.
void say_error(std::string_view message, std::string_view hint = {});
void say_warning(std::string_view message, std::string_view hint = {});

// Where an attach point stands.
language::Span item_span(const language::Item& item);

}  // namespace ubp::command
