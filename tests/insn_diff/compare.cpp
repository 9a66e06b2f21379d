// The comparison of two outcomes, in words.
#include <signal.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "tests/insn_diff/run.h"

namespace ubp::insn_diff {
namespace {

constexpr const char* kRegisters[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::uint64_t kResumeBit = 0x10000;

[[gnu::format(printf, 2, 3)]] void note(std::string& text, const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  text += "  ";
  text += line;
  text += '\n';
}

using Long = unsigned long long;

void differ(std::string& text, const char* what, std::uint64_t native, std::uint64_t other) {
  if (native != other)
    note(text, "%-10s native %016llx displaced %016llx", what, static_cast<Long>(native), static_cast<Long>(other));
}

// A component that is not in use reads as its initial value, whatever the image holds.
void normalize(std::uint8_t* image, const XsaveLayout& layout) {
  std::uint64_t in_use;
  std::memcpy(&in_use, image + 512, 8);
  std::memset(image + 464, 0, 48);  // the kernel's own words
  std::memset(image + 512, 0, 64);
  if ((in_use & 1) == 0) {
    std::memset(image, 0, 24);
    image[0] = 0x7f;
    image[1] = 0x03;
    std::memset(image + 32, 0, 128);
  }
  if ((in_use & 2) == 0) std::memset(image + 160, 0, 256);
  for (int i = 2; i < 63; ++i) {
    if (layout.bytes[i] != 0 && (in_use >> i & 1) == 0) std::memset(image + layout.offset[i], 0, layout.bytes[i]);
  }
}

std::string part_of_image(std::size_t at, const XsaveLayout& layout) {
  char text[32];
  if (at < 32) {
    static constexpr const char* kHeader[4] = {"FCW/FSW/FTW/FOP", "FIP", "FDP", "MXCSR"};
    return kHeader[at / 8];
  }
  std::snprintf(text, sizeof text, "byte %zu", at);
  if (at < 160) std::snprintf(text, sizeof text, "st%zu", (at - 32) / 16);
  if (at >= 160 && at < 416) std::snprintf(text, sizeof text, "xmm%zu", (at - 160) / 16);
  const auto within = [&](int component) {
    return layout.bytes[component] != 0 && at - layout.offset[component] < layout.bytes[component];
  };
  if (within(2)) std::snprintf(text, sizeof text, "ymm%zu high", (at - layout.offset[2]) / 16);
  if (within(5)) std::snprintf(text, sizeof text, "k%zu", (at - layout.offset[5]) / 8);
  if (within(6)) std::snprintf(text, sizeof text, "zmm%zu high", (at - layout.offset[6]) / 32);
  if (within(7)) std::snprintf(text, sizeof text, "zmm%zu", 16 + (at - layout.offset[7]) / 64);
  return text;
}

// Every difference of two byte ranges, in words of 8 bytes, at most four of them.
template <class Name>
void differ_bytes(std::string& text, const std::uint8_t* native, const std::uint8_t* other, std::size_t bytes,
                  Name name) {
  int shown = 0;
  for (std::size_t at = 0; at + 8 <= bytes && shown < 4; at += 8) {
    std::uint64_t a, b;
    std::memcpy(&a, native + at, 8);
    std::memcpy(&b, other + at, 8);
    if (a == b) continue;
    ++shown;
    differ(text, name(at).c_str(), a, b);
  }
}

const char* where_name(Where where) {
  return where == Where::kNext ? "next instruction" : where == Where::kTarget ? "branch target" : "signal";
}

}  // namespace

std::string describe(const Outcome& o) {
  char text[256];
  if (o.where != Where::kSignal) return where_name(o.where);
  std::snprintf(text, sizeof text, "%s code %d si_addr %llx rip %llx trap %llu error %llu%s", strsignal(o.signal),
                o.code, static_cast<Long>(o.address), static_cast<Long>(o.rip), static_cast<Long>(o.trap),
                static_cast<Long>(o.error), o.from_iret ? " (on entry)" : "");
  return text;
}

std::string Runner::compare(const Case& c, const Outcome& native, const Outcome& other) {
  std::string text;
  const bool is_signal = native.where == Where::kSignal;
  const auto is_step = [](const Outcome& o) { return o.where == Where::kSignal && o.signal == SIGTRAP && o.trap == 1; };
  if (c.steps_late && (is_step(native) || is_step(other))) {
    ++late_steps;
    return text;
  }
  if (native.where != other.where) {
    note(text, "native: %s; displaced: %s", describe(native).c_str(), describe(other).c_str());
  } else if (is_signal) {
    if (native.signal != other.signal || native.code != other.code || native.address != other.address ||
        native.rip != other.rip || native.trap != other.trap || native.error != other.error) {
      note(text, "native:    %s", describe(native).c_str());
      note(text, "displaced: %s", describe(other).c_str());
    }
    if (native.trap == 14) differ(text, "cr2", native.cr2, other.cr2);
  }
  for (int i = 0; i < 16; ++i) {
    if ((c.ignored_gpr >> i & 1) == 0) differ(text, kRegisters[i], native.gpr[i], other.gpr[i]);
  }
  std::uint64_t flags = native.flags;
  if (is_signal && c.kind.route == decoder::Route::kEmulate && !detours_ &&
      ((native.flags ^ other.flags) & kResumeBit) != 0) {
    ++rf_missing;
    flags = (flags & ~kResumeBit) | (other.flags & kResumeBit);
  }
  if (!c.ignore_flags) differ(text, "rflags", flags, other.flags);
  differ(text, "fs base", native.fs, other.fs);
  differ(text, "gs base", native.gs, other.gs);
  static constexpr const char* kSelectors[4] = {"ds", "es", "fs", "gs"};
  for (int i = 0; i < 4; ++i) differ(text, kSelectors[i], native.selectors[i], other.selectors[i]);

  const XsaveLayout& layout = machine_.xsave_layout();
  alignas(64) std::uint8_t image[2][kXsaveBytes];
  std::memcpy(image[0], native.xsave, layout.size);
  std::memcpy(image[1], other.xsave, layout.size);
  normalize(image[0], layout);
  normalize(image[1], layout);
  std::uint64_t fip;
  std::memcpy(&fip, image[1] + 8, 8);
  if (fip - copy_ < c.length()) {
    ++fip_in_slot;
    fip += c.address - copy_;
    std::memcpy(image[1] + 8, &fip, 8);
  }
  if (std::memcmp(image[0], image[1], layout.size) != 0) {
    differ_bytes(text, image[0], image[1], layout.size, [&](std::size_t at) { return part_of_image(at, layout); });
  }
  if (std::memcmp(native.memory.data(), other.memory.data(), kRwBytes) != 0) {
    auto memory = native.memory;
    // Some processors write a call's return address before they find that its target is not canonical (#GP).
    const std::uint64_t pushed = native.gpr[4] - sizeof(std::uint64_t) - c.world->stack();
    if (is_signal && native.trap == 13 && c.decoded.raw.mnemonic == ZYDIS_MNEMONIC_CALL &&
        pushed <= kRwBytes - sizeof(std::uint64_t)) {
      ++written_by_fault;
      std::memcpy(&memory[pushed], &other.memory[pushed], sizeof(std::uint64_t));
    }
    differ_bytes(text, memory.data(), other.memory.data(), kRwBytes, [&](std::size_t at) {
      char name[32];
      std::snprintf(name, sizeof name, "[%llx]", static_cast<Long>(c.world->stack() + at));
      return std::string(name);
    });
  }
  return text;
}

}  // namespace ubp::insn_diff
