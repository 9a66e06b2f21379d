// Functions of texts and times, and builtins.
#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <ctime>

#include "compiled.h"

namespace ubp::program {

TEST_CASE("functions of texts") {
  const std::pair<std::string, std::string> cases[] = {
      {"print(strncmp(\"ab\", \"abc\", 2))", "0\n"},
      {"print(strncmp(\"ab\", \"abc\", 3))", "1\n"},
      {"print(strncmp(\"ab\", \"ab\", 9))", "0\n"},
      {"print(strncmp(\"\", \"\", 0))", "0\n"},
      {"$n = 1; print(strncmp(\"ax\", \"ay\", $n))", "0\n"},
      {"print(memcmp(\"ab\", \"ab\\0c\", 2)); print(memcmp(\"ab\", \"ab\\0c\", 4))", "0\n1\n"},
      {"print(memcmp((1, \"a\"), (1, \"a\"), 16)); print(memcmp((1, 2), (1, 3), 16))", "0\n1\n"},
      {"print(strlen(\"\")); print(strlen(\"abc\")); $x = \"abcd\"; $x = \"e\"; print(strlen($x))", "0\n3\n1\n"},
      {"print(strcap(\"abc\")); $x = \"abcd\"; $x = \"e\"; print(strcap($x))", "4\n5\n"},
      {"print(strstr(\"aab\", \"ab\")); print(strstr(\"aab\", \"b\")); print(strstr(\"aab\", \"ba\"))", "1\n2\n-1\n"},
      {"print(strstr(\"abc\", \"\")); print(strstr(\"\", \"\")); print(strstr(\"\", \"a\"))", "0\n0\n-1\n"},
      {"print(strcontains(\"aaab\", \"aab\")); print(strcontains(\"aab\", \"aaab\"))", "true\nfalse\n"},
      {"$x = \"ab\\0cd\"; print(strcontains($x, \"c\")); print(strcontains(\"xab\", $x))", "false\ntrue\n"},
      {"$x = str_concat(\"ab\", \"cd\"); print($x); print(strlen($x)); print(str_concat(\"\", \"\"))", "abcd\n4\n\n"},
      {"print(strerror(2)); print(strerror(-2) == strerror(2)); print(strerror(99999))",
       "No such file or directory\ntrue\nUnknown error\n"},
      {"print(signal_name(15)); print(signal_name(0)); print(signal_name(65)); print(signal_name(-1))",
       "Terminated\nUnknown signal 0\nN/A\nN/A\n"},
      {"@[strerror(1)] = count()", "@[Operation not permitted]: 1\n"},
      {"printf(\"%lx %x %x %x\", bswap((uint64)0x0102030405060708), bswap((int32)0x01020304), bswap((int16)0x102), "
       "bswap((int8)-1))",
       "807060504030201 4030201 201 ff"},
      {"print(bswap(bswap(70000)))", "70000\n"},
      {"print(ntop(0x0100007f)); print((ntop(2, 0xffffffff), 1)); @[ntop(1)] = ntop(2)",
       "127.0.0.1\n(255.255.255.255, 1)\n@[1.0.0.0]: 2.0.0.0\n"},
      {"print(ntop(pton(\"127.0.0.1\"))); print(ntop(pton(\"::1\"))); $a = pton(\"10.0.0.1\"); print($a[3])",
       "127.0.0.1\n::1\n1\n"},
      {"print(strlen((int8*)8)); print(macaddr((int8*)8))", "0\n00:00:00:00:00:00\n"},
      {"errorf(\"%d\", 5); warnf(\"%s!\\n\", \"x\")", "UBP_PROBES:1:9-24: ERROR: 5\nUBP_PROBES:1:26-45: WARNING: x!\n"},
      {"assert(1, \"no\"); assert(1 > 2, \"yes\"); print(1)", "UBP_PROBES:1:26-46: ERROR: assert failed: yes\n"},
      {"cat(\"/proc/%s/comm\", \"self\"); cat(\"/does/not/exist\")",
       "test_program\nERROR: failed to open file '/does/not/exist' (No such file or directory)\n"},
  };
  for (const auto& [block, output] : cases) {
    CAPTURE(block);
    CHECK(output_of(block) == output);
  }
}

TEST_CASE("builtins: with and without parentheses, and by their other names") {
  CHECK(output_of("print((pid, pid(), __builtin_pid, cpid))") == fmt::format("({0}, {0}, {0}, {0})\n", getpid()));
  CHECK(output_of("print((ppid, leader_tid, ncpus, usermode))") ==
        fmt::format("({}, {}, {}, 1)\n", getppid(), getpid(), get_nprocs_conf()));
  CHECK(output_of("print((comm, leader_comm, probetype, probe))") == "(test_program, test_program, special, begin)\n");
  CHECK(output_of("print(pcomm != \"\"); print(numaid < 4096)") == "true\ntrue\n");
  CHECK(output_of("$a = nsecs; $b = nsecs(boot); $c = nsecs(monotonic); $d = nsecs(tai); print(($b >= $a, $b - $a < "
                  "10s, $c < $b + 10s, $d > $b))") == "(true, true, true, true)\n");
}

TEST_CASE("times: the wall's, from a time since boot, and parts of a second") {
  CHECK(output_of("print(strftime(\"%f%%f\", 1234)); print(strftime(\"\", 1))").find("%f\n\n") == 6);
  const auto fraction = [](const std::string& time) {
    return std::stoi(output_of("print(strftime(\"%f\", " + time + "))"));
  };
  const int difference = fraction("5000123000") - fraction("5000000000");
  CHECK((difference == 123 || difference == 123 - 1'000'000));
  char now[16];
  for (int i = 0; i < 2; ++i) {  // an hour may just have begun
    const std::time_t seconds = std::time(nullptr);
    std::strftime(now, sizeof now, "%d.%H\n", std::localtime(&seconds));
    if (output_of("time(\"%d.%H\\n\")") == now) break;
  }
  CHECK(output_of("time(\"%d.%H\\n\")") == now);
  const int year = std::stoi(output_of("print(strftime(\"%Y\", 0x7fffffffffffffff))"));
  CHECK(year > 2300);
  CHECK(year < 2600);
  CHECK(output_of("@ = strftime(\"%d.%H\", nsecs)") == std::string("@: ") + now);
}

TEST_CASE("functions of texts take C's: arrays of characters, and pointers to them") {
  static const char memory[] = "\xff\x02\x03\x04\x05\x06hello world";
  const std::string head = "struct M { char mac[6]; char name[5]; char rest[7]; } begin { $m = (struct M*)" +
                           std::to_string(reinterpret_cast<std::uint64_t>(memory)) + "; ";
  const std::pair<std::string, std::string> cases[] = {
      {"print(macaddr($m->mac)); print(macaddr((int8*)$m))", "FF:02:03:04:05:06\nFF:02:03:04:05:06\n"},
      {"print(strlen($m->name)); print(strcap($m->name)); print(strlen($m->rest))", "5\n5\n6\n"},
      {"$p = (int8*)$m + 6; print(strlen($p)); print(strstr($p, \"world\")); print(strncmp($p, \"help\", 3))",
       "11\n6\n0\n"},
      {"print(strcontains(\"say hello\", $m->name)); print(str_concat($m->name, $m->rest))", "true\nhello world\n"},
      {"print(strncmp($m->name, \"hello!\", 5)); print(strncmp($m->name, \"hello!\", 6))", "0\n1\n"},
  };
  for (const auto& [block, output] : cases) {
    CAPTURE(block);
    const auto program = compiled(head + block + " }");
    program->run(language::Probe::Event::kBegin);
    CHECK(program->printed() == output);
  }
}

TEST_CASE("reads of maps without the key are counted") {
  const auto program =
      compiled("begin { @a[1] = 0; @b[1] = \"x\"; print(@a[1]); print(@a[2]); print(@b[1]); print(@b[2]) }");
  program->run(language::Probe::Event::kBegin);
  CHECK(program->printed() == "0\n0\nx\n\n");
  const auto errors = run_time_errors(program->analysis(), program->place(), true);
  REQUIRE(errors.size() == 2);
  CHECK(errors[0].message == "Can't lookup map element because it does not exist.");
  CHECK(json_error(errors[0], Sources("x.bt", "")) ==
        "{\"type\": \"helper_error\", \"msg\": \"Can't lookup map element because it does not exist.\", \"helper\": "
        "\"map_lookup_elem\", \"retcode\": 0, \"filename\": \"x.bt\", \"line\": 1, \"col\": 53}\n");
  CHECK(run_time_errors(program->analysis(), program->place(), false).empty());
}

TEST_CASE("system(): whoever reads the event runs the command, and nobody else") {
  const std::string text = "begin { system(\"echo %d\", 5) }";
  std::vector<Diagnostic> diagnostics;
  CHECK(Program::compile(tree_of(text), diagnostics) == nullptr);
  REQUIRE(!diagnostics.empty());
  const Event event{Event::Kind::kCommand, "echo %d", {integer(64, true)}};
  const std::uint64_t five = 5;
  ReaderOptions options;
  CHECK(event_text(event, &five, options).empty());
  options.run_command = [](const std::string& command) { return '<' + command + '>'; };
  CHECK(event_text(event, &five, options) == "<echo 5>");
  options.format = Format::kJson;
  CHECK(event_text(event, &five, options) == "{\"type\": \"syscall\", \"data\": \"<echo 5>\"}\n");
}

TEST_CASE("functions of texts: what they do not take") {
  const std::pair<std::string, std::string> cases[] = {
      {"print(strlen(1))", "a string is needed here, not 'int8'"},
      {"print(strcontains(\"a\", 1))", "a string is needed here, not 'int8'"},
      {"print(memcmp(1, \"a\", 1))", "memcmp() takes what has bytes, not 'int8'"},
      {"print(nsecs(dog))", "nsecs() takes a clock: boot, monotonic, tai or sw_tai"},
      {"print(strftime(\"%H\", -1))", "a time is no negative number"},
      {"$f = \"%H\"; time($f)", "a format is a literal string"},
      {"errorf(\"%d\")", "not enough arguments for format string (0 supplied, 1 expected)"},
      {"print(strftime(\"%H\", nsecs) + 1)", "The operation can not be used on 'timestamp' and 'int8'"},
  };
  for (const auto& [block, message] : cases) check_mistake(block, message);
}

}  // namespace ubp::program
