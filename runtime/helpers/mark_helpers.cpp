// See mark_helpers.h.
#include "runtime/helpers/mark_helpers.h"

#include "runtime/helpers/point_names.h"
#include "runtime/helpers/read_memory.h"

namespace ubp::program {
namespace {

using symbols::ValuePlace;

// By the hardware's number. A detour has saved the registers, or the kernel has.
std::uint64_t register_of_hit(const Run* run, int number) {
  const ubp_context& hit = *run->context;
  if (hit.save != nullptr) return hit.save->registers[number];
  if (hit.registers == nullptr) return 0;
  return hit.registers->general(static_cast<unsigned>(number));
}

std::uint64_t address_of(const Run* run, const ValuePlace& place) {
  const std::uint64_t base = place.base >= 0 ? register_of_hit(run, place.base) : 0;
  const std::uint64_t index = place.index >= 0 ? register_of_hit(run, place.index) * place.scale : 0;
  return base + index + static_cast<std::uint64_t>(place.offset);
}

std::uint64_t value_at(const Run* run, const ValuePlace& place) {
  if (place.kind == ValuePlace::Kind::kConstant) return static_cast<std::uint64_t>(place.offset);
  if (place.kind == ValuePlace::Kind::kRegister)
    return (place.base >= 0 ? register_of_hit(run, place.base) : 0) >> place.shift;
  std::uint64_t value = 0;
  return read_memory(run, address_of(run, place), &value, place.bytes) == place.bytes ? value : 0;
}

}  // namespace

std::uint64_t mark_argument(Run* run, std::uint64_t number) {
  constexpr int kArguments[] = {7, 6, 2, 1, 8, 9};  // psABI 3.2.3
  const PointName* const point = name_of(run);
  if (point == nullptr || point->arguments == nullptr)
    return number < sizeof kArguments / sizeof *kArguments ? register_of_hit(run, kArguments[number]) : 0;
  if (number >= point->argument_count) return 0;
  const ValuePlace& place = point->arguments[number];
  const std::uint64_t value = value_at(run, place);
  const unsigned unused = 64U - place.bytes * 8U;
  if (place.is_signed) return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  return value << unused >> unused;
}

void copy_bytes(char* to, const char* from, std::uint64_t bytes) {
  for (std::uint64_t i = 0; i < bytes; ++i) to[i] = from[i];
}

void argument_bytes(Run* run, std::uint64_t number, char* to, std::uint64_t bytes) {
  auto* const words = reinterpret_cast<std::uint64_t*>(to);
  const std::uint64_t count = words_of(bytes);
  for (std::uint64_t i = 0; i < count; ++i) words[i] = 0;
  const PointName* const point = name_of(run);
  if (point == nullptr || number >= point->argument_count) return;
  const ValuePlace& place = point->arguments[number];
  if (place.kind == ValuePlace::Kind::kMemory) {
    if (read_memory(run, address_of(run, place), to, bytes) == bytes) return;
    for (std::uint64_t i = 0; i < count; ++i) words[i] = 0;
    return;
  }
  words[0] = value_at(run, place);
  if (count > 1 && place.kind == ValuePlace::Kind::kRegister && place.index >= 0)
    words[1] = register_of_hit(run, place.index);
  for (std::uint64_t i = bytes; i < count * sizeof(std::uint64_t); ++i) to[i] = 0;
}

}  // namespace ubp::program
