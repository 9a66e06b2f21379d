// The forms in which a C++ function may be named. Pure text.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ubp::symbols {

inline bool is_mangled(std::string_view name) { return name.starts_with("_Z"); }

// What the name of a function without symbol begins with; its ELF address in hexadecimal follows.
inline constexpr std::string_view kAddressName = "sub_";

class AddressName {
 public:
  explicit AddressName(std::uint64_t address) {
    kAddressName.copy(text_, kAddressName.size());
    size_ =
        static_cast<std::size_t>(std::to_chars(text_ + kAddressName.size(), std::end(text_), address, 16).ptr - text_);
  }
  std::string_view text() const { return {text_, size_}; }

 private:
  char text_[kAddressName.size() + 16];
  std::size_t size_;
};

// Views into a demangled name; for "int ns::max<int>(int, int)":
struct NameForms {
  std::string_view full;  // "int ns::max<int>(int, int)"
  std::string_view call;  // "ns::max<int>(int, int)": without the return type, which only templates show
  std::string_view bare;  // "ns::max<int>": without the parameters either
};

// bare keeps nothing of " const", "&" and "&&"; the name of a clone ("f(int) [clone .cold]") is its own bare
// form, since somebody who asks for f does not mean a part of it.
NameForms forms_of(std::string_view demangled);

// Whether a function is meant: a quoted pattern is its name, another a glob over it; raw, or demangled in one of the
// forms above.
bool name_fits(std::string_view pattern, bool is_quoted, std::string_view raw);

// A name as people write it: "std::string" for std::__cxx11::basic_string<char, ...>, ">>" for "> >". Empty: it is as
// it is.
std::string simplified(std::string_view name);

// The few best of names by their distance, each once.
std::vector<std::string> first_names(std::vector<std::pair<std::size_t, std::string>> found);

}  // namespace ubp::symbols
