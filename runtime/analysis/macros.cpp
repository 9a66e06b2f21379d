// Macros: a body takes the place of each use. See expand.h.
//
// A copy's nodes carry their expansion, and variables are told apart by it: a macro's own are none of its user's. What
// is passed keeps the expansion that it comes from.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/analysis/builtins.h"
#include "runtime/analysis/expand.h"

namespace ubp::program {
namespace {

using language::Macro;
using language::Node;
using language::NodeKind;
using language::NodePointer;
using language::Span;

constexpr std::uint32_t kMostNodes = 1 << 20, kHighestTree = 1000;  // of what macros expand to

class Macros {
 public:
  Macros(language::Program& program, std::vector<Diagnostic>& diagnostics)
      : program_(program), diagnostics_(diagnostics) {}
  void run();

 private:
  // A macro that is being expanded, with what was passed to it.
  struct Use {
    const Macro* macro;
    const std::vector<NodePointer>* arguments;
    std::uint32_t expansion;
  };

  NodePointer copy(const Node& node);        // within the innermost use
  NodePointer duplicate(const Node& node);   // as it is
  NodePointer substitute(const Node& node);  // null: the node names no parameter
  NodePointer call(NodePointer node);
  NodePointer instantiate(const Macro& macro, const Node& node);
  bool fits(const Macro& macro, const Node& node);
  NodePointer make(const Node& like);
  void finish(Node& node);
  const Node* argument(const std::string& parameter) const;
  void error(const Span& span, std::string message) {
    diagnostics_.push_back({span, std::move(message), {}, false});
    for (auto use = uses_.rbegin(); use != uses_.rend(); ++use)
      diagnostics_.back().expanded_from.push_back(program_.expansions[use->expansion - 1].span);
  }

