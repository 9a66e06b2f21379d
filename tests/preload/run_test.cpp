// `ubp run` as a user has it: what it prints where, its status, the processes that it reaches, and what survives them.
#include <doctest/doctest.h>
#include <elf.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>
#include <set>

#include "harness.h"

namespace ubp::test::run_test {

namespace {

using Words = std::vector<std::string>;

Words arguments(Words options, const std::string& program, const Words& command) {
  const std::string ubp = command_path();
  Words all{ubp, "run"};
  all.insert(all.end(), options.begin(), options.end());
  if (!program.empty()) all.insert(all.end(), {"-e", program});
  all.emplace_back("--");
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

Outcome ubp_run(const std::string& program, const Words& command, Words options = {}, Environment more = {}) {
  return run({.argv = arguments(std::move(options), program, command),
              .env = std::move(more),
              .preload = false,
              .timeout_s = 60});
}

// "@n: 5" -> 5; ~0: there is none.
std::uint64_t value_of(const std::string& text, const std::string& map) {
  const std::size_t at = ("\n" + text).find("\n" + map + ": ");
  return at != std::string::npos ? std::stoull(text.substr(at + map.size() + 2)) : ~std::uint64_t{0};
}

std::uint64_t lost(const std::string& err) {
  const std::size_t at = err.find("Lost ");
  return at != std::string::npos ? std::stoull(err.substr(at + 5)) : 0;
}

void write_program(const std::string& path, std::string_view content) {
  write_file(path, content);
  chmod(path.c_str(), 0755);
}

// An ELF header and nothing else.
std::string header_of(unsigned char bits) {
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = bits;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = EM_X86_64;
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

}  // namespace

TEST_CASE("run_output: begin, hits, end and maps on standard output, the rest on standard error") {
  const std::string program =
      "begin { printf(\"first\\n\") } uprobe:" + fixture("fx_hello") +
      ":compute { @[func] = count(); @b = count(); printf(\"%s %s\\n\", probe, func) } end { printf(\"last\\n\") }";
  const Outcome plain = run_plain({fixture("fx_hello")});
  const Outcome probed = ubp_run(program, {fixture("fx_hello")});
  const std::string hit = "uprobe:" + fixture("fx_hello") + ":compute compute\n";
  CHECK(probed.end() == "exit 7");
  CHECK(probed.err == "Attached 3 probes\n" + plain.err);
  // The program's own output goes its own way: here, into the same file.
  std::string own = probed.out;
  for (const std::string& text :
       {std::string("first\n"), hit, hit, std::string("last\n"), std::string("\n\n@[compute]: 2\n@b: 2\n")}) {
    const std::size_t at = own.find(text);
    CAPTURE(probed.out);
    REQUIRE(at != std::string::npos);
    own.erase(at, text.size());
  }
  CHECK(own == plain.out);
}

TEST_CASE("run_output: quiet, a file, JSON") {
  const std::string program = "begin { printf(\"hi\\n\"); @a = 1; @h = hist(5) }";
  const Outcome quiet = ubp_run(program, {"/bin/true"}, {"-q"});
  CHECK(quiet.end() == "exit 0");
  CHECK(quiet.err.empty());
  CHECK(quiet.out.find("hi\n") == 0);
  ScratchFolder folder;
  const std::string file = folder.path() + "/out";
  write_file(file, "what was there before is longer than what comes, and does not stay: hi hi hi hi hi hi hi\n");
  const Outcome filed = ubp_run(program, {"/bin/echo", "own"}, {"-o", file});
  CHECK(filed.out == "own\n");
  CHECK(read_file(file) == quiet.out);
  CHECK(filed.err == "Attached 1 probe\n");
  const Outcome json = ubp_run(program, {"/bin/true"}, {"-f", "json"});
  const std::vector<std::string> all = lines(json.out);
  REQUIRE(all.size() == 4);
  CHECK(all[0] == R"({"type": "attached_probes", "count": 1, "data": {"probes": 1}})");
  CHECK(all[1] == R"({"type": "printf", "data": "hi\n"})");
  for (const std::string& line : all) CHECK(nlohmann::json::accept(line));
  CHECK(nlohmann::json::parse(all[2])["data"]["@a"] == 1);
  CHECK(ubp_run(program, {"/bin/true"}, {"-f", "xml"}).end() == "exit 1");
  CHECK(ubp_run(program, {"/bin/true"}, {"-o", "/nonexistent/out"}).end() == "exit 1");
}

TEST_CASE("run_status: of the command, of exit(), of signals") {
  CHECK(ubp_run("begin { }", {"/bin/sh", "-c", "exit 3"}).end() == "exit 3");
  CHECK(ubp_run("begin { }", {"/bin/sh", "-c", "kill -SEGV $$"}).end() == "exit 139");
  for (const std::string code : {"0", "5"}) {
    const Outcome left = ubp_run("begin { exit(" + code + ") } end { printf(\"over\\n\") }", {"/bin/sleep", "50"});
    CHECK(left.end() == "exit " + code);
    CHECK(left.out.find("over\n") == 0);
  }
  // To `ubp run` itself, by its child.
  for (const std::string signal : {"INT", "TERM"}) {
    CAPTURE(signal);
    const Outcome left = ubp_run("begin { @n = 1 } end { printf(\"over\\n\") }",
                                 {"/bin/sh", "-c", "kill -" + signal + " $PPID; while :; do sleep 0.1; done"});
    CHECK(left.end() == "exit 0");
    CHECK(left.out.find("over\n") != std::string::npos);
    CHECK(left.out.find("@n: 1\n") != std::string::npos);
  }
}

TEST_CASE("run_end: end runs once, however the process ends") {
  const std::string program = "begin { @n = 1 } end { printf(\"over %d\\n\", @n); @n++ }";
  for (const std::string how : {"exit 0", "kill -KILL $$", "kill -TERM $$", "kill -SEGV $$", "exec /bin/true",
                                "exec /bin/sh -c 'kill -INT $$'"}) {
    for (const std::string option : {"-q", "--follow"}) {
      CAPTURE(how);
      CAPTURE(option);
      const Outcome ended = ubp_run(program, {"/bin/sh", "-c", how}, {option});
      CHECK(ended.out == "over 1\n\n\n@n: 2\n");
    }
  }
}

TEST_CASE("run_stopped: what the command has started is asked to end, too") {
  const Outcome left = ubp_run("uprobe:libc:*nanosleep { exit() }",
                               {"/bin/sh", "-c", "/bin/sh -c 'echo a; sleep 0.1; sleep 50'; echo done"}, {"--follow"});
  CHECK(left.end() == "exit 0");
}

TEST_CASE("run_command: what cannot be started or probed, and why") {
  ScratchFolder folder;
  const auto file = [&](const char* name) { return folder.path() + "/" + name; };
  write_file(file("text"), "text\n");
  write_program(file("static"), header_of(ELFCLASS64));
  write_program(file("small"), header_of(ELFCLASS32));
  write_program(file("orphan"), "#!/nonexistent/interpreter\n");
  write_program(file("words"), "these are no program\n");
  const struct {
    std::string command, message;
    int status;
  } cases[] = {
      {"no-such-command", "does not exist", 127},
      {file("none"), "does not exist", 127},
      {file("text"), "is not executable", 126},
      {folder.path(), "is not executable", 126},
      {file("static"), "is linked statically", 125},
      {file("small"), "is a 32-bit program", 125},
      {file("orphan"), "'/nonexistent/interpreter' does not exist", 127},
  };
  for (const auto& [command, message, status] : cases) {
    CAPTURE(command);
    const Outcome failed = ubp_run("begin { printf(\"begun\\n\") }", {command});
    CHECK(failed.end() == "exit " + std::to_string(status));
    CHECK(failed.err.find("ERROR: ") == 0);
    CHECK(failed.err.find(message) != std::string::npos);
    CHECK(failed.out.empty());
  }
  // Set-user-ID, by a user who is not root.
  const std::string own = file("own");
  write_program(own, read_file("/bin/true"));
  REQUIRE(chmod(own.c_str(), 04755) == 0);
  REQUIRE(chmod(folder.path().c_str(), 0755) == 0);
  if (geteuid() == 0) {
    const Outcome privileged =
        run({.argv = arguments({}, "begin { }", {own}), .preload = false, .uid = 65534, .timeout_s = 60});
    CHECK(privileged.end() == "exit 125");
    CHECK(privileged.err.find("is set-user-ID") != std::string::npos);
  }
}

TEST_CASE("run_script: a script's interpreter is probed") {
  ScratchFolder folder;
  const std::string script = folder.path() + "/script";
  write_program(script, "#! /bin/sh\necho from the script\nexit 4\n");
  const Outcome probed = ubp_run("uprobe:libc:malloc { @ = count() }", {script});
  CHECK(probed.end() == "exit 4");
  CHECK(probed.out.find("from the script\n") == 0);
  CHECK(value_of(probed.out, "@") > 0);
}

TEST_CASE("run_wrappers: programs that execute another lead to the one that has the function") {
  const std::string hello = fixture("fx_hello");
  const Words wrappers[] = {{"env", "A=B"},
                            {"timeout", "20"},
                            {"nice", "-n", "1"},
                            {"env", "nice", "timeout", "20", "env"},
                            {"sh", "-c", "true; \"$0\""},
                            {"sh", "-c", "/bin/echo before; exec \"$0\""},
                            {"bash", "-c", "/bin/true | /bin/true; (\"$0\")"}};
  for (const Words& wrapper : wrappers) {
    Words command = wrapper;
    command.push_back(hello);
    CAPTURE(command);
    for (const std::string target : {"compute", "fx_hello:compute"}) {
      const Outcome probed = ubp_run(target + " { @ = count() }", command);
      CAPTURE(probed.err);
      CHECK(probed.end() == "exit 7");
      CHECK(value_of(probed.out, "@") == 2);
      CHECK(probed.err == "Attached 1 probe\nthis is the program's own line\n");
    }
  }
  const Outcome none = ubp_run("no_such_function { @ = count() }", {"env", hello});
  CHECK(none.end() == "exit 1");
  CHECK(none.err.find("nothing was probed") != std::string::npos);
}

TEST_CASE("run_libraries: in the command, not in what executes it; those that come later; and those that never do") {
  const std::string hello = fixture("fx_hello");
  for (const Words& wrapper : {Words{"env", "A=B"}, Words{"nice", "timeout", "20"}}) {
    Words command = wrapper;
    command.push_back(hello);
    const Outcome probed = ubp_run("uprobe:libc:malloc { @[comm] = count() } begin { @begun[comm] = 1 }", command);
    CHECK(value_of(probed.out, "@[fx_hello]") != ~std::uint64_t{0});
    CHECK(count_prefix(probed.out, "@[") == 1);
    CHECK(probed.out.find("@begun[fx_hello]: 1\n") != std::string::npos);
  }
  const Outcome none = ubp_run("begin { }", {"env"});
  CHECK(none.end() == "exit 1");
  CHECK(none.err.find("nothing was probed: ") != std::string::npos);
  const std::string plugin = fixture("libfx_plugin.so");
  const Outcome loaded = ubp_run("main { @m = count() } uprobe:" + plugin + ":plugin_work { @ = count() }",
                                 {fixture("fx_dlopen"), plugin, "3"});
  CHECK(loaded.end() == "exit 0");
  CHECK(value_of(loaded.out, "@") == 33);  // 10 calls and the constructor's, each time
  CHECK(value_of(loaded.out, "@m") == 1);
  const Outcome some = ubp_run("compute { @n = count() } uprobe:libnever:f { @never = count() }", {hello});
  CHECK(some.end() == "exit 7");
  CHECK(value_of(some.out, "@n") == 2);
  CHECK(some.out.find("@never") == std::string::npos);
  const Outcome gone = ubp_run("uprobe:libnever:f { @never = count() }", {hello});
  CHECK(gone.end() == "exit 1");
  CHECK(gone.err.find("no module 'libnever' is loaded; nothing was probed") != std::string::npos);
}

TEST_CASE("run_follow: every process that has it") {
  const std::string hello = fixture("fx_hello");
  const Words command{"sh", "-c", "\"$0\"; \"$0\"; exec \"$0\"", hello};
  CHECK(value_of(ubp_run("compute { @ = count() }", command).out, "@") == 2);
  CHECK(value_of(ubp_run("compute { @ = count() }", command, {"--follow"}).out, "@") == 6);
}

TEST_CASE("run_fork: children add to the same maps") {
  for (const std::string how : {"fork", "clone"}) {
    CAPTURE(how);
    const Outcome probed = ubp_run("cycle_* { @all++; @c = count(); @by[func] = count(); @p[pid] = count() }",
                                   {fixture("fx_fork"), how, "50", "3", "5", "7", "exit"});
    CHECK(probed.end() == "exit 0");
    CHECK(value_of(probed.out, "@all") == 750);
    CHECK(value_of(probed.out, "@c") == 750);
    CHECK(value_of(probed.out, "@by[cycle_7]") == 15);
    CHECK(count_prefix(probed.out, "@p[") == 2);
  }
}

TEST_CASE("run_exact: eight threads into a file: what is printed and what is lost are the hits") {
  const std::uint64_t calls = long_run() ? 1'000'000 : 100'000, threads = 8;
  ScratchFolder folder;
  const std::string file = folder.path() + "/out";
  const Words command{fixture("fx_count"), std::to_string(threads), std::to_string(calls)};
  const Outcome probed =
      ubp_run("f { @ = count(); @n++; printf(\"%d %d %ld\\n\", pid, tid, arg0) }", command, {"-o", file});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == run_plain(command).out);
  const std::string text = read_file(file);
  CHECK(value_of(text, "@") == calls * threads);
  CHECK(value_of(text, "@n") == calls * threads);
  std::uint64_t printed = 0, whole = 0;
  std::map<std::string, std::uint64_t> by_thread;
  for (const std::string& line : lines(text)) {
    int pid = 0, tid = 0, end = 0;
    std::int64_t argument = 0;
    if (std::sscanf(line.c_str(), "%d %d %ld%n", &pid, &tid, &argument, &end) != 3) continue;
    whole += static_cast<std::size_t>(end) == line.size();
    ++printed;
    ++by_thread[std::to_string(tid)];
  }
  CAPTURE(probed.err);
  CHECK(printed + lost(probed.err) == calls * threads);
  CHECK(whole == printed);
  CHECK(by_thread.size() == threads);
}

TEST_CASE("run_killed: every event that was complete is printed, and maps survive") {
  constexpr int kThreads = 4;
  const Outcome probed =
      ubp_run("f { printf(\"%ld|\\n\", @n++) }",
              {"/bin/sh", "-c", "(sleep 0.3; kill -KILL $$) & exec \"$0\" 4 100000000", fixture("fx_count")});
  CHECK(probed.end() == "exit 137");
  const std::uint64_t made = value_of(probed.out, "@n");
  CHECK(made != ~std::uint64_t{0});
  std::set<std::uint64_t> seen;
  std::uint64_t printed = 0, whole = 0;
  for (const std::string& line : lines(probed.out)) {
    if (line.empty() || line[0] == '@') continue;
    whole += line.back() == '|';
    seen.insert(std::stoull(line));
    ++printed;
  }
  CAPTURE(probed.err);
  CHECK(printed > 1000);
  CHECK(whole == printed);
  CHECK(seen.size() == printed);  // none twice
  CHECK(printed + lost(probed.err) <= made);
  CHECK(printed + lost(probed.err) + kThreads >= made);
}

TEST_CASE("run_preload: another library in LD_PRELOAD stays, and the command finds its environment as it was") {
  const std::string other = "/lib/x86_64-linux-gnu/libz.so.1";
  const Outcome probed =
      ubp_run("begin { @ = 1 }", {"/bin/sh", "-c", "echo \"$LD_PRELOAD|$UBP_SESSION\"; cat /proc/$$/maps"}, {},
              {{"LD_PRELOAD", other}});
  CHECK(lines(probed.out).front() == other + "|");
  CHECK(probed.out.find("libz.so.1") != std::string::npos);
  CHECK(probed.out.find("libubp.so") != std::string::npos);
}

TEST_CASE("run_check: what would be armed, how, and what not, and nothing runs") {
  const auto check = [](const std::string& program, const Words& command) {
    Words words = arguments({}, program, command);
    words[1] = "check";
    return run({.argv = std::move(words), .preload = false, .timeout_s = 60});
  };
  const std::string hello = fixture("fx_hello"), begun = "begin { printf(\"begun\\n\") } end { printf(\"ended\\n\") } ";
  const Outcome checked = check(begun + "uprobe:" + hello + ":comp* { @ = count() }", {"env", hello});
  CHECK(checked.end() == "exit 0");
  CHECK(checked.out == "jump  fx_hello!compute\njump  fx_hello!compare_lengths\n");
  CHECK(checked.err.empty());
  const Outcome trap = check("compute+0, libnever:f { }", {hello});
  CHECK(trap.out.find("fx_hello!compute") != std::string::npos);
  CHECK(trap.out.find("1 more wait for their modules\n") != std::string::npos);
  const Outcome none = check("no_such_function { }", {hello});
  CHECK(none.end() == "exit 1");
  CHECK(none.out.empty());
}

TEST_CASE("run_before: mistakes start nothing, and say where they are") {
  const std::string hello = fixture("fx_hello");
  const Words command{"/bin/sh", "-c", "echo started"};
  const struct {
    std::string program, err;
  } cases[] = {
      {"begin { print($x) }",
       "stdin:1:15-17: ERROR: Undefined or undeclared variable: $x\nbegin { print($x) }\n              ~~\n"},
      {"uprobe:./none:f { }",
       "stdin:1:1-16: ERROR: uprobe target file './none' does not exist or is not executable\nuprobe:./none:f { }\n"
       "~~~~~~~~~~~~~~~\n"},
      {"uprobe:/etc/passwd:f { }",
       "stdin:1:1-21: ERROR: uprobe target file '/etc/passwd' does not exist or is not executable\n"},
      {"uprobe:" + hello + ":compote { }", ": ERROR: No matches for uprobe " + hello + ":compote.\n"},
      {"uprobe:" + hello + ":compote { }", "\nHINT: did you mean 'compute'"},
      {"uprobe:" + hello + ":zz* { }",
       ": ERROR: Probe has no valid attach points. If this is expected, set the 'missing_probes' config variable to 'warn'.\n"},
      {"uprobe:" + hello + ":10 { }", "ERROR: Could not resolve address: " + hello + ":0xa\n"},
      {"uprobe:" + hello + ":0xa { }", "ERROR: Could not resolve address: " + hello + ":0xa\n"},
      {"uprobe:" + hello + ":compute+100000 { }", "ERROR: Offset outside the function bounds ('compute' size is "},
      {"kprobe:vfs_read { }", "kprobe"},
      {"interval:s { }", "interval"},
  };
  for (const auto& [program, err] : cases) {
    CAPTURE(program);
    const Outcome failed = ubp_run(program, command);
    CAPTURE(failed.err);
    CHECK(failed.end() == "exit 1");
    CHECK(failed.out.empty());
    CHECK(failed.err.find(err) != std::string::npos);
    CHECK(failed.err.find("ERROR: ") != std::string::npos);
  }
  // The same by what is right.
  const std::string good = "uprobe:" + hello + ":comp*, uprobe:" + hello + ":\"compute\"+0 { @ = count() }";
  CHECK(value_of(ubp_run(good, {hello}).out, "@") == 5);  // compute by both, and compare_lengths
  const Outcome dry = ubp_run(good, command, {"--dry-run"});
  CHECK(dry.end() == "exit 0");
  CHECK(dry.out.empty());
}

TEST_CASE("run_interval: blocks run from time to time, without a hit") {
  const Outcome ended = ubp_run("interval:ms:2 { @n++; if (@n == 3) { printf(\"%s\\n\", probe); exit(4) } }",
                                {"/bin/sleep", "50"}, {"-q"});
  CHECK(ended.end() == "exit 4");
  CHECK(ended.out.find("interval:ms:2\n") != std::string::npos);
  CHECK(ended.out.find("@n: 3\n") != std::string::npos);
}

TEST_CASE("run_sources: a program imports others, and takes names from headers") {
  ScratchFolder folder;
  write_file(folder.path() + "/macros.bt", "macro twice(x) { x + x }\nbegin { printf(\"imported\\n\") }\n");
  write_file(folder.path() + "/types.h", "#define FIVE (2 + 3)\nstruct pair { char a; int b; };\n");
  write_file(folder.path() + "/main.bt",
             "#include \"types.h\"\nimport \"macros.bt\";\nbegin { print(twice(FIVE) + sizeof(struct pair)) }\n");
  const Outcome good =
      run({.argv = arguments({"-q", folder.path() + "/main.bt"}, "", {"/bin/true"}), .preload = false});
  CHECK(good.out == "imported\n18\n\n\n");
  const Outcome by_option =
      ubp_run("begin { print(FIVE) }", {"/bin/true"}, {"-q", "-I", folder.path(), "--include", "types.h"});
  CHECK(by_option.out == "5\n\n\n");
  const Outcome bad = ubp_run("#include <no/such.h>\nbegin { }", {"/bin/echo", "started"});
  CHECK(bad.end() == "exit 1");
  CHECK(bad.out.empty());
  CHECK(bad.err.find("stdin:1:10-21: ERROR: 'no/such.h' file not found\n") == 0);
  // The same by UBP_PROBES, with places of the files that are meant.
  const Outcome preloaded =
      run_probed({"/bin/true"}, "import \"" + folder.path() + "/macros.bt\"; begin { print(twice(4)) }");
  CHECK(preloaded.err.find("imported\n8\n") != std::string::npos);
  write_file(folder.path() + "/bad.bt", "\nmacro no() { $no }\n");
  const Outcome wrong = run_probed({"/bin/true"}, "import \"" + folder.path() + "/bad.bt\"; begin { no() }");
  CHECK(wrong.err.find("UBP_PROBES:2:14-17: Undefined or undeclared variable: $no (in " + folder.path() + "/bad.bt)") !=
        std::string::npos);
}

}  // namespace ubp::test::run_test
