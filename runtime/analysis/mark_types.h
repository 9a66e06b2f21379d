// The types of static marks' arguments, which a program's text is given as a struct for each probe that has marks: so
// that whoever reads the text knows them, also where nobody knows the marks.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/language/spec.h"
#include "runtime/symbols/marks.h"

namespace ubp::program {

// The struct of the arguments of a probe's marks, by the probe's number in the text; a member is called "arg0".
std::string arguments_name(std::uint32_t probe);
// The struct of what a probe asks for by name of a function's parameters and variables. They are numbered before what
// the other struct has.
std::string variables_name(std::uint32_t probe);

// The places of marks that an attach point means, as far as they can be known now.
using MarksOf = std::function<std::vector<symbols::Mark>(const language::Item& item)>;

// The text with those structs before it. name: the text's own, in messages. As it is where there are no marks, or
// where it has mistakes. An argument that differs among a probe's marks is of a type that holds all of them.
std::string with_mark_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                            const MarksOf& marks_of);

}  // namespace ubp::program
