// What functions called in turn cost: unprobed, with the least detours that can be made by hand, and counted.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "bench.h"

namespace ubp::bench {
namespace {

// The columns, over the unprobed calls of the same round.
struct Column {
  const char *name, *mode;
};
constexpr Column kColumns[] = {{"near, empty", "turns_near"},
                               {"near, incq", "turns_near_count"},
                               {"far, empty", "turns_far"},
                               {"far, incq", "turns_far_count"},
                               {"counted", "turns"}};
constexpr int kCounts[] = {1, 8, 64, 512, kTurns};
constexpr std::size_t kCount = std::size(kColumns), kNearFloor = 1, kFarFloor = 3, kCounted = 4;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct Line {
  int count;
  std::vector<double> unprobed, over[kCount];
  std::string error;
};

// One round of a line.
void measure(Line& line, const std::string& library, int ms) {
  std::map<std::string, std::string> probes{{"UBP_OPTIMIZE", "auto"}};
  for (const int count : kCounts) {  // each line's functions are the last ones of the next line's
    if (count <= line.count) probes["UBP_PROBES"] += "turn_" + std::to_string(count) + "_*; ";
  }
  const auto ns = [&](const char* mode, const std::map<std::string, std::string>& environment) {
    const Run one{{mode, "1", std::to_string(ms), std::to_string(line.count)}, environment, library, 0};
    const Outcome outcome = run(one);
    if (line.error.empty()) line.error = check(one, outcome);
    return outcome.processor_ns;
  };
  const double before = ns("turns", {});
  double costs[kCount];
  for (std::size_t column = 0; column < kCount; ++column) {
    costs[column] = ns(kColumns[column].mode, column == kCounted ? probes : std::map<std::string, std::string>());
  }
  const double unprobed = (before + ns("turns", {})) / 2;
  if (!line.error.empty()) return;
  line.unprobed.push_back(unprobed);
  for (std::size_t column = 0; column < kCount; ++column) line.over[column].push_back(costs[column] - unprobed);
}

double quotient(double dividend, double divisor) { return divisor > 0 ? dividend / divisor : 0; }

}  // namespace

bool print_turns(const std::string& library, int repeat, int ms, nlohmann::json* json) {
  std::vector<Line> lines;
  for (const int count : kCounts) lines.push_back({count, {}, {}, {}});
  for (int round = 0; round < repeat; ++round) {
    for (Line& line : lines) {
      if (line.error.empty()) measure(line, library, ms);
    }
  }
  if (json == nullptr) {
    std::printf("\n%-17s %8s", "functions in turn", "unprobed");
    for (const Column& column : kColumns) std::printf(" %11s", column.name);
    std::printf(" %14s %8s\n", "of near floor", "of far");
  }
  bool is_right = true;
  for (const Line& line : lines) {
    const std::string name = std::to_string(line.count) + " functions in turn";
    is_right = is_right && line.error.empty();
    const double unprobed = median(line.unprobed), counted = median(line.over[kCounted]);
    const double to_near = quotient(counted, median(line.over[kNearFloor])),
                 to_far = quotient(counted, median(line.over[kFarFloor]));
    if (json != nullptr) {
      nlohmann::json over;
      for (std::size_t column = 0; column < kCount; ++column) over[kColumns[column].name] = median(line.over[column]);
      json->push_back({{"name", name},
                       {"one_thread_ns", unprobed},
                       {"over_unprobed_ns", over},
                       {"counted_to_near_floor", to_near},
                       {"counted_to_far_floor", to_far},
                       {"error", line.error}});
    } else if (!line.error.empty()) {
      std::printf("%-17d FAILED: %s\n", line.count, line.error.c_str());
    } else {
      std::printf("%-17d %8.2f", line.count, unprobed);
      for (const auto& over : line.over) std::printf(" %+11.2f", median(over));
      std::printf(" %13.2fx %7.2fx\n", to_near, to_far);
    }
  }
  return is_right;
}

}  // namespace ubp::bench
