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
#include "runtime/program/program.h"
#include "runtime/program/reader.h"

namespace ubp::program {

inline language::Program tree_of(std::string_view text) {
  language::Program tree;
  const auto result = language::parse(text, language::kMaxItems, &tree);
  if (const auto* error = std::get_if<language::Error>(&result)) FAIL(error->message << " in: " << text);
  return tree;
}

inline std::unique_ptr<Program> compiled(std::string_view text) {
  std::vector<Diagnostic> diagnostics;
  auto program = Program::compile(tree_of(text), diagnostics);
  if (program == nullptr) FAIL(diagnostics.front().message << " in: " << text);
  return program;
}

// What a block of begin prints, and the maps it leaves.
inline std::string output_of(const std::string& block) {
  const auto program = compiled("begin { " + block + " }");
  program->run(language::Probe::Event::kBegin);
  return program->printed() + program->maps();
}

}  // namespace ubp::program
