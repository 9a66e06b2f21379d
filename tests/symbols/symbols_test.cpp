// The symbol tables of this program, libc, the vDSO and two fixtures, against what dlsym and the compiler
// say.
//
// The fixtures (tests/symbols/meson.build) lie in $UBP_SYMBOLS_FIXTURES; their tests say so and pass when it
// is unset.
#include "runtime/symbols/symbols.h"
#include "tests/symbols/found.h"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/mapped_file.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/notes.h"

namespace fs = std::filesystem;
using namespace ubp::symbols;

#define UBP_FUNCTION __attribute__((noipa, used, visibility("default")))

extern "C" {
int symbols_test_data = 7;
thread_local int symbols_test_tls = 8;

UBP_FUNCTION int symbols_test_sum(int a, int b) noexcept { return a + b + symbols_test_data; }
UBP_FUNCTION int symbols_test_sum_alias(int a, int b) noexcept __attribute__((alias("symbols_test_sum")));
UBP_FUNCTION int __symbols_test_sum(int a, int b) noexcept __attribute__((alias("symbols_test_sum")));
UBP_FUNCTION int asymbols_test_sum(int a, int b) noexcept __attribute__((weak, alias("symbols_test_sum")));
__attribute__((noipa, used)) static int symbols_test_static(int a) { return a * 3 + symbols_test_tls; }

UBP_FUNCTION int symbols_test_chosen(int a) { return a - symbols_test_data; }
// Runs before a sanitizer's own start.
__attribute__((no_sanitize("address", "undefined"))) static int (*symbols_test_resolver())(int) {
  return &symbols_test_chosen;
}
UBP_FUNCTION int symbols_test_ifunc(int a) __attribute__((ifunc("symbols_test_resolver")));
void symbols_test_zero_size();
}

asm(R"(
  .pushsection .text
  .type symbols_test_zero_size, @function
  .globl symbols_test_zero_size
  symbols_test_zero_size: nop; nop; nop; ret
  .type symbols_test_after_zero_size, @function
  symbols_test_after_zero_size: ret
  .size symbols_test_after_zero_size, 1
  .popsection
)");

namespace shop {
struct Till {
  UBP_FUNCTION int count(int coins) const { return coins + symbols_test_data; }
  UBP_FUNCTION int count(double) const { return symbols_test_data; }
};
template <typename T>
UBP_FUNCTION T largest(T a, T b) {
  return a < b ? b : a;
}
template int largest<int>(int, int);
}  // namespace shop

