// FunctionTable: the functions of a module, from .symtab, .dynsym, the separate debug file and .eh_frame.
//
// load() gathers names that still point into the ELF files or into the mapped image, ranks them, adds what only
// .eh_frame knows, and then copies what is left.
//
// Context: load time.
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <unordered_map>

#include "runtime/symbols/eh_frame.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/mapped_file.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"
#include "runtime/symbols/versions.h"

namespace ubp::symbols {
namespace {

struct Candidate {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
  Binding binding = Binding::kLocal;
  std::uint16_t version = 0;
  std::string_view name;
};

Binding binding_of(const Elf64_Sym& symbol) {
  switch (ELF64_ST_BIND(symbol.st_info)) {
    case STB_LOCAL: return Binding::kLocal;
    case STB_WEAK: return Binding::kWeak;
    default: return Binding::kGlobal;  // STB_GLOBAL, STB_GNU_UNIQUE
  }
}

std::size_t leading_underscores(std::string_view name) { return std::min(name.find_first_not_of('_'), name.size()); }

bool in_executable_segment(const Module& module, std::uint64_t elf_address) {
  const Segment* segment = module.segment_at(elf_address);
  return segment != nullptr && segment->executable;
}

bool in_executable_segment(const Module& module, const CodeRange& range) {
  const Segment* segment = module.segment_at(range.address);
  return segment != nullptr && segment->executable && range.size <= segment->size - (range.address - segment->address);
}

// Asks IFUNC resolvers which implementation this process uses, once per resolver.
// Source: x86-64 psABI, R_X86_64_IRELATIVE: the resolver takes no arguments and returns the address.
class IfuncResolver {
 public:
  explicit IfuncResolver(const Module& module) : module_(module), may_ask_(module.is_relocated && is_loaded(module)) {}

  // The run-time address of the implementation; 0 when the module is not mapped here or the resolver gives
  // none.
  std::uint64_t resolve(std::uint64_t resolver) {
    const auto [entry, is_new] = chosen_.try_emplace(resolver, 0);
    if (is_new && may_ask_ && module_.bytes_at(resolver, 1) != nullptr) {
      entry->second = reinterpret_cast<std::uint64_t (*)()>(module_.bias + resolver)();
    }
    return entry->second;
  }

 private:
  const Module& module_;
  const bool may_ask_;
  std::unordered_map<std::uint64_t, std::uint64_t> chosen_;
};

class Collector {
 public:
  explicit Collector(const Module& module) : module_(module), ifuncs_(module) {}

  std::vector<Candidate> functions;
  std::vector<std::pair<std::string_view, FunctionTable::Other>> others;
  std::string sources;
  Versions versions;

  // numbers: .dynsym's .gnu.version.
  void add_table(const std::optional<std::vector<Symbol>>& symbols, std::string_view source,
                 const SectionBytes& numbers = {}) {
    if (!symbols) return;
    add_source(source);
    for (const Symbol& symbol : *symbols) add(symbol.entry, symbol.name, versions.of_symbol(numbers, symbol.index));
  }

  void add_mapped(const MappedTables& tables) {
    functions.reserve(tables.dynsym.size / sizeof(Elf64_Sym));
    versions.read(tables.definitions, tables.dynsym_names);
    const auto add_one = [&](const Elf64_Sym& symbol, std::string_view name, std::uint32_t index) {
      add(symbol, name, versions.of_symbol(tables.versions, index));
    };
    if (visit_symbols(tables.dynsym, tables.dynsym_names, add_one)) add_source("dynsym");
  }

  void add_source(std::string_view source) {
    sources += sources.empty() ? "" : "+";
    sources += source;
  }

