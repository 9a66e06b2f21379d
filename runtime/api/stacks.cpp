// See stacks.h.
#include "runtime/api/stacks.h"

#include <vector>

#include "runtime/api/api.h"
#include "runtime/stack/frame_tables.h"

namespace ubp::runtime {
namespace {

// Never destroyed: hits look into its tables to the very end.
stack::FrameTableSet& frame_tables() {
  static auto& all = *new stack::FrameTableSet;
  return all;
}

}  // namespace

void follow_modules(program::Program& program) {
  if (!program.follows_modules()) return;
  // What its values refer to lives as long as it does.
  interface().registry.follow_modules(program.analysis().stack_text, [&program](const plan::Modules& modules) {
    std::vector<const symbols::Module*> present;
    for (std::uint32_t module = 0; module < modules.all().size(); ++module) {
      if (modules.is_present(module)) present.push_back(&modules.all()[module]);
    }
    program.set_modules(program.analysis().uses_stacks ? frame_tables().update(present) : nullptr, present);
  });
}

}  // namespace ubp::runtime
