// Random states: XSAVE images, registers and memory, with operands solved so that they mostly fall into the
// arena.
#include <algorithm>
#include <cstring>

#include "tests/insn_diff/case.h"

namespace ubp::insn_diff {
namespace {

constexpr int kRsp = 4;

template <class T>
void write_at(std::uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

// A segment base must be canonical: the harness itself loads it.
std::uint64_t canonical(std::uint64_t address) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << 17) >> 17);
}

std::uint64_t some_number(Random& random) {
  switch (random.below(6)) {
    case 0: return random.below(256);
    case 1: return static_cast<std::uint64_t>(random.between(-128, 127));
    case 2: return std::uint64_t{1} << random.below(64);
    case 3: return (std::uint64_t{1} << random.below(64)) - 1;
    default: return random.next();
  }
}

// Bytes that look like floating-point and integer vectors of every width.
void fill_pool(std::uint8_t* pool, std::size_t bytes) {
  Random random(0xf00d);
  static constexpr float kFloats[] = {0.f, -0.f, 1.f, -1.5f, 3.4e38f, 1e-40f, 0.1f, 1e10f};
  static constexpr double kDoubles[] = {0., -0., 1., -2.75, 1.7e308, 4.9e-324, 0.1, 1e20};
  for (std::size_t at = 0; at < bytes; at += 64) {
    const std::uint64_t kind = random.below(5);
    for (std::size_t i = 0; i < 64; i += 8) {
      std::uint64_t value = random.next();
      if (kind == 1) value = random.chance(3) ? random.below(16) : 0;
      if (kind == 2) {
        const float second = random.chance(8) ? __builtin_nanf("") : kFloats[random.below(8)];
        const float pair[2] = {kFloats[random.below(8)], second};
        std::memcpy(&value, pair, 8);
      }
      if (kind == 3) {
        const double number = random.chance(8) ? __builtin_inf() : kDoubles[random.below(8)];
        std::memcpy(&value, &number, 8);
      }
      write_at(pool + at + i, value);
    }
  }
}

}  // namespace

StateMaker::StateMaker(const Machine& machine) : machine_(machine) {
  fill_pool(pool_.data(), pool_.size());
  for (std::size_t at = 0; at < base_.size(); at += 64) {
    std::memcpy(base_.data() + at, pool_.data() + at * 5 % (pool_.size() - 64), 64);
    if (at % 256 == 0) std::memset(base_.data() + at, static_cast<int>(at >> 8), 64);
  }
}

std::uint8_t* StateMaker::vector_part(std::uint8_t* image, int number, int part) const {
  const XsaveLayout& layout = machine_.xsave_layout();
  if (number >= 16) {
    static constexpr int kWithin[3] = {0, 16, 32};
    return layout.offset[7] == 0 ? nullptr : image + layout.offset[7] + (number - 16) * 64 + kWithin[part];
  }
  if (part == 0) return image + 160 + number * 16;
  const int component = part == 1 ? 2 : 6;
  if (layout.offset[component] == 0) return nullptr;
  return image + layout.offset[component] + number * (part == 1 ? 16 : 32);
}

void StateMaker::fill_xsave(std::uint8_t* image, Random& random) const {
  const XsaveLayout& layout = machine_.xsave_layout();
  const auto pool = [&](std::size_t bytes) { return pool_.data() + (random.next() >> 20) % (pool_.size() - bytes); };
  std::memset(image, 0, 32);
  const std::uint64_t bits = random.next();
  const bool x87_traps = random.chance(24), sse_traps = random.chance(24);
  const auto masks = static_cast<std::uint16_t>(x87_traps ? bits & 0x3f : 0x3f);
  const auto pending = static_cast<std::uint16_t>(random.chance(8) ? bits >> 8 & 0x3f : 0);
  auto status = static_cast<std::uint16_t>((bits >> 16 & 0x7f00) | pending);
  if ((pending & ~masks) != 0) status |= 0x8080;
  write_at(image, static_cast<std::uint16_t>(0x40 | masks | (bits >> 32 & 0xf00)));
  write_at(image + 2, status);
  image[4] = static_cast<std::uint8_t>((bits & 0x3000) == 0 ? bits >> 40 : (bits & 0x1000) != 0 ? 0xff : 0);
  write_at(image + 6, static_cast<std::uint16_t>(bits >> 50 & 0x7ff));
  write_at(image + 8, bits * 3 & 0x7fffffffffff);
  write_at(image + 16, bits * 5 & 0x7fffffffffff);
  const auto sse_masks = static_cast<std::uint32_t>(sse_traps ? bits >> 3 & 0x1f80 : 0x1f80);
  write_at(image + 24, sse_masks | static_cast<std::uint32_t>((bits >> 20 & 0xe000) | (bits >> 33 & 0x7f)));
  for (int i = 0; i < 8; ++i) {
    std::memset(image + 32 + i * 16, 0, 16);
    std::memcpy(image + 32 + i * 16, pool(10), 10);
    if (random.chance(2)) write_at(image + 40 + i * 16, static_cast<std::uint16_t>(0x3fe0 + random.below(64)));
    if (random.chance(2)) image[39 + i * 16] |= 0x80;  // normal
  }
  for (int number = 0; number < 32; ++number) {
    for (int part = 0; part < 3; ++part) {
      constexpr std::size_t kBytes[3] = {16, 16, 32};
      std::uint8_t* at = vector_part(image, number, part);
      if (at != nullptr) std::memcpy(at, pool(64), kBytes[part]);
    }
  }
  if (layout.offset[5] != 0) {
    for (int i = 0; i < 8; ++i) {
      std::uint64_t mask = random.next();
      if (random.chance(4)) mask = random.chance(2) ? ~std::uint64_t{0} : 0;
      write_at(image + layout.offset[5] + i * 8, mask);
    }
  }
  std::memset(image + 416, 0, 96);
  std::memset(image + 512, 0, 64);
  std::uint64_t in_use = layout.features & 0xe7;  // no protection keys, no tiles: they stay initial
  if (random.chance(32)) in_use &= random.next();
  write_at(image + 512, in_use);
}

