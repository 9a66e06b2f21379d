// The modules of this process, as the dynamic linker lists them, and what a user may call them.
//
// Context: load time. Reads the mapped images only; the files are elf_functions.cpp's business.
// (No file streams and no std::filesystem: with them libstdc++'s locales come into libubp.so, whose tables the dynamic
// linker would relocate in every process.)
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>

#include "runtime/base/executable.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/notes.h"
#include "runtime/symbols/readable.h"
#include "runtime/symbols/symbols.h"
#include "runtime/symbols/while_modules_stay.h"

namespace ubp::symbols {
namespace {

constexpr std::string_view kDeleted = " (deleted)";

std::string read_all(const char* path) {
  std::string text;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  char buffer[4096];
  ssize_t count = 0;
  while (fd >= 0 && (count = read(fd, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<std::size_t>(count));
  if (fd >= 0) ::close(fd);
  return text;
}

// The path that the kernel shows for the mapping at `address`; empty when it cannot be read.
std::string mapped_path(std::uint64_t address) {
  const std::string maps = read_all("/proc/self/maps");
  for (std::size_t begin = 0, end; (end = maps.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = maps.substr(begin, end - begin);
    unsigned long low = 0;
    unsigned long high = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &low, &high) != 2 || address < low || address >= high) continue;
    const std::size_t slash = line.find('/');
    return slash == std::string::npos ? std::string() : line.substr(slash);
  }
  return {};
}

std::string executable_path(const Module& executable) {
  std::string path;
  // Started as "ld.so program", /proc/self/exe is the dynamic linker, and the kernel knew of no other
  // (AT_BASE is 0).
  if (getauxval(AT_BASE) == 0) path = mapped_path(executable.low());
  if (path.empty()) path = runtime::executable_link();
  if (path.empty() && getauxval(AT_EXECFN) != 0) path = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  // The kernel's mark for a file that is gone; the name before it is still what the user called it.
  if (path.ends_with(kDeleted) && access(path.c_str(), F_OK) != 0) path.resize(path.size() - kDeleted.size());
  return path;
}

// The path from the working directory on, without "." and "..", as it is written: no link is followed.
std::string absolute(std::string_view relative) {
  char directory[PATH_MAX];
  std::string path = getcwd(directory, sizeof directory) != nullptr ? directory : "";
  if (path == "/") path.clear();
  while (!relative.empty()) {
    const std::string_view part = relative.substr(0, relative.find('/'));
    relative.remove_prefix(std::min(part.size() + 1, relative.size()));
    if (part == "..") {
      path.resize(std::min(path.rfind('/'), path.size()));
    } else if (!part.empty() && part != ".") {
      path.append("/").append(part);
    }
  }
  return path;
}

std::string_view basename_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

bool contains(const Module& module, std::uint64_t run_time_address) {
  return module.segment_at(run_time_address - module.bias) != nullptr;
}

// What the mapped notes say.
void read_notes(Module& module, const dl_phdr_info& info) {
  for (const ElfW(Phdr)* header = info.dlpi_phdr; header != info.dlpi_phdr + info.dlpi_phnum; ++header) {
    if (header->p_type != PT_NOTE) continue;
    const Segment* segment = module.segment_at(header->p_vaddr);
    if (segment == nullptr) continue;
    const std::uint64_t size = std::min(segment->address + segment->size - header->p_vaddr, header->p_memsz);
    const std::uint8_t* notes = module.bytes_at(header->p_vaddr, size);
    if (notes == nullptr) continue;
    if (module.build_id.empty()) module.build_id = build_id_in_notes(notes, size, header->p_align);
    module.has_go_note = module.has_go_note || is_go_in_notes(notes, size, header->p_align);
  }
}

// Source: the gABI's dynamic section.
bool has_text_relocations(const Module& module, const dl_phdr_info& info) {
  for (const ElfW(Phdr)* header = info.dlpi_phdr; header != info.dlpi_phdr + info.dlpi_phnum; ++header) {
    const std::uint8_t* const bytes =
        header->p_type == PT_DYNAMIC ? module.bytes_at(header->p_vaddr, header->p_memsz) : nullptr;
    if (bytes == nullptr) continue;
    const auto* const entries = reinterpret_cast<const ElfW(Dyn)*>(bytes);
    return std::any_of(entries, entries + header->p_memsz / sizeof *entries, [](const ElfW(Dyn) & entry) {
      return entry.d_tag == DT_TEXTREL || (entry.d_tag == DT_FLAGS && (entry.d_un.d_val & DF_TEXTREL) != 0);
    });
  }
  return false;
}

// What is known of all modules together: where the calling thread has its thread-local variables.
struct Listed {
  std::vector<Module> modules;
  std::uint64_t storage_bytes = 0;  // of the variables of all
};

// Variant II of thread-local storage: what is there at the start lies below the thread pointer, at one distance in
// every thread. What comes later is taken from the heap, unless there was room left. Source: psABI, ELF Handling For
// Thread-Local Storage, 3.4.6; glibc's csu/libc-tls.c and elf/dl-tls.c.
void keep_fixed_storage(Listed& listed) {
  constexpr std::uint64_t kSpare = 4096;  // that the dynamic linker leaves
  for (Module& module : listed.modules) {
    const bool is_fixed = module.thread_storage && *module.thread_storage < 0 &&
                          static_cast<std::uint64_t>(-*module.thread_storage) <= listed.storage_bytes + kSpare;
    if (!is_fixed) module.thread_storage.reset();
  }
}

int add_module(dl_phdr_info* info, std::size_t size, void* data) {
  auto& listed = *static_cast<Listed*>(data);
  std::vector<Module>& modules = listed.modules;
  if (!sys::is_readable(reinterpret_cast<std::uint64_t>(info->dlpi_phdr))) {  // the program has unmapped it
    if (!modules.empty()) return 0;
    info->dlpi_phnum = 0;  // the executable stays the first
  }
  Module module;
  module.bias = info->dlpi_addr;
  for (const ElfW(Phdr)* header = info->dlpi_phdr; header != info->dlpi_phdr + info->dlpi_phnum; ++header) {
    if (header->p_type == PT_GNU_EH_FRAME) module.unwind_index = header->p_vaddr;
    if (header->p_type == PT_DYNAMIC) {
      module.dynamic = header->p_vaddr;
      module.dynamic_bytes = header->p_memsz;
    }
    if (header->p_type == PT_TLS) {
      module.thread_storage_bytes = header->p_memsz;
      listed.storage_bytes += header->p_memsz + header->p_align;
    }
    if (header->p_type == PT_LOAD) module.segments.push_back(segment_of(*header));
  }
  read_notes(module, *info);
  module.has_text_relocations = has_text_relocations(module, *info);
  const bool has_storage = size >= offsetof(dl_phdr_info, dlpi_tls_data) + sizeof info->dlpi_tls_data;
  if (has_storage && info->dlpi_tls_data != nullptr)
    module.thread_storage = static_cast<std::int64_t>(reinterpret_cast<std::uint64_t>(info->dlpi_tls_data) -
                                                      reinterpret_cast<std::uint64_t>(__builtin_thread_pointer()));
  module.is_executable = modules.empty();
  // Linked into the executable, the runtime is a part of it: plan/modules.h knows which.
  module.is_runtime = !module.is_executable && contains(module, reinterpret_cast<std::uint64_t>(&loaded_modules));
  const std::uint64_t vdso = getauxval(AT_SYSINFO_EHDR);
  module.is_vdso = vdso != 0 && contains(module, vdso);
  if (module.is_executable) {
    module.path = executable_path(module);
  } else {
    module.path = module.is_vdso ? "linux-vdso.so.1" : info->dlpi_name;
  }
  module.name = basename_of(module.path);
  modules.push_back(std::move(module));
  return 0;
}

}  // namespace

std::uint64_t Module::low() const {
  std::uint64_t lowest = segments.empty() ? 0 : segments.front().address;
  for (const Segment& segment : segments) lowest = std::min(lowest, segment.address);
  return bias + lowest;
}

std::uint64_t Module::high() const {
  std::uint64_t highest = 0;
  for (const Segment& segment : segments) highest = std::max(highest, segment.address + segment.size);
  return bias + highest;
}

const Segment* Module::segment_at(std::uint64_t elf_address) const {
  for (const Segment& segment : segments) {
    if (elf_address >= segment.address && elf_address - segment.address < segment.size) return &segment;
  }
  return nullptr;
}

const std::uint8_t* Module::bytes_at(std::uint64_t elf_address, std::uint64_t size) const {
  Readable readable;
  return bytes_at(elf_address, size, readable);
}

const std::uint8_t* Module::bytes_at(std::uint64_t elf_address, std::uint64_t size, Readable& readable) const {
  const Segment* segment = segment_at(elf_address);
  if (segment == nullptr || !segment->readable || size > segment->size - (elf_address - segment->address))
    return nullptr;
  const std::uint64_t begin = bias + elf_address;
  return readable.end_of(begin, begin + size) == begin + size ? reinterpret_cast<const std::uint8_t*>(begin) : nullptr;
}

std::vector<Module> loaded_modules() {
  Listed listed;
  dl_iterate_phdr(add_module, &listed);
  keep_fixed_storage(listed);
  return std::move(listed.modules);
}

void while_modules_stay(const std::function<void()>& body) {
  struct Call {
    const std::function<void()>& body;
    std::exception_ptr thrown;
  } call{body, nullptr};
  const auto run = [](dl_phdr_info*, std::size_t, void* data) {
    auto& its = *static_cast<Call*>(data);
    try {
      its.body();
    } catch (...) {  // not through the dynamic linker
      its.thrown = std::current_exception();
    }
    return 1;
  };
  dl_iterate_phdr(run, &call);
  if (call.thrown) std::rethrow_exception(call.thrown);
}

std::uint64_t modules_generation() {
  std::uint64_t generation = 0;
  const auto read = [](dl_phdr_info* info, std::size_t, void* data) {
    *static_cast<std::uint64_t*>(data) = (std::uint64_t{info->dlpi_adds} << 32) + info->dlpi_subs;
    return 1;  // the first one knows
  };
  dl_iterate_phdr(read, &generation);
  return generation;
}

bool module_matches(const Module& module, std::string_view glob) {
  if (glob.find('/') != std::string_view::npos) {
    const std::string real = real_path(module.path);
    const auto is_path = [&](std::string_view wanted) {
      return language::glob_match(wanted, module.path) || language::glob_match(wanted, real);
    };
    if (is_path(glob)) return true;
    const std::string whole = glob.front() == '/' ? std::string(glob) : absolute(glob);
    if (is_path(whole)) return true;
    // The user's own spelling may lead through links: /bin/bash.
    if (!language::is_glob(whole)) return real_path(whole) == real;
    const std::size_t slash = whole.rfind('/');
    const std::string folder = whole.substr(0, slash);
    return !language::is_glob(folder) && language::glob_match(real_path(folder) + whole.substr(slash), real);
  }
  if (language::glob_match(glob, module.name)) return true;
  const std::string_view name = module.name;
  const std::size_t suffix = name.rfind(".so");
  if (suffix == std::string_view::npos || suffix == 0) return false;
  const std::size_t version = suffix + 3;
  if (version != name.size() && name[version] != '.') return false;
  return language::glob_match(glob, name.substr(0, version)) || language::glob_match(glob, name.substr(0, suffix));
}

}  // namespace ubp::symbols
