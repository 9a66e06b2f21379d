// The separate debug file of a stripped module: by build-id, then by .gnu_debuglink, as gdb searches.
//
// A file of the right name is not enough: symbols of another build would put probes inside instructions.
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "runtime/symbols/elf_file.h"

namespace ubp::symbols {
namespace {

constexpr const char* kDebugRoot = "/usr/lib/debug";

constexpr std::array<std::uint32_t, 256> kCrcTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xEDB88320u : 0);
    table[i] = value;
  }
  return table;
}();

// CRC-32 of a file's content, as .gnu_debuglink records it; std::nullopt when it cannot be read.
std::optional<std::uint32_t> file_crc(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::vector<unsigned char> buffer(1 << 16);
  std::uint32_t crc = 0xFFFFFFFFu;
  ssize_t count = 0;
  while ((count = read(fd, buffer.data(), buffer.size())) > 0) {
    for (ssize_t i = 0; i < count; ++i) crc = (crc >> 8) ^ kCrcTable[(crc ^ buffer[static_cast<std::size_t>(i)]) & 255];
  }
  ::close(fd);
  if (count < 0) return std::nullopt;
  return ~crc;
}

}  // namespace

std::string real_path(const std::string& path) {
  char real[PATH_MAX];
  return realpath(path.c_str(), real) != nullptr ? real : path;
}

std::string build_id_file(std::string_view build_id) {
  if (build_id.size() <= 2) return "";
  return ".build-id/" + std::string(build_id.substr(0, 2)) + "/" + std::string(build_id.substr(2)) + ".debug";
}

std::string system_build_id_file(std::string_view build_id) {
  const std::string file = build_id_file(build_id);
  return file.empty() ? "" : std::string(kDebugRoot) + "/" + file;
}

std::vector<std::string> debug_file_candidates(const std::string& path, std::string_view build_id,
                                               std::string_view link_name) {
  std::vector<std::string> candidates;
  if (std::string file = system_build_id_file(build_id); !file.empty()) candidates.push_back(std::move(file));
  if (!link_name.empty()) {
    const std::string name(link_name);
    const std::string directory = path.substr(0, path.rfind('/') + 1);  // with its final slash, or empty
    candidates.push_back(directory + name);
    candidates.push_back(directory + ".debug/" + name);
    if (directory.starts_with('/')) candidates.push_back(kDebugRoot + directory + name);
  }
  return candidates;
}

std::optional<ElfFile> find_debug_file(const std::string& path, const ElfFile& file) {
  const std::string build_id = file.build_id();
  const DebugLink link = file.debug_link().value_or(DebugLink{});
  for (const std::string& candidate : debug_file_candidates(real_path(path), build_id, link.name)) {
    if (access(candidate.c_str(), R_OK) != 0) continue;
    try {
      ElfFile debug = ElfFile::open(candidate);
      const bool same = build_id.empty() ? file_crc(candidate) == link.crc : debug.build_id() == build_id;
      if (same && debug.symbols(SHT_SYMTAB)) return debug;
    } catch (const std::runtime_error&) {
      continue;  // a damaged debug file is like none: the module itself is still good
    }
  }
  return std::nullopt;
}

}  // namespace ubp::symbols
