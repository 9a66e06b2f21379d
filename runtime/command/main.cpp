// ubp: the command.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/command/compiled.h"
#include "runtime/command/debug_types.h"
#include "runtime/command/launch.h"
#include "runtime/command/list.h"
#include "runtime/command/run.h"
#include "runtime/command/source.h"

namespace ubp::command {
namespace {

std::string whole(std::istream& stream) {
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

// The program that -e gives, or else the first of the other words: a file, or "-". False, after saying why: there is
// none.
bool take_program(const std::vector<std::string>& given, std::vector<std::string>& words, RunOptions& options) {
  options.name = "stdin";
  if (!given.empty()) {
    for (const std::string& program : given) options.text += (options.text.empty() ? "" : "\n") + program;
    return true;
  }
  if (words.empty()) {
    say_error("no program: give one with -e, or a file");
    return false;
  }
  const std::string path = words.front();
  words.erase(words.begin());
  if (path == "-") {
    options.text = whole(std::cin);
    return true;
  }
  std::ifstream file(path);
  if (!file) {
    say_error(fmt::format("failed to open file '{}': {}", path, strerrordesc_np(errno)));
    return false;
  }
  options.name = path;
  options.text = whole(file);
  if (const std::size_t slash = path.rfind('/'); slash != std::string::npos)
    options.sources.directory = path.substr(0, std::max<std::size_t>(slash, 1));
  return true;
}

// False, after saying what is wrong.
bool take_tree_options(const std::string& least, const std::string& order, bool has_functions, RunOptions& options) {
  const bool is_depth = options.tree.find_first_not_of("0123456789") == std::string::npos &&
                        options.tree.find_first_not_of('0') != std::string::npos && options.tree.size() < 20;
  if (!options.tree.empty() && !is_depth) {
    say_error(fmt::format("--tree={}: how deep it goes is a number from 1 on", options.tree));
    return false;
  }
  if (!least.empty()) {
    constexpr std::pair<std::string_view, std::uint64_t> kUnits[] = {
        {"ns", 1}, {"us", 1000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(least.data(), least.data() + least.size(), number);
    const std::string_view unit(end, static_cast<std::size_t>(least.data() + least.size() - end));
    const auto* const its =
        std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& known) { return known.first == unit; });
    if (error != std::errc{} || its == std::end(kUnits) ||
        __builtin_mul_overflow(number, its->second, &options.least_ns)) {
      say_error(fmt::format("--min {}: expected a time", least), "10us, 1ms, 2s, 500ns");
      return false;
    }
    if (options.tree.empty()) {
      say_error("--min is of --tree", "ubp run --tree --min 10us -e 'call:*' -- COMMAND");
      return false;
    }
  }
  constexpr std::string_view kOrders[] = {"total", "self", "calls", "avg", "max"};
  if (!order.empty() && std::find(std::begin(kOrders), std::end(kOrders), order) == std::end(kOrders)) {
    say_error(fmt::format("--sort {}: expected total, self, calls, avg or max", order));
    return false;
  }
  if (has_functions || !order.empty()) options.functions = order.empty() ? "total" : order;
  return true;
}

int run_command(const std::vector<std::string>& arguments, const std::vector<std::string>& command, bool checks) {
  CLI::App app{"Runs a command under a program in bpftrace's language.", "ubp run"};
  RunOptions options;
  options.command = command;
  std::vector<std::string> programs;
  std::string format = "text";
  bool has_no_warnings = false, has_functions = false;
  app.add_option("-e", programs, "a program; several are one")->expected(1, -1)->allow_extra_args(false);
  app.add_option("-o", options.output, "the file that output goes to");
  app.add_option("-f", format, "text or json");
  app.add_flag("-q,--quiet", options.is_quiet, "say nothing but what the program prints");
  app.add_flag("-v", options.says_counts, "say at the end what every probe has counted");
  app.add_flag("-k", options.says_reads, "warn where a read fails");
  app.add_flag("--unsafe", options.is_unsafe, "allow what changes the command");
  app.add_flag("--no-warnings", has_no_warnings, "no warnings");
  app.add_option("-I", options.sources.directories, "where headers are looked for first")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_option("--include", options.sources.headers, "a header that is included first")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_option("--debuginfo", options.debug_directories, "where debug files are looked for first")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_flag("--dry-run", options.is_dry, "check everything, and start nothing");
  app.add_option("--tree", options.tree,
                 "what call: targets without a block see, as a tree of calls; --tree=N: how deep");
  std::string least, order;
  app.add_option("--min", least, "the least time that a call in the tree takes: 10us, 1ms");
  app.add_flag("--functions", has_functions, "at the end, the functions that call: targets without a block have seen");
  app.add_option("--sort", order, "the order of --functions: total, self, calls, avg or max");
  app.add_flag("--net", options.is_net, "calls' times without what their probes take");
  app.add_flag("--follow", options.follows, "every process that the command leads to, not only the first that fits");
  app.allow_extras();
  app.set_help_flag();  // --help is the program's where there is one
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    // Its value stands behind a "=", or nowhere: the next word may be the program's file.
    std::replace(reversed.begin(), reversed.end(), std::string("--tree"), fmt::format("--tree={}", INT64_MAX));
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  if (format != "text" && format != "json") {
    say_error(fmt::format("Invalid output format \"{}\"", format), "Valid formats: 'text', 'json'");
    return EXIT_FAILURE;
  }
  if (!take_tree_options(least, order, has_functions, options)) return EXIT_FAILURE;
  options.format = format == "json" ? program::Format::kJson : program::Format::kText;
  options.says_warnings = !has_no_warnings;
  options.parameters = app.remaining();
  const auto is_help = [](const std::string& word) { return word == "--help" || word == "-h"; };
  if (programs.empty() && !options.parameters.empty() && is_help(options.parameters.front())) {
    std::fputs(app.help().c_str(), stdout);
    return EXIT_SUCCESS;
  }
  if (!take_program(programs, options.parameters, options)) return EXIT_FAILURE;
  if (options.command.empty()) {
    say_error("no command: give one behind --", "ubp run -e 'libc:malloc { @ = count() }' -- ls");
    return EXIT_FAILURE;
  }
  options.checks = checks;
  options.is_quiet |= checks;
  return run(options);
}

int list_command(const std::vector<std::string>& arguments) {
  CLI::App app{"Lists what can be probed in ELF files.", "ubp list"};
  ListOptions options;
  std::vector<std::string> words;
  app.add_option("-e", options.programs, "a program, whose attach points are listed")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_flag("-v", options.is_verbose, "with arguments and their types");
  app.add_option("--debuginfo", options.debug_directories, "where debug files are looked for first")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_option("what", words, "uprobe:PATH:FUNCTION, usdt:PATH:PROVIDER:NAME, an ELF file, or a program's file");
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  options.name = "stdin";
  for (const std::string& word : words) {
    if (!options.programs.empty()) {  // those of the program
      options.parameters.push_back(word);
      continue;
    }
    std::ifstream file;
    if (word.find(':') == std::string::npos && std::filesystem::is_regular_file(word)) file.open(word);
    if (is_elf(word)) {
      options.patterns.push_back(fmt::format("*:{}{}:*", word.find('/') == std::string::npos ? "./" : "", word));
    } else if (file.is_open()) {
      options.name = word;
      options.programs.push_back(whole(file));
    } else {
      options.patterns.push_back(word);
    }
  }
  if (options.programs.empty() && options.patterns.empty()) {
    say_error("nothing to list: give a pattern, a file, or a program with -e", "ubp list 'uprobe:./app:*'");
    return EXIT_FAILURE;
  }
  return list(options);
}

int source_command(const std::string& what, const std::vector<std::string>& arguments) {
  const bool is_lines = what == "lines";
  CLI::App app{
      is_lines ? "Lists the source lines that can be probed." : "Lists the variables that can be seen at a place.",
      "ubp " + what};
  SourceOptions options;
  app.add_option("--debuginfo", options.debug_directories, "where debug files are looked for first")
      ->expected(1, -1)
      ->allow_extra_args(false);
  app.add_option("targets", options.targets, "PATH:FUNCTION, PATH@FILE.c, PATH@FILE.c:LINE")->required();
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return is_lines ? lines(options) : vars(options);
}

// ubp types NAME [MODULE]... -- [PARAMETER]..., for libubp.so: a program's text on standard input, and the same on
// standard output with what debug information says before it. The modules are those of its process, the executable
// first.
int types_command(const std::vector<std::string>& arguments, const std::vector<std::string>& parameters) {
  if (arguments.empty()) return kFailed;
  std::string text = whole(std::cin);
  std::vector<program::Diagnostic> diagnostics;
  const DebugOptions options{{arguments.begin() + 1, arguments.end()}, {}};
  text = with_debug_types(arguments[0], std::move(text), parameters, options, diagnostics);
  for (const program::Diagnostic& diagnostic : diagnostics) say({arguments[0], text}, diagnostic);
  std::cout << text << std::flush;
  return diagnostics.empty() ? EXIT_SUCCESS : EXIT_FAILURE;
}

// ubp inlined NAME|GLOB "quoted"|"" [MODULE]..., for libubp.so: how many inlined instances there are.
int inlined_command(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) return kFailed;
  std::size_t count = 0;
  for (std::size_t i = 2; i < arguments.size(); ++i)
    count += inlined_instances(arguments[i], {arguments[0], !arguments[1].empty()}, {});
  std::cout << count << std::flush;
  return EXIT_SUCCESS;
}

constexpr char kUse[] =
    "USAGE:\n"
    "    ubp run [-e PROGRAM]... [FILE] [-o FILE] [-f text|json] [-q] [-k] [--tree[=DEPTH]] [--functions] [PARAMETERS] -- COMMAND ARGUMENTS...\n"
    "    ubp check -e PROGRAM -- COMMAND ARGUMENTS...\n"
    "    ubp list [-e PROGRAM [PARAMETERS]] [uprobe:PATH:FUNCTION | usdt:PATH:PROVIDER:NAME | FILE]...\n"
    "    ubp lines PATH:FUNCTION | PATH@FILE.c...\n"
    "    ubp vars PATH:FUNCTION | PATH@FILE.c:LINE...\n"
    "ubp(1) says more.\n";

int command(int count, char** words) {
  std::vector<std::string> arguments(words + 1, words + count), command;
  const auto apart = std::find(arguments.begin(), arguments.end(), "--");
  if (apart != arguments.end()) {
    command.assign(apart + 1, arguments.end());
    arguments.erase(apart, arguments.end());
  }
  const std::string what = arguments.empty() ? "" : arguments.front();
  if (!arguments.empty()) arguments.erase(arguments.begin());
  if (what == "run" || what == "check") return run_command(arguments, command, what == "check");
  if (what == "types") return types_command(arguments, command);
  if (what == "lines" || what == "vars") return source_command(what, arguments);
  if (what == "inlined") return inlined_command(arguments);
  if (what == "list") return list_command(arguments);
  const bool is_asked = what == "-h" || what == "--help";
  std::fputs(kUse, is_asked ? stdout : stderr);
  return is_asked ? EXIT_SUCCESS : kFailed;
}

}  // namespace
}  // namespace ubp::command

int main(int count, char** words) {
  try {
    return ubp::command::command(count, words);
  } catch (const std::exception& error) {
    std::fputs("ERROR: ", stderr);
    std::fputs(error.what(), stderr);
    std::fputs("\n", stderr);
    return ubp::command::kFailed;
  }
}
