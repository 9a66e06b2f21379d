// See frame_tables.h.
#include "runtime/stack/frame_tables.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace ubp::stack {
namespace {

// Zeros that take memory where they are used. Never given back.
template <typename T>
T* reserve(std::size_t count) {
  void* const memory =
      mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<T*>(memory);
}

}  // namespace

FrameTableSet::FrameTableSet() : rule_room_(reserve<Rule>(kMostRules)), rules_(rule_room_) {}

const FrameTables* FrameTableSet::update(const std::vector<const symbols::Module*>& modules) {
  Published next;
  for (const symbols::Module* const module : modules) {
    const Key key{module->bias, module->unwind_index, module->path, module->build_id};
    auto found = compiled_.find(key);
    if (found == compiled_.end()) found = compiled_.emplace(key, compile(*module, rules_)).first;
    const ModuleRules& its = found->second;
    if (its.starts.empty()) continue;
    next.regions.push_back(
        {its.low, its.high, its.starts.data(), its.rules.data(), static_cast<std::uint32_t>(its.starts.size())});
  }
  std::sort(next.regions.begin(), next.regions.end(), [](const Region& a, const Region& b) { return a.low < b.low; });
  const auto is_same = [](const Region& a, const Region& b) { return a.low == b.low && a.starts == b.starts; };
  if (!published_.empty() && std::equal(next.regions.begin(), next.regions.end(), published_.back().regions.begin(),
                                        published_.back().regions.end(), is_same))
    return &published_.back().tables;
  Published& last = published_.emplace_back(std::move(next));
  last.tables = {last.regions.data(), last.regions.size(), rule_room_, reserve<std::uint64_t>(kCacheWords)};
  return &last.tables;
}

std::size_t FrameTableSet::rows() const {
  std::size_t rows = 0;
  for (const auto& [key, its] : compiled_) rows += its.starts.size();
  return rows;
}

}  // namespace ubp::stack
