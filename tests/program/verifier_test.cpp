// The verifier itself: code as blocks have it passes, and with any one thing wrong in it does not. That the blocks of
// programs pass is looked at wherever a test compiles one (compiled.h).
#include "tests/program/verifier.h"

#include <doctest/doctest.h>

#include <functional>
#include <string_view>

#include "compiled.h"
#include "runtime/base/xbyak.h"
#include "runtime/helpers/helpers.h"

using namespace ubp::program;

namespace {

// A block by hand: the beginning and the end are right, but for what a test puts in.
class Block : public Xbyak::CodeGenerator {
 public:
  static constexpr std::uint32_t kFrame = 88;
  static constexpr int kRun = -8 - static_cast<int>(sizeof(Run));
  using Body = std::function<void(Block&)>;

  explicit Block(const Body& body, std::uint32_t frame = kFrame, int run = kRun) {
    push(rbp);
    mov(rbp, rsp);
    push(rbx);
    sub(rsp, frame);
    lea(rbx, ptr[rbp + run]);
    mov(qword[rbx + offsetof(Run, budget)], 1000);
    body(*this);
    L(end);
    mov(rbx, ptr[rbp - 8]);
    leave();
    ret();
  }
  void invoke(std::uint64_t function) {
    mov(rax, function);
    call(rax);
  }
  void spend() {
    Xbyak::Label goes_on;
    sub(qword[rbx + offsetof(Run, budget)], 1);
    jns(goes_on, T_NEAR);
    jmp(end, T_NEAR);
    L(goes_on);
  }
  std::string refusal() { return refusal_of({getCode(), getSize()}, reinterpret_cast<std::uint64_t>(getCode())); }

  Xbyak::Label end;
};

std::string refusal(const Block::Body& body) { return Block(body).refusal(); }
bool is_refused_for(std::string_view why, const Block::Body& body) {
  const std::string text = refusal(body);
  const bool is = text.find(why) != std::string::npos;
  if (!is) MESSAGE("refused for '" << text << "', not for '" << why << "'");
  return is;
}
const std::uint64_t kHelper = reinterpret_cast<std::uint64_t>(&count_site);

}  // namespace

TEST_CASE("verifier: what blocks do passes") {
  CHECK(refusal([](Block&) {}).empty());
  CHECK(refusal([](Block& b) { b.mov(b.qword[b.rbp - 88], b.rax); }).empty());
  CHECK(refusal([](Block& b) { b.mov(b.qword[b.rbx + offsetof(Run, dropped)], 1); }).empty());
  CHECK(refusal([](Block& b) { b.invoke(kHelper); }).empty());
  CHECK(refusal([](Block& b) { b.lea(b.rdx, b.ptr[b.rbp - 88]); }).empty());
  CHECK(refusal([](Block& b) {
          Xbyak::Label again;
          b.L(again);
          b.spend();
          b.test(b.rax, b.rax);
          b.jz(b.end, Block::T_NEAR);
          b.jmp(again, Block::T_NEAR);
        }).empty());
  CHECK(refusal([](Block& b) {  // unroll
          Xbyak::Label again;
          b.mov(b.qword[b.rbp - 88], 5);
          b.L(again);
          b.invoke(kHelper);
          b.sub(b.qword[b.rbp - 88], 1);
          b.jnz(again, Block::T_NEAR);
        })
            .empty());
}

TEST_CASE("verifier: stores elsewhere") {
  constexpr std::string_view kWhy = "a store outside of the frame";
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rax], b.rcx); }));
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.byte[b.rdi + 8], b.cl); }));
  CHECK(is_refused_for(kWhy, [](Block& b) { b.add(b.qword[b.rax], 1); }));
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbp - 104], b.rax); }));  // below
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbp], b.rax); }));        // the caller's rbp
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbp + 8], b.rax); }));    // the return address
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbp - 12], b.rax); }));   // half of rbx
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbp + b.rcx * 8 - 88], b.rax); }));
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rbx + 400], b.rax); }));
  CHECK(is_refused_for(kWhy, [](Block& b) { b.mov(b.qword[b.rsp], b.rax); }));
  CHECK(is_refused_for("an address outside", [](Block& b) { b.lea(b.rdx, b.ptr[b.rbp + 16]); }));
  CHECK(is_refused_for("an address outside", [](Block& b) { b.lea(b.rdx, b.ptr[b.rbp + b.rcx]); }));
  CHECK(is_refused_for("another base", [](Block& b) { b.mov(b.rax, b.ptr[b.rip + 8]); }));
}

