// Programs as the tests of the program room need them.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/language/spec.h"
#include "runtime/output/reader.h"
#include "runtime/program/program.h"
#include "tests/program/verifier.h"

namespace ubp::program {

inline language::Program tree_of(std::string_view text) {
  language::Program tree;
  const auto result = language::parse(text, language::kMaxItems, &tree);
  if (const auto* error = std::get_if<language::Error>(&result)) FAIL(error->message << " in: " << text);
  return tree;
}

// Its code is looked at before it runs (verifier.h).
inline std::unique_ptr<Program> compiled(std::string_view text, const Inputs& inputs = {}) {
  std::vector<Diagnostic> diagnostics;
  auto program = Program::compile(tree_of(text), diagnostics, nullptr, inputs);
  if (program == nullptr) FAIL(diagnostics.front().message << " in: " << text);
  const std::string why = refusal_of(*program);
  if (!why.empty()) FAIL(why << " in: " << text);
  return program;
}

// What a program's begin prints, and the maps it leaves.
inline std::string output_of_program(const std::string& text, const Inputs& inputs = {}) {
  const auto program = compiled(text, inputs);
  program->run(language::Probe::Event::kBegin);
  return program->printed() + program->maps();
}
// The same of a block of begin.
inline std::string output_of(const std::string& block, const Inputs& inputs = {}) {
  return output_of_program("begin { " + block + " }", inputs);
}

// Everything that is said of a program: "column: message", warnings as well.
inline std::vector<std::string> messages_of(const std::string& text, const Inputs& inputs = {}) {
  std::vector<Diagnostic> diagnostics;
  Program::compile(tree_of(text), diagnostics, nullptr, inputs);
  std::vector<std::string> messages;
  for (const Diagnostic& diagnostic : diagnostics)
    messages.push_back(std::to_string(diagnostic.span.begin.column) + ": " + diagnostic.message);
  return messages;
}

// A block of begin has a mistake, which is said first.
inline void check_mistake(const std::string& block, const std::string& message) {
  CAPTURE(block);
  language::Program tree = tree_of("begin { " + block + " }");
  const Analysis analysis = analyse(tree);
  REQUIRE(analysis.has_errors());
  CHECK(analysis.diagnostics.front().message == message);
}

}  // namespace ubp::program
