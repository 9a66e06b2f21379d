// See mark_helpers.h.
#include "runtime/helpers/mark_helpers.h"

#include "runtime/consumers/kept_arguments.h"
#include "runtime/helpers/helpers.h"
#include "runtime/helpers/point_names.h"
#include "runtime/helpers/read_memory.h"
#include "runtime/trap/tls.h"

namespace ubp::program {
namespace {

using symbols::PlaceStep;
using symbols::ValuePlace;
using Code = PlaceStep::Code;

// Half of a vector register, likewise.
std::uint64_t vector_of_hit(const Run* run, int number, unsigned half) {
  const ubp_context& hit = *run->context;
  const auto its = static_cast<unsigned>(number - symbols::kFirstVector);
  if (hit.save != nullptr) return runtime::saved_vector(*hit.save, its, half);
  return hit.registers != nullptr ? hit.registers->vector(its, half) : 0;
}

// By the hardware's number. A detour has saved the registers, or the kernel has. Of a vector register: the lower half.
std::uint64_t register_of_hit(const Run* run, int number) {
  const ubp_context& hit = *run->context;
  if (number >= symbols::kFirstVector) return vector_of_hit(run, number, 0);
  if (hit.save != nullptr) return hit.save->registers[number];
  if (hit.registers == nullptr) return 0;
  return hit.registers->general(static_cast<unsigned>(number));
}

std::uint64_t extended(std::uint64_t value, unsigned bytes, bool is_signed) {
  const unsigned unused = 64U - bytes * 8U;
  if (is_signed) return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  return value << unused >> unused;
}

std::uint64_t signed_result(const PlaceStep& step, std::int64_t a, std::int64_t b) {
  switch (step.code) {
    case Code::kDivide:  // the one quotient that does not fit is what it is without the processor's trap
      if (b == 0) return 0;
      return b == -1 ? 0 - static_cast<std::uint64_t>(a) : static_cast<std::uint64_t>(a / b);
    case Code::kEqual: return a == b ? 1 : 0;
    case Code::kNotEqual: return a != b ? 1 : 0;
    case Code::kLess: return a < b ? 1 : 0;
    case Code::kLessEqual: return a <= b ? 1 : 0;
    case Code::kGreater: return a > b ? 1 : 0;
    default: return a >= b ? 1 : 0;
  }
}

std::uint64_t result_of(const PlaceStep& step, std::uint64_t a, std::uint64_t b) {
  switch (step.code) {
    case Code::kAdd: return a + b;
    case Code::kSubtract: return a - b;
    case Code::kMultiply: return a * b;
    case Code::kModulo: return b != 0 ? a % b : 0;
    case Code::kAnd: return a & b;
    case Code::kOr: return a | b;
    case Code::kXor: return a ^ b;
    case Code::kShiftLeft: return b < 64 ? a << b : 0;
    case Code::kShiftRight: return b < 64 ? a >> b : 0;
    case Code::kShiftRightSigned: return static_cast<std::uint64_t>(static_cast<std::int64_t>(a) >> (b < 64 ? b : 63));
    default: return signed_result(step, static_cast<std::int64_t>(a), static_cast<std::int64_t>(b));
  }
}

// Where a value is asked for, and where it is counted if it is not known.
struct Asked {
  Run* run;
  const PointName& point;
  std::uint64_t site;
};

// Of the activation whose frame is at this address. False: nothing is kept of it.
bool read_kept(const Asked& asked, const PlaceStep& step, std::uint64_t frame, std::uint64_t& value) {
  const std::uint64_t place = frame - sizeof(std::uint64_t);
  std::uint64_t returns_to = 0;
  const runtime::KeptCall* kept = nullptr;
  if (read_memory(asked.run, place, &returns_to, sizeof returns_to) == sizeof returns_to)
    kept = runtime::kept_call(*asked.run->context, asked.point.entries, static_cast<std::uint64_t>(step.number), place,
                              returns_to);
  for (unsigned i = 0; kept != nullptr && i < runtime::kKeptArguments; ++i) {
    if (symbols::kArgumentRegisters[i] == step.base) value = kept->arguments[i];
  }
  if (kept == nullptr) count_site(asked.run, asked.site);
  return kept != nullptr;
}

// What the steps of a place leave on top; they have been looked at (place_of_text). False: what they need is not there.
bool compute(const Asked& asked, const ValuePlace& place, std::uint64_t& result) {
  Run* const run = asked.run;
  const PlaceStep* const steps = asked.point.steps + place.first;
  std::uint64_t stack[symbols::kMostPlaceDepth + 1];
  stack[0] = 0;
  int top = 0;  // stack[1] is the lowest
  for (std::uint32_t i = 0; i < place.count; ++i) {
    const PlaceStep& step = steps[i];
    const auto number = static_cast<std::uint64_t>(step.number);
    switch (step.code) {
      case Code::kNumber: stack[++top] = number; break;
      case Code::kRegister: stack[++top] = register_of_hit(run, step.base) + number; break;
      case Code::kThread: {
        const trap::Thread* const storage = run->context->task != nullptr ? run->context->task->storage : nullptr;
        if (storage == nullptr) {
          count_site(run, asked.site);
          return false;
        }
        stack[++top] = reinterpret_cast<std::uint64_t>(storage) - trap::thread_offset() + number;
        break;
      }
      case Code::kLoad: {
        std::uint64_t value = 0;
        if (read_memory(run, stack[top], &value, step.bytes) != step.bytes) return false;
        stack[top] = value;
        break;
      }
      case Code::kKept:
        if (!read_kept(asked, step, stack[top], stack[top])) return false;
        break;
      case Code::kAddNumber: stack[top] += number; break;
      case Code::kSignExtend: stack[top] = extended(stack[top], step.bytes, true); break;
      case Code::kZeroExtend: stack[top] = extended(stack[top], step.bytes, false); break;
      case Code::kNegate: stack[top] = 0 - stack[top]; break;
      case Code::kNot: stack[top] = ~stack[top]; break;
      case Code::kAbsolute:
        if (static_cast<std::int64_t>(stack[top]) < 0) stack[top] = 0 - stack[top];
        break;
      case Code::kDuplicate:
        stack[top + 1] = stack[top];
        ++top;
        break;
      case Code::kPick:
        stack[top + 1] = stack[top - static_cast<int>(number)];
        ++top;
        break;
      case Code::kDrop: --top; break;
      case Code::kSwap: {
        const std::uint64_t value = stack[top];
        stack[top] = stack[top - 1];
        stack[top - 1] = value;
        break;
      }
      case Code::kRotate: {
        const std::uint64_t value = stack[top];
        stack[top] = stack[top - 1];
        stack[top - 1] = stack[top - 2];
        stack[top - 2] = value;
        break;
      }
      default: stack[top - 1] = result_of(step, stack[top - 1], stack[top]); --top;
    }
  }
  result = stack[top];
  return true;
}

// Of a place in memory. False: what leads to it cannot be read.
bool find_address(const Asked& asked, const ValuePlace& place, std::uint64_t& address) {
  if (place.kind == ValuePlace::Kind::kComputedMemory) return compute(asked, place, address);
  const std::uint64_t base = place.base >= 0 ? register_of_hit(asked.run, place.base) : 0;
  const std::uint64_t index = place.index >= 0 ? register_of_hit(asked.run, place.index) * place.scale : 0;
  address = base + index + static_cast<std::uint64_t>(place.offset);
  return true;
}

// A value that is in no memory, or a number that is.
std::uint64_t value_at(const Asked& asked, const ValuePlace& place) {
  std::uint64_t value = 0, address = 0;
  switch (place.kind) {
    case ValuePlace::Kind::kConstant: return static_cast<std::uint64_t>(place.offset);
    case ValuePlace::Kind::kRegister:
      return (place.base >= 0 ? register_of_hit(asked.run, place.base) : 0) >> place.shift;
    case ValuePlace::Kind::kComputed: return compute(asked, place, value) ? value : 0;
    case ValuePlace::Kind::kMemory:
    case ValuePlace::Kind::kComputedMemory: break;
    case ValuePlace::Kind::kPieces: return 0;
  }
  if (!find_address(asked, place, address)) return 0;
  return read_memory(asked.run, address, &value, place.bytes) == place.bytes ? value : 0;
}

// Writes at most so many bytes of what is at one place.
void copy_value(const Asked& asked, const ValuePlace& place, char* to, std::uint64_t bytes) {
  if (place.is_memory()) {
    std::uint64_t address = 0;
    const bool is_there = find_address(asked, place, address) && read_memory(asked.run, address, to, bytes) == bytes;
    for (std::uint64_t i = 0; !is_there && i < bytes; ++i) to[i] = 0;
    return;
  }
  std::uint64_t words[2] = {value_at(asked, place), 0};
  if (place.kind == ValuePlace::Kind::kRegister && place.index >= 0) {
    words[1] = register_of_hit(asked.run, place.index);
  } else if (place.kind == ValuePlace::Kind::kRegister && place.base >= symbols::kFirstVector) {
    words[1] = vector_of_hit(asked.run, place.base, 1);
  }
  copy_bytes(to, reinterpret_cast<const char*>(words), bytes < sizeof words ? bytes : sizeof words);
}

}  // namespace

std::uint64_t mark_argument(Run* run, std::uint64_t number, std::uint64_t site) {
  const PointName* const point = name_of(run);
  if (point == nullptr || point->arguments == nullptr)
    return number < runtime::kKeptArguments ? register_of_hit(run, symbols::kArgumentRegisters[number]) : 0;
  if (number >= point->argument_count) return 0;
  const ValuePlace& place = point->arguments[number];
  if (place.kind != ValuePlace::Kind::kPieces)
    return extended(value_at({run, *point, site}, place), place.bytes, place.is_signed);
  std::uint64_t value = 0;
  argument_bytes(run, number, reinterpret_cast<char*>(&value), place.bytes, site);
  return extended(value, place.bytes, place.is_signed);
}

void copy_bytes(char* to, const char* from, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i < bytes; ++i) to[i] = from[i];
}

