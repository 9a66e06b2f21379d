// Stacks, names of addresses, and addresses of names. See analyser.h.
#include <fmt/format.h>

#include <algorithm>

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

bool is_symbol_name(std::string_view text) {
  return !text.empty() && std::none_of(text.begin(), text.end(), [](char one) { return one >= 0 && one < ' '; });
}
bool is_symbol_address(const language::Node& node) {
  return node.kind == NodeKind::kCall && node.text == "uaddr" && node.children.size() == 1 &&
         node.children[0]->kind == NodeKind::kString;
}

// uaddr("name"): as wide as the symbol says. What is known of it stands before the text (wishes.h).
Type Analyser::symbol_address(const Node& node) {
  expression(*node.children[0]);
  need_hit(node, "uaddr()");
  const std::string& name = node.children[0]->text;
  if (!is_symbol_address(node) || !is_symbol_name(name)) {
    error(node.children[0]->span, "uaddr() takes a symbol's name, as a literal");
    return {};
  }
  if (program_.probes[probe_].event != language::Probe::Event::kItems) return {};
  const auto& rows = program_.definitions.symbols;
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const language::SymbolRow& one) {
    return one.probe == probe_ && one.name == name;
  });
  if (row == rows.end()) {
    error(node.span, fmt::format("nothing is known of the symbol '{}'", name),
          "uaddr() takes its name where it stands, also in a macro");
    return {};
  }
  if (!row->problem.empty()) {
    error(node.span, row->problem, row->hint);
    return {};
  }
  std::uint32_t& index = out_.facts[node.id].index;
  if (index == kNone) {
    index = static_cast<std::uint32_t>(out_.symbol_addresses.size());
    out_.symbol_addresses.push_back(row->address);
  }
  out_.symbol_files[probe_] = row->build_id;
  const bool is_number = row->bytes == 1 || row->bytes == 2 || row->bytes == 4;
  return pointer_to(integer(is_number ? static_cast<std::uint8_t>(row->bytes * 8) : 64, false));
}

Type Analyser::stored_by_address(TypeKind kind) {
  if (out_.stack_text == nullptr) out_.stack_text = std::make_shared<StackText>();
  Type type{kind};
  type.stacks = out_.stack_text;
  return type;
}

}  // namespace ubp::program
