// The modules of the process and what is known of each: functions, code as it was before any int3, restartable
// sequences. One for the process, shared by all plans. A module keeps its number for ever; one that is gone may come
// back.
//
// Context: normal, under the registry's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/plan/rseq.h"
#include "runtime/symbols/marks.h"
#include "runtime/symbols/readable.h"
#include "runtime/symbols/symbols.h"
#include "runtime/table/detour_view.h"
#include "runtime/table/table_view.h"

namespace ubp::plan {

inline constexpr std::size_t kMaxModules = std::size_t{1} << 14;

// Some of a module's code, as it was before any int3. Refers to the text itself where nothing is armed.
class Code : public std::span<const std::uint8_t> {
 public:
  explicit Code(std::span<const std::uint8_t> text) : span(text) {}
  explicit Code(std::vector<std::uint8_t> copy) : span(copy), copy_(std::move(copy)) { rebind(); }
  Code(Code&& other) noexcept : span(other), copy_(std::move(other.copy_)) { rebind(); }
  Code& operator=(Code&&) = delete;

 private:
  void rebind() {
    if (!copy_.empty()) static_cast<std::span<const std::uint8_t>&>(*this) = copy_;
  }
  std::vector<std::uint8_t> copy_;
};

// The text as it is mapped, int3s included, from an ELF address to `end`, or to what the program has unmapped or may
// not read; empty: none is mapped, readable and executable. readable: made for the work of which this is a part.
std::span<const std::uint8_t> text_from(const symbols::Module& module, std::uint64_t address, std::uint64_t end,
                                        symbols::Readable& readable);
using Text = std::span<const std::uint8_t>;

// Calls visit(ELF address, text) for all of a module's text that can be read, run by run.
template <typename Visit>
void for_each_text(const symbols::Module& module, symbols::Readable& readable, const Visit& visit) {
  for (const symbols::Segment& segment : module.segments) {
    const std::uint64_t end = segment.address + segment.size;
    for (std::uint64_t at = segment.address; segment.executable && at < end; at = (at | (sys::kPageBytes - 1)) + 1) {
      const Text text = text_from(module, at, end, readable);
      if (text.empty()) continue;
      visit(at, text);
      at += text.size() - 1;
    }
  }
}

class Modules {
 public:
  Modules();  // the modules that are loaded now

  const std::vector<symbols::Module>& all() const { return modules_; }
  bool is_present(std::uint32_t module) const { return present_[module]; }
  std::size_t left_out() const { return left_out_; }  // beyond kMaxModules

  struct Change {
    std::vector<std::uint32_t> come;  // new modules
    std::vector<std::uint32_t> back;  // ones that were here before, at the same place
    std::vector<std::uint32_t> gone;
    std::size_t left_out = 0;  // of new ones, beyond kMaxModules
  };
  // Asks the dynamic linker what is loaded now. just_mapped: what is new has not been relocated yet.
  Change refresh(bool just_mapped);

  // Reads the module's symbol tables when first asked. Throws as symbols::FunctionTable::load does.
  const symbols::FunctionTable& table_of(std::uint32_t module) const;
  // The same, but null where nobody has asked.
  const symbols::FunctionTable* known_table_of(std::uint32_t module) const;
  // Its static marks, likewise. Throws as symbols::marks_of does.
  const std::vector<symbols::Mark>& marks_of(std::uint32_t module) const;
  // Whether it was made by Go's compiler; and if it is the executable, where that one's runtime has the running
  // goroutine (symbols/goroutines.h).
  bool has_go_code(std::uint32_t module) const;
  std::optional<std::int64_t> goroutine_word() const;
  bool is_in_rseq(std::uint32_t module, std::uint64_t address) const;
  // Where the first restartable sequence in [begin, end) begins; `end`: there is none.
  std::uint64_t next_rseq(std::uint32_t module, std::uint64_t begin, std::uint64_t end) const;
  // The same as text_from, as it was before any int3.
  Code code_from(std::uint32_t module, std::uint64_t address, std::uint64_t end, symbols::Readable& readable) const;
  // The module that holds a run-time address; probepoints always lie in one.
  std::optional<std::uint32_t> module_at(std::uint64_t address) const;

  // The runtime's own code, where it is linked into the executable: what lies in these ranges is not probed.
  void add_own_text(CodeRange range) { own_text_.push_back(range); }
  bool is_own_text(std::uint64_t address) const;

  // From now on the text may hold the int3s of this table, and jumps to these detours.
  void set_armed(const runtime::TableView& table, const runtime::DetourView& detours) {
    armed_ = table;
    detours_ = &detours;
  }

 private:
  std::vector<symbols::Module> modules_;
  std::vector<bool> present_;
  std::uint64_t generation_;
  std::size_t left_out_ = 0;
  mutable std::map<std::uint32_t, symbols::FunctionTable> tables_;
  mutable std::map<std::uint32_t, std::vector<symbols::Mark>> marks_;
  const std::vector<CodeRange>& rseq_of(std::uint32_t module) const;
  mutable std::map<std::uint32_t, std::vector<CodeRange>> rseq_;
  mutable std::map<std::uint32_t, bool> go_code_;
  mutable std::optional<std::optional<std::int64_t>> goroutine_word_;
  std::vector<CodeRange> own_text_;
  runtime::TableView armed_;
  const runtime::DetourView* detours_ = nullptr;
};

}  // namespace ubp::plan
