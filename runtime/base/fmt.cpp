// fmt's own code, compiled once for all that formats: its headers alone take the compiler five times as long as what
// includes them, and leave a copy in each object.
//
// Inside UBP, hidden, and not Debian's libfmt.so: preloading UBP adds no library to the application, and a program with
// an fmt of its own, of any version, calls its own.
#include <fmt/format-inl.h>

// The templates that fmt's headers only declare to those who include them, as a build of fmt as a library defines them:
// fmt/format.h lists them as `extern template`, or declares them with FMT_API.
FMT_BEGIN_NAMESPACE
namespace detail {
template FMT_API auto dragonbox::to_decimal(float) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API void buffer<char>::append(const char*, const char*);
#if FMT_VERSION < 110000
template FMT_API void vformat_to(buffer<char>&, string_view, format_args, locale_ref);
#endif
}  // namespace detail
FMT_END_NAMESPACE
