// Builtins, functions and maps. See assembler.h.
#include <sys/sysinfo.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/analysis/format.h"
#include "runtime/analysis/stack_text.h"
#include "runtime/helpers/call_event.h"
#include "runtime/helpers/mark_helpers.h"
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

using Xbyak::Label;

namespace {

// What computes a builtin: a number, or a text.
struct Helper {
  std::string_view name;
  std::uint64_t (*number)(Run*);
  void (*text)(Run*, char*) = nullptr;
};
constexpr Helper kHelpers[] = {{"pid", &process_id},
                               {"tid", &thread_id},
                               {"uid", &user_id},
                               {"gid", &group_id},
                               {"cpu", &processor},
                               {"rand", &random_number},
                               {"nsecs", &boot_time},
                               {"elapsed", &elapsed_time},
                               {"outermost", &is_outermost},
                               {"numaid", &numa_node},
                               {"cpid", &first_process},
                               {"ppid", &parent_id},
                               {"leader_tid", &process_id},
                               {"username", &user_id},
                               {"comm", nullptr, &thread_name},
                               {"pcomm", nullptr, &parent_name},
                               {"leader_comm", nullptr, &leader_name},
                               {"probetype", nullptr, &probe_kind},
                               {"probe", nullptr, &probe_name},
                               {"func", nullptr, &function_name}};

}  // namespace

void Assembler::builtin(std::string_view name) {
  if (is_stack_name(name)) return take_stack(kUsualFrames);
  if (const auto number = probe_->has_marks ? argument_number(name) : std::nullopt) {
    mov(rdi, rbx);
    mov(esi, *number);
    mov(edx, kNone);  // none of them is kept
    return invoke(&program::mark_argument);
  }
  const Builtin builtin = *find_builtin(name);
  if (builtin.register_number >= 0) return read_register(builtin.register_number);
  if (probe_->has_calls) {
    using runtime::SeenCall;
    constexpr std::pair<std::string_view, std::size_t> kOfCall[] = {{"elapsed", offsetof(SeenCall, elapsed)},
                                                                    {"self", offsetof(SeenCall, self)},
                                                                    {"depth", offsetof(SeenCall, depth)}};
    for (const auto& [its, offset] : kOfCall) {
      if (builtin.name != its) continue;
      mov(rax, in_run(offsetof(Run, context)));
      return mov(rax, ptr[rax + offsetof(runtime::CallContext, call) + offset]);
    }
  }
  if (probe_->event != language::Probe::Event::kItems) {
    const bool is_interval = probe_->event == language::Probe::Event::kInterval;
    if (builtin.name == "probe") return text_constant(probe_->name, builtin.type.words());
    if (builtin.name == "probetype") return text_constant(is_interval ? "interval" : "special", builtin.type.words());
  }
  if (builtin.name == "usermode") return mov(eax, 1);
  if (builtin.name == "ncpus") return mov(eax, static_cast<std::uint32_t>(get_nprocs_conf()));
  const Helper& helper = *std::find_if(std::begin(kHelpers), std::end(kHelpers),
                                       [&](const Helper& row) { return row.name == builtin.name; });
  mov(rdi, rbx);
  if (helper.number != nullptr) return invoke(helper.number);
  const int result = room(builtin.type.words());
  lea(rsi, at(result));
  invoke(helper.text);
  lea(rax, at(result));
}

// A detour has saved the registers, or the kernel has.
void Assembler::read_register(int number) {
  if (number == kInstructionPointer) {
    mov(rdi, rbx);
    return invoke(&instruction_address);
  }
  Label is_trap, over;
  mov(rax, in_run(offsetof(Run, context)));
  mov(rcx, ptr[rax + offsetof(ubp_context, save)]);
  test(rcx, rcx);
  jz(is_trap);
  mov(rax, ptr[rcx + offsetof(runtime::DetourSave, registers) + static_cast<std::size_t>(number) * 8]);
  jmp(over);
  L(is_trap);
  mov(rcx, ptr[rax + offsetof(ubp_context, registers)]);
  mov(rax, ptr[rcx + offsetof(trap::Context, r8) + trap::kRegisterWords[number] * 8]);
  L(over);
}

// ---- Maps

