// A consumer that changes every register, flag and control word it may, against a program that keeps values in all of
// them: at a function's entry and in its middle, whichever state components are in use before and behind it.
#include "fixture.h"

#include <cpuid.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace {

constexpr std::size_t kImageBytes = 4096, kLegacyBytes = 464, kHeader = 512;
constexpr std::uint64_t kX87 = 1, kSse = 2;
constexpr std::uint64_t kStatusFlags = 0x8d5;

struct Image {
  alignas(64) std::uint8_t bytes[kImageBytes];
  template <typename Value>
  void put(std::size_t at, Value value) {
    std::memcpy(bytes + at, &value, sizeof value);
  }
  std::uint64_t in_use() const {
    std::uint64_t value;
    std::memcpy(&value, bytes + kHeader, sizeof value);
    return value;
  }
};

struct Visit {  // destroy.S
  Image *set, *got;
  std::uint64_t components, flags, has_in_use;
  void (*function)();
  std::uint32_t before, after;
  std::uint64_t in[16], out[16];
};
static_assert(offsetof(Visit, before) == 48 && offsetof(Visit, in) == 56);
struct Destruction {
  const Image* image;
  std::uint64_t components;
  std::uint64_t runs;
};

struct Component {
  std::uint64_t bit;
  unsigned size, offset;
};

// Vector, mask and x87 state that XSAVE does here, in the standard format, but the protection keys' and the tile
// registers.
std::vector<Component> find_components() {
  unsigned a = 0, b = 0, c = 0, d = 0, low = 0, high = 0;
  std::vector<Component> all;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & 1u << 27) == 0) return all;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  all = {{kX87, 0, 0}, {kSse, 0, 0}};
  for (unsigned number = 2; number < 9; ++number) {
    __cpuid_count(0xd, number, a, b, c, d);
    if ((low >> number & 1) != 0 && b + a <= kImageBytes) all.push_back({std::uint64_t{1} << number, a, b});
  }
  return all;
}

}  // namespace

extern "C" {
void destroyed(), control_destroyed();  // libfx_destroy.so
void visit(Visit* visit);
void destroy(const ubp_context* hit, void* data);
}

namespace {

class Rounds {
 public:
  explicit Rounds(void (*function)()) : function_(function) {
    for (const Component& component : components_) all_ |= component.bit;
    unsigned a = 0, b = 0, c = 0, d = 0;
    has_in_use_ = __get_cpuid_count(0xd, 1, &a, &b, &c, &d) != 0 && (a & 4) != 0;
  }
  bool can() const { return all_ != 0; }
  std::uint64_t all() const { return all_; }
  std::uint64_t runs() const { return destruction_.runs; }
  void* data() { return &destruction_; }

  // Visits with random state, where the consumer changes so much; how often something was different afterwards.
  // is_quiet: no signals, whose return may put components in use.
  int differences(int rounds, std::uint64_t destroys, bool is_quiet = true) {
    is_quiet_ = is_quiet;
    int different = 0;
    for (int round = 0; round < rounds; ++round) different += is_different(destroys);
    return different;
  }

 private:
  std::uint32_t random() { return static_cast<std::uint32_t>(random_()); }

  // Some of the components with random contents, without an exception that would be raised; the others in their initial
  // states.
  void fill(Image& image) {
    for (std::size_t at = 0; at < kImageBytes; at += 4) image.put(at, random());
    image.put<std::uint64_t>(0, 0x37f ^ (random() & 0xf00));  // precision and rounding; nothing pending
    image.put<std::uint8_t>(4, static_cast<std::uint8_t>(random() & random()));
    std::memset(image.bytes + 5, 0, 19);  // pointers: some processors do not keep them
    image.put(24, 0x1f80 | (random() & 0xe03f));
    for (int reg = 0; reg < 8; ++reg) std::memset(image.bytes + 32 + 16 * reg + 10, 0, 6);
    std::memset(image.bytes + kLegacyBytes, 0, kHeader + 64 - kLegacyBytes);
    image.put(kHeader, (random() % 3 == 0 ? all_ : random()) & all_);
  }

  bool is_different(std::uint64_t destroys) {
    fill(*set_);
    fill(*garbage_);
    destruction_.image = garbage_.get();
    destruction_.components = destroys;
    Visit seen{set_.get(), got_.get(), all_, 2 | (random() & kStatusFlags), has_in_use_, function_, 0, 0, {}, {}};
    for (std::uint64_t& value : seen.in) value = random_();
    std::memset(got_->bytes, 0, kImageBytes);
    const std::uint64_t flags = seen.flags;
    visit(&seen);
    save_again();
    // A move of xmm puts them in use, as it does everywhere, and one of zmm its lower half.
    constexpr std::uint32_t kXmm = 2, kYmm = 4, kZmm = 0x40;
    const std::uint32_t not_before = ~(seen.before | kXmm | ((seen.before & kZmm) != 0 ? kYmm : 0U));
    bool is_same =
        (seen.flags & kStatusFlags) == (flags & kStatusFlags) && (!is_quiet_ || (seen.after & not_before) == 0);
    for (int reg = 0; reg < 16; ++reg) is_same &= reg == 4 || seen.out[reg] == seen.in[reg];
    is_same &= std::memcmp(got_->bytes, again_->bytes, kLegacyBytes) == 0;
    for (const Component& component : components_) {
      static constexpr std::uint8_t kInitial[kImageBytes] = {};
      const auto of = [&](const Image& image) {
        return (image.in_use() & component.bit) != 0 ? image.bytes + component.offset : kInitial;
      };
      is_same &= std::memcmp(of(*got_), of(*again_), component.size) == 0;
    }
    return !is_same;
  }

