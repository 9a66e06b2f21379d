// Programs in narrow places: without /proc, under a late system call filter, with every descriptor closed, not
// dumpable, short of address space, linked statically, or under a tracer.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "harness.h"

namespace ubp::test::environment_test {

namespace {

// Runs fx_environment with f and g armed; its counts must be exact.
Outcome check(std::vector<std::string> arguments, Environment more = {}) {
  CAPTURE(arguments.front());
  arguments.insert(arguments.begin(), fixture("fx_environment"));
  Outcome probed = run_probed(arguments, "f; insn:g", std::move(more));
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  CHECK(said["calls"] > 0);
  const nlohmann::json summary = probed.summary();
  if (!summary.is_null()) {
    CHECK(hits(summary, "f") == static_cast<std::uint64_t>(said["calls"]));
    CHECK(adds_up(summary));
  }
  return probed;
}

bool has(const std::string& tool) {
  if (std::filesystem::exists(tool)) return true;
  MESSAGE("skipped: no " << tool);
  return false;
}

}  // namespace

TEST_CASE("chroot_noproc: a process that shuts itself into an empty folder, its threads and its children") {
  if (geteuid() != 0) {
    MESSAGE("skipped: chroot needs root");
    return;
  }
  ScratchFolder folder;
  Outcome probed = check({"chroot", folder.path()});
  CHECK(std::filesystem::is_empty(folder.path()));
  CHECK(probed.err.find("ubp: hits") != std::string::npos);  // the report comes all the same
}

TEST_CASE("dispatch: a program whose own system calls raise SIGSYS") {
  for (const char* const optimize : {"never", "always"}) check({"dispatch"}, {{"UBP_OPTIMIZE", optimize}});
}

TEST_CASE(
    "descriptors: a program that holds all that it may have leaves its report, where its hard limit allows more") {
  CHECK_FALSE(check({"descriptors", "soft"}).summary().is_null());
  Invocation invocation{{fixture("fx_environment"), "descriptors", "hard"}};
  const ScratchFolder folder;
  invocation.env = {{"UBP_PROBES", "f"}, {"UBP_OUTPUT", folder.path() + "/report"}};
  invocation.summary = false;
  const Outcome probed = run(invocation);
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["wrong"] == 0);
  CHECK(probed.err.find("cannot write in '" + folder.path() + "': Too many open files") != std::string::npos);
}

TEST_CASE("jail: a child that shuts itself in makes nothing there; it reports where the directory is still the same") {
  if (geteuid() != 0) {
    MESSAGE("skipped: chroot needs root");
    return;
  }
  ScratchFolder folder, jail;
  const std::string output = folder.path() + "/deep/%n/%p.txt";
  for (const std::string& root : {jail.path(), std::string("/"), std::string("/../..")}) {
    CAPTURE(root);
    const bool is_jail = root == jail.path();
    Outcome probed = run({.argv = {fixture("fx_environment"), "jail", root},
                          .env = {{"UBP_PROBES", "f"}, {"UBP_OUTPUT", output}},
                          .summary = false});
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["wrong"] == 0);
    const auto report_of = [&](long pid) {
      return read_file(folder.path() + "/deep/fx_environment/" + std::to_string(pid) + ".txt");
    };
    CHECK(report_of(probed.pid).find("ubp: hits       100 ") != std::string::npos);
    CHECK(report_of(numbers(probed.out)["child"]).empty() == is_jail);
    CHECK(std::filesystem::is_empty(jail.path()));
    const bool is_told =
        probed.err.find("ubp: warning: 1 of its children could not write its report, first fx_environment") !=
            std::string::npos &&
        probed.err.find(": UBP_OUTPUT: cannot write ") != std::string::npos;
    CHECK(is_told == is_jail);
    CHECK((probed.err.find("another root directory") != std::string::npos) == is_jail);
  }
}

TEST_CASE(
    "environ: UBP's variables are gone from it, and the auxiliary vector is behind it and behind the kernel's own") {
  Outcome plain = run({.argv = {fixture("fx_environ")}, .env = {{"ODD", ""}}, .preload = false});
  REQUIRE(numbers(plain.out)["wrong"] == 0);
  Outcome probed = run_probed({fixture("fx_environ")}, "f", {{"ODD", ""}});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);  // what the child inherits, line by line
}

TEST_CASE("malloc: the program's own, of 10,000 bytes, is not libubp's") {
  REQUIRE(numbers(run_plain({fixture("fx_malloc")}).out)["bytes"] == 0);
  for (const std::string probes : {"f", "*", "libc:*"}) {
    CAPTURE(probes);
    const Outcome probed = run_probed({fixture("fx_malloc")}, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["bytes"] == 0);
    CHECK(adds_up(probed.summary()));
  }
}

TEST_CASE("late_seccomp: a filter that allows next to nothing, set after load") {
  Outcome probed = check({"seccomp"});
  CHECK(probed.err.find("ubp: hits") != std::string::npos);
}

