// See files.h.
#include "runtime/command/files.h"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace ubp::command {
namespace {

bool is_file(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// Of ld.so.cache. Source: glibc, sysdeps/generic/dl-cache.h; offsets of texts count from the file's beginning.
struct CacheHeader {
  char magic[20];  // "glibc-ld.so.cache1.1"
  std::uint32_t entries, text_bytes;
  std::uint32_t others[5];
};
struct CacheEntry {
  std::int32_t flags;
  std::uint32_t name, path, system;
  std::uint64_t hardware;
};
constexpr std::int32_t kX86_64 = 0x0303;  // ELF for libc 6, 64 bits

std::string_view text_in(const std::string& file, std::uint32_t offset) {
  return offset < file.size() ? std::string_view(file.c_str() + offset) : std::string_view();
}

// "libc" is libc.so.6, "libz.so" libz.so.1.
bool is_library_name(std::string_view library, std::string_view name) {
  if (!library.starts_with(name)) return false;
  const std::string_view rest = library.substr(name.size());
  return rest.empty() || rest.starts_with(".so") || (name.ends_with(".so") && rest.starts_with('.'));
}

}  // namespace

std::string find_in_path(const std::string& command) {
  if (command.find('/') != std::string::npos) return command;
  const char* const variable = std::getenv("PATH");
  std::string_view path = variable != nullptr ? variable : "/bin:/usr/bin";
  std::string other;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find(':'), path.size());
    std::string file = fmt::format("{}/{}", end == 0 ? "." : path.substr(0, end), command);
    if (is_file(file)) {
      if (access(file.c_str(), X_OK) == 0) return file;
      if (other.empty()) other = file;
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return other;
}

std::string in_this_folder(const std::string& name) {
  return name.find('/') == std::string::npos && is_file(name) ? "./" + name : "";
}

std::string find_library(std::string_view name) {
  std::ifstream stream("/etc/ld.so.cache", std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  CacheHeader header;
  if (file.size() < sizeof header) return "";
  std::memcpy(&header, file.data(), sizeof header);
  if (std::memcmp(header.magic, "glibc-ld.so.cache1.1", sizeof header.magic) != 0) return "";
  const std::size_t entries = std::min<std::size_t>(header.entries, (file.size() - sizeof header) / sizeof(CacheEntry));
  for (std::size_t i = 0; i < entries; ++i) {
    CacheEntry entry;
    std::memcpy(&entry, file.data() + sizeof header + i * sizeof entry, sizeof entry);
    if (entry.flags != kX86_64 || entry.hardware != 0 || !is_library_name(text_in(file, entry.name), name)) continue;
    std::string path(text_in(file, entry.path));
    if (is_file(path)) return path;
  }
  return "";
}

std::vector<std::string> files_of(const std::string& target) {
  std::vector<std::string> files;
  if (target.find('*') != std::string::npos) {
    glob_t found{};
    if (glob(target.c_str(), 0, nullptr, &found) == 0) files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    globfree(&found);
    std::erase_if(files, [](const std::string& file) { return !is_file(file); });
    return files;
  }
  std::string file = target;
  if (target.find('/') == std::string::npos) file = target.starts_with("lib") ? find_library(target) : "";
  if (file.empty()) file = find_in_path(target);
  if (file.empty()) file = in_this_folder(target);
  if (!file.empty() && is_file(file)) files.push_back(file);
  return files;
}

}  // namespace ubp::command
