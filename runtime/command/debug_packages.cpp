// See debug_packages.h.
#include "runtime/command/debug_packages.h"

#include <dirent.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <string_view>

#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/symbols.h"

namespace ubp::command {
namespace {

// Debian's package that has installed a file: dpkg has a list of files for each. Empty: none has.
std::string package_of(const std::string& path) {
  constexpr const char* kLists = "/var/lib/dpkg/info";
  constexpr std::string_view kEnding = ".list";
  constexpr std::string_view kMerged = "/usr";  // /lib is /usr/lib, and packages name it either way
  const std::string other = path.starts_with("/usr/") ? path.substr(kMerged.size()) : std::string(kMerged) + path;
  DIR* const directory = opendir(kLists);
  std::string package;
  while (directory != nullptr && package.empty()) {
    const dirent* const entry = readdir(directory);
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (!name.ends_with(kEnding)) continue;
    std::ifstream list(fmt::format("{}/{}", kLists, name));
    const std::size_t end = std::min(name.find(':'), name.size() - kEnding.size());
    for (std::string line; package.empty() && std::getline(list, line);) {
      if (line == path || line == other) package = name.substr(0, end);
    }
  }
  if (directory != nullptr) closedir(directory);
  return package;
}

}  // namespace

std::string where_to_get_it(const std::string& path) {
  const std::string real = symbols::real_path(path), package = package_of(real);
  std::string build_id;
  try {
    build_id = symbols::ElfFile::open(real).build_id();
  } catch (const std::runtime_error&) {  // who opens it says so
  }
  const std::string file = symbols::system_build_id_file(build_id);
  if (package.empty())
    return fmt::format("compile it with -g{}", file.empty() ? "" : fmt::format(", or put its debug file at {}", file));
  // Debian's C library has had its own for longer than there are others.
  const std::string symbols = package == "libc6" ? "libc6-dbg" : package + "-dbgsym";
  return fmt::format("it is of the package {}: install {}{}", package, symbols,
                     file.empty() ? "" : fmt::format(", which has {}", file));
}

}  // namespace ubp::command
