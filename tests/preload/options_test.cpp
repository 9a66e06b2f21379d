// runtime/preload/options.h: what each environment variable becomes, every error's text, the help and the names.
#include "runtime/preload/options.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace ubp::runtime {
namespace {

struct Result {
  Options options;
  std::vector<std::string> errors;
};

Result read(std::vector<std::string> entries) {
  std::vector<char*> environment;
  for (std::string& entry : entries) environment.push_back(entry.data());
  environment.push_back(nullptr);
  std::vector<OptionError> errors;
  Result result;
  result.options = read_options(environment.data(), errors);
  for (OptionError& error : errors) result.errors.push_back(std::move(error.message));
  return result;
}

Options read_clean(std::vector<std::string> entries) {
  const Result result = read(std::move(entries));
  for (const std::string& error : result.errors) FAIL_CHECK(error);
  return result.options;
}

// A directory of its own for each test, removed at the end with the files made in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/ubp_options_XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() {
    for (const std::string& file : files_) ::unlink(file.c_str());
    ::rmdir(path_.c_str());
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string add(const std::string& name, const std::string& content) {
    files_.push_back(path_ + "/" + name);
    std::ofstream(files_.back(), std::ios::binary) << content;
    return files_.back();
  }

 private:
  std::string path_;
  std::vector<std::string> files_;
};

}  // namespace

TEST_CASE("options: defaults, and other variables are none of ours") {
  const Options options = read_clean({"PATH=/bin", "UBPX=1", "XUBP_PROBES=f", "ubp_probes=f", "UBP_NOVALUE"});
  CHECK(!options.has_probes);
  CHECK(options.probes.empty());
  CHECK(options.output.empty());
  CHECK(options.summary.empty());
  CHECK(options.slots == 64);
  CHECK(options.missing == Missing::kNothing);
  CHECK(options.log == report::Level::kWarning);
  CHECK(!options.follow_exec);
  CHECK(!options.help);
}

TEST_CASE("options: no environment at all") {
  std::vector<OptionError> errors;
  CHECK(!read_options(nullptr, errors).has_probes);
  CHECK(errors.empty());
}

TEST_CASE("options: every variable is taken") {
  const Options options =
      read_clean({"UBP_OUTPUT=a=%p", "UBP_SUMMARY=/s", "UBP_SLOTS=4096", "UBP_MAX_PROBEPOINTS=16777216",
                  "UBP_XOL=thread", "UBP_MISSING=warn", "UBP_FOLLOW=fork, exec", "UBP_FULL=block", "UBP_LOG=debug",
                  "UBP_OPTIONS=help=1", "UBP_PROBES=f;g=h"});
  CHECK(options.has_probes);
  CHECK(options.probes == "f;g=h");
  CHECK(options.output == "a=%p");
  CHECK(options.summary == "/s");
  CHECK(options.slots == 4096);
  CHECK(options.max_probepoints == 16777216);
  CHECK(options.missing == Missing::kWarn);
  CHECK(options.follow_exec);
  CHECK(options.log == report::Level::kDebug);
  CHECK(options.help);
}

TEST_CASE("options: values of the choices") {
  CHECK(read_clean({"UBP_MISSING=error"}).missing == Missing::kError);
  CHECK(read_clean({"UBP_MISSING=ignore"}).missing == Missing::kIgnore);
  CHECK(!read_clean({"UBP_FOLLOW=fork"}).follow_exec);
  CHECK(!read_clean({"UBP_FOLLOW="}).follow_exec);
  CHECK(read_clean({"UBP_FOLLOW=exec"}).follow_exec);
  CHECK(!read_clean({"UBP_OPTIONS=help=0"}).help);
  CHECK(!read_clean({"UBP_OPTIONS="}).help);
  CHECK(read_clean({"UBP_SLOTS=1"}).slots == 1);
}

TEST_CASE("options: empty probes are still a request") {
  const Options options = read_clean({"UBP_PROBES="});
  CHECK(options.has_probes);
  CHECK(options.probes.empty());
}

TEST_CASE("options: the first of two equal names counts, as with getenv") {
  CHECK(read_clean({"UBP_PROBES=f", "UBP_PROBES=g"}).probes == "f");
}

