// What is loaded, and what was read of it. See modules.h.
#include "runtime/plan/modules.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>

#include "runtime/symbols/goroutines.h"

namespace ubp::plan {

using symbols::FunctionTable;
using symbols::Module;

namespace {

bool is_same(const Module& a, const Module& b) {
  return a.bias == b.bias && a.path == b.path && a.build_id == b.build_id;
}

// How many bytes at the front of the text are neither an int3 nor what a jump to a detour begins with.
std::ptrdiff_t leading_others(std::span<const std::uint8_t> text) {
  std::size_t at = 0;
  for (; text.size() - at >= sizeof(__m128i); at += sizeof(__m128i)) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(text.data() + at));
    const auto is = [&](int byte) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(static_cast<char>(byte))); };
    const int found = _mm_movemask_epi8(_mm_or_si128(is(0xcc), _mm_or_si128(is(0xe9), is(0x3e))));
    if (found != 0) return static_cast<std::ptrdiff_t>(at) + std::countr_zero(static_cast<unsigned>(found));
  }
  while (at < text.size() && text[at] != 0xcc && !runtime::is_detour_jump(&text[at])) ++at;
  return static_cast<std::ptrdiff_t>(at);
}

}  // namespace

std::span<const std::uint8_t> text_from(const Module& module, std::uint64_t address, std::uint64_t end,
                                        symbols::Readable& readable) {
  const symbols::Segment* segment = module.segment_at(address);
  if (segment == nullptr || !segment->executable || !segment->readable || end <= address) return {};
  const std::uint64_t begin = module.bias + address,
                      limit = module.bias + std::min(end, segment->address + segment->size);
  return {reinterpret_cast<const std::uint8_t*>(begin), readable.end_of(begin, limit) - begin};
}

Modules::Modules() : modules_(symbols::loaded_modules()), generation_(symbols::modules_generation()) {
  if (modules_.size() > kMaxModules) {
    left_out_ = modules_.size() - kMaxModules;
    modules_.resize(kMaxModules);
  }
  present_.resize(modules_.size(), true);
}

Modules::Change Modules::refresh(bool just_mapped) {
  Change change;
  for (Module& module : modules_) module.is_relocated |= !just_mapped;
  const std::uint64_t generation = symbols::modules_generation();
  if (generation == generation_) return change;
  generation_ = generation;
  std::vector<Module> now = symbols::loaded_modules();
  for (std::uint32_t module = 0; module < modules_.size(); ++module) {
    const auto is_it = [&](const Module& other) { return is_same(other, modules_[module]); };
    if (!present_[module] || std::any_of(now.begin(), now.end(), is_it)) continue;
    present_[module] = false;
    change.gone.push_back(module);
  }
  const std::size_t known = modules_.size();
  for (Module& module : now) {
    std::optional<std::uint32_t> earlier;
    for (std::uint32_t other = 0; other < known; ++other) {
      // Without a build-id, what is loaded at the place of an earlier module under its name may be another file.
      // And what was said of its thread-local variables would be wrong elsewhere.
      const bool is_back = !module.build_id.empty() && module.thread_storage == modules_[other].thread_storage;
      if (is_same(modules_[other], module) && (present_[other] || is_back)) earlier = other;
    }
    if (!earlier && modules_.size() == kMaxModules) {
      ++change.left_out;
    } else if (!earlier) {
      module.is_relocated = !just_mapped;
      change.come.push_back(static_cast<std::uint32_t>(modules_.size()));
      modules_.push_back(std::move(module));
      present_.push_back(true);
    } else if (!present_[*earlier]) {
      present_[*earlier] = true;
      modules_[*earlier].is_relocated = !just_mapped;
      change.back.push_back(*earlier);
    }
  }
  left_out_ = change.left_out;
  return change;
}

const FunctionTable& Modules::table_of(std::uint32_t module) const {
  auto found = tables_.find(module);
  if (found == tables_.end()) found = tables_.emplace(module, FunctionTable::load(modules_[module])).first;
  return found->second;
}

const std::vector<symbols::Mark>& Modules::marks_of(std::uint32_t module) const {
  auto found = marks_.find(module);
  if (found == marks_.end()) found = marks_.emplace(module, symbols::marks_of(modules_[module])).first;
  return found->second;
}

bool Modules::has_go_code(std::uint32_t module) const {
  const auto [found, is_new] = go_code_.try_emplace(module);
  if (is_new) found->second = symbols::has_go_code(modules_[module]);
  return found->second;
}

std::optional<std::int64_t> Modules::goroutine_word() const {
  if (!goroutine_word_) {
    const bool has_any = !modules_.empty() && has_go_code(0);
    goroutine_word_ = has_any ? symbols::goroutine_word(modules_[0]) : std::nullopt;
  }
  return *goroutine_word_;
}

