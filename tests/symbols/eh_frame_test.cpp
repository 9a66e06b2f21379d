// Functions from .eh_frame: against the dynamic linker's own index of it (.eh_frame_hdr), and with damaged
// bytes.
#include "runtime/symbols/eh_frame.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>

#include "runtime/symbols/symbols.h"
#include "tests/symbols/found.h"

using namespace ubp::symbols;

extern "C" void symbols_test_framed();

asm(R"(
  .pushsection .text
  .type symbols_test_framed, @function
  .globl symbols_test_framed
  symbols_test_framed: .cfi_startproc; nop; nop; ret; .cfi_endproc
  nop; nop
  .cfi_startproc; nop; nop; nop; ret; .cfi_endproc
  .type symbols_test_sized, @function
  symbols_test_sized: nop; .cfi_startproc; nop; ret; .cfi_endproc
  .size symbols_test_sized, . - symbols_test_sized
  .popsection
)");

namespace {

// The FDEs' addresses as ELF addresses, by .eh_frame_hdr's search table. Sources: LSB Core, ".eh_frame_hdr".
std::vector<std::uint64_t> indexed_starts(const Module& module) {
  struct Search {
    std::uint64_t bias;
    const std::uint8_t* header;
  } search{module.bias, nullptr};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& wanted = *static_cast<Search*>(data);
        for (int i = 0; info->dlpi_addr == wanted.bias && i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
            wanted.header = reinterpret_cast<const std::uint8_t*>(wanted.bias + info->dlpi_phdr[i].p_vaddr);
        }
        return 0;
      },
      &search);
  REQUIRE(search.header != nullptr);
  REQUIRE(std::memcmp(search.header, "\x01\x1b\x03\x3b", 4) == 0);  // version 1, int32 pc-relative, count, table
  std::uint32_t count = 0;
  std::memcpy(&count, search.header + 8, sizeof count);
  std::vector<std::uint64_t> starts;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::int32_t offset = 0;
    std::memcpy(&offset, search.header + 12 + std::size_t{8} * i, sizeof offset);
    starts.push_back(reinterpret_cast<std::uint64_t>(search.header) + offset - module.bias);
  }
  return starts;
}

