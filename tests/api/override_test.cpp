// Calls that a probe ends at once: what they return, which are allowed to be, and that nothing else changes.
#include "fixture.h"

#include <dlfcn.h>
#include <strings.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// One that begins with ENDBR64, one of a single byte, and one that another tail-calls.
extern "C" long override_endbr(long);
extern "C" void override_return();
extern "C" long override_tail(long);
extern "C" long override_far(long);
asm(".pushsection .text\n"
    ".globl override_endbr\n.type override_endbr, @function\noverride_endbr: endbr64\nlea 1(%rdi), %rax\nret\n"
    ".size override_endbr, . - override_endbr\n"
    ".globl override_return\n.type override_return, @function\noverride_return: ret\n"
    ".size override_return, . - override_return\n"
    ".globl override_far\n.type override_far, @function\noverride_far: lea 3(%rdi), %rax\nnop\nret\n"
    ".size override_far, . - override_far\n"
    ".globl override_tail\n.type override_tail, @function\noverride_tail: add $1, %rdi\njmp override_far\n"
    ".size override_tail, . - override_tail\n"
    ".popsection");

namespace {

struct Rule {
  long at = -1;  // which call ends; -1: each
  std::uint64_t value = 0;
  long calls = 0;
  ubp_status status = UBP_OK;
};
void end_call(const ubp_context* hit, void* data) {
  auto& rule = *static_cast<Rule*>(data);
  const long call = rule.calls++;
  if (rule.at < 0 || call == rule.at) rule.status = ubp_context_return(hit, rule.value);
}

// A function of libc's own, where a sanitizer has one of the same name.
template <typename Function>
Function* of_libc(const char* name, Function*) {
  void* const libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  REQUIRE(libc != nullptr);
  return reinterpret_cast<Function*>(dlsym(libc, name));
}

ubp_status refused(const char* spec, ubp_refusal& refusal, std::uint32_t flags = UBP_PROBE_OVERRIDE) {
  auto options = sized<ubp_options>();
  static Rule rule;
  options.consumer = &end_call;
  options.data = &rule;
  options.flags = flags;
  refusal = sized<ubp_refusal>();
  return ubp_register(spec, &options, nullptr, &refusal);
}

}  // namespace

TEST_CASE("override: a call returns at once, and the hit counts") {
  Rule rule{2, 77};
  {
    const Scoped probe(add("libfx_target:target_add", &end_call, &rule, UBP_PROBE_OVERRIDE));
    CHECK(target_add(1, 2) == 3);
    CHECK(target_add(1, 2) == 3);
    CHECK(target_add(1, 2) == 77);
    CHECK(target_add(1, 2) == 3);
    CHECK(target_twice(5) == 10);
    rule = {-1, ~std::uint64_t{0}};
    CHECK(target_twice(5) == -1);
    CHECK(target_quiet(5) == (5 ^ 0x55));
    const ubp_probe_stats stats = read(probe.probe);
    CHECK(stats.hits == 6);
    CHECK(stats.recorded == 6);
  }
  CHECK(target_add(1, 2) == 3);
}

TEST_CASE("override: control: without the flag nothing is overridden, and the consumer is told") {
  Rule rule{-1, 77};
  const Scoped probe(add("libfx_target:target_add", &end_call, &rule));
  CHECK(target_add(1, 2) == 3);
  CHECK(rule.status == UBP_E_REFUSED);
}

