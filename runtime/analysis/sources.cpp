// See sources.h.
#include "runtime/analysis/sources.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "runtime/analysis/headers.h"
#include "runtime/language/lexer.h"

namespace ubp::program {
namespace {

using language::Span;
using language::Token;
using language::TokenKind;

constexpr int kDeepestImport = 32;  // imports of imports
constexpr std::string_view kInclude = "#include";
constexpr std::string_view kFirst = "# 1 \"";  // what a marker begins with

std::string marker(std::string_view name) { return fmt::format("# 1 \"{}\"\n", name); }

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

class Collector {
 public:
  Collector(const SourceOptions& options, std::vector<Diagnostic>& diagnostics)
      : options_(options), diagnostics_(diagnostics) {}

  // What the text takes from elsewhere, innermost first. is_own: it is the program's own: its mistakes have places.
  void collect(std::string_view text, const std::string& directory, bool is_own);
  void include(std::string_view name, bool is_quoted, const std::string& directory, const Span& span);
  std::string whole();

 private:
  void import(const std::string& path, const std::string& directory, const Span& span);
  void import_file(const std::string& path, const Span& span);
  void fail(const Span& span, std::string message, std::string hint = {}) {
    diagnostics_.push_back({span, std::move(message), std::move(hint), false});
  }

  // What looks for headers asks the system, and libc the program's malloc: not for a text that has none.
  Headers& headers() { return headers_ ? *headers_ : headers_.emplace(options_.directories); }

  const SourceOptions& options_;
  std::optional<Headers> headers_;
  std::vector<Diagnostic>& diagnostics_;
  std::set<std::string> imported_;
  std::string programs_;
  int depth_ = 0;
};

void Collector::collect(std::string_view text, const std::string& directory, bool is_own) {
  int number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++number;
    if (!line.starts_with(kInclude)) continue;
    const std::size_t open = line.find_first_of("<\"");
    const std::size_t close = open != std::string_view::npos ? line.find_first_of(">\"", open + 1) : open;
    if (close == std::string_view::npos) continue;
    const auto column = static_cast<int>(open + 1);
    const Span span{{is_own ? number : 0, column}, {is_own ? number : 0, static_cast<int>(close + 2)}};
    include(line.substr(open + 1, close - open - 1), line[open] == '"', directory, span);
  }
  if (text.find("import") == std::string_view::npos) return;
  language::Lexer lexer(text, {});
  int depth = 0;
  for (Token token = lexer.next(), next; token.kind != TokenKind::kEnd; token = std::move(next)) {
    next = lexer.next();
    depth += (token.is("{") ? 1 : 0) - (token.is("}") ? 1 : 0);
    if (depth != 0 || !token.is_name("import") || next.kind != TokenKind::kString) continue;
    Span span{token.begin.position(), next.end.position()};
    if (!is_own) span = {{0, 0}, {0, 0}};
    import(next.value, directory, span);
  }
}

void Collector::include(std::string_view name, bool is_quoted, const std::string& directory, const Span& span) {
  if (!headers().include(std::string(name), is_quoted ? directory : ""))
    fail(span, fmt::format("'{}' file not found", name), "-I DIR says where headers are");
}

void Collector::import(const std::string& path, const std::string& directory, const Span& span) {
  if (path.starts_with("stdlib/")) return;  // bpftrace's own: those functions are part of the language here
  const std::string whole = path.starts_with('/') ? path : directory + '/' + path;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir(whole.c_str()), &closedir);
  if (folder == nullptr) return import_file(whole, span);
  std::vector<std::string> files;
  while (const dirent* const entry = readdir(folder.get())) {
    const std::string its = whole + '/' + entry->d_name;
    if (its.ends_with(".bt") || its.ends_with(".h")) files.push_back(its);
  }
  std::sort(files.begin(), files.end());
  for (const std::string& file : files) import_file(file, span);
}

void Collector::import_file(const std::string& path, const Span& span) {
  if (path.ends_with(".bpf.c"))
    return fail(span, fmt::format("'{}' is C for the kernel: UBP runs in the program", path));
  if (path.ends_with(".h")) {
    if (!headers().include(path)) fail(span, fmt::format("'{}' file not found", path));
    return;
  }
  struct stat folder {};
  if (stat(directory_of(path).c_str(), &folder) == 0 && (folder.st_mode & S_IWOTH) != 0 &&
      (folder.st_mode & S_ISVTX) == 0)
    return fail(span, fmt::format("'{}' is in a directory that everybody can write to", path));
  char real[PATH_MAX];  // what libc would allocate is not ours to free
  std::string text;
  if (realpath(path.c_str(), real) == nullptr || !read_file(path, text))
    return fail(span, fmt::format("failed to open file '{}'", path));
  if (!imported_.insert(real).second) return;
  if (++depth_ > kDeepestImport) return fail(span, fmt::format("'{}' is imported too deeply", path));
  collect(text, directory_of(path), false);
  --depth_;
  programs_ += marker(path) + text;
  if (!programs_.ends_with('\n')) programs_ += '\n';
}

std::string Collector::whole() {
  std::string all;
  if (headers_) all = marker("headers") + headers_->definitions();
  return all + programs_;
}

}  // namespace

std::string with_sources(std::string_view name, std::string_view text, const SourceOptions& options,
                         std::vector<Diagnostic>& diagnostics) {
  Collector collector(options, diagnostics);
  for (const std::string& header : options.headers)
    collector.include(header, true, options.directory, {{0, 0}, {0, 0}});
  collector.collect(text, options.directory, true);
  const std::string others = collector.whole();
  if (others.empty() || !diagnostics.empty()) return std::string(text);
  return others + marker(name) + std::string(text);
}

std::string with_prefix(std::string_view prefix_name, std::string_view prefix, std::string_view name,
                        std::string text) {
  const bool is_marked = text.starts_with(kFirst);
  return marker(prefix_name) + std::string(prefix) + (is_marked ? "" : marker(name)) + std::move(text);
}

Sources::Sources(std::string name, std::string_view text) : name_(std::move(name)), text_(text) {
  if (!text.starts_with(kFirst)) return;
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with(kFirst) && line.size() > kFirst.size() && line.back() == '"')
      marks_.push_back({number + 1, std::string(line.substr(kFirst.size(), line.size() - kFirst.size() - 1))});
  }
}

Sources::Place Sources::of(int line) const {
  Place place{name_, line};
  for (const Mark& mark : marks_) {
    if (mark.from <= line) place = {mark.name, 1 + line - mark.from};
  }
  return place;
}

std::string Sources::place(const language::Span& span) const {
  const auto [name, line] = of(span.begin.line);
  if (span.end.line == 0) return fmt::format("{}:{}:{}", name, line, span.begin.column);
  if (span.begin.line != span.end.line)
    return fmt::format("{}:{}-{}", name, line, line + span.end.line - span.begin.line);
  return fmt::format("{}:{}:{}-{}", name, line, span.begin.column, span.end.column);
}

std::string Sources::uses(const std::vector<Span>& expanded_from, std::string_view level) const {
  std::string text;
  for (const Span& use : expanded_from)
    text += fmt::format("{}: {}: expanded from\n{}\n", place(use), level, excerpt(text_, use));
  return text;
}

}  // namespace ubp::program
