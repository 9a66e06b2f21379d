// ubp_flush() in a program that embeds UBP and runs under UBP_PROBES: the files are there while it still runs, and
// there is one runtime. The program starts itself again with the library preloaded.
#include <sys/wait.h>
#include <ubp.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "target.h"

namespace {

int g_failed = 0;

void check(bool good, const char* what) {
  if (good) return;
  std::printf("not so: %s\n", what);
  ++g_failed;
}

std::string content(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::printf("usage: flush_test LIBUBP\n");
    return 2;
  }
  const char* const folder = std::getenv("FLUSH_TEST_FOLDER");
  if (folder == nullptr) {
    char made[] = "/tmp/ubp-flush.XXXXXX";
    if (mkdtemp(made) == nullptr) return 2;
    setenv("FLUSH_TEST_FOLDER", made, 1);
    setenv("LD_PRELOAD", arguments[1], 1);
    setenv("UBP_PROBES", "libfx_target:target_add", 1);
    setenv("UBP_OUTPUT", (std::string(made) + "/report").c_str(), 1);
    setenv("UBP_SUMMARY", (std::string(made) + "/summary").c_str(), 1);
    const pid_t child = fork();
    if (child == 0) {
      execv(arguments[0], arguments);
      _exit(2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(content(std::string(made) + "/report").find("1240  libfx_target.so!target_add") != std::string::npos,
          "the report at exit");
    for (const char* file : {"/report", "/summary"}) std::remove((made + std::string(file)).c_str());
    check(rmdir(made) == 0, "nothing else is left in the folder");
    return WIFEXITED(status) && g_failed == 0 ? WEXITSTATUS(status) : 1;
  }
  const std::string report = std::string(folder) + "/report", summary = std::string(folder) + "/summary";
  for (long i = 0; i < 1234; ++i) target_add(i, 1);
  check(ubp_is_active() == 1, "UBP_PROBES has made the interface active");
  check(ubp_init(nullptr) == UBP_OK, "the program may embed UBP too");
  ubp_probe* probe = nullptr;
  check(ubp_register("libfx_target:target_quiet", nullptr, &probe, nullptr) == UBP_OK,
        "and register a probe of its own");
  for (long i = 0; i < 7; ++i) target_quiet(i);
  check(ubp_flush() == UBP_OK, "flush");
  check(content(report).find("1234  libfx_target.so!target_add") != std::string::npos,
        "the report has the hits so far");
  check(content(summary).find("\"hits\": 1234") != std::string::npos, "and so has the summary");
  check(content(report).find("7  libfx_target.so!target_quiet") != std::string::npos,
        "those of the program's own probe too");
  check(ubp_shutdown() == UBP_OK, "shutdown");
  for (long i = 0; i < 6; ++i) target_add(i, 1);
  check(ubp_is_active() == 1, "UBP_PROBES stays");
  check(ubp_flush() == UBP_OK, "flush again");
  check(content(report).find("1240  libfx_target.so!target_add") != std::string::npos, "its probes still count");
  return g_failed == 0 ? 0 : 1;
}