void StateMaker::fill_general(Random& random, State& out) const {
  for (auto& value : out.gpr) value = some_number(random);
  constexpr std::uint64_t kStatus = 0x8d5, kDirection = 0x400, kNested = 0x4000, kAlign = 0x40000, kId = 0x200000;
  out.flags = random.next() & (kStatus | kDirection | kId);
  if (random.chance(32)) out.flags |= kNested;
  if (random.chance(64)) out.flags |= kAlign;
  out.fs = random.chance(2) ? random.below(1u << 30) : 0x7f0000000000 + random.below(1u << 30);
  out.gs = random.below(1u << 30);
}

void StateMaker::put(const Case& c, std::uint64_t address, const void* bytes, std::size_t size, State& out) const {
  const std::uint64_t offset = address - c.world->stack();
  if (offset < kRwBytes && size <= kRwBytes - offset) std::memcpy(out.memory.data() + offset, bytes, size);
}

void StateMaker::set_vector_index(const Case& c, const ZydisDecodedOperand& operand, std::uint64_t first,
                                  Random& random, State& out) {
  const char* name = ZydisMnemonicGetString(c.decoded.raw.mnemonic);
  const char* kind = std::strstr(name, "gather");
  kind = kind != nullptr ? kind + 6 : std::strstr(name, "scatter") != nullptr ? std::strstr(name, "scatter") + 7 : name;
  if (kind[0] == 'p' && kind[1] == 'f') kind += 3;
  const bool is_wide = kind[0] == 'q';
  const int number = ZydisRegisterGetId(operand.mem.index);
  for (int part = 0; part < 3; ++part) {
    std::uint8_t* at = vector_part(out.xsave, number, part);
    if (at == nullptr) continue;
    for (std::size_t i = 0; i < (part == 2 ? 32u : 16u); i += is_wide ? 8 : 4) {
      std::int64_t index = random.between(-32, 127);
      if (random.chance(128)) index = static_cast<std::int32_t>(random.next());
      const auto value = first + static_cast<std::uint64_t>(index);
      std::memcpy(at + i, &value, is_wide ? 8 : 4);
    }
  }
}

