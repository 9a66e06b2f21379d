// Exceptions through frames of every kind, for tests/stack/walks: objects with destructors, callbacks of libstdc++ and
// libc, frames of unknown size (alloca), many saved registers. Compiled without frame pointers. Argument: how often.
#include <alloca.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Guard {
  explicit Guard(long& count) : count_(count) {}
  ~Guard() { ++count_; }
  long& count_;
};

long g_left = 0;

[[gnu::noinline]] long fall(int depth, const std::string& why) {
  const Guard guard(g_left);
  if (depth == 0) throw std::runtime_error(why);
  auto* const room = static_cast<char*>(alloca(static_cast<std::size_t>(depth) * 16 + why.size()));
  std::memcpy(room, why.data(), why.size());
  return fall(depth - 1, why) + room[0];
}

int compare(const void* a, const void* b) {
  const long x = *static_cast<const long*>(a), y = *static_cast<const long*>(b);
  if (x == 13 && y == 13) throw std::out_of_range("thirteen");
  return x < y ? -1 : x > y;
}

[[gnu::noinline]] long many(long a, long b, long c, long d, long e, long f) {
  long s = a, t = b, u = c, v = d, w = e, x = f;
  for (int i = 0; i < 20; ++i) {
    s = s * 31 + t, t = t * 37 + u, u = u * 41 + v, v = v * 43 + w, w = w * 47 + x, x = x * 53 + s;
    if (i == 10) s += static_cast<long>(std::to_string(t).size());
  }
  return s ^ t ^ u ^ v ^ w ^ x;
}

[[gnu::noinline]] long round(int number) {
  long sum = 0;
  try {
    sum += fall(number % 17, "down " + std::to_string(number));
  } catch (const std::exception& error) {
    sum += static_cast<long>(std::strlen(error.what()));
  }
  std::vector<long> values;
  for (int i = 0; i < 40; ++i) values.push_back((number * 7919 + i * 31) % 40);
  try {
    std::qsort(values.data(), values.size(), sizeof(long), &compare);
  } catch (const std::out_of_range&) {
    ++sum;
  }
  std::map<long, std::string> names;
  std::for_each(values.begin(), values.end(),
                [&](long value) { names[value % 7] += static_cast<char>('a' + value % 26); });
  const std::function<long(long)> call = [&](long value) {
    return many(value, sum, 3, 4, 5, static_cast<long>(names.size()));
  };
  return sum + call(number);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 1000;
  unsigned long sum = 0;
  for (int i = 0; i < rounds; ++i) sum += static_cast<unsigned long>(round(i));
  std::printf("%lx %ld\n", sum, g_left);
}
