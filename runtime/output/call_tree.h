// A tree of calls as people know it from uftrace and ftrace: made of the events of tree(), line by line as they come.
//
// Each task has its own; lines of several tasks stand between each other. A call within which nothing is shown is one
// line, once it has returned; others have one where the first call in them is shown, and one where they return. What
// is shown where events were lost, or calls were left, says so, or is less; it is never another order.
//
// Context: readers. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/helpers/call_event.h"

namespace ubp::program {

struct TreeOptions {
  std::uint64_t least_ns = 0;  // what took less is not shown
  bool says_values = false;    // the registers of arguments, and what is returned
  bool is_json = false;        // an object for each call, when it has returned
};

class CallTree {
 public:
  explicit CallTree(const TreeOptions& options) : options_(options) {}

  // An event of a task of this process. Returns the lines that it makes.
  std::string add(std::uint32_t process, const CallEvent& event, std::string_view name);
  // The lines of what has not returned. Then nothing is open.
  std::string finish();
  void restart() { tasks_.clear(); }

 private:
  struct Open {
    std::string name;
    std::uint64_t begin, depth;
    std::uint64_t arguments[6];
    bool is_shown;
  };
  struct Task {
    std::uint32_t process = 0;
    std::uint64_t task = 0;
    std::vector<Open> open;
  };

  std::string line(const Task& task, std::string_view duration, std::uint64_t depth, std::string_view text);
  std::string values_of(const Open& call) const;
  void show(Task& task, std::size_t count, std::string& lines);
  void leave(Task& task, std::size_t count, std::string_view how, std::string& lines);

  TreeOptions options_;
  bool has_head_ = false;
  std::map<std::pair<std::uint32_t, std::uint64_t>, Task> tasks_;
};

// "  1.057 us", of ten characters; longer where it takes more than 999 minutes.
std::string duration_text(std::uint64_t ns);

}  // namespace ubp::program