// Sets the registers of one memory operand. Registers that are fixed already keep their value.
void StateMaker::solve(const Case& c, const ZydisDecodedOperand& operand, Random& random, State& out) {
  const auto& mem = operand.mem;
  const bool has_fs = mem.segment == ZYDIS_REGISTER_FS, has_gs = mem.segment == ZYDIS_REGISTER_GS;
  std::uint64_t* segment = has_fs ? &out.fs : has_gs ? &out.gs : nullptr;
  const bool is_narrow = c.decoded.raw.address_width == 32;
  std::uint64_t linear = c.fixed_address != 0 && operand.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN
                             ? c.fixed_address
                             : choose_address(*c.world, operand.size / 8u, random);
  const auto displacement = static_cast<std::uint64_t>(mem.disp.value);
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    if (segment != nullptr) *segment = canonical(linear - (c.next() + displacement));
    return;
  }
  const bool has_base = mem.base != ZYDIS_REGISTER_NONE, has_index = mem.index != ZYDIS_REGISTER_NONE;
  std::uint64_t offset = linear;  // what base, index and displacement must add up to
  if (segment != nullptr) {
    offset = has_base || has_index ? 4096 + random.below(1 << 20) : displacement;
    if (is_narrow) offset &= 0xffffffff;
    *segment = canonical(linear - offset);
  }
  if (!has_base && !has_index) return;
  const bool is_vector = mem.type == ZYDIS_MEMOP_TYPE_VSIB;
  const int base = has_base ? number_of(mem.base) : -1, index = has_index && !is_vector ? number_of(mem.index) : -1;
  const std::uint64_t scale = mem.scale == 0 ? 1 : mem.scale;
  const auto set = [&](int reg, std::uint64_t value) {
    if ((fixed_ >> reg & 1) != 0) return;
    out.gpr[reg] = is_narrow ? (value & 0xffffffff) | random.next() << 32 : value;
    fixed_ |= 1u << reg;
  };
  if (is_vector) {
    set_vector_index(c, operand, has_base ? 0 : (offset - displacement) / scale, random, out);
    if (has_base) set(base, offset - displacement);
  } else if (base == index) {
    set(base, (offset - displacement) / (1 + scale));
  } else if (index < 0) {
    set(base, offset - displacement);
  } else if (base < 0) {
    set(index, (offset - displacement) / scale);
  } else if (mem.index == ZYDIS_REGISTER_AL) {
    set(base, offset - (out.gpr[0] & 0xff));
  } else {
    if ((fixed_ >> base & 1) != 0) {
      set(index, static_cast<std::uint64_t>(random.between(-16, 16)));
    } else if (random.chance(4)) {
      set(index, some_number(random));
    } else {
      set(index, static_cast<std::uint64_t>(random.between(-1000, 1000)));
    }
    set(base, offset - displacement - out.gpr[index] * scale);
  }
}

void StateMaker::solve_operands(const Case& c, Random& random, State& out) {
  fixed_ = 1u << kRsp;
  std::uint64_t rsp = c.world->stack() + 1024 + random.below(256) * 8;
  switch (random.below(64)) {
    case 0: rsp = c.world->stack() + random.below(24); break;         // the next push faults
    case 1: rsp = c.world->stack() + 2048 + random.below(64); break;  // misaligned
    case 2: rsp = c.world->read_only() - random.below(16); break;
    case 3: rsp = random.chance(4) ? random.next() : c.world->bus() + kPage + random.below(kPage); break;
    default: break;
  }
  out.gpr[kRsp] = rsp;
  for (std::uint8_t i = 0; i < c.decoded.raw.operand_count; ++i) {
    const ZydisDecodedOperand& operand = c.decoded.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
      solve(c, operand, random, out);
    }
  }
  last_address_ = 0;
  for (std::uint8_t i = 0; i < c.decoded.raw.operand_count; ++i) {
    const ZydisDecodedOperand& operand = c.decoded.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
    if (operand.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN || last_address_ == 0) {
      last_address_ = address_of(c, operand, out);
    }
  }
}

std::uint64_t StateMaker::address_of(const Case& c, const ZydisDecodedOperand& operand, const State& state) const {
  const auto& mem = operand.mem;
  auto address = static_cast<std::uint64_t>(mem.disp.value);
  if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP) {
    address += c.next();
  } else if (mem.base != ZYDIS_REGISTER_NONE) {
    address += state.gpr[number_of(mem.base)];
  }
  if (mem.index != ZYDIS_REGISTER_NONE && mem.type != ZYDIS_MEMOP_TYPE_VSIB) {
    address += state.gpr[number_of(mem.index)] * (mem.scale == 0 ? 1u : mem.scale);
  }
  if (c.decoded.raw.address_width == 32) address &= 0xffffffff;
  if (mem.segment == ZYDIS_REGISTER_FS) address += state.fs;
  if (mem.segment == ZYDIS_REGISTER_GS) address += state.gs;
  return address;
}

void StateMaker::make(const Case& c, Random& random, State& out) {
  fill_xsave(out.xsave, random);
  fill_general(random, out);
  out.memory = base_;
  for (int i = 0; i < 4; ++i) {
    const std::uint64_t value = some_number(random);
    std::memcpy(out.memory.data() + random.below(kRwBytes - 8), &value, 8);
  }
  solve_operands(c, random, out);
  if (last_address_ != 0) put(c, last_address_, pool_.data() + random.below(pool_.size() - 64), 64, out);
  apply_mnemonic(c, random, out);
  if (random.chance(64)) out.flags |= 0x100;  // a single step shows where a slot's context is said to stand
}

}  // namespace ubp::insn_diff
