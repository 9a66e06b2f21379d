// See frame_source.h.
#include "runtime/command/frame_source.h"

#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "runtime/debuginfo/debug_file.h"

namespace ubp::command {

stack::SourceOf frame_source(std::vector<std::string> directories) {
  using Files = std::map<std::pair<std::string, std::string>, std::unique_ptr<debuginfo::DebugFile>>;
  return [directories = std::move(directories), files = std::make_shared<Files>()](const stack::ModuleRecord& module,
                                                                                   std::uint64_t address) {
    const auto [entry, is_new] = files->try_emplace({module.path, module.build_id});
    if (is_new) try {
        auto file = debuginfo::DebugFile::open(module.path, directories);
        // Else it is another one by now.
        if (file != nullptr && (module.build_id[0] == '\0' || file->build_id() == module.build_id))
          entry->second = std::move(file);
      } catch (const std::runtime_error&) {  // it is gone
      }
    return entry->second != nullptr ? entry->second->source_frames(address) : std::vector<stack::SourceFrame>{};
  };
}

}  // namespace ubp::command
