// See stack_helpers.h.
#include "runtime/helpers/stack_helpers.h"

#include "runtime/helpers/helpers.h"
#include "runtime/helpers/read_memory.h"
#include "runtime/stack/walk.h"
#include "runtime/trap/read_stack.h"

namespace ubp::program {

std::uint64_t take_stack(Run* run, std::uint64_t* room, std::uint64_t frames) {
  const Machine& machine = *run->machine;
  const auto* const tables = __atomic_load_n(&machine.frame_tables, __ATOMIC_ACQUIRE);  // pairs with set_modules()
  if (tables == nullptr || run->context->consumer == nullptr) return stack::kNoFrames;
  stack::Start start;
  start.address = instruction_address(run);
  for (std::size_t i = 0; i < stack::kRegisters; ++i) start.registers[i] = register_value(run, i);
  const trap::StackReader read(is_at_hit(run), start.registers[stack::kRsp]);
  const std::uint64_t count = stack::Walk(*tables, start, read).run(room, frames);
  return stack::number_of_stack(machine.stacks, machine.image, room, count);
}

std::uint64_t stack_length(Run* run, std::uint64_t number) {
  const stack::Stack its = stack::stack_of(run->machine->stacks, number);
  const bool has_end = its.count != 0 && its.frames[its.count - 1] == stack::kNotFound;  // no frame
  return has_end ? its.count - 1 : its.count;
}

std::uint64_t symbol_value(Run* run, std::uint64_t address) {
  const std::uint64_t image = run->machine->image;
  if (address >> kSymbolImageShift != 0 || image > kMostImages) return address;
  return address | image << kSymbolImageShift;
}

}  // namespace ubp::program
