// ubp-bench: what a hit costs, side by side in one run, and how the slot policies behave under contention.
//
//   ubp-bench [--json] [--repeat N] [--ms N]       the tables: medians of N rounds, the rows taking turns
//   ubp-bench --only program [...]                 some of their rows
//   ubp-bench turns [--json] [--repeat N] [--ms N]  the last of them alone: functions called in turn
//   ubp-bench stress --threads T --probepoints K --slots N --xol POLICY --seconds S
//                    [--pattern uniform|random|zipf|phase] [--json]
//
// Options --library PATH: another libubp.so than the one beside this program.
#include <link.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>

#include "bench.h"
#include "runtime/include/ubp.h"

using namespace ubp::bench;

namespace {

std::string library_beside() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  const std::string self(path, length < 0 ? 0 : static_cast<std::size_t>(length));
  return self.substr(0, self.rfind('/') + 1) + "libubp.so";
}

// Where a function of this program lies in its file.
std::uint64_t file_offset(long (*function)(long), std::uint64_t plus = 0) {
  struct Search {
    std::uint64_t address, offset;
  } search{reinterpret_cast<std::uint64_t>(function) + plus, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto* const wanted = static_cast<Search*>(data);
        for (const ElfW(Phdr)* header = info->dlpi_phdr; header != info->dlpi_phdr + info->dlpi_phnum; ++header) {
          const std::uint64_t at = wanted->address - info->dlpi_addr - header->p_vaddr;
          if (header->p_type == PT_LOAD && at < header->p_memsz) wanted->offset = at + header->p_offset;
        }
        return 1;  // the executable comes first
      },
      &search);
  return search.offset;
}