 private:
  void add(const Elf64_Sym& symbol, std::string_view name, std::uint16_t version) {
    const std::string_view whole = name;
    name = VersionedName(whole).name;
    if (name.empty()) return;
    const unsigned type = ELF64_ST_TYPE(symbol.st_info);
    const bool is_code = type == STT_FUNC || type == STT_GNU_IFUNC;
    if (symbol.st_shndx == SHN_UNDEF) {
      if (is_code || type == STT_NOTYPE) others.emplace_back(name, FunctionTable::Other::kUndefined);
    } else if (type == STT_OBJECT || type == STT_TLS || type == STT_COMMON) {
      others.emplace_back(name, FunctionTable::Other::kData);
    } else if (is_code && symbol.st_shndx != SHN_ABS && in_executable_segment(module_, symbol.st_value)) {
      if (name.size() != whole.size()) version = versions.of_name(whole);
      if (type == STT_FUNC) {
        functions.push_back({symbol.st_value, symbol.st_size, binding_of(symbol), version, name});
      } else {
        add_ifunc(symbol, name, version);
      }
    }
  }

  // The size in the symbol is the resolver's.
  void add_ifunc(const Elf64_Sym& symbol, std::string_view name, std::uint16_t version) {
    const std::uint64_t chosen = ifuncs_.resolve(symbol.st_value);
    if (chosen == 0) return;
    if (in_executable_segment(module_, chosen - module_.bias)) {
      functions.push_back({chosen - module_.bias, 0, binding_of(symbol), version, name});
    } else {
      others.emplace_back(name, FunctionTable::Other::kElsewhere);
    }
  }

