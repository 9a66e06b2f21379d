// Trees of calls, made of events: who is shown where, how long it took, and what did not return.
#include "runtime/output/call_tree.h"

#include <doctest/doctest.h>

namespace ubp::program {
namespace {

constexpr std::uint64_t kTask = 71;
constexpr std::string_view kHead = "# DURATION     TID     FUNCTION\n";

struct Tree {
  CallTree tree;
  std::string text;

  explicit Tree(const TreeOptions& options = {}) : tree(options) {}
  // A call is known by its beginning, which is also its number here.
  void enter(std::string_view name, std::uint64_t begin, std::uint64_t depth, std::uint64_t task = kTask) {
    text += tree.add(
        7, {CallEvent::kEntered, begin, depth, task, {begin, 2, 0xffffffff, ~std::uint64_t{0}, 1 << 20, 0}}, name);
  }
  void leave(std::string_view name, std::uint64_t begin, std::uint64_t depth, std::uint64_t elapsed,
             std::uint64_t task = kTask) {
    text += tree.add(7, {CallEvent::kReturned, begin, depth, task, {elapsed, elapsed / 2, 5, 0, 0, 0}}, name);
  }
  std::string all() {
    text += tree.finish();
    return text.starts_with(kHead) ? text.substr(kHead.size()) : text;
  }
};

}  // namespace

TEST_CASE("call tree: calls within each other; one without others is one line") {
  Tree tree;
  tree.enter("main", 1, 0);
  tree.enter("leaf", 2, 1);
  tree.leave("leaf", 2, 1, 1057);
  tree.enter("outer", 3, 1);
  tree.enter("leaf", 4, 2);
  tree.leave("leaf", 4, 2, 90);
  tree.leave("outer", 3, 1, 12'345'678);
  tree.leave("main", 1, 0, 2'000'000'000);
  CHECK(tree.all() ==
        "           [    71] | main() {\n"
        "  1.057 us [    71] |   leaf();\n"
        "           [    71] |   outer() {\n"
        "  0.090 us [    71] |     leaf();\n"
        " 12.345 ms [    71] |   } /* outer */\n"
        "  2.000  s [    71] | } /* main */\n");
}

TEST_CASE("call tree: what was left, and what has not returned") {
  Tree tree;
  tree.enter("main", 1, 0);
  tree.enter("catches", 2, 1);
  tree.enter("throws", 3, 2);
  tree.enter("throws", 4, 3);
  tree.leave("catches", 2, 1, 5000);
  tree.enter("gone", 5, 1);
  tree.enter("ends", 6, 1);
  CHECK(tree.all() ==
        "           [    71] | main() {\n"
        "           [    71] |   catches() {\n"
        "           [    71] |     throws() {\n"
        "           [    71] |       throws(); /* was left */\n"
        "           [    71] |     } /* throws was left */\n"
        "  5.000 us [    71] |   } /* catches */\n"
        "           [    71] |   gone(); /* was left */\n"
        "           [    71] |   ends(); /* has not returned */\n"
        "           [    71] | } /* main has not returned */\n");
}

TEST_CASE("call tree: tasks have trees of their own") {
  Tree tree;
  tree.enter("a", 1, 0, 1);
  tree.enter("b", 1, 0, 2);
  tree.enter("c", 2, 1, 1);
  tree.leave("b", 1, 0, 1000, 2);
  tree.leave("c", 2, 1, 1000, 1);
  tree.leave("a", 1, 0, 3000, 1);
  CHECK(tree.all() ==
        "           [     1] | a() {\n"
        "  1.000 us [     2] | b();\n"
        "  1.000 us [     1] |   c();\n"
        "  3.000 us [     1] | } /* a */\n");
}

TEST_CASE("call tree: what takes less is not shown, and those around what is are") {
  Tree tree({.least_ns = 10'000});
  tree.enter("main", 1, 0);
  tree.enter("quick", 2, 1);
  tree.enter("leaf", 3, 2);
  tree.leave("leaf", 3, 2, 100);
  tree.leave("quick", 2, 1, 9'999);
  CHECK(tree.text.empty());
  tree.enter("slow", 4, 1);
  tree.enter("leaf", 5, 2);
  tree.leave("leaf", 5, 2, 10'000);
  tree.leave("slow", 4, 1, 20'000);
  tree.enter("gone", 6, 1);
  tree.leave("main", 1, 0, 50'000);
  CHECK(tree.all() ==
        "           [    71] | main() {\n"
        "           [    71] |   slow() {\n"
        " 10.000 us [    71] |     leaf();\n"
        " 20.000 us [    71] |   } /* slow */\n"
        " 50.000 us [    71] | } /* main */\n");
}

TEST_CASE("call tree: where events were lost calls are in their places still") {
  Tree tree;
  tree.enter("main", 1, 0);
  tree.leave("entry_lost", 2, 1, 1000);
  tree.enter("return_lost", 3, 1);
  tree.enter("leaf", 4, 2);
  tree.leave("leaf", 4, 2, 1000);
  tree.enter("next", 5, 1);
  tree.leave("next", 5, 1, 2000);
  tree.leave("main", 1, 0, 9000);
  tree.leave("before", 9, 4, 1000);  // that began before anything was told
  CHECK(tree.all() ==
        "           [    71] | main() {\n"
        "  1.000 us [    71] |   entry_lost();\n"
        "           [    71] |   return_lost() {\n"
        "  1.000 us [    71] |     leaf();\n"
        "           [    71] |   } /* return_lost was left */\n"
        "  2.000 us [    71] |   next();\n"
        "  9.000 us [    71] | } /* main */\n"
        "  1.000 us [    71] |         before();\n");
}

TEST_CASE("call tree: registers of arguments, and what is returned") {
  Tree tree({.says_values = true});
  tree.enter("main", 1, 0);
  tree.enter("leaf", 2, 1);
  tree.leave("leaf", 2, 1, 1000);
  tree.leave("main", 1, 0, 2000);
  CHECK(tree.all() ==
        "           [    71] | main(1, 2, -1, -1, 0x100000, 0) {\n"
        "  1.000 us [    71] |   leaf(2, 2, -1, -1, 0x100000, 0) = 5;\n"
        "  2.000 us [    71] | } = 5 /* main */\n");
}

TEST_CASE("call tree: as JSON, an object for each call") {
  Tree tree({.is_json = true});
  tree.enter("main", 1, 0);
  tree.enter("leaf", 2, 1);
  tree.leave("leaf", 2, 1, 1000);
  CHECK(tree.all() ==
        "{\"type\": \"call\", \"data\": {\"func\": \"leaf\", \"pid\": 7, \"tid\": 71, \"depth\": 1, \"elapsed\": 1000, "
        "\"self\": 500, \"retval\": 5}}\n"
        "{\"type\": \"call\", \"data\": {\"func\": \"main\", \"pid\": 7, \"tid\": 71, \"depth\": 0, \"elapsed\": null, "
        "\"end\": \"has not returned\"}}\n");
}

TEST_CASE("call tree: durations") {
  CHECK(duration_text(0) == "  0.000 us");
  CHECK(duration_text(999'999) == "999.999 us");
  CHECK(duration_text(1'000'000) == "  1.000 ms");
  CHECK(duration_text(59'999'000'000) == " 59.999  s");
  CHECK(duration_text(61'000'000'000) == "  1.001  m");
}

}  // namespace ubp::program
