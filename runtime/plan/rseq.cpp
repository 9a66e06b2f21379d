// Finding restartable sequences. See rseq.h.
#include "runtime/plan/rseq.h"

#include <linux/rseq.h>
#include <string.h>

#include <algorithm>
#include <cstring>

#include "runtime/plan/modules.h"
#include "runtime/symbols/readable.h"

namespace ubp::plan {
namespace {

constexpr std::uint32_t kSignature = 0x53053053;  // RSEQ_SIG
constexpr std::uint64_t kLongest = 4096;          // a critical section is some instructions

bool is_code(const symbols::Module& module, std::uint64_t address) {
  const symbols::Segment* segment = module.segment_at(address);
  return segment != nullptr && segment->executable && segment->readable;
}

bool has_signature(const symbols::Module& module) {
  symbols::Readable readable;
  bool has_it = false;
  for_each_text(module, readable, [&](std::uint64_t, Text text) {
    has_it |= memmem(text.data(), text.size(), &kSignature, sizeof kSignature) != nullptr;
  });
  return has_it;
}

// The section that a descriptor at `at` would describe. (What the address sanitizer has put between a module's
// variables is read like them.)
[[gnu::no_sanitize_address]] bool read_descriptor(const symbols::Module& module, const std::uint8_t* at,
                                                  CodeRange& section) {
  const rseq_cs descriptor = *reinterpret_cast<const rseq_cs*>(at);
  if (descriptor.version != 0 || descriptor.post_commit_offset == 0 || descriptor.post_commit_offset > kLongest)
    return false;
  const std::uint64_t begin = descriptor.start_ip - module.bias, abort = descriptor.abort_ip - module.bias;
  if (!is_code(module, begin) || !is_code(module, abort) || !is_code(module, abort - sizeof kSignature)) return false;
  const std::uint8_t* const signature = module.bytes_at(abort - sizeof kSignature, sizeof kSignature);
  if (signature == nullptr) return false;
  std::uint32_t before;
  std::memcpy(&before, signature, sizeof before);
  section = {begin, begin + descriptor.post_commit_offset};
  return before == kSignature;
}

}  // namespace

std::vector<CodeRange> rseq_sections(const symbols::Module& module) {
  std::vector<CodeRange> sections;
  if (!module.is_relocated) {
    if (has_signature(module)) sections.push_back({0, ~std::uint64_t{0}});
    return sections;
  }
  for (const symbols::Segment& segment : module.segments) {
    // A descriptor holds run-time addresses: where modules are relocated, only what the dynamic linker could write has
    // some.
    const bool may_hold_any = segment.writable || module.bias == 0;
    if (segment.executable || !segment.readable || !may_hold_any) continue;
    const std::uint64_t begin = module.bias + segment.address;
    const std::uint64_t size = symbols::Readable().end_of(begin, begin + segment.file_size) - begin;
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(begin);
    constexpr std::uint64_t kAlign = alignof(rseq_cs);
    for (std::uint64_t at = -segment.address % kAlign; at + sizeof(rseq_cs) <= size; at += kAlign) {
      CodeRange section{};
      if (read_descriptor(module, bytes + at, section)) sections.push_back(section);
    }
  }
  std::sort(sections.begin(), sections.end(), [](const CodeRange& a, const CodeRange& b) { return a.begin < b.begin; });
  return sections;
}

}  // namespace ubp::plan