  const Module& module_;
  IfuncResolver ifuncs_;
};

// Sorts by address without a second copy: every page touched for the first time costs as much as it takes to sort it.
void sort_by_address(std::vector<Candidate>& functions) {
  std::vector<std::uint32_t> order(functions.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return functions[a].address < functions[b].address; });
  for (std::uint32_t first = 0; first < order.size(); ++first) {  // the cycles of the permutation, one after another
    if (order[first] == first) continue;
    const Candidate saved = functions[first];
    std::uint32_t to = first;
    for (std::uint32_t from = order[to]; from != first; from = order[to]) {
      functions[to] = functions[from];
      order[to] = to;
      to = from;
    }
    functions[to] = saved;
    order[to] = to;
  }
}

// One entry per name and version of those at one address, in the order that the header promises; returns where they
// end.
Candidate* rank_aliases(Candidate* first, Candidate* last) {
  if (last - first == 1) return last;
  // A name that one table has a version for, and another has not, is one.
  std::sort(first, last, [](const Candidate& a, const Candidate& b) {
    const bool has_a = a.version != 0, has_b = b.version != 0;
    return std::tie(a.name, has_b, a.version, b.binding, b.size) <
           std::tie(b.name, has_a, b.version, a.binding, a.size);
  });
  last = std::unique(first, last, [](const Candidate& a, const Candidate& b) {
    return a.name == b.name && (a.version == b.version || b.version == 0);
  });
  std::sort(first, last, [](const Candidate& a, const Candidate& b) {
    if (a.binding != b.binding) return a.binding > b.binding;
    const std::size_t a_underscores = leading_underscores(a.name);
    const std::size_t b_underscores = leading_underscores(b.name);
    if (a_underscores != b_underscores) return a_underscores < b_underscores;
    if (a.name.size() != b.name.size()) return a.name.size() < b.name.size();  // free before cfree
    return std::tie(a.name, a.version) < std::tie(b.name, b.version);          // and the default version before others
  });
  return last;
}

// One entry per address and name, in the order that the header promises.
void rank(std::vector<Candidate>& functions) {
  sort_by_address(functions);
  Candidate *to = functions.data(), *const end = to + functions.size();
  for (Candidate* first = to; first != end;) {
    Candidate* last = first;
    while (last != end && last->address == first->address) ++last;
    to = std::move(first, rank_aliases(first, last), to);
    first = last;
  }
  functions.resize(static_cast<std::size_t>(to - functions.data()));
}

// Gives functions without a size their alias's, or else that of the range which begins at their address.
// Leaves the ranges that no function accounts for. `functions` are ranked; `ranges` sorted by address.
void match_ranges(std::vector<Candidate>& functions, std::vector<CodeRange>& ranges, const Module& module) {
  std::uint64_t reach = 0;  // the highest end of what lies before
  auto kept = ranges.begin();
  auto range = ranges.begin();
  const auto take_ranges_before = [&](std::uint64_t address) {
    for (; range != ranges.end() && range->address < address; ++range) {
      if (range->address < reach || !in_executable_segment(module, *range)) continue;
      reach = range->address + range->size;
      *kept++ = *range;
    }
  };
  for (auto first = functions.begin(); first != functions.end();) {
    const std::uint64_t address = first->address;
    auto last = first;
    std::uint64_t size = 0;
    for (; last != functions.end() && last->address == address; ++last) size = std::max(size, last->size);
    take_ranges_before(address);
    if (range != ranges.end() && range->address == address) {
      if (size == 0 && in_executable_segment(module, *range)) size = range->size;
      ++range;
    }
    for (; first != last; ++first) {
      if (first->size == 0) first->size = size;
    }
    reach = std::max(reach, address + size);
  }
  take_ranges_before(UINT64_MAX);
  ranges.erase(kept, ranges.end());
}

Function to_function(const Candidate& candidate) {
  return {candidate.address, candidate.size, candidate.binding, candidate.name, candidate.version};
}
Function to_function(const CodeRange& range) { return {range.address, range.size, Binding::kLocal, {}}; }

// Copies all names into one block, and has them refer to it.
std::unique_ptr<char[]> keep_names(std::vector<Candidate>& functions,
                                   std::vector<std::pair<std::string_view, FunctionTable::Other>>& others) {
  std::size_t size = 0;
  for (const Candidate& function : functions) size += function.name.size();
  for (const auto& other : others) size += other.first.size();
  auto text = std::make_unique_for_overwrite<char[]>(size);
  char* to = text.get();
  const auto keep = [&](std::string_view& name) {
    std::memcpy(to, name.data(), name.size());
    name = {to, name.size()};
    to += name.size();
  };
  for (Candidate& function : functions) keep(function.name);
  for (auto& other : others) keep(other.first);
  return text;
}

// Both sorted by address; no range begins where a candidate does.
std::vector<Function> merge(const std::vector<Candidate>& candidates, const std::vector<CodeRange>& ranges) {
  std::vector<Function> functions;
  functions.reserve(candidates.size() + ranges.size());
  auto range = ranges.begin();
  for (const Candidate& candidate : candidates) {
    for (; range != ranges.end() && range->address < candidate.address; ++range)
      functions.push_back(to_function(*range));
    functions.push_back(to_function(candidate));
  }
  for (; range != ranges.end(); ++range) functions.push_back(to_function(*range));
  return functions;
}

// Fills in `end` of the functions at one address, [first, last); next: the next function's address.
void set_ends(Function* first, Function* last, std::uint64_t next, const Module& module) {
  const Segment* segment = module.segment_at(first->address);
  const std::uint64_t room = segment->size - (first->address - segment->address);
  for (Function* function = first; function != last; ++function) {
    const std::uint64_t length = function->size != 0 ? function->size : next - first->address;
    function->end = function->address + std::min(length, room);
  }
}

// The vDSO has no file. Its image is mapped as it is, whole pages of it, so that the section table is there
// too.
std::vector<char> vdso_image(const Module& module) {
  const std::uint64_t page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t size = (module.high() - module.low() + page - 1) & ~(page - 1);
  const char* image = reinterpret_cast<const char*>(module.low());
  return {image, image + size};
}

// Symbols of another file than the mapped one would name wrong addresses.
void check_is_mapped_file(const Module& module, const ElfFile& file) {
  if (file.segments() != module.segments || (!module.build_id.empty() && file.build_id() != module.build_id)) {
    throw std::runtime_error("the file was replaced after the process had loaded it");
  }
}

}  // namespace

