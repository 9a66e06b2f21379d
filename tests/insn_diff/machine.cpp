// The place where instructions run: mappings, signal handlers, entry and capture.
#include "tests/insn_diff/machine.h"

#include <cpuid.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "xol/emulate.h"

extern "C" {
ubp::insn_diff::Context insn_diff_context __attribute__((visibility("hidden")));
int insn_diff_enter();
int insn_diff_guarded(void (*function)(), bool alignment_check);
void insn_diff_handler(int, siginfo_t*, void*);
extern const char insn_diff_iret[], insn_diff_pad_next[], insn_diff_pad_target[];
}

namespace ubp::insn_diff {
namespace {

constexpr std::uint64_t kLowBase = 0x08000000, kHighBase = 0x6ea000000000;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(2);
}

void* map_at(std::uint64_t address, std::size_t bytes, int protection, int fd) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* at = mmap(reinterpret_cast<void*>(address), bytes, protection, flags | MAP_FIXED_NOREPLACE, fd, 0);
  if (at != reinterpret_cast<void*>(address)) die("insn_diff: mmap at a fixed address");
  return at;
}

// Code: read-execute at `address`, and a writable view elsewhere.
std::uint8_t* map_code(std::uint64_t address, std::size_t bytes) {
  const int fd = memfd_create("insn_diff", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) die("insn_diff: memfd");
  map_at(address, bytes, PROT_READ | PROT_EXEC, fd);
  void* view = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (view == MAP_FAILED) die("insn_diff: mmap");
  close(fd);
  std::memset(view, 0xcc, bytes);
  return static_cast<std::uint8_t*>(view);
}

World map_world(std::uint64_t base) {
  World world{base, nullptr, nullptr, {}};
  world.text_rw = map_code(world.text(), kTextBytes);
  world.targets_rw = map_code(world.targets(), kTargetBytes);
  world.slots_rw[0] = map_code(world.near_slots(), kSlotRegionBytes);
  world.slots_rw[1] = map_code(world.far_slots(), kSlotRegionBytes);
  map_at(world.stack() - 16 * kPage, 16 * kPage, PROT_NONE, -1);
  map_at(world.stack(), kRwBytes, PROT_READ | PROT_WRITE, -1);
  auto* constant = static_cast<std::uint8_t*>(map_at(world.read_only(), kPage, PROT_READ | PROT_WRITE, -1));
  for (std::size_t i = 0; i < kPage; ++i) constant[i] = static_cast<std::uint8_t>(i * 7 + 3);
  mprotect(constant, kPage, PROT_READ);
  const int empty = memfd_create("insn_diff_bus", MFD_CLOEXEC);
  map_at(world.bus(), kPage, PROT_READ | PROT_WRITE, empty);
  close(empty);
  map_at(world.bus() + kPage, 16 * kPage, PROT_NONE, -1);
  return world;
}

XsaveLayout read_layout() {
  XsaveLayout layout;
  std::uint32_t a, b, c, d;
  __cpuid_count(0xd, 0, a, b, c, d);
  // Without the tiles (AMX): a program has them only if it asks the kernel. Source: Linux, x86/xstate.rst.
  constexpr std::uint64_t kTiles = 3 << 17;
  layout.features = (a | std::uint64_t{d} << 32) & ~kTiles;
  layout.size = 576;
  for (std::uint32_t i = 2; i < 63; ++i) {
    if ((layout.features >> i & 1) == 0) continue;
    __cpuid_count(0xd, i, a, b, c, d);
    layout.bytes[i] = a;
    layout.offset[i] = b;
    if (a + b > layout.size) layout.size = a + b;
  }
  if (layout.size > kXsaveBytes) {
    std::fprintf(stderr, "insn_diff: an XSAVE image of %u bytes is more than it is made for\n", layout.size);
    std::exit(77);
  }
  return layout;
}

// What insn_diff_guarded() calls must be free of thread-local state: plain globals carry its arguments.
const xol::Displaced* g_point;
xol::Registers g_registers;
xol::Outcome g_effect;

void emulate_here() { g_effect = xol::emulate(*g_point, g_registers); }

// Through rax, as in trap_entry.S: a different base register may mean a different fault (#SS).
void store_here() {
  std::uint64_t address = g_effect.store_address;  // through rbp, as ubp_trap_entry does: a bad one is #SS
  asm volatile("xchgq %0, %%rbp\n\tmovq %1, (%%rbp)\n\txchgq %0, %%rbp"
               : "+a"(address)
               : "c"(g_effect.store_value)
               : "memory");
}

}  // namespace

