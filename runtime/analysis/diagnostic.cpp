// See diagnostic.h.
#include "runtime/analysis/diagnostic.h"

#include <algorithm>

namespace ubp::program {

std::string excerpt(std::string_view source, const language::Span& span) {
  for (int line = 1; line < span.begin.line && !source.empty(); ++line)
    source.remove_prefix(std::min(source.size(), source.find('\n')) + (source.find('\n') < source.size() ? 1 : 0));
  const std::string_view line = source.substr(0, source.find('\n'));
  const auto first = static_cast<std::size_t>(span.begin.column - 1);
  const std::size_t last =
      span.end.line == span.begin.line ? static_cast<std::size_t>(std::max(span.end.column, 1) - 1) : line.size();
  std::string shown, marker;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const std::string_view character = line[i] == '\t' ? "    " : line.substr(i, 1);
    shown += character;
    const bool is_continuation = (static_cast<unsigned char>(line[i]) & 0xc0) == 0x80;
    if (!is_continuation) marker.append(character.size(), i >= first && i < std::max(last, first + 1) ? '~' : ' ');
  }
  if (first >= line.size()) marker += '~';
  marker.erase(marker.find_last_not_of(' ') + 1);
  return shown + '\n' + marker;
}

}  // namespace ubp::program
