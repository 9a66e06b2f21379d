// Black-box harness: starts real processes with libubp.so preloaded and brings back all that they left
// behind.
//
// run() is the one entry point. It knows nothing of UBP's code, only its environment variables and the JSON
// schema of UBP_SUMMARY. Paths come from the environment (set by meson.build):
//   UBP_TEST_LIB       libubp.so
//   UBP_TEST_COMMAND   ubp
//   UBP_TEST_FIXTURES  the folder of the fixture programs
//   UBP_TEST_CONTROLS  the folder of the control libraries
//   UBP_TEST_XOL       when set, the slot policy of every probed run that names none
//   UBP_TEST_OPTIMIZE  UBP_OPTIMIZE of every probed run that names none and has a summary; else never
//   UBP_TEST_LONG      when set, counts are those of the text (10^6 for every thread), not the scaled
//   ones
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ubp::test {

using Environment = std::vector<std::pair<std::string, std::string>>;

struct Invocation {
  std::vector<std::string> argv;
  Environment env = {};     // added to PATH, HOME and LC_ALL=C; nothing else is inherited
  std::string input = {};   // standard input
  bool preload = true;      // false: neither LD_PRELOAD nor any UBP_ variable but those in env
  bool summary = true;      // sets UBP_SUMMARY=<private folder>/%p.json
  uid_t uid = 0;            // not 0: drop to this user and group before exec (needs root)
  int timeout_s = 180;      // then the process group is killed
  std::string folder = {};  // working directory; empty: the test's own
};

struct Outcome {
  pid_t pid = 0;
  int exit_status = -1;  // -1 when killed by a signal
  int signal = 0;        // 0 when it exited
  bool timed_out = false;
  std::string out, err;
  std::map<pid_t, nlohmann::json> summaries;  // by process; one that is not valid JSON is a null value

  // The summary of the started process itself; a null value when there is none.
  nlohmann::json summary() const;
  // "exit 3", "signal 11", "timeout": for messages and comparison in one go.
  std::string end() const;
};

// Starts argv, waits for its end, collects. Throws std::runtime_error when the process cannot be started.
Outcome run(const Invocation& invocation);

// Runs argv under the library with these probes.
Outcome run_probed(std::vector<std::string> argv, const std::string& probes, Environment more = {});
// Runs argv without the library.
Outcome run_plain(std::vector<std::string> argv);
// Checks that variables have the values that gdb reads at the same instructions, in the lines of one of a fixture's
// sources (compare_variables). Where that cannot be, a message says why.
void compare_with_gdb(const std::string& source, const std::string& program);
// Runs a shell's commands, without the library.
Outcome run_shell(const std::string& commands);
// Whether a shell finds a command of this name.
bool has_command(const std::string& name);
// Builds a program of Go's in a folder. Its path; empty: it cannot be built here, which is said.
std::string build_go(const std::string& folder, std::string_view source);

std::string library();                       // UBP_TEST_LIB
std::string command_path();                  // UBP_TEST_COMMAND: the command
std::string fixture(std::string_view name);  // path of a fixture program
std::string control(std::string_view name);  // libubp.so with one protection off (meson.build)
bool long_run();                             // UBP_TEST_LONG
// In a child that becomes a program under the library, which knows no such variables: none of the above is left.
void unset_test_variables();

// --- Reading a summary
// ---------------------------------------------------------------------------------------

// Hits of the probes that one item of UBP_PROBES made, as typed; ~0 when the item made none.
std::uint64_t hits(const nlohmann::json& summary, std::string_view item);
// A number of "totals" or "xol"; ~0 when it is not there.
std::uint64_t total(const nlohmann::json& summary, const char* name);
std::uint64_t xol(const nlohmann::json& summary, const char* name);
// True when hits = recorded + filtered + missed + dropped, and the probes' hits add up to the total's.
bool adds_up(const nlohmann::json& summary);

// --- Reading text
// --------------------------------------------------------------------------------------------

std::vector<std::string> lines(std::string_view text);
// Whether it has this line, whole.
bool has_line(const std::string& text, const std::string& line);
// "name 12\nother 3\n" -> {name: 12, other: 3}: the form in which fixtures say what they did.
std::map<std::string, std::int64_t> numbers(std::string_view text);
// How many lines begin so.
int count_prefix(std::string_view text, std::string_view prefix);

// A point of an assembler fixture: an instruction and how often one call executes it.
struct Point {
  std::string item;  // "symbol+0x1c", pastes into UBP_PROBES
  std::uint64_t times = 0;
};
// Reads the lines "symbol 0x1c 3" of a fixture's --offsets.
std::vector<Point> points(std::string_view text);
// Joins the points' items with "; ".
std::string probe_list(const std::vector<Point>& list);

// A private folder, removed with its content at the end of the scope.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A FIFO that holds one page, and that nobody reads: whoever writes a report of more to it waits.
class StuckPipe {
 public:
  StuckPipe();
  ~StuckPipe();
  StuckPipe(const StuckPipe&) = delete;
  StuckPipe& operator=(const StuckPipe&) = delete;
  const std::string& path() const { return path_; }

 private:
  ScratchFolder folder_;
  std::string path_;
  int fd_ = -1;
};
inline constexpr const char* kManyRows = "tick; libc:str*; libc:mem*";  // a report of more than a page

std::string read_file(const std::string& path);
// A null value when it is not valid JSON. Here alone is it read: in unoptimised code (meson.build) a summary of every
// instruction of libc takes seven seconds.
nlohmann::json read_json(const std::string& path);
void write_file(const std::string& path, std::string_view content);

}  // namespace ubp::test
