// See module_log.h.
#include "runtime/stack/module_log.h"

#include <algorithm>

namespace ubp::stack {
namespace {

std::uint32_t count_of(const ModuleLog& log) {
  return std::min(__atomic_load_n(&log.records, __ATOMIC_ACQUIRE), ModuleLog::kMost);
}

ModuleRecord record_of(std::uint32_t image, const symbols::Module& module) {
  ModuleRecord record{0, image, module.low(), module.high(), module.bias, {}, {}};
  if (module.build_id.size() < sizeof record.build_id)
    module.build_id.copy(record.build_id, sizeof record.build_id - 1);
  if (module.path.size() < sizeof record.path) module.path.copy(record.path, sizeof record.path - 1);
  return record;
}

}  // namespace

std::uint32_t take_image(ModuleLog& log) { return __atomic_fetch_add(&log.images, 1, __ATOMIC_RELAXED); }

void note_modules(ModuleLog& log, std::uint32_t image, const std::vector<const symbols::Module*>& modules) {
  for (const symbols::Module* const module : modules) {
    const ModuleRecord record = record_of(image, *module);
    const ModuleRecord* const known = module_of(log, image, record.low);
    const bool is_known = known != nullptr && known->low == record.low && known->high == record.high &&
                          std::equal(std::begin(record.path), std::end(record.path), known->path) &&
                          std::equal(std::begin(record.build_id), std::end(record.build_id), known->build_id);
    if (is_known || record.low >= record.high || count_of(log) == ModuleLog::kMost) continue;
    const std::uint32_t index = __atomic_fetch_add(&log.records, 1, __ATOMIC_RELAXED);  // other images write, too
    if (index >= ModuleLog::kMost) return;
    log.all[index] = record;
    __atomic_store_n(&log.all[index].is_written, 1, __ATOMIC_RELEASE);  // pairs with module_of()
  }
}

const ModuleRecord* module_of(const ModuleLog& log, std::uint32_t image, std::uint64_t address) {
  for (std::uint32_t index = count_of(log); index-- > 0;) {
    const ModuleRecord& record = log.all[index];
    if (__atomic_load_n(&record.is_written, __ATOMIC_ACQUIRE) == 0 || record.image != image) continue;
    if (address >= record.low && address < record.high) return &record;
  }
  return nullptr;
}

}  // namespace ubp::stack