struct Loaded {
  explicit Loaded(const char* path) : handle(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {}
  ~Loaded() {
    if (handle != nullptr) dlclose(handle);
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  void* handle;
};

// Memory that ends where the next page cannot be read.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::size_t room) : room_((room + kPage - 1) / kPage * kPage) {
    start_ = static_cast<std::uint8_t*>(
        mmap(nullptr, room_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(start_ != MAP_FAILED);
    REQUIRE(mprotect(start_ + room_, kPage, PROT_NONE) == 0);
  }
  ~GuardedBytes() { munmap(start_, room_ + kPage); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;

  const std::uint8_t* put_at_end(const std::vector<std::uint8_t>& bytes) const {
    std::uint8_t* to = start_ + room_ - bytes.size();
    std::copy(bytes.begin(), bytes.end(), to);
    return to;
  }

 private:
  static constexpr std::size_t kPage = 4096;
  std::size_t room_;
  std::uint8_t* start_ = nullptr;
};

// The .eh_frame of this program, to be read after damage was done to it.
struct OwnFrames {
  std::uint64_t address = 0;
  std::vector<std::uint8_t> bytes;
  std::optional<GuardedBytes> guarded;

  OwnFrames() {
    const ElfFile file = ElfFile::open("/proc/self/exe");
    const std::optional<SectionBytes> section = file.section(".eh_frame");
    REQUIRE(section);
    address = section->address;
    bytes.assign(section->bytes, section->bytes + section->size);
    guarded.emplace(bytes.size());
  }

  std::vector<CodeRange> read(const std::vector<std::uint8_t>& content) const {
    return frame_ranges({guarded->put_at_end(content), content.size(), address});
  }
};

// A CIE with the augmentation and its data, and one FDE with the pointers.
std::vector<std::uint8_t> one_frame(std::string_view augmentation, std::vector<std::uint8_t> augmentation_data,
                                    const std::vector<std::uint8_t>& pointers) {
  const auto append_entry = [](std::vector<std::uint8_t>& to, std::vector<std::uint8_t> body) {
    while (body.size() % 4 != 0) body.push_back(0);  // DW_CFA_nop
    to.push_back(static_cast<std::uint8_t>(body.size()));
    to.insert(to.end(), {0, 0, 0});
    to.insert(to.end(), body.begin(), body.end());
  };
  std::vector<std::uint8_t> cie = {0, 0, 0, 0, 1};
  cie.insert(cie.end(), augmentation.begin(), augmentation.end());
  cie.insert(cie.end(), {0, 1, 0x78, 16});
  if (augmentation.starts_with('z')) cie.push_back(static_cast<std::uint8_t>(augmentation_data.size()));
  cie.insert(cie.end(), augmentation_data.begin(), augmentation_data.end());
  std::vector<std::uint8_t> bytes;
  append_entry(bytes, cie);
  std::vector<std::uint8_t> fde = {static_cast<std::uint8_t>(bytes.size() + 4), 0, 0, 0};
  fde.insert(fde.end(), pointers.begin(), pointers.end());
  fde.push_back(0);  // no augmentation data
  append_entry(bytes, fde);
  bytes.insert(bytes.end(), 4, 0);
  return bytes;
}

}  // namespace

TEST_CASE("a symbol without a size has its FDE's; FDEs without symbol are functions, unless inside one") {
  const Module module = loaded_modules().front();
  const FunctionTable table = FunctionTable::load(module);
  CHECK(table.sources() == "symtab+dynsym+eh_frame");
  const Function* framed = only(table.match("symbols_test_framed", false));
  CHECK(framed->size == 3);
  CHECK(framed->end == framed->address + 3);
  CHECK(framed->has_symbol());
  CHECK(table.containing(framed->address + 3) == nullptr);

  const Function* unnamed = table.containing(framed->address + 5);
  REQUIRE(unnamed != nullptr);
  CHECK(unnamed->address == framed->address + 5);
  CHECK(unnamed->size == 4);
  CHECK(unnamed->binding == Binding::kLocal);
  CHECK_FALSE(unnamed->has_symbol());
  char name[32];
  std::snprintf(name, sizeof name, "sub_%lx", static_cast<unsigned long>(unnamed->address));
  CHECK(unnamed->name() == name);
  CHECK(only(table.match(name, false)) == unnamed);
  CHECK(only(table.match(name, true)) == unnamed);
  std::string glob = name;
  glob.back() = '?';
  const std::vector<const Function*> matches = table.match(glob, false);
  CHECK(std::find(matches.begin(), matches.end(), unnamed) != matches.end());
  const std::vector<const Function*> all = table.match("*", false);
  CHECK(std::find(all.begin(), all.end(), unnamed) != all.end());

  const Function* sized = only(table.match("symbols_test_sized", false));
  CHECK(sized->size == 3);
  CHECK(table.containing(sized->address + 1) == sized);
}

TEST_CASE("nearest names a function without symbol only to somebody who asks for one") {
  const FunctionTable table = FunctionTable::load(loaded_modules().front());
  const Function* framed = only(table.match("symbols_test_framed", false));
  std::string name = table.containing(framed->address + 5)->name();
  const std::string wanted = name;
  name += 'f';
  CHECK(table.nearest(name).front() == wanted);
  name.replace(0, 4, "sbu_");
  for (const std::string& suggestion : table.nearest(name)) CHECK_FALSE(suggestion.starts_with("sub_"));
}

TEST_CASE("every FDE is read and accounted for") {
  const Loaded sqlite("libsqlite3.so.0");
  for (const char* name : {"*", "libc", "libstdc++", "libsqlite3"}) {
    CAPTURE(std::string(name));
    if (std::string_view(name) == "libsqlite3" && sqlite.handle == nullptr) {
      MESSAGE("libsqlite3.so.0 is not installed");
      continue;
    }
    const Module module = find_module(name);
    const std::vector<std::uint64_t> starts = indexed_starts(module);
    const ElfFile file = ElfFile::open(module.path);
    const std::vector<CodeRange> ranges = frame_ranges(*file.section(".eh_frame"));
    std::vector<std::uint64_t> missing;
    for (const std::uint64_t start : starts) {
      const auto at = std::lower_bound(ranges.begin(), ranges.end(), start,
                                       [](const CodeRange& range, std::uint64_t a) { return range.address < a; });
      if (at == ranges.end() || at->address != start) missing.push_back(start);
    }
    // A signal trampoline's FDE begins before the function; libc has one.
    CHECK(missing.size() == (module.name == "libc.so.6" ? 1 : 0));
    CHECK(ranges.size() + missing.size() == starts.size());

    const auto before = std::chrono::steady_clock::now();
    const FunctionTable table = FunctionTable::load(module);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - before;
    CHECK(table.sources().ends_with("+eh_frame"));
    const auto without_symbol = std::count_if(table.functions().begin(), table.functions().end(),
                                              [](const Function& f) { return !f.has_symbol(); });
    MESSAGE(module.name, ": ", starts.size(), " FDEs, ", table.functions().size(), " functions, ", without_symbol,
            " of them without symbol, ", took.count(), " ms");
    for (const CodeRange& range : ranges) {
      const Function* function = table.containing(range.address);
      REQUIRE(function != nullptr);
      REQUIRE((function->address == range.address || function->size > range.address - function->address));
      if (!function->has_symbol()) REQUIRE(function->size == range.size);
    }
  }
}

TEST_CASE("encodings of the pointers") {
  const auto read = [&](const std::vector<std::uint8_t>& bytes) {
    return frame_ranges({bytes.data(), bytes.size(), 0x1000});
  };
  const auto reads_as = [&](const std::vector<std::uint8_t>& bytes, std::uint64_t address, std::uint64_t size) {
    const std::vector<CodeRange> ranges = read(bytes);
    return ranges.size() == 1 && ranges[0].address == address && ranges[0].size == size;
  };
  const std::vector<std::uint8_t> words = {0x10, 0x20, 0x30, 0, 0x40, 0, 0, 0};
  const std::vector<std::uint8_t> long_words = {0x10, 0x20, 0x30, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0};
  CHECK(reads_as(one_frame("zR", {0x03}, words), 0x302010, 0x40));
  CHECK(reads_as(one_frame("zR", {0x0B}, words), 0x302010, 0x40));
  CHECK(reads_as(one_frame("zR", {0x00}, long_words), 0x302010, 0x40));
  CHECK(reads_as(one_frame("z", {}, long_words), 0x302010, 0x40));
  CHECK(reads_as(one_frame("", {}, long_words), 0x302010, 0x40));
  // The CIE takes 20 bytes, the FDE's length and CIE pointer 8.
  CHECK(reads_as(one_frame("zR", {0x1B}, words), 0x302010 + 0x1000 + 28, 0x40));
  CHECK(reads_as(one_frame("zR", {0x1C}, long_words), 0x302010 + 0x1000 + 28, 0x40));
  CHECK(reads_as(one_frame("zR", {0x1B}, {0xF0, 0xFF, 0xFF, 0xFF, 4, 0, 0, 0}), 0x1000 + 28 - 16, 4));
  CHECK(reads_as(one_frame("zPLR", {0x9B, 1, 2, 3, 4, 0x1B, 0x03}, words), 0x302010, 0x40));
  CHECK(reads_as(one_frame("zPLR", {0x00, 1, 2, 3, 4, 5, 6, 7, 8, 0x1B, 0x03}, words), 0x302010, 0x40));

  CHECK(read(one_frame("zRS", {0x03}, words)).empty());                    // a signal trampoline
  CHECK(read(one_frame("zxR", {0x03}, words)).empty());                    // an unknown augmentation
  CHECK(read(one_frame("zR", {0x01}, words)).empty());                     // LEB128
  CHECK(read(one_frame("zR", {0x33}, words)).empty());                     // relative to data
  CHECK(read(one_frame("zR", {0x83}, words)).empty());                     // indirect
  CHECK(read(one_frame("zR", {0xFF}, words)).empty());                     // omitted
  CHECK(read(one_frame("zR", {}, words)).empty());                         // cut short
  CHECK(read(one_frame("zR", {0x00}, words)).empty());                     // the FDE is too short for eight bytes each
  CHECK(read(one_frame("zR", {0x03}, {1, 0, 0, 0, 0, 0, 0, 0})).empty());  // no code
}

TEST_CASE("damaged .eh_frame: what was read before the damage, and no byte outside") {
  const OwnFrames own;
  const std::vector<CodeRange> whole = own.read(own.bytes);
  REQUIRE(whole.size() > 100);
  const auto holds = [&](const CodeRange& wanted) {
    return std::any_of(whole.begin(), whole.end(), [&](const CodeRange& range) {
      return range.address == wanted.address && range.size == wanted.size;
    });
  };
  CHECK(own.read({}).empty());
  std::size_t read_before = 0;
  for (std::size_t size = 1; size < own.bytes.size(); size += size < 2000 ? 1 : 997) {
    const std::vector<CodeRange> ranges = own.read({own.bytes.begin(), own.bytes.begin() + size});
    REQUIRE(ranges.size() >= read_before);
    REQUIRE(std::all_of(ranges.begin(), ranges.end(), holds));
    read_before = ranges.size();
  }
  CHECK(read_before > whole.size() / 2);

  std::mt19937 random(3);
  const std::vector<std::uint8_t> start(own.bytes.begin(),
                                        own.bytes.begin() + std::min<std::size_t>(own.bytes.size(), 4096));
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::uint8_t> damaged = start;
    if (round % 3 == 0) damaged.resize(64 + random() % (start.size() - 64));
    for (unsigned changes = 1 + random() % 8; changes != 0; --changes) {
      const std::size_t at = random() % (round % 2 == 0 ? 64 : damaged.size());
      damaged[at] = static_cast<std::uint8_t>(random());
    }
    const std::vector<CodeRange> ranges = own.read(damaged);
    REQUIRE(std::is_sorted(ranges.begin(), ranges.end(),
                           [](const CodeRange& a, const CodeRange& b) { return a.address < b.address; }));
  }
}
