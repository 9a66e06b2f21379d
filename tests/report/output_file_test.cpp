// Where files go and how they are made: every rule of output_file.h against a real file system.
#include "runtime/report/output_file.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "tests/report/scratch.h"

namespace ubp::report {
namespace {

using namespace testing;

constexpr uid_t kNobody = 65534;

PathFields fields(int pid = 100) { return {pid, "app", 1700000000, "host"}; }

std::string expanded(std::string_view pattern, const PathFields& values = fields()) {
  std::string error;
  return expand_path(pattern, values, error).value_or("error: " + error);
}

std::string prepare_error(const std::string& pattern) {
  OutputFile file;
  const auto error = file.prepare("UBP_OUTPUT", pattern, fields());
  CHECK(file.is_set() == (!error && !pattern.empty()));
  return error.value_or("");
}

// prepare and write must both succeed.
void write_ok(const std::string& pattern, const std::string& content) {
  OutputFile file;
  CHECK(file.prepare("UBP_OUTPUT", pattern, fields()).value_or("") == "");
  CHECK(file.write(content, fields()).value_or("") == "");
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  CHECK(::lstat(path.c_str(), &status) == 0);
  return status.st_mode;
}

std::size_t entries_in(const std::string& directory) {
  const std::filesystem::directory_iterator first(directory);
  return static_cast<std::size_t>(std::distance(begin(first), end(first)));
}

TEST_CASE("output path: every escape") {
  CHECK(expanded("/a/%n.%p.%t.%h.%%p") == "/a/app.100.1700000000.host.%p");
  CHECK(expanded("plain") == "plain");
  CHECK(expanded("") == "");
  CHECK(expanded("%n", {1, "a/b", 0, ""}) == "a_b");
  CHECK(expanded("%h", {1, "", 0, "../etc"}) == ".._etc");
}

TEST_CASE("output path: an unknown escape is named") {
  CHECK(expanded("a%xb").rfind("error: unknown escape '%x' in 'a%xb' (use %p pid,", 0) == 0);
  CHECK(expanded("100%").rfind("error: unknown escape '%' in '100%'", 0) == 0);
  CHECK(prepare_error("/tmp/%q").rfind("UBP_OUTPUT: unknown escape '%q'", 0) == 0);
}

TEST_CASE("output file: written whole, and again over itself") {
  const ScratchDirectory scratch;
  const std::string content(300000, 'x');
  write_ok(scratch / "out", content);
  CHECK(read_file(scratch / "out") == content);
  write_ok(scratch / "out", "short\n");
  CHECK(read_file(scratch / "out") == "short\n");
  CHECK(entries_in(scratch.path()) == 1);
}

TEST_CASE("output file: under any umask, mode 0600, or what its owner had given it") {
  const ScratchDirectory scratch;
  for (const mode_t mask : {0000, 0022, 0277, 0777}) {
    for (const mode_t given : {0, 0600, 0640, 0666, 0400, 04755}) {
      if (given == 0) {
        ::unlink((scratch / "out").c_str());
      } else {
        write_file(scratch / "out", "old");
        ::chmod((scratch / "out").c_str(), given);
      }
      const mode_t before = ::umask(mask);
      write_ok(scratch / "out", "new");
      ::umask(before);
      CHECK((mode_of(scratch / "out") & 07777) == (given == 0 ? 0600 : given & 0666));
      ::chmod((scratch / "out").c_str(), 0600);
      CHECK(read_file(scratch / "out") == "new");
    }
  }
}

TEST_CASE("output file: what another user may have put there is refused, and his file's mode is not what counts") {
  if (::geteuid() != 0) {
    MESSAGE("skipped: other users' files need root");
    return;
  }
  const ScratchDirectory scratch;
  const auto give = [&](const std::string& name) {
    REQUIRE(::lchown((scratch / name).c_str(), kNobody, kNobody) == 0);
  };
  ::mkdir((scratch / "shared").c_str(), 0700);
  ::chmod((scratch / "shared").c_str(), 01777);
  ::mkdir((scratch / "private").c_str(), 0700);
  ::mkdir((scratch / "shared/his").c_str(), 0755);
  give("shared/his");
  REQUIRE(::symlink("../private", (scratch / "shared/link").c_str()) == 0);
  REQUIRE(::symlink("../private", (scratch / "shared/own").c_str()) == 0);
  give("shared/link");
  REQUIRE(::mkfifo((scratch / "shared/fifo").c_str(), 0666) == 0);
  REQUIRE(::mkfifo((scratch / "private/fifo").c_str(), 0666) == 0);
  give("shared/fifo");
  give("private/fifo");
  for (std::string place :
       {"shared/his/out", "shared/his/deep/out", "shared/link/out", "shared/fifo", "private/fifo"}) {
    CAPTURE(place);
    CHECK(prepare_error(scratch / place).find("it belongs to another user") != std::string::npos);
  }
  CHECK(entries_in(scratch / "shared/his") == 0);
  CHECK(entries_in(scratch / "private") == 1);
  write_ok(scratch / "shared/own/out", "x");  // a link of one's own
  CHECK(read_file(scratch / "private/out") == "x");
  write_file(scratch / "private/out", "old");
  ::chmod((scratch / "private/out").c_str(), 0644);
  give("private/out");
  write_ok(scratch / "private/out", "new");
  CHECK((mode_of(scratch / "private/out") & 07777) == 0600);
  // One that comes between load and exit.
  OutputFile late;
  CHECK_FALSE(late.prepare("UBP_OUTPUT", scratch / "shared/dir/out", fields()));
  REQUIRE(::rmdir((scratch / "shared/dir").c_str()) == 0);
  REQUIRE(::symlink("../private", (scratch / "shared/dir").c_str()) == 0);
  give("shared/dir");
  CHECK(late.write("x", fields()).value_or("").find("it belongs to another user") != std::string::npos);
}

TEST_CASE("output file: links among the directories are followed, up and down, but not for ever") {
  const ScratchDirectory scratch;
  REQUIRE(::symlink("b/../b", (scratch / "a").c_str()) == 0);
  REQUIRE(::symlink((scratch / "c").c_str(), (scratch / "b").c_str()) == 0);
  ::mkdir((scratch / "c").c_str(), 0700);
  write_ok(scratch / "a/../c//./out", "x");
  write_ok(scratch / "a/deep/out", "x");
  CHECK(read_file(scratch / "c/out") == "x");
  CHECK(read_file(scratch / "c/deep/out") == "x");
  REQUIRE(::symlink("loop", (scratch / "loop").c_str()) == 0);
  CHECK(prepare_error(scratch / "loop/out").find("Too many levels of symbolic links") != std::string::npos);
  REQUIRE(::symlink("nowhere", (scratch / "dangling_directory").c_str()) == 0);
  write_ok(scratch / "dangling_directory/out", "x");  // made where it leads
  CHECK(read_file(scratch / "nowhere/out") == "x");
}

TEST_CASE("output file: missing directories are made, for their owner alone") {
  const ScratchDirectory scratch;
  const mode_t before = ::umask(0);
  write_ok(scratch / "a/b%p/out", "x");
  ::umask(before);
  CHECK(read_file(scratch / "a/b100/out") == "x");
  CHECK((mode_of(scratch / "a") & 07777) == 0700);
  CHECK((mode_of(scratch / "a/b100") & 07777) == 0700);
}

TEST_CASE("output file: a relative path stays where the program started") {
  const ScratchDirectory scratch;
  ::mkdir((scratch / "100%p").c_str(), 0700);  // a percent sign of the directory is no escape
  const std::string home = std::filesystem::current_path();
  REQUIRE(::chdir((scratch / "100%p").c_str()) == 0);
  OutputFile file;
  CHECK_FALSE(file.prepare("UBP_OUTPUT", "out.%p", fields()));
  REQUIRE(::chdir("/") == 0);
  CHECK_FALSE(file.write("x", fields()));
  REQUIRE(::chdir(home.c_str()) == 0);
  CHECK(read_file(scratch / "100%p/out.100") == "x");
  CHECK(file.path(fields()) == scratch / "100%p/out.100");
}

TEST_CASE("output file: a symbolic link is refused at load") {
  const ScratchDirectory scratch;
  write_file(scratch / "victim", "precious");
  REQUIRE(::symlink("victim", (scratch / "out").c_str()) == 0);
  REQUIRE(::symlink("nowhere", (scratch / "dangling").c_str()) == 0);
  CHECK(prepare_error(scratch / "out") == "UBP_OUTPUT: cannot write '" + (scratch / "out") +
                                              "': it is a symbolic link, and UBP never writes through one "
                                              "(choose another path, or leave it out for "
                                              "standard error)");
  CHECK(prepare_error(scratch / "dangling").find("symbolic link") != std::string::npos);
  CHECK(read_file(scratch / "victim") == "precious");
}

TEST_CASE("output file: a link that appears after load is refused at exit") {
  const ScratchDirectory scratch;
  write_file(scratch / "victim", "precious");
  OutputFile file;
  CHECK_FALSE(file.prepare("UBP_SUMMARY", scratch / "out", fields()));
  REQUIRE(::symlink("victim", (scratch / "out").c_str()) == 0);
  CHECK(file.write("x", fields()).value_or("").rfind("UBP_SUMMARY: cannot write '", 0) == 0);
  CHECK(read_file(scratch / "victim") == "precious");
  CHECK(S_ISLNK(mode_of(scratch / "out")));
  CHECK(entries_in(scratch.path()) == 2);
}

TEST_CASE("output file: a hard link is replaced, not written through") {
  const ScratchDirectory scratch;
  write_file(scratch / "victim", "precious");
  REQUIRE(::link((scratch / "victim").c_str(), (scratch / "out").c_str()) == 0);
  write_ok(scratch / "out", "x");
  CHECK(read_file(scratch / "victim") == "precious");
  CHECK(read_file(scratch / "out") == "x");
}

TEST_CASE("output file: a directory is no target") {
  const ScratchDirectory scratch;
  CHECK(prepare_error(scratch.path()).find("': it is a directory (") != std::string::npos);
  CHECK(prepare_error(scratch / "").find("add a file name") != std::string::npos);
  CHECK(prepare_error(scratch / "..").find("add a file name") != std::string::npos);
  CHECK(prepare_error("/").find("add a file name") != std::string::npos);
}

TEST_CASE("output file: neither is a socket, nor a file used as a directory, nor a name too long") {
  const ScratchDirectory scratch;
  sockaddr_un address{AF_UNIX, {}};
  std::strcpy(address.sun_path, (scratch / "socket").c_str());
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ::close(socket);
  CHECK(prepare_error(scratch / "socket").find("neither a regular file") != std::string::npos);
  write_file(scratch / "file", "");
  CHECK(prepare_error(scratch / "file/out").find("Not a directory") != std::string::npos);
  CHECK(prepare_error(scratch / "file/deep/out").find("Not a directory") != std::string::npos);
  CHECK(prepare_error(scratch / std::string(300, 'n')).find("File name too long") != std::string::npos);
}

TEST_CASE("output file: a directory without permission is told at load, as an unprivileged user") {
  const ScratchDirectory scratch;
  ::mkdir((scratch / "closed").c_str(), 0700);
  ::chmod((scratch / "closed").c_str(), 0555);
  const bool is_root = ::geteuid() == 0;
  if (is_root) REQUIRE(::seteuid(kNobody) == 0);
  const std::string existing = prepare_error(scratch / "closed/out");
  const std::string missing = prepare_error(scratch / "closed/deep/out");
  if (is_root) REQUIRE(::seteuid(0) == 0);
  CHECK(existing ==
        "UBP_OUTPUT: cannot write in '" + (scratch / "closed") + "': Permission denied (choose another path)");
  CHECK(missing == "UBP_OUTPUT: cannot make the directory '" + (scratch / "closed/deep") +
                       "': Permission denied (choose another path)");
  CHECK(entries_in(scratch / "closed") == 0);
}

TEST_CASE("output file: /dev/null and /dev/full are written to, not replaced") {
  write_ok("/dev/null", "x");
  CHECK(S_ISCHR(mode_of("/dev/null")));
  OutputFile full;
  CHECK_FALSE(full.prepare("UBP_OUTPUT", "/dev/full", fields()));
  CHECK(full.write("x", fields()).value_or("") ==
        "UBP_OUTPUT: cannot write '/dev/full': No space left on device (choose another path)");
}

TEST_CASE("output file: a FIFO is written to when somebody reads it") {
  const ScratchDirectory scratch;
  REQUIRE(::mkfifo((scratch / "fifo").c_str(), 0600) == 0);
  const int reader = ::open((scratch / "fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ::fcntl(reader, F_SETFL, 0);
  std::string received;
  std::thread reading([&] {  // more than a pipe holds: the writer has to wait for the reader
    char buffer[4096];
    while (received.size() < 200000) {
      const ssize_t got = ::read(reader, buffer, sizeof buffer);
      if (got > 0) received.append(buffer, static_cast<std::size_t>(got));
    }
  });
  write_ok(scratch / "fifo", std::string(200000, 'f'));
  reading.join();
  ::close(reader);
  CHECK(received == std::string(200000, 'f'));
  CHECK(S_ISFIFO(mode_of(scratch / "fifo")));
}

TEST_CASE("output file: a FIFO that nobody reads does not hold up the exit") {
  const ScratchDirectory scratch;
  REQUIRE(::mkfifo((scratch / "fifo").c_str(), 0600) == 0);
  OutputFile file;
  CHECK_FALSE(file.prepare("UBP_OUTPUT", scratch / "fifo", fields()));
  CHECK(file.write("x", fields()).value_or("").find("nobody reads this FIFO (start its reader first)") !=
        std::string::npos);
}

TEST_CASE("output file: a forked child without %p gets a file of its own") {
  const ScratchDirectory scratch;
  OutputFile file;
  CHECK_FALSE(file.prepare("UBP_OUTPUT", scratch / "out%%p", fields()));
  CHECK_FALSE(file.write("parent", fields()));
  CHECK_FALSE(file.write("child", fields(101)));
  CHECK(file.path(fields(101)) == scratch / "out%p.101");
  CHECK(read_file(scratch / "out%p") == "parent");
  CHECK(read_file(scratch / "out%p.101") == "child");
}

TEST_CASE("output file: with %p the pattern already tells processes apart, directories included") {
  const ScratchDirectory scratch;
  OutputFile file;
  CHECK_FALSE(file.prepare("UBP_OUTPUT", scratch / "%p/out", fields()));
  CHECK_FALSE(file.write("child", fields(101)));
  CHECK(read_file(scratch / "101/out") == "child");
}

TEST_CASE("output file: a file size limit is an error line, not the end of the process") {
  const ScratchDirectory scratch;
  const int status = run_child([&] {
    OutputFile file;
    if (file.prepare("UBP_OUTPUT", scratch / "out", fields())) return 1;
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return file.write(std::string(5000, 'x'), fields()).value_or("").find("File too large") != std::string::npos ? 0
                                                                                                                 : 2;
  });
  CHECK(exited_with(status, 0));
  CHECK(entries_in(scratch.path()) == 0);  // no half report, no leftover
}

TEST_CASE("output file: descriptors 0-2 stay closed, and none is left open") {
  const ScratchDirectory scratch;
  const int status = run_child([&] {
    ::close(0);
    ::close(1);
    ::close(2);
    const auto open_descriptors = [] {
      int count = 0;
      for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
      return count;
    };
    const int before = open_descriptors();
    OutputFile file;
    if (file.prepare("UBP_OUTPUT", scratch / "out", fields())) return 1;
    if (file.write("x", fields())) return 2;
    return open_descriptors() == before ? 0 : 3;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "out") == "x");
}

TEST_CASE("output file: an empty pattern is no file") {
  CHECK(prepare_error("") == "");
  CHECK_FALSE(OutputFile().write("x", fields()));
  CHECK(OutputFile().path(fields(1)) == "");
}

}  // namespace
}  // namespace ubp::report
