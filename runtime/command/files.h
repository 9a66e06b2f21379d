// The files that words of the command line and of programs stand for.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ubp::command {

// As execvp(3): a name with a slash is a path, others are looked for in PATH. A file that cannot be executed where
// there is no other; empty: there is none.
std::string find_in_path(const std::string& command);

// Where the dynamic linker would find libNAME or libNAME.so.N, from its cache; empty: nowhere.
std::string find_library(std::string_view name);

// "./NAME"; empty: it has a slash, or there is no such file here.
std::string in_this_folder(const std::string& name);

// What the path of an attach point means: a path or what its '*'s match, a library or a command by its name, or else a
// file of that name in this folder. Regular files only, sorted, spelt as the path is.
std::vector<std::string> files_of(const std::string& target);

}  // namespace ubp::command
