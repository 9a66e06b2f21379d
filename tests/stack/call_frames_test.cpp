// Call frame information, compiled: against libdw at random addresses of the modules of this machine, of every kind
// that compilers make, and damaged.
#include "runtime/stack/call_frames.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "runtime/stack/frame_tables.h"
#include "runtime/stack/walk.h"

using namespace ubp;
using namespace ubp::stack;

namespace {

// What lies at an address, in a memory that has everything: addresses of 46 bits.
std::uint64_t content(std::uint64_t address) {
  std::uint64_t z = address * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  return (z >> 18 | std::uint64_t{1} << 45) & ~std::uint64_t{7};
}
bool read_content(std::uint64_t address, std::uint64_t* to, std::uint64_t words) {
  for (std::uint64_t i = 0; i < words; ++i) to[i] = content(address + i * 8);
  return true;
}

constexpr std::uint64_t register_at(std::size_t number) { return 0x10000 * (number + 1); }  // by DWARF's numbers
constexpr std::uint8_t kHardware[16] = {0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};

// An expression of libdw's, with these registers and this memory; nothing: one of its operations is not known here.
std::optional<std::uint64_t> evaluate(const Dwarf_Op* ops, std::size_t count, std::uint64_t frame, std::uint64_t pc) {
  std::vector<std::uint64_t> values;
  const auto pop = [&] {
    const std::uint64_t value = values.back();
    values.pop_back();
    return value;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const Dwarf_Op& op = ops[i];
    if (op.atom == DW_OP_breg16) {
      values.push_back(pc + op.number);
    } else if (op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg15) {
      values.push_back(register_at(op.atom - DW_OP_breg0) + op.number);
    } else if (op.atom == DW_OP_bregx && op.number < 16) {
      values.push_back(register_at(op.number) + op.number2);
    } else if (op.atom == DW_OP_regx && op.number < 16) {
      values.push_back(register_at(op.number));
    } else if (op.atom == DW_OP_call_frame_cfa) {
      values.push_back(frame);
    } else if (op.atom == DW_OP_plus_uconst && !values.empty()) {
      values.back() += op.number;
    } else if (op.atom >= DW_OP_lit0 && op.atom <= DW_OP_lit31) {
      values.push_back(op.atom - DW_OP_lit0);
    } else if (op.atom == DW_OP_consts || op.atom == DW_OP_constu) {
      values.push_back(op.number);
    } else if (op.atom == DW_OP_deref && !values.empty()) {
      values.back() = content(values.back());
    } else if (op.atom == DW_OP_stack_value) {
      continue;
    } else if (values.size() < 2) {
      return std::nullopt;
    } else {
      const std::uint64_t right = pop(), left = pop();
      switch (op.atom) {
        case DW_OP_plus: values.push_back(left + right); break;
        case DW_OP_minus: values.push_back(left - right); break;
        case DW_OP_and: values.push_back(left & right); break;
        case DW_OP_shl: values.push_back(left << right); break;
        case DW_OP_ge: values.push_back(left >= right); break;
        default: return std::nullopt;
      }
    }
  }
  if (values.size() != 1) return std::nullopt;
  return values.front();
}

// The frames that libdw makes of it, and this: the caller, or nothing.
struct Reference {
  Dwarf_CFI* cfi = nullptr;

  // False: there is no information, or it cannot be evaluated here. caller: 0: nobody called this.
  bool caller_at(std::uint64_t elf_address, std::uint64_t pc, std::uint64_t& caller, std::uint64_t& rbp) const {
    Dwarf_Frame* frame = nullptr;
    if (dwarf_cfi_addrframe(cfi, elf_address, &frame) != 0) return false;
    const std::unique_ptr<Dwarf_Frame, decltype(&std::free)> kept(frame, &std::free);
    Dwarf_Op* ops = nullptr;
    std::size_t count = 0;
    caller = 0;
    Dwarf_Op room[3];
    const auto value_of = [&](int number, std::uint64_t its_frame, std::uint64_t same) -> std::optional<std::uint64_t> {
      if (dwarf_frame_register(frame, number, room, &ops, &count) != 0) return std::nullopt;
      if (count == 0) return ops == nullptr ? same : 0;
      const auto at = evaluate(ops, count, its_frame, pc);
      if (!at) return std::nullopt;
      if (ops[count - 1].atom == DW_OP_stack_value) return at;
      return ops[0].atom == DW_OP_regx ? at : content(*at);
    };
    if (dwarf_frame_cfa(frame, &ops, &count) != 0) return false;
    const auto address = evaluate(ops, count, 0, pc);
    if (!address) return false;
    const auto its = value_of(16, *address, 0);
    const auto kept_rbp = value_of(6, *address, register_at(6));
    if (!its || !kept_rbp) return false;
    caller = *its;
    rbp = *kept_rbp;
    return true;
  }
};

Start start_at(std::uint64_t address) {
  Start start{};
  start.address = address;
  for (std::size_t number = 0; number < kRegisters; ++number) start.registers[kHardware[number]] = register_at(number);
  return start;
}

}  // namespace

