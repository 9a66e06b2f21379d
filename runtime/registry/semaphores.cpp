// The semaphores of static marks: 16-bit counters in the program's memory of who is listening, which the program looks
// at before it makes arguments that cost something. Each registration counts once in each of them while it is armed.
// Other tracers may count in them too: nothing is ever set, only added and taken away.
//
// A forked child has a copy of its parent's memory, counters included, and of what is raised.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "runtime/registry/registry.h"
#include "runtime/report/report.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

// Whether the program could write there now. What it has made read-only stays as it is.
bool is_writable(const symbols::Module& module, std::uint64_t address) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, since Linux 5.14
  const symbols::Segment* const segment = module.segment_at(address);
  if (segment == nullptr || !segment->writable || address % sizeof(std::uint16_t) != 0) return false;
  const auto page = static_cast<long>((module.bias + address) & ~(sys::kPageBytes - 1));
  const auto asks = [page](std::uint64_t bytes) {
    return sys::call4(SYS_madvise, page, static_cast<long>(bytes), kPopulateWrite) == 0;
  };
  return asks(sys::kPageBytes) || !asks(0);  // nothing, of a kernel that does not know the question
}

bool add(const symbols::Module& module, std::uint64_t address, std::uint16_t change) {
  if (!is_writable(module, address)) return false;
  __atomic_fetch_add(reinterpret_cast<std::uint16_t*>(module.bias + address), change, __ATOMIC_SEQ_CST);
  return true;
}

}  // namespace

// Those of the probes from this one on.
void Registry::note_semaphores(Registration& registration, std::size_t first_probe) const {
  std::vector<Semaphore>& known = registration.semaphores;
  for (std::size_t i = first_probe; i < registration.probes.size(); ++i) {
    const plan::Probe& probe = registration.probes[i];
    const std::vector<language::Item>& items =
        registration.plan != nullptr ? registration.plan->items() : registration.items;
    const symbols::Mark* const mark = mark_of(*modules_, items[probe.item], probe);
    if (mark == nullptr || mark->semaphore == 0) continue;
    const auto is_it = [&](const Semaphore& semaphore) {
      return semaphore.module == probe.module && semaphore.address == mark->semaphore;
    };
    if (std::none_of(known.begin(), known.end(), is_it))
      known.push_back({static_cast<std::uint32_t>(probe.module), mark->semaphore});
  }
}

void Registry::raise_semaphores(Registration& registration) const {
  for (Semaphore& semaphore : registration.semaphores) {
    if (semaphore.is_raised || !modules_->is_present(semaphore.module)) continue;
    const symbols::Module& module = modules_->all()[semaphore.module];
    semaphore.is_raised = add(module, semaphore.address, 1);
    if (semaphore.is_raised) continue;
    report::say(report::Level::kWarning,
                fmt::format("the semaphore of a static mark at {}:0x{:x} cannot be written: the program may not get to "
                            "the mark",
                            module.name, semaphore.address));
  }
}

void Registry::lower_semaphores(Registration& registration) const {
  for (Semaphore& semaphore : registration.semaphores) {
    if (semaphore.is_raised) add(modules_->all()[semaphore.module], semaphore.address, static_cast<std::uint16_t>(-1));
    semaphore.is_raised = false;
  }
}

void Registry::lower_all_semaphores() const {
  for (const auto& [id, registration] : registrations_) lower_semaphores(*registration);
}

// The module is gone, and its memory with it.
void Registry::forget_semaphores(std::uint32_t module) const {
  for (const auto& [id, registration] : registrations_) {
    for (Semaphore& semaphore : registration->semaphores) semaphore.is_raised &= semaphore.module != module;
  }
}

}  // namespace ubp::runtime
