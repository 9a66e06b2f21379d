// Stacks, and names of addresses. See analyser.h.
#include <fmt/format.h>

#include "runtime/analysis/analyser.h"
#include "runtime/analysis/stack_text.h"
#include "runtime/stack/symbolizer.h"
#include "runtime/stack/walk.h"

namespace ubp::program {

using language::NodeKind;

// ustack, ustack(), ustack(mode), ustack(frames), ustack(mode, frames)
Type Analyser::stack(const Node& node) {
  Type type = stored_by_address(TypeKind::kStack);
  type.name = out_.config.stack_mode;
  type.bytes = kUsualFrames;
  const bool has_mode = !node.children.empty() && node.children[0]->kind == NodeKind::kName;
  if (has_mode) type.name = node.children[0]->text;
  if (!stack::mode_named(type.name)) {
    error(node.span, fmt::format("Invalid value for stack_mode: {}", type.name),
          "valid modes are bpftrace, perf, raw and build_id");
  } else if (node.children.size() == 2 && !has_mode) {
    error(node.span, "Expected stack mode as first argument");
  } else if (node.children.size() > (has_mode ? 1 : 0)) {
    std::int64_t frames = 0;
    const Node& limit = *node.children.back();
    expression(limit);
    if (!literal(limit, frames) || frames < 0) {
      error(node.span, fmt::format("{}: invalid limit value", node.text));
    } else if (static_cast<std::uint64_t>(frames) > stack::kMostFrames) {
      error(node.span,
            fmt::format("{}([int limit]): limit shouldn't exceed {}, {} given", node.text, stack::kMostFrames, frames));
    } else {
      type.bytes = static_cast<std::uint32_t>(frames);
    }
  }
  if (!out_.uses_stacks) out_.first_stack = node.span;
  out_.uses_stacks = true;
  if (program_.probes[probe_].event == language::Probe::Event::kItems) out_.reads_registers[probe_] = true;
  return type;
}

// usym(address)
Type Analyser::symbol(const Node& node) {
  expression(*node.children[0]);
  need_number(*node.children[0], "an address");
  return stored_by_address(TypeKind::kSymbol);
}

Type Analyser::stored_by_address(TypeKind kind) {
  if (out_.stack_text == nullptr) out_.stack_text = std::make_shared<StackText>();
  Type type{kind};
  type.stacks = out_.stack_text;
  return type;
}

}  // namespace ubp::program
