// Independent counts: the kernel's uprobes (perf_event_open, type "uprobe") on the same instructions of the same
// program count the same. Needs root or perf rights and a kernel with uprobes; otherwise it says SKIP and why.
//
// Some instructions the kernel refuses to probe (lock prefixes, popf, ...): those are left out.
#include <doctest/doctest.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "harness.h"

using namespace ubp::test;

namespace {

// The place in the file of a function's first byte.
std::uint64_t file_offset(const std::string& path, const std::string& symbol) {
  std::string file = read_file(path);
  const char* base = file.data();
  auto at = [base](std::uint64_t offset, auto* to) { std::memcpy(to, base + offset, sizeof *to); };
  Elf64_Ehdr header{};
  at(0, &header);
  std::uint64_t address = 0;
  for (int i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr table{}, names{};
    at(header.e_shoff + i * sizeof table, &table);
    if (table.sh_type != SHT_SYMTAB) continue;
    at(header.e_shoff + table.sh_link * sizeof names, &names);
    for (std::uint64_t place = 0; place < table.sh_size; place += sizeof(Elf64_Sym)) {
      Elf64_Sym entry{};
      at(table.sh_offset + place, &entry);
      if (symbol == base + names.sh_offset + entry.st_name) address = entry.st_value;
    }
  }
  for (int i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    at(header.e_phoff + i * sizeof segment, &segment);
    if (segment.p_type == PT_LOAD && address >= segment.p_vaddr && address < segment.p_vaddr + segment.p_filesz) {
      return address - segment.p_vaddr + segment.p_offset;
    }
  }
  throw std::runtime_error("no symbol " + symbol + " in " + path);
}

std::optional<unsigned> uprobe_type() {
  std::string text = read_file("/sys/bus/event_source/devices/uprobe/type");
  if (text.empty()) return std::nullopt;
  return static_cast<unsigned>(std::stoul(text));
}

// A counter of one instruction in one process (and its threads), from its exec on; -1 with errno.
int open_counter(unsigned type, const std::string& path, std::uint64_t offset, pid_t pid) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = type;
  attr.uprobe_path = reinterpret_cast<std::uint64_t>(path.c_str());
  attr.probe_offset = offset;
  attr.disabled = 1;
  attr.enable_on_exec = 1;
  attr.inherit = 1;
  return static_cast<int>(::syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

struct Counter {
  Point point;
  int fd;
  std::uint64_t count;
};

// Runs argv unprobed by UBP, counted by the kernel. Points that the kernel refuses are left out; error says why
// none was accepted.
std::vector<Counter> count_by_kernel(std::vector<std::string> argv, const std::vector<Point>& all, std::string& error) {
  std::vector<Counter> counters;
  std::optional<unsigned> type = uprobe_type();
  if (!type) {
    error = "no /sys/bus/event_source/devices/uprobe";
    return counters;
  }
  int start[2];
  if (::pipe2(start, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  std::vector<char*> pointers;
  for (std::string& s : argv) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  pid_t child = ::fork();
  if (child == 0) {
    char go;
    ::close(start[1]);
    if (::read(start[0], &go, 1) != 1) ::_exit(126);
    int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ::close(start[0]);
  for (const Point& point : all) {
    std::size_t plus = point.item.find('+');
    std::uint64_t offset = plus == std::string::npos ? 0 : std::stoull(point.item.substr(plus + 1), nullptr, 16);
    offset += file_offset(argv[0], point.item.substr(0, plus));
    int fd = open_counter(*type, argv[0], offset, child);
    if (fd >= 0) {
      counters.push_back({point, fd, 0});
    } else {
      error = std::string("perf_event_open: ") + std::strerror(errno);
    }
  }
  if (!counters.empty() && ::write(start[1], "g", 1) != 1) throw std::runtime_error("write");
  ::close(start[1]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!counters.empty()) CHECK(status == 0);
  for (Counter& counter : counters) {
    if (::read(counter.fd, &counter.count, sizeof counter.count) != sizeof counter.count) counter.count = ~0ull;
    ::close(counter.fd);
  }
  return counters;
}

void compare(const std::vector<std::string>& argv, const std::vector<Point>& all, std::size_t at_least) {
  std::string error;
  std::vector<Counter> counters = count_by_kernel(argv, all, error);
  if (counters.empty()) {
    MESSAGE("SKIP: the kernel's uprobes cannot be used: " << error);
    return;
  }
  MESSAGE("the kernel counts " << counters.size() << " of " << all.size() << " instructions");
  CHECK(counters.size() >= at_least);
  std::vector<Point> accepted;
  for (const Counter& counter : counters) accepted.push_back(counter.point);
  Outcome probed = run_probed(argv, probe_list(accepted));
  CHECK(probed.end() == "exit 0");
  nlohmann::json summary = probed.summary();
  std::string wrong;
  for (const Counter& counter : counters) {
    std::uint64_t ours = hits(summary, counter.point.item);
    if (ours == counter.count) continue;
    wrong += counter.point.item + ": kernel " + std::to_string(counter.count) + ", UBP " + std::to_string(ours) + "\n";
  }
  CHECK(wrong == "");
}

}  // namespace

TEST_CASE("kernel_uprobes_agree: function entries") {
  compare({fixture("fx_count"), "3", "20000"}, {{"f", 0}, {"main", 0}}, 2);
  compare({fixture("fx_cycle"), "20", "500", "2"}, {{"cycle_0", 0}, {"cycle_19", 0}, {"cycle_20", 0}, {"main", 0}}, 4);
}

TEST_CASE("kernel_uprobes_agree: the instructions of mixed") {
  std::vector<Point> all = points(run_plain({fixture("fx_mixed"), "--offsets"}).out);
  compare({fixture("fx_mixed"), "2", "500"}, all, all.size() / 2);
}