TEST_CASE("override: a caller's registers, flags and errno stay") {
  Rule rule{-1, 5};
  const Scoped probe(add("libfx_target:target_quiet", &end_call, &rule, UBP_PROBE_OVERRIDE));
  errno = 11;
  for (int turn = 0; turn < 3; ++turn) {
    long result = 0, rbx = 0, r12 = 0, rsp_moved = 0;
    double xmm = 0;
    asm volatile(
        "mov %%rsp, %%r13\nmov $3, %%ebx\nmov $12, %%r12d\nmov $1, %%edi\nmov $0x4045000000000000, %%rax\n"
        "movq %%rax, %%xmm3\nsub $128, %%rsp\nand $-16, %%rsp\nmov %%rsp, %%r14\ncall *%[function]\nmov %%r14, %%rcx\n"
        "sub %%rsp, %%rcx\nmov %%r13, %%rsp\n"
        : "=&a"(result), "=&b"(rbx), "=&c"(rsp_moved)
        : [function] "r"(reinterpret_cast<void*>(&target_quiet))
        : "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "xmm3", "memory", "cc");
    asm volatile("mov %%r12, %0\nmovsd %%xmm3, %1" : "=r"(r12), "=m"(xmm));
    CHECK(result == 5);
    CHECK(rbx == 3);
    CHECK(rsp_moved == 0);
  }
  CHECK(errno == 11);
}

TEST_CASE("override: all consumers run, the first one's word counts") {
  Rule first{-1, 1}, second{-1, 2}, none{1000, 3};
  const Scoped zero(add("libfx_target:target_add", &end_call, &none, UBP_PROBE_OVERRIDE));
  ubp_probe* const one = add("libfx_target:target_add", &end_call, &first, UBP_PROBE_OVERRIDE);
  const Scoped two(add("libfx_target:target_add", &end_call, &second, UBP_PROBE_OVERRIDE));
  const Scoped program(add("libfx_target:target_add { @n++; override(4); }"));
  const Scoped bare(add("libfx_target:target_add"));
  CHECK(target_add(5, 5) == 1);
  CHECK(first.status == UBP_OK);
  CHECK(second.status == UBP_E_REFUSED);
  CHECK(ubp_unregister(one) == UBP_OK);
  CHECK(target_add(5, 5) == 2);
  CHECK(ubp_disable(two.probe) == UBP_OK);
  CHECK(target_add(5, 5) == 4);
  CHECK(ubp_disable(program.probe) == UBP_OK);
  CHECK(target_add(5, 5) == 10);
  CHECK(none.calls == 4);
  CHECK(first.calls == 1);
  CHECK(read(bare.probe).hits == 4);
  std::int64_t hits = 0;
  CHECK(ubp_map_number(program.probe, "@n", &hits) == UBP_OK);
  CHECK(hits == 3);
}

TEST_CASE("override: together with registers that a consumer changes") {
  Rule rule{-1, 9};
  const auto modify = [](const ubp_context* hit, void*) {
    ubp_context_set_register(hit, UBP_RDI, 100);
    ubp_context_set_register(hit, UBP_RAX, 1);
  };
  const Scoped modifies(add("libfx_target:target_add", modify, nullptr, UBP_PROBE_MODIFY));
  CHECK(target_add(1, 2) == 102);
  const Scoped ends(add("libfx_target:target_add", &end_call, &rule, UBP_PROBE_OVERRIDE));
  CHECK(target_add(1, 2) == 9);
}

TEST_CASE("override: ENDBR64, a single byte, tail calls, IFUNCs, what is called through a PLT") {
  Rule rule{-1, 40};
  const Scoped endbr(add("override_endbr; override_return; override_far; libc:strncasecmp; libc:getppid", &end_call,
                         &rule, UBP_PROBE_OVERRIDE));
  for (int turn = 0; turn < 3; ++turn) {
    CHECK(override_endbr(1) == 40);
    CHECK(override_tail(1) == 40);
    override_return();
    CHECK(of_libc("strncasecmp", &strncasecmp)("a", "b", 1) == 40);
    CHECK(getppid() == 40);
  }
  CHECK(read(endbr.probe).hits == 15);
}

TEST_CASE("override: exceptions pass as ever") {
  Rule rule{-1, 3};
  const Scoped probe(add("libfx_target:target_add", &end_call, &rule, UBP_PROBE_OVERRIDE));
  int caught = 0;
  for (int turn = 0; turn < 100; ++turn) {
    try {
      if (target_add(turn, 1) == 3) throw std::runtime_error("three");
    } catch (const std::runtime_error&) {
      ++caught;
    }
  }
  CHECK(caught == 100);
}

TEST_CASE("override: only where a function is called") {
  ubp_refusal refusal;
  for (const char* spec : {"libfx_target:target_add+4", "insn:libfx_target:target_add", "insn:libfx_target:target_*"}) {
    CAPTURE(spec);
    CHECK(refused(spec, refusal) == UBP_E_REFUSED);
    CHECK(std::string(refusal.message).find("not-called: ") != std::string::npos);
  }
  CHECK(refused("libfx_target:target_add+4 { override(1); }", refusal, 0) ==
        UBP_E_INVALID);  // its consumer has no target
  const auto program = [&](const char* text) {
    refusal = sized<ubp_refusal>();
    return ubp_register(text, nullptr, nullptr, &refusal);
  };
  CHECK(program("libfx_target:target_add+4 { override(1); }") == UBP_E_REFUSED);
  CHECK(std::string(refusal.message).find("not-called: ") != std::string::npos);
  CHECK(program("insn:libfx_target:target_add { override(1); }") == UBP_E_REFUSED);
  CHECK(program("begin { override(1); }") == UBP_E_SPEC);
  CHECK(program("interval:s:1 { override(1); } libfx_target:target_add { @n++; }") == UBP_E_SPEC);
  CHECK(std::string(refusal.message).find("override()") != std::string::npos);
  CHECK(program("libfx_target:target_add { override(\"text\"); }") == UBP_E_SPEC);
  CHECK(program("libfx_target:target_add { override(); }") == UBP_E_SPEC);
  auto options = sized<ubp_options>();
  options.flags = UBP_PROBE_OVERRIDE;
  CHECK(ubp_register("libfx_target:target_add", &options, nullptr, nullptr) == UBP_E_INVALID);  // without a consumer
  Rule rule{-1, 6};
  options.consumer = &end_call;
  options.data = &rule;
  ubp_probe* probe = nullptr;
  CHECK(ubp_register_address(reinterpret_cast<const char*>(&override_endbr) + 4, &options, &probe, nullptr) ==
        UBP_E_REFUSED);
  REQUIRE(ubp_register_address(reinterpret_cast<const void*>(&override_endbr), &options, &probe, nullptr) == UBP_OK);
  const Scoped scoped(probe);
  CHECK(override_endbr(1) == 6);
}

TEST_CASE("override in a program: the third call fails") {
  const Scoped probe(add("libfx_target:target_add { @n++; if (@n == 3) { override(-1); } }"));
  std::vector<long> results;
  for (int i = 0; i < 5; ++i) results.push_back(target_add(i, 1));
  CHECK(results == std::vector<long>{1, 2, -1, 4, 5});
  const Scoped filtered(add("libfx_target:target_quiet /arg0 > 100/ { override(arg0 + 1); }"));
  CHECK(target_quiet(1) == (1 ^ 0x55));
  CHECK(target_quiet(1000) == 1001);
}

TEST_CASE("override: malloc's third call fails, in this process") {
  const std::string spec =
      "libc:malloc /tid == " + std::to_string(gettid()) + " && arg0 == 98765/ { @n++; if (@n == 3) { override(0); } }";
  const Scoped probe(add(spec.c_str()));
  std::string got;
  for (int i = 0; i < 5; ++i) {
    void* const memory = of_libc("malloc", &std::malloc)(98765);
    got += memory != nullptr ? '1' : '0';
    of_libc("free", &std::free)(memory);
  }
  CHECK(got == "11011");
}

TEST_CASE("override: from many threads, under signals, every call and no other") {
  const Scoped probe(add("libfx_target:target_add /arg0 % 3 == 0/ { override(-arg0); @n = count(); }"));
  static std::atomic<long> handled{0};
  handled = 0;
  const Alarm alarm(
      [](int) {
        ++handled;
        if (target_add(1, 1) != 2) std::abort();
        if (target_add(3, 1) != -3) std::abort();
      },
      1'000'000);  // a slow machine has time for more than its handler
  std::atomic<long> wrong{0};
  constexpr long kCalls = 50'000;
  std::vector<std::thread> threads;
  for (int number = 0; number < 3; ++number) {
    threads.emplace_back([&wrong] {
      for (long i = 0; i < kCalls; ++i) wrong += target_add(i, 1) != (i % 3 == 0 ? -i : i + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (handled < 10) usleep(1000);
  CHECK(wrong == 0);
  const ubp_probe_stats stats = read(probe.probe);
  CHECK(stats.hits >= 3 * kCalls);
  std::int64_t ended = 0;
  CHECK(ubp_map_number(probe.probe, "@n", &ended) == UBP_OK);
  CHECK(ended >= kCalls);
}
