// What a program has printed, as text or as JSON.
//
// Context: normal; while its blocks run, too, in this process or in another one that shares the memory.
// Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/helpers/memory.h"
#include "runtime/output/text.h"
#include "runtime/session/place.h"

namespace ubp::program {

class Reader {
 public:
  // They outlive this.
  Reader(const Analysis& analysis, const std::vector<MapView>& maps, const Machine& machine, ReaderOptions options);

  // The events of all tasks since the last call, by time: those up to a time of the timestamp counter.
  std::string events(std::uint64_t until = ~std::uint64_t{0});
  // In a forked child, whose memory is empty again: what was read counts no more.
  void restart() {
    read_.assign(read_.size(), 0);
    printed_.clear();
    tree_.restart();
  }
  // At the end, behind the events: the calls that have not returned.
  std::string open_calls() { return tree_.finish(); }
  // Gives the memory of what was read back to tasks. Only where nobody else reads.
  void recycle();

  // Every map that is not empty, by name.
  std::string all_maps() const;

 private:
  struct Found {
    const EventHeader* header;
    std::uint32_t process;
  };
  // A map that is being printed.
  struct Printed {
    std::uint64_t time = 0, top = 0, divisor = 0;
    std::vector<Row> rows;
  };

  Chunk& chunk(std::uint64_t index) const { return *reinterpret_cast<Chunk*>(machine_.chunks + index * Chunk::kBytes); }
  std::uint64_t chunks() const;  // that were ever used
  std::vector<Found> collect(std::uint64_t until);
  std::string text(const Found& found);

  const Analysis& analysis_;
  const std::vector<MapView>& maps_;
  const Machine& machine_;
  ReaderOptions options_;
  std::vector<std::uint64_t> read_;                                     // bytes of each chunk
  std::map<std::pair<std::uint32_t, std::uint32_t>, Printed> printed_;  // by process and task
  CallTree tree_;
};

// What went wrong at run time: how often stands behind the message. says_reads: also reads of memory and of maps that
// found nothing.
std::vector<Diagnostic> run_time_errors(const Analysis& analysis, const Place& place, bool says_reads);
// One of them as a line of JSON.
std::string json_error(const Diagnostic& error, const Sources& sources);

}  // namespace ubp::program
