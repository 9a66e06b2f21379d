// See names.h.
#include "runtime/program/names.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstring>
#include <string>

#include "runtime/helpers/helpers.h"

namespace ubp::program {
namespace {

class Table {
 public:
  void add(const std::string& name) {
    words_.resize(words_.size() + kNameEntry / sizeof(std::uint64_t));
    name.copy(reinterpret_cast<char*>(words_.data() + words_.size()) - kNameEntry, kNameEntry - 1);
  }
  std::vector<std::uint64_t> words() { return std::move(words_); }

 private:
  std::vector<std::uint64_t> words_;
};

}  // namespace

std::vector<std::uint64_t> error_names() {
  constexpr int kLast = EHWPOISON;  // the kernel's last
  Table table;
  for (int number = 0; number <= kLast; ++number) {
    const char* const name = strerrordesc_np(number);
    table.add(name != nullptr ? name : fmt::format("Unknown error {}", number));
  }
  table.add("Unknown error");
  return table.words();
}

std::vector<std::uint64_t> signal_names() {
  Table table;
  for (int number = 0; number < NSIG; ++number) {
    const char* const name = sigdescr_np(number);
    table.add(name != nullptr     ? name
              : number < SIGRTMIN ? fmt::format("Unknown signal {}", number)
                                  : fmt::format("Real-time signal {}", number - SIGRTMIN));
  }
  table.add("N/A");
  return table.words();
}

}  // namespace ubp::program
