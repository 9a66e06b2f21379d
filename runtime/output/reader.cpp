// See reader.h.
#include "runtime/output/reader.h"

#include <algorithm>
#include <memory>
#include <tuple>

#include "runtime/analysis/stack_text.h"
#include "runtime/helpers/stack_helpers.h"
#include "runtime/stack/symbolizer.h"

namespace ubp::program {
namespace {

TreeOptions tree_options(const ReaderOptions& options) {
  TreeOptions tree = options.tree;
  tree.is_json = options.format == Format::kJson;
  return tree;
}

const std::uint64_t* words_of(const EventHeader* event) { return reinterpret_cast<const std::uint64_t*>(event + 1); }

}  // namespace

Reader::Reader(const Analysis& analysis, const std::vector<MapView>& maps, const Machine& machine,
               ReaderOptions options)
    : analysis_(analysis),
      maps_(maps),
      machine_(machine),
      options_(std::move(options)),
      read_(machine.chunk_count),
      tree_(tree_options(options_)) {
  if (analysis.stack_text == nullptr || analysis.stack_text->text) return;
  const auto symbolizer =
      std::make_shared<stack::Symbolizer>(*machine.modules, analysis.config.cpp_demangle,
                                          analysis.config.show_debug_info ? options_.source : stack::SourceOf{});
  analysis.stack_text->text = [symbolizer, stacks = machine.stacks](const Type& type, std::uint64_t value) {
    if (type.is(TypeKind::kStack))
      return symbolizer->stack_text(stack::stack_of(stacks, value), *stack::mode_named(type.name));
    const SymbolValue symbol = parts_of_symbol(value);
    return symbolizer->name_text(symbol.image, symbol.address);
  };
}

std::uint64_t Reader::chunks() const {
  return std::min(__atomic_load_n(machine_.next_chunk, __ATOMIC_ACQUIRE), machine_.chunk_count);
}

std::vector<Reader::Found> Reader::collect(std::uint64_t until) {
  std::vector<Found> found;
  for (std::uint64_t index = 0; index < chunks(); ++index) {
    Chunk& its = chunk(index);
    if (__atomic_load_n(&its.state, __ATOMIC_ACQUIRE) == Chunk::kFree) continue;  // nothing is in it
    const std::uint64_t used = __atomic_load_n(&its.used, __ATOMIC_ACQUIRE);      // pairs with end_event()
    while (read_[index] < used) {
      const auto* const header = reinterpret_cast<const EventHeader*>(its.data() + read_[index]);
      if (header->time > until) break;
      found.push_back({header, its.process});
      read_[index] += header->bytes;
    }
  }
  const auto part = [](const EventHeader* event) {
    return event->part == kMapKey ? 1 : event->part == kMapEnd ? 2 : 0;
  };
  std::stable_sort(found.begin(), found.end(), [&](const Found& a, const Found& b) {
    return std::tuple(a.header->time, a.process, a.header->task, part(a.header)) <
           std::tuple(b.header->time, b.process, b.header->task, part(b.header));
  });
  return found;
}

void Reader::recycle() {
  for (std::uint64_t index = 0; index < chunks(); ++index) {
    Chunk& its = chunk(index);
    if (__atomic_load_n(&its.state, __ATOMIC_ACQUIRE) != Chunk::kFull || read_[index] < its.used) continue;
    read_[index] = 0;
    its.used = 0;
    __atomic_store_n(&its.state, Chunk::kFree, __ATOMIC_RELEASE);  // pairs with take_chunk()
  }
}

std::string Reader::text(const Found& found) {
  const EventHeader* const header = found.header;
  const Event& event = analysis_.events[header->event];
  const std::uint64_t* const words = words_of(header);
  if (event.kind == Event::Kind::kCall)
    return tree_.add(found.process, *reinterpret_cast<const CallEvent*>(words),
                     reinterpret_cast<const char*>(words + kCallEventWords));
  if (header->part == kWhole) return event_text(event, words, options_);
  const std::pair task{found.process, header->task};
  if (header->part == kMapBegin) {
    printed_[task] = {header->time, words[0], words[1], {}};
    return "";
  }
  const auto printed = printed_.find(task);
  if (printed == printed_.end() || printed->second.time != header->time) return "";  // its beginning was lost
  if (header->part == kMapKey) {
    const std::uint64_t* const end = words + (header->bytes - sizeof *header) / sizeof *words;
    const std::uint64_t key_words = maps_[event.map].key_words;
    printed->second.rows.push_back({{words, words + key_words}, {words + key_words, end}});
    return "";
  }
  Printed whole = std::move(printed->second);
  printed_.erase(printed);
  return map_text(analysis_.maps[event.map], maps_[event.map], std::move(whole.rows), {whole.top, whole.divisor, true},
                  options_.format);
}

std::string Reader::events(std::uint64_t until) {
  std::string all;
  for (const Found& found : collect(until)) all += text(found);
  return all;
}

std::string Reader::all_maps() const {
  std::vector<std::size_t> order(maps_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return analysis_.maps[a].name < analysis_.maps[b].name; });
  std::string all;
  for (const std::size_t index : order) {
    const std::string& name = analysis_.maps[index].name;
    if (std::find(std::begin(kFunctionMaps), std::end(kFunctionMaps), name) != std::end(kFunctionMaps)) continue;
    all += map_text(analysis_.maps[index], maps_[index], read_rows(maps_[index]), {}, options_.format);
  }
  return all;
}

}  // namespace ubp::program