const FunctionTable* Modules::known_table_of(std::uint32_t module) const {
  const auto found = tables_.find(module);
  return found != tables_.end() ? &found->second : nullptr;
}

const std::vector<CodeRange>& Modules::rseq_of(std::uint32_t module) const {
  auto found = rseq_.find(module);
  if (found == rseq_.end()) found = rseq_.emplace(module, rseq_sections(modules_[module])).first;
  return found->second;
}

bool Modules::is_in_rseq(std::uint32_t module, std::uint64_t address) const {
  return next_rseq(module, address, address + 1) == address;
}

std::uint64_t Modules::next_rseq(std::uint32_t module, std::uint64_t begin, std::uint64_t end) const {
  for (const CodeRange& section : rseq_of(module)) {
    if (section.begin < end && section.end > begin) end = std::max(begin, section.begin);
  }
  return end;
}

Code Modules::code_from(std::uint32_t module, std::uint64_t address, std::uint64_t end,
                        symbols::Readable& readable) const {
  const std::span<const std::uint8_t> text = text_from(modules_[module], address, end, readable);
  if (armed_.count == 0 || text.empty()) return Code(text);
  constexpr std::size_t kMost = std::size_t{1} << 20;  // of a function without a known end
  const std::span<const std::uint8_t> code = text.first(std::min(text.size(), kMost));
  const auto size = static_cast<std::ptrdiff_t>(code.size());
  std::vector<std::uint8_t> copy;  // made when the text is seen to differ
  const auto restore = [&](std::ptrdiff_t at, std::uint8_t byte) {
    if (at < 0 || at >= size) return;
    if (copy.empty()) copy.assign(code.begin(), code.end());
    copy[static_cast<std::size_t>(at)] = byte;
  };
  const bool has_jumps = detours_->infos != nullptr;
  const auto restore_jump = [&](std::ptrdiff_t at, std::uint32_t point) {
    const runtime::DetourInfo* const info = detours_->of(point);
    for (std::ptrdiff_t offset = 0; info != nullptr && offset < info->jump_bytes; ++offset)
      restore(at + offset, info->original[offset]);
  };
  // A jump may begin before the text asked for, where there may be nothing to read.
  for (std::ptrdiff_t at = 1 - static_cast<std::ptrdiff_t>(runtime::kMostJumpBytes); has_jumps && at < 0; ++at) {
    const std::uint8_t* const byte = code.data() + at;
    const bool is_on_its_page =
        ((reinterpret_cast<std::uint64_t>(byte) ^ reinterpret_cast<std::uint64_t>(code.data())) &
         ~(sys::kPageBytes - 1)) == 0;
    if (is_on_its_page && !runtime::is_detour_jump(byte)) continue;
    const std::uint32_t point = armed_.find(reinterpret_cast<std::uint64_t>(byte));
    const bool has_detour = point != runtime::kNotFound && detours_->of(point) != nullptr &&
                            sys::is_readable(reinterpret_cast<std::uint64_t>(byte));
    if (has_detour && runtime::is_detour_jump(byte)) restore_jump(at, point);
  }
  for (std::ptrdiff_t at = 0; at < size; ++at) {
    at += leading_others(code.subspan(static_cast<std::size_t>(at)));
    if (at == size) break;
    const std::uint8_t* const byte = code.data() + at;
    // The end of a jump may lie behind what can be read: the table is asked then.
    const bool is_whole = size - at >= static_cast<std::ptrdiff_t>(runtime::kMostJumpBytes);
    const bool is_jump = has_jumps && (is_whole ? detours_->is_jumped_from(byte) : runtime::is_detour_jump(byte));
    if (*byte != 0xcc && !is_jump) continue;
    const std::uint32_t point = armed_.find(reinterpret_cast<std::uint64_t>(byte));
    if (point == runtime::kNotFound) continue;
    if (is_jump) {
      restore_jump(at, point);
    } else {
      restore(at, armed_.points[point].first_byte);
    }
  }
  return copy.empty() ? Code(code) : Code(std::move(copy));
}

bool Modules::is_own_text(std::uint64_t address) const {
  return std::any_of(own_text_.begin(), own_text_.end(),
                     [&](const CodeRange& range) { return address >= range.begin && address < range.end; });
}

std::optional<std::uint32_t> Modules::module_at(std::uint64_t address) const {
  // Later ones first: an earlier one there is gone.
  for (std::uint32_t module = static_cast<std::uint32_t>(modules_.size()); module-- > 0;) {
    if (present_[module] && address >= modules_[module].low() && address < modules_[module].high() &&
        modules_[module].segment_at(address - modules_[module].bias) != nullptr) {
      return module;
    }
  }
  return std::nullopt;
}

}  // namespace ubp::plan