TEST_CASE("verifier: the frame and the kept registers") {
  constexpr std::string_view kKept = "a kept register is changed";
  CHECK(is_refused_for(kKept, [](Block& b) { b.mov(b.rbp, b.rax); }));
  CHECK(is_refused_for(kKept, [](Block& b) { b.lea(b.rbx, b.ptr[b.rbp - 88]); }));
  CHECK(is_refused_for(kKept, [](Block& b) { b.mov(b.ebx, 1); }));
  CHECK(is_refused_for(kKept, [](Block& b) { b.sub(b.rsp, 64); }));
  CHECK(is_refused_for(kKept, [](Block& b) { b.mov(b.r12, b.rax); }));
  CHECK(is_refused_for("a push", [](Block& b) { b.push(b.rax); }));
  CHECK(is_refused_for("pop", [](Block& b) { b.pop(b.rax); }));
  CHECK(is_refused_for("rbx is not put back", [](Block& b) {
    b.leave();
    b.ret();
  }));
  CHECK(is_refused_for("a ret in a frame", [](Block& b) { b.ret(); }));
  const auto nothing = [](Block&) {};
  CHECK(Block(nothing, 24568).refusal().empty());
  CHECK(Block(nothing, 24584).refusal().find("a frame of another size") != std::string::npos);
  CHECK(Block(nothing, 96).refusal().find("a frame of another size") != std::string::npos);
  CHECK(Block(nothing, Block::kFrame, -4).refusal().find("the Run is not in the frame") != std::string::npos);
  CHECK(Block(nothing, Block::kFrame, -400).refusal().find("the Run is not in the frame") != std::string::npos);
  const std::uint8_t none[] = {0xc3};
  CHECK(refusal_of(none, reinterpret_cast<std::uint64_t>(none)).find("no frame") != std::string::npos);
}

TEST_CASE("verifier: vectors, system calls and other instructions") {
  for (const Block::Body& body : std::initializer_list<Block::Body>{
           [](Block& b) { b.movaps(b.xmm0, b.xmm1); }, [](Block& b) { b.movq(b.xmm0, b.rax); },
           [](Block& b) { b.fninit(); }, [](Block& b) { b.vpxor(b.ymm0, b.ymm0, b.ymm0); },
           [](Block& b) { b.syscall(); }, [](Block& b) { b.int3(); }, [](Block& b) { b.cld(); },
           [](Block& b) {
             b.rep();
             b.stosq();
           },
           [](Block& b) {
             b.lock();
             b.add(b.qword[b.rbp - 88], b.rax);
           },
           [](Block& b) {
             b.putSeg(b.fs);
             b.mov(b.rax, b.ptr[b.rax]);
           },
           [](Block& b) { b.div(b.rcx); }, [](Block& b) { b.xchg(b.rax, b.qword[b.rbp - 88]); },
           [](Block& b) { b.ud2(); }})
    CHECK_FALSE(refusal(body).empty());
}

TEST_CASE("verifier: calls of what is no helper") {
  CHECK(is_refused_for("a call of no helper", [](Block& b) { b.invoke(kHelper + 1); }));
  CHECK(
      is_refused_for("a call of no helper", [](Block& b) { b.invoke(reinterpret_cast<std::uint64_t>(&std::abort)); }));
  CHECK(is_refused_for("a call of something", [](Block& b) { b.call(b.rax); }));
  CHECK(is_refused_for("a call of something", [](Block& b) { b.call(b.qword[b.rax]); }));
  CHECK(is_refused_for("a call of something", [](Block& b) {
    b.mov(b.rax, kHelper);
    b.mov(b.rcx, b.rax);
    b.call(b.rax);
  }));
  CHECK(is_refused_for("a call of something", [](Block& b) {
    b.mov(b.rax, kHelper);
    b.call(b.rcx);
  }));
  CHECK(is_refused_for("a call of something", [](Block& b) {  // past the load of the address
    Xbyak::Label call;
    b.test(b.rcx, b.rcx);
    b.jz(call);
    b.mov(b.rax, kHelper);
    b.L(call);
    b.call(b.rax);
  }));
}

