// See headers.h.
#include "runtime/analysis/headers.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/analysis/c_expression.h"
#include "runtime/language/characters.h"
#include "runtime/language/definition_parser.h"

namespace ubp::program {
namespace {

constexpr std::size_t kMostBytes = std::size_t{16} << 20;  // of all headers together
constexpr int kDeepest = 64;

using language::is_digit;
using language::is_word;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view word_at(std::string_view text) {
  return text.substr(0, static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_word) - text.begin()));
}

// Behind a literal in quotes that begins at an offset.
std::size_t quoted_end(std::string_view text, std::size_t at) {
  const char quote = text[at];
  for (++at; at < text.size() && text[at] != quote; ++at) at += text[at] == '\\' ? 1 : 0;
  return std::min(at + 1, text.size());
}

// Copies a literal in quotes that begins at an offset, and moves that behind it. False: none begins there.
bool take_quoted(std::string_view text, std::size_t& at, std::string& to) {
  if (text[at] != '"' && text[at] != '\'') return false;
  const std::size_t end = quoted_end(text, at);
  to += text.substr(at, end - at);
  at = end;
  return true;
}

// Lines that go on are put together, and comments are blanks.
std::string plain(std::string_view text) {
  std::string all;
  for (std::size_t i = 0; i < text.size();) {
    const char next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (text[i] == '\\' && next == '\n') {
      i += 2;
    } else if (text[i] == '/' && next == '*') {
      i = std::min(text.find("*/", i + 2), text.size() - 2) + 2;
      all += ' ';
    } else if (text[i] == '/' && next == '/') {
      i = std::min(text.find('\n', i), text.size());
    } else if (!take_quoted(text, i, all)) {
      all += text[i++];
    }
  }
  return all;
}

// The arguments of a call; at: behind its '(', and then behind its ')'. None: it does not end.
std::optional<std::vector<std::string>> arguments_at(std::string_view text, std::size_t& at) {
  std::vector<std::string> arguments(1);
  for (int depth = 1; at < text.size();) {
    if (take_quoted(text, at, arguments.back())) continue;
    const char c = text[at++];
    depth += (c == '(' ? 1 : 0) - (c == ')' ? 1 : 0);
    if (depth == 0) return arguments;
    if (c == ',' && depth == 1) {
      arguments.emplace_back();
    } else {
      arguments.back() += c;
    }
  }
  return std::nullopt;
}

}  // namespace

bool read_file(const std::string& path, std::string& text) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  if (file == nullptr) return false;
  char buffer[16384];
  for (std::size_t got = 1; got != 0 && text.size() < kMostBytes;) {
    got = std::fread(buffer, 1, sizeof buffer, file.get());
    text.append(buffer, got);
  }
  return std::ferror(file.get()) == 0;
}

Headers::Headers(std::vector<std::string> directories) : directories_(std::move(directories)) {
  const std::string compiler = "/usr/lib/gcc/x86_64-linux-gnu";  // whose stddef.h it is
  const std::unique_ptr<DIR, int (*)(DIR*)> versions(opendir(compiler.c_str()), &closedir);
  while (const dirent* const version = versions != nullptr ? readdir(versions.get()) : nullptr)
    directories_.push_back(fmt::format("{}/{}/include", compiler, version->d_name));
  for (const char* directory : {"/usr/local/include", "/usr/include/x86_64-linux-gnu", "/usr/include"})
    directories_.emplace_back(directory);
  constexpr std::pair<std::string_view, std::string_view> kOwn[] = {{"__x86_64__", "1"},
                                                                    {"__amd64__", "1"},
                                                                    {"__LP64__", "1"},
                                                                    {"_LP64", "1"},
                                                                    {"__linux__", "1"},
                                                                    {"__linux", "1"},
                                                                    {"__unix__", "1"},
                                                                    {"__GNUC__", "12"},
                                                                    {"__GNUC_MINOR__", "2"},
                                                                    {"__STDC__", "1"},
                                                                    {"__STDC_VERSION__", "201710L"},
                                                                    {"__CHAR_BIT__", "8"},
                                                                    {"__extension__", ""},
                                                                    {"__restrict", ""},
                                                                    {"__inline", "inline"},
                                                                    {"__const", "const"},
                                                                    {"__signed__", "signed"},
                                                                    {"__volatile__", "volatile"},
                                                                    {"__SIZE_TYPE__", "unsigned long"},
                                                                    {"__PTRDIFF_TYPE__", "long"},
                                                                    {"__WCHAR_TYPE__", "int"},
                                                                    {"__WINT_TYPE__", "unsigned"},
                                                                    {"__INT_MAX__", "0x7fffffff"},
                                                                    {"__LONG_MAX__", "0x7fffffffffffffffL"},
                                                                    {"__ORDER_LITTLE_ENDIAN__", "1234"},
                                                                    {"__ORDER_BIG_ENDIAN__", "4321"},
                                                                    {"__BYTE_ORDER__", "1234"}};
  for (const auto& [name, body] : kOwn) macros_[std::string(name)] = {false, true, {}, std::string(body)};
}

