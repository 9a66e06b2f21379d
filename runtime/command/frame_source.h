// The source of stacks' frames, for a reader: from the debug information of the modules' files, which are opened when
// a stack is printed that has them.
#pragma once

#include <string>
#include <vector>

#include "runtime/output/text.h"

namespace ubp::command {

// directories: where debug files are looked for first.
stack::SourceOf frame_source(std::vector<std::string> directories);

}  // namespace ubp::command
