// See environment.h.
#include "runtime/core/environment.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <new>
#include <string>
#include <vector>

#include "runtime/core/options.h"

extern "C" char** environ;

namespace ubp::core {
namespace {

// "NAME" of "NAME=value"
std::string_view name_of(std::string_view entry) { return entry.substr(0, entry.find('=')); }

// "libubp.so" of "/usr/lib/libubp.so.0"
std::string_view unversioned_name(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const std::size_t version = name.find(".so.");
  return version == name.npos ? name : name.substr(0, version + 3);
}

// What LD_PRELOAD names besides libubp.
std::string without_libubp(std::string_view preload) {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&hide_from_children), &self) == 0) return std::string(preload);
  const std::string_view own = self.dli_fname;
  std::string rest;
  while (!preload.empty()) {
    const std::size_t end = std::min(preload.find_first_of(": "), preload.size());
    const std::string_view entry = preload.substr(0, end);
    if (!entry.empty() && entry != own && unversioned_name(entry) != unversioned_name(own)) {
      rest += (rest.empty() ? "" : ":") + std::string(entry);
    }
    preload.remove_prefix(std::min(end + 1, preload.size()));
  }
  return rest;
}

// The words of the auxiliary vector behind the kernel's block, its end included.
std::vector<char*> auxiliary_vector(char** block) {
  while (*block != nullptr) ++block;
  const auto* entry = reinterpret_cast<const ElfW(auxv_t)*>(block + 1);
  while (entry->a_type != AT_NULL) ++entry;
  static_assert(sizeof *entry == 2 * sizeof *block);
  return {block + 1, reinterpret_cast<char**>(const_cast<ElfW(auxv_t)*>(entry + 1))};
}

}  // namespace

const char* find_variable(std::string_view name) {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.size() > name.size() && name_of(text) == name) return text.data() + name.size() + 1;
  }
  return nullptr;
}

void hide_from_children(char** block) try {
  if (environ == nullptr) return;
  const std::vector<std::string>& own = option_names();
  // Never destroyed: the program reads them to its end.
  auto& kept = *new std::vector<char*>;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry, name = name_of(text);
    if (name == text) {
      kept.push_back(*entry);  // it has no value
    } else if (name == "LD_PRELOAD") {
      const std::string rest = without_libubp(text.substr(name.size() + 1));
      if (!rest.empty()) kept.push_back((new std::string("LD_PRELOAD=" + rest))->data());
    } else if (std::find(own.begin(), own.end(), name) == own.end()) {
      kept.push_back(*entry);
    }
  }
  kept.push_back(nullptr);
  const std::vector<char*> auxiliary = auxiliary_vector(block);
  kept.insert(kept.end(), auxiliary.begin(), auxiliary.end());
  environ = kept.data();
} catch (const std::bad_alloc&) {
  // they find it as it is
}

}  // namespace ubp::core
