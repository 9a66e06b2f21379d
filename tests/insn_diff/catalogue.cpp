// Where encodings come from: linear sweeps of libraries, and random bytes under every opcode map.
//
// A linear sweep decodes data as code here and there; for seeds that does no harm.
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tests/insn_diff/encoding.h"

namespace ubp::insn_diff {
namespace {

// What would wait for another processor or for a time, or end the process.
const char* skip_reason(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_UMONITOR: return "waits";
    default: return nullptr;
  }
}

struct Mapping {
  const std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

Mapping map_file(const std::string& path) {
  Mapping result;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd < 0) return result;
  if (fstat(fd, &status) == 0 && status.st_size > static_cast<off_t>(sizeof(Elf64_Ehdr))) {
    void* at = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (at != MAP_FAILED) result = {static_cast<const std::uint8_t*>(at), static_cast<std::size_t>(status.st_size)};
  }
  close(fd);
  return result;
}

std::span<const std::uint8_t> text_of(const Mapping& file) {
  Elf64_Ehdr header;
  std::memcpy(&header, file.data, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64) return {};
  if (header.e_shoff + std::uint64_t{header.e_shnum} * sizeof(Elf64_Shdr) > file.bytes) return {};
  const auto section = [&](unsigned index) {
    Elf64_Shdr result;
    std::memcpy(&result, file.data + header.e_shoff + index * sizeof result, sizeof result);
    return result;
  };
  const Elf64_Shdr names = section(header.e_shstrndx);
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr candidate = section(i);
    const char* name = reinterpret_cast<const char*>(file.data + names.sh_offset + candidate.sh_name);
    if (std::strcmp(name, ".text") == 0 && candidate.sh_offset + candidate.sh_size <= file.bytes) {
      return {file.data + candidate.sh_offset, candidate.sh_size};
    }
  }
  return {};
}

// Random bytes behind a chosen opcode: legacy maps with and without prefixes, VEX, EVEX, XOP.
Code generate(Random& random) {
  Code code;
  for (auto& byte : code) byte = static_cast<std::uint8_t>(random.next());
  std::size_t at = 0;
  const auto put = [&](std::uint64_t byte) { code[at++] = static_cast<std::uint8_t>(byte); };
  const std::uint64_t kind = random.below(8);
  if (kind < 4) {
    static constexpr std::uint8_t kPrefixes[] = {0x66, 0xf2, 0xf3, 0x67, 0x64, 0x65, 0xf0, 0x2e};
    for (std::uint64_t n = random.below(3); n > 0; --n) put(kPrefixes[random.below(random.chance(4) ? 8 : 3)]);
    if (!random.chance(3)) put(0x40 | random.below(16));
    if (kind > 0) put(0x0f);
    if (kind == 2) put(0x38);
    if (kind == 3) put(0x3a);
  } else if (kind == 4) {
    put(random.chance(2) ? 0xc5 : 0xc4);
    if (code[0] == 0xc4) put((random.next() & 0xe0) | (1 + random.below(3)));
  } else if (kind == 5) {
    put(0x8f);
    put((random.next() & 0xe0) | (8 + random.below(3)));
  } else {
    put(0x62);
    put((random.next() & 0xf0) | (1 + random.below(3)));
    put(random.next() | 4);
    put(random.chance(2) ? random.next() | 8 : (random.next() & 0xf8));
  }
  return code;
}

}  // namespace

bool Catalogue::add(std::span<const std::uint8_t> bytes, Origin origin) {
  const auto decoded = decode(bytes);
  if (!decoded) return false;
  const std::uint64_t key = encoding_key(decoded->raw);
  Code code{};
  std::memcpy(code.data(), bytes.data(), decoded->raw.length);
  const auto [place, is_new] = by_key_.try_emplace(key, encodings_.size());
  if (!is_new) {
    auto& samples = encodings_[place->second].samples;
    if (origin == Origin::kHand && encodings_[place->second].origin != Origin::kHand) samples.clear();
    if (samples.size() < kSamples && std::find(samples.begin(), samples.end(), code) == samples.end()) {
      samples.push_back(code);
    }
    return false;
  }
  const decoder::Instruction kind = decoder::classify({code.data(), decoded->raw.length});
  encodings_.push_back({.origin = origin,
                        .key = key,
                        .samples = {code},
                        .mnemonic = ZydisMnemonicGetString(decoded->raw.mnemonic),
                        .route = kind.route,
                        .refusal = kind.refusal,
                        .skip = skip_reason(decoded->raw.mnemonic)});
  return true;
}

void Catalogue::add_library(const std::string& path) {
  const Mapping file = map_file(path);
  if (file.data == nullptr) {
    std::printf("not installed: %s\n", path.c_str());
    return;
  }
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  const auto text = text_of(file);
  const std::size_t before = encodings_.size();
  std::uint64_t instructions = 0;
  for (std::size_t at = 0; at < text.size();) {
    ZydisDecodedInstruction raw;
    ZydisDecoderContext context;
    const auto rest = text.subspan(at);
    if (ZYAN_FAILED(ZydisDecoderDecodeInstruction(&decoder, &context, rest.data(), rest.size(), &raw))) {
      ++at;
      continue;
    }
    ++instructions;
    const auto known = by_key_.find(encoding_key(raw));
    if (known == by_key_.end() || encodings_[known->second].samples.size() < kSamples) {
      add(rest.first(raw.length), Origin::kLibrary);
    }
    at += raw.length;
  }
  std::printf("%-60s %9llu instructions %6zu new encodings\n", path.c_str(),
              static_cast<unsigned long long>(instructions), encodings_.size() - before);
  munmap(const_cast<std::uint8_t*>(file.data), file.bytes);
}

void Catalogue::add_generated(std::size_t attempts, std::uint64_t seed) {
  Random random(seed);
  for (std::size_t i = 0; i < attempts; ++i) {
    const Code code = generate(random);
    add({code.data(), 15}, Origin::kGenerated);
  }
}

}  // namespace ubp::insn_diff
