// See marks.h.
#include "runtime/command/marks.h"

#include <stdexcept>
#include <variant>

#include "runtime/command/files.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::command {

std::vector<std::string> files_of_module(const language::Item& item, const std::string& command) {
  if (!item.module.empty()) return files_of(item.module);
  return command.empty() ? std::vector<std::string>{} : std::vector{command};
}

std::vector<symbols::Mark> marks_meant_by(const language::Item& item, const std::string& command) {
  std::vector<symbols::Mark> meant;
  const auto* const target = std::get_if<language::MarkTarget>(&item.target);
  if (target == nullptr) return meant;
  for (const std::string& path : files_of_module(item, command)) try {
      for (symbols::Mark& mark : symbols::marks_in(symbols::ElfFile::open(path))) {
        if (symbols::mark_matches(mark, target->provider, target->name)) meant.push_back(std::move(mark));
      }
    } catch (const std::runtime_error&) {  // no ELF file
    }
  return meant;
}

}  // namespace ubp::command
