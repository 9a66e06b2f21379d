// Picking functions by name: raw names first, demangled ones only where the raw name did not decide.
#include <cxxabi.h>

#include <cstdlib>
#include <memory>

#include "runtime/spec/spec.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

std::string demangle(const std::string& name) {
  if (!is_mangled(name)) return name;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return status == 0 && text != nullptr ? std::string(text.get()) : name;
}

const std::string& FunctionTable::demangled(std::size_t index) const {
  const std::string& name = functions_[index].name;
  if (!is_mangled(name)) return name;
  if (demangled_.empty()) demangled_.resize(functions_.size());
  std::string& text = demangled_[index];
  if (text.empty()) text = demangle(name);
  return text;
}

std::vector<const Function*> FunctionTable::match(std::string_view pattern, bool quoted) const {
  std::vector<const Function*> matches;
  for (const Function& function : functions_) {
    if (function.name != pattern) continue;
    if (matches.empty() || matches.back()->address != function.address) matches.push_back(&function);
  }
  if (!matches.empty()) return matches;

  const auto add_all = [&](const auto& names) {
    for (std::size_t i = 0; i < functions_.size(); ++i) {
      const Function& function = functions_[i];
      if (!matches.empty() && matches.back()->address == function.address) continue;
      bool matched = names(function.name);
      if (!matched && is_mangled(function.name)) {
        const NameForms forms = forms_of(demangled(i));
        matched = names(forms.full) || names(forms.call) || names(forms.bare);
      }
      if (matched) matches.push_back(&function);
    }
  };
  if (quoted) add_all([&](std::string_view text) { return text == pattern; });
  if (matches.empty()) add_all([&](std::string_view text) { return spec::glob_match(pattern, text); });
  return matches;
}

}  // namespace ubp::symbols
