// See symbolizer.h.
#include "runtime/stack/symbolizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "runtime/stack/walk.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::stack {
namespace {

constexpr std::pair<std::string_view, Mode> kModes[] = {
    {"bpftrace", Mode::kBpftrace}, {"perf", Mode::kPerf}, {"raw", Mode::kRaw}, {"build_id", Mode::kBuildId}};

// The module as its file has it. Throws std::runtime_error.
symbols::Module module_in_file(const ModuleRecord& record) {
  for (symbols::Module& own : symbols::loaded_modules()) {
    if (own.is_vdso && own.path == record.path) return std::move(own);  // there is no file, and it is everybody's
  }
  symbols::Module module;
  module.path = record.path;
  module.bias = record.bias;
  module.build_id = record.build_id;
  module.segments = symbols::ElfFile::open(module.path).segments();
  return module;
}

}  // namespace

std::optional<Mode> mode_named(std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kModes), std::end(kModes), [name](const auto& mode) { return mode.first == name; });
  if (found == std::end(kModes)) return std::nullopt;
  return found->second;
}

const symbols::FunctionTable* Symbolizer::functions_of(const ModuleRecord& module) {
  const auto [entry, is_new] = tables_.try_emplace(&module);
  if (!is_new) return entry->second.get();
  try {
    entry->second = std::make_unique<symbols::FunctionTable>(symbols::FunctionTable::load(module_in_file(module)));
  } catch (const std::runtime_error&) {
    return nullptr;  // it is gone, or another one by now
  }
  return entry->second.get();
}

Symbolizer::Place Symbolizer::place_of(std::uint32_t image, std::uint64_t address, std::uint64_t look_up) {
  Place place{module_of(log_, image, look_up), {}, 0};
  if (place.module == nullptr) return place;
  const symbols::FunctionTable* const table = functions_of(*place.module);
  const symbols::Function* const function =
      table != nullptr ? table->containing(look_up - place.module->bias) : nullptr;
  if (function == nullptr || !function->has_symbol()) return place;
  const std::string name(function->symbol());
  place.function = demangles_ ? symbols::demangle(name) : name;
  place.offset = address - place.module->bias - function->address;
  return place;
}

std::string Symbolizer::build_id_text(const Place& place, std::uint64_t address) {
  if (place.module == nullptr || place.module->build_id[0] == '\0') return fmt::format("{:x}\n", address);
  std::uint64_t offset = address - place.module->bias;
  try {
    offset = symbols::ElfFile::open(place.module->path).file_offset(offset).value_or(offset);
  } catch (const std::runtime_error&) {  // most modules begin with their file
  }
  return fmt::format("{} 0x{:x}\n", place.module->build_id, offset);
}

const std::vector<SourceFrame>& Symbolizer::source_of(const Place& place, std::uint64_t look_up) {
  const auto [entry, is_new] = sources_.try_emplace({place.module, look_up});
  if (is_new && source_ && place.module != nullptr)
    entry->second = source_(*place.module, look_up - place.module->bias);
  return entry->second;
}

std::string Symbolizer::stack_text(const Stack& stack, Mode mode) {
  std::string text = "\n";
  for (std::uint64_t i = 0; i < stack.count; ++i) {
    constexpr std::string_view kIndent = "        ";
    if (stack.frames[i] == kNotFound) {
      text += fmt::format("{}<unwind failure>\n", kIndent);
      break;
    }
    const bool is_exact = i == 0 || (stack.frames[i] & kInterrupted) != 0;
    const std::uint64_t address = stack.frames[i] & ~kInterrupted;
    if (mode == Mode::kRaw) {
      text += fmt::format("{:x}\n", address);
      continue;
    }
    const std::uint64_t look_up = is_exact ? address : address - 1;
    const Place place = place_of(stack.image, address, look_up);
    if (mode == Mode::kBuildId) {
      text += build_id_text(place, address);
      continue;
    }
    const std::string name =
        place.function.empty() ? fmt::format("0x{:x}", address) : fmt::format("{}+{}", place.function, place.offset);
    const std::vector<SourceFrame>& source = source_of(place, look_up);
    const auto line_text = [](const SourceFrame& frame) {
      return frame.path.empty() ? "" : fmt::format("@{}:{}", frame.path, frame.line);
    };
    for (std::size_t inlined = 0; inlined + 1 < source.size(); ++inlined) {
      const std::string& written = source[inlined].function;
      const std::string function = demangles_ ? symbols::demangle(written) : written;
      text += mode == Mode::kBpftrace ? fmt::format("{}[inlined] {}{}\n", kIndent, function, line_text(source[inlined]))
                                      : fmt::format("\t{:x} {} (inlined)\n", address, function);
    }
    if (mode == Mode::kBpftrace) {
      text += fmt::format("{}{}{}\n", kIndent, name, source.empty() ? "" : line_text(source.back()));
    } else {
      text += fmt::format("\t{:x} {} ({})\n", address, name,
                          place.function.empty() ? "[unknown]" : std::string_view(place.module->path));
    }
  }
  return text;
}

std::string Symbolizer::name_text(std::uint32_t image, std::uint64_t address) {
  Place place = place_of(image, address, address);
  return place.function.empty() ? fmt::format("0x{:x}", address) : std::move(place.function);
}

}  // namespace ubp::stack
