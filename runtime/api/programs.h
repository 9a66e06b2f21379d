// Texts with filters and blocks, as registrations: one of all bare targets, and one of each block. A caller has one
// handle for all of them, that of the bare targets, which stands there also where there are none.
//
// Context: normal; but for read_text() and problem_of(), under the ApiLock. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/sources.h"
#include "runtime/api/api_lock.h"
#include "runtime/output/reader.h"
#include "runtime/program/program.h"

namespace ubp::runtime {

// A text that was read, checked and compiled.
struct ReadText {
  std::string text;  // with what it imports
  bool is_good = false;
  std::vector<program::Diagnostic> diagnostics{};  // mistakes first; or warnings
  std::vector<language::Item> items{};
  std::unique_ptr<program::Program> program{};  // null where all of its targets are bare
};
// name: of the text, in messages. session: see Program::compile(); its text has what it imports already.
ReadText read_text(std::string_view name, std::string_view own, const program::Inputs& inputs,
                   const program::Session* session);

// text: with what it imports.
Problem problem_of(const program::Diagnostic& diagnostic, std::string_view name, std::string_view text);

inline constexpr char kTextName[] = "ubp_register";  // of its text, in messages

// A registered program of the application's.
struct OwnProgram {
  // text: with what it imports.
  OwnProgram(std::string_view text, std::unique_ptr<program::Program> its_program);

  program::Sources sources;
  std::unique_ptr<program::Program> program;
  program::Reader reader;  // of what it prints
  bool has_begun = false;
};

// Prepares the registrations of a text; nothing is armed. Returns their ids, or none, with what is wrong: then there
// are none. program: null: the items are bare. bare: of the bare items; the blocks' are made after it. has_bare: their
// registration is made also where there are no bare items, and first. module: see plan::Plan.
std::optional<std::vector<std::uint64_t>> prepare(const std::vector<language::Item>& items, program::Program* program,
                                                  const Request& bare, bool has_bare,
                                                  std::optional<std::uint32_t> module,
                                                  const std::function<void(std::size_t)>& progress, Problem& problem);

// Keeps a program for the handle with this id, whose blocks are in it, until that is gone.
void keep(std::uint64_t id, std::unique_ptr<OwnProgram> own);
// The registrations of the handle with this id beside its own: of blocks, of other ways to be hit; until it is gone.
void keep_others(std::uint64_t id, std::vector<std::uint64_t> ids);
// Null: the handle has none.
OwnProgram* program_of(std::uint64_t id);
// The handle's own registration and the others of it.
std::vector<std::uint64_t> registrations_of(std::uint64_t id);

// Registry::apply(). Before: runs begin of programs that are registered; after: runs end of those that are gone, says
// what they have printed and nobody has read, and destroys them.
std::optional<std::string> apply(std::span<const Operation> operations);

// A forked child has empty maps, and has printed nothing.
void set_up_programs_in_child();

}  // namespace ubp::runtime