TEST_CASE("verifier: what helpers write") {
  const auto reads = [](int place, std::uint32_t words) {
    return [=](Block& b) {
      b.lea(b.rdx, b.ptr[b.rbp + place]);
      b.mov(b.r8d, words);
      b.invoke(reinterpret_cast<std::uint64_t>(&read_text));
    };
  };
  CHECK(refusal(reads(-96, 11)).empty());
  CHECK(is_refused_for("a helper writes outside", reads(-96, 12)));
  CHECK(is_refused_for("a helper writes outside", reads(-16, 2)));
  CHECK(is_refused_for("of no known size", [](Block& b) {
    b.lea(b.rdx, b.ptr[b.rbp - 96]);
    b.mov(b.r8, b.rax);
    b.invoke(reinterpret_cast<std::uint64_t>(&read_text));
  }));
  CHECK(is_refused_for("a helper writes outside", [](Block& b) {
    b.mov(b.rdx, b.rax);
    b.mov(b.r8d, 1);
    b.invoke(reinterpret_cast<std::uint64_t>(&read_text));
  }));
  CHECK(is_refused_for("nowhere known", [](Block& b) {
    Xbyak::Label other;
    b.mov(b.rdx, b.rax);
    b.jz(other);
    b.lea(b.rdx, b.ptr[b.rbp - 96]);
    b.L(other);
    b.mov(b.r8d, 1);
    b.invoke(reinterpret_cast<std::uint64_t>(&read_text));
  }));
  const auto writes_event = [](std::uint32_t room, std::uint32_t words, bool keeps) {
    return [=](Block& b) {
      b.mov(b.edx, room);
      b.invoke(reinterpret_cast<std::uint64_t>(&begin_event));
      if (!keeps) b.mov(b.rax, b.rcx);
      b.test(b.rax, b.rax);
      b.jz(b.end, Block::T_NEAR);
      b.mov(b.rdi, b.rax);
      b.mov(b.esi, words);
      b.invoke(reinterpret_cast<std::uint64_t>(&copy_words));
    };
  };
  CHECK(refusal(writes_event(3, 3, true)).empty());
  CHECK(is_refused_for("a helper writes outside", writes_event(3, 4, true)));
  CHECK(is_refused_for("a helper writes outside", writes_event(3, 3, false)));
}

TEST_CASE("verifier: an event's words, and what makes it one") {
  struct Event {
    std::uint32_t words = 3, last = 2, used = sizeof(EventHeader) + 3 * 8;
    bool copies = false, keeps_rax = true, keeps_rcx = true, is_begun = true;
  };
  const auto writes_event = [](const Event& event) {
    return [event](Block& b) {
      b.mov(b.edx, event.words);
      b.invoke(event.is_begun ? reinterpret_cast<std::uint64_t>(&begin_event) : kHelper);
      b.test(b.rax, b.rax);
      b.jz(b.end, Block::T_NEAR);
      if (!event.keeps_rax) b.mov(b.rax, b.rcx);
      if (event.copies) {
        b.mov(b.rdi, b.rax);
        b.mov(b.esi, event.words);
        b.invoke(reinterpret_cast<std::uint64_t>(&copy_words));
      } else {
        b.mov(b.rcx, b.ptr[b.rbp - 88]);
        b.mov(b.ptr[b.rax + event.last * 8], b.rcx);
      }
      b.mov(b.rcx, b.ptr[b.rbx + offsetof(Run, chunk)]);
      if (!event.keeps_rcx) b.add(b.rcx, 8);
      b.add(b.qword[b.rcx + offsetof(Chunk, used)], event.used);
    };
  };
  constexpr std::string_view kWhy = "a store outside of the frame";
  CHECK(refusal(writes_event({})) == "");
  CHECK(refusal(writes_event({.copies = true})) == "");
  CHECK(is_refused_for(kWhy, writes_event({.last = 3})));
  CHECK(is_refused_for(kWhy, writes_event({.used = sizeof(EventHeader) + 4 * 8})));
  CHECK(is_refused_for(kWhy, writes_event({.used = sizeof(EventHeader) + 4 * 8, .copies = true})));
  CHECK(is_refused_for(kWhy, writes_event({.keeps_rax = false})));
  CHECK(is_refused_for(kWhy, writes_event({.keeps_rcx = false})));
  CHECK(is_refused_for(kWhy, writes_event({.is_begun = false})));
  CHECK(is_refused_for("the chunk is changed", [](Block& b) { b.mov(b.qword[b.rbx + offsetof(Run, chunk)], b.rax); }));
}