std::string Headers::find(const std::string& name, const std::string& from) const {
  const auto is_file = [](const std::string& path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  };
  if (name.starts_with('/')) return is_file(name) ? name : "";
  if (!from.empty() && is_file(from + '/' + name)) return from + '/' + name;
  for (const std::string& directory : directories_) {
    if (is_file(directory + '/' + name)) return directory + '/' + name;
  }
  return "";
}

bool Headers::include(const std::string& name, const std::string& from) {
  const std::string path = find(name, from);
  if (path.empty()) return false;
  read(path);
  return true;
}

void Headers::read(const std::string& path) {
  if (read_once_.contains(path) || depth_ >= kDeepest || text_.size() > kMostBytes) return;
  std::string raw;
  if (!read_file(path, raw)) return;
  const std::string whole = plain(raw);
  const std::string directory = path.substr(0, path.rfind('/'));
  ++depth_;
  std::vector<Condition> conditions;
  std::string pending;  // of lines without a directive: a call of a macro may go over several
  const auto is_on = [&] {
    return std::all_of(conditions.begin(), conditions.end(), [](const Condition& its) { return its.is_on; });
  };
  for (std::string_view rest = whole; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = trimmed(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.starts_with('#')) {
      if (is_on() && !line.empty()) pending.append(line).append(1, '\n');
      continue;
    }
    text_ += expand(std::exchange(pending, ""));
    if (trimmed(line.substr(1)) == "pragma once") read_once_.insert(path);
    directive(trimmed(line.substr(1)), directory, conditions);
  }
  text_ += expand(pending);
  --depth_;
}

void Headers::directive(std::string_view line, const std::string& directory, std::vector<Condition>& conditions) {
  const std::string_view word = word_at(line);
  const std::string_view rest = trimmed(line.substr(word.size()));
  const bool is_on = std::all_of(conditions.begin(), conditions.end(), [](const Condition& its) { return its.is_on; });
  if (word == "if" || word == "ifdef" || word == "ifndef") {
    bool value = is_on;
    if (is_on) value = word == "if" ? holds(rest) : macros_.contains(word_at(rest)) == (word == "ifdef");
    conditions.push_back({value, value || !is_on});
    return;
  }
  if (conditions.empty() && (word == "elif" || word == "else" || word == "endif")) return;
  if (word == "endif") return conditions.pop_back();
  if (word == "elif" || word == "else") {
    Condition& last = conditions.back();
    last.is_on = !last.was_on && (word == "else" || holds(rest));
    last.was_on |= last.is_on;
    return;
  }
  if (!is_on) return;
  if (word == "define") return define(rest);
  if (word == "undef") {
    macros_.erase(std::string(word_at(rest)));
  } else if (word == "include" || word == "include_next") {
    const std::string name = rest.starts_with('<') || rest.starts_with('"') ? std::string(rest) : expand(rest);
    const std::string_view its = trimmed(name);
    if (its.size() < 3) return;
    const std::size_t end = its.find(its[0] == '<' ? '>' : '"', 1);
    include(std::string(its.substr(1, end - 1)), its[0] == '<' ? "" : directory);  // what is not there defines nothing
  }
}

