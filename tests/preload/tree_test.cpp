// `ubp run --tree` and --functions: calls as a tree, in the order in which they were made, and their functions' times.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::tree_test {
namespace {

using TreeWords = std::vector<std::string>;

constexpr const char* kTreeCalls =
    "call:main; call:outer; call:inner; call:leaf; call:sleeps; call:recurses; call:comes_back; call:jumps_out; call:ends";

Outcome run_tree(TreeWords options, const std::string& program, const TreeWords& command, Environment more = {}) {
  const std::string ubp = command_path();
  TreeWords argv{ubp, "run"};
  argv.insert(argv.end(), options.begin(), options.end());
  argv.insert(argv.end(), {"-e", program, "--"});
  argv.insert(argv.end(), command.begin(), command.end());
  return run({.argv = argv, .env = std::move(more), .preload = false, .timeout_s = 100});
}
Outcome tree_of(TreeWords options, const std::string& mode, long times = 1, Environment more = {}) {
  return run_tree(std::move(options), kTreeCalls, {fixture("fx_calls"), mode, std::to_string(times)}, std::move(more));
}

// Its sleep is longer than others may hold the processor.
TreeWords long_tree() { return {fixture("fx_calls"), "tree", "1", "400"}; }

// What stands behind the bars.
std::string shape_of(const std::string& text) {
  std::string shape;
  for (const std::string& line : lines(text)) {
    const std::size_t bar = line.find(" | ");
    if (bar != std::string::npos) shape += line.substr(bar + 3) + '\n';
  }
  return shape;
}

int count_whole_lines(const std::string& text, const std::string& line) {
  int count = 0;
  for (const std::string& its : lines(text)) count += its == line;
  return count;
}

// The row of a function: its words.
TreeWords function_row(const std::string& text, const std::string& function) {
  for (const std::string& line : lines(text)) {
    if (!line.ends_with("  " + function)) continue;
    TreeWords words;
    for (std::size_t at = 0; (at = line.find_first_not_of(' ', at)) != std::string::npos;) {
      const std::size_t end = std::min(line.find(' ', at), line.size());
      words.push_back(line.substr(at, end - at));
      at = end;
    }
    return words;
  }
  return {};
}

}  // namespace

TEST_CASE("tree_shape: calls, recursion, what longjmp leaves, and what has not returned") {
  const Outcome outcome = tree_of({"--tree"}, "tree");
  CAPTURE(outcome.err);
  CHECK(outcome.end() == "exit 3");
  CHECK(outcome.out.find("# DURATION     TID     FUNCTION\n") != std::string::npos);
  CHECK(shape_of(outcome.out) ==
        "main() {\n"
        "  outer() {\n"
        "    inner() {\n"
        "      leaf();\n"
        "      leaf();\n"
        "    } /* inner */\n"
        "    sleeps();\n"
        "    leaf();\n"
        "  } /* outer */\n"
        "  recurses() {\n"
        "    leaf();\n"
        "    recurses() {\n"
        "      leaf();\n"
        "      recurses() {\n"
        "        leaf();\n"
        "      } /* recurses */\n"
        "    } /* recurses */\n"
        "  } /* recurses */\n"
        "  comes_back() {\n"
        "    jumps_out() {\n"
        "      leaf();\n"
        "      jumps_out() {\n"
        "        leaf();\n"
        "      } /* jumps_out was left */\n"
        "    } /* jumps_out was left */\n"
        "    leaf();\n"
        "  } /* comes_back */\n"
        "  ends() {\n"
        "    leaf();\n"
        "  } /* ends has not returned */\n"
        "} /* main has not returned */\n");
}

TEST_CASE("tree_depth: no deeper than that") {
  const Outcome outcome = tree_of({"--tree=2"}, "tree");
  CHECK(shape_of(outcome.out) ==
        "main() {\n"
        "  outer();\n"
        "  recurses();\n"
        "  comes_back();\n"
        "  ends(); /* has not returned */\n"
        "} /* main has not returned */\n");
}

TEST_CASE("tree_min: what takes long, and around it") {
  const Outcome outcome = run_tree({"--tree", "--min", "300ms"}, kTreeCalls, long_tree());
  CHECK(shape_of(outcome.out)
            .starts_with("main() {\n"
                         "  outer() {\n"
                         "    sleeps();\n"
                         "  } /* outer */\n"));
  for (const std::string& line : lines(outcome.out)) {
    if (line.find("sleeps") != std::string::npos) CHECK(line.find(" ms [") != std::string::npos);
  }
}