int Assembler::key(const Map& map, const std::vector<const Node*>& keys) {
  const int place = room(std::max(map.key.words(), 1U));
  if (keys.size() == 1) {
    value_into(map.key, *keys[0], place);
    return place;
  }
  int next = place;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    value_into(map.key.elements[i], *keys[i], next);
    next += static_cast<int>(map.key.elements[i].words() * sizeof(std::uint64_t));
  }
  return place;
}

int Assembler::key_of(const Node& node) {
  std::vector<const Node*> keys;
  keys.reserve(node.children.size());
  for (const auto& child : node.children) keys.push_back(child.get());
  return key(map_of(node), keys);
}

void Assembler::map_value(const Node& node) {
  const std::uint32_t index = analysis_.of(node).index;
  const Map& map = map_of(node);
  const int its_key = key_of(node);
  if (map.value.is(TypeKind::kAggregate)) return call_map(&map_number, index, its_key);
  const std::uint32_t site = analysis_.of(node).site;
  if (!map.value.is_wide()) {
    mov(ecx, site);
    return call_map(&map_read, index, its_key);
  }
  const int result = room(map.value.words());
  lea(rcx, at(result));
  mov(r8d, site);
  call_map(&map_read_wide, index, its_key);
  lea(rax, at(result));
}

void Assembler::aggregate(const Node& target, const Node& from) {
  const int its_key = key_of(target);
  const Node* last = &from;
  for (; last->kind == language::NodeKind::kBlock; last = value_of_block(*last)) {
    for (std::size_t i = 0; i + 1 < last->children.size(); ++i) statement(*last->children[i]);
  }
  const Node& call = *last;
  if (find_function(call.text)->function == Function::kSeries) return add_to_series(target, call, its_key);
  if (!call.children.empty()) {
    value(*call.children[0]);
    mov(rcx, rax);
  }
  call_map(&map_aggregate, analysis_.of(target).index, its_key);
}

void Assembler::add_to_series(const Node& target, const Node& call, int its_key) {
  const int amount = room(1);
  value(*call.children[0]);
  mov(at(amount), rax);
  if (analysis_.time_map != kNone) {
    call_map(&map_get, analysis_.time_map, amount);
  } else {
    mov(edi, static_cast<std::uint32_t>(kWall));
    invoke(&clock_time);
  }
  mov(r8, rax);
  mov(rcx, at(amount));
  call_map(&map_aggregate_at, analysis_.of(target).index, its_key);
}

void Assembler::call_of_map(const Node& node, Function function) {
  const Node& target = *node.children[0];
  if (target.kind != language::NodeKind::kMap) return stack_length(node);
  const std::uint32_t index = analysis_.of(target).index;
  const int its_key = node.children.size() >= 2 ? key(map_of(target), {node.children[1].get()}) : key_of(target);
  switch (function) {
    case Function::kHasKey: return call_map(&map_has, index, its_key);
    case Function::kFindKey: return find_key(node, its_key);
    case Function::kDelete: return call_map(&map_delete, index, its_key);
    case Function::kClear: return call_map(&map_clear, index, its_key);
    case Function::kZero: return call_map(&map_zero, index, its_key);
    default: return call_map(&map_length, index, its_key);
  }
}

// The variable stays as it is where the key is missing.
void Assembler::find_key(const Node& node, int its_key) {
  const Node& variable = *node.children[2];
  const std::uint32_t index = analysis_.of(variable).index;
  const Type& type = analysis_.type(variable);
  Label over;
  const int is_there = room(1), found = room(std::max(type.words(), 1U));
  lea(rcx, at(found));
  call_map(&map_find, analysis_.of(*node.children[0]).index, its_key);
  mov(at(is_there), rax);
  test(rax, rax);
  jz(over, T_NEAR);
  type.is_wide() ? lea(rax, at(found)) : mov(rax, at(found));
  store(analysis_.variables[index], type, variables_.at(index));
  L(over);
  mov(rax, at(is_there));
}

// ---- Other functions

