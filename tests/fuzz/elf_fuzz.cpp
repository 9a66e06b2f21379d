// Reading ELF files: damaged ones give a reason or what can be read of them, nothing outside their bytes.
//
// Input: an ELF file's content, which is also read as if all of it were .eh_frame.
#include <dlfcn.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz.h"
#include "runtime/symbols/eh_frame.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::fuzz {
namespace {

volatile std::size_t sink;

void read(const std::string& text) { sink = sink + std::string(text).size(); }

// Each reader on its own: one that throws must not hide the others.
template <typename Reader>
void attempt(Reader reader) {
  try {
    reader();
  } catch (const std::runtime_error& error) {
    const std::string reason = error.what();
    FUZZ_CHECK(!reason.empty() && reason.find('\n') == std::string::npos);
  }
}

void read_symbols(const symbols::ElfFile& file, std::uint32_t section_type, std::size_t file_size) {
  const auto symbols = file.symbols(section_type);
  if (!symbols) return;
  FUZZ_CHECK(!symbols->empty() && symbols->size() * sizeof(Elf64_Sym) <= file_size);
  for (const symbols::Symbol& symbol : *symbols) read(std::string(symbol.name));
}

void read_frames(const symbols::SectionBytes& section) {
  const std::vector<symbols::CodeRange> ranges = symbols::frame_ranges(section);
  FUZZ_CHECK(ranges.size() <= section.size);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    FUZZ_CHECK(ranges[i].size != 0);
    FUZZ_CHECK(i == 0 || ranges[i - 1].address < ranges[i].address);
  }
}

void read_file(std::vector<char> bytes) {
  const std::size_t size = bytes.size();
  const symbols::ElfFile file = symbols::ElfFile::image(std::move(bytes));
  attempt([&] { read_symbols(file, SHT_SYMTAB, size); });
  attempt([&] { read_symbols(file, SHT_DYNSYM, size); });
  attempt([&] { sink = sink + file.segments().size(); });
  attempt([&] {
    if (const auto section = file.section(".eh_frame")) read_frames(*section);
  });
  attempt([&] {
    const std::string build_id = file.build_id();
    FUZZ_CHECK(build_id.find_first_not_of("0123456789abcdef") == std::string::npos);
    const auto link = file.debug_link();
    for (const auto& path : symbols::debug_file_candidates("/usr/bin/app", build_id, link ? link->name : ""))
      read(path);
  });
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  attempt([&] { read_file({bytes, bytes + size}); });
  // The bytes as such a section: mutations of a whole file seldom leave one to be found.
  attempt([&] { read_frames({.bytes = bytes, .size = size, .address = 0x400000}); });
  return 0;
}