ElfFile open_module(const Module& module) {
  if (module.is_vdso) return ElfFile::image(vdso_image(module));
  if (access(module.path.c_str(), F_OK) != 0 && errno == ENOENT) {
    throw std::runtime_error("the file was deleted after the process had loaded it");
  }
  ElfFile file = ElfFile::open(module.path);
  check_is_mapped_file(module, file);
  return file;
}

FunctionTable FunctionTable::load(const Module& module) try {
  Collector collector(module);
  std::vector<CodeRange> ranges;
  const ElfFile file = open_module(module);
  std::optional<ElfFile> debug;  // the names refer to both
  if (const std::optional<MappedTables> mapped = mapped_tables(module, file)) {
    collector.add_mapped(*mapped);
    ranges = frame_ranges(mapped->eh_frame);
  } else {
    const std::optional<std::vector<Symbol>> symtab = file.symbols(SHT_SYMTAB);
    const bool may_have_debug_file = !module.is_vdso && !symtab;  // a .symtab of its own has everything
    if (may_have_debug_file) {
      if (auto found = find_debug_file(module.path, file)) debug.emplace(std::move(*found));
    }
    collector.versions.read(file.section(SHT_GNU_verdef), file.section(".dynstr").value_or(SectionBytes{}));
    collector.add_table(symtab, "symtab");
    collector.add_table(file.symbols(SHT_DYNSYM), "dynsym", file.section(SHT_GNU_versym));
    if (debug) collector.add_table(debug->symbols(SHT_SYMTAB), "debug file");
    ranges = frame_ranges(file.section(".eh_frame").value_or(SectionBytes{}));
  }
  if (!ranges.empty()) collector.add_source("eh_frame");
  if (collector.sources.empty()) collector.sources = "no symbols";
  rank(collector.functions);
  match_ranges(collector.functions, ranges, module);

  FunctionTable table;
  table.text_ = keep_names(collector.functions, collector.others);
  table.sources_ = std::move(collector.sources);
  table.versions_ = collector.versions.take();
  table.functions_ = merge(collector.functions, ranges);
  table.others_ = std::move(collector.others);
  Function* const end = table.functions_.data() + table.functions_.size();
  for (Function* first = table.functions_.data(); first != end;) {
    Function* last = first + 1;
    while (last != end && last->address == first->address) ++last;
    set_ends(first, last, last == end ? UINT64_MAX : last->address, module);
    first = last;
  }
  return table;
} catch (const std::runtime_error& error) {
  throw std::runtime_error("cannot read the symbols of " + module.path + ": " + error.what());
}

const Function* FunctionTable::containing(std::uint64_t elf_address) const {
  if (reach_.empty()) {
    std::uint64_t reach = 0;
    reach_.reserve(functions_.size());
    for (const Function& function : functions_) reach_.push_back(reach = std::max(reach, function.end));
  }
  const auto after =
      std::upper_bound(functions_.begin(), functions_.end(), elf_address,
                       [](std::uint64_t address, const Function& function) { return address < function.address; });
  // The function that begins nearest below wins; one that begins earlier may reach over it and its padding.
  std::size_t last = static_cast<std::size_t>(after - functions_.begin());
  while (last != 0 && reach_[last - 1] > elf_address) {
    std::size_t first = last - 1;
    while (first != 0 && functions_[first - 1].address == functions_[last - 1].address) --first;
    for (std::size_t i = first; i != last; ++i) {
      if (functions_[i].end > elf_address) return &functions_[i];
    }
    last = first;
  }
  return nullptr;
}

FunctionTable::Other FunctionTable::other(std::string_view name) const {
  if (!is_sorted_) std::sort(others_.begin(), others_.end());
  is_sorted_ = true;
  const auto found = std::lower_bound(others_.begin(), others_.end(), name,
                                      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  return found != others_.end() && found->first == name ? found->second : Other::kAbsent;
}

}  // namespace ubp::symbols
