// insn_diff: native against displaced execution, one random instruction and state at a time.
//
//   insn_diff [--seconds S] [--max N] [--seed N] [--soak] [--control] [--detours]
//             [--replay seed:index[:hex]] [--generated N] [--show N]
//
// Ends with the coverage table. Exit status: 0 no difference (--control: every deliberate mistake was found),
// 1 else.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/insn_diff/driver.h"

using namespace ubp::insn_diff;

namespace {

constexpr const char* kLibraries[] = {"libc.so.6",      "libm.so.6",       "libcrypto.so.3",
                                      "libstdc++.so.6", "libsqlite3.so.0", "libpython3.11.so.1.0",
                                      "libx264.so.164", "libavcodec.so.59"};

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "usage: insn_diff [--seconds S] [--max N] [--seed N] [--soak] [--control] [--detours] "
               "[--replay seed:index[:hex]] [--generated N] [--show N]\n");
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(argv[i], name) == 0; };
    const auto value = [&] {
      if (++i >= argc) usage();
      return argv[i];
    };
    if (is("--soak")) {
      options.soak = true;
    } else if (is("--control")) {
      options.control = true;
    } else if (is("--detours")) {
      options.detours = true;
    } else if (is("--seconds")) {
      options.seconds = std::atof(value());
    } else if (is("--max")) {
      options.max = std::strtoull(value(), nullptr, 0);
    } else if (is("--seed")) {
      options.seed = std::strtoull(value(), nullptr, 0);
    } else if (is("--generated")) {
      options.generated = std::strtoull(value(), nullptr, 0);
    } else if (is("--show")) {
      options.show = std::strtoull(value(), nullptr, 0);
    } else if (is("--replay")) {
      options.replay = value();
    } else {
      usage();
    }
  }
  if (options.soak) options.seconds = 0, options.max = 0;
  if (!options.soak && options.seconds <= 0 && options.max == 0) options.seconds = 60;
  return options;
}

// Each deliberate mistake must be found by hand cases alone, within a few rounds over them.
int run_controls(Machine& machine, Options options) {
  int missed = 0;
  for (int control = 1; control < static_cast<int>(Control::kEnd); ++control) {
    const auto kind = static_cast<Control>(control);
    const bool is_of_detours =
        kind == Control::kDisplacement || kind == Control::kReturnAddress || kind == Control::kFaultAddress;
    if (options.detours && !is_of_detours) continue;
    Catalogue catalogue;
    catalogue.add_hand_cases();
    options.seconds = 20;
    Driver driver(machine, catalogue, options);
    const bool found = !driver.run(kind);
    std::printf("control %-16s %s\n", control_name(kind), found ? "found" : "MISSED");
    missed += found ? 0 : 1;
  }
  return missed == 0 ? 0 : 1;
}

int replay(Machine& machine, Catalogue& catalogue, const Options& options) {
  char* end;
  const std::uint64_t seed = std::strtoull(options.replay.c_str(), &end, 0);
  if (*end != ':') usage();
  const std::uint64_t index = std::strtoull(end + 1, &end, 0);
  if (*end != 0 && *end != ':') usage();
  Driver driver(machine, catalogue, options);
  return driver.replay(seed, index, *end == ':' ? end + 1 : "") ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse(argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  static Machine machine;
  if (options.control) return run_controls(machine, options);

  Catalogue catalogue;
  const bool needs_catalogue = options.replay.find(':') == options.replay.rfind(':');
  if (needs_catalogue) {
    for (const char* name : kLibraries) catalogue.add_library(std::string("/usr/lib/x86_64-linux-gnu/") + name);
    catalogue.add_hand_cases();
    catalogue.add_generated(options.generated, 20260101);
  }
  if (!options.replay.empty()) return replay(machine, catalogue, options);
  Driver driver(machine, catalogue, options);
  std::printf("seed %llu\n", static_cast<unsigned long long>(options.seed));
  driver.run(Control::kNone);
  driver.print_table();
  return driver.failures() == 0 ? 0 : 1;
}