namespace {

template <typename F>
std::uint64_t address_of(F* function) {
  return reinterpret_cast<std::uint64_t>(function);
}

Module this_program() { return loaded_modules().front(); }

const FunctionTable& own_table() {
  static const FunctionTable table = FunctionTable::load(this_program());
  return table;
}

std::vector<std::string> names_of(const std::vector<const Function*>& functions) {
  std::vector<std::string> names;
  for (const Function* function : functions) names.push_back(function->name());
  return names;
}

std::string load_error(const Module& module) {
  try {
    FunctionTable::load(module);
    return {};
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

// A private directory with a copy of a fixture and its debug file; the library in it is loaded.
class Fixture {
 public:
  explicit Fixture(const std::string& variant) : source_(std::getenv("UBP_SYMBOLS_FIXTURES")) {
    char name[] = "/tmp/ubp_symbols_XXXXXX";
    directory_ = mkdtemp(name);
    library_ = directory_ / ("ubp_fixture" + variant + ".so");
    debug_ = directory_ / ("ubp_fixture" + variant + ".debug");
    fs::copy_file(source_ / library_.filename(), library_);
    fs::copy_file(source_ / debug_.filename(), debug_);
    handle_ = dlopen(library_.c_str(), RTLD_NOW | RTLD_LOCAL);
    REQUIRE(handle_ != nullptr);
    module_ = find_module(library_.native());
  }
  ~Fixture() {
    unload();
    fs::remove_all(directory_);
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  static bool available() {
    if (std::getenv("UBP_SYMBOLS_FIXTURES") != nullptr) return true;
    MESSAGE("skipped: UBP_SYMBOLS_FIXTURES is not set (meson test sets it)");
    return false;
  }

  void unload() {
    if (handle_ != nullptr) dlclose(handle_);
    handle_ = nullptr;
  }
  const fs::path& source() const { return source_; }
  const fs::path& library() const { return library_; }
  const fs::path& debug() const { return debug_; }
  const Module& module() const { return module_; }
  FunctionTable load() const { return FunctionTable::load(module_); }
  std::uint64_t public_address() const { return reinterpret_cast<std::uint64_t>(dlsym(handle_, "fixture_public")); }

 private:
  fs::path source_;
  fs::path directory_;
  fs::path library_;
  fs::path debug_;
  void* handle_ = nullptr;
  Module module_;
};

}  // namespace

TEST_CASE("loaded_modules: the executable first, the vDSO, libc, and itself") {
  const std::vector<Module> modules = loaded_modules();
  const Module& executable = modules.front();
  CHECK(executable.is_executable);
  CHECK_FALSE(executable.is_runtime);  // though the library under test is linked into it
  CHECK(executable.path == fs::read_symlink("/proc/self/exe"));
  CHECK(executable.low() <= address_of(&symbols_test_sum));
  CHECK(executable.high() > address_of(&symbols_test_sum));
  CHECK(executable.segment_at(address_of(&symbols_test_sum) - executable.bias)->executable);
  CHECK(executable.bytes_at(address_of(&symbols_test_sum) - executable.bias, 1) ==
        reinterpret_cast<const std::uint8_t*>(&symbols_test_sum));
  const Segment& last = executable.segments.back();
  CHECK(executable.bytes_at(last.address, last.size) != nullptr);
  CHECK(executable.bytes_at(last.address, last.size + 1) == nullptr);
  CHECK(executable.segment_at(address_of(&symbols_test_data) - executable.bias)->writable);
  CHECK(executable.bytes_at(executable.high() - executable.bias, 1) == nullptr);
  CHECK(std::count_if(modules.begin(), modules.end(), [](const Module& m) { return m.is_executable; }) == 1);
  CHECK(std::count_if(modules.begin(), modules.end(), [](const Module& m) { return m.is_runtime; }) == 0);
  CHECK(find_module("libc").name == "libc.so.6");
  CHECK(find_module("libc").build_id.size() == 40);
}

TEST_CASE("module_matches") {
  const auto matches = [](const char* path, const char* glob) {
    Module module;
    module.path = path;
    module.name = fs::path(path).filename();
    return module_matches(module, glob);
  };
  for (const char* glob : {"libc", "libc.so", "libc.so.6", "libc*", "lib?", "*", "/lib/x86_64-linux-gnu/libc.so.6",
                           "/lib/*/libc.so*", "*/libc.so.6"}) {
    CAPTURE(std::string(glob));
    CHECK(matches("/lib/x86_64-linux-gnu/libc.so.6", glob));
  }
  for (const char* glob : {"", "lib", "libc.s", "libc.so.", "/libc", "libc.so.7", "c", "x86_64-linux-gnu/libc.so.6"}) {
    CAPTURE(std::string(glob));
    CHECK_FALSE(matches("/lib/x86_64-linux-gnu/libc.so.6", glob));
  }
  CHECK_FALSE(matches("/usr/lib/libcrypto.so.3", "libc"));
  CHECK(matches("/usr/lib/libstdc++.so.6.0.30", "libstdc++"));
  CHECK(matches("/usr/lib/libLLVM-14.so.1", "libLLVM-14"));
  CHECK(matches("/opt/plugin.so", "plugin"));
  CHECK(matches("/usr/bin/app", "app"));
  CHECK_FALSE(matches("/usr/bin/app.sock", "app"));
  CHECK(matches((fs::current_path() / "bin/app").c_str(), "./bin/app"));
  CHECK(matches((fs::current_path() / "bin/app").c_str(), "bin/../bin/a*"));
  CHECK_FALSE(matches("/elsewhere/bin/app", "./bin/app"));
}

TEST_CASE("a module is found by the real path behind its name") {
  const Module libc = find_module("libc");
  CHECK(module_matches(libc, fs::canonical(libc.path).native()));
  // And by one that leads to it through links, of its folder or of its own.
  const fs::path folder = fs::temp_directory_path() / ("ubp_links_" + std::to_string(getpid()));
  fs::create_directory(folder);
  const fs::path real = fs::canonical(libc.path);
  fs::create_symlink(real.parent_path(), folder / "lib");
  fs::create_symlink(real, folder / "c.so");
  CHECK(module_matches(libc, (folder / "lib" / real.filename()).native()));
  CHECK(module_matches(libc, (folder / "lib" / "libc.so*").native()));
  CHECK(module_matches(libc, (folder / "c.so").native()));
  CHECK_FALSE(module_matches(libc, (folder / "lib" / "libm.so*").native()));
  CHECK_FALSE(module_matches(libc, (folder / "lib" / "libz.so.1").native()));
  fs::remove_all(folder);
}

TEST_CASE("own functions: addresses, sizes, bindings, order") {
  const Module module = this_program();
  const FunctionTable& table = own_table();
  CHECK(table.sources().starts_with("symtab"));

  const Function* sum = only(table.match("symbols_test_sum", false));
  CHECK(sum->address + module.bias == address_of(&symbols_test_sum));
  CHECK(sum->size > 0);
  CHECK(sum->end == sum->address + sum->size);
  CHECK(sum->binding == Binding::kGlobal);
  CHECK(only(table.match("symbols_test_static", false))->binding == Binding::kLocal);
  CHECK(only(table.match("asymbols_test_sum", false))->binding == Binding::kWeak);

  std::vector<std::string> aliases;
  for (const Function& function : table.functions()) {
    if (function.address == sum->address) aliases.push_back(function.name());
  }
  CHECK(aliases == std::vector<std::string>{"symbols_test_sum", "symbols_test_sum_alias", "__symbols_test_sum",
                                            "asymbols_test_sum"});
  CHECK(std::is_sorted(table.functions().begin(), table.functions().end(),
                       [](const Function& a, const Function& b) { return a.address < b.address; }));
}

TEST_CASE("aliases at one address match once, under the name asked for") {
  CHECK(names_of(own_table().match("symbols_test_sum*", false)) == std::vector<std::string>{"symbols_test_sum"});
  CHECK(names_of(own_table().match("*symbols_test_sum_a*", false)) ==
        std::vector<std::string>{"symbols_test_sum_alias"});
  CHECK(names_of(own_table().match("__symbols_test_sum", false)) == std::vector<std::string>{"__symbols_test_sum"});
}

TEST_CASE("a function without a size ends where the next begins") {
  const Function* function = only(own_table().match("symbols_test_zero_size", false));
  CHECK(function->size == 0);
  CHECK(function->end == function->address + 4);
  CHECK(own_table().containing(function->address + 3) == function);
  CHECK(own_table().containing(function->address + 4)->name() == "symbols_test_after_zero_size");
}

TEST_CASE("an IFUNC stands for the implementation, not the resolver") {
  const FunctionTable& table = own_table();
  const Function* function = only(table.match("symbols_test_ifunc", false));
  CHECK(function->address + this_program().bias == address_of(&symbols_test_chosen));
  CHECK(function->end == only(table.match("symbols_test_chosen", false))->end);
  CHECK(symbols_test_ifunc(10) == 3);
}

TEST_CASE("C++ names: raw, demangled, without parameters, quoted") {
  const FunctionTable& table = own_table();
  shop::Till till;
  CHECK(till.count(1) == 8);
  CHECK(table.match("shop::Till::count", false).size() == 2);
  CHECK(table.match("shop::Till::c*", false).size() == 2);
  CHECK(table.match("*Till::count(int)*", false).size() == 1);
  CHECK(table.match("shop::Till::count(int) const", true).size() == 1);
  CHECK(table.match("shop::Till::count", true).size() == 2);
  CHECK(table.match("shop::Till::c*", true).size() == table.match("shop::Till::c*", false).size());
  CHECK(table.match("shop::Till::c*", true).size() >= 2);
  CHECK(only(table.match("_ZNK4shop4Till5countEd", false))->name() == "_ZNK4shop4Till5countEd");
  for (const char* name : {"int shop::largest<int>(int, int)", "shop::largest<int>(int, int)", "shop::largest<int>"}) {
    CAPTURE(std::string(name));
    CHECK(table.match(name, true).size() == 1);
    CHECK(table.match(name, false).size() == 1);
  }
}

TEST_CASE("forms of demangled names") {
  const auto call = [](std::string_view name) { return std::string(forms_of(name).call); };
  const auto bare = [](std::string_view name) { return std::string(forms_of(name).bare); };
  CHECK(bare("f()") == "f");
  CHECK(bare("main") == "main");
  CHECK(bare("A::f(int (*)(char), B<(C)1>) const &") == "A::f");
  CHECK(bare("(anonymous namespace)::f(int)") == "(anonymous namespace)::f");
  CHECK(bare("A::operator()(int) const") == "A::operator()");
  CHECK(bare("A::operator->() const") == "A::operator->");
  CHECK(bare("A<B>::operator>(C<D> const&)") == "A<B>::operator>");
  CHECK(bare("A::operator bool() const") == "A::operator bool");
  CHECK(bare("operator new(unsigned long)") == "operator new");
  CHECK(bare("f(int)::{lambda(char)#1}::operator()(char) const") == "f(int)::{lambda(char)#1}::operator()");
  CHECK(bare("f(int) [clone .cold]") == "f(int) [clone .cold]");
  CHECK(bare("vtable for A") == "vtable for A");
  CHECK(bare("unsigned long ns::f<A<int>, (B)2>(int)") == "ns::f<A<int>, (B)2>");
  CHECK(call("std::vector<A, B<A> > f<A>(A) const") == "f<A>(A) const");
  CHECK(bare("std::ostream& std::operator<< <std::traits<char> >(std::ostream&, char)") ==
        "std::operator<< <std::traits<char> >");
  CHECK(bare("A<int>::~A()") == "A<int>::~A");
  CHECK(bare("") == "");
  CHECK(bare(")") == ")");
  CHECK(bare("(int)") == "(int)");
}

TEST_CASE("names as people write them") {
  const std::string string = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
  CHECK(simplified("ns::f(" + string + " const&)") == "ns::f(std::string const&)");
  CHECK(simplified("std::vector<" + string + ", std::allocator<" + string + " > >::size() const") ==
        "std::vector<std::string, std::allocator<std::string>>::size() const");
  CHECK(simplified("f(std::vector<std::vector<std::vector<int> > >)") ==
        "f(std::vector<std::vector<std::vector<int>>>)");
  CHECK(simplified("f(std::basic_string_view<char, std::char_traits<char> >)") == "f(std::string_view)");
  CHECK(simplified("f(int)") == "");
}

TEST_CASE("containing") {
  const Module module = this_program();
  const FunctionTable& table = own_table();
  const Function* sum = only(table.match("symbols_test_sum", false));
  CHECK(table.containing(sum->address) == sum);
  CHECK(table.containing(sum->end - 1) == sum);
  CHECK(table.containing(sum->end) != sum);
  CHECK(table.containing(0) == nullptr);
  CHECK(table.containing(UINT64_MAX) == nullptr);
  for (const Function& function : table.functions()) {
    const Segment* segment = module.segment_at(function.address);
    REQUIRE(function.end > function.address);
    REQUIRE(function.end <= segment->address + segment->size);
    REQUIRE(table.containing(function.address)->address == function.address);
  }
}

TEST_CASE("what is not a function") {
  using Other = FunctionTable::Other;
  CHECK(own_table().other("symbols_test_data") == Other::kData);
  CHECK(own_table().other("symbols_test_tls") == Other::kData);
  CHECK(own_table().other("dlopen") == Other::kUndefined);
  CHECK(own_table().other("symbols_test_nothing") == Other::kAbsent);
  CHECK(own_table().other("symbols_test_sum") == Other::kAbsent);
}

TEST_CASE("nearest") {
  const FunctionTable& table = own_table();
  CHECK(table.nearest("symbols_test_staitc").front() == "symbols_test_static");
  CHECK(table.nearest("shop::Till::cuont").front() == "shop::Till::count");
  CHECK(table.nearest("larges").empty());  // templates: the last name is not guessed
  CHECK(table.nearest("count").front() == "shop::Till::count");
  CHECK(table.nearest("shop::largest<imt>").front() == "shop::largest<int>");
  CHECK(table.nearest("symbols_test_sum").size() <= 3);
  CHECK(table.nearest("qqqqqqqqqqqqqqqqqqqqqqqq").empty());
  CHECK(table.nearest("q").empty());
  CHECK(table.nearest("").empty());
}

TEST_CASE("libc agrees with dlsym") {
  const Module libc = find_module("libc");
  const FunctionTable table = FunctionTable::load(libc);
  void* handle = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(handle != nullptr);
  // malloc is an ordinary function; memcpy, strlen and strchr are IFUNCs; memcpy has two versions, both asked
  // for.
  for (const char* name : {"malloc", "memcpy", "strlen", "strchr", "printf", "pthread_create"}) {
    CAPTURE(std::string(name));
    const std::uint64_t wanted = reinterpret_cast<std::uint64_t>(dlsym(handle, name)) - libc.bias;
    const std::vector<const Function*> found = table.match(name, false);
    CHECK(std::any_of(found.begin(), found.end(), [&](const Function* f) { return f->address == wanted; }));
    for (const Function* function : found) CHECK(function->name() == name);
  }
  dlclose(handle);
  CHECK(table.match("malloc", false).size() == 1);
  const std::vector<const Function*> all = table.match("*", false);
  CHECK(all.size() > 2000);
  CHECK(std::adjacent_find(all.begin(), all.end(),
                           [](const Function* a, const Function* b) { return a->address >= b->address; }) == all.end());
  for (const Function& function : table.functions()) REQUIRE(function.name().find('@') == std::string::npos);
  CHECK(table.other("environ") == FunctionTable::Other::kData);
}

TEST_CASE("the vDSO is read from memory") {
  if (getauxval(AT_SYSINFO_EHDR) == 0) return;
  const Module vdso = find_module("linux-vdso");
  CHECK(vdso.is_vdso);
  const FunctionTable table = FunctionTable::load(vdso);
  CHECK(table.sources().find("dynsym") != std::string::npos);
  CHECK(table.match("__vdso_clock_gettime", false).size() == 1);
}

TEST_CASE("every loaded module can be read, and no other is opened for it") {
  const std::uint64_t generation = modules_generation();
  for (const Module& module : loaded_modules()) CHECK(load_error(module) == "");
  CHECK(modules_generation() == generation);
}

TEST_CASE("errors are one line with path and reason") {
  Module module = this_program();
  module.path = "/nonexistent/app";
  CHECK(load_error(module) ==
        "cannot read the symbols of /nonexistent/app: the file was deleted after the process had "
        "loaded it");
  module.path = "/etc/passwd";
  CHECK(load_error(module) == "cannot read the symbols of /etc/passwd: not an ELF file");
  module.path = "/dev/null";
  CHECK(load_error(module) == "cannot read the symbols of /dev/null: not a regular file");
  module.path = find_module("libc").path;
  CHECK(load_error(module).ends_with("the file was replaced after the process had loaded it"));
}

TEST_CASE("build-id notes") {
  const std::vector<std::uint8_t> bytes = {4, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 'G', 'N', 'U', 0, 1,    2,    0,    0,
                                           4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0, 0xAB, 0x0C, 0xEF, 0};
  CHECK(build_id_in_notes(bytes.data(), bytes.size(), 4) == "ab0cef");
  for (std::size_t size = 0; size < 39; ++size) {
    const std::vector<std::uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(build_id_in_notes(cut.data(), cut.size(), 4).empty());
  }
  CHECK_FALSE(is_go_in_notes(bytes.data(), bytes.size(), 4));
  std::vector<std::uint8_t> go = bytes;
  go.insert(go.end(), {4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 'G', 'o', 0, 0, 'n', 'o', 'n', 'e'});
  CHECK(is_go_in_notes(go.data(), go.size(), 4));
  CHECK(build_id_in_notes(go.data(), go.size(), 4) == "ab0cef");
  std::vector<std::uint8_t> huge = bytes;
  std::fill(huge.begin(), huge.begin() + 8, std::uint8_t{0xFF});
  CHECK(build_id_in_notes(huge.data(), huge.size(), 8).empty());
}

TEST_CASE("static marks: whole notes only, whatever the bytes are") {
  std::vector<std::uint8_t> bytes;
  const auto add = [&](std::uint64_t number, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<std::uint8_t>(number >> (8 * i)));
  };
  const auto note = [&](const std::string& owner, std::uint32_t type, const std::string& texts) {
    add(owner.size() + 1, 4);
    add(24 + texts.size(), 4);
    add(type, 4);
    for (const char c : owner) add(static_cast<std::uint8_t>(c), 1);
    add(0, 1);
    while (bytes.size() % 4 != 0) add(0, 1);
    for (const std::uint64_t number : {0x1000, 0x2000, 0x3000}) add(number, 8);
    for (const char c : texts) add(static_cast<std::uint8_t>(c), 1);
    while (bytes.size() % 4 != 0) add(0, 1);
  };
  using namespace std::string_literals;
  note("stapsdt", 3, "app\0first\0-4@%edi 8@(%rax)\0"s);
  note("stapsdt", 4, "app\0other type\0\0"s);
  note("another", 3, "app\0other owner\0\0"s);
  note("stapsdt", 3, "app\0second\0\0"s);
  note("stapsdt", 3, "nameless"s);
  const auto marks = static_marks(bytes.data(), bytes.size());
  REQUIRE(marks.size() == 2);
  CHECK(marks[0].address == 0x1000);
  CHECK(marks[0].base == 0x2000);
  CHECK(marks[0].semaphore == 0x3000);
  CHECK(marks[0].provider == "app");
  CHECK(marks[0].name == "first");
  CHECK(marks[0].arguments == "-4@%edi 8@(%rax)");
  CHECK(marks[1].name == "second");
  CHECK(marks[1].arguments.empty());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::uint8_t> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(static_marks(cut.data(), cut.size()).size() <= 2);
  }
}

TEST_CASE("places of debug files") {
  CHECK(debug_file_candidates("/usr/lib/liba.so", "abcdef", "liba.debug") ==
        std::vector<std::string>{"/usr/lib/debug/.build-id/ab/cdef.debug", "/usr/lib/liba.debug",
                                 "/usr/lib/.debug/liba.debug", "/usr/lib/debug/usr/lib/liba.debug"});
  CHECK(debug_file_candidates("/usr/lib/liba.so", "", "").empty());
}

TEST_CASE("a separate debug file gives the static functions") {
  if (!Fixture::available()) return;
  for (const char* variant : {"1", "2"}) {  // with a build-id; without one, by checksum
    CAPTURE(std::string(variant));
    const Fixture fixture(variant);
    CHECK(fixture.module().build_id.empty() == (std::string_view(variant) == "2"));
    const FunctionTable table = fixture.load();
    CHECK(table.sources() == "dynsym+debug file+eh_frame");
    const Function* private_function = only(table.match("fixture_private", false));
    CHECK(only(table.match("fixture_public", false))->address + fixture.module().bias == fixture.public_address());
    CHECK(table.other("fixture_value") == FunctionTable::Other::kData);

    fs::create_directory(fixture.debug().parent_path() / ".debug");
    fs::rename(fixture.debug(), fixture.debug().parent_path() / ".debug" / fixture.debug().filename());
    CHECK(fixture.load().sources() == "dynsym+debug file+eh_frame");
    fs::remove_all(fixture.debug().parent_path() / ".debug");
    const FunctionTable stripped = fixture.load();
    CHECK(stripped.sources() == "dynsym+eh_frame");
    CHECK(stripped.match("fixture_private", false).empty());
    char name[32];
    std::snprintf(name, sizeof name, "sub_%lx", static_cast<unsigned long>(private_function->address));
    const Function* unnamed = only(stripped.match(name, false));
    CHECK(unnamed->address == private_function->address);
    CHECK(unnamed->size == private_function->size);
    CHECK(only(stripped.match("fixture_public", false))->address + fixture.module().bias == fixture.public_address());
  }
}

TEST_CASE("the debug file of another build is not used") {
  if (!Fixture::available()) return;
  const Fixture with_build_id("1");
  fs::copy_file(with_build_id.source() / "ubp_fixture2.debug", with_build_id.debug(),
                fs::copy_options::overwrite_existing);
  CHECK(with_build_id.load().sources() == "dynsym+eh_frame");
  const Fixture with_checksum("2");
  std::ofstream(with_checksum.debug(), std::ios::app) << "x";
  CHECK(with_checksum.load().sources() == "dynsym+eh_frame");
}

TEST_CASE("a replaced or deleted file is refused") {
  if (!Fixture::available()) return;
  for (const char* variant : {"1", "2"}) {
    const Fixture fixture(variant);
    fs::remove(fixture.library());
    CHECK(load_error(fixture.module()).ends_with("the file was deleted after the process had loaded it"));
    const char* other = *variant == '1' ? "ubp_fixture2.so" : "ubp_fixture1.so";
    fs::copy_file(fixture.source() / other, fixture.library());
    CHECK(load_error(fixture.module()).ends_with("the file was replaced after the process had loaded it"));
  }
}

namespace {

std::optional<MappedTables> mapped(const Module& module) { return mapped_tables(module, ElfFile::open(module.path)); }

// What a table says of a module, line by line.
std::vector<std::string> lines_of(const FunctionTable& table) {
  std::vector<std::string> lines = {table.sources()};
  for (const Function& function : table.functions()) {
    char line[128];
    const unsigned long address = function.address, size = function.size, end = function.end;
    std::snprintf(line, sizeof line, "%lx %lx %lx %d ", address, size, end, static_cast<int>(function.binding));
    lines.push_back(line + function.name());
  }
  return lines;
}

}  // namespace

TEST_CASE("a table read where it is mapped is the one in the file") {
  for (const char* library : {"libsqlite3.so.0", "libcrypto.so.3"}) {
    if (dlopen(library, RTLD_NOW | RTLD_LOCAL) == nullptr) MESSAGE(std::string(library) << " is not here");
  }
  char name[] = "/tmp/ubp_symbols_XXXXXX";
  const fs::path directory = mkdtemp(name);
  std::size_t count = 0;
  for (const Module& module : loaded_modules()) {
    CAPTURE(module.path);
    if (module.is_vdso || module.is_executable || !mapped(module)) continue;
    ++count;
    Module copy = module;  // under another name: not what the dynamic linker has loaded
    copy.path = directory / module.name;
    fs::copy_file(module.path, copy.path);
    REQUIRE_FALSE(mapped(copy));
    // As if both were just mapped: IFUNCs are asked of what is loaded only.
    Module unrelocated = module;
    unrelocated.is_relocated = copy.is_relocated = false;
    const FunctionTable here = FunctionTable::load(unrelocated), in_file = FunctionTable::load(copy);
    CHECK(lines_of(here) == lines_of(in_file));
    CHECK(here.functions().size() > 1);
    for (const char* other : {"malloc", "memcpy", "stderr", "environ", "no_such_name", "sqlite3_version"}) {
      CHECK(here.other(other) == in_file.other(other));
    }
  }
  fs::remove_all(directory);
  MESSAGE(count << " modules");
  CHECK(count > 0);
}

TEST_CASE("a module is read where it is mapped only while it is, and only when its file has no more") {
  if (!Fixture::available()) return;
  for (const char* variant : {"1", "2"}) {
    CAPTURE(std::string(variant));
    Fixture fixture(variant);
    CHECK_FALSE(mapped(fixture.module()));  // a debug file
    fs::remove(fixture.debug());
    CHECK(mapped(fixture.module()));
    const std::vector<std::string> lines = lines_of(fixture.load());
    CHECK(lines.front() == "dynsym+eh_frame");
    fixture.unload();
    CHECK_FALSE(mapped(fixture.module()));
    CHECK(lines_of(fixture.load()) == lines);
  }
  CHECK_FALSE(mapped(this_program()));  // a .symtab
}
