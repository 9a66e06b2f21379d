// The recursive-descent parser of a probe's filter and block: bpftrace's language, as ubp-probes(7) has it.
//
// The list of items is spec.cpp's; this one is called where a '/' or a '{' stands behind a target, and leaves the
// cursor behind what it has read. The first failure ends the parse.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "runtime/language/lexer.h"
#include "runtime/language/tree.h"

namespace ubp::language {

class ProgramParser {
 public:
  // program: what was read of it so far.
  ProgramParser(std::string_view text, Cursor at, Program& program)
      : lexer_(text, at), definitions_(program.definitions), nodes_(program.nodes) {
    take();
  }

  // ["/" expression "/"] ["{" statements "}"]. False: span() and message() say what is wrong.
  bool parse(Probe& probe);
  // What stands before probes. Behind "config", "let", "macro".
  bool parse(std::vector<Setting>& settings);
  bool parse(MapDeclaration& declaration);
  bool parse(Macro& macro);

  // Behind the last token that was read.
  const Cursor& end() const { return last_end_; }
  const Span& span() const { return error_span_; }
  const std::string& message() const { return message_; }

 private:
  // Statements: null after a failure.
  NodePointer block();
  NodePointer statement();
  NodePointer if_statement();
  NodePointer loop(NodeKind kind);
  NodePointer for_loop();
  NodePointer return_statement();
  NodePointer declaration();
  NodePointer simple_statement();
  bool ends_statement() const;
  static bool is_loop(NodeKind kind);

  // Expressions, from the loosest binding to the tightest.
  NodePointer expression();
  NodePointer binary(int level);
  NodePointer unary();
  NodePointer postfix();
  NodePointer primary();
  NodePointer parenthesised();
  NodePointer variable();
  NodePointer map();
  NodePointer call(const Token& name);
  bool list(Node& node, std::string_view close);
  bool begins_type() const;
  NodePointer type();
  std::string macro_type() const;
  NodePointer type_or_value();
  NodePointer size_of(Cursor begin);
  NodePointer offset_of(Cursor begin);
  bool member_path(Node& node);
  NodePointer container_of(Cursor begin);
  NodePointer member(Cursor begin, NodePointer value);
  bool is_filter_end() const;

  NodePointer make(NodeKind kind, Cursor begin);
  NodePointer finish(NodePointer node);  // it ends where the last token did
  void take();                           // the next token becomes the current one
  bool accept(std::string_view sign);
  bool expect(std::string_view sign);
  NodePointer fail(const Span& span, std::string message);
  NodePointer unexpected();

  // Text may nest as deep as its writer likes; the stack does not.
  class Depth {
   public:
    explicit Depth(ProgramParser& parser) : parser_(parser) { ++parser_.depth_; }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    bool is_too_deep() const { return parser_.depth_ > 128; }

   private:
    ProgramParser& parser_;
  };
  NodePointer fail_too_deep() { return fail(token_.span(), "syntax: nested too deeply"); }
  int depth_ = 0;

  Lexer lexer_;
  Token token_;  // the current one, not read yet
  const Definitions& definitions_;
  Cursor last_end_;
  std::uint32_t& nodes_;
  bool in_filter_ = false;  // a '/' may end the expression
  Span error_span_;
  std::string message_;
};

}  // namespace ubp::language