TEST_CASE("a program that has made the timestamp counter a fault ends as it would, with its report") {
  Outcome probed = check({"no_clock"});
  CHECK(probed.err.find("ubp: hits") != std::string::npos);
}

TEST_CASE(
    "late_seccomp: a filter that ends the program for what a report needs: there is none, and it ends as it would") {
  for (const std::string how : {"kill", "trap"}) {
    for (const std::string way : {"_exit", "exit"}) {
      const std::vector<std::string> argv = {fixture("fx_environment"), "bare", how, way};
      CAPTURE(how);
      CAPTURE(way);
      const Outcome plain = run_plain(argv);
      REQUIRE(plain.end() == "exit 0");
      const Outcome probed = run({.argv = argv, .env = {{"UBP_PROBES", "f; insn:g"}}, .summary = false});
      CHECK(probed.end() == "exit 0");
      CHECK(probed.out == plain.out);
    }
  }
}

TEST_CASE("late_seccomp: a filter that raises SIGSYS for what the runtime calls, under a handler of the program's") {
  const std::vector<std::string> argv = {fixture("fx_environment"), "trapping"};
  const Outcome plain = run_plain(argv);
  REQUIRE(plain.end() == "signal 11");
  REQUIRE(numbers(plain.out)["wrong"] == 0);
  for (const std::string probes : {"f; insn:g", "insn:*"}) {
    const Outcome probed =
        run({.argv = argv, .env = {{"UBP_PROBES", probes}, {"UBP_OPTIMIZE", "never"}}, .timeout_s = 20});
    CHECK(probed.end() == "signal 11");
    CHECK(probed.out == plain.out);
  }
}

TEST_CASE("late_seccomp: hot probepoints of a program whose filter kills whoever patches stay as they are") {
  const std::vector<std::string> argv = {fixture("fx_environment"), "killing"};
  const Environment automatic = {{"UBP_OPTIMIZE", "auto"}};
  CHECK(run_probed(argv, "f; h+3", automatic).end() == "exit 0");
  // The control: one that promotes all the same.
  Environment env = automatic;
  env.insert(env.end(), {{"UBP_PROBES", "f; h+3"}, {"LD_PRELOAD", control("no_sandbox")}});
  CHECK(run({.argv = argv, .env = env, .preload = false}).end() == "signal 31");  // SIGSYS
}

TEST_CASE("daemon_closefrom: two forks, every descriptor closed") {
  ScratchFolder folder;
  const std::string result = folder.path() + "/result";
  for (const bool with_output : {false, true}) {
    CAPTURE(with_output);
    std::filesystem::remove(result);
    Environment more;
    if (with_output) more.emplace_back("UBP_OUTPUT", folder.path() + "/report.%p");
    // Without a summary: the daemon would write its own when the folder for it is gone, and make that again.
    const char* const optimize = std::getenv("UBP_TEST_OPTIMIZE");
    more.insert(more.end(), {{"UBP_PROBES", "f; insn:g"}, {"UBP_OPTIMIZE", optimize != nullptr ? optimize : "never"}});
    Outcome probed = run({.argv = {fixture("fx_environment"), "daemon", result}, .env = more, .summary = false});
    CHECK(probed.end() == "exit 0");
    for (int wait = 0; wait < 500 && read_file(result).empty(); ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    auto said = numbers(read_file(result));
    CHECK(said["calls"] == 200);
    CHECK(said["wrong"] == 0);
  }
}

TEST_CASE("nondumpable: a process that hides its /proc/self/mem after load") { check({"nondumpable"}); }

TEST_CASE("mem_denied: a kernel that denies writes through /proc/self/mem; text is written by replacing pages") {
  Outcome probed = check({"mem_denied"}, {{"UBP_FOLLOW", "exec"}});
  CHECK_FALSE(probed.summary().is_null());
}

TEST_CASE("fork_stale_mem_fd: no descriptor of the text is kept, and a child's end leaves its parent armed") {
  check({"memfd"});
}

TEST_CASE("rlimit_as: little address space") {
  for (const long mib : {2000, 300, 100}) {
    CAPTURE(mib);
    Outcome probed = run_probed(
        {"/bin/sh", "-c", "ulimit -v " + std::to_string(mib * 1024) + "; exec \"$0\" plain", fixture("fx_environment")},
        "fx_environment:f; insn:fx_environment:g", {{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "ignore"}});
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["wrong"] == 0);
    CHECK(hits(probed.summary(), "fx_environment:f") == 100);
  }
}