TEST_CASE("call frames: the same callers as libdw has, at random addresses of this machine's modules") {
  for (const char* const more : {"libpython3.11.so.1.0", "libsqlite3.so.0", "libcrypto.so.3", "libdw.so.1"})
    dlopen(more, RTLD_NOW | RTLD_LOCAL);
  const std::vector<symbols::Module> modules = symbols::loaded_modules();
  FrameTableSet set;
  std::vector<const symbols::Module*> all;
  for (const symbols::Module& module : modules) all.push_back(&module);
  const FrameTables& tables = *set.update(all);
  std::mt19937_64 random(7);
  std::size_t compared = 0, ends = 0;
  for (const symbols::Module& module : modules) {
    if (module.is_vdso) continue;
    CAPTURE(module.path);
    const int file = open(module.path.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0);
    elf_version(EV_CURRENT);
    Elf* const elf = elf_begin(file, ELF_C_READ_MMAP, nullptr);
    const Reference reference{dwarf_getcfi_elf(elf)};
    REQUIRE(reference.cfi != nullptr);
    std::size_t here = 0, not_here = 0;
    for (const symbols::Segment& segment : module.segments) {
      if (!segment.executable) continue;
      for (int turn = 0; turn < 4000; ++turn) {
        const std::uint64_t address = segment.address + random() % segment.size, pc = module.bias + address;
        std::uint64_t caller = 0, rbp = 0;
        if (!reference.caller_at(address, pc, caller, rbp)) continue;
        CAPTURE(address);
        const Rule& rule = rule_at(tables, pc);
        if (rule.kind == Rule::kSignalFrame) continue;  // not read by its expressions
        if (rule.kind == Rule::kUnknown) {
          ++not_here;
          continue;
        }
        const Start start = start_at(pc);
        std::uint64_t frames[3] = {};
        const std::uint64_t count = Walk(tables, start, read_content).run(frames, 2);
        REQUIRE(count >= 1);
        if (caller == 0) {
          CHECK(count == 1);
          ++ends;
          continue;
        }
        REQUIRE(count == 2);
        CHECK(frames[1] == caller);
        ++here;
      }
    }
    compared += here;
    CHECK(not_here * 1000 <= here);
    dwarf_cfi_end(reference.cfi);
    elf_end(elf);
    close(file);
  }
  MESSAGE(compared, " addresses in ", modules.size(), " modules, ", set.rows(), " rows");
  CHECK(compared > 10000);
}

extern "C" const std::uint8_t stack_test_code[], stack_test_aligned[], stack_test_end[], stack_test_kept[];

asm(R"(
  .pushsection .text
  .globl stack_test_code, stack_test_aligned, stack_test_end, stack_test_kept
  stack_test_code:
  .cfi_startproc
  nop                                 # 0: rsp + 8
  .cfi_def_cfa_offset 16
  .cfi_offset rbp, -16
  nop                                 # 1: rsp + 16
  .cfi_remember_state
  .cfi_def_cfa_register rbp
  nop                                 # 2: rbp + 16
  .cfi_restore rbp
  .cfi_def_cfa rsp, 8
  nop                                 # 3: rsp + 8
  .cfi_restore_state
  nop                                 # 4: as 1
  .cfi_register rip, rdi
  nop                                 # 5: the return address is in rdi
  .cfi_escape 0x0f, 3, 0x73, 8, 0x96  # rbx + 8, and a nop, which no compiler makes
  nop                                 # 6
  .cfi_restore rip
  .cfi_escape 0x0f, 5, 0x77, 56, 0x06, 0x23, 8  # *(rsp + 56) + 8: as OpenSSL's assembler has it
  nop                                 # 7
  .cfi_endproc
  stack_test_aligned:                 # as GCC has functions that align their stack
  .cfi_startproc
  .cfi_def_cfa r10, 0
  nop                                 # 0
  .cfi_escape 0x10, 6, 2, 0x76, 0     # rbp is at rbp
  .cfi_escape 0x0f, 3, 0x76, 0x78, 6  # the frame address is at rbp - 8
  .cfi_escape 0x10, 3, 2, 0x76, 0x70  # rbx is at rbp - 16
  nop                                 # 1
  .cfi_endproc
  stack_test_end:
  .cfi_startproc
  .cfi_undefined rip
  nop
  .cfi_endproc
  stack_test_kept:
  .cfi_startproc
  .cfi_def_cfa rbx, 24
  .cfi_offset rbx, -24
  nop
  .cfi_endproc
  .popsection
)");