  // What the processor makes of the state that was set.
  void save_again() {
    std::memset(again_->bytes, 0, kImageBytes);
    const std::uint32_t mxcsr = 0x1f80, low = static_cast<std::uint32_t>(all_),
                        high = static_cast<std::uint32_t>(all_ >> 32);
    asm volatile("xrstor64 (%0); xsave64 (%1); fninit; ldmxcsr %2" ::"r"(set_->bytes), "r"(again_->bytes), "m"(mxcsr),
                 "a"(low), "d"(high)
                 : "memory");
  }

  void (*function_)();
  std::vector<Component> components_ = find_components();
  std::uint64_t all_ = 0;
  bool has_in_use_ = false, is_quiet_ = true;
  std::mt19937_64 random_{7};
  std::unique_ptr<Image> set_ = std::make_unique<Image>(), got_ = std::make_unique<Image>(),
                         again_ = std::make_unique<Image>(), garbage_ = std::make_unique<Image>();
  Destruction destruction_{};
};

constexpr int kRounds = 3000;

void begin() {
  auto config = sized<ubp_config>();
  config.optimize = UBP_OPTIMIZE_ALWAYS;
  REQUIRE(ubp_init(&config) == UBP_OK);
}

std::uint64_t optimised_hits() {
  auto all = sized<ubp_stats>();
  REQUIRE(ubp_read(&all) == UBP_OK);
  return all.optimised_hits;
}

}  // namespace

TEST_CASE("whatever a consumer changes is as it was") {
  Rounds rounds(&destroyed);
  if (!rounds.can()) {
    MESSAGE("skipped: no XSAVE here");
    return;
  }
  REQUIRE(rounds.differences(kRounds, rounds.all()) == 0);  // unprobed
  begin();
  struct Kind {
    std::uint32_t flags;
    std::uint64_t destroys;
  };
  for (const char* spec : {"libfx_destroy:destroyed", "libfx_destroy:destroyed+5"}) {
    // Those first that need less: their detours will not do for the others.
    for (const Kind& kind :
         {Kind{UBP_PROBE_NO_FP | UBP_PROBE_NO_REGISTERS, 0}, Kind{UBP_PROBE_NO_FP, 0}, Kind{UBP_PROBE_SSE_ONLY, kSse},
          Kind{0, rounds.all()}, Kind{0, kX87}, Kind{0, kSse}, Kind{0, rounds.all() & ~kX87}, Kind{0, 0}}) {
      CAPTURE(std::string(spec));
      CAPTURE(kind.flags);
      CAPTURE(kind.destroys);
      const std::uint64_t before = rounds.runs(), optimised = optimised_hits();
      const Scoped probe(add(spec, &destroy, rounds.data(), kind.flags));
      CHECK(rounds.differences(kRounds, kind.destroys) == 0);
      CHECK(rounds.runs() == before + kRounds);
      CHECK(read(probe.probe).hits == kRounds);
      CHECK(optimised_hits() >= optimised + kRounds - 1);  // a thread's first hit traps
    }
  }
}

TEST_CASE("whatever a consumer changes is as it was, with signals at any moment") {
  Rounds rounds(&destroyed);
  if (!rounds.can()) return;
  begin();
  static std::atomic<long> handled;
  for (const std::uint32_t flags : {0u, static_cast<std::uint32_t>(UBP_PROBE_SSE_ONLY)}) {
    CAPTURE(flags);
    const std::uint64_t before = rounds.runs();
    const Scoped probe(add("libfx_destroy:destroyed", &destroy, rounds.data(), flags));
    const Scoped counted(add("libfx_destroy:control_destroyed"));
    handled = 0;
    int different = 0, visits = 0;
    {
      const Alarm alarm([](int) { ++handled, control_destroyed(); }, 50000);
      for (; handled < 2000 && visits < 100 * kRounds; visits += kRounds / 100) {
        different += rounds.differences(kRounds / 100, flags == 0 ? rounds.all() : kSse, false);
      }
    }
    CHECK(different == 0);
    CHECK(handled > 100);
    CHECK(rounds.runs() == before + static_cast<std::uint64_t>(visits));
    CHECK(read(counted.probe).hits == static_cast<std::uint64_t>(handled.load()));
  }
}

TEST_CASE("control: what a consumer changes and has declared not to is seen") {
  Rounds rounds(&control_destroyed);
  if (!rounds.can()) return;
  begin();
  for (const std::uint32_t flags : {UBP_PROBE_NO_FP, UBP_PROBE_SSE_ONLY}) {
    CAPTURE(flags);
    const Scoped probe(add("libfx_destroy:control_destroyed", &destroy, rounds.data(), flags));
    const std::uint64_t before = optimised_hits();
    CHECK(rounds.differences(kRounds, rounds.all()) > kRounds / 2);
    CHECK(optimised_hits() >= before + kRounds - 1);
  }
}