// The values from the first child on, as an event.
void Assembler::print_event(const Node& node, std::size_t first) {
  const std::uint32_t index = analysis_.of(node).index;
  const Event& event = analysis_.events[index];
  std::uint32_t words = 0;
  for (const Type& type : event.values) words += type.words();
  const int values = room(words);
  int place = values;
  for (std::size_t i = 0; i < event.values.size(); ++i) {
    const Temporaries temporaries(*this);
    const Node& its = *node.children[first + i];
    value_into(event.values[i], its, place);
    place += static_cast<int>(event.values[i].words() * sizeof(std::uint64_t));
  }
  write_event(index, values, words);
}

// As end_event() does: the store of `used` makes it an event.
void Assembler::write_event(std::uint32_t index, int values, std::uint32_t words) {
  Label over;
  mov(rdi, rbx);
  mov(esi, index);
  mov(edx, words);
  invoke(&begin_event);
  test(rax, rax);
  jz(over, T_NEAR);
  constexpr std::uint32_t kFewWords = 8;
  if (words <= kFewWords) {
    for (std::uint32_t i = 0; i < words; ++i) {
      const auto offset = static_cast<int>(i * sizeof(std::uint64_t));
      mov(rcx, at(values + offset));
      mov(ptr[rax + offset], rcx);
    }
  } else {
    mov(rdi, rax);
    mov(esi, words);
    lea(rdx, at(values));
    mov(ecx, words);
    invoke(&copy_words);
  }
  mov(rcx, in_run(offsetof(Run, chunk)));
  add(qword[rcx + offsetof(Chunk, used)],
      static_cast<std::uint32_t>(sizeof(EventHeader) + words * sizeof(std::uint64_t)));
  L(over);
}

void Assembler::print_map(const Node& node) {
  const auto number = [&](std::size_t index) {
    return index < node.children.size() ? node.children[index]->number : std::uint64_t{0};
  };
  mov(rdi, rbx);
  mov(rsi, reinterpret_cast<std::uint64_t>(&placed_.maps[analysis_.events[analysis_.of(node).index].map]));
  mov(edx, analysis_.of(node).index);
  mov(rcx, number(1));
  mov(r8, number(2));
  invoke(&program::map_print);
}

void Assembler::read_text(const Node& node, int result) {
  const Type& type = analysis_.type(node);
  const int address = room(1);
  value(*node.children[0]);
  mov(at(address), rax);
  mov(ecx, type.bytes);
  if (node.children.size() == 2) {
    Label is_less;
    value(*node.children[1]);
    mov(ecx, type.bytes);
    cmp(rax, rcx);
    cmovb(rcx, rax);
    sub(rcx, 1);  // its NUL
    adc(rcx, 0);
  }
  mov(rdi, rbx);
  mov(rsi, at(address));
  lea(rdx, at(result));
  mov(r8d, type.words());
  mov(r9d, analysis_.of(node).index);
  invoke(&program::read_text);
  lea(rax, at(result));
}

void Assembler::call(const Node& node) {
  const FunctionRow* const row = find_function(node.text);
  if (row == nullptr) return builtin(node.text);
  switch (row->function) {
    case Function::kPrintf:
    case Function::kSayError:
    case Function::kSayWarning:
    case Function::kFile:
    case Function::kCommand: return print_event(node, 1);
    case Function::kPrint:
      return analysis_.events[analysis_.of(node).index].kind == Event::Kind::kMap ? print_map(node)
                                                                                  : print_event(node, 0);
    case Function::kStr: return read_text(node, room(analysis_.type(node).words()));
    case Function::kBuffer: return read_buffer(node);
    case Function::kStack: return take_stack(analysis_.type(node).bytes);
    case Function::kSymbol: return symbol(node);
    case Function::kSymbolAddress: return symbol_address(node);
    case Function::kTree: mov(rdi, rbx); return invoke(&tree_returned);
    case Function::kReg: return read_register(register_of(node.children[0]->text));
    case Function::kExit:
      if (!node.children.empty()) {
        value(*node.children[0]);
      } else {
        xor_(eax, eax);
      }
      mov(rdi, rbx);
      mov(rsi, rax);
      invoke(&close_gate);
      return jmp(end_, T_NEAR);
    case Function::kOverride:
      value(*node.children[0]);
      mov(rdi, rbx);
      mov(rsi, rax);
      return invoke(&override_result);
    default:
      return row->function > Function::kReg ? call_of_text(node, row->function) : call_of_map(node, row->function);
  }
}

}  // namespace ubp::program