namespace {

struct Own {
  std::vector<symbols::Module> modules = symbols::loaded_modules();
  FrameTableSet set;
  const FrameTables& tables = *set.update({&modules.front()});
  const Rule& at(const std::uint8_t* code, std::size_t offset) const {
    return rule_at(tables, reinterpret_cast<std::uint64_t>(code) + offset);
  }
};

}  // namespace

TEST_CASE("call frames: every instruction that compilers make") {
  const Own own;
  const auto plain = [](Register base, std::int32_t offset, std::int16_t rbp) {
    Rule rule;
    rule.kind = Rule::kRegister;
    rule.base = base;
    rule.offset = offset;
    rule.kept[1] = rbp;
    return rule;
  };
  CHECK(own.at(stack_test_code, 0) == plain(kRsp, 8, Rule::kSame));
  CHECK(own.at(stack_test_code, 1) == plain(kRsp, 16, -2));
  CHECK(own.at(stack_test_code, 2) == plain(kRbp, 16, -2));
  CHECK(own.at(stack_test_code, 3) == plain(kRsp, 8, Rule::kSame));
  CHECK(own.at(stack_test_code, 4) == plain(kRsp, 16, -2));
  Rule in_register = plain(kRsp, 16, -2);
  in_register.return_register = kRdi;
  CHECK(own.at(stack_test_code, 5) == in_register);
  CHECK(own.at(stack_test_code, 6).kind == Rule::kUnknown);
  Rule kept_pointer = plain(kRsp, 56, -2);
  kept_pointer.kind = Rule::kIndirect;
  kept_pointer.added_words = 1;
  CHECK(own.at(stack_test_code, 7) == kept_pointer);
  Rule aligned = plain(kRbp, -8, 1);
  aligned.kind = Rule::kIndirect;
  aligned.from_rbp = 3;
  aligned.kept[0] = -1;
  CHECK(own.at(stack_test_aligned, 0) == plain(static_cast<Register>(10), 0, Rule::kSame));
  CHECK(own.at(stack_test_aligned, 1) == aligned);
  CHECK(own.at(stack_test_end, 0).kind == Rule::kEnd);
  CHECK(rule_at(own.tables, 4096).kind == Rule::kNone);
  CHECK(rule_at(own.tables, ~std::uint64_t{0}).kind == Rule::kNone);
}

TEST_CASE("call frames: a walk follows the registers that its rules need") {
  const Own own;
  const auto code = reinterpret_cast<std::uint64_t>(stack_test_kept);
  // Two calls of the function whose frame is found by rbx, which it keeps for its caller.
  std::uint64_t memory[64] = {};
  const auto address_of = [&](int word) { return reinterpret_cast<std::uint64_t>(memory + word); };
  memory[10] = address_of(20);  // rbx of the first frame's caller; its frame address is memory + 13
  memory[12] = code + 1;
  memory[20] = 0;
  memory[22] = 0;  // nobody
  Start start{};
  start.address = code;
  start.registers[kRbx] = address_of(10);
  const auto read = [&](std::uint64_t address, std::uint64_t* to, std::uint64_t words) {
    if (address < address_of(0) || address + words * 8 > address_of(64)) return false;
    std::memcpy(to, reinterpret_cast<const void*>(address), words * 8);
    return true;
  };
  std::uint64_t frames[8] = {};
  CHECK(Walk(own.tables, start, read).run(frames, 8) == 2);
  CHECK(frames[0] == code);
  CHECK(frames[1] == code + 1);
  memory[22] = code + 1;
  memory[20] = 8;  // cannot be read
  CHECK(Walk(own.tables, start, read).run(frames, 8) == 4);
  CHECK(frames[2] == code + 1);
  CHECK(frames[3] == kNotFound);
  CHECK(Walk(own.tables, start, read).run(frames, 2) == 2);
  CHECK(Walk(own.tables, start, read).run(frames, 0) == 0);
}

