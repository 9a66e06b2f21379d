// classify() against the assembler: GNU as encodes, a second section records length and kind, the test
// compares.
//
// Independent of Zydis: lengths are label differences, and RIP-relative operands carry the displacement
// 0x5a4b3c2d, whose bytes the test looks for by itself. The code is data here; nothing executes it.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>

#include "decoder/classify.h"

// One instruction, and its record: length, kind (0 slot, 1 emulated, 2 system, 3 refused), has the RIP
// displacement.
#define GOLDEN(kind, rip, text)                    \
  "771: " text                                     \
  "\n"                                             \
  "772: .pushsection .rodata.ubp_golden_records\n" \
  ".byte 772b - 771b, " #kind ", " #rip            \
  "\n"                                             \
  ".popsection\n"
#define SLOT(text) GOLDEN(0, 0, text)
#define SLOT_RIP(text) GOLDEN(0, 1, text)
#define EMULATED(text) GOLDEN(1, 0, text)
#define EMULATED_RIP(text) GOLDEN(1, 1, text)
#define SYSTEM(text) GOLDEN(2, 0, text)
#define REFUSED(text) GOLDEN(3, 0, text)
#define RIP "0x5a4b3c2d(%rip)"

// clang-format off
asm(".pushsection .rodata.ubp_golden_records\n"
    "ubp_golden_records:\n"
    ".popsection\n"
    ".pushsection .rodata.ubp_golden_code\n"
    "ubp_golden_code:\n"
    // RIP-relative: legacy maps, immediates of every size behind the displacement, VEX, EVEX, x87.
    SLOT_RIP("movl " RIP ", %eax") SLOT_RIP("movq %r15, " RIP) SLOT_RIP("leaq " RIP ", %rdi")
    SLOT_RIP("movb $7, " RIP) SLOT_RIP("movw $0x1234, " RIP) SLOT_RIP("movl $0x12345678, " RIP)
    SLOT_RIP("cmpl $1, " RIP) SLOT_RIP("testb $1, " RIP) SLOT_RIP("imull $3, " RIP ", %ecx")
    SLOT_RIP("imulq $0x12345678, " RIP ", %r9") SLOT_RIP("shll $3, " RIP) SLOT_RIP("shldq $3, %rax, " RIP)
    SLOT_RIP("btq $9, " RIP) SLOT_RIP("cmpxchg16b " RIP) SLOT_RIP("lock xaddq %rax, " RIP)
    SLOT_RIP("movss " RIP ", %xmm9") SLOT_RIP("pshufd $1, " RIP ", %xmm1") SLOT_RIP("pshufb " RIP ", %xmm1")
    SLOT_RIP("palignr $3, " RIP ", %xmm8") SLOT_RIP("pcmpistri $3, " RIP ", %xmm1") SLOT_RIP("fldt " RIP)
    SLOT_RIP("fnstcw " RIP) SLOT_RIP("ldmxcsr " RIP) SLOT_RIP("fxsave64 " RIP) SLOT_RIP("xsavec " RIP)
    SLOT_RIP("vmovdqu " RIP ", %ymm12") SLOT_RIP("vpblendd $3, " RIP ", %ymm1, %ymm2")
    SLOT_RIP("vblendvps %xmm3, " RIP ", %xmm1, %xmm2") SLOT_RIP("vfmadd231sd " RIP ", %xmm1, %xmm2")
    SLOT_RIP("rorx $3, " RIP ", %rax") SLOT_RIP("andn " RIP ", %rax, %rbx")
    SLOT_RIP("vbroadcastss " RIP ", %ymm1") SLOT_RIP("vmovdqu64 " RIP ", %zmm31")
    SLOT_RIP("vaddps " RIP "{1to16}, %zmm1, %zmm2{%k1}{z}") SLOT_RIP("vpcmpub $3, " RIP ", %zmm1, %k1")
    SLOT_RIP("vpternlogq $0x96, " RIP ", %ymm16, %ymm17") SLOT_RIP("vmovdqu8 %xmm20, " RIP "{%k2}")
    SLOT_RIP("kmovq " RIP ", %k1") SLOT_RIP("prefetcht0 " RIP) SLOT_RIP("movbel " RIP ", %eax")
    SLOT_RIP("crc32q " RIP ", %rax") SLOT_RIP("jmp *" RIP) SLOT_RIP("pushq " RIP) SLOT_RIP("popq " RIP)
    SLOT_RIP("incl " RIP) SLOT_RIP("negq " RIP)
    // The same displacement bytes without RIP: nothing may be relocated.
    SLOT("movl 0x5a4b3c2d(%rbp), %eax") SLOT("movl 0x5a4b3c2d, %eax") SLOT("movl $0x5a4b3c2d, %eax")
    SLOT("vaddps 0x40(%rbp), %zmm1, %zmm2") SLOT("leaq 0x5a4b3c2d(,%rax,8), %rbx")
    SLOT("addr32 movl (%eax), %eax")
    // Register, stack, string, system and vector instructions.
    SLOT("movabsq $0x5a4b3c2d5a4b3c2d, %rax") SLOT("movabsb 0x1122334455667788, %al") SLOT("xchgq %rax, %r8")
    SLOT("pause") SLOT("leave") SLOT("enter $32, $3") SLOT("pushw %ax") SLOT("pushq $0x1234")
    SLOT("pushq %fs") SLOT("popq %rsp") SLOT("popq (%rsp)") SLOT("pushfq") SLOT("popfq")
    SLOT("cmpxchgl %eax, (%rdi)") SLOT("rep movsq") SLOT("repne scasb") SLOT("rep stosb %al, (%rdi)")
    SLOT("lodsb") SLOT("xlatb") SLOT("cqto") SLOT("cpuid") SLOT("rdtsc") SLOT("rdtscp") SLOT("rdpmc")
    SLOT("xgetbv") SLOT("rdpkru") SLOT("wrpkru") SLOT("rdfsbase %rax") SLOT("wrfsbase %r9")
    SLOT("rdrand %eax") SLOT("rdseed %r9") SLOT("rdpid %rax") SLOT("xsave64 (%rsp)") SLOT("xrstor (%rsp)")
    SLOT("clflushopt (%rax)") SLOT("clwb (%rax)") SLOT("serialize") SLOT("tpause %eax") SLOT("umonitor %rax")
    SLOT("sgdt (%rax)") SLOT("str %eax") SLOT("smsw %eax") SLOT("larl %eax, %eax")
    SLOT("vpgatherqq (%rax,%zmm1,8), %zmm2{%k1}") SLOT("vzeroupper") SLOT("vp2intersectd %zmm1, %zmm2, %k2")
    SLOT("tileloadd (%rax,%rbx), %tmm1") SLOT("vaddph %zmm1, %zmm2, %zmm3") SLOT("aesenc %xmm1, %xmm2")
    SLOT("sha256rnds2 %xmm1, %xmm2") SLOT("gf2p8mulb %xmm1, %xmm2") SLOT("ptwrite %eax") SLOT("xabort $3")
    SLOT("xend") SLOT("jmp *%rax") SLOT("notrack jmp *%r11") SLOT("jmp *(%rax,%rcx,8)")
    SLOT("movdir64b (%rax), %rbx")
    // Emulated.
    EMULATED("nop") EMULATED("xchgw %ax, %ax") EMULATED("nopl (%rax)") EMULATED("nopw %cs:0x200(%rax,%rax,1)")
    EMULATED("endbr64") EMULATED("pushq %rax") EMULATED("pushq %rsp") EMULATED("pushq %r13") EMULATED("ret")
    EMULATED("rep ret") EMULATED("ret $24") EMULATED("jmp .+0x40") EMULATED("{disp32} jmp .+0x40")
    EMULATED("call .") EMULATED("je .-4") EMULATED("{disp32} jg .+0x1000") EMULATED("loop .-8")
    EMULATED("loope .") EMULATED("loopne .") EMULATED("jrcxz .+9") EMULATED("jecxz .+9")
    EMULATED("addr32 loop .") EMULATED("call *%r12") EMULATED("call *8(%rsp)") EMULATED("call *%fs:0x10")
    EMULATED("notrack call *%rax") EMULATED(".byte 0x67; call .")
    EMULATED(".byte 0x66, 0x66, 0x48, 0xe8; .long 0x40") EMULATED_RIP("call *" RIP) EMULATED_RIP("nopl " RIP)
    // Permanent slots and refusals.
    SYSTEM("syscall") SYSTEM("int $0x80") REFUSED("int3") REFUSED("int $5") REFUSED("hlt")
    REFUSED("inb %dx, %al") REFUSED("outl %eax, $0x80") REFUSED("insl") REFUSED("rep outsb") REFUSED("cli")
    REFUSED("sti") REFUSED("lgdt (%rax)") REFUSED("lidt (%rax)") REFUSED("ltr %ax") REFUSED("lldt %ax")
    REFUSED("lmsw %ax") REFUSED("clts") REFUSED("movq %cr4, %rax") REFUSED("movq %rax, %db6") REFUSED("rdmsr")
    REFUSED("wrmsr") REFUSED("invd") REFUSED("wbinvd") REFUSED("invlpg (%rax)") REFUSED("swapgs")
    REFUSED("invpcid (%rax), %rbx") REFUSED("xsetbv") REFUSED("clac") REFUSED("stac") REFUSED("xsaves (%rax)")
    REFUSED("xrstors64 (%rax)") REFUSED("monitor") REFUSED("mwait") REFUSED("sysretq") REFUSED("sysenter")
    REFUSED("sysexitq") REFUSED("vmlaunch") REFUSED("vmxoff") REFUSED("vmreadq %rax, %rbx") REFUSED("vmcall")
    REFUSED("vmrun") REFUSED("vmload") REFUSED("stgi") REFUSED("clgi") REFUSED("skinit") REFUSED("getsec")
    REFUSED("rsm") REFUSED("encls") REFUSED("enclv") REFUSED("enclu") REFUSED("enqcmds (%rax), %rbx")
    REFUSED("setssbsy") REFUSED("pconfig") REFUSED("psmash") REFUSED("lcall *(%rax)") REFUSED("ljmp *(%rax)")
    REFUSED("lretq") REFUSED("iretq") REFUSED("uiret") REFUSED("movl %eax, %ss") REFUSED("lss (%rax), %eax")
    REFUSED("ud2") REFUSED("ud1 %eax, %ebx") REFUSED("data16 jmp *%rax") REFUSED("addr32 movl 1(%eip), %eax")
    "ubp_golden_code_end:\n"
    ".popsection\n"
    ".pushsection .rodata.ubp_golden_records\n"
    "ubp_golden_records_end:\n"
    ".popsection\n");
