// The line on a terminal that says that debug information is read, where that takes long. Nothing where standard error
// is no terminal.
//
// Context: the command, before it has started another. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <atomic>
#include <csignal>
#include <mutex>
#include <string>
#include <thread>

#include "runtime/report/report.h"

namespace ubp::command {

// As long as there is one. Libdw's calls may take a second each: so a thread of its own writes the line, and erases it
// where a signal ends the command.
class Reading {
 public:
  explicit Reading(std::string path = {});
  ~Reading() { end(); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

  void of(const std::string& path);  // what is read from here on
  void end();                        // erases it: before anything else is written

 private:
  void watch();

  std::mutex lock_;
  std::string path_;
  report::Progress progress_;
  sigset_t before_{}, signals_{};  // the thread's mask; what the other one waits for
  std::jthread watcher_;
  std::atomic<bool> is_over_ = false;
};

}  // namespace ubp::command