TEST_CASE("tree_values: registers of arguments, and what calls return") {
  const Outcome outcome = tree_of({"--tree", "-v"}, "tree");
  const std::string text = shape_of(outcome.out);
  CHECK(text.find("  outer(1, 2, ") != std::string::npos);
  CHECK(text.find("      leaf(1, ") != std::string::npos);
  CHECK(text.find(") = 78;\n  } = 85 /* outer */\n") != std::string::npos);
}

TEST_CASE("tree_threads: each thread has its own tree") {
  constexpr long kTimes = 20;
  const Outcome outcome =
      run_tree({"--tree"}, "call:recurses; call:leaf", {fixture("fx_calls"), "threads", std::to_string(kTimes)});
  CAPTURE(outcome.err);
  std::map<std::string, std::string> trees;
  for (const std::string& line : lines(outcome.out)) {
    if (line.find(" | ") != std::string::npos)
      trees[line.substr(line.find('['), line.find(']') - line.find('['))] += line + '\n';
  }
  CHECK(trees.size() == 4);
  std::string once;
  for (std::size_t depth = 0; depth <= 10; ++depth)
    once += std::string(2 * depth, ' ') + "recurses() {\n" + std::string(2 * depth + 2, ' ') + "leaf();\n";
  for (std::size_t depth = 11; depth-- != 0;) once += std::string(2 * depth, ' ') + "} /* recurses */\n";
  std::string all;
  for (long i = 0; i < kTimes; ++i) all += once;
  for (const auto& [task, text] : trees) CHECK(shape_of(text) == all);
}

TEST_CASE("tree_lost: where it comes too fast that is said; with UBP_FULL=block nothing is lost") {
  constexpr long kTimes = 300'000;  // 64 MiB hold some 700,000 events
  const Outcome whole = tree_of({"--tree"}, "many", kTimes, {{"UBP_FULL", "block"}});
  CHECK(whole.end() == "exit 0");
  CHECK(count_whole_lines(shape_of(whole.out), "  leaf();") == kTimes);
  CHECK(whole.err.find("Lost ") == std::string::npos);
  const Outcome partial = tree_of({"--tree"}, "many", kTimes);
  CHECK(partial.end() == "exit 0");
  const int seen = count_whole_lines(shape_of(partial.out), "  leaf();");
  CHECK(seen <= kTimes);
  CHECK((seen == kTimes) == (partial.err.find("Lost ") == std::string::npos));
}

TEST_CASE("tree_functions: calls, and their times; alone and with the tree, sorted by any column") {
  const Outcome outcome = run_tree({"--functions", "--sort=calls"}, kTreeCalls, long_tree());
  CAPTURE(outcome.out);
  CHECK(shape_of(outcome.out).empty());
  CHECK(outcome.out.find("@ubp") == std::string::npos);
  const TreeWords leaf = function_row(outcome.out, "leaf"), sleeps = function_row(outcome.out, "sleeps"),
                  outer = function_row(outcome.out, "outer");
  REQUIRE(leaf.size() == 10);
  CHECK(leaf[4] == "10");
  CHECK(function_row(outcome.out, "recurses")[4] == "3");
  REQUIRE(sleeps.size() == 10);
  CHECK(sleeps[1] == "ms");
  CHECK(sleeps[0] == sleeps[2]);  // all of it is its own
  CHECK(outer[1] == "ms");
  const auto ms = [](const TreeWords& row, std::size_t at) {
    return std::stod(row[at]) * (row[at + 1] == "ms" ? 1 : row[at + 1] == "us" ? 0.001 : 1000);
  };
  CHECK(ms(outer, 0) - ms(outer, 2) >= 399);
  CHECK(function_row(outcome.out, "jumps_out").empty());  // it never returned
  CHECK(outcome.out.find("  leaf\n") < outcome.out.find("  recurses\n"));
  const Outcome both = run_tree({"--tree", "--functions"}, kTreeCalls, long_tree());
  CHECK(count_whole_lines(shape_of(both.out), "    leaf();") > 0);
  CHECK(both.out.find("  outer\n") < both.out.find("  leaf\n"));  // by the total
}

