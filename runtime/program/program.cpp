// See program.h.
#include "runtime/program/program.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/helpers/call_event.h"
#include "runtime/helpers/helpers.h"
#include "runtime/output/reader.h"
#include "runtime/program/assembler.h"
#include "runtime/program/shortcut.h"
#include "runtime/stack/module_log.h"

namespace ubp::program {
namespace {

// Blocks run on a stack of UBP's own, of which a consumer has at least 32 KiB (ubp.h).
constexpr std::size_t kMostFrame = 24576;

}  // namespace

std::unique_ptr<Program> Program::compile(language::Program tree, std::vector<Diagnostic>& diagnostics,
                                          const Session* session, const Inputs& inputs) {
  Analysis analysis = analyse(tree, inputs);
  diagnostics = analysis.diagnostics;
  if (analysis.has_errors()) return nullptr;
  return compile(std::move(tree), std::move(analysis), diagnostics, session);
}

std::unique_ptr<Program> Program::compile(language::Program tree, Analysis analysis,
                                          std::vector<Diagnostic>& diagnostics, const Session* session) {
  std::unique_ptr<Program> program(new Program(std::move(tree), std::move(analysis)));
  for (const Event& event : program->analysis_.events) {
    if (event.kind != Event::Kind::kCommand || session != nullptr) continue;
    diagnostics = {{event.span, "system() needs somebody to run the command: only `ubp run --unsafe` does that"}};
    return nullptr;
  }
  if (session != nullptr && session->header().memory_bytes != Place::bytes(program->analysis_)) return nullptr;
  program->session_ = session;
  program->place_ = session == nullptr
                        ? std::make_unique<Place>(program->analysis_)
                        : std::make_unique<Place>(program->analysis_, &session->header().control, session->memory());
  if (!program->assemble(diagnostics)) return nullptr;
  return program;
}

Program::~Program() {
  if (code_ != nullptr) munmap(code_, code_bytes_);
}

bool Program::assemble(std::vector<Diagnostic>& diagnostics) {
  constexpr std::size_t kLeast = 16384, kMost = std::size_t{16} << 20, kAlignment = 16;
  std::vector<std::uint8_t> code;
  std::vector<std::size_t> offsets;
  const bool has_intervals = std::any_of(tree_.probes.begin(), tree_.probes.end(), [](const language::Probe& probe) {
    return probe.event == language::Probe::Event::kInterval;
  });
  const Placed placed{&place_->machine(), place_->maps().data(), &texts_, has_intervals && session_ == nullptr};
  for (const language::Probe& probe : tree_.probes) {
    shortcuts_.push_back(placed.has_intervals
                             ? std::nullopt
                             : shortcut_of(analysis_, probe, &place_->machine().control->gate, place_->maps()));
    std::vector<std::uint8_t> buffer(kLeast);
    for (;;) {
      try {
        Assembler assembler(analysis_, placed, buffer.data(), buffer.size());
        const std::size_t frame = assembler.assemble(probe, static_cast<std::uint32_t>(&probe - tree_.probes.data()));
        if (frame > kMostFrame) {
          diagnostics.insert(
              diagnostics.begin(),
              {probe.span, fmt::format("the block needs {} bytes of stack, and there are {}: shorter strings "
                                       "(str(p, 64)) take less",
                                       frame, kMostFrame)});
          return false;
        }
        buffer.resize(assembler.getSize());
        break;
      } catch (const Xbyak::Error& error) {
        if (static_cast<int>(error) != Xbyak::ERR_CODE_IS_TOO_BIG || buffer.size() >= kMost) throw;
      }
      buffer.resize(buffer.size() * 4);
    }
    code.resize((code.size() + kAlignment - 1) / kAlignment * kAlignment);
    offsets.push_back(code.size());
    code.insert(code.end(), buffer.begin(), buffer.end());
  }
  publish(code, offsets);
  for (std::size_t probe = 0; probe < tree_.probes.size(); ++probe) {
    const std::uint64_t period = tree_.probes[probe].period;
    if (period != 0) intervals_.push_back({period, clock_time(kMonotonic) + period, functions_[probe]});
  }
  if (session_ == nullptr) {
    place_->machine().intervals = intervals_.data();
    place_->machine().interval_count = intervals_.size();
  }
  return true;
}

std::optional<std::uint64_t> Program::run_intervals() {
  const ubp_context nowhere{nullptr, nullptr, nullptr, nullptr};
  std::optional<std::uint64_t> wait;
  for (Interval& interval : intervals_) {
    std::uint64_t now = clock_time(kMonotonic);
    if (now >= interval.next) {
      interval.next += ((now - interval.next) / interval.period + 1) * interval.period;
      interval.block(&nowhere, nullptr);
      now = clock_time(kMonotonic);
    }
    const std::uint64_t left = interval.next > now ? interval.next - now : 0;
    wait = std::min(wait.value_or(left), left);
  }
  return wait;
}

// Into memory that is executable from then on, and not writable.
void Program::publish(const std::vector<std::uint8_t>& code, const std::vector<std::size_t>& offsets) {
  if (code.empty()) return;
  void* const memory = mmap(nullptr, code.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  code_ = memory;
  code_bytes_ = code.size();
  std::memcpy(code_, code.data(), code.size());
  if (mprotect(code_, code_bytes_, PROT_READ | PROT_EXEC) != 0)
    throw std::system_error(errno, std::generic_category(), "the program's code cannot be made executable");
  for (const std::size_t offset : offsets)
    functions_.push_back(reinterpret_cast<ubp_consumer>(static_cast<std::uint8_t*>(code_) + offset));
}

ubp_consumer Program::entered(std::size_t probe) const { return analysis_.is_tree[probe] ? &tree_entered : nullptr; }

void Program::run(language::Probe::Event event) {
  const ubp_context nowhere{nullptr, nullptr, nullptr, nullptr};
  if (event == language::Probe::Event::kEnd) {
    if (std::exchange(has_ended_, true) || (session_ != nullptr && !session_->claim_end())) return;
  }
  const bool was_closed = is_closed();
  for (std::size_t probe = 0; probe < tree_.probes.size(); ++probe) {
    if (tree_.probes[probe].event != event) continue;
    functions_[probe](&nowhere, nullptr);
    if (is_closed() && !was_closed) return;  // exit()
  }
}

bool Program::is_closed() const {
  return __atomic_load_n(&place_->machine().control->gate, __ATOMIC_ACQUIRE) != Control::kOpen;
}
void Program::close() {
  std::uint32_t gate = Control::kOpen;
  __atomic_compare_exchange_n(&place_->machine().control->gate, &gate, Control::kOver, false, __ATOMIC_ACQ_REL,
                              __ATOMIC_RELAXED);
}

void Program::add_names(std::vector<NewName> added) {
  std::vector<PointName> names;
  for (NewName& name : added) {
    names.push_back(name.name);
    if (name.arguments.empty()) continue;
    const std::vector<symbols::ValuePlace>& arguments = arguments_.emplace_back(std::move(name.arguments));
    names.back().arguments = arguments.data();
    names.back().argument_count = name.count;
    if (!name.steps.empty()) names.back().steps = steps_.emplace_back(std::move(name.steps)).data();
  }
  if (!names_.empty()) names.insert(names.end(), names_.back().names.begin(), names_.back().names.end());
  std::stable_sort(names.begin(), names.end(), [](const PointName& a, const PointName& b) {
    return std::pair(a.point, a.action) < std::pair(b.point, b.action);
  });
  Names& last = names_.emplace_back();
  last.names = std::move(names);
  last.published = {last.names.size(), last.names.data()};
  __atomic_store_n(&place_->machine().names, &last.published, __ATOMIC_RELEASE);  // pairs with name_of()
}

void Program::set_modules(const stack::FrameTables* tables, const std::vector<const symbols::Module*>& modules) {
  Machine& machine = place_->machine();
  if (!std::exchange(has_image_, true)) machine.image = stack::take_image(*machine.modules);
  stack::note_modules(*machine.modules, machine.image, modules);
  __atomic_store_n(&machine.frame_tables, tables, __ATOMIC_RELEASE);  // pairs with take_stack()
}

std::string Program::printed() const {
  ReaderOptions options;
  options.sources = Sources("UBP_PROBES", "");
  options.most_file_bytes = analysis_.config.max_cat_bytes;
  Reader reader(analysis_, place_->maps(), place_->machine(), std::move(options));
  std::string text = reader.events();
  return text + reader.open_calls();
}
std::string Program::maps() const {
  if (!analysis_.config.print_maps_on_exit) return "";
  return Reader(analysis_, place_->maps(), place_->machine(), {}).all_maps();
}

}  // namespace ubp::program
