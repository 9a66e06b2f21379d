// See symbol_address.h.
#include "runtime/symbols/symbol_address.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "runtime/base/edit_distance.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/names.h"

namespace ubp::symbols {
namespace {

class Search {
 public:
  explicit Search(std::string_view wanted) : wanted_(wanted) {}

  void look_at(const ElfFile& file, std::uint32_t kind) {
    const auto symbols = file.symbols(kind);
    if (!symbols) return;
    for (const Symbol& symbol : *symbols) look_at(symbol);
  }
  void put(const std::string& path, SymbolAddress& result) const;

 private:
  void look_at(const Symbol& symbol);

  std::string_view wanted_;
  std::map<std::uint64_t, std::uint64_t> global_, local_;  // addresses, and the most bytes of a symbol there
  bool is_undefined_ = false, is_thread_local_ = false;
  std::vector<std::string> others_;  // of other names
};

void Search::look_at(const Symbol& symbol) {
  const unsigned type = ELF64_ST_TYPE(symbol.entry.st_info);
  if (type == STT_SECTION || type == STT_FILE || symbol.name.empty()) return;
  const std::string_view raw = VersionedName(symbol.name).name;
  if (raw != wanted_) {
    std::string shown = is_mangled(raw) && !is_mangled(wanted_) ? demangle(std::string(raw)) : std::string(raw);
    if (shown != wanted_) {
      if (symbol.entry.st_shndx != SHN_UNDEF) others_.push_back(std::move(shown));
      return;
    }
  }
  if (symbol.entry.st_shndx == SHN_UNDEF) {
    is_undefined_ = true;
  } else if (type == STT_TLS) {
    is_thread_local_ = true;
  } else {
    const bool is_local = ELF64_ST_BIND(symbol.entry.st_info) == STB_LOCAL;
    std::uint64_t& bytes = (is_local ? local_ : global_)[symbol.entry.st_value];
    bytes = std::max(bytes, symbol.entry.st_size);
  }
}

void Search::put(const std::string& path, SymbolAddress& result) const {
  const auto& found = global_.empty() ? local_ : global_;
  if (found.size() == 1) {
    std::tie(result.address, result.bytes) = *found.begin();
    return;
  }
  if (found.size() > 1) {
    result.problem = fmt::format("'{}' is {} symbols in {}", wanted_, found.size(), path);
    for (const auto& [address, bytes] : found)
      result.hint += fmt::format("{}0x{:x}", result.hint.empty() ? "they are at " : ", ", address);
  } else if (is_thread_local_) {
    result.problem = fmt::format("'{}' is thread-local in {}: each thread has its own", wanted_, path);
  } else if (is_undefined_) {
    result.problem = fmt::format("'{}' is not defined in {}, which has it from another file", wanted_, path);
  } else {
    result.problem = fmt::format("no symbol '{}' in {}", wanted_, path);
    const std::size_t limit = std::max<std::size_t>(2, wanted_.size() / 3);
    EditDistance distance(wanted_, limit);
    std::vector<std::pair<std::size_t, std::string>> near;
    for (const std::string& other : others_) {
      const std::size_t edits = distance.to(other);
      if (edits <= limit) near.emplace_back(edits, other);
    }
    for (const std::string& other : first_names(std::move(near)))
      result.hint += fmt::format("{}'{}'", result.hint.empty() ? "did you mean " : ", ", other);
    if (!result.hint.empty()) result.hint += '?';
  }
}

}  // namespace

SymbolAddress address_of_symbol(const std::string& path, std::string_view name) {
  SymbolAddress result;
  try {
    const ElfFile file = ElfFile::open(path);
    result.build_id = file.build_id();
    Search search(name);
    search.look_at(file, SHT_SYMTAB);
    search.look_at(file, SHT_DYNSYM);
    if (!file.symbols(SHT_SYMTAB)) {
      if (const auto debug = find_debug_file(path, file)) search.look_at(*debug, SHT_SYMTAB);
    }
    search.put(path, result);
  } catch (const std::runtime_error& error) {
    result.problem = fmt::format("{} cannot be read: {}", path, error.what());
  }
  return result;
}

}  // namespace ubp::symbols