void Headers::define(std::string_view line) {
  const std::string name(word_at(line));
  line.remove_prefix(name.size());
  Macro macro;
  macro.is_function = line.starts_with('(');
  if (macro.is_function) {
    std::size_t at = 1;
    const auto parameters = arguments_at(line, at);
    if (!parameters) return;
    for (const std::string& parameter : *parameters) {
      const std::string_view its = trimmed(parameter);
      if (!its.empty()) macro.parameters.emplace_back(its == "..." ? "__VA_ARGS__" : its);
    }
    line.remove_prefix(at);
  }
  macro.body = trimmed(line);
  if (!name.empty()) macros_[name] = std::move(macro);
}

// #if: with `defined` and macros put in their places; names that are left are 0.
bool Headers::holds(std::string_view expression) {
  std::string text;
  for (std::size_t i = 0; i < expression.size();) {
    const std::string_view word = word_at(expression.substr(i));
    if (word != "defined" && word != "__has_include") {
      const std::size_t count = std::max<std::size_t>(word.size(), 1);
      text += expression.substr(i, count);
      i += count;
      continue;
    }
    i += word.size();
    const auto skip = [&] {
      while (i < expression.size() && is_blank(expression[i])) ++i;
    };
    skip();
    const bool has_parenthesis = i < expression.size() && expression[i] == '(';
    if (has_parenthesis) ++i;
    skip();
    const std::string_view name = word_at(expression.substr(i));
    text += word == "defined" && macros_.contains(name) ? '1' : '0';
    i = has_parenthesis ? std::min(expression.find(')', i), expression.size() - 1) + 1 : i + name.size();
  }
  return evaluate(expand(text), 0).value_or(0) != 0;
}

// The body with the arguments, as they were written but for #x and x##y.
std::string Headers::with_arguments(const Macro& macro, const std::vector<std::string>& arguments) {
  std::string text;
  const std::string_view body = macro.body;
  for (std::size_t i = 0; i < body.size();) {
    if (body.substr(i).starts_with("##")) {
      while (!text.empty() && is_blank(text.back())) text.pop_back();
      for (i += 2; i < body.size() && is_blank(body[i]);) ++i;
      continue;
    }
    if (take_quoted(body, i, text)) continue;
    const std::string_view word = word_at(body.substr(i));
    if (word.empty()) {
      text += body[i++];
      continue;
    }
    i += word.size();
    const auto found = std::find(macro.parameters.begin(), macro.parameters.end(), word);
    const auto index = static_cast<std::size_t>(found - macro.parameters.begin());
    if (found == macro.parameters.end()) {
      text += word;
    } else if (word == "__VA_ARGS__") {
      for (std::size_t k = index; k < arguments.size(); ++k) text += (k > index ? "," : "") + arguments[k];
    } else if (index < arguments.size()) {
      text += trimmed(arguments[index]);
    }
  }
  return text;
}

std::string Headers::expand(std::string_view text) {
  std::set<std::string, std::less<>> hidden;
  return expand(text, hidden, 0);
}

// hidden: macros that are being expanded: they stand for themselves.
std::string Headers::expand(std::string_view text, std::set<std::string, std::less<>>& hidden, int depth) {
  std::string all;
  for (std::size_t i = 0; i < text.size();) {
    if (take_quoted(text, i, all)) continue;
    const std::string_view word = word_at(text.substr(i));
    if (word.empty() || is_digit(word[0])) {
      const std::size_t count = std::max<std::size_t>(word.size(), 1);
      all += text.substr(i, count);
      i += count;
      continue;
    }
    i += word.size();
    const auto found = macros_.find(word);
    const bool is_left = found == macros_.end() || hidden.contains(word) || depth > kDeepest || all.size() > kMostBytes;
    std::size_t open = i;
    while (open < text.size() && is_blank(text[open])) ++open;
    const bool is_call = open < text.size() && text[open] == '(';
    if (is_left || (found->second.is_function && !is_call)) {
      all += word;
      continue;
    }
    std::string body = found->second.body;
    if (found->second.is_function) {
      std::size_t at = open + 1;
      auto arguments = arguments_at(text, at);
      if (!arguments) {
        all += word;
        continue;
      }
      for (std::string& argument : *arguments) argument = expand(argument, hidden, depth + 1);
      body = with_arguments(found->second, *arguments);
      i = at;
    }
    const auto place = hidden.emplace(word).first;
    all += expand(body, hidden, depth + 1);
    hidden.erase(place);
  }
  return all;
}

