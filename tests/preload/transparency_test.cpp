// What a program and its system may see of UBP: symbol bindings, threads, descriptors, output, shells and compilers
// that run under `libc:*`.
#include <doctest/doctest.h>

#include <filesystem>
#include <set>

#include "harness.h"

namespace ubp::test::transparency_test {

namespace {

// "binding file A [0] to B [0]: normal symbol `f' ..." lines, without those of libubp itself.
std::set<std::string> bindings(const Outcome& outcome) {
  std::set<std::string> found;
  for (const std::string& line : lines(outcome.err)) {
    const std::size_t at = line.find("binding file ");
    if (at == std::string::npos || line.find("normal symbol") == std::string::npos) continue;
    std::string text = line.substr(at);
    const std::size_t to = text.find(" to ");
    const std::string from = text.substr(0, to);
    // What libubp, and what the libraries that it opens, bind for themselves.
    if (from.find("libubp") != std::string::npos || from.find("libZydis") != std::string::npos ||
        from.find("libZycore") != std::string::npos || from.find("libelf") != std::string::npos ||
        from.find("libdw") != std::string::npos) {
      continue;
    }
    found.insert(text);
  }
  return found;
}

std::string symbol_of(const std::string& binding) {
  const std::size_t begin = binding.find('`') + 1;
  return binding.substr(begin, binding.find('\'', begin) - begin);
}

void check_bindings(const std::vector<std::string>& argv) {
  CAPTURE(argv.front());
  const Environment debug = {{"LD_DEBUG", "bindings"}, {"LD_BIND_NOW", "1"}};
  const auto plain = bindings(run({.argv = argv, .env = debug, .preload = false}));
  Environment env = debug;
  env.emplace_back("UBP_PROBES", "main");
  const auto probed = bindings(run({.argv = argv, .env = env}));
  REQUIRE(plain.size() > 10);
  std::set<std::string> interposed;
  const std::string exports = run_plain({"/usr/bin/nm", "-D", "--defined-only", library()}).out;
  for (const std::string& line : lines(exports)) {
    const std::size_t at = line.rfind(' ') + 1;
    interposed.insert(line.substr(at, line.find('@', at) - at));
  }
  REQUIRE(interposed.contains("sigaction"));
  // The libraries that read symbol tables bring their own dependencies (libz, libbz2, ...): new lines, no changed ones.
  std::string changed;
  for (const std::string& binding : plain) {
    if (!probed.contains(binding) && !interposed.contains(symbol_of(binding))) changed += binding + "\n";
  }
  CHECK(changed == "");
  int to_ubp = 0;
  for (const std::string& binding : probed) {
    if (binding.find("libubp.so", binding.find(" to ")) == std::string::npos) continue;
    ++to_ubp;
    CHECK_MESSAGE(interposed.contains(symbol_of(binding)), binding);
  }
  MESSAGE(plain.size() << " bindings, " << to_ubp << " of them to libubp.so");
}

}  // namespace

TEST_CASE("no symbol binding changes but the interposed names, in C and in C++") {
  if (!std::filesystem::exists("/usr/bin/nm")) {
    MESSAGE("skipped: no nm");
    return;
  }
  check_bindings({fixture("fx_gate")});
  check_bindings({fixture("fx_throw"), "throw", "10"});
}

TEST_CASE("a shell script full of pipelines, every function of libc armed in every process") {
  const std::string script =
      "set -e\nfor i in 1 2 3 4 5; do seq 1 200 | grep -v 7 | sort -rn | head -n 20 | tr '\\n' ' ' | wc -c; done\n"
      "x=$(echo abc | sed s/b/X/ | cat); echo $x\n( exit 3 ) || echo $?\nf() { local y=$1; echo $((y * y)); }\n"
      "for i in 1 2 3; do f $i; done | paste -sd+ | tee /dev/null\ntrap 'echo trapped' USR1; kill -USR1 $$; sleep 0.01 & wait\n"
      "cat <<X | while read -r l; do echo \"<$l>\"; done\none\ntwo\nX\necho done | xargs -n 1 echo\n";
  const Outcome plain = run_plain({"/bin/bash", "-c", script});
  REQUIRE(plain.end() == "exit 0");
  ScratchFolder folder;
  Outcome probed = run_probed({"/bin/bash", "-c", script}, "libc:*",
                              {{"UBP_FOLLOW", "exec"}, {"UBP_OUTPUT", folder.path() + "/%n.%p"}});
  CHECK(probed.end() == plain.end());
  CHECK(probed.out == plain.out);
  CHECK(probed.summaries.size() > 10);
  for (const auto& [pid, summary] : probed.summaries) CHECK(adds_up(summary));
}

TEST_CASE("make -j2 with gcc, every function of libc armed in every process: the same objects") {
  if (!std::filesystem::exists("/usr/bin/make")) {
    MESSAGE("skipped: no make");
    return;
  }
  const auto build = [](bool probed) {
    ScratchFolder folder;
    std::string makefile =
        "all: p\np: a.o b.o c.o d.o\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -O1 -frandom-seed=1 -c -o $@ $<\n";
    for (std::string name : {"a", "b", "c", "d"}) {
      write_file(folder.path() + "/" + name + ".c", "#include <stdio.h>\nint " +
                                                        (name == "a" ? std::string("main") : name) +
                                                        "(void) { return printf(\"%d\\n\", __LINE__) < 0; }\n");
    }
    write_file(folder.path() + "/Makefile", makefile);
    Invocation invocation{
        .argv = {"/usr/bin/make", "-s", "-j2"}, .preload = probed, .timeout_s = 120, .folder = folder.path()};
    if (probed) {
      invocation.env = {{"UBP_PROBES", "libc:*"}, {"UBP_FOLLOW", "exec"}, {"UBP_OUTPUT", folder.path() + "/ubp.%p"}};
    }
    Outcome outcome = run(invocation);
    CHECK(outcome.end() == "exit 0");
    std::string objects;
    for (std::string name : {"a.o", "b.o", "c.o", "d.o", "p"}) objects += read_file(folder.path() + "/" + name);
    return objects;
  };
  const std::string plain = build(false);
  CHECK(plain.size() > 10000);
  CHECK(build(true) == plain);
}

TEST_CASE("no thread, no standard output, no descriptor where the report goes to a file") {
  ScratchFolder folder;
  const std::string script = "ls /proc/self/task | wc -l; ls /proc/self/fd; ls -l /proc/self/fd | grep -c ubp";
  const Outcome plain = run_plain({"/bin/sh", "-c", script});
  Outcome probed =
      run_probed({"/bin/sh", "-c", script}, "libc:*", {{"UBP_FOLLOW", "exec"}, {"UBP_OUTPUT", folder.path() + "/%p"}});
  CHECK(probed.out == plain.out);
  CHECK(probed.err == plain.err);
}

TEST_CASE("what programs do with signals comes out the same with every function of libc probed") {
  for (const std::string& mode : lines(run_plain({fixture("fx_same")}).out)) {
    CAPTURE(mode);
    const Outcome plain = run_plain({fixture("fx_same"), mode});
    REQUIRE(plain.out != "");
    Outcome probed = run_probed({fixture("fx_same"), mode}, "libc:*");
    CHECK(probed.end() == plain.end());
    CHECK(probed.out == plain.out);
  }
}

}  // namespace ubp::test::transparency_test