Machine::Machine() : layout_(read_layout()) {
  if ((getauxval(AT_HWCAP2) & 2) == 0) {
    std::fprintf(stderr, "insn_diff: needs FSGSBASE\n");
    std::exit(77);
  }
  cpu_set_t allowed, one;
  CPU_ZERO(&allowed);
  CPU_ZERO(&one);
  sched_getaffinity(0, sizeof allowed, &allowed);
  int cpus[CPU_SETSIZE], count = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus[count++] = cpu;
  }
  CPU_SET(cpus[getpid() % count], &one);  // rdtscp, cpuid and rdpid name the processor
  sched_setaffinity(0, sizeof one, &one);

  worlds_[0] = map_world(kLowBase);
  worlds_[1] = map_world(kHighBase);

  static std::uint8_t stack[1 << 16];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  if (sigaltstack(&alternate, nullptr) != 0) die("insn_diff: sigaltstack");
  struct sigaction action {};
  action.sa_sigaction = insn_diff_handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (const int signal : {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS}) sigaction(signal, &action, nullptr);

  std::uint16_t cs, ss;
  asm("movw %%cs, %0; movw %%ss, %1" : "=r"(cs), "=r"(ss));
  insn_diff_context.cs_in = cs;
  insn_diff_context.ss_in = ss;
}

std::uint64_t Machine::pad(bool target) const {
  return reinterpret_cast<std::uint64_t>(target ? insn_diff_pad_target : insn_diff_pad_next);
}

void Machine::load(const State& state, std::uint64_t rip) {
  Context& context = insn_diff_context;
  std::memcpy(context.xsave_in, state.xsave, layout_.size);
  std::memcpy(context.gpr_in, state.gpr, sizeof state.gpr);
  context.rip_in = rip;
  context.rsp_in = state.gpr[4];
  context.flags_in = state.flags | 0x202;
  context.fs_in = state.fs;
  context.gs_in = state.gs;
}

void Machine::take(bool signalled, Outcome& out) const {
  const Context& context = insn_diff_context;
  out.where = static_cast<Where>(context.where);
  out.fs = context.fs_out;
  out.gs = context.gs_out;
  std::memcpy(out.selectors, context.selectors_out, sizeof out.selectors);
  out.signal = 0;
  out.from_iret = false;
  if (!signalled) {
    std::memcpy(out.gpr, context.gpr_out, sizeof out.gpr);
    out.flags = context.flags_out;
    std::memcpy(out.xsave, context.xsave_out, layout_.size);
    return;
  }
  const auto* info = reinterpret_cast<const siginfo_t*>(context.info);
  const auto& machine = reinterpret_cast<const ucontext_t*>(context.ucontext)->uc_mcontext;
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (int i = 0; i < 16; ++i) out.gpr[i] = static_cast<std::uint64_t>(machine.gregs[kOrder[i]]);
  out.flags = static_cast<std::uint64_t>(machine.gregs[REG_EFL]);
  out.signal = info->si_signo;
  out.code = info->si_code;
  out.address = reinterpret_cast<std::uint64_t>(info->si_addr);
  out.rip = static_cast<std::uint64_t>(machine.gregs[REG_RIP]);
  out.trap = static_cast<std::uint64_t>(machine.gregs[REG_TRAPNO]);
  out.error = static_cast<std::uint64_t>(machine.gregs[REG_ERR]);
  out.cr2 = static_cast<std::uint64_t>(machine.gregs[REG_CR2]);
  out.from_iret = out.rip == reinterpret_cast<std::uint64_t>(insn_diff_iret);
  std::memcpy(out.xsave, machine.fpregs, layout_.size);
  const auto entry = reinterpret_cast<std::uint64_t>(&insn_diff_enter);
  if (out.rip - entry < reinterpret_cast<std::uint64_t>(insn_diff_iret) - entry) {
    std::fprintf(stderr, "insn_diff: the harness cannot load its own state\n");
    std::exit(2);
  }
}

void Machine::run(const State& state, std::uint64_t rip, Outcome& out) {
  load(state, rip);
  take(insn_diff_enter() != 0, out);
}

bool Machine::emulate(const State& state, const xol::Displaced& point, xol::Outcome& effect, Outcome& out) {
  insn_diff_context.fs_in = state.fs;
  insn_diff_context.gs_in = state.gs;
  g_point = &point;
  for (int i = 0; i < 16; ++i) g_registers.gpr[i] = &state.gpr[i];
  g_registers.rflags = state.flags | 0x202;
  const bool faulted = insn_diff_guarded(emulate_here, (state.flags & 0x40000) != 0) != 0;
  if (faulted) take(true, out);
  effect = g_effect;
  return !faulted;
}

bool Machine::store(const State& state, const xol::Outcome& effect, Outcome& out) {
  g_effect = effect;
  const bool faulted = insn_diff_guarded(store_here, (state.flags & 0x40000) != 0) != 0;
  if (faulted) take(true, out);
  return !faulted;
}

void Machine::put_memory(const World& world, const Memory& memory) {
  std::memcpy(reinterpret_cast<void*>(world.stack()), memory.data(), kRwBytes);
}

void Machine::get_memory(const World& world, Memory& memory) const {
  std::memcpy(memory.data(), reinterpret_cast<const void*>(world.stack()), kRwBytes);
}

}  // namespace ubp::insn_diff
