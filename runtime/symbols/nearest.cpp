// "did you mean": the functions whose names are a few typing errors away.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <tuple>

#include "runtime/base/edit_distance.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"

namespace ubp::symbols {
namespace {

constexpr std::size_t kSuggestions = 3;

struct Suggestion {
  std::size_t distance = 0;
  int form = 0;  // 0: the whole name; 1: the part before a compiler's suffix ("f.isra.0"); 2: the last name
                 // of A::B::f
  std::string_view name;

  bool operator<(const Suggestion& other) const {
    return std::tie(distance, form, name) < std::tie(other.distance, other.form, other.name);
  }
};

// "f" of "A::B::f"; the whole name when template arguments or parentheses make that ambiguous.
std::string_view last_name(std::string_view bare) {
  if (bare.find_first_of("<({") != std::string_view::npos) return bare;
  const std::size_t colons = bare.rfind("::");
  return colons == std::string_view::npos ? bare : bare.substr(colons + 2);
}

}  // namespace

std::vector<std::string> FunctionTable::nearest(std::string_view name) const {
  if (name.empty()) return {};
  // Changing every character is not a typing error.
  const std::size_t limit = std::min(std::max<std::size_t>(2, name.size() / 3), name.size() - 1);
  const bool is_address_name = name.starts_with(kAddressName);
  EditDistance distance(name, limit);
  std::vector<Suggestion> found;
  std::deque<std::string> made;  // names of functions without symbol
  const auto consider = [&](std::string_view text, int form, std::string_view suggestion) {
    const std::size_t edits = distance.to(text);
    if (edits <= limit) found.push_back({edits, form, suggestion});
  };
  for (std::size_t i = 0; i < functions_.size(); ++i) {
    const bool has_symbol = functions_[i].has_symbol();
    if (!has_symbol && !is_address_name) continue;
    const std::string_view raw = has_symbol ? functions_[i].symbol() : made.emplace_back(functions_[i].name());
    if (is_mangled(raw) && !is_mangled(name)) {
      const NameForms forms = forms_of(demangled(i));
      consider(forms.bare, 0, forms.bare);
      if (forms.call != forms.bare) consider(forms.call, 0, forms.call);
      const std::string_view last = last_name(forms.bare);
      if (last.size() != forms.bare.size()) consider(last, 2, forms.bare);
    } else {
      consider(raw, 0, raw);
      const std::string_view stem = raw.substr(0, raw.find('.', 1));
      if (stem.size() != raw.size()) consider(stem, 1, raw);
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  for (const Suggestion& suggestion : found) {
    if (names.size() == kSuggestions) break;
    if (std::find(names.begin(), names.end(), suggestion.name) == names.end()) names.emplace_back(suggestion.name);
  }
  return names;
}

std::vector<std::string> first_names(std::vector<std::pair<std::size_t, std::string>> found) {
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  for (auto& [edits, name] : found) {
    if (names.size() == kSuggestions) break;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

}  // namespace ubp::symbols