void argument_bytes(Run* run, std::uint64_t number, char* to, std::uint64_t bytes, std::uint64_t site) {
  const std::uint64_t whole = words_of(bytes) * sizeof(std::uint64_t);
  for (std::uint64_t i = 0; i < whole; ++i) to[i] = 0;
  const PointName* const point = name_of(run);
  if (point == nullptr || number >= point->argument_count) return;
  const Asked asked{run, *point, site};
  const ValuePlace& place = point->arguments[number];
  if (place.kind != ValuePlace::Kind::kPieces) return copy_value(asked, place, to, bytes);
  std::uint64_t begin = 0;
  for (std::uint32_t i = 0; i < place.count && begin < bytes; ++i) {
    const ValuePlace& piece = point->arguments[place.first + i];
    const std::uint64_t its = piece.bytes < bytes - begin ? piece.bytes : bytes - begin;
    copy_value(asked, piece, to + begin, its);
    begin += its;
  }
}

std::uint64_t module_bias(Run* run) {
  const PointName* const point = name_of(run);
  return point != nullptr ? point->module_bias : 0;
}

std::uint64_t argument_address(Run* run, std::uint64_t number, std::uint64_t site) {
  const PointName* const point = name_of(run);
  std::uint64_t address = 0;
  if (point == nullptr || number >= point->argument_count || !point->arguments[number].is_memory()) return 0;
  return find_address({run, *point, site}, point->arguments[number], address) ? address : 0;
}

}  // namespace ubp::program
