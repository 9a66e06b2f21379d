// See call_tree.h.
#include "runtime/output/call_tree.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/output/text.h"

namespace ubp::program {
namespace {

std::string value_text(std::uint64_t value) {
  constexpr std::int64_t kMost = 99999;
  const auto number = static_cast<std::int64_t>(value);
  const auto half = static_cast<std::int32_t>(value);
  if (number >= -kMost && number <= kMost) return fmt::format("{}", number);
  if (value >> 32 == 0 && half < 0 && half >= -kMost) return fmt::format("{}", half);  // an int
  return fmt::format("0x{:x}", value);
}

}  // namespace

std::string duration_text(std::uint64_t ns) {
  constexpr std::pair<std::string_view, std::uint64_t> kUnits[] = {
      {"us", 1000}, {"ms", 1000}, {" s", 1000}, {" m", 60}};
  std::uint64_t whole = ns, part = 0;
  std::string_view name;
  for (const auto& [unit, size] : kUnits) {
    if (!name.empty() && whole < (unit == " m" ? 60 : 1000)) break;
    part = whole % size;
    whole /= size;
    name = unit;
  }
  return fmt::format("{:3}.{:03} {}", whole, part, name);
}

std::string CallTree::line(const Task& task, std::string_view duration, std::uint64_t depth, std::string_view text) {
  constexpr std::string_view kHead = "# DURATION     TID     FUNCTION\n";
  constexpr std::uint64_t kMostIndent = 200;
  return fmt::format("{}{:10} [{:6}] | {}{}\n", std::exchange(has_head_, true) ? "" : kHead, duration, task.task,
                     std::string(2 * std::min(depth, kMostIndent), ' '), text);
}

std::string CallTree::values_of(const Open& call) const {
  std::string text;
  if (!options_.says_values) return text;
  for (const std::uint64_t argument : call.arguments) text += (text.empty() ? "" : ", ") + value_text(argument);
  return text;
}

// The first lines of so many of the calls that are open, outermost first.
void CallTree::show(Task& task, std::size_t count, std::string& lines) {
  for (std::size_t i = 0; i < count; ++i) {
    Open& call = task.open[i];
    if (!std::exchange(call.is_shown, true))
      lines += line(task, "", call.depth, fmt::format("{}({}) {{", call.name, values_of(call)));
  }
}

// All but so many of the calls that are open, innermost first, did not return.
void CallTree::leave(Task& task, std::size_t count, std::string_view how, std::string& lines) {
  for (; task.open.size() > count; task.open.pop_back()) {
    const Open& call = task.open.back();
    if (options_.is_json) {
      lines +=
          json_line("call", fmt::format("{{\"func\": {}, \"pid\": {}, \"tid\": {}, \"depth\": {}, \"elapsed\": null, "
                                        "\"end\": {}}}",
                                        json_quoted(call.name), task.process, task.task, call.depth, json_quoted(how)));
    } else if (call.is_shown) {
      lines += line(task, "", call.depth, fmt::format("}} /* {} {} */", call.name, how));
    } else if (options_.least_ns == 0) {
      lines += line(task, "", call.depth, fmt::format("{}({}); /* {} */", call.name, values_of(call), how));
    }
  }
}

std::string CallTree::add(std::uint32_t process, const CallEvent& event, std::string_view name) {
  constexpr std::string_view kLeft = "was left";
  Task& task = tasks_[{process, event.task}];
  task.process = process;
  task.task = event.task;
  std::string lines;
  const auto count_above = [&](std::uint64_t depth) {  // calls that may go on within one of this depth
    std::size_t count = task.open.size();
    while (count != 0 && task.open[count - 1].depth >= depth) --count;
    return count;
  };
  if (event.kind == CallEvent::kEntered) {
    leave(task, count_above(event.depth), kLeft, lines);
    if (options_.least_ns == 0 && !options_.is_json) show(task, task.open.size(), lines);
    Open call{std::string(name), event.begin, event.depth, {}, false};
    std::copy(std::begin(event.values), std::end(event.values), std::begin(call.arguments));
    task.open.push_back(std::move(call));
    return lines;
  }
  std::size_t at = task.open.size();
  while (at != 0 && task.open[at - 1].begin != event.begin) --at;
  const bool is_known = at != 0;
  leave(task, is_known ? at : count_above(event.depth), kLeft, lines);
  const std::uint64_t elapsed = event.values[0], self = event.values[1], returned = event.values[2];
  Open call{std::string(name), event.begin, event.depth, {}, false};
  if (is_known) {
    call = std::move(task.open.back());
    task.open.pop_back();
  }
  if (elapsed < options_.least_ns) return lines;
  if (options_.is_json) {
    lines += json_line("call",
                       fmt::format("{{\"func\": {}, \"pid\": {}, \"tid\": {}, \"depth\": {}, \"elapsed\": {}, "
                                   "\"self\": {}, \"retval\": {}}}",
                                   json_quoted(call.name), process, event.task, event.depth, elapsed, self, returned));
    return lines;
  }
  const std::string value = options_.says_values ? fmt::format(" = {}", value_text(returned)) : "";
  if (call.is_shown)
    return lines + line(task, duration_text(elapsed), call.depth, fmt::format("}}{} /* {} */", value, call.name));
  show(task, task.open.size(), lines);
  return lines + line(task, duration_text(elapsed), call.depth,
                      fmt::format("{}({}){};", call.name, is_known ? values_of(call) : "", value));
}

std::string CallTree::finish() {
  std::string lines;
  for (auto& [key, task] : tasks_) {
    if (!task.open.empty() && !options_.is_json) show(task, task.open.size() - (options_.least_ns == 0 ? 1 : 0), lines);
    leave(task, 0, "has not returned", lines);
  }
  tasks_.clear();
  return lines;
}

}  // namespace ubp::program
