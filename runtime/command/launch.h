// Starting the command that is probed.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace ubp::command {

// Statuses of env(1): of the command itself; what was found is no program; nothing was found.
inline constexpr int kFailed = 125, kNotExecutable = 126, kNotFound = 127;

// libubp.so: beside this program, or where it is installed. Empty: it is not there.
std::string library_path();

// Why a command cannot be probed, or be started at all.
struct Obstacle {
  std::string message, hint;
  int status = kFailed;
};

// The file that a command names, as execvp(3) finds it; through "#!" lines to what interprets it.
// found: receives its path. Returns whether the dynamic linker will load libubp into it.
bool can_be_probed(const std::string& command, std::string& found, Obstacle& obstacle);

// Starts it with libubp and its session in the environment. Returns its process id, or -1 with what went wrong.
pid_t launch(const std::vector<std::string>& command, const std::string& library, const std::string& session,
             Obstacle& obstacle);

// Whether a process was started by another one, or by what that has started.
bool descends_from(pid_t process, pid_t ancestor);

}  // namespace ubp::command
