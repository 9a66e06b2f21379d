// Drives a fuzz target without libFuzzer: reads the inputs in the tree, then mutations of them that follow from a seed.
//
//   TARGET [--seconds N] [--runs N] [--seed N] [--artifacts FOLDER] FILE-or-FOLDER...
//
// Stops after N seconds or N mutations, whichever comes first (default 5 seconds). An input that ends the process is
// written to FOLDER (default: the working directory) as failure-SEED-RUN; `TARGET --runs 0 FILE` repeats it.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"

namespace {

using Bytes = std::vector<std::uint8_t>;
namespace fs = std::filesystem;

constexpr std::size_t kMostBytes = 1 << 16;

struct Arguments {
  double seconds = 5;
  std::uint64_t runs = ~std::uint64_t{0};
  std::uint64_t seed = 1;
  std::string artifacts = ".";
  std::vector<fs::path> paths;
};

// What is being run, for the signal handler.
const Bytes* g_input;
char g_failure_path[4096];

// The target aborts, ASan and UBSan abort (abort_on_error), a wild pointer faults.
void on_fatal(int signal_number) {
  const int fd = open(g_failure_path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd >= 0 && g_input != nullptr) {
    const ssize_t ignored = write(fd, g_input->data(), g_input->size());
    (void)ignored;
    close(fd);
  }
  dprintf(2, "the input is in %s\n", g_failure_path);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void run_one(const Bytes& input) {
  g_input = &input;
  const Bytes exact(input);  // no spare capacity: ASan sees a read one byte behind it
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

Bytes read_file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(stream), {}};
  bytes.resize(std::min(bytes.size(), kMostBytes));
  return bytes;
}

std::vector<fs::path> files_of(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// One small change: bytes flipped, set, inserted, removed, repeated, or taken from another input.
void mutate(Bytes& bytes, const std::vector<Bytes>& corpus, ubp::fuzz::Numbers& numbers) {
  static constexpr std::uint8_t kInteresting[] = {0x00, 0x01, 0x0f, 0x40, 0x48, 0x66, 0x67, 0x7f, 0x80, 0xc4,
                                                  0xc5, 0x62, 0xf0, 0xf2, 0xf3, 0xff, '*',  '[',  ':',  '\\'};
  const auto offset = [&] { return static_cast<std::ptrdiff_t>(numbers.below(bytes.size() + 1)); };
  const Bytes& other = corpus[numbers.below(corpus.size())];
  const std::uint64_t kind = bytes.empty() ? 2 : numbers.below(7);
  switch (kind) {
    case 0: bytes[numbers.below(bytes.size())] ^= static_cast<std::uint8_t>(1u << numbers.below(8)); break;
    case 1: bytes[numbers.below(bytes.size())] = static_cast<std::uint8_t>(numbers.next()); break;
    case 2: bytes.insert(bytes.begin() + offset(), kInteresting[numbers.below(std::size(kInteresting))]); break;
    case 3: bytes[numbers.below(bytes.size())] = kInteresting[numbers.below(std::size(kInteresting))]; break;
    case 4: {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(numbers.below(bytes.size()));
      const auto count = static_cast<std::ptrdiff_t>(numbers.below(16)) + 1;
      const auto first = bytes.begin() + at;
      bytes.erase(first, bytes.end() - first > count ? first + count : bytes.end());
      break;
    }
    default: {
      if (other.empty()) break;
      const std::size_t from = numbers.below(other.size());
      const std::size_t count = std::min<std::size_t>(other.size() - from, numbers.below(32) + 1);
      const Bytes piece(other.begin() + static_cast<std::ptrdiff_t>(from),
                        other.begin() + static_cast<std::ptrdiff_t>(from + count));
      if (kind == 5 && bytes.size() >= count) {
        const std::size_t at = numbers.below(bytes.size() - count + 1);
        std::copy(piece.begin(), piece.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
      } else {
        bytes.insert(bytes.begin() + offset(), piece.begin(), piece.end());
      }
    }
  }
  if (bytes.size() > kMostBytes) bytes.resize(kMostBytes);
}

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.starts_with("--")) {
      arguments.paths.emplace_back(word);
      continue;
    }
    if (i + 1 == argc) return false;
    const std::string value = argv[++i];
    if (word == "--seconds")
      arguments.seconds = std::stod(value);
    else if (word == "--runs")
      arguments.runs = std::stoull(value);
    else if (word == "--seed")
      arguments.seed = std::stoull(value);
    else if (word == "--artifacts")
      arguments.artifacts = value;
    else
      return false;
  }
  return !arguments.paths.empty();
}

void name_failure(const Arguments& arguments, std::uint64_t run) {
  std::snprintf(g_failure_path, sizeof g_failure_path, "%s/failure-%lu-%lu", arguments.artifacts.c_str(),
                static_cast<unsigned long>(arguments.seed), static_cast<unsigned long>(run));
}

}  // namespace

extern "C" const char* __asan_default_options() { return "abort_on_error=1:handle_segv=0:detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) {
    std::fprintf(stderr, "usage: %s [--seconds N] [--runs N] [--seed N] [--artifacts FOLDER] FILE-or-FOLDER...\n",
                 argv[0]);
    return 2;
  }
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM}) signal(number, on_fatal);
  std::vector<Bytes> corpus;
  name_failure(arguments, 0);
  for (const fs::path& path : files_of(arguments.paths)) {
    corpus.push_back(read_file(path));
    run_one(corpus.back());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "no input found\n");
    return 2;
  }
  const auto start = std::chrono::steady_clock::now();
  const auto spent = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::uint64_t run = 0;
  while (run < arguments.runs && spent() < arguments.seconds) {
    ++run;
    ubp::fuzz::Numbers numbers(arguments.seed * 0x100000001 + run);  // one run repeats without those before it
    Bytes bytes = corpus[numbers.below(corpus.size())];
    for (std::uint64_t changes = numbers.below(8) + 1; changes > 0; --changes) mutate(bytes, corpus, numbers);
    name_failure(arguments, run);
    alarm(20);  // an input that hangs
    run_one(bytes);
  }
  alarm(0);
  std::printf("%zu inputs and %lu mutations of them (seed %lu) in %.1f s\n", corpus.size(),
              static_cast<unsigned long>(run), static_cast<unsigned long>(arguments.seed), spent());
  return 0;
}
