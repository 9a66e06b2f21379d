// Types, as casts, declarations and C definitions write them, into one form of name: "uint64", "struct foo*",
// "int8[4][2]*"; "int8[]" takes its size from what is cast.
//
// Pure text, load time.
#pragma once

#include <string>
#include <string_view>

#include "runtime/language/lexer.h"
#include "runtime/language/tree.h"

namespace ubp::language {

// Whether a type begins with a token.
bool begins_type(const Token& token, const Definitions& definitions);

// Reads a type's beginning: what stands before '*' and '['. token: the current one, moved behind it. Empty: there is
// none. "struct" and the like keep their word.
std::string parse_type_base(Lexer& lexer, Token& token, const Definitions& definitions);

// Reads the '*' and '[N]' behind it, in the order of the text. False: a '[' that is none.
bool parse_type_suffixes(Lexer& lexer, Token& token, const Definitions& definitions, std::string& type);

}  // namespace ubp::language
