// Picking functions by name: raw names first, demangled ones only where the raw name did not decide.
#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "runtime/language/spec.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

std::string Function::name() const {
  return has_symbol() ? std::string(symbol()) : std::string(AddressName(address).text());
}

std::string demangle(std::string name) {
  if (!is_mangled(name)) return name;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status),
                                                         &std::free);
  if (status == 0 && text != nullptr) name = text.get();
  return name;
}

std::string_view FunctionTable::demangled(std::size_t index) const {
  const std::string_view name = functions_[index].symbol();
  if (!is_mangled(name)) return name;
  if (demangled_.empty()) demangled_.resize(functions_.size());
  std::string& text = demangled_[index];
  if (text.empty()) text = demangle(std::string(name));
  return text;
}

VersionedName::VersionedName(std::string_view text) : name(text.substr(0, text.find('@', 1))) {
  if (name.size() == text.size()) return;
  version = text.substr(name.size() + 1);
  is_default = version.starts_with('@');
  if (is_default) version.remove_prefix(1);
}

std::string FunctionTable::version_of(const Function& function) const {
  if (function.version == 0) return {};
  return ((function.version & kNotDefault) != 0 ? "@" : "@@") + versions_[function.version & ~kNotDefault];
}

bool FunctionTable::has_version(const Function& function, const VersionedName& wanted) const {
  if (wanted.version.empty()) return true;
  const bool is_default = (function.version & kNotDefault) == 0;
  return function.version != 0 && versions_[function.version & ~kNotDefault] == wanted.version &&
         (is_default || !wanted.is_default);
}

bool FunctionTable::needs_version(const Function& function) const {
  if (function.version == 0) return false;
  if (!ambiguous_) {
    std::vector<const Function*> versioned;
    for (const Function& other : functions_) {
      if (other.version != 0) versioned.push_back(&other);
    }
    std::stable_sort(versioned.begin(), versioned.end(),
                     [](const Function* a, const Function* b) { return a->symbol() < b->symbol(); });
    ambiguous_.emplace();
    for (std::size_t i = 1; i < versioned.size(); ++i) {
      const Function &a = *versioned[i - 1], &b = *versioned[i];
      if (a.symbol() == b.symbol() && a.address != b.address) ambiguous_->push_back(a.symbol());
    }
  }
  return std::binary_search(ambiguous_->begin(), ambiguous_->end(), function.symbol());
}

namespace {

// Whether names(...) says so of a demangled name in one of its forms.
template <typename Fits>
bool fits_demangled(std::string_view name, const Fits& names) {
  const auto fits = [&](std::string_view text) {
    const NameForms forms = forms_of(text);
    return names(forms.full) || names(forms.call) || names(forms.bare);
  };
  if (fits(name)) return true;
  const std::string simple = simplified(name);
  return !simple.empty() && fits(simple);
}

// A pattern, and the same of one that was copied from a demangler.
struct NamePattern {
  explicit NamePattern(std::string_view pattern) : text(pattern), simple(simplified(pattern)) {}
  bool equals(std::string_view name) const { return name == text || (!simple.empty() && name == simple); }
  bool globs(std::string_view name) const {
    return language::glob_match(text, name) || (!simple.empty() && language::glob_match(simple, name));
  }

  std::string_view text;
  std::string simple;
};

}  // namespace

bool name_fits(std::string_view pattern, bool is_quoted, std::string_view raw) {
  const NamePattern wanted(pattern);
  const auto names = [&](std::string_view text) { return is_quoted ? wanted.equals(text) : wanted.globs(text); };
  return names(raw) || (is_mangled(raw) && fits_demangled(demangle(std::string(raw)), names));
}

std::vector<const Function*> FunctionTable::match(std::string_view versioned, bool quoted) const {
  const VersionedName wanted(versioned);
  const std::string_view pattern = wanted.name;
  std::vector<const Function*> matches;
  const auto add = [&](const Function& function) {
    if (matches.empty() || matches.back()->address != function.address) matches.push_back(&function);
  };
  const bool may_be_address = pattern.starts_with(kAddressName);
  for (const Function& function : functions_) {
    const bool is_it = function.has_symbol() ? function.symbol() == pattern
                                             : may_be_address && AddressName(function.address).text() == pattern;
    if (is_it && has_version(function, wanted)) add(function);
  }
  if (!matches.empty()) return matches;

  const auto add_all = [&](const auto& names) {
    for (std::size_t i = 0; i < functions_.size(); ++i) {
      const Function& function = functions_[i];
      if (!matches.empty() && matches.back()->address == function.address) continue;
      if (!has_version(function, wanted)) continue;
      bool matched = function.has_symbol() ? names(function.symbol()) : names(AddressName(function.address).text());
      if (!matched && is_mangled(function.symbol())) matched = fits_demangled(demangled(i), names);
      if (matched) matches.push_back(&function);
    }
  };
  const NamePattern named(pattern);
  if (quoted) add_all([&](std::string_view text) { return named.equals(text); });
  if (matches.empty()) add_all([&](std::string_view text) { return named.globs(text); });
  return matches;
}

}  // namespace ubp::symbols
