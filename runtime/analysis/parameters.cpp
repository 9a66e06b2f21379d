// Parameters, options and settings as literals. See expand.h.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <map>
#include <optional>
#include <utility>

#include "runtime/analysis/expand.h"
#include "runtime/language/text.h"

namespace ubp::program {
namespace {

using language::Node;
using language::NodeKind;
using language::NodePointer;
using language::Operator;

// A number as C writes it, and a sign before it.
struct Number {
  std::uint64_t value;
  bool is_negative;
};
std::optional<Number> number_of(std::string_view text) {
  Number number{0, text.starts_with('-')};
  if (number.is_negative) text.remove_prefix(1);
  const bool is_hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  if (is_hexadecimal) text.remove_prefix(2);
  const int base = is_hexadecimal ? 16 : text.size() > 1 && text[0] == '0' ? 8 : 10;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number.value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

class Placer {
 public:
  Placer(language::Program& program, const Inputs& inputs, const Config& config, std::vector<Diagnostic>& diagnostics)
      : program_(program),
        config_(config),
        diagnostics_(diagnostics),
        positional_(language::positional(inputs.parameters)) {
    for (const std::string& word : inputs.parameters) {
      if (!word.starts_with("--")) continue;
      const std::size_t equals = word.find('=');
      std::optional<std::string> value;
      if (equals != std::string::npos) value = word.substr(equals + 1);
      given_[word.substr(2, equals - 2)] = std::move(value);
    }
  }
  void run() {
    for_each_tree(program_, [this](NodePointer& tree) { visit(*tree); });
    check_options();
  }

 private:
  void visit(Node& node);
  bool place_text(Node& node);
  void place_option(Node& node);
  void make_text(Node& node, std::string text) const;
  void make_number(Node& node, const Number& number) const;
  void check_options();
  std::string parameter(std::uint64_t number) const {
    return number <= positional_.size() ? std::string(positional_[number - 1]) : "";
  }
  void error(const language::Span& span, std::string message, std::string hint = {}) {
    diagnostics_.push_back({span, std::move(message), std::move(hint), false});
  }

  language::Program& program_;
  const Config& config_;
  std::vector<Diagnostic>& diagnostics_;
  std::vector<std::string_view> positional_;
  std::map<std::string, std::optional<std::string>> given_;  // the options, as they were typed
  std::map<std::string, std::string> known_;                 // the program's, with what they are for
};

void Placer::make_text(Node& node, std::string text) const {
  node.kind = NodeKind::kString;
  node.text = std::move(text);
  node.number = 0;
  node.children.clear();
}

void Placer::make_number(Node& node, const Number& number) const {
  node.children.clear();
  node.text.clear();
  node.kind = NodeKind::kNumber;
  node.number = number.value;
  if (!number.is_negative) return;
  auto operand = std::make_unique<Node>(Node{NodeKind::kNumber, node.span, program_.nodes++});
  operand->number = number.value;
  node.kind = NodeKind::kUnary;
  node.operation = Operator::kNegate;
  node.number = 0;
  node.children.push_back(std::move(operand));
}

void Placer::visit(Node& node) {
  const bool is_call = node.kind == NodeKind::kCall;
  if (is_call && node.text == "str" && place_text(node)) return;
  if (is_call && node.text == "getopt") return place_option(node);
  if (node.kind == NodeKind::kMember && !node.text.empty()) {
    const Node& its = *node.children[0];
    const bool is_config = its.text == "config" && (its.kind == NodeKind::kCall || its.kind == NodeKind::kName);
    if (is_config && !setting_value(config_, std::string(node.text), node))
      error(node.span, fmt::format("{}: not a known configuration option", node.text));
    if (is_config) return;
  }
  for (const auto& child : node.children) visit(*child);
  if (node.kind != NodeKind::kParameter) return;
  if (node.number == 0) return make_number(node, {positional_.size(), false});
  const std::string text = parameter(node.number);
  const auto number = text.empty() ? Number{0, false} : number_of(text);
  number ? make_number(node, *number) : make_text(node, text);
}

// str($1), str($1 + 2), and a length behind.
bool Placer::place_text(Node& node) {
  if (node.children.empty() || node.children.size() > 2) return false;
  const Node* its = node.children[0].get();
  std::uint64_t skipped = 0;
  const bool is_sum = its->kind == NodeKind::kBinary && its->operation == Operator::kAdd;
  if (is_sum && its->children[1]->kind == NodeKind::kNumber) {
    skipped = its->children[1]->number;
    its = its->children[0].get();
  }
  if (its->kind != NodeKind::kParameter || its->number == 0) return false;
  std::string text = parameter(its->number);
  text.erase(0, std::min<std::uint64_t>(skipped, text.size()));
  if (node.children.size() == 2) {
    visit(*node.children[1]);
    const Node& length = *node.children[1];
    if (length.kind != NodeKind::kNumber || length.number == 0) return false;
    text.resize(std::min<std::uint64_t>(text.size(), length.number - 1));  // with its NUL
  }
  make_text(node, std::move(text));
  return true;
}

// getopt("name", default, "what it is for"): of its default's kind; a bool without one.
void Placer::place_option(Node& node) {
  const std::size_t count = node.children.size();
  if (count < 1 || count > 3)
    return error(node.span,
                 "The 'getopt' function can take a maximum of three arguments and a minimum of one argument.");
  if (node.children[0]->kind != NodeKind::kString)
    return error(node.children[0]->span, "First argument to 'getopt' must be a string literal.");
  if (count == 3 && node.children[2]->kind != NodeKind::kString)
    return error(node.children[2]->span, "Function 'getopt' requires the third parameter to be a string literal.");
  const std::string name = node.children[0]->text;
  const std::string help = count == 3 ? node.children[2]->text : "";
  const auto [known, is_new] = known_.try_emplace(name, help);
  if (!is_new && known->second.empty()) known->second = help;
  NodePointer otherwise;
  if (count > 1) {
    otherwise = std::move(node.children[1]);
    visit(*otherwise);
  } else {
    otherwise = std::make_unique<Node>(Node{NodeKind::kBool, node.span, program_.nodes++});
  }
  const Node& operand = otherwise->kind == NodeKind::kUnary ? *otherwise->children[0] : *otherwise;
  const bool is_number = operand.kind == NodeKind::kNumber && otherwise->operation != Operator::kNot;
  if (!is_number && otherwise->kind != NodeKind::kBool && otherwise->kind != NodeKind::kString) {
    return error(otherwise->span,
                 "Second argument to 'getopt' must be a string literal, integer literal, or a boolean literal.");
  }
  const auto option = given_.find(name);
  if (option == given_.end()) {
    otherwise->span = node.span;
    const std::uint32_t id = node.id;
    node = std::move(*otherwise);
    node.id = id;
    return;
  }
  const std::string value = option->second.value_or("");
  const auto wrong = [&](std::string_view what) {
    error({{0, 0}, {0, 0}}, fmt::format("program command line option --{} invalid {} (value: {})", name, what, value));
  };
  if (is_number) {
    const auto number = number_of(value);
    return number ? make_number(node, *number) : wrong("integer");
  }
  if (otherwise->kind == NodeKind::kString) return make_text(node, value);
  constexpr std::pair<std::string_view, bool> kWords[] = {{"true", true},   {"True", true},   {"1", true},
                                                          {"false", false}, {"False", false}, {"0", false}};
  const auto* const word = std::find_if(std::begin(kWords), std::end(kWords),
                                        [&](const auto& known_word) { return known_word.first == value; });
  if (option->second && word == std::end(kWords)) return wrong("boolean");
  node.children.clear();
  node.kind = NodeKind::kBool;
  node.number = !option->second || word->second ? 1 : 0;
}

// Those that the program does not know are mistakes; --help asks for the list.
void Placer::check_options() {
  std::string unexpected, expected;
  bool wants_help = false;
  for (const auto& [name, value] : given_) {
    if (known_.contains(name)) continue;
    wants_help |= name == "help";
    if (name != "help") unexpected += (unexpected.empty() ? "--" : ", --") + name;
  }
  for (const auto& [name, help] : known_) {
    const std::string line = help.empty() ? "--" + name : fmt::format("--{}: {}", name, help);
    expected += known_.size() == 1 ? ' ' + line : '\n' + line;
  }
  const std::string hint = "expected program options:" + (known_.empty() ? " none" : expected);
  if (!unexpected.empty()) {
    error({{0, 0}, {0, 0}}, "unexpected program command line options: " + unexpected, hint);
  } else if (wants_help) {
    error({{0, 0}, {0, 0}}, "", hint);
  }
}

}  // namespace

void place_inputs(language::Program& program, const Inputs& inputs, const Config& config,
                  std::vector<Diagnostic>& diagnostics) {
  Placer(program, inputs, config, diagnostics).run();
}

}  // namespace ubp::program