TEST_CASE("tree_recursion: what a function takes within its own calls is in its total once") {
  constexpr int kTimes = 200, kCalls = 11;  // recurses(10), which calls leaf() each time
  const Outcome outcome = run_tree({"--functions", "-f", "json"}, "call:main; call:recurses; call:leaf",
                                   {fixture("fx_calls"), "again", std::to_string(kTimes)});
  CAPTURE(outcome.out);
  CAPTURE(outcome.err);
  std::map<std::string, nlohmann::json> functions;
  for (const std::string& line : lines(outcome.out)) {
    const nlohmann::json row = nlohmann::json::parse(line);
    if (row["type"] == "function") functions[row["data"]["func"]] = row["data"];
  }
  REQUIRE(functions.size() == 3);
  nlohmann::json &recurses = functions["recurses"], &leaf = functions["leaf"];
  CHECK(recurses["calls"] == kTimes * kCalls);
  CHECK(leaf["calls"] == kTimes * kCalls);
  CHECK(leaf["total"] == leaf["self"]);
  // To the nanosecond: clock readings are used on both sides.
  CHECK(recurses["total"].get<std::uint64_t>() ==
        recurses["self"].get<std::uint64_t>() + leaf["total"].get<std::uint64_t>());
  CHECK(recurses["total"] <= functions["main"]["total"]);
  const Outcome which = run_tree({}, "call:recurses { @[outermost] = count() }", {fixture("fx_calls"), "values"});
  CHECK(has_line(which.out, "@[1]: 1"));
  CHECK(has_line(which.out, "@[0]: 5"));
}

TEST_CASE("tree_net: it is the setting") {
  const std::string program = "begin { print(config().count_probe_time ? \"all\" : \"net\") } call:leaf";
  CHECK(has_line(run_tree({"--functions"}, program, {fixture("fx_calls"), "tree"}).out, "all"));
  CHECK(has_line(run_tree({"--functions", "--net"}, program, {fixture("fx_calls"), "tree"}).out, "net"));
}

TEST_CASE("tree_json: a line for each call") {
  const Outcome outcome = tree_of({"--tree", "--functions", "-f", "json"}, "tree");
  std::map<std::string, int> returned, open, functions;
  for (const std::string& line : lines(outcome.out)) {
    const nlohmann::json row = nlohmann::json::parse(line);
    if (row["type"] == "call" && row["data"]["elapsed"].is_null()) ++open[row["data"]["func"]];
    if (row["type"] == "call" && !row["data"]["elapsed"].is_null()) ++returned[row["data"]["func"]];
    if (row["type"] == "function") functions[row["data"]["func"]] = row["data"]["calls"];
  }
  CHECK(returned == std::map<std::string, int>{
                        {"comes_back", 1}, {"inner", 1}, {"leaf", 10}, {"outer", 1}, {"recurses", 3}, {"sleeps", 1}});
  CHECK(open == std::map<std::string, int>{{"ends", 1}, {"jumps_out", 2}, {"main", 1}});
  CHECK(functions == returned);
}

TEST_CASE("tree_block: tree() in a program, also preloaded alone, beside others") {
  const Outcome probed =
      run_probed({fixture("fx_calls"), "values"},
                 "call:recurses, call:leaf { tree(2); @[func] = count() } call:leaf { @n = count() }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(count_whole_lines(shape_of(probed.err), "  recurses();") == 1);
  CHECK(count_whole_lines(shape_of(probed.err), "recurses() {") == 1);
  CHECK(count_whole_lines(shape_of(probed.err), "leaf();") == 3);
  CHECK(count_whole_lines(probed.err, "@[leaf]: 9") == 1);
  CHECK(count_whole_lines(probed.err, "@n: 9") == 1);
}

TEST_CASE("tree_refused: what is no tree, and options that are none") {
  const auto error = [](const TreeWords& options, const std::string& program) {
    const Outcome outcome = run_tree(options, program, {fixture("fx_calls"), "values"});
    CHECK(outcome.end() == "exit 1");
    CHECK(outcome.out.empty());
    return outcome.err;
  };
  CHECK(error({"--tree"}, "call:leaf { @ = count() }").find("targets of call: that have no block, and there is none") !=
        std::string::npos);
  CHECK(error({"--functions"}, "leaf").find("targets of call: that have no block") != std::string::npos);
  CHECK(error({"--tree=0"}, "call:leaf").find("a number from 1 on") != std::string::npos);
  CHECK(error({"--tree", "--min", "5"}, "call:leaf").find("expected a time") != std::string::npos);
  CHECK(error({"--min", "5us"}, "call:leaf { @ = count() }").find("--min is of --tree") != std::string::npos);
  CHECK(error({"--functions", "--sort", "name"}, "call:leaf").find("expected total, self") != std::string::npos);
  CHECK(error({}, "call:leaf /retval > 3/ { tree() }").find("no filter and no condition") != std::string::npos);
  CHECK(error({}, "call:leaf { if (retval > 3) { tree() } }").find("no filter and no condition") != std::string::npos);
  CHECK(error({}, "leaf { tree() }").find("tree() can only be used with 'call' probes") != std::string::npos);
}

}  // namespace ubp::test::tree_test
