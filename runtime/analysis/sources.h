// What a program takes from other files: `import "x.bt"`, `import "x.h"`, `#include <x.h>`.
//
// Theirs stands before its own text, each piece behind a line that says what it is, as C's preprocessors write them:
// # 1 "x.bt". So positions are lines of the whole, and Sources says which file's they are.
//
// Context: load time, and readers. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/diagnostic.h"

namespace ubp::program {

struct SourceOptions {
  std::string directory = ".";           // that the program's own paths begin at
  std::vector<std::string> directories;  // of headers, before the system's
  std::vector<std::string> headers;      // included before all else
};

// The text with what it imports and includes; as it is where that is nothing. diagnostics: what is not there.
std::string with_sources(std::string_view name, std::string_view text, const SourceOptions& options,
                         std::vector<Diagnostic>& diagnostics);

// The text with another one before it; name: of what is no other file's.
std::string with_prefix(std::string_view prefix_name, std::string_view prefix, std::string_view name, std::string text);

class Sources {
 public:
  // text: of with_sources(). name: of what is no other file's.
  Sources(std::string name, std::string_view text);

  struct Place {
    std::string_view name;
    int line;
  };
  Place of(int line) const;
  const std::string& name() const { return name_; }
  // NAME:LINE:COLUMN-END, as messages begin.
  std::string place(const language::Span& span) const;
  // "PLACE: ERROR: expanded from", the line and its marker below: for each use of a macro.
  std::string uses(const std::vector<language::Span>& expanded_from, std::string_view level) const;

 private:
  struct Mark {
    int from;  // from this line of the whole on, the file's lines from the first on
    std::string name;
  };
  std::string name_, text_;
  std::vector<Mark> marks_;
};

}  // namespace ubp::program