std::string Headers::definitions() {
  std::string all = types();  // first: it learns the enums
  return all + constants();
}

// Names for numbers and texts.
std::string Headers::constants() {
  std::string all;
  for (const auto& [name, macro] : macros_) {
    if (macro.is_function || macro.is_own || macro.body.empty() || name.starts_with("__")) continue;
    const std::string body = expand(macro.body);
    const std::string_view its = trimmed(body);
    if (its.starts_with('"') && quoted_end(its, 0) == its.size()) {
      all += fmt::format("#define {} {}\n", name, its);
    } else if (const auto value = evaluate(its, std::nullopt)) {
      all += *value < 0 ? fmt::format("#define {} -{}\n", name, 0 - static_cast<std::uint64_t>(*value))
                        : fmt::format("#define {} {}\n", name, *value);
    }
  }
  return all;
}

namespace {
std::string with_sizes(std::string_view declaration) {
  std::string all;
  for (std::size_t i = 0; i < declaration.size(); ++i) {
    const char c = declaration[i];
    all += is_blank(c) ? ' ' : c;
    if (c != '[') continue;
    const std::size_t close = declaration.find(']', i);
    if (close == std::string_view::npos) continue;
    const auto size = evaluate(declaration.substr(i + 1, close - i - 1), std::nullopt);
    if (!size || *size < 0) continue;
    all += fmt::format("{}", *size);
    i = close - 1;
  }
  return all;
}
}  // namespace

// The declarations of types that a program can say, too.
std::string Headers::types() {
  std::string all;
  const std::string_view text = text_;
  int depth = 0;
  for (std::size_t i = 0, begin = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      i = quoted_end(text, i) - 1;
      continue;
    }
    depth += (c == '{' || c == '(' ? 1 : 0) - (c == '}' || c == ')' ? 1 : 0);
    const std::string_view declaration = trimmed(text.substr(begin, i - begin));
    const std::string_view word = word_at(declaration);
    const bool is_type = word == "typedef" || word == "struct" || word == "union" || word == "enum";
    const bool is_body = c == '}' && depth == 0 && !is_type;  // of a function, or of extern "C"
    if (!is_body && (c != ';' || depth != 0)) continue;
    begin = i + 1;
    if (!is_type || c != ';' || (word != "typedef" && declaration.find('{') == std::string_view::npos)) continue;
    const std::string one = with_sizes(declaration);
    if (is_known(one)) all += one + ";\n";
  }
  return all;
}

// Whether a program's C part can have it, and all that it is made of is there.
bool Headers::is_known(std::string_view declaration) {
  const std::size_t before = definitions_.structs.size();
  language::DefinitionParser parser(declaration, {}, definitions_);
  bool is_good = parser.parse() && parser.end().offset >= declaration.size();
  for (std::size_t i = before; i < definitions_.structs.size(); ++i) {
    for (const language::Field& field : definitions_.structs[i].fields) {
      const std::string base = field.type.substr(0, field.type.find_first_of("*["));
      const bool is_struct = base.starts_with("struct ") || base.starts_with("union ");
      const auto is_it = [&](const language::StructDefinition& known) { return known.name == base; };
      const bool is_pointer = field.type.find('*') != std::string::npos;
      is_good &=
          !is_struct || is_pointer || std::any_of(definitions_.structs.begin(), definitions_.structs.end(), is_it);
    }
  }
  if (!is_good) definitions_.structs.resize(before);
  return is_good;
}

}  // namespace ubp::program
