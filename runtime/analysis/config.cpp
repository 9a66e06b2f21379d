// See config.h.
#include "runtime/analysis/config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <iterator>

namespace ubp::program {
namespace {

constexpr std::string_view kPrefix = "bpftrace_";

struct Name {
  std::string_view name;
  std::uint64_t Config::*number = nullptr;
  std::string Config::*text = nullptr;
  bool Config::*flag = nullptr;
};
constexpr Name kNames[] = {
    {"max_strlen", &Config::max_strlen},
    {"max_map_keys", &Config::max_map_keys},
    {"max_cat_bytes", &Config::max_cat_bytes},
    {"max_probes", &Config::max_probes},
    {"str_trunc_trailer", nullptr, &Config::str_trunc_trailer},
    {"stack_mode", nullptr, &Config::stack_mode},
    {"print_maps_on_exit", nullptr, nullptr, &Config::print_maps_on_exit},
    {"cpp_demangle", nullptr, nullptr, &Config::cpp_demangle},
    {"show_debug_info", nullptr, nullptr, &Config::show_debug_info},
    {"count_probe_time", nullptr, nullptr, &Config::count_probe_time},
    {"missing_probes"},
    {"license"},
};
// They say something to bpftrace, and nothing here.
constexpr std::string_view kIgnored[] = {"cache_user_symbols", "dummy_ts_map",       "lazy_symbolication",
                                         "log_size",           "max_bpf_progs",      "on_stack_limit",
                                         "perf_rb_pages",      "unstable_dw_ustack", "unstable_import_statement",
                                         "unstable_tseries",   "unstable_typeinfo",  "use_blazesym"};
constexpr std::string_view kLicenses[] = {"Dual MIT/GPL", "Dual BSD/GPL", "Dual MPL/GPL", "GPL and additional rights",
                                          "GPL v2",       "GPL"};

std::string lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower;
}

std::string plain_name(std::string_view typed) {
  std::string name = lower(typed);
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

// Sets one. Returns what is wrong with the value; empty: nothing.
std::string set(Config& config, const Name& setting, std::string_view value) {
  const std::string word = lower(value);
  if (setting.number != nullptr) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size())
      return fmt::format("{}: expecting a number, got {}", setting.name, value);
    config.*setting.number = number;
    return "";
  }
  if (setting.text != nullptr) {
    config.*setting.text = value;
    return "";
  }
  if (setting.flag != nullptr) {
    if (word != "true" && word != "1" && word != "false" && word != "0")
      return fmt::format("{}: Invalid bool value: valid values are true, false, 1 or 0.", setting.name);
    config.*setting.flag = word == "true" || word == "1";
    return "";
  }
  if (setting.name == "license") {
    if (std::find(std::begin(kLicenses), std::end(kLicenses), value) != std::end(kLicenses)) return "";
    return fmt::format("Invalid value for license. Found: {}. Valid values: {}.", value,
                       fmt::join(std::begin(kLicenses), std::end(kLicenses), ", "));
  }
  constexpr std::pair<std::string_view, Config::Missing> kMissing[] = {
      {"error", Config::Missing::kError}, {"warn", Config::Missing::kWarn}, {"ignore", Config::Missing::kIgnore}};
  for (const auto& [name, missing] : kMissing) {
    if (word != name) continue;
    config.missing_probes = missing;
    return "";
  }
  return fmt::format("{}: Invalid value for missing_probes: valid values are ignore, warn, and error.", setting.name);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> settings_of_environment() {
  std::vector<std::pair<std::string, std::string>> settings;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view word(*variable);
    const std::size_t equals = std::min(word.find('='), word.size() - 1);
    if (lower(word.substr(0, kPrefix.size())) == kPrefix)
      settings.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return settings;
}

Config read_config(const language::Program& program, const Inputs& inputs, std::vector<Diagnostic>& diagnostics) {
  Config config;
  const auto assign = [&](const language::Span& span, const std::string& name, std::string_view value) {
    const std::string plain = plain_name(name);
    if (std::find(std::begin(kIgnored), std::end(kIgnored), plain) != std::end(kIgnored)) return;
    const auto* const setting =
        std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& known) { return known.name == plain; });
    std::string wrong = fmt::format("{}: not a known configuration option", name);
    if (setting != std::end(kNames)) {
      wrong = set(config, *setting, value);
    } else if (span.begin.line == 0) {
      return;  // the environment has names for other tools, too
    }
    if (!wrong.empty()) diagnostics.push_back({span, std::move(wrong), {}, false});
  };
  for (const language::Setting& setting : program.settings) assign(setting.span, setting.name, setting.value);
  for (const auto& [name, value] : inputs.settings) assign({{0, 0}, {0, 0}}, name, value);
  const auto bound = [&](std::string_view name, std::uint64_t value, std::uint64_t most) {
    if (value >= 1 && value <= most) return;
    const auto typed = std::find_if(program.settings.begin(), program.settings.end(),
                                    [&](const language::Setting& its) { return plain_name(its.name) == name; });
    const language::Span span = typed != program.settings.end() ? typed->span : language::Span{{0, 0}, {0, 0}};
    diagnostics.push_back({span, fmt::format("{} is 1 to {}", name, most), {}, false});
  };
  bound("max_strlen", config.max_strlen, kMostStringBytes);
  bound("max_map_keys", config.max_map_keys, kMostMapKeys);
  return config;
}

bool setting_value(const Config& config, std::string_view name, language::Node& node) {
  const auto* const setting =
      std::find_if(std::begin(kNames), std::end(kNames), [&](const Name& known) { return known.name == name; });
  if (setting == std::end(kNames)) return false;
  node.children.clear();
  if (setting->number != nullptr) {
    node.kind = language::NodeKind::kNumber;
    node.number = config.*setting->number;
  } else if (setting->flag != nullptr) {
    node.kind = language::NodeKind::kBool;
    node.number = config.*setting->flag ? 1 : 0;
  } else if (setting->text != nullptr) {
    node.kind = language::NodeKind::kString;
    node.text = config.*setting->text;
  } else {
    return false;
  }
  return true;
}

}  // namespace ubp::program
