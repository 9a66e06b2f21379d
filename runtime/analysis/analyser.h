// The walk behind analyse(). Internal to runtime/program; calls of functions: analyse_calls.cpp.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/analysis/builtins.h"

namespace ubp::program {

class Analyser {
 public:
  Analyser(const language::Program& program, Analysis& analysis) : program_(program), out_(analysis) {
    out_.types = std::make_shared<const Types>(program.definitions);
  }
  void run();

 private:
  using Node = language::Node;

  void visit_all();
  void statement(const Node& node);
  void assignment(const Node& node);
  void assign_map(const Node& target, const Node& value, const Node& node);
  void declaration(const Node& node);
  void unrolled(const Node& node);
  void block(const Node& node, bool is_value = false);

  // analyse_loops.cpp
  void for_range(const Node& node);
  void for_map(const Node& node);
  void loop_body(const Node& node);
  std::uint32_t make_variable(const Node& node, const std::string& name);
  void condition(const Node& node);

  // Expressions: each notes the node's type and returns it.
  const Type& expression(const Node& node);
  Type type_of(const Node& node);
  Type binary(const Node& node);
  Type unary(const Node& node);
  Type increment(const Node& node);
  Type conditional(const Node& node);
  Type cast(const Node& node);

  // analyse_memory.cpp
  Type dereference(const Node& node);
  Type address_of(const Node& node);
  Type member(const Node& node);
  Type index(const Node& node);
  Type buffer(const Node& node);
  Type size_of(const Node& node);
  Type offset_of(const Node& node);
  Type cast_to_array(const Node& node, Type to, const Type& from);
  Type type_given(const Node& node);  // a kType, or the type of an expression
  Type named_type(std::string_view name, const Node& node);
  Type builtin(const Node& node);
  void need_arguments(const Node& node, std::string_view name);
  void of_call(const Node& node, bool is_of_call);
  Type mark_argument(std::uint32_t number);
  Type arguments(const Node& node);
  Type argument_named(const Node& node);
  Type block_value(const Node& node);
  Type if_value(const Node& node);
  Type map_value(const Node& node);
  Type type_of_value(const Node& node, const Map& map);  // as expressions have it
  Type variable(const Node& node);

  // analyse_calls.cpp
  Type call(const Node& node);
  Type aggregation(const Node& node, const FunctionRow& row);
  void histogram(const Node& node, Function function, Map& map);
  void series(const Node& node, Map& map);
  Type print(const Node& node);
  Type print_formatted(const Node& node, Event::Kind kind);
  Type tree(const Node& node);
  Type text(const Node& node);
  Type of_map(const Node& node, Function function);
  void find_key(const Node& node, const Map& map);
  bool literal(const Node& node, std::int64_t& value);
  bool constant(const Node& node, std::int64_t& value) const;  // also an expression of such
  const std::string* literal_text(const Node& node);           // null, after saying so: it is none

  // analyse_stacks.cpp: stacks and symbols
  Type stack(const Node& node);
  Type symbol(const Node& node);
  Type symbol_address(const Node& node);
  Type stored_by_address(TypeKind kind);

  // analyse_texts.cpp: functions of texts and times
  Type call_of_text(const Node& node, Function function);
  Type compare(const Node& node);
  Type clock(const Node& node);
  Type inet(const Node& node);
  Type inet_bytes(const Node& node);
  Type hardware_address(const Node& node);
  Type stamp(const Node& node);
  Type print_time(const Node& node);
  Type check(const Node& node);
  void need_text(const Node& node);

  Map& map_of(const Node& node);  // the one that a kMap names, made if need be
  void use_key(const Node& node, Map& map, bool has_key);
  void join_key(const Node& node, Map& map, const std::vector<const Node*>& keys);
  void need_number(const Node& node, std::string_view what);
  void need_hit(const Node& node, std::string_view what);
  std::uint32_t* find_variable(const Node& node);
  void assign_variable(std::uint32_t index, const std::string& name, const Type& type, const Node& node);
  bool widen(Type& into, const Type& from);
  std::uint32_t event_of(const Node& node);
  void site_of(const Node& node, Site::Kind kind);
  void new_site(std::uint32_t& index, const Node& node, Site::Kind kind);
  void error(const language::Span& span, std::string message, std::string hint = {});
  void warn(const language::Span& span, std::string message);
  void say(Diagnostic diagnostic);
  std::vector<language::Span> uses_of_macros() const;  // that the node is in, innermost first
  void declare_maps();

  // While a node is looked at: where it was expanded.
  class Expanded {
   public:
    Expanded(Analyser& analyser, const Node& node) : analyser_(analyser), before_(analyser.expansion_) {
      analyser_.expansion_ = node.expansion;
    }
    ~Expanded() { analyser_.expansion_ = before_; }
    Expanded(const Expanded&) = delete;
    Expanded& operator=(const Expanded&) = delete;

   private:
    Analyser& analyser_;
    std::uint32_t before_;
  };

  const language::Program& program_;
  Analysis& out_;
  // By the name, and where it was expanded; innermost last.
  std::vector<std::map<std::pair<std::string, std::uint32_t>, std::uint32_t>> scopes_;
  std::map<std::uint32_t, std::uint32_t> declared_;  // variables by the node that makes them
  std::map<std::string, std::uint32_t> maps_;
  std::uint32_t probe_ = 0;
  int loops_ = 0;
  std::uint32_t expansion_ = 0;  // that the node is in
  bool changed_ = false, is_last_ = false;
  const Node* assigned_call_ = nullptr;  // an aggregation that stands where one may
  Map* assigned_map_ = nullptr;
};

}  // namespace ubp::program
