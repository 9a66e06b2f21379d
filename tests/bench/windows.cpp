// At how many instructions of a library a jump could stand, if each was the only one probed: a random sample of them is
// registered with UBP_OPTIMIZE_ALWAYS, each alone, in a process of its own.
//
//   build/tests/api/windows [MODULE [SAMPLES [SEED]]]       default: libsqlite3.so.0 2000 1
#include <dlfcn.h>
#include <sys/wait.h>
#include <ubp.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "decoder/walk.h"
#include "runtime/symbols/symbols.h"

namespace {

using ubp::symbols::Function;
using ubp::symbols::Module;

void require(bool is_so, const char* what) {
  if (is_so) return;
  std::printf("FAILED: %s\n", what);
  std::exit(1);
}

// The run-time addresses of the instructions of the module's functions.
std::vector<std::uint64_t> instructions(const Module& module) {
  std::vector<std::uint64_t> found;
  const auto table = ubp::symbols::FunctionTable::load(module);
  for (const Function& function : table.functions()) {
    const std::uint8_t* const bytes = module.bytes_at(function.address, function.end - function.address);
    if (bytes == nullptr) continue;
    const std::span code(bytes, function.end - function.address);
    ubp::decoder::Walk walk = ubp::decoder::walk_function(code, function.address);
    const auto add = [&](const std::vector<ubp::decoder::Decoded>& decoded) {
      for (const ubp::decoder::Decoded& one : decoded) found.push_back(module.bias + function.address + one.offset);
    };
    add(walk.reached);
    if (function.size == 0) continue;
    for (const ubp::decoder::ByteRange& gap : walk.gaps)
      add(ubp::decoder::decode_gap(code, gap, function.address, walk.references));
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());  // aliases
  return found;
}

enum Answer { kTrap, kJump, kRefused, kFailed, kAnswers };

Answer probe_alone(std::uint64_t address) {
  ubp_probe* probe = nullptr;
  const ubp_status status = ubp_register_address(reinterpret_cast<const void*>(address), nullptr, &probe, nullptr);
  if (status == UBP_E_REFUSED) return kRefused;
  ubp_stats stats{};
  stats.struct_size = sizeof stats;
  if (status != UBP_OK || ubp_read(&stats) != UBP_OK || stats.probepoints != 1 || stats.optimised_probepoints > 1)
    return kFailed;
  return stats.optimised_probepoints == 1 ? kJump : kTrap;
}

// In a child: what was probed before is still known to the parent's runtime, and would be a neighbour.
Answer answer_of(std::uint64_t address) {
  const pid_t pid = fork();
  if (pid == 0) _exit(probe_alone(address));
  int status = 0;
  require(pid > 0 && waitpid(pid, &status, 0) == pid, "fork");
  return WIFEXITED(status) && WEXITSTATUS(status) < kAnswers ? static_cast<Answer>(WEXITSTATUS(status)) : kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "libsqlite3.so.0";
  const auto samples = static_cast<std::size_t>(argc > 2 ? std::atol(argv[2]) : 2000);
  const auto seed = static_cast<unsigned>(argc > 3 ? std::atol(argv[3]) : 1);
  if (dlopen(name.c_str(), RTLD_NOW) == nullptr) {
    std::printf("SKIP: no %s\n", name.c_str());
    return 77;
  }
  const std::vector<Module> modules = ubp::symbols::loaded_modules();
  const auto module =
      std::find_if(modules.begin(), modules.end(), [&](const Module& one) { return module_matches(one, name); });
  require(module != modules.end(), "the module is not found");
  const std::vector<std::uint64_t> all = instructions(*module);
  std::vector<std::uint64_t> chosen;
  std::sample(all.begin(), all.end(), std::back_inserter(chosen), samples, std::mt19937(seed));
  require(!chosen.empty(), "no instructions");

  ubp_config config{};
  config.struct_size = sizeof config;
  config.optimize = UBP_OPTIMIZE_ALWAYS;
  require(ubp_init(&config) == UBP_OK, "ubp_init");
  // Makes the runtime read the module's symbols once, here.
  const auto warm = std::find_if_not(
      all.begin(), all.end(), [&](std::uint64_t one) { return std::binary_search(chosen.begin(), chosen.end(), one); });
  ubp_probe* probe = nullptr;
  if (warm != all.end() &&
      ubp_register_address(reinterpret_cast<const void*>(*warm), nullptr, &probe, nullptr) == UBP_OK) {
    require(ubp_unregister(probe) == UBP_OK, "unregister");
  }
  std::size_t answers[kAnswers] = {};
  for (const std::uint64_t address : chosen) ++answers[answer_of(address)];
  const double share = static_cast<double>(answers[kJump]) / static_cast<double>(chosen.size());
  std::printf(
      "%s: a sample of %zu of %zu instructions (seed %u), each probed alone: a jump at %zu, %.1f %% (+-%.1f %% at 95 %%); "
      "a trap at %zu; refused %zu\n",
      module->name.c_str(), chosen.size(), all.size(), seed, answers[kJump], 100 * share,
      196 * std::sqrt(share * (1 - share) / static_cast<double>(chosen.size())), answers[kTrap], answers[kRefused]);
  require(answers[kFailed] == 0, "some could not be asked");
  return 0;
}
