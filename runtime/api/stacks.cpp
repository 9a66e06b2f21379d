// See stacks.h.
#include "runtime/api/stacks.h"

#include <memory>
#include <vector>

#include "runtime/api/api.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/stack/frame_tables.h"

namespace ubp::runtime {
namespace {

// Never destroyed: hits look into its tables to the very end.
stack::FrameTableSet& frame_tables() {
  static auto& all = *new stack::FrameTableSet;
  return all;
}

std::vector<const symbols::Module*> present_modules(const plan::Modules& modules) {
  std::vector<const symbols::Module*> present;
  for (std::uint32_t module = 0; module < modules.all().size(); ++module) {
    if (modules.is_present(module)) present.push_back(&modules.all()[module]);
  }
  return present;
}

}  // namespace

void follow_modules(program::Program& program) {
  if (!program.follows_modules()) return;
  // What its values refer to lives as long as it does.
  interface().registry.follow_modules(program.analysis().stack_text, [&program](const plan::Modules& modules) {
    const std::vector<const symbols::Module*> present = present_modules(modules);
    program.set_modules(program.analysis().uses_stacks ? frame_tables().update(present) : nullptr, present);
  });
}

void prepare_backtraces() {
  static const auto life = std::make_shared<int>(0);  // as long as the process: probes may come again
  if (g_frame_tables != nullptr) return;
  interface().registry.follow_modules(life, [](const plan::Modules& modules) {
    const stack::FrameTables* const tables = frame_tables().update(present_modules(modules));
    __atomic_store_n(&g_frame_tables, tables, __ATOMIC_RELEASE);  // pairs with ubp_context_backtrace()
  });
}

}  // namespace ubp::runtime