TEST_CASE("options: a file follows the variable") {
  TemporaryDirectory directory;
  const std::string file = directory.add("probes", std::string("g\nh\0i\n", 6));
  const Options alone = read_clean({"UBP_PROBES_FILE=" + file});
  CHECK(alone.has_probes);
  CHECK(alone.probes == std::string("g\nh\0i\n", 6));
  CHECK(read_clean({"UBP_PROBES_FILE=" + file, "UBP_PROBES=f"}).probes == std::string("f\ng\nh\0i\n", 8));
  const std::string empty = directory.add("empty", "");
  CHECK(read_clean({"UBP_PROBES_FILE=" + empty}).has_probes);
}

TEST_CASE("options: a file that cannot be read is said, and probes were asked for") {
  TemporaryDirectory directory;
  Result result = read({"UBP_PROBES_FILE=" + directory.path() + "/none", "UBP_PROBES=f"});
  REQUIRE(result.errors.size() == 1);
  CHECK(result.errors[0] == "UBP_PROBES_FILE: cannot read '" + directory.path() + "/none': No such file or directory");
  CHECK(result.options.has_probes);

  result = read({"UBP_PROBES_FILE=" + directory.path()});
  REQUIRE(result.errors.size() == 1);
  CHECK(result.errors[0] == "UBP_PROBES_FILE: cannot read '" + directory.path() + "': Is a directory");

  result = read({"UBP_PROBES_FILE="});
  REQUIRE(result.errors.size() == 1);
  CHECK(result.errors[0] == "UBP_PROBES_FILE: cannot read '': No such file or directory");
  CHECK(result.options.has_probes);
}

TEST_CASE("options: a file is limited to 16 MiB") {
  const std::size_t limit = std::size_t{16} << 20;
  TemporaryDirectory directory;
  CHECK(read_clean({"UBP_PROBES_FILE=" + directory.add("full", std::string(limit, ' '))}).probes.size() == limit);
  const Result result = read({"UBP_PROBES_FILE=" + directory.add("more", std::string(limit + 1, ' '))});
  REQUIRE(result.errors.size() == 1);
  CHECK(result.errors[0] == "UBP_PROBES_FILE: '" + directory.path() + "/more' is larger than 16 MiB");
  const Result endless = read({"UBP_PROBES_FILE=/dev/zero"});
  REQUIRE(endless.errors.size() == 1);
  CHECK(endless.errors[0] == "UBP_PROBES_FILE: '/dev/zero' is larger than 16 MiB");
}

TEST_CASE("options: bad values leave the default and say what is allowed") {
  const struct {
    std::string entry, message;
  } cases[] = {
      {"UBP_SLOTS=0", "UBP_SLOTS: '0' is not a number from 1 to 4096"},
      {"UBP_SLOTS=4097", "UBP_SLOTS: '4097' is not a number from 1 to 4096"},
      {"UBP_SLOTS=", "UBP_SLOTS: '' is not a number from 1 to 4096"},
      {"UBP_SLOTS=-1", "UBP_SLOTS: '-1' is not a number from 1 to 4096"},
      {"UBP_SLOTS=8x", "UBP_SLOTS: '8x' is not a number from 1 to 4096"},
      {"UBP_SLOTS= 8", "UBP_SLOTS: ' 8' is not a number from 1 to 4096"},
      {"UBP_MAX_PROBEPOINTS=0", "UBP_MAX_PROBEPOINTS: '0' is not a number from 1 to 16777216"},
      {"UBP_MAX_PROBEPOINTS=16777217", "UBP_MAX_PROBEPOINTS: '16777217' is not a number from 1 to 16777216"},
      {"UBP_SLOTS=4294967297", "UBP_SLOTS: '4294967297' is not a number from 1 to 4096"},
      {"UBP_XOL=x", "UBP_XOL: 'x' is not one of thread, probepoint, steal, adaptive"},
      {"UBP_MISSING=fail", "UBP_MISSING: 'fail' is not one of error, warn, ignore, pending"},
      {"UBP_MISSING=", "UBP_MISSING: '' is not one of error, warn, ignore, pending"},
      {"UBP_LOG=loud\x1b", "UBP_LOG: 'loud\\x1b' is not one of debug, info, warning, error, off"},
      {"UBP_FOLLOW=fork,spawn", "UBP_FOLLOW: 'spawn' is not one of fork, exec"},
      {"UBP_FOLLOW=,exec", "UBP_FOLLOW: '' is not one of fork, exec"},
      {"UBP_FULL=wait", "UBP_FULL: 'wait' is not one of drop, block"},
      {"UBP_OPTIONS=help", "UBP_OPTIONS: 'help' is not one of help=1, help=0"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.entry);
    const Result result = read({c.entry});
    REQUIRE(result.errors.size() == 1);
    CHECK(result.errors[0] == c.message);
    CHECK(result.options.slots == 64);
    CHECK(result.options.missing == Missing::kNothing);
    CHECK(!result.options.follow_exec);
    CHECK(!result.options.help);
  }
}