TEST_CASE("call frames: by frame pointers where there is no information, and through a signal's frame") {
  const Own own;
  std::uint64_t memory[96] = {};
  const auto address_of = [&](int word) { return reinterpret_cast<std::uint64_t>(memory + word); };
  const auto read = [&](std::uint64_t address, std::uint64_t* to, std::uint64_t words) {
    if (address < address_of(0) || address + words * 8 > address_of(96)) return false;
    std::memcpy(to, reinterpret_cast<const void*>(address), words * 8);
    return true;
  };
  std::memcpy(memory, "\x48\xc7\xc0\x0f\0\0\0\x0f\x05", 9);  // the kernel's restorer, in code without information
  memory[12] = address_of(20);
  memory[13] = 0x7000;
  memory[20] = 0;
  memory[21] = address_of(0);            // a handler returns
  memory[22 + 5 + 10] = address_of(60);  // the context's rbp
  memory[22 + 5 + 15] = address_of(50);  // rsp
  memory[22 + 5 + 16] = 0x8000;          // rip
  memory[60] = address_of(40);           // below: no frame
  memory[61] = 0x9000;
  Start start{};
  start.address = 0x6000;
  start.registers[kRsp] = address_of(10);
  start.registers[kRbp] = address_of(12);
  std::uint64_t frames[8] = {};
  REQUIRE(Walk(own.tables, start, read).run(frames, 8) == 5);
  const std::uint64_t expected[] = {0x6000, 0x7000, address_of(0), 0x8000 | kInterrupted, 0x9000};
  CHECK(std::equal(std::begin(expected), std::end(expected), frames));
  start.registers[kRbp] = address_of(4);  // below the stack pointer
  CHECK(Walk(own.tables, start, read).run(frames, 8) == 1);
}

TEST_CASE("call frames: what is damaged is known as such from there on") {
  symbols::CommonEntry common;
  common.data_factor = -8;
  common.return_register = 16;
  const std::uint8_t initial[] = {0x0c, 7, 8, 0x90, 1};  // rsp + 8; the return address is below
  common.instructions = symbols::DwarfBytes(initial, std::end(initial));
  const auto rows_of = [&](std::vector<std::uint8_t> code, bool& is_whole) {
    std::vector<std::uint64_t> offsets;
    const symbols::FrameEntry entry{{0, 16}, common, symbols::DwarfBytes(code.data(), code.data() + code.size())};
    is_whole = rules_of(entry, [&](std::uint64_t offset, const Rule&) { offsets.push_back(offset); });
    return offsets;
  };
  bool is_whole = false;
  using Offsets = std::vector<std::uint64_t>;
  CHECK(rows_of({0x41, 0x0e, 16, 0x42}, is_whole) == Offsets{0, 1, 3});
  CHECK(is_whole);
  for (const std::vector<std::uint8_t>& code :
       std::vector<std::vector<std::uint8_t>>{{0x41, 0x3f},         // no such instruction
                                              {0x41, 0x0e},         // without its number
                                              {0x41, 0x50},         // behind the function
                                              {0x41, 0x0b},         // a state that was not remembered
                                              {0x41, 0x0e, 0x80}})  // a number without its end
  {
    CHECK(rows_of(code, is_whole) == Offsets{0, 1});
    CHECK(!is_whole);
  }
}

TEST_CASE("call frames: damaged bytes give rules, and nothing else") {
  const symbols::ElfFile file = symbols::ElfFile::open("/proc/self/exe");
  const symbols::SectionBytes section = file.section(".eh_frame").value();
  const std::vector<std::uint8_t> whole(section.bytes, section.bytes + std::min<std::size_t>(section.size, 20000));
  std::mt19937_64 random(11);
  std::size_t rows = 0, damaged = 0;
  for (int turn = 0; turn < 300; ++turn) {
    std::vector<std::uint8_t> bytes = whole;
    for (int change = 0; change < 40; ++change) bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    bytes.resize(bytes.size() - random() % 100);
    symbols::visit_frames({bytes.data(), bytes.size(), section.address}, [&](const symbols::FrameEntry& entry) {
      std::uint64_t last = 0;
      const bool is_whole = rules_of(entry, [&](std::uint64_t offset, const Rule&) {
        if (offset < last || offset >= entry.range.size) FAIL("a row is outside");
        last = offset;
        ++rows;
      });
      damaged += is_whole ? 0 : 1;
    });
  }
  CHECK(rows > 1000);
  CHECK(damaged > 100);
}
