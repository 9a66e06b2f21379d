// See verifier_helpers.h.
#include "tests/program/verifier_helpers.h"

#include <algorithm>
#include <utility>

#include "runtime/helpers/call_event.h"
#include "runtime/helpers/helpers.h"
#include "runtime/helpers/mark_helpers.h"
#include "runtime/helpers/stack_helpers.h"

namespace ubp::program {
namespace {

constexpr auto kRdi = ZYDIS_REGISTER_RDI, kRsi = ZYDIS_REGISTER_RSI, kRdx = ZYDIS_REGISTER_RDX,
               kRcx = ZYDIS_REGISTER_RCX, kR8 = ZYDIS_REGISTER_R8, kNoSize = ZYDIS_REGISTER_NONE;

// rsi is a map's.
std::uint64_t bytes_of_value(std::uint64_t map) { return reinterpret_cast<const MapView*>(map)->value_words * 8; }
std::uint64_t bytes_of_row(std::uint64_t map) {
  const auto* const view = reinterpret_cast<const MapView*>(map);
  return (view->key_words + std::max<std::uint64_t>(view->value_words, 1)) * 8;
}

template <typename Function>
Helper helper(Function* function, std::vector<Output> outputs = {}) {
  return {reinterpret_cast<std::uint64_t>(function), std::move(outputs)};
}

std::vector<Helper> make_helpers() {
  const Output cursor{kRdx, kNoSize, 16}, name{kRsi, kNoSize, kTaskNameBytes}, long_name{kRsi, kNoSize, kNameBytes};
  const Output value{kRcx, kRsi, 0, 1, &bytes_of_value}, row{kRcx, kRsi, 0, 1, &bytes_of_row};
  return {helper(&count_filtered),
          helper(&count_dropped),
          helper(&close_gate),
          helper(&divide),
          helper(&divide_signed),
          helper(&modulo),
          helper(&modulo_signed),
          helper(&count_site),
          helper(&is_same_text),
          helper(&is_same),
          helper(&copy_words, {{kRdi, kRsi, 0, 8}}),
          helper(&read_number),
          helper(&read_bytes, {{kRdx, kRcx}}),
          helper(&read_buffer, {{kRdx, kR8, 1, 8}}),
          helper(&read_text, {{kRdx, kR8, 0, 8}}),
          helper(&compare_texts),
          helper(&compare_bytes),
          helper(&text_length),
          helper(&find_text),
          helper(&append_text, {{kRdi, kRsi}}),
          helper(&choose_text, {{kRcx, kNoSize, kNameEntry}}),
          helper(&process_id),
          helper(&thread_id),
          helper(&user_id),
          helper(&group_id),
          helper(&processor),
          helper(&clock_time),
          helper(&boot_time),
          helper(&elapsed_time),
          helper(&is_outermost),
          helper(&random_number),
          helper(&register_value),
          helper(&instruction_address),
          helper(&numa_node),
          helper(&mark_argument),
          helper(&module_bias),
          helper(&argument_address),
          helper(&argument_bytes, {{kRdx, kRcx}}),
          helper(&copy_bytes, {{kRdi, kRdx}}),
          helper(&first_process),
          helper(&parent_id),
          helper(&thread_name, {name}),
          helper(&parent_name, {name}),
          helper(&leader_name, {name}),
          helper(&probe_kind, {name}),
          helper(&probe_name, {long_name}),
          helper(&function_name, {long_name}),
          helper(&map_get),
          helper(&map_get_wide, {value}),
          helper(&map_find, {value}),
          helper(&map_read),
          helper(&map_read_wide, {value}),
          helper(&map_set),
          helper(&map_set_wide),
          helper(&map_add),
          helper(&map_aggregate),
          helper(&map_aggregate_at),
          helper(&map_number),
          helper(&map_has),
          helper(&map_delete),
          helper(&map_length),
          helper(&map_begin, {cursor}),
          helper(&map_next, {cursor, row}),
          helper(&map_clear),
          helper(&map_zero),
          helper(&map_print),
          helper(&tree_returned),
          helper(&look_after_intervals),
          helper(&take_stack, {{kRsi, kRdx, 0, 8}}),
          helper(&stack_length),
          helper(&symbol_value),
          helper(&begin_event),
          helper(&end_event)};
}

}  // namespace

bool is_allowed(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_CMOVB:
    case ZYDIS_MNEMONIC_CMOVS:
    case ZYDIS_MNEMONIC_SETB:
    case ZYDIS_MNEMONIC_SETNB:
    case ZYDIS_MNEMONIC_SETBE:
    case ZYDIS_MNEMONIC_SETNBE:
    case ZYDIS_MNEMONIC_SETL:
    case ZYDIS_MNEMONIC_SETNL:
    case ZYDIS_MNEMONIC_SETLE:
    case ZYDIS_MNEMONIC_SETNLE:
    case ZYDIS_MNEMONIC_SETZ:
    case ZYDIS_MNEMONIC_SETNZ:
    case ZYDIS_MNEMONIC_SETNS:
    case ZYDIS_MNEMONIC_INC: return true;
    default: return false;
  }
}

const std::uint64_t kBeginEvent = reinterpret_cast<std::uint64_t>(&begin_event),
                    kCopyWords = reinterpret_cast<std::uint64_t>(&copy_words);

const Helper* find_helper(std::uint64_t address) {
  static const std::vector<Helper> all = make_helpers();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Helper& its) { return its.address == address; });
  return it != all.end() ? &*it : nullptr;
}

}  // namespace ubp::program
