// Where a symbol of any kind is in a file: variables above all, which are no functions.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ubp::symbols {

struct SymbolAddress {
  std::uint64_t address = 0, bytes = 0;  // ELF virtual address; bytes: 0, the symbol does not say
  std::string build_id;                  // the file's, in hexadecimal; empty: it has none
  std::string problem, hint;             // why it is at no one place; empty: it is
};

// name: as the symbol table has it, or demangled. What is global comes before what is local; of .symtab, also a
// separate debug file's, and .dynsym. problem where the file cannot be read, too.
SymbolAddress address_of_symbol(const std::string& path, std::string_view name);

}  // namespace ubp::symbols
