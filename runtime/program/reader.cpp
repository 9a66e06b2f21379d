// See reader.h.
#include "runtime/program/reader.h"

#include <algorithm>
#include <tuple>

#include "runtime/program/text.h"

namespace ubp::program {
namespace {

std::vector<const EventHeader*> collect(const Machine& machine) {
  std::vector<const EventHeader*> events;
  for (std::uint64_t index = 0; index < machine.chunk_count; ++index) {
    auto* const chunk = reinterpret_cast<Chunk*>(machine.chunks + index * Chunk::kBytes);
    if (__atomic_load_n(&chunk->is_taken, __ATOMIC_RELAXED) == 0) continue;      // nothing is in it
    const std::uint64_t used = __atomic_load_n(&chunk->used, __ATOMIC_ACQUIRE);  // pairs with end_event()
    for (std::uint64_t at = 0; at < used;) {
      const auto* const header = reinterpret_cast<const EventHeader*>(chunk->data() + at);
      events.push_back(header);
      at += header->bytes;
    }
  }
  const auto part = [](const EventHeader* event) {
    return event->part == kMapKey ? 1 : event->part == kMapEnd ? 2 : 0;
  };
  std::stable_sort(events.begin(), events.end(), [&](const EventHeader* a, const EventHeader* b) {
    return std::tuple(a->time, a->task, part(a)) < std::tuple(b->time, b->task, part(b));
  });
  return events;
}

const std::uint64_t* words_of(const EventHeader* event) { return reinterpret_cast<const std::uint64_t*>(event + 1); }

}  // namespace

std::string events_text(const Analysis& analysis, const std::vector<MapView>& maps, const Machine& machine) {
  std::string text;
  const EventHeader* printed = nullptr;  // the map that is being read
  std::vector<Row> rows;
  for (const EventHeader* header : collect(machine)) {
    const Event& event = analysis.events[header->event];
    const std::uint64_t* const words = words_of(header);
    switch (header->part) {
      case kWhole:
        text += event.kind == Event::Kind::kFormat ? format_values(event.format, event.values, words)
                                                   : text_of(event.values.front(), words) + '\n';
        break;
      case kMapBegin:
        printed = header;
        rows.clear();
        break;
      case kMapKey: {
        const MapView& view = maps[event.map];
        const std::uint64_t* const end = words + (header->bytes - sizeof *header) / sizeof *words;
        rows.push_back({{words, words + view.key_words}, {words + view.key_words, end}});
        break;
      }
      default:
        if (printed == nullptr || printed->time != header->time || printed->task != header->task) break;
        text += text_of(analysis.maps[event.map], maps[event.map], std::move(rows), words_of(printed)[0],
                        words_of(printed)[1]);
        rows = {};
        printed = nullptr;
    }
  }
  return text;
}

std::string maps_text(const Analysis& analysis, const std::vector<MapView>& maps) {
  std::vector<std::size_t> order(maps.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return analysis.maps[a].name < analysis.maps[b].name; });
  std::string text;
  for (const std::size_t index : order)
    text += text_of(analysis.maps[index], maps[index], read_rows(maps[index]), 0, 0);
  return text;
}

}  // namespace ubp::program
