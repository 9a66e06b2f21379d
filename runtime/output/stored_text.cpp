// Values that exist for printing: times, addresses, users. See text.h.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <pwd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include "runtime/analysis/stack_text.h"
#include "runtime/output/text.h"

namespace ubp::program {
namespace {

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

std::uint64_t now_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec);
}

std::string inet_text(const std::uint64_t* words) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const int family = *words == AF_INET6 ? AF_INET6 : AF_INET;
  return inet_ntop(family, words + 1, text.data(), text.size()) != nullptr ? text.data() : "";
}

std::string mac_text(std::uint64_t word) {
  std::uint8_t bytes[6];
  std::memcpy(bytes, &word, sizeof bytes);
  return fmt::format("{:02X}:{:02X}:{:02X}:{:02X}:{:02X}:{:02X}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

// As /etc/passwd has it: other sources would load libraries, which is no good at the end of a process.
std::string user_text(std::uint64_t user) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/etc/passwd", "re"), &std::fclose);
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> room(4096);
  while (file != nullptr && fgetpwent_r(file.get(), &entry, room.data(), room.size(), &found) == 0) {
    if (entry.pw_uid == user) return entry.pw_name;
  }
  return fmt::format("{}", user);
}

}  // namespace

std::string time_text(const std::string& format, std::uint64_t boot_ns) {
  static const std::uint64_t wall_at_boot = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_BOOTTIME);
  const std::uint64_t wall = wall_at_boot + boot_ns;  // any number may be asked for
  const auto seconds = static_cast<std::time_t>(wall / kNsPerSecond);
  std::string whole;  // with %f replaced, which strftime() does not know
  for (std::size_t i = 0; i < format.size(); ++i) {
    const bool is_pair = format[i] == '%' && i + 1 < format.size();
    if (is_pair && format[i + 1] == 'f') {
      whole += fmt::format("{:06}", wall % kNsPerSecond / 1000);
    } else {
      whole.append(format, i, is_pair ? 2 : 1);
    }
    i += is_pair ? 1 : 0;
  }
  std::tm parts{};
  localtime_r(&seconds, &parts);
  whole += ' ';  // so that nothing else is the empty text
  std::string text(whole.size() * 4 + 256, '\0');
  text.resize(std::strftime(text.data(), text.size(), whole.c_str(), &parts));
  if (!text.empty()) text.pop_back();
  return text;
}

std::string stored_text(const Type& type, const std::uint64_t* words) {
  switch (type.kind) {
    case TypeKind::kTimestamp: return time_text(type.name, *words);
    case TypeKind::kInet: return inet_text(words);
    case TypeKind::kMac: return mac_text(*words);
    case TypeKind::kUsername: return user_text(*words);
    case TypeKind::kStack:
    case TypeKind::kSymbol: return type.stacks->text ? type.stacks->text(type, *words) : "";
    default: return "";
  }
}

}  // namespace ubp::program