  language::Program& program_;
  std::vector<Diagnostic>& diagnostics_;
  std::vector<Use> uses_;
  bool is_too_much_ = false;
};

void Macros::run() {
  for (std::size_t i = 0; i < program_.macros.size(); ++i) {
    const Macro& macro = program_.macros[i];
    const auto is_same = [&](const Macro& other) {
      return other.name == macro.name && other.parameters.size() == macro.parameters.size();
    };
    if (std::any_of(program_.macros.begin(), program_.macros.begin() + static_cast<std::ptrdiff_t>(i), is_same))
      error(macro.span, fmt::format("Redefinition of macro: {}", macro.name));
    for (const std::string& parameter : macro.parameters) {
      if (std::count(macro.parameters.begin(), macro.parameters.end(), parameter) > 1) {
        error(macro.span, fmt::format("The parameter {} has already been used", parameter));
        break;
      }
    }
  }
  for_each_tree(program_, [this](NodePointer& tree) { tree = copy(*tree); });
}

NodePointer Macros::make(const Node& like) {
  auto node = std::make_unique<Node>(Node{like.kind, like.span, uses_.empty() ? like.id : program_.nodes++});
  node->expansion = uses_.empty() ? like.expansion : uses_.back().expansion;
  node->text = like.text;
  node->number = like.number;
  node->operation = like.operation;
  return node;
}

void Macros::finish(Node& node) {
  for (const auto& child : node.children) node.height = std::max(node.height, child->height + 1);
  if ((node.height <= kHighestTree && program_.nodes <= kMostNodes) || std::exchange(is_too_much_, true)) return;
  error(node.span, "The macros expand to too much");
}

NodePointer Macros::duplicate(const Node& node) {
  NodePointer twin = make(node);
  twin->id = program_.nodes++;
  twin->expansion = node.expansion;
  for (const auto& child : node.children) twin->children.push_back(duplicate(*child));
  finish(*twin);
  return twin;
}

const Node* Macros::argument(const std::string& parameter) const {
  if (uses_.empty()) return nullptr;
  const std::vector<std::string>& names = uses_.back().macro->parameters;
  const auto found = std::find(names.begin(), names.end(), parameter);
  return found != names.end() ? (*uses_.back().arguments)[static_cast<std::size_t>(found - names.begin())].get()
                              : nullptr;
}

NodePointer Macros::substitute(const Node& node) {
  if (uses_.empty()) return nullptr;
  if (node.kind == NodeKind::kName || node.kind == NodeKind::kVariable) {
    const Node* const its = argument((node.kind == NodeKind::kVariable ? "$" : "") + node.text);
    return its != nullptr ? duplicate(*its) : nullptr;
  }
  if (node.kind == NodeKind::kDeclare && argument('$' + node.text) != nullptr)
    error(node.span, fmt::format("Variable declaration shadows macro arg ${}", node.text));
  if (node.kind != NodeKind::kMap) return nullptr;
  const Node* const its = argument(node.text);
  if (its == nullptr) {
    error(node.span,
          fmt::format("Unhygienic access to map: {}. Maps must be passed into the macro as arguments.", node.text));
    return nullptr;
  }
  NodePointer map = make(node);
  map->text = its->text;
  for (const auto& child : node.children) map->children.push_back(copy(*child));
  finish(*map);
  return map;
}

NodePointer Macros::copy(const Node& node) {
  if (NodePointer its = substitute(node); its != nullptr) return its;
  NodePointer twin = make(node);
  if (is_too_much_) return twin;
  for (const auto& child : node.children) twin->children.push_back(copy(*child));
  finish(*twin);
  if (node.kind == NodeKind::kIndex && twin->children[0]->kind == NodeKind::kType) {  // a type was passed
    twin->kind = NodeKind::kType;
    twin->text = fmt::format("[{}]", twin->children[1]->number);
    twin->children.pop_back();
    return twin;
  }
  if (node.kind == NodeKind::kCall || node.kind == NodeKind::kName) return call(std::move(twin));
  return twin;
}

// Whether what is passed is what the macro takes.
bool Macros::fits(const Macro& macro, const Node& node) {
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const std::string& parameter = macro.parameters[i];
    const Node& its = *node.children[i];
    const bool is_map = its.kind == NodeKind::kMap && its.children.empty();
    const bool is_variable = its.kind == NodeKind::kVariable;
    const std::string_view found = is_map ? "a map" : is_variable ? "a variable" : "an expression";
    const bool takes_map = parameter[0] == '@', takes_variable = parameter[0] == '$';
    if ((!takes_map || is_map) && (!takes_variable || is_variable)) continue;
    error(its.span, fmt::format("Mismatched arg. {}() expects a {} for arg {} but got {}.", macro.name,
                                takes_map ? "map" : "variable", parameter, found));
    return false;
  }
  return true;
}

NodePointer Macros::call(NodePointer node) {
  constexpr std::string_view kBuiltin = "__builtin_";
  if (node->text.starts_with(kBuiltin)) {  // never a macro
    node->text.erase(0, kBuiltin.size());
    return node;
  }
  const Macro* found = nullptr;
  std::size_t others = 0, wanted = 0;
  for (const Macro& macro : program_.macros) {
    if (macro.name != node->text) continue;
    if (macro.parameters.size() == node->children.size()) {
      found = &macro;
    } else {
      ++others;
      wanted = macro.parameters.size();
    }
  }
  if (found != nullptr) return fits(*found, *node) ? instantiate(*found, *node) : std::move(node);
  const bool is_builtin = find_function(node->text) != nullptr || find_builtin(node->text).has_value();
  if (others != 0 && !is_builtin)
    error(node->span, fmt::format("Call to {}() has the wrong number of arguments. Expected: {} but got {}.",
                                  node->text, wanted, node->children.size()));
  return node;
}

NodePointer Macros::instantiate(const Macro& macro, const Node& node) {
  const bool is_recursive =
      std::any_of(uses_.begin(), uses_.end(), [&](const Use& use) { return use.macro == &macro; });
  if (is_recursive) {
    std::string chain;
    for (const Use& use : uses_) chain += use.macro->name + " > ";
    error(node.span, fmt::format("Recursive macro call detected. Call chain: {}{}", chain, macro.name));
    return make(node);
  }
  program_.expansions.push_back({node.span, uses_.empty() ? 0 : uses_.back().expansion});
  uses_.push_back({&macro, &node.children, static_cast<std::uint32_t>(program_.expansions.size())});
  NodePointer body = copy(*macro.body);
  uses_.pop_back();
  const bool is_value = body->number != 0 && body->children.size() == 1;
  return is_value ? std::move(body->children[0]->children[0]) : std::move(body);  // a literal stays one
}

}  // namespace

void expand_macros(language::Program& program, std::vector<Diagnostic>& diagnostics) {
  Macros(program, diagnostics).run();
}

}  // namespace ubp::program
