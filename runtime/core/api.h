// What the preload entry needs beside ubp.h, through which it does everything else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/core/machine.h"
#include "runtime/include/ubp.h"
#include "runtime/report/summary.h"

namespace ubp::core {

// ubp_init(); is_embedding: by the application itself.
ubp_status initialise(const MachineConfig& config, bool is_embedding);

// Undoes initialise(): the preload entry has nothing to probe.
void give_up();

// As ubp_register() with the text of UBP_PROBES: its probes live until the process ends. Shows progress on a terminal.
ubp_status register_environment(std::string_view spec, std::uint32_t flags, ubp_probe** probe, ubp_refusal* refusal);

// The report's summary. Context: normal, or the exit in a signal handler. Empty when it cannot be had because this very
// thread was interrupted in a call of the interface.
report::Summary summary(const std::string& program);

// The entry's part of ubp_flush(): writes the files, returns false after saying why one cannot be written.
void set_flush(bool (*flush)());

// At exit: puts the text back byte for byte. Says why not.
void disarm_at_exit();

// What one registration cost, for UBP_LOG=info.
std::string costs(ubp_probe* probe);

}  // namespace ubp::core
