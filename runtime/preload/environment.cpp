// See environment.h.
#include "runtime/preload/environment.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <new>
#include <string>
#include <vector>

#include "runtime/preload/options.h"

extern "C" char** environ;

namespace ubp::runtime {
namespace {

// "NAME" of "NAME=value"
std::string_view name_of(std::string_view entry) { return entry.substr(0, entry.find('=')); }

// "libubp.so" of "/usr/lib/libubp.so.0"
std::string_view unversioned_name(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const std::size_t version = name.find(".so.");
  return version == name.npos ? name : name.substr(0, version + 3);
}

// libubp's file as the dynamic linker found it; empty: it is not known.
std::string_view own_file() {
  Dl_info self{};
  return dladdr(reinterpret_cast<void*>(&hide_from_children), &self) != 0 ? self.dli_fname : std::string_view();
}

// Empty: there is no such path that LD_PRELOAD could name.
std::string absolute(std::string_view file) {
  std::string path(file);
  if (!path.starts_with('/')) {
    char here[PATH_MAX];
    if (getcwd(here, sizeof here) == nullptr) return {};
    path = std::string(here) + '/' + path;
  }
  return path.find_first_of(": ") == std::string::npos ? path : std::string();
}

// LD_PRELOAD with libubp as `wanted` has it; empty: without.
std::string with_libubp(std::string_view preload, std::string_view wanted) {
  const std::string_view own = own_file();
  if (own.empty()) return std::string(preload);
  std::string rest;
  while (!preload.empty()) {
    const std::size_t end = std::min(preload.find_first_of(": "), preload.size());
    std::string_view entry = preload.substr(0, end);
    if (entry == own || unversioned_name(entry) == unversioned_name(own)) entry = wanted;
    if (!entry.empty()) rest += (rest.empty() ? "" : ":") + std::string(entry);
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

bool is_preloaded() {
  const char* const preload = find_variable("LD_PRELOAD");
  return preload != nullptr && with_libubp(preload, "") != with_libubp(preload, own_file());
}

namespace {

// What stands for an entry: itself, another, or an empty string where it goes. is_kept: of a variable's name. wanted:
// libubp in LD_PRELOAD.
template <typename IsKept>
char* replacement(char* entry, const IsKept& is_kept, std::string_view wanted) {
  const std::string_view text = entry, name = name_of(text);
  char* const nothing = entry + text.size();
  if (name == text) return entry;  // it has no value
  if (name != "LD_PRELOAD") return is_kept(name) ? entry : nothing;
  const std::string rest = with_libubp(text.substr(name.size() + 1), wanted);
  return rest.empty() ? nothing : (new std::string("LD_PRELOAD=" + rest))->data();
}

// more: another entry; null: none.
template <typename IsKept>
void replace_environment(char** block, const IsKept& is_kept, std::string_view wanted, char* more) {
  if (environ == nullptr) return;
  const std::vector<char*> auxiliary = auxiliary_vector(block);
  // Never destroyed: the program reads it to its end.
  auto& kept = *new std::vector<char*>;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    char* const stays = replacement(*entry, is_kept, wanted);
    if (stays == *entry || *stays != '\0') kept.push_back(stays);
  }
  if (more != nullptr) kept.push_back(more);
  kept.push_back(nullptr);
  kept.insert(kept.end(), auxiliary.begin(), auxiliary.end());
  for (char** entry = block; *entry != nullptr; ++entry) *entry = replacement(*entry, is_kept, wanted);
  environ = kept.data();
}

}  // namespace

void hide_from_children(char** block) try {
  const std::vector<std::string>& own = option_names();
  const auto is_kept = [&](std::string_view name) {
    return name != kFirstVariable && name != kSessionVariable && std::find(own.begin(), own.end(), name) == own.end();
  };
  replace_environment(block, is_kept, "", nullptr);
} catch (const std::bad_alloc&) {
  // they find it as it is
}

void announce_to_children(char** block, const std::string& first) {
  const std::string_view own = own_file();
  const std::string file = absolute(own);
  char* const more = (new std::string(std::string(kFirstVariable) + '=' + first))->data();
  replace_environment(
      block, [](std::string_view name) { return name != kFirstVariable; }, file.empty() ? own : std::string_view(file),
      more);
}

}  // namespace ubp::runtime
