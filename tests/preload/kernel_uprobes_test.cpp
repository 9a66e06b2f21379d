// Independent counts: the kernel's uprobes (perf_event_open, type "uprobe") on the same instructions of the
// same program count the same. Needs root or perf rights and a kernel with uprobes; otherwise it says SKIP
// and why.
//
// What the kernel cannot do is left out: it refuses some instructions, silently at exec (lock prefixes, VEX,
// syscall), counts a repeated string instruction once per element, and spoils pushf.
#include <doctest/doctest.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "harness.h"

namespace ubp::test::kernel_uprobes_test {

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

std::uint64_t file_offset(const std::string& path, const Point& point) {
  std::size_t plus = point.item.find('+');
  std::uint64_t offset = plus == std::string::npos ? 0 : std::stoull(point.item.substr(plus + 1), nullptr, 16);
  return offset + file_offset(path, point.item.substr(0, plus));
}

// pushf, single-stepped by the kernel, pushes the kernel's own trap flag: the program's next popf kills it.
// rep movsb and rep stosb are single-stepped element by element.
bool is_spoiled_by_kernel(const std::string& file, std::uint64_t offset) {
  std::string_view code = std::string_view(file).substr(offset, 2);
  return code[0] == '\x9c' || code == "\xf3\xaa" || code == "\xf3\xa4";
}

std::optional<unsigned> uprobe_type() {
  std::string text = read_file("/sys/bus/event_source/devices/uprobe/type");
  if (text.empty()) return std::nullopt;
  return static_cast<unsigned>(std::stoul(text));
}

// A counter of one instruction: of one single-threaded process from its exec on (pid), or of all on one CPU
// (pid -1). Counting threads by inheritance does not work: the kernel reads the path again in the new
// thread's memory. Returns -1 with errno.
int open_counter(unsigned type, const std::string& path, std::uint64_t offset, pid_t pid, int cpu) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = type;
  attr.uprobe_path = reinterpret_cast<std::uint64_t>(path.c_str());
  attr.probe_offset = offset;
  attr.disabled = pid >= 0;
  attr.enable_on_exec = pid >= 0;
  return static_cast<int>(::syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC));
}

struct Counter {
  Point point;
  std::vector<int> fds;  // one, or one for each CPU
  std::uint64_t count = 0;
};

std::vector<int> open_counters(unsigned type, const std::string& path, std::uint64_t offset, pid_t pid) {
  std::vector<int> fds;
  long cpus = pid >= 0 ? 1 : ::sysconf(_SC_NPROCESSORS_CONF);
  for (int cpu = 0; cpu < cpus; ++cpu) {
    int fd = open_counter(type, path, offset, pid, pid >= 0 ? -1 : cpu);
    if (fd >= 0) fds.push_back(fd);
    if (fd < 0 && errno != ENODEV) return {};  // ENODEV: this CPU is offline
  }
  return fds;
}

std::uint64_t read_counters(const std::vector<int>& fds) {
  std::uint64_t sum = 0;
  for (int fd : fds) {
    std::uint64_t count = 0;
    if (::read(fd, &count, sizeof count) != sizeof count) throw std::runtime_error("cannot read a counter");
    sum += count;
    ::close(fd);
  }
  return sum;
}

// Starts argv (output discarded) when something arrives on `start`; a closed pipe ends the process instead.
pid_t start_waiting(std::vector<std::string> argv, const int start[2]) {
  std::vector<char*> pointers;
  for (std::string& s : argv) pointers.push_back(s.data());
  pointers.push_back(nullptr);
  pid_t child = ::fork();
  if (child != 0) return child;
  char go;
  ::close(start[1]);
  if (::read(start[0], &go, 1) != 1) ::_exit(126);
  ::dup2(::open("/dev/null", O_WRONLY), 1);
  ::execv(pointers[0], pointers.data());
  ::_exit(127);
}

// Runs argv without UBP, counted by the kernel. Points that the kernel refuses are left out; error says why.
// has_threads: count on all CPUs; the program must then be a file that nobody else runs.
std::vector<Counter> count_by_kernel(const std::vector<std::string>& argv, const std::vector<Point>& all,
                                     bool has_threads, std::string& error) {
  std::vector<Counter> counters;
  std::optional<unsigned> type = uprobe_type();
  int start[2];
  if (!type) {
    error = "no /sys/bus/event_source/devices/uprobe";
    return counters;
  }
  if (::pipe2(start, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  pid_t child = start_waiting(argv, start);
  ::close(start[0]);
  for (const Point& point : all) {
    std::vector<int> fds = open_counters(*type, argv[0], file_offset(argv[0], point), has_threads ? -1 : child);
    if (fds.empty()) error = std::string("perf_event_open: ") + std::strerror(errno);
    if (!fds.empty()) counters.push_back({point, fds});
  }
  if (!counters.empty() && ::write(start[1], "g", 1) != 1) throw std::runtime_error("write");
  ::close(start[1]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!counters.empty()) CHECK(status == 0);
  for (Counter& counter : counters) counter.count = read_counters(counter.fds);
  std::erase_if(counters, [](const Counter& counter) { return counter.count == 0 && counter.point.times != 0; });
  return counters;
}

void compare(std::vector<std::string> argv, const std::vector<Point>& all, std::size_t at_least, bool has_threads) {
  ScratchFolder folder;  // a copy of its own: other tests run the same fixture at the same time
  std::string copy = folder.path() + argv[0].substr(argv[0].rfind('/'));
  std::filesystem::copy_file(argv[0], copy);
  argv[0] = copy;
  std::string error;
  std::vector<Counter> counters = count_by_kernel(argv, all, has_threads, error);
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

TEST_CASE("kernel_uprobes_agree: function entries, several threads") {
  compare({fixture("fx_count"), "3", "20000"}, {{"f"}, {"main"}}, 2, true);
  compare({fixture("fx_cycle"), "20", "500", "2"}, {{"cycle_0"}, {"cycle_19"}, {"cycle_20"}, {"main"}}, 4, true);
}

TEST_CASE("kernel_uprobes_agree: the instructions of mixed") {
  std::string path = fixture("fx_mixed"), file = read_file(path);
  std::vector<Point> every_third;  // opening and closing a counter costs the kernel tens of milliseconds
  std::size_t i = 0;
  for (const Point& point : points(run_plain({path, "--offsets"}).out)) {
    bool is_chosen = i++ % 3 == 0 && !is_spoiled_by_kernel(file, file_offset(path, point));
    if (is_chosen) every_third.push_back(point);
  }
  compare({path, "1", "500"}, every_third, every_third.size() * 2 / 3, false);
}

}  // namespace ubp::test::kernel_uprobes_test
