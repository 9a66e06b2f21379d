// What events print. See text.h.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "runtime/output/text.h"

namespace ubp::program {
namespace {

std::string printed(const ReaderOptions& options, std::string_view type, const std::string& text) {
  return options.format == Format::kText ? text : json_line(type, json_quoted(text));
}

// To where messages go; returns what is printed in their place.
std::string said(const ReaderOptions& options, std::string text) {
  if (!options.say) return text;
  options.say(text);
  return "";
}

// errorf() and warnf(): each a line.
std::string message(const Event& event, std::string text, const ReaderOptions& options) {
  const bool is_error = event.kind == Event::Kind::kError;
  if (!is_error && !options.says_warnings) return "";
  if (text.ends_with('\n')) text.pop_back();
  const auto [name, line] = options.sources.of(event.span.begin.line);
  if (options.format == Format::kJson)
    return fmt::format("{{\"type\": \"{}\", \"msg\": {}, \"filename\": {}, \"line\": {}, \"col\": {}}}\n",
                       is_error ? "errorf" : "warnf", json_quoted(text), json_quoted(name), line,
                       event.span.begin.column);
  const std::string_view level = is_error ? "ERROR" : "WARNING";
  return said(options, fmt::format("{}: {}: {}\n", options.sources.place(event.span), level, text) +
                           options.sources.uses(event.expanded_from, level));
}

// cat(): the file's beginning.
std::string file_text(const std::string& path, const ReaderOptions& options) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  if (file == nullptr)
    return said(options, fmt::format("ERROR: failed to open file '{}' ({})\n", path, strerrordesc_np(errno)));
  std::string text(options.most_file_bytes, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return printed(options, "cat", text);
}

}  // namespace

std::string event_text(const Event& event, const std::uint64_t* words, const ReaderOptions& options) {
  if (event.kind == Event::Kind::kValue) {
    const Type& type = event.values.front();
    return options.format == Format::kText ? text_of(type, words) + '\n' : json_line("value", json_of(type, words));
  }
  if (event.kind == Event::Kind::kTime) return printed(options, "time", text_of(event.values.front(), words));
  std::string text = format_values(event.format, event.values, words);
  switch (event.kind) {
    case Event::Kind::kError:
    case Event::Kind::kWarning: return message(event, std::move(text), options);
    case Event::Kind::kFile: return file_text(text, options);
    case Event::Kind::kCommand:
      return options.run_command ? printed(options, "syscall", options.run_command(text)) : "";
    default: return printed(options, "printf", text);
  }
}

}  // namespace ubp::program
