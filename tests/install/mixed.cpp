// A C++ program with UBP, and so a libstdc++ that is not its own, inside: exceptions, streams and operator new stay
// apart.
#include <ubp.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <locale>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {
constexpr int kCalls = 1000;
int g_failures = 0;
long g_news = 0;

template <typename Detail>
void check(bool is_good, const char* what, const Detail& detail) {
  if (is_good) return;
  std::cout << "mixed: " << what << ": " << detail << '\n';
  ++g_failures;
}

unsigned long hits(ubp_probe* probe) {
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  check(ubp_probe_read(probe, &stats) == UBP_OK, "ubp_probe_read", "failed");
  return stats.hits;
}

void use_streams(const ubp_context*, void* data) {
  std::ostringstream text;
  text << 1234.5 << ' ' << "text";
  const char point = std::use_facet<std::numpunct<char>>(text.getloc()).decimal_point();
  *static_cast<int*>(data) += text.str() == "1234.5 text" && point == '.';
}
}  // namespace

void* operator new(std::size_t bytes) {
  ++g_news;
  if (void* const memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

__attribute__((noinline)) void thrower(int value) {
  if (value % 2 == 0) throw std::runtime_error("even " + std::to_string(value));
}

int main() {
  ubp_probe* thrown = nullptr;
  ubp_probe* refused = nullptr;
  int streams = 0, caught = 0;
  ubp_options options{};
  options.struct_size = sizeof options;
  options.consumer = &use_streams;
  options.data = &streams;
  ubp_refusal refusal{};
  refusal.struct_size = sizeof refusal;
  const long news = g_news;
  check(ubp_init(nullptr) == UBP_OK, "ubp_init", "failed");
  const ubp_status all = ubp_register("insn:\"thrower(int)\"", nullptr, nullptr, &refusal);
  check(all == UBP_OK, "ubp_register", refusal.message);
  const ubp_status entry = ubp_register("\"thrower(int)\"", &options, &thrown, &refusal);
  check(entry == UBP_OK, "ubp_register", refusal.message);
  check(ubp_register("no_such", nullptr, &refused, &refusal) == UBP_E_NOT_FOUND, "a missing function", "is found");
  check(g_news == news, "calls of the program's operator new by UBP", g_news - news);
  for (int i = 0; i < kCalls; ++i) {
    try {
      thrower(i);
    } catch (const std::exception& error) {
      caught += error.what() == "even " + std::to_string(i);
    }
  }
  check(caught == kCalls / 2, "caught", caught);
  check(hits(thrown) == kCalls, "hits", hits(thrown));
  check(streams == kCalls, "streams", streams);
  check(ubp_shutdown() == UBP_OK, "ubp_shutdown", "failed");
  return g_failures != 0;
}