TEST_CASE("options: unknown variables are errors with the nearest name") {
  const struct {
    std::string entry, message;
  } cases[] = {
      {"UBP_PROBE=f", "unknown variable 'UBP_PROBE'; did you mean UBP_PROBES?"},
      {"UBP_PROBSE=f", "unknown variable 'UBP_PROBSE'; did you mean UBP_PROBES?"},
      {"UBP_probes=f", "unknown variable 'UBP_probes'; did you mean UBP_PROBES?"},
      {"UBP_PROBES_FIEL=f", "unknown variable 'UBP_PROBES_FIEL'; did you mean UBP_PROBES_FILE?"},
      {"UBP_SLOT=1", "unknown variable 'UBP_SLOT'; did you mean UBP_SLOTS?"},
      {"UBP_OUT=x", "unknown variable 'UBP_OUT'; did you mean UBP_OUTPUT?"},
      {"UBP_=x", "unknown variable 'UBP_' (UBP_OPTIONS=help=1 lists them)"},
      {"UBP_BANANA=x", "unknown variable 'UBP_BANANA' (UBP_OPTIONS=help=1 lists them)"},
      {"UBP_A\nB=x", "unknown variable 'UBP_A\\x0aB' (UBP_OPTIONS=help=1 lists them)"},
      {"UBP_FORMAT=csv", "UBP_FORMAT: not supported yet by this version"},
      {"UBP_BUFFER=1", "UBP_BUFFER: not supported yet by this version"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.entry);
    const Result result = read({c.entry});
    REQUIRE(result.errors.size() == 1);
    CHECK(result.errors[0] == c.message);
  }
  CHECK(read({"UBP_" + std::string(100000, 'X') + "=1"}).errors[0].size() < 200);
}

TEST_CASE("options: errors come in the table's order, unknown names last") {
  const Result result = read({"UBP_PROBE=f", "UBP_LOG=x", "UBP_SLOTS=x"});
  REQUIRE(result.errors.size() == 3);
  CHECK(result.errors[0].starts_with("UBP_SLOTS:"));
  CHECK(result.errors[1].starts_with("UBP_LOG:"));
  CHECK(result.errors[2].starts_with("unknown variable"));
}

TEST_CASE("options: the help names every variable, with the real defaults") {
  const std::string help = options_help();
  std::size_t lines = 0;
  for (std::size_t at = 0; at < help.size(); ++lines) {
    const std::size_t end = help.find('\n', at);
    REQUIRE(end != std::string::npos);
    CHECK(help.compare(at, 5, "ubp: ") == 0);
    CHECK(end - at <= 100);
    at = end + 1;
  }
  CHECK(lines >= 2 * option_names().size());
  for (const std::string& name : option_names()) CHECK(help.find("ubp:   " + name + "=") != std::string::npos);
  const Options defaults;
  CHECK(help.find("UBP_SLOTS=1..4096  (default: " + std::to_string(defaults.slots) + ")") != std::string::npos);
  CHECK(help.find("UBP_LOG=debug|info|warning|error|off  (default: warning)") != std::string::npos);
  CHECK(help.find("load base") != std::string::npos);
}

TEST_CASE("options: the names") {
  CHECK(option_names() == std::vector<std::string>{"UBP_PROBES", "UBP_PROBES_FILE", "UBP_OUTPUT", "UBP_SUMMARY",
                                                   "UBP_XOL", "UBP_OPTIMIZE", "UBP_SLOTS", "UBP_MAX_PROBEPOINTS",
                                                   "UBP_MISSING", "UBP_FULL", "UBP_FOLLOW", "UBP_LOG", "UBP_OPTIONS"});
}

}  // namespace ubp::runtime