struct Row {
  std::string name, over;  // over: it is of the jump tier's table; the row of the unprobed call
  std::function<double(int threads, std::string& error)> measure;  // processor time per call, nanoseconds
  std::vector<double> one, two;
  std::string error;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

constexpr const char *kLong = "unprobed call", *kShort = "unprobed call, short function",
                     *kFloor = "detour by hand: the floor", *kFarFloor = "the same, 64 KiB away",
                     *kCallFloor = "by hand, with a call of a C function",
                     *kKeys = "unprobed call, 1,000 arguments in turn";
constexpr int kKeyCount = 1000;

const Row& find(const std::vector<Row>& rows, std::string_view name) {
  return *std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
}

// What a row costs over another one, which was measured next to it in each round.
double median_over(const std::vector<double>& values, const std::vector<double>& base) {
  std::vector<double> over;
  for (std::size_t i = 0; i < std::min(values.size(), base.size()); ++i) over.push_back(values[i] - base[i]);
  return median(over);
}

double quotient(double dividend, double divisor) { return divisor > 0 ? dividend / divisor : 0; }

// The jump tier beside the floor: what they cost over the unprobed call. json: not nullptr: there instead.
void print_jumps(const std::vector<Row>& rows, nlohmann::json* json) {
  if (json == nullptr) {
    std::printf("\n%-38s %12s %8s %12s %8s %8s\n", "over the unprobed call, medians", "1 thread ns", "ratio",
                "2 threads ns", "ratio", "2 to 1");
  }
  const Row& floor = find(rows, kFloor);
  const auto over = [&](const Row& row) {
    const Row& base = find(rows, row.over);
    return std::pair(median_over(row.one, base.one), median_over(row.two, base.two));
  };
  const auto [floor_one, floor_two] = over(floor);
  for (const Row& row : rows) {
    if (row.over.empty()) continue;
    const auto [one, two] = over(row);
    const double one_ratio = quotient(one, floor_one), two_ratio = quotient(two, floor_two),
                 scaling = quotient(two, one);
    std::map<std::string, double> faster;
    for (const Row& kernel : rows) {
      if (kernel.name.starts_with("kernel") && !kernel.one.empty())
        faster[kernel.name] = quotient(median(kernel.one), one);
    }
    if (json != nullptr) {
      json->push_back({{"name", row.name + ", over the unprobed call"},
                       {"one_thread_ns", one},
                       {"two_threads_ns", two},
                       {"one_thread_to_floor", one_ratio},
                       {"two_threads_to_floor", two_ratio},
                       {"two_threads_to_one", scaling},
                       {"times_faster", faster},
                       {"error", row.error}});
      continue;
    }
    if (!row.error.empty()) continue;  // said above
    std::printf("%-38s %12.2f %8.3f %12.2f %8.3f %8.3f\n", row.name.c_str(), one, one_ratio, two, two_ratio, scaling);
    if (row.name == kFloor || row.name == kFarFloor || row.name == kCallFloor) continue;
    for (const auto& [name, times] : faster) std::printf("  %.0f times faster than %s\n", times, name.c_str());
  }
}

int print_table(const std::string& library, int repeat, int ms, bool as_json, const std::string& only) {
  const auto worker = [&](const std::string& mode, std::map<std::string, std::string> environment,
                          std::uint64_t uprobe = 0, int count = 1, const std::string& pattern = "uniform") {
    if (!environment.empty())
      environment.try_emplace("UBP_OPTIMIZE", "never");  // the breakpoint tier, unless it says so
    return [=](int threads, std::string& error) {
      const Run one{{mode, std::to_string(threads), std::to_string(ms), std::to_string(count), pattern},
                    environment,
                    library,
                    uprobe};
      const Outcome outcome = run(one);
      error = check(one, outcome);
      return outcome.processor_ns;
    };
  };
  std::vector<Row> rows;
  const auto add = [&](std::string name, auto measure, std::string over = "") {
    rows.push_back({std::move(name), std::move(over), measure, {}, {}, {}});
  };
  add("empty SIGTRAP handler, sigreturn", worker("empty", {}));
  add("the same, user-mode return", worker("empty_fast", {}));
  for (std::string policy : {"thread", "probepoint", "steal", "adaptive"}) {
    add("ubp " + policy + ": emulated", worker("emulated", {{"UBP_XOL", policy}, {"UBP_PROBES", "bench_emulated"}}));
    add("ubp " + policy + ": slot hit", worker("slot", {{"UBP_XOL", policy}, {"UBP_PROBES", "bench_slot"}}));
    add("ubp " + policy + ": 16 points, 4 slots",
        worker("points", {{"UBP_XOL", policy}, {"UBP_SLOTS", "4"}, {"UBP_PROBES", "point_?; point_1[0-5]"}}, 0, 16));
    add("ubp " + policy + ": system call",
        worker("syscall", {{"UBP_XOL", policy}, {"UBP_PROBES", "bench_syscall+0x5"}}));
  }
  add("getpid, unprobed", worker("syscall", {}));
  add(kLong, worker("long", {}));
  add(kFloor, worker("floor", {}), kLong);
  add(kFarFloor, worker("floor_far", {}), kLong);
  add("jump: counted hit", worker("long", {{"UBP_OPTIMIZE", "auto"}, {"UBP_PROBES", "bench_long"}}), kLong);
  add(kCallFloor, worker("floor_call", {}), kLong);
  struct Kind {
    const char* name;
    int flags;
  };
  for (const auto& [name, flags] :
       {Kind{"no registers", UBP_PROBE_NO_FP | UBP_PROBE_NO_REGISTERS}, Kind{"general registers", UBP_PROBE_NO_FP},
        Kind{"and xmm", UBP_PROBE_SSE_ONLY}, Kind{"and all else", 0}}) {
    add(std::string("jump: consumer, ") + name,
        worker("consumer", {{"UBP_OPTIMIZE", "auto"}, {"UBP_PROBES", "bench_slot"}}, 0, flags), kLong);
  }
  add("jump: timestamped record",
      worker("consumer", {{"UBP_OPTIMIZE", "auto"}, {"UBP_PROBES", "bench_slot"}}, 0, UBP_PROBE_RECORD), kLong);
  struct Text {
    const char *name, *mode, *program;
  };
  add(kKeys, worker("keys", {}, 0, kKeyCount));
  for (const auto& [name, mode, program] :
       {Text{"a filter that says no", "long", "/arg0 == 77/ { @ = count() }"},
        Text{"a filter that says yes", "long", "/arg0 != 77/ { }"}, Text{"count()", "long", "{ @ = count() }"},
        Text{"hist(arg0)", "long", "{ @ = hist(arg0) }"}, Text{"sum(arg0)", "long", "{ @ = sum(arg0) }"},
        Text{"printf of two integers", "events", "{ printf(\"%d %d\\n\", arg0, arg1) }"},
        Text{"str of 20 bytes", "text", "{ $text = str(arg0, 32) }"},
        Text{"ustack of 8 frames", "stack", "{ $stack = ustack(8) }"},
        Text{"ustack of 8 frames as a key", "stack", "{ @[ustack(8)] = count() }"},
        Text{"@[arg0] = count(), 1,000 keys", "keys", "{ @[arg0] = count() }"}}) {
    const std::string mode_of = mode;
    add(std::string("program: ") + name,
        worker(mode_of, {{"UBP_OPTIMIZE", "auto"}, {"UBP_PROBES", std::string("bench_long ") + program}}, 0,
               mode_of == "keys" ? kKeyCount : 1),
        mode_of == "keys" ? kKeys : kLong);
  }
  add(kShort, worker("nop5", {}));
  add("jump: counted hit, short function", worker("nop5", {{"UBP_OPTIMIZE", "auto"}, {"UBP_PROBES", "bench_nop5"}}),
      kShort);
  add("kernel uprobe: emulated (nop)", worker("emulated", {}, file_offset(&bench_emulated)));
  add("kernel uprobe: nop5", worker("nop5", {}, file_offset(&bench_nop5)));
  add("kernel uprobe: single-stepped (lea)", worker("slot", {}, file_offset(&bench_slot)));
  for (std::string policy : {"thread", "probepoint", "steal", "adaptive"}) {
    add("slot_for alone, " + policy + ": 32 points", worker("slots", {}, 0, 32, policy));
    add("slot_for alone, " + policy + ": 256 points", worker("slots", {}, 0, 256, policy));
  }
  std::erase_if(rows, [&](const Row& row) {
    const bool is_base = row.name == kLong || row.name == kFloor || row.name == kFarFloor || row.name == kKeys;
    return !is_base && row.name.find(only) == std::string::npos;
  });
  for (int round = 0; round < repeat; ++round) {
    for (Row& row : rows) {
      for (const int threads : {1, 2}) {
        if (!row.error.empty()) continue;
        const double ns = row.measure(threads, row.error);
        if (row.error.empty()) (threads == 1 ? row.one : row.two).push_back(ns);
      }
    }
  }
  const double base_one = median(rows.front().one), base_two = median(rows.front().two);
  nlohmann::json json = nlohmann::json::array();
  if (!as_json)
    std::printf("%-38s %12s %8s %12s %8s\n", "processor time a hit, medians", "1 thread ns", "ratio", "2 threads ns",
                "ratio");
  int failed = 0;
  for (const Row& row : rows) {
    const double one = median(row.one), two = median(row.two);
    const bool is_skip = !row.error.empty() && row.name.starts_with("kernel");
    failed += !row.error.empty() && !is_skip;
    if (as_json) {
      json.push_back({{"name", row.name}, {"one_thread_ns", one}, {"two_threads_ns", two}, {"error", row.error}});
    } else if (!row.error.empty()) {
      std::printf("%-38s %s%s\n", row.name.c_str(), is_skip ? "SKIP: " : "FAILED: ", row.error.c_str());
    } else {
      std::printf("%-38s %12.1f %8.3f %12.1f %8.3f\n", row.name.c_str(), one, one / base_one, two, two / base_two);
    }
  }
  print_jumps(rows, as_json ? &json : nullptr);
  if (only.empty()) failed += !print_turns(library, repeat, std::max(10, ms / 8), as_json ? &json : nullptr);
  if (as_json) std::printf("%s\n", json.dump(1).c_str());
  return failed != 0;
}

int print_turns_alone(const std::string& library, int repeat, int ms, bool as_json) {
  nlohmann::json json = nlohmann::json::array();
  const bool is_right = print_turns(library, repeat, ms, as_json ? &json : nullptr);
  if (as_json) std::printf("%s\n", json.dump(1).c_str());
  return is_right ? 0 : 1;
}

int stress(const std::string& library, int threads, int points, int slots, const std::string& policy, double seconds,
           const std::string& pattern, bool as_json) {
  const Outcome outcome = run({{"points", std::to_string(threads), std::to_string(static_cast<int>(seconds * 1000)),
                                std::to_string(points), pattern},
                               {{"UBP_XOL", policy},
                                {"UBP_SLOTS", std::to_string(slots)},
                                {"UBP_PROBES", "point_*"},
                                {"UBP_OPTIMIZE", "never"}},
                               library,
                               0});
  if (!outcome.error.empty()) {
    std::fprintf(stderr, "ubp-bench: error: %s\n", outcome.error.c_str());
    return 1;
  }
  const auto all = std::accumulate(outcome.calls.begin(), outcome.calls.end(), std::uint64_t{0});
  const auto [least, most] = std::minmax_element(outcome.calls.begin(), outcome.calls.end());
  const double per_second = 1e9 * threads / outcome.ns;
  const auto of = [](const auto& map, const char* key) {
    const auto found = map.find(key);
    return found == map.end() ? std::uint64_t{0} : found->second;
  };
  const std::uint64_t refills = of(outcome.xol, "refills");
  const bool is_exact = of(outcome.totals, "hits") == all && outcome.wrong == 0;
  const double fairness = *most == 0 ? 0 : static_cast<double>(*least) / static_cast<double>(*most);
  if (as_json) {
    std::printf("%s\n", nlohmann::json{{"policy", policy},
                                       {"threads", threads},
                                       {"probepoints", points},
                                       {"slots", slots},
                                       {"pattern", pattern},
                                       {"calls", all},
                                       {"hits_per_second", per_second},
                                       {"ns_per_hit", outcome.ns},
                                       {"processor_ns_per_hit", outcome.processor_ns},
                                       {"slot_hits", of(outcome.xol, "hits")},
                                       {"misses", of(outcome.xol, "misses")},
                                       {"refills", refills},
                                       {"evictions", of(outcome.xol, "evictions")},
                                       {"bytes_written", refills * 64},
                                       {"area_bytes", of(outcome.xol, "area_bytes")},
                                       {"fairness", fairness},
                                       {"exact", is_exact}}
                            .dump()
                            .c_str());
  } else {
    std::printf("%s, %d threads, %d probepoints, %d slots, %s: %.0f hits/s, %.0f ns of processor time a hit\n",
                policy.c_str(), threads, points, slots, pattern.c_str(), per_second, outcome.processor_ns);
    std::printf(
        "slot hits %llu, misses %llu, refills %llu (at most %llu bytes written), evictions %llu, area %llu bytes\n",
        static_cast<unsigned long long>(of(outcome.xol, "hits")),
        static_cast<unsigned long long>(of(outcome.xol, "misses")), static_cast<unsigned long long>(refills),
        static_cast<unsigned long long>(refills * 64), static_cast<unsigned long long>(of(outcome.xol, "evictions")),
        static_cast<unsigned long long>(of(outcome.xol, "area_bytes")));
    std::printf("fairness %.2f (slowest thread to fastest); counts %s\n", fairness, is_exact ? "exact" : "WRONG");
  }
  return is_exact ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "worker") == 0) return work({argv + 2, argv + argc});
  CLI::App app{"What a hit of UBP costs, side by side with the floor and the kernel's uprobes"};
  std::string library = library_beside(), policy = "thread", pattern = "uniform", only;
  bool as_json = false;
  int repeat = 5, ms = 200, threads = 2, points = 64, slots = 64;
  double seconds = 1;
  app.add_option("--library", library, "libubp.so to measure")->capture_default_str();
  app.add_option("--only", only, "the rows whose names have this in them, and those that they are compared with");
  CLI::App* const turns =
      app.add_subcommand("turns", "functions called in turn: unprobed, with detours by hand, counted");
  for (CLI::App* const table : {&app, turns}) {
    table->add_flag("--json", as_json, "JSON instead of a table");
    table->add_option("--repeat", repeat, "rounds; the medians are printed")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    table->add_option("--ms", ms, "milliseconds of each measurement")
        ->check(CLI::Range(10, 60000))
        ->capture_default_str();
  }
  CLI::App* const contention = app.add_subcommand("stress", "threads that cycle through probepoints");
  contention->add_option("--threads", threads)->check(CLI::Range(1, 4096))->capture_default_str();
  contention->add_option("--probepoints", points)->check(CLI::Range(1, kPoints))->capture_default_str();
  contention->add_option("--slots", slots)->check(CLI::Range(1, 4096))->capture_default_str();
  contention->add_option("--xol", policy, "thread, probepoint, steal, adaptive")->capture_default_str();
  contention->add_option("--seconds", seconds)->check(CLI::Range(0.01, 3600.0))->capture_default_str();
  contention->add_option("--pattern", pattern)
      ->check(CLI::IsMember({"uniform", "random", "zipf", "phase"}))
      ->capture_default_str();
  contention->add_flag("--json", as_json);
  CLI11_PARSE(app, argc, argv);
  if (*contention) return stress(library, threads, points, slots, policy, seconds, pattern, as_json);
  if (*turns) return print_turns_alone(library, repeat, ms, as_json);
  return print_table(library, repeat, ms, as_json, only);
}