TEST_CASE("static_binary_message: a static program runs as if UBP were not there") {
  // Nothing of UBP is in such a process, so nothing can be said in it; runtime/README.md, Limits, says so.
  ScratchFolder folder;
  const std::string program = folder.path() + "/static";
  write_file(folder.path() + "/static.c", "#include <stdio.h>\nint main(void) { puts(\"static\"); return 3; }\n");
  Outcome built = run_plain({"/usr/bin/gcc", "-static", "-o", program, folder.path() + "/static.c"});
  if (built.end() != "exit 0") {
    MESSAGE("skipped: gcc -static does not work here");
    return;
  }
  Outcome probed = run_probed({program}, "main");
  CHECK(probed.end() == "exit 3");
  CHECK(probed.out == "static\n");
  CHECK(probed.summaries.empty());
}

TEST_CASE("strace_follow: under strace -f, children included") {
  if (!has("/usr/bin/strace")) return;
  Outcome probed = run_probed({"/usr/bin/strace", "-f", "-o", "/dev/null", fixture("fx_environment"), "memfd"},
                              "fx_environment:f", {{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "ignore"}});
  if (probed.out.empty()) {
    MESSAGE("skipped: tracing is not permitted here");
    return;
  }
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["wrong"] == 0);
  CHECK(numbers(probed.out)["calls"] == 200);
}

TEST_CASE("gdb_attach_pass: gdb attaches, lets SIGTRAP pass, detaches; nothing is lost") {
  if (!has("/usr/bin/gdb")) return;
  ScratchFolder folder;
  const std::string script =
      "\"$0\" sleep > " + folder.path() + "/out & pid=$!; until grep -q ready " + folder.path() +
      "/out; do :; done; unset LD_PRELOAD UBP_PROBES;"
      "/usr/bin/gdb -q -batch -p $pid -ex 'handle SIGTRAP nostop noprint pass' -ex 'set $n = 0' -ex detach > " +
      folder.path() + "/gdb 2>&1; wait $pid";
  Outcome probed =
      run_probed({"/bin/sh", "-c", script, fixture("fx_environment")}, "fx_environment:f; insn:fx_environment:g",
                 {{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "ignore"}});
  CHECK(probed.end() == "exit 0");
  if (read_file(folder.path() + "/gdb").find("detached") == std::string::npos) {
    MESSAGE("skipped: gdb cannot attach here");
    return;
  }
  auto said = numbers(read_file(folder.path() + "/out"));
  CHECK(said["wrong"] == 0);
  CHECK(said["calls"] > 500);
  bool found = false;
  for (const auto& [pid, summary] : probed.summaries) {
    if (hits(summary, "fx_environment:f") == static_cast<std::uint64_t>(said["calls"])) found = true;
  }
  CHECK(found);
}

// UBP is in the program, which the dynamic linker's own rule for LD_PRELOAD does not reach.
TEST_CASE("a set-user-ID program obeys no variable of its caller's, and says nothing") {
  if (geteuid() != 0) {
    MESSAGE("skipped: a set-user-ID program of another user needs root");
    return;
  }
  constexpr uid_t kNobody = 65534;
  ScratchFolder folder;
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
  const std::string program = folder.path() + "/program", secret = folder.path() + "/secret",
                    report = folder.path() + "/report", summary = folder.path() + "/summary";
  std::filesystem::copy_file(fixture("fx_embedded"), program);
  write_file(secret, "hunter2_token\n");
  REQUIRE(::chmod(secret.c_str(), 0600) == 0);
  const Environment wanted = {{"UBP_PROBES", "tick"}, {"UBP_OUTPUT", report}, {"UBP_SUMMARY", summary}};
  const auto start = [&](const Environment& env, uid_t uid) {
    return run({.argv = {program}, .env = env, .preload = false, .uid = uid});
  };
  REQUIRE(::chmod(program.c_str(), 04755) == 0);
  Outcome privileged = start(wanted, kNobody);
  if (privileged.out.rfind("secure 1", 0) != 0) {
    MESSAGE("skipped: set-user-ID programs are not obeyed here");
    return;
  }
  CHECK(privileged.end() == "exit 3");
  CHECK(privileged.out == "secure 1\nversion 1\n");
  CHECK(privileged.err == "");
  CHECK_FALSE(std::filesystem::exists(report));
  CHECK_FALSE(std::filesystem::exists(summary));
  for (const Environment& env :
       {Environment{{"UBP_PROBES_FILE", secret}}, Environment{{"UBP_PROBES", "tick"}, {"UBP_MISSING", "hunter"}},
        Environment{{"UBP_OPTIONS", "help=1"}}, Environment{{"UBP_PROBES", "nowhere"}, {"UBP_MISSING", "error"}}}) {
    Outcome other = start(env, kNobody);
    CHECK(other.end() == "exit 3");
    CHECK(other.err == "");
  }
  Outcome plain = start(wanted, 0);  // the control: the same program, started by its owner
  CHECK(plain.end() == "exit 3");
  CHECK(read_file(report).find("tick") != std::string::npos);
}

}  // namespace ubp::test::environment_test
