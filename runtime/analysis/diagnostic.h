// What is wrong with a program, and where.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/language/tree.h"

namespace ubp::program {

struct Diagnostic {
  language::Span span;  // line 0: nowhere in the text
  std::string message;
  std::string hint{};
  bool is_warning = false;
  std::string_view helper{};  // of a read that failed: what failed, as bpftrace names it, and how
  int code = 0;
  std::vector<language::Span> expanded_from{};  // the uses of macros that it is in, innermost first
};

// The line that a span begins in, tabs as four blanks, and below it a ~ under each column of the span.
std::string excerpt(std::string_view source, const language::Span& span);

}  // namespace ubp::program
