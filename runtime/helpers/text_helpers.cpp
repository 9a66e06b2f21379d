// What generated code does with texts, and whose names it asks the kernel for. See helpers.h.
#include <initializer_list>

#include "runtime/helpers/helpers.h"
#include "runtime/helpers/read_memory.h"
#include "runtime/trap/tls.h"
#include "xol/sys.h"

namespace ubp::program {
namespace {

// Behind its end a text has zeros.
char at(const char* text, std::uint64_t bytes, std::uint64_t index) { return index < bytes ? text[index] : '\0'; }

}  // namespace

std::uint64_t compare_texts(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes,
                            std::uint64_t most) {
  for (std::uint64_t i = 0; i < most; ++i) {
    const char a = at(left, left_bytes, i), b = at(right, right_bytes, i);
    if (a != b) return 1;
    if (a == '\0') return 0;
  }
  return 0;
}

std::uint64_t compare_bytes(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes,
                            std::uint64_t count) {
  const std::uint64_t longest = left_bytes > right_bytes ? left_bytes : right_bytes;
  for (std::uint64_t i = 0; i < count && i < longest; ++i) {
    if (at(left, left_bytes, i) != at(right, right_bytes, i)) return 1;
  }
  return 0;
}

std::uint64_t text_length(const char* text, std::uint64_t bytes) {
  std::uint64_t length = 0;
  while (at(text, bytes, length) != '\0') ++length;
  return length;
}

std::int64_t find_text(const char* text, std::uint64_t bytes, const char* wanted, std::uint64_t wanted_bytes) {
  for (std::uint64_t begin = 0;; ++begin) {
    std::uint64_t same = 0;
    char next = at(wanted, wanted_bytes, 0);
    while (next != '\0' && at(text, bytes, begin + same) == next) next = at(wanted, wanted_bytes, ++same);
    if (next == '\0') return static_cast<std::int64_t>(begin);
    if (at(text, bytes, begin + same) == '\0') return -1;  // what is left is too short
  }
}

void append_text(char* to, std::uint64_t to_bytes, const char* text, std::uint64_t bytes) {
  std::uint64_t end = text_length(to, to_bytes);
  for (std::uint64_t i = 0; end + 1 < to_bytes && at(text, bytes, i) != '\0'; ++i) to[end++] = text[i];
}

void choose_text(const char* table, std::uint64_t entries, std::uint64_t number, char* to) {
  const char* const entry = table + (number < entries ? number : entries - 1) * kNameEntry;
  for (std::uint64_t i = 0; i < kNameEntry; ++i) to[i] = entry[i];
}

// ---- Tasks

namespace {

// The name of a process as /proc has it: "" where it cannot be read.
void name_of_process(std::uint64_t process, char* to) {
  for (std::uint32_t i = 0; i < kTaskNameBytes; ++i) to[i] = '\0';
  if (!trap::may_ask()) return;
  char digits[24], path[40] = "/proc/";
  int count = 0, length = 6;
  do {
    digits[count++] = static_cast<char>('0' + process % 10);
    process /= 10;
  } while (process != 0);
  while (count > 0) path[length++] = digits[--count];
  for (const char c : {'/', 'c', 'o', 'm', 'm', '\0'}) path[length++] = c;
  constexpr long kHere = -100, kReadOnly = 0, kCloseOnExec = 02000000;  // AT_FDCWD, O_RDONLY, O_CLOEXEC
  const long file = sys::call4(SYS_openat, kHere, reinterpret_cast<long>(path), kReadOnly | kCloseOnExec);
  if (sys::failed(file)) return;
  sys::call4(SYS_read, file, reinterpret_cast<long>(to), kTaskNameBytes);
  sys::call4(SYS_close, file);
  for (std::uint32_t i = 0; i < kTaskNameBytes; ++i) {  // it ends with a newline
    if (to[i] == '\n' || i == kTaskNameBytes - 1) to[i] = '\0';
  }
}

}  // namespace

std::uint64_t numa_node(Run*) {
  std::uint32_t node = 0;
  if (trap::may_ask()) sys::call4(SYS_getcpu, 0, reinterpret_cast<long>(&node));
  return node;
}

std::uint64_t first_process(Run* run) { return run->machine->process; }
std::uint64_t parent_id(Run*) { return trap::may_ask() ? static_cast<std::uint32_t>(sys::call4(SYS_getppid, 0)) : 0; }

void thread_name(Run*, char* to) {
  constexpr long kGetName = 16;  // PR_GET_NAME: uapi/linux/prctl.h
  for (std::uint32_t i = 0; i < kTaskNameBytes; ++i) to[i] = '\0';
  if (trap::may_ask()) sys::call4(SYS_prctl, kGetName, reinterpret_cast<long>(to));
}
void parent_name(Run* run, char* to) { name_of_process(parent_id(run), to); }
void leader_name(Run* run, char* to) { name_of_process(process_id(run), to); }

}  // namespace ubp::program
