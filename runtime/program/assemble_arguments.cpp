// args: by debug information, or of static marks. See assembler.h.
#include "runtime/analysis/mark_types.h"
#include "runtime/helpers/mark_helpers.h"
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

// A number's value in rax; what is wide in the frame, whose address rax is then.
void Assembler::argument(const Node& node) {
  const Type& type = analysis_.type(node);
  const Fact& fact = analysis_.of(node);
  if (!type.is_wide()) {
    mov(rdi, rbx);
    mov(esi, fact.index);
    mov(edx, fact.site);
    return invoke(&program::mark_argument);
  }
  const int result = room(type.words());
  argument_into(fact.index, type, result, fact.site);
  lea(rax, at(result));
}

// Its bytes as C has them.
void Assembler::argument_into(std::uint32_t number, const Type& type, int displacement, std::uint32_t site) {
  mov(rdi, rbx);
  mov(esi, number);
  lea(rdx, at(displacement));
  mov(ecx, type.size());
  mov(r8d, site);
  invoke(&program::argument_bytes);
}

void Assembler::all_arguments(const Node& node) {
  const Type all = analysis_.types->named(arguments_name(probe_number_));
  const std::uint32_t first = named_count(*analysis_.types, probe_number_);
  const int result = room(all.words());
  for (std::uint32_t i = 0; i < all.words(); ++i) mov(at(result + static_cast<int>(i * sizeof(std::uint64_t))), 0);
  for (std::uint32_t i = 0; i < all.layout->members.size(); ++i) {
    const Member& member = all.layout->members[i];
    if (member.type.is(TypeKind::kUnknown)) continue;
    // Whole words, of which only so many bytes are the member's.
    const Temporaries temporaries(*this);
    const int copy = room(std::max(member.type.words(), 1U));
    argument_into(first + i, member.type, copy, analysis_.of(node).site);
    lea(rdi, at(result));
    if (member.offset != 0) add(rdi, member.offset);
    lea(rsi, at(copy));
    mov(edx, member.type.size());
    invoke(&program::copy_bytes);
  }
  lea(rax, at(result));
}

}  // namespace ubp::program