TEST_CASE("verifier: jumps, and loops without a bound") {
  constexpr std::string_view kLoop = "a loop without a bound";
  const auto loop = [](const Block::Body& body) {
    return [body](Block& b) {
      Xbyak::Label again;
      b.L(again);
      body(b);
      b.jmp(again, Block::T_NEAR);
    };
  };
  CHECK(is_refused_for("an indirect jump", [](Block& b) { b.jmp(b.rax); }));
  CHECK(is_refused_for("an indirect jump", [](Block& b) { b.jmp(b.ptr[b.rax]); }));
  const auto tail = [](std::uint64_t function, bool leaves) {
    return [=](Block& b) {
      b.mov(b.rbx, b.ptr[b.rbp - 8]);
      b.leave();
      if (!leaves) b.mov(b.rdi, b.rax);
      b.mov(b.rsi, std::uint64_t{0x123456789});
      b.mov(b.rax, function);
      b.jmp(b.rax);
    };
  };
  CHECK(refusal(tail(kHelper, true)).empty());
  CHECK(is_refused_for("an indirect jump", tail(kHelper, false)));
  CHECK(is_refused_for("a call of no helper", tail(kHelper + 1, true)));
  CHECK(is_refused_for("an indirect jump", [](Block& b) {
    b.mov(b.rax, kHelper);
    b.jmp(b.rax);
  }));
  CHECK(is_refused_for("code outside",
                       [](Block& b) { b.jmp(static_cast<const void*>(b.getCode() + 100'000), Block::T_NEAR); }));
  CHECK(is_refused_for("into an instruction", [](Block& b) {
    b.test(b.rax, b.rax);
    b.jz(static_cast<const void*>(b.getCurr() + 8));  // 6 bytes, and 2 of what follows
    b.mov(b.rax, std::uint64_t{0xc085c085c085c085});  // test eax, eax
  }));
  CHECK(is_refused_for(kLoop, loop([](Block&) {})));
  CHECK(is_refused_for(kLoop, loop([](Block& b) { b.invoke(kHelper); })));
  CHECK(is_refused_for(kLoop, loop([](Block& b) {  // one way round does not spend
                         Xbyak::Label other;
                         b.test(b.rax, b.rax);
                         b.jz(other);
                         b.spend();
                         b.L(other);
                       })));
  CHECK(is_refused_for("what is left is not looked at",
                       loop([](Block& b) { b.sub(b.qword[b.rbx + offsetof(Run, budget)], 1); })));
  CHECK(is_refused_for("the budget is changed", loop([](Block& b) {
                         b.mov(b.qword[b.rbx + offsetof(Run, budget)], 1000);
                         b.spend();
                       })));
  CHECK(is_refused_for("the budget is changed", loop([](Block& b) {
                         b.add(b.qword[b.rbx + offsetof(Run, budget)], 1);
                         b.spend();
                       })));
  // Counted down, but not from a constant; by nothing that stays; or by another word than is looked at.
  const auto counted = [](const Block::Body& before, const Block::Body& body, int place = -88) {
    return [=](Block& b) {
      Xbyak::Label again;
      before(b);
      b.L(again);
      body(b);
      b.sub(b.qword[b.rbp + place], 1);
      b.jnz(again, Block::T_NEAR);
    };
  };
  const Block::Body from_five = [](Block&b) { b.mov(b.qword[b.rbp - 88], 5); }, nothing = [](Block&) {};
  CHECK(refusal(counted(from_five, nothing)).empty());
  CHECK(is_refused_for(kLoop, counted([](Block& b) { b.mov(b.qword[b.rbp - 88], b.rax); }, nothing)));
  CHECK(is_refused_for(kLoop, counted([](Block& b) { b.mov(b.qword[b.rbp - 88], 0); }, nothing)));
  CHECK(is_refused_for(kLoop, counted(from_five, [](Block& b) { b.mov(b.byte[b.rbp - 84], b.al); })));
  CHECK(is_refused_for(kLoop, counted(from_five, nothing, -80)));
  CHECK(is_refused_for(kLoop, [](Block& b) {  // the flags are of something else
    Xbyak::Label again;
    b.mov(b.qword[b.rbp - 88], 5);
    b.L(again);
    b.sub(b.qword[b.rbp - 88], 1);
    b.test(b.rax, b.rax);
    b.jnz(again, Block::T_NEAR);
  }));
}

TEST_CASE("verifier: a program's block with one instruction changed is refused") {
  const auto program = compiled("begin { for ($i : 0..3) { @[$i] = count() } }");
  std::vector<std::uint8_t> code(program->code().begin(), program->code().end());
  const auto entry = [&] { return reinterpret_cast<std::uint64_t>(code.data()); };
  REQUIRE(refusal_of(code, entry()).empty());
  // Every store to the frame in turn becomes one through rax: mov [rbp + disp], rax, in either length.
  int changed = 0;
  for (std::size_t i = 0; i + 4 < code.size(); ++i) {
    const bool is_short = code[i] == 0x48 && code[i + 1] == 0x89 && code[i + 2] == 0x45;
    const bool is_long = code[i] == 0x48 && code[i + 1] == 0x89 && code[i + 2] == 0x85;
    if (!is_short && !is_long) continue;
    code[i + 2] ^= 0x05;  // of rbp, rax
    CHECK(refusal_of(code, entry()).find("a store outside of the frame") != std::string::npos);
    code[i + 2] ^= 0x05;
    ++changed;
  }
  CHECK(changed >= 2);
}