// clang-format on

namespace ubp::decoder {
namespace {

struct Record {
  std::uint8_t length;
  std::uint8_t kind;
  std::uint8_t has_rip;
};

extern "C" const std::uint8_t ubp_golden_code[];
extern "C" const std::uint8_t ubp_golden_code_end[];
extern "C" const Record ubp_golden_records[];
extern "C" const Record ubp_golden_records_end[];

constexpr std::array<Route, 4> kRouteOfKind{Route::kSlot, Route::kEmulate, Route::kSystem, Route::kRefused};

std::size_t sentinel_offset(std::span<const std::uint8_t> bytes) {
  static constexpr std::array<std::uint8_t, 4> kSentinel{0x2d, 0x3c, 0x4b, 0x5a};
  return static_cast<std::size_t>(std::search(bytes.begin(), bytes.end(), kSentinel.begin(), kSentinel.end()) -
                                  bytes.begin());
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    for (const int digit : {byte >> 4, byte & 15}) text += "0123456789abcdef"[digit];
  }
  return text;
}

TEST_CASE("classify agrees with the assembler on lengths, routes and RIP displacements") {
  const std::uint8_t* at = ubp_golden_code;
  int line = 0;
  for (const Record* record = ubp_golden_records; record != ubp_golden_records_end; ++record, ++line) {
    const std::span bytes(at, record->length);
    const std::string text = hex(bytes);
    CAPTURE(line);
    CAPTURE(text);
    const Instruction found = classify({at, ubp_golden_code_end});
    CHECK(int{found.length} == int{record->length});
    CHECK(static_cast<int>(found.route) == static_cast<int>(kRouteOfKind[record->kind]));
    CHECK((found.refusal == Refusal::kNone) == (found.route != Route::kRefused));
    if (found.route == Route::kSlot) {
      CHECK(std::size_t{found.rip_disp_offset} == (record->has_rip != 0 ? sentinel_offset(bytes) : 0));
    } else {
      CHECK(int{found.rip_disp_offset} == 0);
    }
    if (found.op.effect == Effect::kCallIndirect) CHECK((found.op.base == kRipRegister) == (record->has_rip != 0));
    at += record->length;
  }
  CHECK(line > 200);
  CHECK(at == ubp_golden_code_end);
}

}  // namespace
}  // namespace ubp::decoder
